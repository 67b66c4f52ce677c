"""Multiply everything by a number: y = s x (3DGAN takes cells x 100, the BIB-AE's critic x 0.001)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from caloforge.showers.transforms.base import Transform

__all__ = ["Scale"]


class Scale(Transform):
    """Multiply by a number.

    Arguments:
        factor: s, finite and not zero.
    """

    name: ClassVar[str] = "scale"
    factor: Tensor

    def __init__(self, *, factor: float) -> None:
        super().__init__(factor=factor)
        self.require(0 < abs(factor) < float("inf"), "factor", "a finite number other than 0")
        self.constant("factor", float(factor))

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Multiply rows (B, n)."""
        return x * self.factor

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Divide rows (B, n)."""
        return y / self.factor
