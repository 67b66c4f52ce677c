"""Training data: which showers are held out, and showers as tensors where the training runs.

The split is a rule and not a list: a permutation of all showers seeded with ``split_seed``; the first part is held out,
the training showers follow. So the held-out showers of a run can be found again from its settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.errors import TooFewShowersError
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch
from caloforge.random import child_seed, generator
from caloforge.showers import Showers
from caloforge.train.settings import TrainConfig

__all__ = ["CellDataset", "Split", "split"]

LEAST = 10
"""Fewest showers to train on."""


@dataclass(frozen=True)
class Split:
    """Indices of the showers to train on and of those held out, both sorted."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split(n: int, config: TrainConfig) -> Split:
    """Divide ``n`` showers by the settings' rule.

    Raises:
        TooFewShowersError: When less than ten showers are left to train on, or fewer than asked for.
    """
    order = generator(config.split_seed, "split").permutation(n)
    held = round(n * config.validation)
    held = max(held, 1) if config.validation > 0 else 0
    rest = order[held:][config.train_offset :]
    if config.train_size:
        if config.train_size > len(rest):
            msg = (
                f"{n} showers leave {len(rest)} to train on (validation {config.validation:g}, "
                f"offset {config.train_offset}); expected at least train_size = {config.train_size}"
            )
            raise TooFewShowersError(msg)
        rest = rest[: config.train_size]
    if len(rest) < LEAST:
        msg = f"{n} showers leave {len(rest)} to train on; expected at least {LEAST}"
        raise TooFewShowersError(msg)
    return Split(np.sort(rest), np.sort(order[:held]))


class CellDataset:
    """Showers as tensors: on the device when they take less than half of its free memory, else on the host.

    Arguments:
        showers: The showers.
        model: The model, which names the conditions.
        device: Where batches are wanted.
    """

    def __init__(self, showers: Showers, model: ShowerModel, device: torch.device) -> None:
        self.device = device
        cells = torch.from_numpy(np.ascontiguousarray(showers.cells))
        conditions = model.condition_matrix(showers)
        home = device if _fits(cells, device) else torch.device("cpu")
        self._cells, self._conditions = cells.to(home), conditions.to(home)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def resident(self) -> bool:
        """Whether the showers lie where they are used."""
        return self._cells.device == self.device

    def take(self, indices: Tensor) -> Batch:
        """Return the showers of these indices (B,), on the device."""
        home = indices.to(self._cells.device)
        return Batch(
            self._cells[home].to(self.device, non_blocking=True),
            self._conditions[home].to(self.device, non_blocking=True),
            indices.to(self.device),
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over all showers in order."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))

    def steps(self, size: int) -> int:
        """Return the steps of one epoch: whole batches, and at least one."""
        return max(1, len(self) // size)

    def epoch(self, size: int, seed: int, stage: str, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Iterate over one shuffled epoch from its batch ``first`` on; a pure function of the arguments."""
        order = torch.randperm(
            len(self), generator=torch.Generator().manual_seed(child_seed(seed, f"epoch/{stage}", epoch))
        ).to(self._cells.device)
        for batch in range(first, self.steps(size)):
            yield self.take(order[batch * size : (batch + 1) * size])


def _fits(cells: Tensor, device: torch.device) -> bool:
    """Whether showers may lie on the device for good."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return cells.numel() * cells.element_size() < free / 2
