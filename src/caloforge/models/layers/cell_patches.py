"""Cells of any detector cut into patches, the tokens of a transformer.

A grid is cut into boxes; when its sides are no multiples of the box, the last boxes are padded. Every other detector is
cut layer by layer into pieces of rows along the layer's longer side. All patches hold the same number of places.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer

__all__ = ["CellPatches"]

_SMALL = 12
_ROW = 7


class CellPatches(nn.Module):
    """Cells as patches.

    Arguments:
        detector: The detector.
        box: Sides of a box along x, y and the layers, or (n,) for rows of n cells; empty: chosen from the detector.

    Attributes:
        n_patches: Number of patches.
        places: Places of a patch.
        n_cells: Cells of the detector.
        padded: Whether some patches have places without a cell.
        layers: (n_patches, k) layers in each patch, the last repeated where there are fewer.
    """

    index: Tensor
    back: Tensor
    layers: Tensor

    def __init__(self, detector: Detector, box: tuple[int, ...] = ()) -> None:
        super().__init__()
        index = _boxes(detector, box) if detector.is_grid else _rows(detector, box)
        self.n_patches, self.places = index.shape
        self.n_cells = detector.n_cells
        self.padded = bool((index == detector.n_cells).any())
        back = np.zeros(detector.n_cells, np.int64)
        flat = index.ravel()
        back[flat[flat < detector.n_cells]] = np.nonzero(flat < detector.n_cells)[0]
        layer = np.append(detector.cell_layer, -1)[index]
        found = [np.unique(row[row >= 0]) for row in layer]
        most = max(len(row) for row in found)
        layers = np.stack([np.pad(row, (0, most - len(row)), mode="edge") for row in found])
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("back", torch.from_numpy(back), persistent=False)
        self.register_buffer("layers", torch.from_numpy(layers), persistent=False)

    def forward(self, cells: Tensor, fill: float = 0.0) -> Tensor:
        """Return patches (B, n_patches, places) of cells (B, n_cells), ``fill`` in padding."""
        if self.padded:
            cells = torch.cat([cells, torch.full_like(cells[:, :1], fill)], 1)
        return cells.index_select(1, self.index.flatten()).view(-1, self.n_patches, self.places)

    def cells(self, patches: Tensor) -> Tensor:
        """Return cells (B, n_cells) of patches (B, n_patches, places)."""
        return patches.flatten(1).index_select(1, self.back)

    def parts(self, outputs: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return n numbers of each cell, (B, n_cells) each, of tokens (B, n_patches, n x places)."""
        flat = outputs.flatten(1)
        first = self.back + self.back.div(self.places, rounding_mode="floor") * ((n - 1) * self.places)
        return tuple(flat.index_select(1, first + k * self.places) for k in range(n))


def _side(n: int) -> int:
    """Return the side of a box along an axis of n cells."""
    return 2 if n <= _SMALL else 5


def _boxes(detector: Detector, box: tuple[int, ...]) -> NDArray[np.int64]:
    """Return cell indices (n_patches, places) of boxes, ``n_cells`` in padding."""
    shape = detector.shape
    sides = box if len(box) == len(shape) else tuple(_side(n) if n > 1 else 1 for n in shape)
    counts = [-(-n // side) for n, side in zip(shape, sides, strict=True)]
    full = np.full([c * s for c, s in zip(counts, sides, strict=True)], detector.n_cells, np.int64)
    full[tuple(slice(0, n) for n in shape)] = np.arange(detector.n_cells).reshape(shape)
    split = full.reshape([k for pair in zip(counts, sides, strict=True) for k in pair])
    axes = [*range(0, split.ndim, 2), *range(1, split.ndim, 2)]
    return split.transpose(axes).reshape(int(np.prod(counts)), int(np.prod(sides)))


def _rows(detector: Detector, box: tuple[int, ...]) -> NDArray[np.int64]:
    """Return cell indices (n_patches, places) of pieces of rows, ``n_cells`` in padding."""
    size = box[0] if len(box) == 1 else _ROW
    pieces = []
    for layer, cells in zip(detector.layers, detector.layer_cells, strict=True):
        rows = cells.reshape(_face(layer))
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        for start in range(0, rows.shape[1], size):
            part = rows[:, start : start + size]
            pieces.append(np.pad(part, ((0, 0), (0, size - part.shape[1])), constant_values=detector.n_cells))
    return np.concatenate(pieces)


def _face(layer: ReadoutLayer | CylindricalLayer) -> tuple[int, int]:
    """Return the rows and columns of a layer's cells."""
    if isinstance(layer, ReadoutLayer):
        return layer.nx, layer.ny
    return layer.n_alpha, layer.n_r
