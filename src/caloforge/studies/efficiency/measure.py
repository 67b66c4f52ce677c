"""One measurement: train on some Geant4 showers from some start, generate, compare with showers that were not seen.

The training showers are the first n of a random order of all, which depends on the seed, so that a larger set contains the smaller ones. Of
them ``validation`` are held out in the training, by which epochs are chosen: n counts them. The reference has no part in it.

The AUC is that of the two-sample test by gradient boosting on the observables (:mod:`caloforge.validate.metrics.classifiers`), in two folds; the detectability is
the number of showers a side with which that classifier reaches five standard deviations (:mod:`caloforge.statistics.learning_curve`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from caloforge.files import write_json
from caloforge.generate import Generator
from caloforge.random import child_seed, generator
from caloforge.showers import Showers, write_showers
from caloforge.statistics.learning_curve import fit_curve, learning_points
from caloforge.statistics.two_sample import Outcome, combine
from caloforge.text_files import read_json
from caloforge.train import RunFolder, train
from caloforge.validate.metrics.base import Settings
from caloforge.validate.metrics.classifiers import TrainedTests
from caloforge.validate.metrics.two_sample_data import pair_data
from caloforge.validate.sample import Sample
from caloforge.zoo.store import load

__all__ = [
    "START",
    "Comparison",
    "Effort",
    "Measured",
    "Start",
    "compare",
    "floor",
    "measure",
    "read_measured",
    "training_part",
]

Start = Literal["nothing", "gflash", "detector"]
START: Mapping[str, str] = {
    "nothing": "from nothing",
    "gflash": "pre-trained on gflash showers",
    "detector": "from another detector's model",
}
"""Starts, with their names for people."""
_MODEL = "flow-matching"
_LOOKS = 16  # looks at the held-out showers in a stage


@dataclass(frozen=True)
class Effort:
    """How much is trained."""

    preset: str = "improved"
    steps: int = 2000  # steps of the cells
    summary_steps: int = 3000  # steps of the summary
    batch: int = 128  # showers a step
    rate: float = 1e-3  # learning rate from nothing
    tuning_rate: float = 5e-4  # learning rate from weights
    precision: str = "32"
    validation: float = 0.15  # part of the training showers by which epochs are chosen
    pretrain_showers: int = 20_000
    pretrain_epochs: int = 15
    model: Mapping[str, Any] = field(default_factory=dict)  # further settings of the model
    max_seconds: float = 0.0  # limit of one training; 0: none

    def config(self, n: int, start: Start) -> dict[str, Any]:
        """Return the settings of a training on n showers, as ``caloforge train --config`` takes them."""
        least = max(10, round((1.0 - self.validation) * n))
        batch = min(self.batch, least)
        epochs, summary = (
            max(1, round(steps / (least // batch))) for steps in (self.steps, self.summary_steps)
        )
        rate = self.rate if start == "nothing" else self.tuning_rate
        optimiser = {
            "lr": rate,
            "weight_decay": 0.1,
            "warmup": min(100, max(1, self.steps // 10)),
            "ema": 0.995,
        }
        return {
            "model": {
                "preset": self.preset,
                "epochs": epochs,
                "summary_epochs": summary,
                "batch_size": batch,
                "summary_batch_size": batch,
                "calibration": 3000,
                "optimizer": optimiser,
                "summary": optimiser,
                **self.model,
            },
            "train": {
                "validation": self.validation,
                "validate_every": max(1, min(epochs, summary) // _LOOKS),
                "log_every": max(1, epochs // 10),
                "precision": self.precision,
                "max_seconds": self.max_seconds,
                "checkpoint_seconds": 1e6,
                "pretrain_showers": self.pretrain_showers,
                "pretrain_epochs": self.pretrain_epochs,
            },
        }


@dataclass(frozen=True)
class Comparison:
    """Generated against reference showers."""

    auc: float  # of the observables, by gradient boosting
    auc_error: float
    auc_cells: float  # of the cells
    detectability: float | None  # showers a side for five standard deviations; None when not reached
    showers: int  # of each side


@dataclass(frozen=True)
class Measured:
    """One training and its results."""

    detector: str
    cells: int  # of the detector
    start: str
    n: int  # Geant4 showers, held-out ones included
    seed: int
    auc: float
    auc_error: float
    auc_cells: float
    detectability: float | None
    generated: int
    seconds: float  # of the training alone
    device: str
    source: str = ""  # model that it started from
    floor: float | None = None  # AUC between halves of the reference

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.detector}-{self.start}-{self.n}-{self.seed}"

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{self.name}.json", asdict(self))


def read_measured(folder: Path) -> list[Measured]:
    """Return the measurements in a folder, by name of the file."""
    return [Measured(**read_json(path)) for path in sorted(folder.glob("*.json"))]


def training_part(showers: Showers, n: int, seed: int) -> Showers:
    """Return n of the showers, at random."""
    return showers.take(generator(seed, "data efficiency").permutation(len(showers))[:n])


def measure(
    showers: Showers,
    reference: Showers,
    start: Start,
    n: int,
    seed: int,
    effort: Effort,
    folder: Path,
    device: str = "auto",
    source: str | Path = "",
    name: str = "",
    boosting_floor: float | None = None,
) -> Measured:
    """Train, generate and compare.

    Arguments:
        showers: Geant4 showers to train on, of which n are taken.
        reference: Showers to compare with; as many are generated, under their conditions.
        source: Weights to start from, unless the start is ``nothing``; for ``gflash`` those of a pre-training, which is made when empty.
        folder: Where the run is kept.
        name: Name of the data set; by default the detector's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = write_showers(
        folder / f"showers-{n}-{seed}.h5", training_part(showers, n, seed), force=True, layout="sparse"
    )
    run = folder / f"{start}-{n}-{seed}"
    began = None if start == "nothing" or not source else str(source)
    pretrain = "gflash" if start == "gflash" and not source else None
    config = effort.config(n, start)
    path = train(
        _MODEL, file, run, config=config, device=device, seed=child_seed(seed, f"efficiency {n}") % 2**31, force=True,
        start=began, pretrain=pretrain,
    )  # fmt: skip
    info = RunFolder(path).read()
    found = compare(reference, generated(load(path, device), reference, seed), seed)
    return Measured(
        detector=name or reference.detector.name,
        cells=reference.detector.n_cells,
        start=start,
        n=n,
        seed=seed,
        auc=found.auc,
        auc_error=found.auc_error,
        auc_cells=found.auc_cells,
        detectability=found.detectability,
        generated=found.showers,
        seconds=float(info["wall_seconds"]),
        device=str(info["hardware"]),
        source="" if began is None else Path(began).parent.name,
        floor=boosting_floor,
    )


def generated(model: Generator, like: Showers, seed: int) -> Showers:
    """Return showers of a model under the conditions of others."""
    return Showers.concatenate(
        list(model.stream(len(like), like=like, seed=seed, batch_size=500, allow_extrapolation=True))
    )


def compare(reference: Showers, made: Showers, seed: int = 0) -> Comparison:
    """Compare generated with reference showers."""
    settings = Settings(quick=True, seed=seed)
    tests = TrainedTests(
        pair_data(Sample(reference, "reference"), Sample(made, "generated"), settings), settings
    )
    ((name, outcomes),) = tests.outcomes("observables").items()
    auc, error = combine(outcomes)
    cells = max(combine(found)[0] for found in tests.outcomes("cells").values())
    return Comparison(auc, error, cells, _detectability(tests, name, outcomes, seed), len(made))


def _detectability(tests: TrainedTests, name: str, outcomes: list[Outcome], seed: int) -> float | None:
    """Return the showers a side with which the observables distinguish the samples at five standard deviations."""
    auc, error = combine(outcomes)
    if auc - 0.5 < 2.0 * error:
        return None
    points = learning_points(tests.candidate("observables", name), tests.splits[0], tests.folds, seed)
    if len(points) < 2:
        return None
    curve = fit_curve(
        points, len(tests.splits[0].test.reference), tests.folds, np.random.default_rng(seed), replicas=10
    )
    value = curve.crossing(5.0).value
    return value if math.isfinite(value) else None


def floor(reference: Showers, seed: int = 0) -> float:
    """Return the AUC of the same classifier between two halves of the reference."""
    settings = Settings(quick=True, seed=seed)
    sample = Sample(reference, "reference")
    data = pair_data(sample, sample, settings).halves(seed)
    (outcomes,) = TrainedTests(data, settings).outcomes("observables").values()
    return combine(outcomes)[0]
