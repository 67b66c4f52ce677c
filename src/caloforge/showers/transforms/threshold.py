"""Set cells below a threshold to zero: y = x where x >= c, 0 elsewhere.

The inverse applies the same cut, so that generated showers have no cell that the training data could not have.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from caloforge.showers.transforms.base import Transform

__all__ = ["Threshold"]


class Threshold(Transform):
    """Set cells below a threshold to zero, both ways.

    Arguments:
        threshold: c, MeV where the cells still are; at least 0.
    """

    name: ClassVar[str] = "threshold"
    threshold: Tensor

    def __init__(self, *, threshold: float) -> None:
        super().__init__(threshold=threshold)
        self.require(0 <= threshold < float("inf"), "threshold", "an energy of at least 0")
        self.constant("threshold", float(threshold))

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Cut rows (B, n)."""
        return torch.where(x >= self.threshold, x, torch.zeros_like(x))

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Cut rows (B, n)."""
        return self.forward(y)
