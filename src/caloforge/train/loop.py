"""The loop over the epochs of one stage: steps, figures of held-out showers, the best weights, checkpoints, log.

A checkpoint is taken between two epochs and contains the model, the optimisers, torch's generators of random numbers and the
best weights so far, so that the epochs after it are the same whether or not the process was killed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import torch
from torch import Tensor

from caloforge.errors import ConfigError, did_you_mean, require
from caloforge.files import atomic_path
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Stage
from caloforge.random import child_seed
from caloforge.train.data import StreamedDataset
from caloforge.train.dataset import CellDataset, DetectorDatasets
from caloforge.train.devices import Devices
from caloforge.train.folder import random_state, restore_random
from caloforge.train.settings import TrainConfig
from caloforge.train.updater import StageUpdater

__all__ = ["Best", "Data", "MetricLog", "StageLoop", "Watch"]

Data: TypeAlias = CellDataset | StreamedDataset | DetectorDatasets
"""The showers of a training."""
_HEADER = "training,stage,epoch,name,value\n"
_FIRST = 0.1  # part of a stage's seconds before which its speed is not judged
_COMPILED = 3  # epochs after the first from which the time of one is known where networks are compiled
_SLOWER = 1.03  # of the seconds left to a stage: what its epochs may seem to need before some are taken away
_FASTER = 1.05  # of the epochs left to it: what must seem to fit before some are given back
_GIVEN_BACK = 0.5  # part of a stage's seconds after which none are given back, so that the learning rate does not rise again
_WINDOW = 0.1  # part of a stage's seconds whose epochs are its pace
_FEWEST, _MOST = 5, 200  # of these epochs


class MetricLog:
    """Rows (training, stage, epoch, name, value) of a CSV file; ``rows`` of an earlier part of the run are kept.

    Without a path nothing is written.
    """

    def __init__(self, path: Path | None, rows: int = 0, tensorboard: bool = False) -> None:
        self.path, self.rows = path, rows
        self._board: Any = None
        if path is None:
            return
        kept = path.read_text().splitlines(keepends=True)[1 : rows + 1] if rows and path.exists() else []
        with atomic_path(path, force=True) as part:
            part.write_text(_HEADER + "".join(kept))
        self.rows = len(kept)
        if tensorboard:
            require("tensorboard", "track")
            self._board = require("torch.utils.tensorboard", "track").SummaryWriter(
                str(path.parent / "tensorboard")
            )

    def add(self, training: int, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Append values of one epoch."""
        if self.path is None:
            return
        with self.path.open("a") as handle:
            for name, value in values.items():
                handle.write(f"{training},{stage},{epoch},{name},{value!r}\n")
                if self._board is not None:
                    self._board.add_scalar(f"{training}/{stage}/{name}", value, epoch)
        self.rows += len(values)

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()


@dataclass
class Best:
    """The best epoch so far of one stage, the median time of an epoch (s, held-out figures included), epochs done and planned."""

    value: float = float("inf")
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    epochs_done: int = 0
    epochs: int = 0  # in all, after those that :attr:`StageLoop.seconds` took away


@dataclass
class Pace:
    """Seconds of the latest epochs and of the latest looks at the held-out showers, whose medians say what the rest of a stage takes.

    The first of a process, in which networks are compiled and kernels chosen, count only as long as there are no others.
    """

    epochs: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, seconds: float, window: float) -> None:
        """Add an epoch or a look (``epochs`` or ``looks``), and forget those from before so many seconds of them."""
        if kind not in self.first:
            self.first[kind] = seconds
            return
        found: list[float] = getattr(self, kind)
        found.append(seconds)
        while len(found) > _MOST or (len(found) > _FEWEST and sum(found[1:]) >= window):
            del found[0]

    def __call__(self, kind: str, otherwise: float) -> float:
        """Return the seconds of an epoch or of a look; ``otherwise`` those where only the first of the process is known."""
        found: list[float] = getattr(self, kind)
        return median(found) if found else otherwise


@dataclass
class StageLoop:
    """One stage of one training."""

    model: ShowerModel
    stage: Stage
    data: Data
    # those that fits and calibrations read: all, or a random sample of them where all do not fit into memory
    sample: CellDataset | DetectorDatasets
    held_out: CellDataset | DetectorDatasets | None  # held-out showers, or None
    config: TrainConfig
    seed: int
    training: int
    log: MetricLog
    save: Callable[[dict[str, Any]], None]  # writes a checkpoint
    advance: Callable[[int], None]  # moves the progress bar by epochs
    devices: Devices  # between which every batch is divided
    # time (``time.monotonic``) after which no epoch starts; a stage that it ends leaves a checkpoint
    deadline: float = float("inf")
    seconds: float = float("inf")  # most seconds of the stage, in which its epochs are made to fit
    watch: Watch | None = None  # called after each epoch; what it raises ends the training

    def run(self, state: dict[str, Any] | None = None) -> Best:
        """Run the stage, from a checkpoint's state when there is one; leaves its weights in the model."""
        size = self.devices.divisible(min(self.stage.batch_size, len(self.data)))
        self._spread()
        generator = torch.Generator(self.data.device).manual_seed(self.seed)
        if self.stage.fit is not None:
            if self.devices.first:
                self.stage.fit(self.sample, generator)
            self._spread()
            return Best(epoch=0)
        began_stage, used = time.monotonic(), 0.0
        trained = {id(p) for p in self.stage.parameters}
        needed = {name: p.requires_grad for name, p in self.model.named_parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        steps = self.data.steps(size)
        updater = StageUpdater(self.stage, steps, generator, self.config.precision, self.devices)
        best, pace = Best(), Pace()
        if state is not None:
            updater.load_state_dict(state["updater"])
            best = Best(**state["best"])
            used = state.get("used", 0.0)
            pace = Pace(**state.get("pace", {}))
            if self.seconds > state.get(
                "seconds", self.seconds
            ):  # epochs that did not fit before may fit now
                updater.epochs = self.stage.epochs
            restore_random(state["random"], self.data.device)
        if self.stage.on_start is not None:
            self._mode(False)
            self.stage.on_start(self.data, updater)
            if state is not None:
                restore_random(state["random"], self.data.device)
                generator.set_state(state["updater"]["generator"].cpu())
        if self.config.compile:
            for module in self.stage.compiled:
                module.compile()
        self.advance(updater.epoch)
        saved = time.monotonic()
        seconds: list[float] = []
        window = _WINDOW * self.seconds if self.seconds < float("inf") else 0.0
        while updater.epoch < updater.epochs and self.devices.agreed(
            lambda: time.monotonic() < self.deadline
        ):
            began = time.monotonic()
            losses = self._epoch(updater, size)
            updater.epoch += 1
            now = time.monotonic()
            pace.add("epochs", now - began, window)
            took = used + now - began_stage
            updater.epochs = self.devices.agreed(partial(self._fitting, updater, took, pace))
            done = updater.epoch == updater.epochs
            if updater.epoch % self.config.log_every == 0 or done:
                values = {name: float(value) for name, value in losses.items()}
                self.log.add(self.training, self.stage.name, updater.epoch, values)
            if (
                self.held_out is not None
                and self.devices.first
                and (updater.epoch % self.config.validate_every == 0 or done)
            ):
                self._validate(updater, best)
                pace.add("looks", time.monotonic() - now, window)
            seconds.append(time.monotonic() - began)
            every = self.config.checkpoint_epochs
            due = time.monotonic() - saved > self.config.checkpoint_seconds
            if not done and ((every and updater.epoch % every == 0) or due):
                self._save(updater, best, used + time.monotonic() - began_stage, pace)
                saved = time.monotonic()
            self.advance(1)
            if self.watch is not None and self.devices.first:
                self.watch(self, updater.epoch, best)
        if updater.epoch < updater.epochs:
            self._save(updater, best, used + time.monotonic() - began_stage, pace)
        if not self.devices.first:
            best = Best(best.value, updater.epoch, {})
        elif best.weights:
            self.model.load_weights(best.weights)
        else:
            self._mode(False)
            with updater.averaged():
                self.model.settle(self.sample)
                last = self._weights()
            self.model.load_weights(last)
            best = Best(best.value, updater.epoch, {})
        self._spread()
        best.epoch_seconds = median(seconds) if seconds else 0.0
        best.epochs_done, best.epochs = updater.epoch, updater.epochs
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(needed[name])
        return best

    def _save(self, updater: StageUpdater, best: Best, used: float, pace: Pace) -> None:
        if not self.devices.first:
            return
        state = {
            "updater": updater.state_dict(),
            "best": vars(best),
            "random": random_state(self.data.device),
        }
        known = {"epochs": pace.epochs, "looks": pace.looks}
        self.save(state | {"used": used, "seconds": self.seconds, "pace": known})

    def _fitting(self, updater: StageUpdater, used: float, pace: Pace) -> int:
        """Return the epochs of the stage that fit into its seconds, of which some are used.

        It is judged anew after each epoch: epochs are taken away when it is slower by more than a little, and given back
        in the first half of its seconds when it is faster again.
        """
        compiled, first = self.config.compile, pace.first
        left, rest = updater.epochs - updater.epoch, self.seconds - used
        known = len(pace.epochs) >= (_COMPILED if compiled else 1) or rest <= (
            0 if compiled else first["epochs"]
        )
        if not known or used < _FIRST * self.seconds:
            return updater.epochs
        look = pace("looks", 0.0 if compiled else first.get("looks", 0.0))
        each = pace("epochs", first["epochs"]) + look / self.config.validate_every
        fitting = max(0, int(rest / each)) if each > 0 else left
        if left * each > _SLOWER * rest:
            return updater.epoch + fitting
        if used <= _GIVEN_BACK * self.seconds and fitting > _FASTER * left:
            return min(self.stage.epochs, updater.epoch + fitting)
        return updater.epochs

    def _mode(self, training: bool) -> None:
        self.model.train(training)
        for module in self.stage.frozen:
            module.eval()

    def _epoch(self, updater: StageUpdater, size: int) -> dict[str, Tensor]:
        """Run one epoch; return mean losses, still on the device."""
        assert self.stage.step is not None
        self._mode(True)
        if self.stage.on_epoch_start is not None:
            self.stage.on_epoch_start(updater)
        self._differ(updater)
        part = self.devices.rank, self.devices.size
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for batch in self.data.epoch(size, self.seed, self.stage.name, updater.epoch, part):
            batch = self.model.augment(batch, updater.generator)
            with updater.autocast():
                losses = self.stage.step(batch, updater)
            updater.step += 1
            for name, value in losses.items():
                value = value.detach().float()
                sums[name] = sums[name] + value if name in sums else value
                counts[name] = counts.get(name, 0) + 1
        return self.devices.mean({name: value / counts[name] for name, value in sums.items()})

    def _spread(self) -> None:
        """Give the model of every device the weights of the first, whose fits and choice of an epoch count."""
        if self.devices.size > 1:
            state = self.devices.agreed(
                lambda: {name: value.cpu() for name, value in self._weights().items()}
            )
            if not self.devices.first:
                self.model.load_weights(state)

    def _differ(self, updater: StageUpdater) -> None:
        """Begin an epoch with the same weights on every device, and on each with other random numbers.

        They follow from the seed, the device and the epoch, so that a run that was stopped goes on with the same.
        """
        self.devices.equalise([*self.model.state_dict().values(), *(p.data for p in self.stage.parameters)])
        if not self.devices.first:
            seed = child_seed(self.seed, f"device {self.devices.rank}", updater.epoch)
            torch.manual_seed(seed)
            updater.generator.manual_seed(seed)

    @torch.no_grad()
    def _validate(self, updater: StageUpdater, best: Best) -> None:
        """Compute the held-out figures with the averaged weights, and keep the weights when they are the best."""
        assert self.held_out is not None
        self._mode(False)
        with updater.averaged():
            self.model.settle(self.sample)
            figures = (self.stage.validate or self.model.validate)(self.held_out)
            metric = self.config.metric or self.stage.metric or next(iter(figures))
            if metric not in figures:
                raise ConfigError(f"metric '{metric}' is not measured; {did_you_mean(metric, list(figures))}")
            self.log.add(self.training, self.stage.name, updater.epoch, figures)
            if figures[metric] < best.value:
                best.value, best.epoch, best.weights = figures[metric], updater.epoch, self._weights()

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


Watch: TypeAlias = Callable[[StageLoop, int, Best], None]
"""Called with the loop of a stage, its epochs so far and its best epoch."""
