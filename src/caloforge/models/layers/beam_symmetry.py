"""Symmetries of showers about the cell that the beam hits: mirror x, mirror y, swap x and y.

When the beam meets the centre of a cell that is not the grid's middle (30 cells, cell 15), the mirror maps cell i to
2c - i; cells without a partner inside the grid stay where they are, which is exact in each cell's own distribution.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["BeamSymmetry"]

_ON_CENTRE = 1e-3
"""Part of a cell by which the beam may miss the centre of a cell, or the border of two."""


class BeamSymmetry(nn.Module):
    """Apply to each shower of a grid the symmetries that its flags name.

    Arguments:
        detector: The detector; one that is no grid has no symmetries.

    Attributes:
        allowed: (3,) 1 or 0: mirror x, mirror y, swap; none until ``allow`` is called.
    """

    allowed: Tensor
    mirror_x: Tensor
    mirror_y: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.shape = detector.shape
        possible, orders = [False, False], [np.arange(1), np.arange(1)]
        if detector.is_grid:
            for axis, position in enumerate((detector.beam.x, detector.beam.y)):
                centres = np.unique(np.round(detector.cell_centres[:, axis], 6))
                orders[axis], possible[axis] = _mirror(centres, position)
        same = len(orders[0]) == len(orders[1]) and bool((orders[0] == orders[1]).all())
        self.possible = (possible[0], possible[1], all(possible) and same)
        self.register_buffer("mirror_x", torch.from_numpy(orders[0]), persistent=False)
        self.register_buffer("mirror_y", torch.from_numpy(orders[1]), persistent=False)
        self.register_buffer("allowed", torch.zeros(3))

    def allow(self, upright: bool) -> None:
        """Allow what is possible for a beam at right angles, or for one that leans along y."""
        x, y, swap = self.possible
        self.allowed.copy_(torch.tensor([x, y and upright, swap and upright], dtype=torch.float32))

    def forward(self, cells: Tensor, numbers: Tensor) -> Tensor:
        """Return cells (B, n_cells), each shower changed as the signs of its numbers (B, 3) say.

        Swapping comes first, mirrors after it.
        """
        flags = ((numbers > 0) & (self.allowed > 0.5))[:, :, None, None, None]
        if not self.possible[0] and not self.possible[1]:
            return cells
        grid = cells.view(-1, *self.shape)
        if self.possible[2]:
            grid = torch.where(flags[:, 2], grid.transpose(1, 2), grid)
        grid = torch.where(flags[:, 0], grid.index_select(1, self.mirror_x), grid)
        grid = torch.where(flags[:, 1], grid.index_select(2, self.mirror_y), grid)
        return grid.flatten(1)


def _mirror(centres: NDArray[np.float64], position: float) -> tuple[NDArray[np.int64], bool]:
    """Return the order of an axis' cells mirrored at a position, and whether cells fall onto cells."""
    n = len(centres)
    pitch = centres[1] - centres[0] if n > 1 else 1.0
    twice = 2.0 * (position - centres[0]) / pitch
    nearest = round(twice)
    order = nearest - np.arange(n)
    order = np.where((order >= 0) & (order < n), order, np.arange(n))
    return order.astype(np.int64), abs(twice - nearest) < _ON_CENTRE
