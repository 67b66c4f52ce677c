"""Readout layers, and the folding of deposits on the fine scoring grid, or of their places, into readout cells.

A layer is scored on a fine rectangular grid centred on the axis. The readout groups ``group`` fine cells
in each direction into one cell, starting at fine index ``start``; where cells move with an alignment
condition of the shower, the start moves by ``sign * alignment``. Deposits outside belong to no cell: -1.

A mesh has no fine grid: its voxels are rings around the beam, cut in angle and depth, and each deposit is put into the voxel of its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Alignment",
    "CylindricalLayer",
    "FineGrid",
    "LayerReadout",
    "MeshReadout",
    "Readout",
    "ReadoutLayer",
]


@dataclass(frozen=True)
class ReadoutLayer:
    """A rectangular grid of cells, x (eta) by y (phi), y fastest."""

    name: str
    nx: int
    ny: int
    pitch_x: float  # mm
    pitch_y: float  # mm
    z: float  # mean depth of its active material, mm
    depth_x0: float = 0.0  # radiation lengths from z = 0 to that depth
    mip: float = 0.0  # mean energy, MeV, that a minimum-ionising particle leaves in its active material
    x_centre: float = 0.0  # centre of the grid, mm
    y_centre: float = 0.0  # centre of the grid, mm

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.nx * self.ny

    @property
    def x(self) -> NDArray[np.float64]:
        """Centres of the columns (nx,), mm."""
        return _centred(self.x_centre, self.nx, self.pitch_x)

    @property
    def y(self) -> NDArray[np.float64]:
        """Centres of the rows (ny,), mm."""
        return _centred(self.y_centre, self.ny, self.pitch_y)

    def centres(self) -> NDArray[np.float64]:
        """Return the cells' centres (n_cells, 3), mm."""
        x, y = np.meshgrid(self.x, self.y, indexing="ij")
        return np.stack([x.ravel(), y.ravel(), np.full(self.n_cells, self.z)], axis=1)

    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where columns (nx, 2) and rows (ny, 2) begin and end, mm."""
        half_x, half_y = self.pitch_x / 2, self.pitch_y / 2
        return (
            np.stack([self.x - half_x, self.x + half_x], axis=1),
            np.stack([self.y - half_y, self.y + half_y], axis=1),
        )

    def boxes(self) -> NDArray[np.float64]:
        """Return each cell's extent (n_cells, 4) as (low 1, high 1, low 2, high 2), here in x and y, mm."""
        return _boxes(*self.intervals())


@dataclass(frozen=True)
class CylindricalLayer:
    """A polar mesh of voxels, alpha by r, r fastest; alpha runs from -pi to pi."""

    name: str
    r_edges: tuple[float, ...]  # edges of the radial bins, mm
    n_alpha: int
    z: float  # depth, mm; the ordinal of the layer where depths are not published
    depth_x0: float = 0.0
    mip: float = 0.0

    @property
    def n_r(self) -> int:
        """Number of radial bins."""
        return len(self.r_edges) - 1

    @property
    def n_cells(self) -> int:
        """Number of voxels."""
        return self.n_r * self.n_alpha

    @property
    def r(self) -> NDArray[np.float64]:
        """Centres of the radial bins (n_r,), mm."""
        return _middles(np.asarray(self.r_edges, np.float64))

    @property
    def alpha(self) -> NDArray[np.float64]:
        """Centres of the angular bins (n_alpha,), radians."""
        return _middles(np.linspace(-np.pi, np.pi, self.n_alpha + 1))

    def centres(self) -> NDArray[np.float64]:
        """Return the voxels' centres (n_cells, 3), mm; on the axis where there is one angular bin."""
        alpha, r = np.meshgrid(self.alpha, self.r, indexing="ij")
        on = 0.0 if self.n_alpha == 1 else 1.0
        x, y = on * r * np.cos(alpha), on * r * np.sin(alpha)
        return np.stack([x.ravel(), y.ravel(), np.full(self.n_cells, self.z)], axis=1)

    def radii(self) -> NDArray[np.float64]:
        """Return the voxels' radii (n_cells,), mm."""
        return np.tile(self.r, self.n_alpha)

    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where angles (n_alpha, 2), radians, and rings (n_r, 2), mm, begin and end."""
        edges = np.linspace(-np.pi, np.pi, self.n_alpha + 1), np.asarray(self.r_edges, np.float64)
        alpha, r = (np.stack([each[:-1], each[1:]], axis=1) for each in edges)
        return alpha, r

    def boxes(self) -> NDArray[np.float64]:
        """Return each voxel's extent (n_cells, 4): alpha (radians), then r (mm)."""
        return _boxes(*self.intervals())


def _boxes(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the extents (n * m, 4) of the cells of intervals (n, 2) and (m, 2)."""
    return np.concatenate([np.repeat(first, len(second), axis=0), np.tile(second, (len(first), 1))], axis=1)


def _centred(centre: float, n: int, pitch: float) -> NDArray[np.float64]:
    """Return the centres (n,) of equal bins around ``centre``."""
    steps: NDArray[np.float64] = np.arange(n, dtype=np.float64)
    return centre + (steps + (0.5 - n / 2)) * pitch


def _middles(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middles (n,) of bins with these edges (n + 1,)."""
    middles: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
    return middles


@dataclass(frozen=True)
class FineGrid:
    """The scored grid of one layer: numbers and pitches (mm), centred on x = y = 0."""

    nx: int
    ny: int
    pitch_x: float
    pitch_y: float


@dataclass(frozen=True)
class Alignment:
    """A condition that moves the cells of a layer by whole fine cells: ``sign`` times its value."""

    condition: str
    sign: int
    mean: float


@dataclass(frozen=True)
class LayerReadout:
    """Folding of one layer's fine grid into (nx, ny) cells."""

    fine: FineGrid
    nx: int
    ny: int
    group_x: int = 1
    group_y: int = 1
    start_x: int = 0
    start_y: int = 0
    align_x: Alignment | None = None
    align_y: Alignment | None = None


@dataclass(frozen=True)
class Readout:
    """Folding of all layers into the flat order of the detector."""

    energy_scale: ClassVar[float] = 1.0  # stored energy over the energy deposited in active slabs
    layers: tuple[LayerReadout, ...]
    interleaved: bool  # flat index (ix * ny + iy) * n_layers + layer when set, layer after layer otherwise

    @property
    def fine_layers(self) -> tuple[FineGrid, ...]:
        """The scored grid of each layer."""
        return tuple(layer.fine for layer in self.layers)

    def fold(
        self,
        layer: ArrayLike,
        ix: ArrayLike,
        iy: ArrayLike,
        conditions: Mapping[str, ArrayLike] | None = None,
    ) -> NDArray[np.int64]:
        """Return the cell of each hit.

        Arguments:
            layer: (H,) readout layer of each hit.
            ix: (H,) fine index in x.
            iy: (H,) fine index in y.
            conditions: Alignment conditions of the shower that each hit belongs to: scalars or (H,).

        Returns:
            (H,) flat cell index, -1 where the hit is outside the cells.
        """
        layer = np.asarray(layer, np.int64)
        x = np.asarray(ix, np.int64) - self._shift(layer, "x", conditions)
        y = np.asarray(iy, np.int64) - self._shift(layer, "y", conditions)
        table = self._table
        x //= table["group_x"][layer]
        y //= table["group_y"][layer]
        nx, ny = table["nx"][layer], table["ny"][layer]
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        flat = x * ny + y
        flat = flat * len(self.layers) + layer if self.interleaved else flat + table["offset"][layer]
        return np.where(inside, flat, -1)

    def digitise(
        self, x: ArrayLike, y: ArrayLike, layer: ArrayLike, conditions: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.int64]:
        """Return the cell at each position (mm, relative to the axis), -1 outside; see :meth:`fold`."""
        layer = np.asarray(layer, np.int64)
        table = self._table
        ix = np.floor(np.asarray(x) / table["fine_pitch_x"][layer] + table["fine_nx"][layer] / 2.0)
        iy = np.floor(np.asarray(y) / table["fine_pitch_y"][layer] + table["fine_ny"][layer] / 2.0)
        far = 2.0**31
        fx, fy = np.clip(ix, -far, far).astype(np.int64), np.clip(iy, -far, far).astype(np.int64)
        cell = self.fold(layer, fx, fy, conditions)
        scored = (fx >= 0) & (fx < table["fine_nx"][layer]) & (fy >= 0) & (fy < table["fine_ny"][layer])
        return np.where(scored, cell, -1)

    def shift(self, layer: int, conditions: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return the offsets (N, 2) mm of a layer's cells from their nominal centres."""
        entry = self.layers[layer]
        columns: list[NDArray[np.float64]] = []
        n = 1
        for axis, pitch in ((entry.align_x, entry.fine.pitch_x), (entry.align_y, entry.fine.pitch_y)):
            if axis is None:
                columns.append(np.zeros(1))
            else:
                value = np.asarray(conditions[axis.condition], np.float64).reshape(-1)
                n = len(value)
                columns.append(axis.sign * (value - axis.mean) * pitch)
        return np.stack([np.broadcast_to(column, (n,)) for column in columns], axis=1)

    @property
    def alignment_names(self) -> tuple[str, ...]:
        """Names of the conditions that move cells."""
        names = {a.condition: None for entry in self.layers for a in (entry.align_x, entry.align_y) if a}
        return tuple(names)

    def _shift(
        self, layer: NDArray[np.int64], axis: str, conditions: Mapping[str, ArrayLike] | None
    ) -> NDArray[np.int64]:
        """Return the fine index (H,) at which the first cell of each hit's layer begins."""
        start = self._table[f"start_{axis}"][layer]
        for number, entry in enumerate(self.layers):
            alignment: Alignment | None = getattr(entry, f"align_{axis}")
            if alignment is not None:
                value = np.asarray((conditions or {})[alignment.condition], np.int64)
                start = start + np.where(layer == number, alignment.sign * value, 0)
        return start

    @cached_property
    def _table(self) -> dict[str, NDArray[Any]]:
        """The layers' numbers as arrays (n_layers,)."""
        names = ("nx", "ny", "group_x", "group_y", "start_x", "start_y")
        table = {name: np.array([getattr(e, name) for e in self.layers], np.int64) for name in names}
        counts = table["nx"] * table["ny"]
        table["offset"] = np.concatenate([[0], np.cumsum(counts)[:-1]])
        for name in ("nx", "ny", "pitch_x", "pitch_y"):
            table[f"fine_{name}"] = np.array([getattr(e.fine, name) for e in self.layers])
        return table


_SKIN = 1e-6  # mm by which a place counts as less deep, so that the rear face of a layer's last slab is in the layer


@dataclass(frozen=True)
class MeshReadout:
    """Voxels in r, alpha and depth around the line x = y = 0, layer after layer, each alpha by r, r fastest."""

    layers: ClassVar[tuple[LayerReadout, ...]] = ()  # no layer has a fine grid
    alignment_names: ClassVar[tuple[str, ...]] = ()  # no condition moves a voxel
    r_edges: tuple[tuple[float, ...], ...]  # edges of each layer's rings, mm
    n_alpha: tuple[int, ...]  # equal angles of each layer
    z_edges: tuple[float, ...]  # where the layers begin, and the last one ends, mm
    energy_scale: float = 1.0  # stored energy over the energy deposited in active slabs

    @classmethod
    def regular(
        cls,
        n_layers: int,
        n_alpha: int,
        n_r: int,
        pitch_r: float,
        pitch_z: float,
        energy_scale: float = 1.0,
    ) -> MeshReadout:
        """Return a mesh of equal steps, mm, in all layers."""
        rings = tuple(pitch_r * k for k in range(n_r + 1))
        depths = tuple(pitch_z * k for k in range(n_layers + 1))
        return cls((rings,) * n_layers, (n_alpha,) * n_layers, depths, energy_scale)

    @property
    def radius(self) -> float:
        """Outer radius of the widest layer, mm."""
        return max(rings[-1] for rings in self.r_edges)

    def locate(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> NDArray[np.int64]:
        """Return the voxel (H,) at each place (mm, from the entry of the beam), -1 outside."""
        depth = np.searchsorted(self.z_edges, np.asarray(z, np.float64) - _SKIN, "right") - 1
        inside = (depth >= 0) & (depth < len(self.n_alpha))
        layer = np.where(inside, depth, 0).astype(np.int64)
        return np.where(inside, self.digitise(x, y, layer), -1)

    def digitise(
        self, x: ArrayLike, y: ArrayLike, layer: ArrayLike, conditions: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.int64]:
        """Return the voxel (H,) of a layer at each position (mm, relative to the axis), -1 outside."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        layer = np.asarray(layer, np.int64)
        radius = np.hypot(x, y)
        offset, n_alpha, n_r = (column[layer] for column in self._table)
        ring = np.full(np.broadcast(radius, layer).shape, -1)
        for edges, number in self._kinds:
            here = number[layer]
            found = np.searchsorted(edges, radius, "right") - 1
            ring = np.where(here & (found < len(edges) - 1), found, ring)
        inside = ring >= 0
        turn = (np.arctan2(y, x) + np.pi) / (2 * np.pi)  # 0 to 1, both included
        ia = np.floor(turn * n_alpha).astype(np.int64) % n_alpha
        return np.where(inside, offset + ia * n_r + np.where(inside, ring, 0), -1)

    def shift(self, layer: int, conditions: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return the offsets (1, 2) mm of a layer's voxels from their nominal centres: none."""
        return np.zeros((1, 2))

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """First voxel, angles and rings of each layer, (n_layers,)."""
        n_alpha, n_r = np.array(self.n_alpha), np.array([len(rings) - 1 for rings in self.r_edges])
        return np.concatenate([[0], np.cumsum(n_alpha * n_r)[:-1]]), n_alpha, n_r

    @cached_property
    def _kinds(self) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        """The different edges, each with which layers have them (n_layers,)."""
        return [
            (np.array(edges), np.array([rings == edges for rings in self.r_edges]))
            for edges in dict.fromkeys(self.r_edges)
        ]
