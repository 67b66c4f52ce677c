"""Cells of a grid by rings around the beam and by layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["GridRings"]

_EDGES = (0.5, 1.2, 1.6, 2.5, 3.7, 6.1)
"""Distances from the beam between rings, in cells."""


class GridRings(nn.Module):
    """Sums over rings and layers, and factors for them.

    Arguments:
        detector: A grid.
        upright: Whether showers are round about the beam; otherwise there is one ring, of all cells.
    """

    ring: Tensor
    member: Tensor

    def __init__(self, detector: Detector, upright: bool) -> None:
        super().__init__()
        self.shape = detector.shape
        nx, ny, self.layers = detector.shape
        centres = detector.cell_centres.reshape(nx, ny, self.layers, 3)[:, :, 0, :2]
        pitch = float(np.diff(centres[:, 0, 0]).min()) if nx > 1 else 1.0
        away = np.hypot(centres[..., 0] - detector.beam.x, centres[..., 1] - detector.beam.y) / pitch
        ring = np.digitize(away, _EDGES) if upright else np.zeros((nx, ny), np.int64)
        self.rings = int(ring.max()) + 1
        flat = torch.from_numpy(ring.reshape(-1).astype(np.int64))
        self.register_buffer("ring", flat, persistent=False)
        self.register_buffer(
            "member", nn.functional.one_hot(flat, self.rings).float().T.contiguous(), persistent=False
        )

    def table(self, cells: Tensor) -> Tensor:
        """Return energies (B, rings, layers) of cells (B, n_cells)."""
        return self.member @ cells.view(len(cells), -1, self.layers)

    def table_of(self, values: Tensor, cells: Tensor) -> Tensor:
        """Return the same of some cells alone: values (B, k) of cells (k,), flat indices."""
        where = self.ring[cells // self.layers] * self.layers + cells % self.layers
        table = values.new_zeros(len(values), self.rings * self.layers).index_add_(1, where, values)
        return table.view(-1, self.rings, self.layers)

    def spread(self, factors: Tensor) -> Tensor:
        """Return factors (B, rings, layers) as one for each cell (B, n_cells)."""
        return factors[:, self.ring].flatten(1)
