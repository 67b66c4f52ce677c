"""Logarithm with an offset: y = ln(x + epsilon) - ln(epsilon) = ln(1 + x / epsilon).

Zero stays zero. The BIB-AE's critic sees ln(x + exp(-5)) + 5, which is epsilon = exp(-5) MeV.

References:
    E. Buhmann et al., Getting High: High Fidelity Simulation of High Granularity Calorimeters with High Speed
    (2021), arXiv:2005.05334.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from caloforge.showers.transforms.base import Transform

__all__ = ["Log"]


class Log(Transform):
    """Logarithm with an offset; accurate for x far below and far above it.

    Arguments:
        epsilon: The offset, in the unit of x; above 0. Values come out of the inverse at -epsilon or more.
    """

    name: ClassVar[str] = "log"
    epsilon: Tensor

    def __init__(self, *, epsilon: float) -> None:
        super().__init__(epsilon=epsilon)
        self.require(0 < epsilon < float("inf"), "epsilon", "a number above 0")
        self.constant("epsilon", float(epsilon))

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Take the logarithm of rows (B, n)."""
        return torch.log1p(x / self.epsilon)

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Take the exponential of rows (B, n)."""
        return self.epsilon * torch.expm1(y)
