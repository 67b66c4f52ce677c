"""Cells of any detector by layer: a padded table (layers, cells), and the layers' energies."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector

__all__ = ["CellTable", "LayerSums", "LayerView"]


class CellTable(nn.Module):
    """Cells arranged in rows of equal length, with padding.

    Arguments:
        index: (rows, width) number of the cell at each place, ``n_cells`` in padding; each cell once.
        n_cells: Cells.

    Attributes:
        padded: Whether some places have no cell.
    """

    index: Tensor
    back: Tensor

    def __init__(self, index: NDArray[np.int64], n_cells: int) -> None:
        super().__init__()
        flat = index.ravel()
        back = np.zeros(n_cells, np.int64)
        back[flat[flat < n_cells]] = np.nonzero(flat < n_cells)[0]
        self.padded = bool((flat == n_cells).any())
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("back", torch.from_numpy(back), persistent=False)

    def forward(self, cells: Tensor, fill: float = 0.0) -> Tensor:
        """Return the table (B, rows, width) of cells (B, n_cells), ``fill`` in padding."""
        if self.padded:
            cells = torch.cat([cells, torch.full_like(cells[:, :1], fill)], 1)
        return cells.index_select(1, self.index.flatten()).view(-1, *self.index.shape)

    def cells(self, table: Tensor) -> Tensor:
        """Return cells (B, n_cells) of a table (B, rows, width)."""
        return table.flatten(1).index_select(1, self.back)


class LayerView(CellTable):
    """Cells with one row a layer.

    Attributes:
        n_layers: Layers.
        width: Cells of the largest layer.
        x: (n_layers, width) positions of the cells in units of the layer's half width, 0 in padding.
        y: The same along the other axis.
    """

    x: Tensor
    y: Tensor

    def __init__(self, detector: Detector) -> None:
        width = max(len(cells) for cells in detector.layer_cells)
        index = np.full((detector.n_layers, width), detector.n_cells, np.int64)
        positions = np.zeros((2, detector.n_layers, width), np.float32)
        for layer, cells in enumerate(detector.layer_cells):
            index[layer, : len(cells)] = cells
            centres = detector.cell_centres[cells, :2]
            low, high = centres.min(0), centres.max(0)
            positions[:, layer, : len(cells)] = (
                (centres - 0.5 * (low + high)) / np.maximum(0.5 * (high - low), 1e-6)
            ).T
        super().__init__(index, detector.n_cells)
        self.n_layers, self.width = index.shape
        self.register_buffer("x", torch.from_numpy(positions[0]), persistent=False)
        self.register_buffer("y", torch.from_numpy(positions[1]), persistent=False)

    def positions(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions x and y (B, n_layers, K) of places (B, n_layers, K) in each layer, 0 at the place ``width``."""
        flat = self._flat(places)
        x, y = (functional.pad(table, (0, 1)).flatten() for table in (self.x, self.y))
        return x.index_select(0, flat).view_as(places), y.index_select(0, flat).view_as(places)

    def placed(self, energy: Tensor, places: Tensor) -> Tensor:
        """Return cells (B, n_cells) with energies (B, n_layers, K) at these places, others 0."""
        n = len(self.back)
        cell = functional.pad(self.index, (0, 1), value=n).flatten().index_select(0, self._flat(places))
        cells = energy.new_zeros(len(energy), n + 1).scatter_(
            1, cell.view(len(energy), -1), energy.flatten(1)
        )
        return cells[:, :n].contiguous()

    def _flat(self, places: Tensor) -> Tensor:
        """Return the numbers of places (B, n_layers, K) in tables (n_layers, width + 1)."""
        row = torch.arange(self.n_layers, device=places.device)[:, None] * (self.width + 1)
        return (places + row).flatten()


class LayerSums(nn.Module):
    """Sum the cells of each layer, or spread one value a layer over its cells.

    The cells of a grid are a matrix (cells of a layer, layers); otherwise the layers lie one after the other.
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
        """Return cells (B, n_cells) scaled to the layer energies (B, n_layers); empty layers stay empty."""
        return cells * self.spread(energies / self(cells).clamp_min(1e-20))
