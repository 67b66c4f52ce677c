"""Cells in arrays: which axes are which, and rows of them in the detector's order.

A regular detector has three axes: x, y and z (the layers) of a grid, z, a (alpha) and r of a mesh. An array (N, k, l, m) has them in some order, the
slowest first: ``zxy`` is layer, x, y. An order is taken when the shape allows no other one; where axes are equally long it must be the format's or the
user's. A flat array (N, n_cells) is in the detector's own order unless the format or the user says which. Detectors whose layers differ have one array a layer, each
x by y (or y by x), or alpha by r.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.formats.base import Rows, Table
from caloforge.geometry import CylindricalLayer, Detector
from caloforge.showers import hdf5
from caloforge.showers.plausibility import arranged, axis_sizes

__all__ = ["ArrayTable", "MemoryRows", "RowArray"]


class RowArray(ABC):
    """An array with a row for each shower, read by ranges of rows."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""

    @property
    def band(self) -> int:
        """How many rows are best read at a time."""
        return hdf5.rows_per_chunk(self.dtype.itemsize * math.prod(self.shape[1:]))


@dataclass(eq=False)
class MemoryRows(RowArray):
    """An array in memory, or mapped into it."""

    name: str
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape, the showers first."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """Type of the values."""
        return self.values.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        return self.values[start:stop]


class ArrayTable(Table):
    """A file whose showers are in arrays.

    Arguments:
        path: The file, for messages.
        cells: One array, or one a layer.
        energy: Incident energies (N,) or (N, 1); None when there are none.
        theta: Angles likewise.
        conditions: Arrays (N, k) or (N,) by name.
        axes: The format's order of axes, of arrays of layers that of each; None for the detector's own order, empty when it has none.
        facts: Attributes of the file, as in files of caloforge.

    Raises:
        FileFormatError: When an array holds no numbers, or has not a row for each shower.
    """

    def __init__(
        self,
        path: Path,
        cells: Sequence[RowArray],
        energy: RowArray | None,
        theta: RowArray | None = None,
        conditions: Mapping[str, RowArray] | None = None,
        axes: str | None = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, facts)
        self._cells, self._energy, self._theta = list(cells), energy, theta
        self._conditions = dict(conditions or {})
        self._native, self._own = axes or "", axes is None
        self._axes, self._orders = "", [""] * len(cells)
        self._n = cells[0].shape[0] if cells[0].shape else 0
        if not self._n:
            self.reject(self._where(cells[0]), "has no showers; expected at least one")
        single = [one for one in (energy, theta) if one is not None]
        for one in (*cells, *single, *self._conditions.values()):
            if one.dtype.kind not in "fiu":
                self.reject(self._where(one), f"has type {one.dtype}; expected numbers")
            if one.shape[:1] != (self._n,):
                self.reject(self._where(one), f"has shape {one.shape}; expected {self._n} rows, one a shower")
        for one in single:
            if math.prod(one.shape[1:]) != 1:
                self.reject(
                    self._where(one), f"has shape {one.shape}; expected (N,) or (N, 1), one value a shower"
                )

    def __len__(self) -> int:
        return self._n

    @property
    def band(self) -> int:
        """How many showers are best read at a time."""
        return max(1, min(one.band for one in self._cells))

    def describe(self) -> str:
        """Return the names of the arrays."""
        names = ", ".join(f"'{one.name}'" for one in self._cells[:3])
        more = f" and {len(self._cells) - 3} more" if len(self._cells) > 3 else ""
        order = f" (axes {self._axes})" if self._axes else ""
        return f"cells {names}{more}{order}"

    def fits(self, detector: Detector) -> bool:
        """Return whether the cells can be those of a detector."""
        try:
            self._resolve(detector, "")
        except FileFormatError as error:
            return str(error).endswith(_AMBIGUOUS)
        return True

    def bind(self, detector: Detector, axes: str) -> str:
        """Choose the order of the axes for a detector, see the module."""
        self._detector = detector
        self._axes, self._orders = self._resolve(detector, axes)
        return self._axes

    def rows(self, start: int, stop: int) -> Rows:
        """Read the showers of a range."""
        conditions = {
            name: np.asarray(one.read(start, stop)).reshape(stop - start, -1)
            for name, one in self._conditions.items()
        }
        cells, raw = self._read_cells(start, stop)
        return Rows(
            cells,
            self._column(self._energy, start, stop),
            self._column(self._theta, start, stop),
            conditions,
            raw,
        )

    def _read_cells(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        n, place = stop - start, self._detector
        if len(self._cells) == 1:
            values = np.asarray(self._cells[0].read(start, stop), np.float32)
            raw = values.reshape(n, *_squeezed(self._cells[0].shape[1:]))
            if not self._axes:
                return raw.reshape(n, place.n_cells), None
            return arranged(raw, self._axes, place), raw
        cells = np.empty((n, place.n_cells), np.float32)
        for one, order, layer, where in zip(
            self._cells, self._orders, place.layers, place.layer_cells, strict=True
        ):
            values = np.asarray(one.read(start, stop), np.float32).reshape(n, *_squeezed(one.shape[1:]))
            sizes = _layer_sizes(layer)
            if order and order != "".join(sizes):
                values = values.transpose(0, 2, 1)
            cells[:, where] = values.reshape(n, layer.n_cells)
        return cells, None

    def _column(self, one: RowArray | None, start: int, stop: int) -> NDArray[np.float64] | None:
        return None if one is None else np.asarray(one.read(start, stop), np.float64).reshape(stop - start)

    def _where(self, one: RowArray) -> str:
        return f"'{one.name}'"

    def _resolve(self, detector: Detector, axes: str) -> tuple[str, list[str]]:
        """Return the order of axes, and that of each array where there is one a layer."""
        if len(self._cells) > 1:
            return self._resolve_layers(detector, axes)
        one, sizes = self._cells[0], axis_sizes(detector)
        shape = _squeezed(one.shape[1:])
        if detector.n_layers == 1 and len(shape) == 2:
            layer = _layer_sizes(detector.layers[0])
            order = self._order(
                one, shape, layer, axes or self._native.replace("z", ""), bool(axes), detector
            )
            if order == "".join(layer):
                return "", [""]
            self.reject(self._where(one), f"is stored {order}; expected {''.join(layer)}, or its transpose")
        if len(shape) == 1:
            if shape != (detector.n_cells,):
                self._misfit(one, f"(N, {detector.n_cells})", detector)
            if axes and not sizes:
                self.reject(
                    self._where(one), f"is flat and '{detector.name}' has no regular axes; leave out --axes"
                )
            if axes and sorted(axes) != sorted(sizes):
                self._unknown_axes(axes, sizes, detector)
            own = self._native if sorted(self._native) == sorted(sizes) else "".join(sizes)
            return axes or own, [""]
        if not sizes:
            self._misfit(one, f"(N, {detector.n_cells}), or one array a layer,", detector)
        return self._order(one, shape, sizes, axes or self._native, bool(axes), detector), [""]

    def _resolve_layers(self, detector: Detector, axes: str) -> tuple[str, list[str]]:
        if len(self._cells) != detector.n_layers:
            names = ", ".join(one.name for one in self._cells)
            self.reject(
                "",
                f"has {len(self._cells)} arrays of cells ({names}); '{detector.name}' has {detector.n_layers} layers",
            )
        wanted = (axes or self._native).replace("z", "")
        shapes = [_squeezed(one.shape[1:]) for one in self._cells]
        layers = [_layer_sizes(layer) for layer in detector.layers]
        for one, shape, sizes in zip(self._cells, shapes, layers, strict=True):
            if math.prod(shape) != math.prod(sizes.values()):
                self._misfit(one, f"(N, {' x '.join(map(str, sizes.values()))})", detector)
        letters = "".join(layers[0])
        possible = [
            order
            for order in (letters, letters[::-1])
            if all(
                len(shape) == 1 or shape == tuple(sizes[letter] for letter in order)
                for shape, sizes in zip(shapes, layers, strict=True)
            )
        ]
        if axes and sorted(wanted) != sorted(letters):
            self._unknown_axes(axes, layers[0], detector)
        if wanted in possible:
            chosen = wanted
        elif len(possible) == 1 and not axes:
            chosen = possible[0]
        else:
            found = ", ".join("x".join(map(str, shape)) for shape in shapes)
            expected = ", ".join(
                "x".join(str(sizes[letter]) for letter in wanted or letters) for sizes in layers
            )
            self.reject(
                "",
                f"has layers of {found} cells; expected {expected} ({wanted or letters}) for detector '{detector.name}'",
            )
        return chosen, [chosen if len(shape) == 2 else "" for shape in shapes]

    def _order(
        self,
        one: RowArray,
        shape: tuple[int, ...],
        sizes: dict[str, int],
        wanted: str,
        said: bool,
        detector: Detector,
    ) -> str:
        """Return the order of axes of an array with this shape."""
        if wanted and sorted(wanted) != sorted(sizes):
            if said:
                self._unknown_axes(wanted, sizes, detector)
            wanted = ""
        fitting = [
            order
            for order in map("".join, permutations(sizes))
            if shape == tuple(sizes[letter] for letter in order)
        ]
        if wanted in fitting:
            return wanted
        if not fitting or said:
            order = wanted or "".join(sizes)
            self._misfit(
                one, f"(N, {', '.join(str(sizes[a]) for a in order)}) in the order {order}", detector
            )
        if self._own and "".join(sizes) in fitting:
            return "".join(sizes)
        if len(fitting) == 1:
            return fitting[0]
        self.reject(self._where(one), f"has shape {one.shape}: {' or '.join(fitting)}? {_AMBIGUOUS}")

    def _unknown_axes(self, axes: str, sizes: Mapping[str, int], detector: Detector) -> NoReturn:
        self.reject(
            "",
            f"--axes {axes} does not name the axes of '{detector.name}'; expected an order of {', '.join(sizes)}",
        )

    def _misfit(self, one: RowArray, expected: str, detector: Detector) -> NoReturn:
        self.reject(
            self._where(one), f"has shape {one.shape}; expected {expected} for detector '{detector.name}'"
        )


_AMBIGUOUS = "settle it with --axes"


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without axes of length 1, but at least one axis."""
    return tuple(size for size in shape if size != 1) or (1,)


def _layer_sizes(layer: Any) -> dict[str, int]:
    """Return the number of cells along a layer's axes, in its own order."""
    if isinstance(layer, CylindricalLayer):
        return {"a": layer.n_alpha, "r": layer.n_r}
    return {"x": layer.nx, "y": layer.ny}
