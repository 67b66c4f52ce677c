"""Power of the energies: y = sign(x) |x|^p (3DGAN with angles takes p = 0.85).

For p < 1 the slope at zero is infinite; it is taken as zero, so that empty cells pass no NaN to a gradient.

References:
    K. Khattak et al., Fast simulation of a high granularity calorimeter by generative adversarial networks (2022),
    arXiv:2109.07388.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from caloforge.showers.transforms.base import Transform

__all__ = ["Power"]


class Power(Transform):
    """Power of the energies, odd in x.

    Arguments:
        exponent: p, above 0.
    """

    name: ClassVar[str] = "power"
    exponent: Tensor

    def __init__(self, *, exponent: float) -> None:
        super().__init__(exponent=exponent)
        self.require(0 < exponent < float("inf"), "exponent", "a number above 0")
        self.constant("exponent", float(exponent))

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Raise rows (B, n) to the power p."""
        return _signed_power(x, self.exponent)

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Raise rows (B, n) to the power 1/p."""
        return _signed_power(y, 1 / self.exponent)


def _signed_power(x: Tensor, exponent: Tensor) -> Tensor:
    zero = x == 0
    size = torch.where(zero, torch.ones_like(x), x.abs())
    return torch.where(zero, torch.zeros_like(x), torch.sign(x) * size**exponent)
