"""Patches of cells to tokens and back: one matrix for all patches, or one for each when the detector is small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PatchLinear"]

_OWN = 200_000
"""Most weights with which each patch has its own matrix."""


class PatchLinear(nn.Module):
    """A linear map of (B, T, inputs) to (B, T, outputs).

    Arguments:
        patches: Number T of patches.
        inputs: Numbers in.
        outputs: Numbers out.
        zero: Start from zero weights.
    """

    def __init__(self, patches: int, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__()
        self.own = patches * inputs * outputs <= _OWN
        shape = (patches, inputs, outputs) if self.own else (inputs, outputs)
        weight = torch.zeros(shape) if zero else torch.randn(shape) / inputs**0.5
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(patches if self.own else 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, outputs)."""
        if self.own:
            return torch.einsum("bti,tio->bto", x, self.weight.to(x.dtype)) + self.bias
        return x @ self.weight.to(x.dtype) + self.bias
