"""Cells in arrays: which axes are which, and rows of them in the detector's order.

A regular detector has three axes: x, y and z (the layers) of a grid, z, a (alpha) and r of a mesh. An array (N, k, l, m) has them in some order, the slowest
first: ``zxy`` is layer, x, y. An order is taken when it is the user's or the format's and the shape allows it, or when the shape allows no other one. Flat
arrays are in the detector's own order unless the user or the format says which. Detectors whose layers differ may have one array a layer, with two axes each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.formats.base import Rows, Table
from caloforge.geometry import CylindricalLayer, Detector
from caloforge.showers import hdf5
from caloforge.showers.plausibility import arranged, axis_sizes

__all__ = ["CONDITION", "ArrayTable", "MemoryRows", "RowArray", "columns_rows"]

CONDITION = f"{hdf5.CONDITIONS}/"
"""What the role of a condition begins with."""

_AMBIGUOUS = "settle it with --axes"


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

    def __post_init__(self) -> None:
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        return self.values[start:stop]


class ArrayTable(Table):
    """A file whose showers are in arrays.

    Arguments:
        path: The file, for messages.
        keys: Names by role: cells (one, or several with commas, one a layer), energy, theta, conditions/NAME.
        opened: Opens the array of a name and a role.
        axes: The format's order of axes; None for the detector's own order, empty when it has none.
        facts: Attributes of the file, as in files of caloforge.
        close: Closes the file.

    Raises:
        FileFormatError: When an array holds no numbers, or has not a row for each shower.
    """

    def __init__(
        self,
        path: Path,
        keys: Mapping[str, str],
        opened: Callable[[str, str], RowArray],
        axes: str | None = "",
        facts: Mapping[str, Any] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(path, facts, close)
        self._cells = [opened(name.strip(), "cells") for name in keys["cells"].split(",")]
        self._others = {role: opened(name, role) for role, name in keys.items() if role != "cells"}
        self._native, self._axes, self._how = axes, "", ""
        self._n = (self._cells[0].shape or (0,))[0]
        if not self._n:
            self.reject(f"'{self._cells[0].name}'", "has no showers; expected at least one")
        for role, one in [("cells", one) for one in self._cells] + list(self._others.items()):
            if one.dtype.kind not in "fiu":
                self.reject(f"'{one.name}'", f"has type {one.dtype}; expected numbers")
            single = role in ("energy", "theta") and math.prod(one.shape[1:]) != 1
            if one.shape[:1] != (self._n,) or single:
                expected = f"{self._n} rows" + (", one value a shower" if single else "")
                self.reject(f"'{one.name}'", f"has shape {one.shape}; expected {expected}")

    def __len__(self) -> int:
        return self._n

    @property
    def band(self) -> int:
        """How many showers are best read at a time."""
        return min(one.band for one in self._cells)

    def describe(self) -> str:
        """Return the names of the arrays."""
        names = ", ".join(f"'{one.name}'" for one in self._cells[:3])
        more = f" and {len(self._cells) - 3} more" if len(self._cells) > 3 else ""
        order = f" (axes {self._axes}{self._how})" if self._axes else ""
        return f"cells {names}{more}{order}"

    def fits(self, detector: Detector) -> bool:
        """Return whether the cells can be those of a detector."""
        try:
            self.bind(detector, "")
        except FileFormatError as error:
            return str(error).endswith(_AMBIGUOUS)
        return True

    def bind(self, detector: Detector, axes: str) -> str:
        """Choose the order of the axes for a detector, see the module."""
        several = len(self._cells) > 1
        if several and len(self._cells) != detector.n_layers:
            message = (
                f"has {len(self._cells)} arrays of cells; '{detector.name}' has {detector.n_layers} layers"
            )
            self.reject("", message)
        whole = (axis_sizes(detector), np.arange(detector.n_cells))
        layers = [
            (_layer_sizes(layer), where)
            for layer, where in zip(detector.layers, detector.layer_cells, strict=True)
        ]
        self._detector, self._blocks = detector, layers if several else [whole]
        self._axes = self._choose(axes, "".join(self._blocks[0][0]))
        return "" if several else self._axes

    def _choose(self, said: str, letters: str) -> str:
        """Return the order of axes that all arrays have; ``letters`` is the detector's own."""
        wanted = "".join(letter for letter in said or self._native or "" if letter in letters)
        if said and sorted(wanted) != sorted(letters):
            message = f"--axes {said} does not name the axes of '{self._detector.name}'; expected an order of {letters or 'none'}"
            self.reject("", message)
        possible, expected = [], wanted if len(wanted) == len(letters) else letters
        for order in map("".join, permutations(letters)):
            shapes = [_shape(sizes, order) for sizes, _ in self._blocks]
            if all(
                _squeezed(one.shape[1:]) in (shape, (len(where),))
                for one, shape, (_, where) in zip(self._cells, shapes, self._blocks, strict=True)
            ):
                possible.append(order)
        if not possible or (said and wanted not in possible):
            found = ", ".join(str(one.shape) for one in self._cells)
            shapes = [_shape(sizes, expected) or (len(where),) for sizes, where in self._blocks]
            need = ", ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes)
            order = f" in the order {expected}" if expected else ""
            also = f" or (N, {self._detector.n_cells})" if len(shapes) == 1 and expected else ""
            message = f"has shape {found}; expected {need}{order}{also} for detector '{self._detector.name}'"
            self.reject(f"'{self._cells[0].name}'", message)
        flat = all(len(_squeezed(one.shape[1:])) == 1 for one in self._cells)
        own = letters if flat or self._native is None else ""
        for order in (wanted, own):
            if order in possible:
                self._how = ""
                return order
        if len(possible) == 1:
            self._how = ", guessed"
            return possible[0]
        message = f"has shape {self._cells[0].shape}: {' or '.join(possible)}? {_AMBIGUOUS}"
        self.reject(f"'{self._cells[0].name}'", message)

    def rows(self, start: int, stop: int) -> Rows:
        """Read the showers of a range."""
        n, place = stop - start, self._detector
        raws = [np.asarray(one.read(start, stop), np.float32) for one in self._cells]
        cells, raw = np.empty((n, place.n_cells), np.float32), None
        for values, (sizes, where) in zip(raws, self._blocks, strict=True):
            order = "".join(letter for letter in self._axes if letter in sizes)
            cells[:, where] = arranged(values, order, sizes) if order else values.reshape(n, -1)
        if len(raws) == 1 and self._axes:
            raw = raws[0].reshape(n, *_squeezed(raws[0].shape[1:]))
        others = {role: one.read(start, stop) for role, one in self._others.items()}
        return columns_rows(cells, others)._replace(raw=raw)


def columns_rows(cells: NDArray[np.float32], columns: Mapping[str, NDArray[Any]]) -> Rows:
    """Return rows of cells and of energies, angles and conditions by role."""
    n = len(cells)
    energy, theta = (
        np.asarray(columns[role], np.float64).reshape(n) if role in columns else None
        for role in ("energy", "theta")
    )
    named = {
        role[len(CONDITION) :]: v.reshape(n, -1) for role, v in columns.items() if role.startswith(CONDITION)
    }
    return Rows(cells, energy, theta, named)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without axes of length 1, but at least one axis."""
    return tuple(size for size in shape if size != 1) or (1,)


def _shape(sizes: Mapping[str, int], order: str) -> tuple[int, ...]:
    return tuple(sizes[letter] for letter in order if letter in sizes)


def _layer_sizes(layer: Any) -> dict[str, int]:
    """Return the number of cells along a layer's axes, in its own order; without those of length 1."""
    polar = isinstance(layer, CylindricalLayer)
    sizes = {"a": layer.n_alpha, "r": layer.n_r} if polar else {"x": layer.nx, "y": layer.ny}
    return {letter: size for letter, size in sizes.items() if size > 1}
