"""How deposits become cells: the fine grid that is scored and its folding into readout cells.

A layer is scored on a fine rectangular grid centred on the axis. The readout groups ``group`` fine cells
in each direction into one cell, starting at fine index ``start``; where cells move with an alignment
condition of the shower, the start moves by ``sign * alignment``. Deposits outside belong to no cell: -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Alignment", "FineGrid", "LayerReadout", "Readout"]


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
    """Folding of all layers into the flat order of the detector.

    Arguments:
        layers: One entry a readout layer.
        interleaved: Flat index (ix * ny + iy) * n_layers + layer when set, layer after layer otherwise.
    """

    layers: tuple[LayerReadout, ...]
    interleaved: bool

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
        table = self._table()
        x //= table["group_x"][layer]
        y //= table["group_y"][layer]
        nx, ny = table["nx"][layer], table["ny"][layer]
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        flat = x * ny + y
        flat = flat * len(self.layers) + layer if self.interleaved else flat + table["offset"][layer]
        return np.where(inside, flat, -1)

    def digitise(
        self,
        x: ArrayLike,
        y: ArrayLike,
        layer: ArrayLike,
        conditions: Mapping[str, ArrayLike] | None = None,
    ) -> NDArray[np.int64]:
        """Return the cell at each position (mm, relative to the axis), -1 outside; see :meth:`fold`."""
        layer = np.asarray(layer, np.int64)
        table = self._table()
        ix = np.floor(np.asarray(x) / table["pitch_x"][layer] + table["fine_nx"][layer] / 2.0)
        iy = np.floor(np.asarray(y) / table["pitch_y"][layer] + table["fine_ny"][layer] / 2.0)
        far = 2.0**31
        fx, fy = np.clip(ix, -far, far).astype(np.int64), np.clip(iy, -far, far).astype(np.int64)
        cell = self.fold(layer, fx, fy, conditions)
        scored = (fx >= 0) & (fx < table["fine_nx"][layer]) & (fy >= 0) & (fy < table["fine_ny"][layer])
        return np.where(scored, cell, -1)

    def shift(self, layer: int, conditions: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return by how much (N, 2) mm a layer's cells lie off their nominal centres."""
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
        start = self._table()[f"start_{axis}"][layer]
        for number, entry in enumerate(self.layers):
            alignment: Alignment | None = getattr(entry, f"align_{axis}")
            if alignment is not None:
                value = np.asarray((conditions or {})[alignment.condition], np.int64)
                start = start + np.where(layer == number, alignment.sign * value, 0)
        return start

    def _table(self) -> dict[str, NDArray[Any]]:
        """Return the layers' numbers as arrays (n_layers,)."""
        cached: dict[str, NDArray[Any]] | None = self.__dict__.get("_columns")
        if cached is None:
            names = ("nx", "ny", "group_x", "group_y", "start_x", "start_y")
            cached = {name: np.array([getattr(e, name) for e in self.layers], np.int64) for name in names}
            counts = cached["nx"] * cached["ny"]
            cached["offset"] = np.concatenate([[0], np.cumsum(counts)[:-1]])
            cached["fine_nx"] = np.array([e.fine.nx for e in self.layers], np.int64)
            cached["fine_ny"] = np.array([e.fine.ny for e in self.layers], np.int64)
            cached["pitch_x"] = np.array([e.fine.pitch_x for e in self.layers])
            cached["pitch_y"] = np.array([e.fine.pitch_y for e in self.layers])
            self.__dict__["_columns"] = cached
        return cached
