r"""The speed of a training on this device, from a few real steps.

Each stage of a model makes steps of two numbers of showers b, from which the time of a step follows as

.. math:: t(b) = t_0 + t_1 b .

A GPU waits for the launch of its kernels in small batches (t_0), a CPU computes (t_1); both are the user's own, with whatever else the
machine does meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch, Stage
from caloforge.train.dataset import CellDataset
from caloforge.train.updater import StageUpdater

__all__ = ["Speed", "StageSpeed", "measure_speed"]

_PROBE = {"cpu": (4, 16), "cuda": (32, 256)}  # showers of the timed steps


@dataclass(frozen=True)
class StageSpeed:
    """Seconds of a step of b showers, ``fixed + each * b``, and what the stage is set to."""

    fixed: float
    each: float
    epochs: int = 0  # of the stage
    batch: int = 0  # showers a step of the stage
    devices: int = 1  # between which a batch is divided

    def step(self, batch: int) -> float:
        """Return the seconds of a step."""
        return self.fixed + self.each * batch / self.devices

    def passes(self, seconds: float, batch: int) -> float:
        """Return how many showers, each counted as often as it is used, are trained on in some seconds."""
        return seconds * batch / self.step(batch)


Speed: TypeAlias = Mapping[str, StageSpeed]
"""Of the stages of a model that train weights, by their names."""


def measure_speed(
    model: ShowerModel, data: CellDataset, sizes: Sequence[int] = (), most: float = 20.0, devices: int = 1
) -> dict[str, StageSpeed]:
    """Time a few steps of each stage of a model that is on the data's device; its weights change.

    Arguments:
        sizes: Two numbers of showers a step; by default those of the device; fewer where the data have fewer.
        most: Seconds after which a stage is judged by the steps that were made.
        devices: Devices of the training; one is measured.
    """
    found: dict[str, StageSpeed] = {}
    for stage in model.stages():
        if stage.step is None or not stage.epochs:
            continue
        small, large = (min(len(data), size) for size in (sizes or _PROBE[data.device.type]))
        updater = StageUpdater(stage, 1, torch.Generator(data.device).manual_seed(0))
        if stage.on_start is not None:
            model.eval()
            stage.on_start(data, updater)
        model.train()
        began = time.monotonic()
        times = {small: _seconds(model, stage, updater, data.take(torch.arange(small)), 1)}
        for size in (small, large):
            if time.monotonic() - began < most:  # the first step of all warms up
                times[size] = _seconds(model, stage, updater, data.take(torch.arange(size)), 2)
        each = max(0.0, times.get(large, 0.0) - times[small]) / max(1, large - small)
        if len(times) == 1 or not each:
            each = max(times.values()) / max(times)
        fixed = max(0.0, times[small] - each * small)
        found[stage.name] = StageSpeed(fixed, each, stage.epochs, stage.batch_size, devices)
    return found


def _seconds(model: ShowerModel, stage: Stage, updater: StageUpdater, batch: Batch, times: int) -> float:
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
