"""Symmetries of showers on a square grid of cells: mirror x, mirror y, swap x and y.

For a beam at right angles onto the centre the three generate the eight symmetries of the square. An inclined beam, which
leans along y, leaves the mirror in x, and the mirror in y if the angle is mirrored too (theta -> 180 - theta).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GridSymmetry"]


class GridSymmetry(nn.Module):
    """Apply to each shower the symmetries that its flags name.

    Attributes:
        allowed: (3,) 1 or 0: mirror x, mirror y, swap; none until ``allow`` is called.
    """

    allowed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("allowed", torch.zeros(3))

    def allow(self, mirror_x: bool, mirror_y: bool, swap: bool) -> None:
        """Say which symmetries hold."""
        self.allowed.copy_(torch.tensor([mirror_x, mirror_y, swap], dtype=torch.float32))

    def flags(self, numbers: Tensor) -> Tensor:
        """Return flags (B, 3), bool, of numbers (B, 3): set where positive and allowed."""
        return (numbers > 0) & (self.allowed > 0.5)

    def forward(self, grid: Tensor, flags: Tensor) -> Tensor:
        """Return the grid (B, X, Y, L) with each shower changed as its flags (B, 3) say.

        Swapping comes first, mirrors after it. A grid that is not square is never swapped.
        """
        mask = flags[:, :, None, None, None]
        if grid.shape[1] == grid.shape[2]:
            grid = torch.where(mask[:, 2], grid.transpose(1, 2), grid)
        grid = torch.where(mask[:, 0], grid.flip(1), grid)
        return torch.where(mask[:, 1], grid.flip(2), grid)
