"""Cells of any detector as (layers, cells of a layer), padded to the largest layer, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector

__all__ = ["LayerView"]


class LayerView(nn.Module):
    """Views of cells by layer.

    Attributes:
        n_layers: Layers.
        width: Cells of the largest layer.
        padded: Whether some layers have fewer.
        x: (n_layers, width) positions of the cells in units of the layer's half width, 0 in padding.
        y: The same along the other axis.
    """

    index: Tensor
    back: Tensor
    x: Tensor
    y: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.n_layers = detector.n_layers
        self.width = max(len(cells) for cells in detector.layer_cells)
        index = np.full((self.n_layers, self.width), detector.n_cells, np.int64)
        back = np.zeros(detector.n_cells, np.int64)
        x, y = np.zeros((2, self.n_layers, self.width), np.float32)
        for layer, cells in enumerate(detector.layer_cells):
            index[layer, : len(cells)] = cells
            back[cells] = layer * self.width + np.arange(len(cells))
            centres = detector.cell_centres[cells]
            for target, column in ((x, 0), (y, 1)):
                middle = 0.5 * (centres[:, column].min() + centres[:, column].max())
                reach = max(0.5 * float(np.ptp(centres[:, column])), 1e-6)
                target[layer, : len(cells)] = (centres[:, column] - middle) / reach
        self.padded = bool((index == detector.n_cells).any())
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("back", torch.from_numpy(back), persistent=False)
        self.register_buffer("x", torch.from_numpy(x), persistent=False)
        self.register_buffer("y", torch.from_numpy(y), persistent=False)

    def forward(self, cells: Tensor, fill: float = 0.0) -> Tensor:
        """Return (B, n_layers, width) of cells (B, n_cells), ``fill`` in padding."""
        if self.padded:
            cells = torch.cat([cells, torch.full_like(cells[:, :1], fill)], 1)
        return cells.index_select(1, self.index.flatten()).view(-1, self.n_layers, self.width)

    def cells(self, view: Tensor) -> Tensor:
        """Return cells (B, n_cells) of a view (B, n_layers, width)."""
        return view.flatten(1).index_select(1, self.back)

    def positions(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions x and y (B, n_layers, K) of places (B, n_layers, K) in each layer, 0 at the place ``width``."""
        flat = self._flat(places)
        x, y = (functional.pad(table, (0, 1)).flatten() for table in (self.x, self.y))
        return x.index_select(0, flat).view_as(places), y.index_select(0, flat).view_as(places)

    def placed(self, energy: Tensor, places: Tensor) -> Tensor:
        """Return cells (B, n_cells) that hold energies (B, n_layers, K) at their places, others 0."""
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
