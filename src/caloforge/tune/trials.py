"""One trial of a study: train with some settings, stop early when there is no hope, measure accuracy and speed.

Everything is measured on the showers that the training itself holds out for the selection of epochs: the figure of accuracy,
on as many generated showers of the same conditions, and the time of a shower. Test showers are never touched.

**Stopping early.** Optuna has no pruning of several objectives. Here a trial is stopped at a quarter and at a half of each stage's epochs when
its figure is worse than the median of the earlier trials at the same place, counting only those whose showers take no longer (and
at least three of them): a trial that is faster than all others is never stopped, since it may be on the front. For trials of equal speed this is
the median rule of Vizier. In the last stage that is trained, figure and time are those of the study, of a copy of the model with the weights that
would be kept, for which later stages without epochs, such as calibrations, are fitted: the selection figure of a network before its
calibration can order trainings wrongly. In stages before, it is the stage's selection figure and the time of the model as it is.

References:
    D. Golovin et al., Google Vizier: a service for black-box optimization, KDD 2017, section 3.1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from caloforge.errors import CaloforgeError
from caloforge.generate.timing import speed_of, time_call
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel
from caloforge.random import child_seed
from caloforge.settings import merge
from caloforge.showers import Showers
from caloforge.statistics.two_sample import choose
from caloforge.train import RunFolder, held_out_showers, train
from caloforge.train.loop import Best, StageLoop
from caloforge.train.settings import Resolved
from caloforge.tune.space import Parameter, nested
from caloforge.units import plain_number
from caloforge.validate.metrics.base import Settings as MetricSettings
from caloforge.validate.metrics.classifiers import FeatureSet, TrainedTests
from caloforge.validate.metrics.two_sample_data import pair_data
from caloforge.validate.sample import Sample
from caloforge.zoo import load

__all__ = [
    "FIGURES",
    "RUNGS",
    "FailedTrialError",
    "InterruptedTrialError",
    "Job",
    "StoppedTrialError",
    "hopeless",
    "run_trial",
]

RUNGS = (0.25, 0.5)
"""Parts of a stage's epochs at which a trial may be stopped."""
_FEWEST = 3
"""Fewest earlier trials to be compared with."""
_SLACK = 1.05
"""Times that differ by less are equal."""
_MOST = 5000
"""Most showers a side of a figure of accuracy."""
_QUICK, _SLOW = 0.3, 1.0
"""Seconds in which the time of a shower is measured, at the beginning and at the end of a training."""

Compared = Sequence[tuple[float, float]]


class StoppedTrialError(CaloforgeError):
    """A trial that was ended since it has no hope."""


class FailedTrialError(CaloforgeError):
    """A trial without a result."""


class InterruptedTrialError(CaloforgeError):
    """A trial that was ended from outside: it is made again."""


@dataclass(frozen=True)
class Job:
    """What all trials of a study have in common."""

    folder: Path  # of the study
    model: str
    data: tuple[Path, ...]
    detector: str | Path | Detector | None  # of files that do not name their own
    base: Resolved  # the settings that are not varied
    space: tuple[Parameter, ...]
    figure: str  # name in FIGURES
    device: str
    seed: int
    trials: int  # trials in all
    trial_seconds: float = 0.0  # most seconds of a training; 0: no limit
    most_ms: float = math.inf  # most milliseconds a shower
    prune: bool = True  # stop trials without hope
    keep: bool = False  # keep the run folders of all trials
    deadline: float = math.inf  # time (``time.time``) after which the work ends
    workers: int = 1  # processes

    def run(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a training, as :func:`~caloforge.train.train` takes them, for values of the parameters."""
        base = self.base.as_dict()
        limit = {"max_seconds": self.trial_seconds} if self.trial_seconds else {}
        return {"model": merge(base["model"], nested(values)), "train": {**base["train"], **limit}}


def hopeless(figure: float, ms: float, others: Compared) -> bool:
    """Return whether a trial is to be stopped.

    Arguments:
        figure: Its figure; smaller is better.
        ms: Time of a shower.
        others: Figure and time of the earlier trials at the same place.
    """
    rivals = [theirs for theirs, time in others if time <= _SLACK * ms]
    return len(rivals) >= _FEWEST and figure > median(rivals)


@dataclass
class _Watch:
    """Looks at a training after each epoch: time limits, divergence, speed, and whether there is hope."""

    job: Job
    number: int
    stop: Callable[[], bool]  # whether the work is to end
    others: Callable[[str], Compared]  # figure and time of the earlier trials at a place
    record: Callable[[str, float, float], None]  # keeps place, figure and time of this one
    places: set[str] = field(default_factory=set)  # where this one was compared

    def __call__(self, loop: StageLoop, epoch: int, best: Best) -> None:
        stage, job = loop.stage, self.job
        if self.stop() or time.time() > job.deadline:
            raise InterruptedTrialError("interrupted")
        if not self.places:
            self.places.add("speed")
            if math.isfinite(job.most_ms) and (ms := _time(loop.model, loop)) > job.most_ms:
                raise StoppedTrialError(f"a shower takes {plain_number(ms)} ms, more than {job.most_ms:g} ms")
        passed = [rung for rung in RUNGS if rung <= epoch / stage.epochs]
        place = f"{loop.training}/{stage.name}/{passed[-1]:g}" if passed else ""
        if not passed or place in self.places or epoch == stage.epochs:
            return
        if not math.isfinite(best.value):
            if epoch >= job.base.train.validate_every:
                raise FailedTrialError(
                    f"diverged: no finite figure in {epoch} epochs of stage '{stage.name}'"
                )
            return
        self.places.add(place)
        if not job.prune:
            return
        others = self.others(place)
        figure, ms = self._so_far(loop, best)
        if not math.isfinite(figure):
            raise FailedTrialError(f"diverged: figure {figure} after {epoch} epochs of stage '{stage.name}'")
        self.record(place, figure, ms)
        if hopeless(figure, ms, others):
            msg = f"without hope after {epoch} of {stage.epochs} epochs of stage '{stage.name}': figure {plain_number(figure, 4)}"
            raise StoppedTrialError(msg)

    def _so_far(self, loop: StageLoop, best: Best) -> tuple[float, float]:
        """Return the figure and the time of a shower, ms, of the model that the training would leave if it ended now."""
        device = loop.data.device
        with torch.random.fork_rng():
            model = type(loop.model)(loop.model.detector, loop.model.config)
            model.load_weights(best.weights)
            model.to(device).eval()
            stages = model.stages()
            later = stages[[stage.name for stage in stages].index(loop.stage.name) + 1 :]
            if any(stage.fit is None for stage in later):
                return best.value, _time(model, loop)
            for stage in later:
                assert stage.fit is not None
                stage.fit(loop.sample, torch.Generator(device).manual_seed(loop.seed))

            def pair() -> tuple[Showers, Showers]:
                truth = _held_out(self.job, self.number)
                conditions = model.condition_matrix(truth).to(device)
                return truth, truth.replace(cells=model.draw(conditions).float().cpu().numpy())

            return FIGURES[self.job.figure](best.value, pair)[0], _time(model, loop)


def _held_out(job: Job, number: int) -> Showers:
    """Return the showers by which a trial is judged."""
    return held_out_showers(job.run(number), job.data)[:_MOST]


def _time(model: ShowerModel, loop: StageLoop) -> float:
    """Return the time of a shower of a model, ms."""
    assert loop.held_out is not None
    n = min(100, len(loop.held_out))
    conditions = loop.held_out.take(torch.arange(n, device=loop.held_out.device)).conditions
    threads = torch.get_num_threads()
    model.eval()  # as the loop leaves it after an epoch with a look at the held-out showers
    torch.set_num_threads(1)
    try:
        model.draw(conditions)
        device = conditions.device.type
        return time_call(lambda seed: model.draw(conditions, seed).cpu(), n, device, _QUICK, 10).cost_ms
    finally:
        torch.set_num_threads(threads)


Pair = Callable[[], tuple[Showers, Showers]]
"""Makes held-out showers and generated ones of the same conditions."""


def _selection(selection: float, pair: Pair) -> tuple[float, float]:
    """Return the figure by which the training kept its best epoch; it has no uncertainty."""
    return selection, math.nan


def _auc(which: FeatureSet, selection: float, pair: Pair) -> tuple[float, float]:
    """Return the AUC of gradient boosting in two folds, and its uncertainty."""
    settings = MetricSettings(quick=True, device="cpu", n_max=_MOST)
    truth, fake = pair()
    if not np.isfinite(fake.cells).all():
        raise FailedTrialError("diverged: generated cells are not finite")
    tests = TrainedTests(pair_data(Sample(truth, "truth"), Sample(fake, "fake"), settings), settings)
    found = choose(tests.merged((which,)))
    return found.auc, found.error


FIGURES: Mapping[str, Callable[[float, Pair], tuple[float, float]]] = {
    "auc-observables": partial(_auc, "observables"),
    "auc-cells": partial(_auc, "cells"),
    "auc-spectrum": partial(_auc, "spectrum"),
    "selection": _selection,
}
"""Figures of accuracy; smaller is better."""


def run_trial(
    job: Job,
    number: int,
    values: Mapping[str, Any],
    stop: Callable[[], bool],
    others: Callable[[str], Compared],
    record: Callable[[str, float, float], None],
) -> dict[str, Any]:
    """Run a trial into its run folder.

    Returns:
        ``figure`` and its ``uncertainty``, ``ms`` a shower and its ``ms_uncertainty``, ``seconds`` of the training,
        ``parameters``, and ``cut`` when the time of a trial ended its training before the last epoch.

    Raises:
        StoppedTrialError: When it has no hope.
        FailedTrialError: When it diverged.
        InterruptedTrialError: When the work is to end.
        CaloforgeError: What the training raised.
    """
    run = job.run(number)
    train(
        job.model, job.data, run, config=job.settings(values), device=job.device, seed=job.seed, force=True,
        detector=job.detector, watch=_Watch(job, number, stop, others, record),
    )  # fmt: skip
    info = RunFolder(run).read()
    truth, generator = _held_out(job, number), load(run, device=job.device)
    selection = min((float(value) for value in info["trainings"] if value is not None), default=math.nan)

    def pair() -> tuple[Showers, Showers]:
        # a few held-out showers may have more energy than any of the training
        return truth, generator.generate(
            like=truth, seed=child_seed(job.seed, "tune"), allow_extrapolation=True
        )

    figure, uncertainty = FIGURES[job.figure](selection, pair)
    if not math.isfinite(figure):
        raise FailedTrialError(f"diverged: {job.figure} is {figure}")
    speed = speed_of(generator, truth, seconds=_SLOW, allow_extrapolation=True)
    return {
        "figure": figure, "uncertainty": uncertainty, "ms": speed["ms"], "ms_uncertainty": speed["uncertainty"],
        "seconds": info["wall_seconds"], "parameters": info["parameters"], "cut": bool(info.get("stopped_early")),
    }  # fmt: skip
