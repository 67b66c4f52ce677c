"""Energies of the layers of a shower, for any order of cells, without atomic additions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["LayerSums"]


class LayerSums(nn.Module):
    """Sum the cells of each layer, or spread one value a layer over its cells.

    ``xyl`` cells are a matrix (cells of a layer, layers); otherwise the layers lie one after the other.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.interleaved = detector.is_grid
        self.n_layers = detector.n_layers
        self.counts: list[int] = [len(cells) for cells in detector.layer_cells]

    def forward(self, cells: Tensor) -> Tensor:
        """Return the layer energies (B, n_layers) of cells (B, n_cells)."""
        if self.interleaved:
            return cells.view(len(cells), -1, self.n_layers).sum(1)
        return torch.stack([part.sum(1) for part in torch.split(cells, self.counts, dim=1)], dim=1)

    def spread(self, values: Tensor) -> Tensor:
        """Return values (B, n_layers) at each cell (B, n_cells)."""
        if self.interleaved:
            return values.repeat(1, self.counts[0])
        parts = [values[:, i : i + 1].expand(-1, count) for i, count in enumerate(self.counts)]
        return torch.cat(parts, dim=1)

    def normalise(self, cells: Tensor, energies: Tensor) -> Tensor:
        """Return cells (B, n_cells) scaled so that each layer holds its energy (B, n_layers).

        Empty layers stay empty.
        """
        return cells * self.spread(energies / self(cells).clamp_min(1e-20))
