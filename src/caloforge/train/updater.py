"""Optimisation of one stage: precision, optimisers, learning rates, averaged weights.

The learning rate is a function of the stage's step alone, so a checkpoint need not contain it, and optimisers that do
not step every time (a generator behind its critic) follow the same schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from caloforge.errors import UnknownNameError
from caloforge.models.stage import OptimizerSpec, Stage
from caloforge.settings import OptimizerSettings
from caloforge.train.devices import Devices
from caloforge.train.settings import Precision

__all__ = ["MovingAverage", "StageUpdater", "build_optimizer", "learning_rate"]


class MovingAverage:
    """Exponential moving average of weights: theta' <- d theta' + (1 - d) theta after each step.

    The decay rises as min(d, (1 + k) / (10 + k)) with the number of updates k, so that the first weights are forgotten.
    (``torch.optim.swa_utils.AveragedModel`` averages whole modules, and with such a decay waits for the GPU at each step.)
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.values: list[Tensor] = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the parameters' place while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"updates": self.updates, "values": self.values}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.updates = state["updates"]
        for mine, kept in zip(self.values, state["values"], strict=True):
            mine.copy_(kept)


def build_optimizer(spec: OptimizerSpec, fused: bool = False) -> Optimizer:
    """Return torch's optimiser."""
    s, parameters = spec.settings, list(spec.parameters)
    if s.kind == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=s.lr, alpha=s.alpha, weight_decay=s.weight_decay)
    kind = torch.optim.Adam if s.kind == "adam" else torch.optim.AdamW
    return kind(parameters, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, fused=fused)


def learning_rate(settings: OptimizerSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the rate at a step of a stage of ``steps``."""
    rate = settings.lr
    if settings.schedule == "cosine":
        part = min(1.0, step / max(1, steps))
        rate *= settings.final + (1.0 - settings.final) * 0.5 * (1.0 + math.cos(math.pi * part))
    elif settings.schedule == "exponential":
        rate *= settings.gamma ** (step // max(1, steps_per_epoch))
    return rate * min(1.0, (step + 1) / settings.warmup) if settings.warmup else rate


@dataclass
class _Slot:
    """One optimiser with its settings and the average of its parameters."""

    settings: OptimizerSettings
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    average: MovingAverage | None


class StageUpdater:
    """The training loop's implementation of :class:`caloforge.models.stage.Updater`.

    Arguments:
        generator: Seeded generator on the training device.
        precision: Of the arithmetic. float16 scales the losses, so that small gradients do not vanish (P. Micikevicius
            et al., Mixed precision training, ICLR 2018, arXiv:1710.03740); on a CPU, which has no such kernels, it is
            bfloat16.
        devices: Those over which gradients are averaged.
    """

    def __init__(
        self,
        stage: Stage,
        steps_per_epoch: int,
        generator: torch.Generator,
        precision: Precision = "32",
        devices: Devices | None = None,
    ) -> None:
        self._devices = devices or Devices(generator.device)
        self.stage, self.generator = stage, generator
        self.device = generator.device
        self.step, self.epoch, self.epochs = 0, 0, stage.epochs
        self.steps_per_epoch = steps_per_epoch
        on_gpu = self.device.type == "cuda"
        half = precision == "16" and on_gpu
        self.autocast: Callable[[], torch.autocast] = lambda: torch.autocast(
            self.device.type, torch.float16 if half else torch.bfloat16, enabled=precision != "32"
        )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self._slots: dict[str, _Slot] = {}
        for name, spec in stage.optimizers.items():
            parameters = list(spec.parameters)
            average = MovingAverage(parameters, spec.settings.ema) if spec.settings.ema else None
            self._slots[name] = _Slot(spec.settings, parameters, build_optimizer(spec, on_gpu), average)

    @property
    def progress(self) -> float:
        """Part of the stage that is done, in [0, 1)."""
        return self.step / max(1, self.epochs * self.steps_per_epoch)

    def every(self, n: int) -> bool:
        """Whether this is the n-th, 2n-th, ... step of the stage."""
        return (self.step + 1) % n == 0

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers on the training device."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform numbers in [0, 1) on the training device."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def update(self, name: str, loss: Tensor, retain_graph: bool = False) -> None:
        """Minimise a loss with the optimiser of that name; only its parameters receive gradients.

        Raises:
            UnknownNameError: When the stage has no optimiser of that name.
        """
        slot = self._slot(name)
        s, optimizer = slot.settings, slot.optimizer
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False):
            scaled = self._scaler.scale(loss)
            torch.autograd.backward(scaled, inputs=slot.parameters, retain_graph=retain_graph)
            self._devices.mean_gradients(slot.parameters)
            if s.clip:
                self._scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(slot.parameters, s.clip)
            rate = learning_rate(s, self.step, self.epochs * self.steps_per_epoch, self.steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            self._scaler.step(optimizer)
            self._scaler.update()
        if slot.average is not None:
            slot.average.update()

    def reset(self, name: str) -> None:
        """Forget the state of an optimiser, and begin its average again from the present weights."""
        slot = self._slot(name)
        slot.optimizer.state.clear()
        if slot.average is not None:
            slot.average = MovingAverage(slot.parameters, slot.settings.ema)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put all moving averages in their parameters' places while the block runs."""
        with ExitStack() as stack:
            for slot in self._slots.values():
                if slot.average is not None:
                    stack.enter_context(slot.average.applied())
            yield

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "epochs": self.epochs,
            "planned": self.stage.epochs,
            "generator": self.generator.get_state(),
            "scaler": self._scaler.state_dict(),
            "optimizers": {name: slot.optimizer.state_dict() for name, slot in self._slots.items()},
            "averages": {
                name: slot.average.state_dict() for name, slot in self._slots.items() if slot.average
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.step, self.epoch = state["step"], state["epoch"]
        if (
            state.get("planned", self.stage.epochs) == self.stage.epochs
        ):  # else there are more to do than before
            self.epochs = state.get("epochs", self.epochs)
        self.generator.set_state(state["generator"].cpu())
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        for name, slot in self._slots.items():
            slot.optimizer.load_state_dict(state["optimizers"][name])
            if slot.average is not None:
                slot.average.load_state_dict(state["averages"][name])

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            kind = f"optimizer of stage '{self.stage.name}'"
            raise UnknownNameError(kind, name, list(self._slots))
        return self._slots[name]
