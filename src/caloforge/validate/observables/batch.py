"""A batch of showers with the sums that many observables need, each computed once, and statistics of every cell.

Showers are sparse, so everything starts from the hits: filled cells of at least ``cut``, in the order of the file. Their
energies are summed in float64. Positions are the nominal cell centres plus the detector's layer shift, where
its cells move with an alignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.geometry import CylindricalLayer, Detector
from caloforge.showers import Showers

__all__ = ["CellStatistics", "CellSums", "ShowerBatch", "cell_positions", "is_filled"]

Array = NDArray[np.float64]


def is_filled(cells: NDArray[np.float32], cut: float) -> NDArray[np.bool_]:
    """Return which cells have energy after those below the cut (MeV) were set to 0, as the CaloChallenge does."""
    return np.asarray(cells >= cut if cut > 0.0 else cells > 0.0)


@dataclass(frozen=True, eq=False)
class CellPositions:
    """Layer and position of every cell, as contiguous arrays."""

    layer: NDArray[np.int64]
    """(n_cells,)"""
    centre: Array
    """(3, n_cells) nominal x, y, z, mm."""
    radius: Array | None
    """(n_cells,) own r of a mesh's voxels, mm; None for cells."""


@lru_cache(maxsize=16)
def cell_positions(detector: Detector) -> CellPositions:
    """Return the positions of a detector's cells."""
    rings = [layer.radii() for layer in detector.layers if isinstance(layer, CylindricalLayer)]
    return CellPositions(
        layer=np.ascontiguousarray(detector.cell_layer),
        centre=np.ascontiguousarray(detector.cell_centres.T),
        radius=np.concatenate(rings) if rings else None,
    )


class ShowerBatch:
    """Showers and their shared sums.

    Arguments:
        showers: N showers.
        threshold: Energy above which a cell counts as a hit in :attr:`n_hits`, MeV.
        cut: Cells below this energy are empty for every observable, MeV; the detector's ``evaluation_cut`` when None.

    Raises:
        InputError: When a cell is NaN, infinite or negative.
    """

    def __init__(self, showers: Showers, threshold: float = 0.1, cut: float | None = None) -> None:
        self.showers: Showers = showers
        self.threshold = threshold
        self.detector: Detector = showers.detector
        self.positions = cell_positions(self.detector)
        self.cut = self.detector.evaluation_cut if cut is None else cut
        self.n = len(showers)
        cells = showers.cells
        if cells.size and not (cells.min() >= 0 and cells.max() < np.inf):
            row, cell = np.argwhere(~(np.isfinite(cells) & (cells >= 0)))[0]
            msg = f"shower {row}, cell {cell} is {cells[row, cell]}; expected an energy of 0 MeV or more"
            raise InputError(msg)
        flat = np.ascontiguousarray(cells).reshape(-1)
        index = np.flatnonzero(is_filled(flat, self.cut))
        self.energy: Array = flat[index].astype(np.float64)
        """(H,) energy of each hit, MeV."""
        n_cells = self.detector.n_cells
        self.bounds: NDArray[np.int64] = np.searchsorted(index, np.arange(self.n + 1) * n_cells)
        """(N + 1,) where each shower's hits start; the last one is H."""
        self.shower: NDArray[np.int64] = np.repeat(np.arange(self.n), np.diff(self.bounds))
        """(H,) shower of each hit."""
        self.cell: NDArray[np.int64] = index - self.shower * n_cells
        """(H,) flat index of each hit's cell."""

    def sum(self, values: Array) -> Array:
        """Sum values of hits (H,) over each shower: (N,)."""
        return self._reduce(np.add, values)

    def max(self, values: Array) -> Array:
        """Return the largest value of the hits (H,) of each shower (N,); 0 for empty ones."""
        return self._reduce(np.maximum, values)

    def sum_bins(self, bins: NDArray[np.int64], n_bins: int, values: Array) -> Array:
        """Sum values of hits (H,) over each shower and bin (H,): (N, n_bins)."""
        sums = np.bincount(self.shower * n_bins + bins, values, self.n * n_bins)
        return np.asarray(sums, np.float64).reshape(self.n, n_bins)

    def count_bins(self, bins: NDArray[np.int64], n_bins: int) -> NDArray[np.int64]:
        """Count the hits of each shower in each bin (H,): (N, n_bins)."""
        counts = np.bincount(self.shower * n_bins + bins, minlength=self.n * n_bins)
        return counts.reshape(self.n, n_bins).astype(np.int64, copy=False)

    def sum_layers(self, values: Array) -> Array:
        """Sum values of hits (H,) over each shower and layer: (N, n_layers)."""
        n_layers = self.detector.n_layers
        sums = np.bincount(self._layer_key, values, self.n * n_layers)
        return np.asarray(sums, np.float64).reshape(self.n, n_layers)

    def per_hit(self, values: Array) -> Array:
        """Repeat a shower's value (N,) for each of its hits: (H,)."""
        return np.repeat(values, np.diff(self.bounds))

    def mean(self, values: Array) -> Array:
        """Return the energy-weighted mean of hits' values (H,) in each shower (N,); NaN for empty ones."""
        return self.over_total(self.sum(self.energy * values))

    def over_total(self, sums: Array) -> Array:
        """Divide (N,) by the visible energy; NaN for empty showers."""
        out = np.full(self.n, np.nan)
        np.divide(sums, self.total, out=out, where=self.filled)
        return out

    def _reduce(self, operation: np.ufunc, values: Array) -> Array:
        out = np.zeros(self.n)
        if len(values):
            out[self.filled] = operation.reduceat(values, self.bounds[:-1][self.filled])
        return out

    @cached_property
    def layer(self) -> NDArray[np.int64]:
        """(H,) layer of each hit."""
        return np.asarray(self.positions.layer[self.cell])

    @cached_property
    def _layer_key(self) -> NDArray[np.int64]:
        return self.shower * self.detector.n_layers + self.layer

    @cached_property
    def shift(self) -> Array | None:
        """(N, n_layers, 2) offsets of the cells, mm; None where they never move."""
        shift = self.detector.layer_shift(self.showers.conditions)
        return None if shift is None else np.broadcast_to(shift, (self.n, self.detector.n_layers, 2))

    def _position(self, coordinate: int) -> Array:
        nominal: Array = self.positions.centre[coordinate][self.cell]
        if self.shift is None or coordinate == 2:
            return nominal
        offset: Array = self.shift[:, :, coordinate].reshape(-1)[self._layer_key]
        return nominal + offset

    @cached_property
    def x(self) -> Array:
        """(H,) mm."""
        return self._position(0)

    @cached_property
    def y(self) -> Array:
        """(H,) mm."""
        return self._position(1)

    @cached_property
    def z(self) -> Array:
        """(H,) mm."""
        return self._position(2)

    @cached_property
    def beam_radius(self) -> Array:
        """(H,) mm: distance, within the layer, from the line of the nominal beam; a mesh's own r.

        The line enters at (beam.x, beam.y) and leans by z / tan(theta) towards +y.
        """
        if self.positions.radius is not None:
            return self.positions.radius[self.cell]
        lean = 1.0 / np.tan(np.radians(self.showers.incident_theta))
        beam = self.detector.beam
        return _length(self.x - beam.x, self.y - beam.y - self.z * self.per_hit(lean))

    @cached_property
    def axis_radius(self) -> Array:
        """(H,) mm: distance from the line through the shower's centre along the incident direction.

        With direction (0, cos(theta), sin(theta)) and d the offset from the centre of gravity it is
        sqrt(dx^2 + (dy sin(theta) - dz cos(theta))^2). Meshes are centred on the particle: their own r.
        """
        if self.positions.radius is not None:
            return self.positions.radius[self.cell]
        angle = np.radians(self.showers.incident_theta)
        dx, dy, dz = self.offsets
        along = dy * self.per_hit(np.sin(angle)) - dz * self.per_hit(np.cos(angle))
        return _length(dx, along)

    @cached_property
    def offsets(self) -> tuple[Array, Array, Array]:
        """(H,) each: x, y, z of the hits from the shower's centre of gravity, mm."""
        x, y, z = (self.per_hit(centre) for centre in self.centre)
        return self.x - x, self.y - y, self.z - z

    @cached_property
    def filled(self) -> NDArray[np.bool_]:
        """(N,) whether a shower has any hit."""
        return np.diff(self.bounds) > 0

    @cached_property
    def total(self) -> Array:
        """(N,) visible energy, MeV."""
        return self.sum(self.energy)

    @cached_property
    def n_hits(self) -> Array:
        """(N,) number of cells above the threshold."""
        return self.sum((self.energy > self.threshold).astype(np.float64))

    @cached_property
    def layer_energy(self) -> Array:
        """(N, n_layers) MeV."""
        return self.sum_layers(self.energy)

    @cached_property
    def layer_ex(self) -> Array:
        """(N, n_layers) sum of energy times x, MeV mm."""
        return self.sum_layers(self.energy * self.x)

    @cached_property
    def layer_ey(self) -> Array:
        """(N, n_layers) sum of energy times y, MeV mm."""
        return self.sum_layers(self.energy * self.y)

    @cached_property
    def layer_er(self) -> Array:
        """(N, n_layers) sum of energy times the distance from the beam line, MeV mm."""
        return self.sum_layers(self.energy * self.beam_radius)

    @cached_property
    def centre(self) -> tuple[Array, Array, Array]:
        """(N,) each: centre of gravity in x, y, z, mm; NaN for empty showers."""
        depth = np.array([layer.z for layer in self.detector.layers])
        return (
            self.over_total(self.layer_ex.sum(axis=1)),
            self.over_total(self.layer_ey.sum(axis=1)),
            self.over_total(self.layer_energy @ depth),
        )

    @cached_property
    def covariance(self) -> Array:
        """(N, 3, 3) energy-weighted covariance of the hits' positions, mm2; NaN for empty showers."""
        out = np.empty((self.n, 3, 3))
        weighted = [self.energy * offset for offset in self.offsets]
        for i in range(3):
            for j in range(i, 3):
                out[:, i, j] = out[:, j, i] = self.over_total(self.sum(weighted[i] * self.offsets[j]))
        return out


def _length(x: Array, y: Array) -> Array:
    """Return sqrt(x^2 + y^2); four times as fast as np.hypot, whose guard against overflow mm do not need."""
    return np.asarray(np.sqrt(x * x + y * y))


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """Mean energy (empty cells included) and standard deviation, MeV, and fraction of filled showers of each cell (n_cells,)."""

    n: int
    mean: Array
    std: Array
    occupancy: Array


class CellSums:
    """Running sums behind :class:`CellStatistics`."""

    def __init__(self, detector: Detector) -> None:
        self._n = 0
        self._sums = np.zeros((3, detector.n_cells))

    def add(self, batch: ShowerBatch) -> None:
        """Add a batch."""
        self._n += batch.n
        energy, n_cells = batch.energy, self._sums.shape[1]
        for total, weights in zip(self._sums, (energy, energy * energy, None), strict=True):
            total += np.bincount(batch.cell, weights, n_cells)

    def result(self) -> CellStatistics:
        """Return the statistics of all batches so far."""
        mean, square, occupancy = self._sums / max(self._n, 1)
        return CellStatistics(self._n, mean, np.sqrt(np.maximum(square - mean**2, 0.0)), occupancy)
