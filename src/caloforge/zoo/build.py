"""Shipped models from recipes: train, ship, calibrate again, measure on sealed showers, and write cards.

Cards are measured with sealed showers alone. A stopped run continues and a finished one is not trained again; recipes have fixed numbers
of epochs and seeds, so that training again from nothing gives the same models, up to the rounding of the GPU's sums. The stage
``calibrate`` fits constants to training showers and trains no weight: when its method changes, it alone is repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from caloforge.errors import IncompatibleError
from caloforge.files import source_commit, source_digest, write_json
from caloforge.generate.timing import speed_of
from caloforge.models.stage import Stage
from caloforge.random import child_seed
from caloforge.showers.seen import identities
from caloforge.text_files import read_json, read_record
from caloforge.train import RunFolder
from caloforge.train.data import read_files
from caloforge.train.dataset import CellDataset
from caloforge.train.files import Files
from caloforge.validate.metrics.base import Settings
from caloforge.zoo.cards import measure, measure_card, open_test_showers
from caloforge.zoo.recipes import Jobs, Recipe, finished, found, require_unsealed, train_side_by_side
from caloforge.zoo.shipping import add_to_card, ship, write_weights
from caloforge.zoo.store import ZOO, Card, find_card, load

__all__ = ["STAGE", "ZooBuilder", "recalibrate"]


STAGE = "calibrate"
"""Name of the stage of a training that fits constants alone."""


def recalibrate(card: Card, data: Files, device: str = "cpu", seed: int = 0, n: int | None = None) -> Card:
    """Fit the calibration of a shipped model again, and write its weights and card.

    Arguments:
        data: Files of showers that the model was trained on.
        device: Where its showers are generated: ``cpu`` or ``cuda``.
        seed: Seed of the choice of showers and of the noise.
        n: Showers to fit to, at most; by default all.

    Returns:
        The card, with ``calibration``: the showers, the seed and the commit, without earlier measurements.

    Raises:
        IncompatibleError: When the model has no such stage, or has not seen some of the showers, which could be meant for judging it.
    """
    files = read_files(data)
    showers = files.showers()
    members = card.models()
    known = np.isin(identities(showers, members[0].detector), card.seen().all)
    if not known.all():
        msg = f"{card.name}: {int((~known).sum())} of {len(known)} showers were not used to train it; expected training showers alone"
        raise IncompatibleError(msg)
    order = np.random.default_rng(child_seed(seed, "recalibration")).permutation(len(showers))
    chosen = showers[order[:n]]
    where = torch.device(device)
    for number, model in enumerate(members):
        if hasattr(model.config, "calibration"):
            model.config = model.config.model_copy(update={"calibration": len(chosen)})
        stage = _stage(card, model.stages())
        model.to(where)
        data_set = CellDataset.of(chosen, model, where)
        assert stage.fit is not None
        stage.fit(data_set, torch.Generator(where).manual_seed(child_seed(seed, "recalibration", number)))
        model.cpu()
    facts = {"data": files.facts, "showers": len(chosen), "seed": seed, "commit": source_commit()}
    eight_bits = any(one.get("bits") == 8 for one in card.content["weights"])
    weights = write_weights(members, card.path, eight_bits)
    content = {key: value for key, value in card.content.items() if key not in ("metrics", "speed")}
    write_json(card.path, content | {"weights": weights, "calibration": facts})
    return find_card(card.name, card.path.parents[1])


def _stage(card: Card, stages: tuple[Stage, ...]) -> Stage:
    for stage in stages:
        if stage.name == STAGE and stage.fit is not None:
            return stage
    msg = f"{card.name}: has no stage '{STAGE}'; its stages are {', '.join(stage.name for stage in stages)}"
    raise IncompatibleError(msg)


_MEASURES = ("statistics", "validate", "zoo", "generate")
"""Parts of the package whose code decides the figures of a card."""


@dataclass(frozen=True)
class ZooBuilder:
    """Builds shipped models."""

    recipes: Mapping[str, Recipe]  # recipes by ``DATASET/MODEL``
    sealed: Mapping[str, Collection[int]]  # sealed simulation seeds of each data set
    data: Path  # folder of the training showers
    test: Path | None = None  # folder of the sealed showers; None for ``data``
    jobs: Jobs = field(default_factory=lambda: Jobs(Path("runs")))  # where trainings run
    zoo: Path = ZOO  # folder of the weights and cards
    n: int | None = None  # showers at most to measure with or to calibrate on; None for all
    settings: Settings = field(default_factory=lambda: Settings(seed=1))  # settings of the metrics
    metrics: Sequence[str] | None = None  # metrics of the cards; None for all that run unless switched off

    def train(self) -> list[str]:
        """Train all recipes and time them on the GPU; return the names of those that failed.

        Raises:
            InputError: When a file is missing, or has sealed showers of the model's data set.
        """
        files = {name: self._training_files(name) for name in self.recipes}
        for name, paths in files.items():
            require_unsealed(name, paths, self.sealed)
        self.jobs.runs.mkdir(parents=True, exist_ok=True)
        failed = train_side_by_side(self.recipes, files, self.jobs)
        if self.jobs.gpu_numbers() and self.jobs.device in (None, "cuda"):
            for name in self.recipes:
                if name not in failed:
                    self._time_on_gpu(self.jobs.runs / name, files[name])
        return failed

    def gather(self, name: str) -> Card | None:
        """Ship a finished run: weights, card, metrics on sealed showers, speed; None when it is not trained."""
        run = self.jobs.runs / name
        if not finished(run):
            print(f"{name}: is not trained; left out", flush=True)
            return None
        files = self._training_files(name)
        require_unsealed(name, files, self.sealed)
        recipe = self.recipes[name]
        card = ship(run, name, files, self.zoo, recipe.best, recipe.eight_bits)
        with ExitStack() as stack:
            model = card.generator()
            detector, paths = card.content["detector"], self._test_files(name, needed=False)
            test = open_test_showers(stack, detector, paths, model, self._seeds(name))
            key = {
                "weights": [entry["sha256"] for entry in card.content["weights"]],
                "test": [{k: part[k] for k in ("sha256", "showers") if k in part} for part in test.described],
                "n": self.n,
                "settings": self.settings.model_dump(mode="json"),
                "metrics": None if self.metrics is None else list(self.metrics),
                "code": source_digest(*_MEASURES),
            }
            store = run / "test-metrics.json"
            known = read_record(store) or {}
            if known.get("key") != key:
                print(f"{name}: measured against {len(test.showers)} showers", flush=True)
                metrics = measure(model, test, self.settings, n=self.n, names=self.metrics)
                known = {"key": key, "metrics": metrics}
                write_json(store, known)
            known["metrics"]["reference"]["parts"] = list(test.described)
            speed = {"cpu": speed_of(model, test.showers)}
        if (run / "speed.json").exists():
            speed["gpu"] = read_json(run / "speed.json")
        card = add_to_card(card, {"metrics": known["metrics"], "speed": speed})
        size = sum(entry["bytes"] for entry in card.content["weights"])
        print(f"wrote {card.path} ({size / 1e6:.2f} MB of weights)", flush=True)
        return card

    def remeasure(self, name: str) -> Card:
        """Measure shipped weights again, without a run folder, and write the card."""
        paths = self._test_files(name)
        print(f"{name}: measured against {', '.join(path.name for path in paths)}", flush=True)
        how = self._seeds(name), self.n, self.settings, self.metrics
        card = measure_card(find_card(name, self.zoo), paths, *how)
        reference = card.content["metrics"]["reference"]
        print(f"wrote {card.path} ({reference['n']} showers, sealed: {reference['sealed']})", flush=True)
        return card

    def recalibrate(self, name: str) -> Card:
        """Fit the calibration of shipped weights again, to those of the recipe's files that are in the folder."""
        device = "cuda" if self.jobs.device == "cuda" else "cpu"
        files = found(self.recipes[name].data, [self.data], needed=False)
        card = recalibrate(find_card(name, self.zoo), files, device, n=self.n)
        n = card.content["calibration"]["showers"]
        print(f"wrote {card.path} (calibrated on {n} showers)", flush=True)
        return card

    def _training_files(self, name: str) -> list[Path]:
        return found(self.recipes[name].data, [self.data])

    def _test_files(self, name: str, needed: bool = True) -> list[Path]:
        folders = [self.data] if self.test is None else [self.data, self.test]
        return found(self.recipes[name].held, folders, needed)

    def _seeds(self, name: str) -> Collection[int]:
        return self.sealed.get(name.partition("/")[0], ())

    def _time_on_gpu(self, run: Path, files: Sequence[Path]) -> None:
        """Time a trained model alone on the GPU, once, at the batch size of the CPU's time and at a large one."""
        store = run / "speed.json"
        if store.exists() and store.stat().st_mtime >= RunFolder(run).info.stat().st_mtime:
            return
        model = load(run, "cuda")
        with ExitStack() as stack:
            like = open_test_showers(stack, model.detector.name, files[:1]).showers[:10_000]
        facts = speed_of(model, like)
        write_json(store, {**facts, "large_batch": speed_of(model, like, batch=min(10_000, len(like)))})
