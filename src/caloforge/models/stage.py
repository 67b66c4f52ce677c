"""Stages of a training: their optimisers, and one step of each.

The training loop knows no model by name. A model lists its stages in order; a stage names its optimisers and has a
``step`` that computes the losses of one batch and updates the parameters with each::

    def step(self, batch, updater):
        loss_critic = ...
        updater.update("critic", loss_critic)
        if updater.every(5):
            updater.update("generator", loss_generator)
        return {"critic": loss_critic, "generator": loss_generator}

Gradients of a loss go only to the parameters of the named optimiser, so a critic's loss may pass through the
generator without changing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError
from caloforge.settings import OptimizerSettings

__all__ = ["Batch", "OptimizerSpec", "Random", "SeededRandom", "Stage", "TrainingData", "Updater"]


@dataclass(frozen=True)
class Batch:
    """Showers on the training device."""

    cells: Tensor  # (B, n_cells) float32, MeV
    conditions: (
        Tensor  # (B, C) float32 in raw units, the columns of :class:`~caloforge.models.base.ShowerModel`
    )
    indices: Tensor  # (B,) int64, position in the training set

    def __len__(self) -> int:
        return len(self.cells)


class TrainingData(Protocol):
    """A set of showers that a stage reads, on the training device when it fits there."""

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""

    def __len__(self) -> int:
        """Return the number of showers."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over all showers, in their order or that of their files, the last batch shorter; never augmented."""

    def take(self, indices: Tensor) -> Batch:
        """Return the showers of these indices (B,)."""


class Random(Protocol):
    """Random numbers on the training device."""

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform numbers in [0, 1)."""


class Updater(Random, Protocol):
    """What the training loop provides to a step."""

    step: int  # steps of this stage so far
    epoch: int  # epochs of this stage so far
    epochs: int  # epochs of this stage in all
    generator: torch.Generator  # seeded generator on the training device; its state is in every checkpoint
    device: torch.device  # the training device

    @property
    def progress(self) -> float:
        """Part of the stage that is done, in [0, 1)."""

    def every(self, n: int) -> bool:
        """Whether this is the n-th, 2n-th, ... step of the stage."""

    def update(self, name: str, loss: Tensor, retain_graph: bool = False) -> None:
        """Minimise a loss: clear gradients, backward, clip, step of optimiser and schedule, moving average."""

    def reset(self, name: str) -> None:
        """Forget the state of an optimiser, after its network was initialised again."""


@dataclass(frozen=True)
class OptimizerSpec:
    """Parameters and the settings of their optimiser."""

    parameters: Sequence[nn.Parameter]
    settings: OptimizerSettings

    @classmethod
    def of(cls, settings: OptimizerSettings, *modules: nn.Module) -> OptimizerSpec:
        """Take all parameters of some modules."""
        unique = {id(p): p for module in modules for p in module.parameters()}
        return cls(tuple(unique.values()), settings)


@dataclass(frozen=True)
class Stage:
    """One part of a training, from its first epoch to its last.

    At its end the model takes the best weights of the stage, or the last ones where nothing is held out. Parameters
    outside the stage's optimisers do not require gradients while it runs.
    """

    name: str  # its name, in logs
    epochs: int = 0  # passes over the training set; 0 for a stage with a ``fit``
    batch_size: int = 256  # showers a step; smaller when there are fewer
    optimizers: dict[str, OptimizerSpec] = field(default_factory=dict)  # names to optimisers
    # computes the losses of a batch and calls the updater; returns losses to log, as tensors
    step: Callable[[Batch, Updater], dict[str, Tensor]] | None = None
    # called once instead of steps, with the training set and a generator: models without gradients
    fit: Callable[[TrainingData, torch.Generator], None] | None = None
    # called with held-out showers; returns named figures. By default ``ShowerModel.validate``
    validate: Callable[[TrainingData], dict[str, float]] | None = None
    metric: str = ""  # the figure by which the best epoch is kept; smaller is better
    # called when the stage begins and again when a stopped run goes on in it. It may only compute what follows from data and
    # from weights that the stage does not train (codes of a frozen encoder)
    on_start: Callable[[TrainingData, Updater], None] | None = None
    # called before each epoch (for example to initialise a critic again)
    on_epoch_start: Callable[[Updater], None] | None = None
    frozen: tuple[nn.Module, ...] = ()  # modules that stay in evaluation mode
    compiled: tuple[nn.Module, ...] = ()  # modules worth compiling when the user asks for it

    def __post_init__(self) -> None:
        if (self.step is None) == (self.fit is None):
            msg = f"stage '{self.name}' must have either a step or a fit"
            raise ConfigError(msg)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the stage's optimisers."""
        unique = {id(p): p for spec in self.optimizers.values() for p in spec.parameters}
        return list(unique.values())


class SeededRandom:
    """Random numbers of a seed, the same for every look at the held-out showers."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device)
