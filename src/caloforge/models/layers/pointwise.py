"""Convolutions of one cell, 1 x 1 x 1, as matrix products: the same numbers, several times faster in three dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Pointwise"]


class Pointwise(nn.Module):
    """Mix the channels of each cell.

    Arguments:
        inputs: Channels that come in.
        outputs: Channels that come out.
        bias: Whether each channel has an offset.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs, 1)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and offsets uniformly within the square root of 1 / inputs, as torch's convolutions."""
        bound = 1.0 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, ...) of (B, inputs, ...)."""
        n = len(x)
        out = torch.bmm(self.weight.expand(n, -1, -1), x.flatten(2))
        if self.bias is not None:
            out.add_(self.bias)
        return out.view(n, -1, *x.shape[2:])
