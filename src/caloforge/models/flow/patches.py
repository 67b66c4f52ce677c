"""Patches of cells, the tokens of the flow's transformer, and linear maps of patches.

A patch is a box of a grid, whole rings of a few layers of a mesh, or a piece of a row of anything else.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.nn.cell_networks import CellTable

__all__ = ["CellPatches", "PatchLinear"]

_OWN = 200_000  # most weights of a layer whose patches have separate matrices
_SMALL = 12  # cells along an axis up to which boxes have sides of 2, beyond 5
_MESH_LAYERS, _MOST_AROUND = 3, 32  # layers of a patch of a mesh, and most of its angular bins
_ROW = 7  # cells of a row in a patch where there is no grid


class PatchLinear(nn.Module):
    """A linear map of (B, patches, inputs) to (B, patches, outputs), with zero weights at first if ``zero``.

    Patches k, k + kinds, k + 2 kinds, ... share a matrix; small maps have one for each patch.
    """

    def __init__(self, patches: int, inputs: int, outputs: int, zero: bool = False, kinds: int = 1) -> None:
        super().__init__()
        self.kinds = patches if patches * inputs * outputs <= _OWN else kinds
        shape = (self.kinds, inputs, outputs) if self.kinds > 1 else (inputs, outputs)
        weight = torch.zeros(shape) if zero else torch.randn(shape) / inputs**0.5
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(self.kinds, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, outputs)."""
        if self.kinds > 1:
            kinds = x.reshape(x.shape[0], -1, self.kinds, x.shape[2])
            found = torch.einsum("bnki,kio->bnko", kinds, self.weight.to(x.dtype))
            return (found + self.bias).flatten(1, 2)
        return x @ self.weight.to(x.dtype) + self.bias


class CellPatches(CellTable):
    """Cells with one row a patch.

    Arguments:
        detector: The detector.
        box: Sides of a box along the axes of the detector's shape, or (n,) for rows of n cells; empty: chosen from the detector.

    Attributes:
        places: Places of a patch.
        kinds: Kinds of patches; that of a patch is its number modulo this.
    """

    layers: Tensor  # (n_patches, k) layers in each patch, the last repeated where there are fewer

    def __init__(self, detector: Detector, box: tuple[int, ...] = ()) -> None:
        sides = _sides(detector, box)
        index = _boxes(detector, sides) if sides else _rows(detector, box)
        super().__init__(index, detector.n_cells)
        self.kinds = -(-detector.shape[2] // sides[2]) if detector.is_mesh else 1
        self.n_patches, self.places = index.shape
        self.n_cells = detector.n_cells
        layer = np.append(detector.cell_layer, -1)[index]
        found = [np.unique(row[row >= 0]) for row in layer]
        most = max(len(row) for row in found)
        layers = np.stack([np.pad(row, (0, most - len(row)), mode="edge") for row in found])
        self.register_buffer("layers", torch.from_numpy(layers), persistent=False)

    def parts(self, outputs: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return n numbers of each cell, (B, n_cells) each, of tokens (B, n_patches, n x places)."""
        flat = outputs.flatten(1)
        first = self.back + self.back.div(self.places, rounding_mode="floor") * ((n - 1) * self.places)
        return tuple(flat.index_select(1, first + k * self.places) for k in range(n))


def _sides(detector: Detector, box: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sides of boxes in the order of the detector's axes; none where there are no boxes."""
    shape = detector.shape
    if not (detector.is_grid or detector.is_mesh):
        return ()
    if len(box) == len(shape):
        return box
    if detector.is_mesh:
        return min(shape[0], _MESH_LAYERS), -(-shape[1] // -(-shape[1] // _MOST_AROUND)), 1
    return tuple(min(n, 2 if n <= _SMALL else 5) for n in shape)


def _boxes(detector: Detector, sides: tuple[int, ...]) -> NDArray[np.int64]:
    """Return cell indices (n_patches, places) of boxes, ``n_cells`` in padding."""
    shape = detector.shape
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
        face = (layer.nx, layer.ny) if isinstance(layer, ReadoutLayer) else (layer.n_alpha, layer.n_r)
        rows = cells.reshape(face)
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        for start in range(0, rows.shape[1], size):
            part = rows[:, start : start + size]
            pieces.append(np.pad(part, ((0, 0), (0, size - part.shape[1])), constant_values=detector.n_cells))
    return np.concatenate(pieces)
