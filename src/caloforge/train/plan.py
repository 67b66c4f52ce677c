r"""The plan of a training within a time: which network, how many epochs, and what comes of it.

A few steps of the real training are timed on the user's device, for batches of two sizes b, from which the time of a step follows as

.. math:: t(b) = t_0 + t_1 b .

With it a rule (:func:`flagship_values`, a pure function of the showers, the speeds and the time) chooses the settings of
``flow-matching``. Another model keeps its own settings, and all its numbers of epochs are reduced by one factor until they fit
(:func:`scaled_values`). The values become settings of the run as if a user had given them, and stand in its ``config.toml``: a training with
that file does the same without a plan. ``train.stage_seconds`` keeps the limit on a machine that is slower later.

The rule for the flagship:

- of the networks in :data:`SIZES` the largest that :data:`_ENOUGH` showers pass through in the time, since one that is trained too shortly is worse
  than a smaller one (docs/flagship.md: from 64 to 192 wide the AUC changes by 0.01);
- at most :data:`_EPOCHS` epochs. With 240 training showers the loss of the summary on those held out rises after 225 of them (docs/train.md);
- the largest batch that leaves :data:`_STEPS` steps;
- held out for the selection of the epoch are :data:`_SELECTION` showers, but 2 to 20 %;
- the calibration generates showers, and takes at most a part :data:`_CALIBRATION` of the time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from caloforge.errors import ConfigError
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch, Stage
from caloforge.train.data import TrainingFiles
from caloforge.train.dataset import CellDataset
from caloforge.train.settings import FLAGSHIP
from caloforge.train.updater import StageUpdater
from caloforge.units import say_seconds

__all__ = [
    "DEFAULT_SECONDS", "SIZES", "Facts", "Plan", "Speed", "StageSpeed", "flagship_values", "measure",
    "plan_training", "scaled_values",
]  # fmt: skip

DEFAULT_SECONDS = 1800.0
SIZES: Mapping[str, Mapping[str, Any]] = {
    "small": {"width": 64, "local": 0, "blocks": 2, "repeats": 1, "heads": 2},
    "medium": {"width": 64, "blocks": 3, "repeats": 1, "heads": 4},
    "large": {"width": 128, "blocks": 3, "repeats": 2, "heads": 4},
    "largest": {"width": 128, "blocks": 6, "repeats": 1, "heads": 4},
}
"""Networks of the cells, the fastest first. The last is that of the shipped models; the one before has half its weights."""
_ENOUGH = {"small": 0, "medium": 80_000, "large": 120_000, "largest": 400_000}
_FEW = 3_000  # training showers below which the network of most weights is not taken
_EPOCHS = {"summary": 300, "cells": 400}
_STEPS = 3_000
_BATCHES = (256, 128, 64, 32)
_SELECTION, _LEAST_SHARE, _MOST_SHARE = 2_000, 0.02, 0.2
_CALIBRATION = 0.12
_SUMMARY = 0.2  # part of the time of the networks for the summary
_LOOKS, _LOOKING, _LOOK_SHOWERS = (
    25,
    0.1,
    2_000,
)  # looks at the held-out showers, their part of the time, showers of each
_FORWARD = 0.37  # time of a network's output, of that of a step of its training
_CELL_EVALUATIONS, _SUMMARY_EVALUATIONS = 15, 31  # of the networks for a generated shower
_MARGIN = 0.92  # part of the time left that is planned for the networks
_LEAST_STEPS = 300  # of each stage of a training that deserves the name
_REPORT = {False: 45.0, True: 25.0}  # seconds of the report on an idle CPU; quick
_QUICK_BELOW = 600.0  # seconds in all below which the report is a quick one
_PROBE = (4, 16), (32, 256)  # showers of the timed steps on a CPU, on a GPU
_FIT = 200  # showers that a model is made ready with for the timing


@dataclass(frozen=True)
class Facts:
    """What a plan follows from, beside the speed."""

    showers: int  # that can be trained on or held out
    cells: int
    device: str  # cpu or cuda
    seconds: float  # in all
    used: float = 0.0  # seconds that passed before the training: reading, measuring
    report: bool = True  # whether the model is measured at the end
    slow: float = 1.0  # time by the clock over that of the processor
    train_size: int = 0  # showers to train on; 0: all that are not held out


@dataclass(frozen=True)
class StageSpeed:
    """Seconds of a step of b showers, ``fixed + each * b``, and what the stage is set to."""

    fixed: float
    each: float
    epochs: int = 0
    batch: int = 0

    def step(self, batch: int) -> float:
        """Return the seconds of a step."""
        return self.fixed + self.each * batch

    def passes(self, seconds: float, batch: int) -> float:
        """Return how many showers, each as often as it is used, pass through the network in some seconds."""
        return seconds * batch / self.step(batch)


Speed = Mapping[str, StageSpeed]
"""Of the stages that train, by their names."""


@dataclass(frozen=True)
class Plan:
    """A planned training."""

    model: str
    values: Mapping[str, Mapping[str, Any]]  # settings, tables "model" and "train"
    parts: Mapping[str, float]  # predicted seconds of each part of the work
    reasons: Sequence[str] = ()  # a line for each choice
    facts: Facts | None = None
    quick: bool = False  # whether the closing report is a quick one
    speed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # measured, for the record

    @property
    def seconds(self) -> float:
        """Predicted seconds in all."""
        return sum(self.parts.values())

    def lines(self) -> list[str]:
        """Return what was chosen and why, for people."""
        assert self.facts is not None
        f = self.facts
        first = f"plan: {self.model} for {f.showers:,} showers of {f.cells:,} cells on {f.device}, within {say_seconds(f.seconds)}"
        parts = ", ".join(f"{name} {say_seconds(s)}" for name, s in self.parts.items() if s >= 0.5)
        return [
            first,
            *(f"  {line}" for line in self.reasons),
            f"  time: about {say_seconds(self.seconds)} ({parts})",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``run.json``."""
        return {
            "time": self.facts.seconds if self.facts else None,
            "predicted_seconds": {name: round(s, 1) for name, s in self.parts.items()},
            "reasons": list(self.reasons),
            "measured": self.speed,
            "quick_report": self.quick,
        }


def _start(facts: Facts) -> str:
    """Return what a training of so many showers begins from: "nothing", or "gflash" once measurements say that it is better."""
    return "nothing"


def _batch_of(speed: StageSpeed, seconds: float, n: int) -> int:
    fitting = [b for b in _BATCHES if b <= n]
    for batch in fitting:
        if seconds / speed.step(batch) >= _STEPS:
            return batch
    return fitting[-1] if fitting else n


def _epochs(speed: StageSpeed, seconds: float, n: int, batch: int, most: int) -> int:
    per_epoch = max(1, n // batch) * speed.step(batch)
    return max(1, min(most, int(seconds / per_epoch)))


def _too_short(facts: Facts, needed: float) -> ConfigError:
    return ConfigError(
        f"--time: {say_seconds(facts.seconds)} is too short for {facts.showers:,} showers of {facts.cells:,} cells on this device; "
        f"expected at least about {say_seconds(1.05 * needed)}"
    )


def _closing(facts: Facts, shower: float, held_out: int) -> tuple[float, bool]:
    """Return the seconds of the closing measurement and whether it is a quick one."""
    quick = facts.seconds < _QUICK_BELOW
    return (held_out * shower + facts.slow * _REPORT[quick] if facts.report else 0.0), quick


def flagship_values(facts: Facts, speeds: Mapping[str, Speed], given: frozenset[str] = frozenset()) -> Plan:
    """Return the plan of the flagship.

    Arguments:
        speeds: Measured stages ``summary`` and ``cells`` of some of :data:`SIZES`, the fastest first; or of one network of the user's.
        given: Keys of the model's settings, and ``train.KEY``, that the user has set and that stay as they are.

    Raises:
        ConfigError: When the time is too short; says how much is needed.
    """
    share = float(np.clip(_SELECTION / facts.showers, _LEAST_SHARE, _MOST_SHARE))
    n = facts.train_size or max(1, round(facts.showers * (1.0 - share)))
    held_out = max(1, round(facts.showers * share))
    name = ""
    found: dict[str, Any] = {}
    for key, speed in speeds.items():
        summary, cells = speed["summary"], speed["cells"]
        shower = _FORWARD * (_CELL_EVALUATIONS * cells.each + _SUMMARY_EVALUATIONS * summary.each)
        closing, quick = _closing(facts, shower, held_out)
        most = int(_CALIBRATION * facts.seconds / (2.2 * shower))
        calibrated = int(min(n, 3_000, max(most, 100)))
        left = _MARGIN * (facts.seconds - facts.used - closing - 2.2 * calibrated * shower)
        if not found:
            small = min(_BATCHES[-1], n)
            least = _LEAST_STEPS * (summary.step(small) + cells.step(small)) / _MARGIN
            needed = facts.used + closing + 2.2 * min(calibrated, 100) * shower + least
            if left < _MARGIN * least:
                raise _too_short(facts, needed)
        enough = key not in _ENOUGH or (
            cells.passes((1.0 - _SUMMARY) * left, 32) >= _ENOUGH[key] and (key != "largest" or n >= _FEW)
        )
        if found and not enough:
            break
        name = key
        found = {"closing": closing, "quick": quick, "calibrated": calibrated, "shower": shower, "left": left}
    summary, cells = speeds[name]["summary"], speeds[name]["cells"]
    left, shower = found["left"], found["shower"]
    values: dict[str, Any] = {} if name not in SIZES else dict(SIZES[name])
    first = _SUMMARY * left
    batch = _batch_of(summary, min(first, _EPOCHS["summary"] * n * summary.each), n)
    epochs = _epochs(summary, first, n, batch, _EPOCHS["summary"])
    times = {"summary": epochs * max(1, n // batch) * summary.step(batch)}
    values |= {"summary_batch_size": batch, "summary_epochs": epochs}
    steps = {"summary": epochs * max(1, n // batch)}
    rest = left - times["summary"]
    reduced = 0
    if cells.passes(rest, 32) < 3 * n and not facts.train_size:
        reduced = max(10, int(cells.passes(rest, 32) / 3))
        n = min(n, reduced)
    batch = _batch_of(cells, min(rest, _EPOCHS["cells"] * n * cells.step(32) / 32), n)
    looking = _FORWARD * cells.each * max(_LOOK_SHOWERS, held_out)
    looks = int(np.clip(_LOOKING * rest / looking, 3, _LOOKS))
    epochs = _epochs(cells, rest - looks * looking, n, batch, _EPOCHS["cells"])
    times["cells"] = epochs * max(1, n // batch) * cells.step(batch) + looks * looking
    steps["cells"] = epochs * max(1, n // batch)
    values |= {
        "batch_size": batch, "epochs": epochs, "calibration": found["calibrated"],
        "summary": {"warmup": min(200, 1 + steps["summary"] // 20)},
        "optimizer": {"warmup": min(500, 1 + steps["cells"] // 20), "weight_decay": 0.1 if n < 20_000 else 0.05},
    }  # fmt: skip
    times["summary"] += looks * _FORWARD * summary.each * max(_LOOK_SHOWERS, held_out)
    room = max(1.0, left / _MARGIN / sum(times.values()))
    train: dict[str, Any] = {
        "validation": round(share, 4),
        "validate_every": max(1, min(values["summary_epochs"], epochs) // looks),
        "stage_seconds": {key: round(min(room, 1.5) * s, 1) for key, s in times.items()},
    }
    if reduced:
        train["train_size"] = n
    if facts.device == "cuda" and "train.precision" not in given:
        train["precision"] = "bf16"
    network = f"{values['width']} wide, {values['blocks']} blocks" if name in SIZES else "as set"
    why = {
        "small": "the fastest",
        "medium": "the second of four",
        "large": "the third of four",
        "largest": "that of the shipped models",
    }
    reasons = [
        f"network of the cells: {network}"
        + (f" ({why[name]}: {_passes(cells, rest)} in the time)" if name in why else ""),
        f"about {held_out:,} showers held out to choose the epoch, {n:,} to train on"
        + (" (more cannot be used three times in the time)" if reduced else ""),
        f"epochs: summary {values['summary_epochs']} of at most {_EPOCHS['summary']}, cells {epochs} of at most {_EPOCHS['cells']} "
        f"(more would only overfit), {steps['cells']:,} steps of {batch} showers, {say_step(cells.step(batch))} each",
    ]
    parts = {
        "before": facts.used,
        **times,
        "calibration": 2.2 * found["calibrated"] * shower,
        "closing measurement": found["closing"],
    }
    return Plan(
        FLAGSHIP, {"model": values, "train": train}, parts, reasons, facts, bool(found["quick"]), _record(speeds)
    )


def _passes(speed: StageSpeed, seconds: float) -> str:
    return f"{speed.passes(seconds, 32):,.0f} showers pass through it"


def say_step(seconds: float) -> str:
    """Return the time of a step for people."""
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{1e3 * seconds:.2g} ms"


def _record(speeds: Mapping[str, Speed]) -> dict[str, dict[str, float]]:
    """Return the measured seconds for ``run.json``."""
    return {
        f"{size} {stage}".strip(): {"step": round(s.fixed, 6), "shower": round(s.each, 8)}
        for size, speed in speeds.items()
        for stage, s in speed.items()
    }


def scaled_values(
    facts: Facts,
    model: str,
    settings: Mapping[str, Any],
    speed: Speed,
    share: float,
    given: frozenset[str] = frozenset(),
) -> Plan:
    """Return the plan of another model: its own settings, all numbers of epochs reduced by one factor until they fit.

    Arguments:
        settings: Its settings, as a nested dictionary.
        speed: Of its stages, with ``epochs`` and ``batch``.
        share: Part of the showers that is held out.
        given: Settings of the user's, which stay.

    Raises:
        ConfigError: When the time is too short; says how much is needed.
    """
    n = facts.train_size or max(1, round(facts.showers * (1.0 - share)))
    held_out = max(1, round(facts.showers * share))
    shower = _FORWARD * sum(s.each for s in speed.values())
    closing, quick = _closing(facts, shower, held_out)
    times = {
        name: s.epochs * max(1, n // max(1, s.batch)) * s.step(min(s.batch, n)) * 1.1
        for name, s in speed.items()
    }
    left = _MARGIN * (1.0 - _CALIBRATION) * (facts.seconds - facts.used - closing)
    total = sum(times.values())
    epochs = sum(s.epochs for s in speed.values())
    factor = min(1.0, left / total) if total else 1.0
    if left <= 0 or epochs * factor < min(len(speed), epochs):
        least = total * len(speed) / max(1, epochs)
        raise _too_short(facts, facts.used + closing + least / _MARGIN / (1.0 - _CALIBRATION))
    keys = [
        key
        for key, value in settings.items()
        if key.endswith("epochs") and isinstance(value, int) and value and key not in given
    ]
    values = {key: max(1, int(settings[key] * factor)) for key in keys} if factor < 1.0 else {}
    times = {name: factor * s for name, s in times.items()}
    most = {
        name: round(s * min(1.5, left / _MARGIN / max(1e-9, sum(times.values()))), 1)
        for name, s in times.items()
    }
    reason = (
        "its own numbers of epochs fit"
        if factor == 1.0
        else f"its numbers of epochs times {factor:.3f}: "
        + ", ".join(f"{key} {v}" for key, v in values.items())
    )
    parts = {"before": facts.used, **times, "closing measurement": closing}
    train = {"stage_seconds": {name: max(0.1, s) for name, s in most.items()}}
    return Plan(model, {"model": values, "train": train}, parts, [reason], facts, quick, _record({"": speed}))


def measure(
    model: ShowerModel, data: CellDataset, sizes: Sequence[int] | None = None, most: float = 20.0
) -> Speed:
    """Time a few steps of each stage of a model that is on the data's device; its weights are spoilt.

    Arguments:
        sizes: Showers of the timed steps; by default those of the device, and where there are fewer all.
        most: Seconds after which a stage is judged by the steps that were made.
    """
    found: dict[str, StageSpeed] = {}
    for stage in model.stages():
        if stage.step is None or not stage.epochs:
            continue
        small, large = (min(len(data), b) for b in (sizes or _PROBE[data.device.type == "cuda"]))
        updater = StageUpdater(stage, 1, torch.Generator(data.device).manual_seed(0))
        if stage.on_start is not None:
            stage.on_start(data, updater)
        model.train()
        began = time.monotonic()
        times = {small: _seconds(model, stage, updater, data.take(torch.arange(small)))}
        for batch in (small, large):
            if time.monotonic() - began < most:
                times[batch] = _seconds(model, stage, updater, data.take(torch.arange(batch)), 2)
        each = max(0.0, times.get(large, 0.0) - times[small]) / max(1, large - small)
        if large not in times or small == large or not each:
            each = times.get(large, times[small]) / max(times)
        found[stage.name] = StageSpeed(
            max(0.0, times[small] - each * small), each, stage.epochs, stage.batch_size
        )
    return found


def _seconds(model: ShowerModel, stage: Stage, updater: StageUpdater, batch: Batch, times: int = 1) -> float:
    """Return the mean seconds of a step."""
    assert stage.step is not None
    began = time.monotonic()
    for _ in range(times):
        with updater.autocast():
            stage.step(model.augment(batch, updater.generator), updater)
        updater.step += 1
    if updater.device.type == "cuda":
        torch.cuda.synchronize(updater.device)
    return (time.monotonic() - began) / times


def plan_training(
    model: str,
    files: TrainingFiles,
    settings: Mapping[str, Any],
    seconds: float,
    device: torch.device,
    began: float,
    given: frozenset[str] = frozenset(),
    report: bool = True,
) -> Plan:
    """Measure the speed of a model on some of its showers, and plan its training.

    Arguments:
        settings: Tables ``model`` and ``train`` as they are without a plan, the user's values in them.
        seconds: For everything, from ``began`` (``time.monotonic``) to the end of the closing measurement.
        given: Keys of the model's settings, and ``train.KEY``, that the user has set.
        report: Whether the model is measured at the end.

    Raises:
        ConfigError: When the time is too short; says how much is needed.
    """
    kind, own, train = MODELS[model], dict(settings["model"]), settings["train"]
    rows = np.arange(min(len(files), _FIT))
    clock, processor = time.monotonic(), time.process_time()

    def speed_of(change: Mapping[str, Any], sizes: Sequence[int] | None = None) -> Speed:
        made = kind(files.detector, kind.resolve({**own, **change}, "plan"))
        sample = files.showers(rows)
        made.fit_transforms(sample)
        data = CellDataset.of(sample, made.to(device), device)
        return measure(made, data, sizes, max(2.0, 0.01 * seconds))

    def facts() -> Facts:
        spent, used = time.monotonic() - clock, time.process_time() - processor
        slow = max(1.0, min(4.0, spent / used)) if device.type == "cpu" and used else 1.0
        size = int(train["train_size"]) if "train.train_size" in given else 0
        return Facts(
            len(files),
            files.detector.n_cells,
            device.type,
            seconds,
            time.monotonic() - began,
            report,
            slow,
            size,
        )

    if model != FLAGSHIP:
        sizes = [int(value) for key, value in own.items() if key == "batch_size"] * 2
        return scaled_values(
            facts(), model, own, speed_of({}, sizes or None), float(train["validation"]), given
        )
    if given & {"width", "blocks", "repeats", "heads", "local", "box", "preset", "feedback"}:
        return flagship_values(facts(), {"yours": speed_of({})}, given)
    speeds: dict[str, Speed] = {}
    for name, change in SIZES.items():
        speeds[name] = speed_of(change)
        room = (1.0 - _SUMMARY) * (seconds - (time.monotonic() - began))
        following = list(SIZES)[len(speeds)] if len(speeds) < len(SIZES) else ""
        if following and speeds[name]["cells"].passes(room, 32) < 1.5 * _ENOUGH[following]:
            break  # a slower one would see too few showers
    return flagship_values(facts(), speeds, given)
