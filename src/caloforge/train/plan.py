"""The plan of a training within a time: which network, how many epochs, and what to expect of it.

A rule, a pure function of the showers, the measured speeds (:mod:`~caloforge.train.speed`) and the time, chooses settings of ``flow-matching``
(:func:`flagship_plan`). Another model keeps its settings, and all its numbers of epochs are reduced by one factor until they fit
(:func:`scaled_plan`). The values become settings of the run as if a user had given them and stand in its ``config.toml``: a training with that
file is the same without a plan. ``train.stage_seconds`` keeps to the time on a machine that becomes slower.

The rule for the flagship:

- of the networks in :data:`SIZES` the largest that is trained on ``enough`` showers in the time, each counted as often as it is used: one that is
  trained too shortly is worse than a smaller one, and from 64 to 192 wide the AUC changes by 0.01 (docs/flagship.md);
- at most :func:`most_epochs`: with 237 training showers the held-out loss of the summary rises after about 225 epochs, that of the cells after
  80 (docs/train.md). The learning rate falls to 0 with the last epoch, and the best epoch on the held-out showers is kept;
- the largest batch that leaves :data:`_STEPS` steps, and the stronger weight decay of the shipped models where showers are few;
- held out for the selection of the epoch are :data:`_SELECTION` showers, but at most 20 %;
- looks at them take a tenth of the time, and the calibration, which generates showers, about an eighth.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from caloforge.errors import ConfigError
from caloforge.models import MODELS
from caloforge.train.data import TrainingFiles
from caloforge.train.dataset import CellDataset
from caloforge.train.expected import expected_accuracy
from caloforge.train.settings import FLAGSHIP
from caloforge.train.speed import Speed, StageSpeed, measure_speed
from caloforge.units import say_seconds

__all__ = [
    "DEFAULT_SECONDS",
    "SIZES",
    "Facts",
    "Plan",
    "flagship_plan",
    "plan_training",
    "scaled_plan",
]

DEFAULT_SECONDS = 1800.0
"""Time of a training of which neither model nor time was named."""


class Size(NamedTuple):
    """A network of the cells."""

    settings: Mapping[str, Any]
    enough: int  # showers, each counted as often as it is used, that it takes to be better than a smaller one
    fewest: int  # different showers that it takes
    note: str


SIZES = {
    "small": Size({"width": 64, "local": 0, "blocks": 2, "repeats": 1, "heads": 2}, 0, 0, "the fastest of four"),
    "medium": Size({"width": 64, "blocks": 3, "repeats": 1, "heads": 4}, 80_000, 0, "the second of four"),
    "large": Size({"width": 128, "blocks": 3, "repeats": 2, "heads": 4}, 120_000, 0, "the third of four"),
    "largest": Size({"width": 128, "blocks": 6, "repeats": 1, "heads": 4}, 400_000, 3_000, "that of the shipped models"),
}  # fmt: skip
"""Networks from the fastest on."""
_STRUCTURE = frozenset(
    {"preset", "box", "feedback", *(key for size in SIZES.values() for key in size.settings)}
)
_EPOCHS = {"summary": 300, "cells": 200}
_FEW, _FEW_EPOCHS = 1_000, 100  # training showers below which the cells have fewer epochs
_STEPS, _LEAST_STEPS = 3_000, 300  # of a stage: wanted; without which it is no training
_BATCHES = (256, 128, 64, 32)
_SELECTION, _MOST_SHARE = 2_000, 0.2
_SUMMARY = 0.3  # part of the time of the networks for the summary, at most: it decides about the observables, and takes little
_LOOKS, _LOOKING, _LOOK_SHOWERS = (
    25,
    0.1,
    2_000,
)  # looks at the held-out showers, their part of the time, showers of each
_CALIBRATION, _CALIBRATED = 0.12, 3_000  # part of the time, most showers
_DRAWS = 2.2  # showers generated for each that the calibration is fitted to, the fits included
_FORWARD = 0.37  # time of a network's output, of that of a step of its training
_EVALUATIONS = {"cells": 15, "summary": 31}  # of the networks for a generated shower
_MARGIN = 0.92  # part of the time left that is planned for the networks
REPORT_SECONDS, _QUICK_SECONDS = 45.0, 25.0  # of the report on an idle CPU; of a quick one
_QUICK_BELOW, _SAMPLE = (
    600.0,
    200,
)  # seconds in all below which it is one; showers that a model is made ready with for the timing


@dataclass(frozen=True)
class Facts:
    """What a plan follows from, beside the speed."""

    showers: int  # to train on or to hold out
    cells: int
    device: str  # cpu or cuda
    seconds: float  # in all
    used: float = 0.0  # seconds that passed before: reading, measuring the speed
    report: bool = True  # whether the model is measured at the end
    slow: float = 1.0  # time by the clock over the processor's: above 1 where others use the machine
    train_size: int = 0  # showers to train on; 0: all that are not held out

    def divided(self, share: float) -> tuple[int, int]:
        """Return how many showers to train on and how many to hold out, if a share of them is held out."""
        held_out = max(1, round(self.showers * share))
        return self.train_size or max(1, self.showers - held_out), held_out

    def too_short(self, needed: float) -> ConfigError:
        """Return the error of a time that is too short."""
        return ConfigError(
            f"--time: {say_seconds(self.seconds)} is too short for {self.showers:,} showers of {self.cells:,} cells on this "
            f"device; expected at least about {say_seconds(1.1 * needed)}"
        )

    @property
    def quick(self) -> bool:
        """Whether the report is a quick one."""
        return self.seconds < _QUICK_BELOW

    def closing(self, shower: float, held_out: int) -> float:
        """Return the seconds of the closing measurement, a generated shower taking so many."""
        return (
            held_out * shower + self.slow * (_QUICK_SECONDS if self.quick else REPORT_SECONDS)
            if self.report
            else 0.0
        )


@dataclass(frozen=True)
class Plan:
    """A planned training."""

    model: str
    values: Mapping[str, Mapping[str, Any]]  # settings: tables "model" and "train"
    facts: Facts
    parts: Mapping[str, float]  # predicted seconds of each part of the work
    reasons: Sequence[str]  # a line for each choice
    expected: str = ""  # the accuracy to expect, in words
    speeds: Mapping[str, Speed] = field(default_factory=dict)  # measured

    @property
    def seconds(self) -> float:
        """Predicted seconds in all."""
        return sum(self.parts.values())

    def lines(self) -> list[str]:
        """Return what was chosen and why, for people."""
        f = self.facts
        parts = ", ".join(f"{name} {say_seconds(s)}" for name, s in self.parts.items() if s >= 0.5)
        return [
            f"plan: {self.model} for {f.showers:,} showers of {f.cells:,} cells on {f.device}, within {say_seconds(f.seconds)}",
            *(f"  {line}" for line in self.reasons),
            *(f"  to expect: {line}" for line in (self.expected,) if line),
            f"  time: about {say_seconds(self.seconds)} ({parts})",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``run.json``."""
        return {
            "seconds": self.facts.seconds,
            "predicted_seconds": {name: round(s, 1) for name, s in self.parts.items()},
            "reasons": list(self.reasons),
            "expected": self.expected,
            "quick_report": self.facts.quick,
            "step_seconds": {
                f"{size} {name}".strip(): {"fixed": round(s.fixed, 6), "each": round(s.each, 8)}
                for size, speed in self.speeds.items()
                for name, s in speed.items()
            },
        }


def start_of(given: frozenset[str]) -> str:
    """Return what a training begins from, as :func:`~caloforge.train.expected.expected_accuracy` names it, by the keys that the user has set."""
    if "train.start" in given:
        return "detector"
    return "gflash" if "train.pretrain" in given else "nothing"


def _expectation(showers: int, cells: int, start: str) -> str:
    """Return what accuracy to expect; with few showers from nothing, also that after a pre-training."""
    found, better = (expected_accuracy(showers, cells, name) for name in (start, "gflash"))
    if found is None or start != "nothing" or showers > 2 * _FEW or better is None or better.auc >= found.auc:
        return str(found or "")
    return f"{found}; after --pretrain gflash about {better.auc:.2f}"


def most_epochs(n: int) -> dict[str, int]:
    """Return the most epochs of the stages with n training showers: more would only overfit."""
    return _EPOCHS | ({"cells": min(_FEW_EPOCHS, _EPOCHS["cells"])} if n < _FEW else {})


@dataclass(frozen=True)
class _Room:
    """The time that a network of some speed has."""

    shower: float  # seconds of a generated shower
    closing: float
    calibrated: int  # showers of the calibration
    networks: float  # seconds for the training of the networks

    @classmethod
    def of(cls, facts: Facts, speed: Speed, n: int, held_out: int) -> _Room:
        shower = _FORWARD * sum(times * speed[name].each for name, times in _EVALUATIONS.items())
        closing = facts.closing(shower, held_out)
        affordable = int(_CALIBRATION * facts.seconds / (_DRAWS * shower))
        calibrated = int(min(n, _CALIBRATED, max(affordable, 100)))
        left = facts.seconds - facts.used - closing - _DRAWS * calibrated * shower
        return cls(shower, closing, calibrated, _MARGIN * left)


def _stage(speed: StageSpeed, seconds: float, n: int, most: int) -> tuple[int, int, float]:
    """Return batch, epochs (at most so many) and seconds of a stage of n showers within some seconds."""
    fitting = [size for size in _BATCHES if size <= n] or [n]
    for batch in fitting:
        steps = max(1, n // batch)
        epochs = max(1, min(most, int(seconds / (steps * speed.step(batch)))))
        if epochs * steps >= _STEPS:
            break
    return batch, epochs, epochs * steps * speed.step(batch)


def flagship_plan(facts: Facts, speeds: Mapping[str, Speed], given: frozenset[str] = frozenset()) -> Plan:
    """Return the plan of the flagship.

    Arguments:
        speeds: Of the stages ``summary`` and ``cells`` of some of :data:`SIZES`, the fastest first, or of the user's network alone.
        given: Keys of the model's settings, and ``train.KEY``, that the user has set.

    Raises:
        ConfigError: When the time is too short; says how much is needed.
    """
    share = min(_MOST_SHARE, _SELECTION / facts.showers)
    n, held_out = facts.divided(share)
    name = next(iter(speeds))
    room = _Room.of(facts, speeds[name], n, held_out)
    least = _LEAST_STEPS * sum(s.step(min(_BATCHES[-1], n)) for s in speeds[name].values()) / _MARGIN
    if room.networks < _MARGIN * least:
        calibration = _DRAWS * min(room.calibrated, 100) * room.shower
        raise facts.too_short(facts.used + room.closing + calibration + least)
    for other, speed in list(speeds.items())[1:]:
        larger = _Room.of(facts, speed, n, held_out)
        trained = speed["cells"].passes((1.0 - _SUMMARY) * larger.networks, _BATCHES[-1])
        if trained >= min(SIZES[other].enough, most_epochs(n)["cells"] * n) and n >= SIZES[other].fewest:
            name, room = other, larger
    summary, cells = speeds[name]["summary"], speeds[name]["cells"]
    usable = int(cells.passes((1.0 - _SUMMARY - _LOOKING) * room.networks, _BATCHES[-1]) / 3)
    train_size = max(10, usable) if usable < n and not facts.train_size else 0
    n = train_size or n
    most = most_epochs(n)
    size, epochs, seconds = _stage(summary, _SUMMARY * room.networks, n, most["summary"])
    left = room.networks - seconds
    look = {key: _FORWARD * s.each * max(_LOOK_SHOWERS, held_out) for key, s in speeds[name].items()}
    looks = int(np.clip(_LOOKING * left / look["cells"], 3, _LOOKS))
    batch, cell_epochs, cell_seconds = _stage(cells, left - looks * look["cells"], n, most["cells"])
    steps = {"summary": epochs * max(1, n // size), "cells": cell_epochs * max(1, n // batch)}
    every = max(1, min(epochs, cell_epochs) // looks)
    times = {
        "summary": seconds + epochs // every * look["summary"], "cells": cell_seconds + cell_epochs // every * look["cells"],
    }  # fmt: skip
    known = SIZES.get(name)
    model = {
        **(known.settings if known else {}),
        "summary_batch_size": size, "summary_epochs": epochs, "summary": {"warmup": min(200, 1 + steps["summary"] // 20)},
        "batch_size": batch, "epochs": cell_epochs, "calibration": room.calibrated,
        "optimizer": {"warmup": min(500, 1 + steps["cells"] // 20), "weight_decay": 0.1 if n < 20_000 else 0.05},
    }  # fmt: skip
    slack = max(1.0, room.networks / _MARGIN / sum(times.values()))
    limits = {key: round(min(slack, 1.5) * s, 1) for key, s in times.items()}
    train: dict[str, Any] = {"validation": round(share, 6), "validate_every": every, "stage_seconds": limits}
    if train_size:
        train["train_size"] = train_size
    if facts.device == "cuda":
        train["precision"] = "bf16"
    calibration = _DRAWS * room.calibrated * room.shower
    parts = {
        "before it": facts.used,
        **times,
        "calibration": calibration,
        "closing measurement": room.closing,
    }
    reasons = _reasons(name, cells, (n, held_out), left, model, steps["cells"], bool(train_size))
    expected = _expectation(n + held_out, facts.cells, start_of(given))
    return Plan(FLAGSHIP, {"model": model, "train": train}, facts, parts, reasons, expected, speeds)


def _reasons(
    name: str, cells: StageSpeed, division: tuple[int, int], left: float, model: Mapping[str, Any], steps: int, reduced: bool
) -> list[str]:  # fmt: skip
    """Return a line for each choice."""
    n, held_out = division
    known, most = SIZES.get(name), most_epochs(n)
    trained = f"{cells.passes(left, _BATCHES[-1]):,.0f} showers can be trained on in the time, each counted as often as it is used"
    network = f"as set ({trained})"
    if known:
        network = f"{model['width']} wide, {model['blocks']} blocks ({known.note}; {trained})"
    step = cells.step(model["batch_size"])
    return [
        f"network of the cells: {network}",
        f"showers: about {n:,} to train on, {held_out:,} held out to choose the epoch" + ("; more could not be used three times" if reduced else ""),
        f"epochs: summary {model['summary_epochs']}, cells {model['epochs']} (at most {most['summary']} and {most['cells']}: more would overfit): "
        f"{steps:,} steps of {model['batch_size']} showers, {say_seconds(step)} each as measured here",
    ]  # fmt: skip


def scaled_plan(
    facts: Facts, model: str, settings: Mapping[str, Any], speed: Speed, share: float, given: frozenset[str] = frozenset()
) -> Plan:  # fmt: skip
    """Return the plan of another model: its own settings, all numbers of epochs reduced by one factor until they fit.

    Arguments:
        settings: Its settings, nested.
        speed: Of its stages, with ``epochs`` and ``batch``.
        share: Part of the showers that is held out.
        given: Settings of the user's, which stay.

    Raises:
        ConfigError: When the time is too short; says how much is needed.
    """
    n, held_out = facts.divided(share)
    shower = _FORWARD * sum(s.each for s in speed.values())
    closing = facts.closing(shower, held_out)
    part = _MARGIN * (1.0 - _CALIBRATION)
    left = part * (facts.seconds - facts.used - closing)
    whole = {name: (1.0 + _LOOKING) * s.epochs * max(1, n // max(1, s.batch)) * s.step(min(s.batch, n)) for name, s in speed.items()}  # fmt: skip
    total, epochs = sum(whole.values()), sum(s.epochs for s in speed.values())
    factor = min(1.0, left / total) if total else 1.0
    if left <= 0 or factor * epochs < min(len(speed), epochs):
        raise facts.too_short(facts.used + closing + total * len(speed) / max(1, epochs) / part)
    own = {key: value for key, value in settings.items() if key.endswith("epochs") and isinstance(value, int)}
    changed = {k: max(1, int(factor * v)) for k, v in own.items() if factor < 1.0 and v and k not in given}
    times = {name: factor * s for name, s in whole.items()}
    slack = min(1.5, left / _MARGIN / sum(times.values())) if times else 1.0
    numbers = ", ".join(f"{key} {value:,}" for key, value in changed.items())
    reason = (
        f"its numbers of epochs times {factor:.3g}: {numbers}" if changed else "its own numbers of epochs fit"
    )
    train = {"stage_seconds": {name: round(max(0.1, slack * s), 1) for name, s in times.items()}}
    parts = {"before it": facts.used, **times, "closing measurement": closing}
    return Plan(model, {"model": changed, "train": train}, facts, parts, [reason], speeds={"": speed})


def plan_training(
    model: str, files: TrainingFiles, settings: Mapping[str, Any], seconds: float, device: torch.device, began: float,
    given: frozenset[str] = frozenset(), report: bool = True, devices: int = 1,
) -> Plan:  # fmt: skip
    """Measure the speed of a model on some of its showers, and plan its training.

    Arguments:
        settings: Tables ``model`` and ``train`` as they are without a plan, the user's values in them.
        seconds: For everything, from ``began`` (``time.monotonic``) to the end of the closing measurement.
        given: Keys of the model's settings, and ``train.KEY``, that the user has set.
        report: Whether the model is measured at the end.
        devices: Devices of the training.

    Raises:
        ConfigError: When the time is too short; says how much is needed.
    """
    own, train = dict(settings["model"]), settings["train"]
    sample = files.showers(np.arange(min(len(files), _SAMPLE)))
    clock, processor = time.monotonic(), time.process_time()

    def speed_of(change: Mapping[str, Any], sizes: Sequence[int] = ()) -> Speed:
        made = MODELS[model](files.detector, MODELS[model].resolve({**own, **change}, "plan"))
        made.fit_transforms(sample)
        return measure_speed(
            made.to(device), CellDataset.of(sample, made, device), sizes, max(2.0, 0.01 * seconds), devices
        )

    def facts() -> Facts:
        wall, used = time.monotonic() - clock, time.process_time() - processor
        slow = float(np.clip(wall / max(used, 1e-3), 1.0, 8.0)) if device.type == "cpu" else 1.0
        size = int(train["train_size"]) if "train.train_size" in given else 0
        before = time.monotonic() - began
        return Facts(len(files), files.detector.n_cells, device.type, seconds, before, report, slow, size)

    if model != FLAGSHIP:
        size = own.get("batch_size")
        speed = speed_of({}, (size, size) if isinstance(size, int) else ())
        return scaled_plan(facts(), model, own, speed, float(train["validation"]), given)
    if given & _STRUCTURE:
        return flagship_plan(facts(), {"as set": speed_of({})}, given)
    speeds: dict[str, Speed] = {}
    for name, size in SIZES.items():
        left = (1.0 - _SUMMARY) * (seconds - (time.monotonic() - began))
        enough = min(size.enough, most_epochs(len(files))["cells"] * len(files))
        if speeds and list(speeds.values())[-1]["cells"].passes(left, _BATCHES[-1]) < 1.2 * enough:
            break  # a slower one could not be trained on enough showers
        speeds[name] = speed_of(size.settings)
    return flagship_plan(facts(), speeds, given)
