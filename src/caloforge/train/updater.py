"""Optimisation: optimisers, learning rates, averaged weights, and the state of one stage.

Exponential moving average of weights: theta' <- d theta' + (1 - d) theta after each step.

The decay rises from 0 as min(d, (1 + k) / (10 + k)) with the number of updates k, so that the first weights are forgotten.

Optimisers and learning rates from settings.

The rate is a function of the stage's step alone, so that nothing of it needs to be kept in a checkpoint.
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

__all__ = ["MovingAverage", "StageUpdater", "build_optimizer", "learning_rate"]


class MovingAverage:
    """Average of some parameters."""

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

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {"updates": self.updates, "values": self.values}

    def restore(self, state: dict[str, object]) -> None:
        """Take up a checkpoint's state."""
        updates, values = state["updates"], state["values"]
        assert isinstance(updates, int)
        assert isinstance(values, list)
        self.updates = updates
        with torch.no_grad():
            for mine, kept in zip(self.values, values, strict=True):
                mine.copy_(kept)


def build_optimizer(spec: OptimizerSpec, fused: bool) -> Optimizer:
    """Return torch's optimiser.

    Arguments:
        spec: Parameters and settings.
        fused: Use the fused kernels of Adam and AdamW.
    """
    s = spec.settings
    parameters = list(spec.parameters)
    builders: dict[str, Callable[[], Optimizer]] = {
        "adam": lambda: torch.optim.Adam(
            parameters, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, fused=fused
        ),
        "adamw": lambda: torch.optim.AdamW(
            parameters, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, fused=fused
        ),
        "rmsprop": lambda: torch.optim.RMSprop(
            parameters, lr=s.lr, alpha=s.alpha, weight_decay=s.weight_decay
        ),
        "sgd": lambda: torch.optim.SGD(parameters, lr=s.lr, weight_decay=s.weight_decay),
    }
    return builders[s.kind]()


def learning_rate(settings: OptimizerSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the rate at a step of a stage.

    Arguments:
        settings: Rate and schedule.
        step: Steps done.
        steps: Steps of the whole stage.
        steps_per_epoch: Steps of one epoch.
    """
    rate = settings.lr
    if settings.schedule == "cosine":
        part = min(1.0, step / max(1, steps))
        rate *= settings.final + (1.0 - settings.final) * 0.5 * (1.0 + math.cos(math.pi * part))
    elif settings.schedule == "exponential":
        rate *= settings.gamma ** (step // max(1, steps_per_epoch))
    return rate * min(1.0, (step + 1) / settings.warmup) if settings.warmup else rate


@dataclass
class _Slot:
    """One optimiser with what belongs to it."""

    settings: OptimizerSettings
    parameters: list[nn.Parameter]
    optimizer: Any
    average: MovingAverage | None


class StageUpdater:
    """The loop's side of :class:`caloforge.models.stage.Updater`.

    Arguments:
        fabric: Lightning Fabric: device, precision, gradient scaling.
        model: The model.
        stage: The stage that begins.
        steps_per_epoch: Steps of one epoch.
        generator: Seeded generator on the device.
        fused: Use fused optimiser kernels.
    """

    def __init__(
        self,
        fabric: Any,
        model: nn.Module,
        stage: Stage,
        steps_per_epoch: int,
        generator: torch.Generator,
        fused: bool,
    ) -> None:
        self.fabric, self.model, self.stage, self.generator = fabric, model, stage, generator
        self.device: torch.device = fabric.device
        self.step, self.epoch, self.epochs = 0, 0, stage.epochs
        self.steps_per_epoch = steps_per_epoch
        self._slots: dict[str, _Slot] = {}
        for name, spec in stage.optimizers.items():
            parameters = list(spec.parameters)
            optimizer = fabric.setup_optimizers(build_optimizer(spec, fused))
            average = MovingAverage(parameters, spec.settings.ema) if spec.settings.ema else None
            self._slots[name] = _Slot(spec.settings, parameters, optimizer, average)

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
        """Lower a loss with the optimiser of that name; only its parameters receive gradients.

        Raises:
            UnknownNameError: When the stage has no optimiser of that name.
        """
        slot = self._slot(name)
        slot.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False):
            self.fabric.backward(loss, inputs=slot.parameters, retain_graph=retain_graph)
            if slot.settings.clip:
                self.fabric.clip_gradients(
                    self.model, slot.optimizer, max_norm=slot.settings.clip, error_if_nonfinite=False
                )
            rate = learning_rate(
                slot.settings, self.step, self.epochs * self.steps_per_epoch, self.steps_per_epoch
            )
            for group in slot.optimizer.param_groups:
                group["lr"] = rate
            slot.optimizer.step()
        if slot.average is not None:
            slot.average.update()

    def reset(self, name: str) -> None:
        """Forget the state of an optimiser, and take its average up again from the present weights."""
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

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "generator": self.generator.get_state(),
            "optimizers": {name: slot.optimizer.state_dict() for name, slot in self._slots.items()},
            "averages": {name: slot.average.state() for name, slot in self._slots.items() if slot.average},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        self.step, self.epoch = state["step"], state["epoch"]
        self.generator.set_state(state["generator"].cpu())
        for name, slot in self._slots.items():
            slot.optimizer.load_state_dict(state["optimizers"][name])
            if slot.average is not None:
                slot.average.restore(state["averages"][name])

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            kind = f"optimizer of stage '{self.stage.name}'"
            raise UnknownNameError(kind, name, list(self._slots))
        return self._slots[name]
