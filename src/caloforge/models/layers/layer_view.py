"""Cells of any detector as (layers, cells of a layer), padded to the largest layer, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["LayerView"]


class LayerView(nn.Module):
    """Views of cells by layer.

    Attributes:
        n_layers: Layers.
        width: Cells of the largest layer.
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
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("back", torch.from_numpy(back), persistent=False)
        self.register_buffer("x", torch.from_numpy(x), persistent=False)
        self.register_buffer("y", torch.from_numpy(y), persistent=False)

    def forward(self, cells: Tensor, fill: float = 0.0) -> Tensor:
        """Return (B, n_layers, width) of cells (B, n_cells), ``fill`` in padding."""
        padded = torch.cat([cells, torch.full_like(cells[:, :1], fill)], 1)
        return padded[:, self.index.flatten()].reshape(len(cells), self.n_layers, self.width)

    def cells(self, view: Tensor) -> Tensor:
        """Return cells (B, n_cells) of a view (B, n_layers, width)."""
        return view.flatten(1)[:, self.back]
