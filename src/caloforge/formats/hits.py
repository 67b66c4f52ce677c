"""Trees of hits: lists of energies, each at a position in mm or in a numbered cell, put into the cells of a detector.

A hit at a position belongs to the layer whose boundaries, half way to the neighbouring layers, are around its depth, and there to the cell around its x and y.
Files of whole detectors have other coordinates: ``origin`` is where our x = y = z = 0 (the axis at the front face) is in the file, ``axes`` names the file's first,
second and third coordinate in our letters (``zxy``: its x is our depth z, its y our x, its z our y). Energies of hits in one cell are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.formats.arrays import columns_rows
from caloforge.formats.base import ReadOptions, Rows, Table
from caloforge.formats.trees import Branches, BranchRows
from caloforge.geometry import Detector
from caloforge.showers import hdf5
from caloforge.showers.sparse import Cells

__all__ = ["HitTable"]

_BAND = 256  # entries


class HitTable(Table):
    """A tree whose showers are lists of hits.

    Arguments:
        branches: The tree.
        keys: Names of branches by role: hit_energy, and hit_cell or hit_x, hit_y and hit_z; energy, theta, conditions/NAME.
        options: What the user says.
        facts: Attributes of the file, as in files of caloforge.
        close: Closes the file.

    Raises:
        FileFormatError: When there are no showers. On reading, when a hit is outside of the cells and may not be left out.
        InputError: When the order of axes is none of x, y and z.
    """

    def __init__(
        self,
        branches: Branches,
        keys: Mapping[str, str],
        options: ReadOptions,
        facts: Mapping[str, Any] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(branches.path, facts, close)
        if not branches.n:
            self.reject("", "has no showers; expected at least one")
        self.branches, self.options, self._keys = branches, options, keys
        self._columns = {
            role: BranchRows(branches, name, role)
            for role, name in keys.items()
            if not role.startswith("hit_")
        }
        axes = options.axes or "xyz"
        if sorted(axes) != ["x", "y", "z"]:
            raise InputError(f"--axes {axes} does not name coordinates; expected an order of x, y, z")
        if options.axes and "hit_cell" in keys:
            raise InputError("--axes does not apply to hits of numbered cells")
        self.order = [axes.index(letter) for letter in "xyz"]

    def __len__(self) -> int:
        return self.branches.n

    @property
    def band(self) -> int:
        """How many showers are best read at a time."""
        return min(_BAND, hdf5.rows_per_chunk(8 * self._detector.n_cells, hdf5.STREAM_BYTES))

    def describe(self) -> str:
        """Return the names of the branches."""
        return f"hits '{self._keys['hit_energy']}' at {self._keys.get('hit_cell', 'positions')}"

    def bind(self, detector: Detector, axes: str) -> str:
        """Prepare the reading of cells of a detector."""
        self._detector, self._cells = detector, Cells(detector)
        z = np.array([layer.z for layer in detector.layers])
        step = np.diff(z) / 2 if len(z) > 1 else np.array([np.inf])
        self._edges = np.concatenate([[z[0] - step[0]], (z[:-1] + step)[: len(z) - 1], [z[-1] + step[-1]]])
        self.forget()
        return ""

    def forget(self) -> None:
        """Begin the account of what lies outside again: what was read before was a sample."""
        self.notes, self._outside, self._total = (), 0.0, 0.0

    def columns(self, start: int, stop: int) -> Rows:
        """Read all but the cells."""
        found = {role: one.read(start, stop) for role, one in self._columns.items()}
        return columns_rows(np.empty((stop - start, 0), np.float32), found)

    def rows(self, start: int, stop: int) -> Rows:
        """Read the showers of a range."""
        energy, counts = self._list("hit_energy", start, stop)
        if "hit_cell" in self._keys:
            cell = self._list("hit_cell", start, stop, counts)[0].astype(np.int64)
            cell = np.where((cell >= 0) & (cell < self._detector.n_cells), cell, -1)
        else:
            place = [self._list(f"hit_{axis}", start, stop, counts)[0] for axis in "xyz"]
            ours = (np.stack(place, 1).astype(np.float64) - np.asarray(self.options.origin))[:, self.order]
            layer = np.searchsorted(self._edges, ours[:, 2], "right") - 1
            cell = self._cells.find(np.column_stack([ours[:, :2], layer]).astype(np.float32))
        row, outside = np.repeat(np.arange(stop - start), counts), cell < 0
        self._total += float(energy.sum(dtype=np.float64))
        if outside.any():
            hit = int(np.argmax(outside))
            where = [self._list(role, start, stop)[0][hit] for role in self._keys if role in _PLACES]
            self._leave_out(start + int(row[hit]), where, float(energy[outside].sum(dtype=np.float64)))
        size = (stop - start) * self._detector.n_cells
        flat = (row * self._detector.n_cells + cell)[~outside]
        summed = np.bincount(flat, energy[~outside].astype(np.float64), size).reshape(stop - start, -1)
        return self.columns(start, stop)._replace(cells=summed.astype(np.float32))

    def _leave_out(self, row: int, where: list[float], energy: float) -> None:
        """Account for hits outside of the cells, or refuse the first one."""
        place = ", ".join(f"{value:g}" for value in where)
        if not self.options.drop_outside:
            ways = "--axes, --origin and --detector" if len(where) == 3 else "--detector"
            message = f"a hit is at {place}, outside of the cells of '{self._detector.name}'; settle it with {ways}, or leave such hits out with --drop-outside"
            self.reject(f"shower {row}", message)
        self._outside += energy
        share = 100 * self._outside / max(self._total, 1e-30)
        self.notes = (f"hits outside of the cells were left out: {share:.3g} % of the energy",)

    def _list(
        self, role: str, start: int, stop: int, expected: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        values, counts = self.branches.flat(self._keys[role], role, start, stop)
        if expected is not None and not np.array_equal(counts, expected):
            row = start + int(np.argmax(counts != expected))
            self.reject(f"branch '{self._keys[role]}'", f"has not as many values as hits in shower {row}")
        return values, counts


_PLACES = ("hit_cell", "hit_x", "hit_y", "hit_z")
