"""Sums over the cells of each layer, and back, for any order of the cells.

The cells of layer l stand in row l of a table, which is filled up with the index of a column of zeros; a gather and
a sum then serve every detector, run the same way each time, and export to ONNX.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector

__all__ = ["LayerIndex"]


class LayerIndex(nn.Module):
    """Which cells belong to which layer. It follows from the detector, so that nothing of it is stored.

    Arguments:
        detector: The detector.
    """

    cell_layer: Tensor
    table: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.n_cells, self.n_layers = detector.n_cells, detector.n_layers
        table = np.full((self.n_layers, max(map(len, detector.layer_cells))), self.n_cells)
        for row, cells in zip(table, detector.layer_cells, strict=True):
            row[: len(cells)] = cells
        self.register_buffer("table", torch.from_numpy(table), persistent=False)
        self.register_buffer("cell_layer", torch.from_numpy(detector.cell_layer.copy()), persistent=False)

    def sums(self, cells: Tensor) -> Tensor:
        """Return the sums (B, n_layers) of cells (B, n_cells)."""
        return functional.pad(cells, (0, 1))[:, self.table].sum(-1)

    def spread(self, values: Tensor) -> Tensor:
        """Return values of layers (B, n_layers) for their cells (B, n_cells)."""
        return values[:, self.cell_layer]
