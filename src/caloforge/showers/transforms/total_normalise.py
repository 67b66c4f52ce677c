"""Normalisation of whole showers: by the incident energy, or by the shower's own sum.

With the cells x_c and the incident energy E: :class:`EnergyNormalise` gives x_c / E (the ATLAS models);
:class:`SumNormalise` gives x_c / S with S = sum x_c, and appends the response S / E as a column.

References:
    ATLAS Collaboration, Deep generative models for fast shower simulation in ATLAS (2018), ATL-SOFT-PUB-2018-001.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from caloforge.showers.transforms.base import Transform, energy_column

__all__ = ["EnergyNormalise", "SumNormalise", "fractions_of", "or_one"]


class EnergyNormalise(Transform):
    """Divide by the incident energy."""

    name: ClassVar[str] = "energy-normalise"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Divide rows (B, n), MeV."""
        return x / energy_column(energy, self.name)

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Multiply rows (B, n)."""
        return y * energy_column(energy, self.name)


class SumNormalise(Transform):
    """Divide by the sum of the cells, and append sum over incident energy: (B, n) to (B, n + 1).

    The inverse brings the cells to unit sum first, so that the total is what the appended column says.
    A shower without energy has all columns zero.
    """

    name: ClassVar[str] = "sum-normalise"

    def __init__(self) -> None:
        super().__init__()

    def features(self, n: int) -> int:
        """Return one column more."""
        return n + 1

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Normalise rows (B, n), MeV."""
        total = x.sum(-1, keepdim=True)
        return torch.cat([x / or_one(total), total / energy_column(energy, self.name)], dim=-1)

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo it on rows (B, n + 1)."""
        cells, response = fractions_of(y[:, :-1]), y[:, -1:]
        return cells / or_one(cells.sum(-1, keepdim=True)) * response * energy_column(energy, self.name)


def or_one(total: Tensor) -> Tensor:
    """Return totals with one in the place of zero, for divisions of which 0 / 0 = 0 is wanted."""
    return torch.where(total > 0, total, torch.ones_like(total))


def fractions_of(cells: Tensor) -> Tensor:
    """Return cells without negative ones, which have no place among fractions."""
    return cells.clamp_min(0.0)
