"""Symmetries of showers about the beam: mirror x, mirror y, swap x and y.

Symmetries of showers on a square grid of cells: mirror x, mirror y, swap x and y.

For a beam at right angles onto the centre the three generate the eight symmetries of the square. An inclined beam, which
leans along y, leaves the mirror in x, and the mirror in y if the angle is mirrored too (theta -> 180 - theta).

Symmetries of showers about the point that the beam hits: mirror x, mirror y, swap x and y.

On a grid the mirror maps cell i to 2c - i about the beam's cell c; when that is not the grid's middle (30 cells, cell 15),
cells without a partner inside the grid stay where they are, which is exact in each cell's own distribution. In a detector of
separate layers each layer is turned over, and with it the alignments of the layers (k of K becomes K - 1 - k) and the
impact point.

Mirror showers in x at the plane of the beam, also where that is the middle of a cell.

A beam onto the centre of cell 15 of 30 maps cell i to 30 - i, so that cell 0 has no partner; it stays. That is not exact, but at the
edge there is next to no energy. Detectors with more than one cell without partner are not mirrored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.stage import Batch

__all__ = ["BeamMirror", "BeamSymmetry", "GridSymmetry"]


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


_ON_CENTRE = 1e-3
"""Part of a cell by which the beam may miss the centre of a cell, or the border of two."""
_OPERATIONS = 3


class BeamSymmetry(nn.Module):
    """Apply to each shower the symmetries that its numbers name.

    Arguments:
        detector: The detector; meshes have no symmetries here.
        columns: Name of each condition to its columns (``ShowerModel.columns``).

    Attributes:
        allowed: (3,) 1 or 0: mirror x, mirror y, swap; none until ``allow`` is called.
    """

    allowed: Tensor
    orders: Tensor
    factors: Tensor
    offsets: Tensor

    def __init__(self, detector: Detector, columns: Mapping[str, slice]) -> None:
        super().__init__()
        orders = np.tile(np.arange(detector.n_cells), (_OPERATIONS, 1))
        self.possible = [False] * _OPERATIONS
        if detector.is_flat and detector.is_grid:
            for axis, position in enumerate((detector.beam.x, detector.beam.y)):
                orders[axis], self.possible[axis] = _grid_mirror(detector, axis, position)
            orders[2], self.possible[2] = _grid_swap(detector)
        elif detector.is_flat and detector.readout is not None:
            for axis in range(2):
                orders[axis], self.possible[axis] = _turned(detector, axis), True
        width = max((part.stop for part in columns.values()), default=0)
        factors, offsets = np.ones((_OPERATIONS, width)), np.zeros((_OPERATIONS, width))
        for axis, name in enumerate(_alignments(detector)):
            if name in columns:
                factors[axis, columns[name]] = -1.0
                offsets[axis, columns[name]] = dict(detector.beam.alignments)[name] - 1
            if detector.beam.impact in columns:
                factors[axis, columns[detector.beam.impact].start + axis] = -1.0
        self.register_buffer("orders", torch.from_numpy(orders), persistent=False)
        self.register_buffer("factors", torch.from_numpy(factors).float(), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(offsets).float(), persistent=False)
        self.register_buffer("allowed", torch.zeros(_OPERATIONS))

    def allow(self, theta: NDArray[np.float64]) -> None:
        """Allow what is possible for showers of the angles (N,), degrees: all at right angles, or leaning along y."""
        upright = bool((abs(theta - 90.0) < _ON_CENTRE).all())
        x, y, swap = self.possible
        self.allowed.copy_(torch.tensor([x, y and upright, swap and upright], dtype=torch.float32))

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with each shower changed at random by the symmetries that hold."""
        shape = (len(batch), _OPERATIONS)
        numbers = torch.rand(shape, generator=generator, device=batch.cells.device) - 0.5
        cells, conditions = self(batch.cells, batch.conditions, numbers)
        return Batch(cells, conditions, batch.indices)

    def forward(self, cells: Tensor, conditions: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return cells (B, n_cells) and conditions (B, C), changed as the signs of the numbers (B, 3) say.

        Swapping comes first, mirrors after it.
        """
        flags = (numbers > 0) & (self.allowed > 0.5)
        for operation in (2, 0, 1):
            if not self.possible[operation]:
                continue
            flag = flags[:, operation : operation + 1]
            cells = torch.where(flag, cells.index_select(1, self.orders[operation]), cells)
            moved = conditions * self.factors[operation] + self.offsets[operation]
            conditions = torch.where(flag, moved, conditions)
        return cells, conditions


def _grid_mirror(detector: Detector, axis: int, position: float) -> tuple[NDArray[np.int64], bool]:
    """Return the order of a grid's cells mirrored at a position, and whether cells fall onto cells."""
    centres = np.unique(np.round(detector.cell_centres[:, axis], 6))
    n = len(centres)
    pitch = centres[1] - centres[0] if n > 1 else 1.0
    twice = 2.0 * (position - centres[0]) / pitch
    nearest = round(twice)
    order = nearest - np.arange(n)
    order = np.where((order >= 0) & (order < n), order, np.arange(n))
    cells = np.arange(detector.n_cells).reshape(detector.shape)
    return np.take(cells, order, axis=axis).ravel(), abs(twice - nearest) < _ON_CENTRE


def _grid_swap(detector: Detector) -> tuple[NDArray[np.int64], bool]:
    """Return the order of a grid's cells with x and y exchanged, and whether that leaves beam and grid as they are."""
    cells, centres, beam = np.arange(detector.n_cells), detector.cell_centres, detector.beam
    square = (
        detector.shape[0] == detector.shape[1] and abs(centres[:, 0].max() - centres[:, 1].max()) < _ON_CENTRE
    )
    if not square or abs(beam.x - beam.y) > _ON_CENTRE:
        return cells, False
    return cells.reshape(detector.shape).swapaxes(0, 1).ravel(), True


def _turned(detector: Detector, axis: int) -> NDArray[np.int64]:
    """Return the order of the cells with each layer turned over along an axis."""
    parts = [
        np.flip(cells.reshape(layer.nx, layer.ny), axis).ravel()
        for layer, cells in zip(detector.layers, detector.layer_cells, strict=True)
        if isinstance(layer, ReadoutLayer)
    ]
    return np.concatenate(parts)


def _alignments(detector: Detector) -> tuple[str, str]:
    """Return the alignments along x and y that a readout of separate layers names; empty where there are none."""
    found = ["", ""]
    readout = detector.readout
    for layer in readout.layers if readout is not None else ():
        for axis, alignment in enumerate((layer.align_x, layer.align_y)):
            found[axis] = alignment.condition if alignment is not None else found[axis]
    return found[0], found[1]


_MOST_ALONE = 1


class BeamMirror(nn.Module):
    """Mirror a grid in x.

    Arguments:
        detector: A grid.

    Attributes:
        holds: Whether the mirror is a symmetry of the detector with its beam.
    """

    order: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layer = next(layer for layer in detector.layers if isinstance(layer, ReadoutLayer))
        twice = 2.0 * (detector.beam.x - layer.x[0]) / layer.pitch_x
        image = np.round(twice).astype(int) - np.arange(layer.nx)
        alone = (image < 0) | (image >= layer.nx)
        exact = abs(twice - round(twice)) < 1e-3
        self.holds = bool(exact and alone.sum() <= _MOST_ALONE and detector.beam.spread_x == 0.0)
        order = np.where(alone, np.arange(layer.nx), image)
        self.register_buffer("order", torch.from_numpy(order), persistent=False)

    def forward(self, grid: Tensor) -> Tensor:
        """Return the mirrored grid (B, X, Y, L)."""
        return grid[:, self.order]
