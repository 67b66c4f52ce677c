"""Logit of fractions: u = delta + (1 - 2 delta) x, y = ln(u / (1 - u)), for x in [0, 1].

In single precision 1 - u is computed as delta + (1 - 2 delta)(1 - x), which does not cancel near x = 1.

References:
    L. Favaro et al., CaloDREAM - Detector Response Emulation via Attentive flow Matching (2024),
    arXiv:2405.09629 (delta = 1e-6).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from caloforge.showers.transforms.base import Transform

__all__ = ["Logit"]


class Logit(Transform):
    """Logit of fractions. Values outside [0, 1] are brought to its ends, both ways.

    Arguments:
        delta: What keeps 0 and 1 finite; between 0 and 0.5.
    """

    name: ClassVar[str] = "logit"
    delta: Tensor

    def __init__(self, *, delta: float = 1e-6) -> None:
        super().__init__(delta=delta)
        self.require(1e-12 <= delta < 0.5, "delta", "a number from 1e-12 to below 0.5")
        self.constant("delta", float(delta))

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Take the logit of rows (B, n)."""
        x = x.clamp(0.0, 1.0)
        width = 1 - 2 * self.delta
        return torch.log(self.delta + width * x) - torch.log(self.delta + width * (1 - x))

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Take the logistic function of rows (B, n)."""
        return ((torch.sigmoid(y) - self.delta) / (1 - 2 * self.delta)).clamp(0.0, 1.0)
