"""ROOT files with a tree of showers, an entry each, read and written with uproot.

What is written is the tree ``showers`` with these branches, and beside it the text ``caloforge``, the attributes of the file as JSON:

- ``incident_energy`` MeV, ``incident_theta`` degrees where there are angles, and each condition as ``condition_NAME``;
- the cells with energy as lists of equal length ``hit_cell`` (flat index), ``hit_x``, ``hit_y`` (mm, centre of the cell), ``hit_z`` (mm, depth of its layer),
  ``hit_layer`` and ``hit_energy`` MeV.

Other trees are read by names (``--key``): ``tree``, ``energy`` and ``theta``, with either ``cells`` (an array of fixed shape, or flat), or ``hit_energy`` with
``hit_cell`` or with ``hit_x``, ``hit_y`` and ``hit_z``. Entries are read by ranges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError, InputError, WriteError, require
from caloforge.files import atomic_path
from caloforge.formats.arrays import CONDITION, ArrayTable, RowArray
from caloforge.formats.base import Format, ReadOptions, Rows, Table, checked_chunks, facts_of
from caloforge.formats.points import HitCells
from caloforge.formats.trees import EXTRA, Branches, find_tree, open_root
from caloforge.geometry import Detector
from caloforge.showers import Hits, ShowerSource, hdf5
from caloforge.showers.sparse import Cells
from caloforge.showers.writing import columns_of

__all__ = ["ROOT", "RootFiles"]

_TREE, _FACTS, _SEEN = "showers", "caloforge", "seen_identities"
_CONDITION = "condition_"
_USUAL = {
    "energy": "incident_energy",
    "theta": "incident_theta",
    "hit_cell": "hit_cell",
    "hit_energy": "hit_energy",
}
_BAND = 256  # entries


class _BranchRows(RowArray):
    """A branch of fixed shape."""

    def __init__(self, branches: Branches, name: str, role: str) -> None:
        self.name, self._branches, self._role = name, branches, role
        first = branches.array(name, role, 0, min(1, branches.n))
        self.shape, self.dtype = (branches.n, *first.shape[1:]), first.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        return self._branches.array(self.name, self._role, start, stop)


class _HitTable(Table):
    """A tree whose showers are lists of hits, at cells or at positions."""

    def __init__(
        self, file: Any, branches: Branches, keys: dict[str, str], options: ReadOptions, facts: dict[str, Any]
    ) -> None:
        super().__init__(branches.path, facts)
        self._file, self._branches, self._keys, self._options = file, branches, keys, options
        self._columns = {
            role: _BranchRows(branches, name, role)
            for role, name in keys.items()
            if role in ("energy", "theta") or role.startswith(CONDITION)
        }
        if not branches.n:
            self.reject("", "has no showers; expected at least one")

    def __len__(self) -> int:
        return self._branches.n

    @property
    def band(self) -> int:
        """How many showers are best read at a time."""
        return min(_BAND, hdf5.rows_per_chunk(8 * self._detector.n_cells, hdf5.STREAM_BYTES))

    def describe(self) -> str:
        """Return the names of the branches."""
        where = self._keys.get("hit_cell", "positions")
        return f"hits '{self._keys['hit_energy']}' at '{where}'"

    def fits(self, detector: Detector) -> bool:
        """Return False: hits do not tell their detector."""
        return False

    def bind(self, detector: Detector, axes: str) -> str:
        """Prepare the reading of cells of a detector; hits at positions take their axes from the options."""
        self._detector = detector
        self._points = None if "hit_cell" in self._keys else HitCells(self.path, detector, self._options)
        if axes and self._points is None:
            self.reject("", "--axes does not apply to hits of numbered cells")
        return ""

    def rows(self, start: int, stop: int) -> Rows:
        """Read the showers of a range."""
        found = {role: one.read(start, stop).reshape(stop - start, -1) for role, one in self._columns.items()}
        energy, theta = (
            np.asarray(found.pop(role)[:, 0], np.float64) if role in found else None
            for role in ("energy", "theta")
        )
        conditions = {role[len(CONDITION) :]: values for role, values in found.items()}
        return Rows(self._cells(start, stop), energy, theta, conditions)

    def _cells(self, start: int, stop: int) -> NDArray[np.float32]:
        energy, counts = self._list("hit_energy", start, stop)
        if self._points is not None:
            place = np.column_stack([self._list(f"hit_{axis}", start, stop, counts)[0] for axis in "xyz"])
            cells = self._points.fill(start, counts, place.astype(np.float64), energy.astype(np.float32))
            self.notes = self._points.notes
            return cells
        cell = self._list("hit_cell", start, stop, counts)[0].astype(np.int64)
        row = np.repeat(np.arange(stop - start), counts)
        wrong = (cell < 0) | (cell >= self._detector.n_cells)
        if wrong.any():
            hit = int(np.argmax(wrong))
            expected = f"expected 0 to {self._detector.n_cells - 1} of detector '{self._detector.name}'"
            self.reject(f"shower {start + int(row[hit])}", f"a hit is in cell {cell[hit]}; {expected}")
        size = (stop - start) * self._detector.n_cells
        summed = np.bincount(row * self._detector.n_cells + cell, energy.astype(np.float64), size)
        return summed.reshape(stop - start, -1).astype(np.float32)

    def _list(
        self, role: str, start: int, stop: int, expected: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        values, counts = self._branches.flat(self._keys[role], role, start, stop)
        if expected is not None and not np.array_equal(counts, expected):
            row = start + int(np.argmax(counts != expected))
            self.reject(f"branch '{self._keys[role]}'", f"has not as many values as hits in shower {row}")
        return values, counts

    def forget(self) -> None:
        """Forget the notes: what was read before was a sample."""
        super().forget()
        if self._points is not None:
            self._points.forget()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class RootFiles(Format):
    """ROOT trees."""

    general: ClassVar[bool] = True
    name: str = "root"
    summary: str = "ROOT: the tree of caloforge, or any tree, named with --key"
    endings: tuple[str, ...] = (".root",)
    writes: bool = True

    def matches(self, path: Path) -> bool:
        """Return whether a file is one of ROOT's."""
        try:
            with path.open("rb") as file:
                return file.read(4) == b"root"
        except OSError:
            return False

    def open(self, path: Path, options: ReadOptions) -> Table:
        """Open a tree.

        Raises:
            MissingExtraError: When uproot is not installed.
            FileFormatError: When the file or the tree is not what it should be.
        """
        file = open_root(path)
        try:
            return self._table(path, file, options)
        except BaseException:
            file.close()
            raise

    def _table(self, path: Path, file: Any, options: ReadOptions) -> Table:
        facts = _read_facts(file)
        ours = "caloforge_version" in facts
        branches = Branches(path, find_tree(path, file, options.keys.get("tree", _TREE if ours else "")))
        usual = _USUAL | {
            CONDITION + name.removeprefix(_CONDITION): name
            for name in branches.names
            if name.startswith(_CONDITION)
        }
        keys = {role: name for role, name in usual.items() if ours and name in branches.names}
        keys |= {role: name for role, name in options.keys.items() if role != "tree"}
        if "cells" in keys:

            def opened(name: str, role: str) -> _BranchRows:
                return _BranchRows(branches, name, role)

            return ArrayTable(path, keys, opened, facts=facts, close=file.close)
        places = {"hit_cell"} if "hit_cell" in keys else {"hit_x", "hit_y", "hit_z"}
        if missing := sorted(({"hit_energy"} | places) - set(keys)):
            message = (
                f"does not say where its cells are: name {', '.join(missing)}, or cells (--key ROLE=BRANCH)"
            )
            raise FileFormatError(
                path, "", f"{message}; the tree has: {', '.join(list(branches.names)[:12])}"
            )
        table = _HitTable(file, branches, keys, options, facts)
        if ours and set(options.keys) <= {"tree"}:
            table.trust()
            if _SEEN in file:
                table.seen = np.asarray(file[_SEEN]["identity"].array(library="np"), np.uint64)
        return table

    def write(self, path: Path, showers: ShowerSource, *, force: bool, layout: str) -> None:
        """Write the tree, chunk by chunk.

        Raises:
            MissingExtraError: When uproot or awkward is not installed.
            WriteError: When the disk is full.
        """
        uproot, ak = require("uproot", EXTRA), require("awkward", EXTRA)
        points = Cells(showers.detector).points
        depth = np.array([layer.z for layer in showers.detector.layers], np.float32)
        with atomic_path(path, force) as part:
            try:
                with uproot.recreate(part) as file:
                    tree = None
                    for _, chunk in checked_chunks(path, showers):
                        content = _entries(ak, chunk, points, depth)
                        if tree is None:
                            kinds = {name: _kind(ak, values) for name, values in content.items()}
                            tree = file.mktree(_TREE, kinds, title="showers of caloforge")
                        tree.extend(content)
                    if tree is None:
                        raise InputError(f"{path}: no showers to write; expected at least one")
                    file[_FACTS] = json.dumps(facts_of(showers), default=str)
                    if len(showers.seen):
                        file.mktree(_SEEN, {"identity": np.uint64}).extend({"identity": showers.seen})
            except OSError as error:
                raise WriteError(
                    f"{path}: writing failed, nothing was kept: {error.strerror or error}"
                ) from error


def _entries(ak: Any, chunk: Any, points: NDArray[np.float32], depth: NDArray[np.float32]) -> dict[str, Any]:
    """Return the branches of some showers."""
    hits = Hits.from_cells(chunk.cells)
    x, y, layer = points[hits.cell].T
    number = layer.astype(np.int32)
    lists = {
        "cell": hits.cell, "x": x, "y": y, "z": depth[number], "layer": number, "energy": hits.energy,
    }  # fmt: skip
    columns = columns_of(chunk)
    content: dict[str, Any] = {"incident_energy": columns.pop(hdf5.ENERGIES)[:, 0]}
    if hdf5.THETA in columns:
        content["incident_theta"] = columns.pop(hdf5.THETA)[:, 0]
    for name, values in columns.items():
        content[_CONDITION + name.removeprefix(f"{hdf5.CONDITIONS}/")] = values
    lengths = {
        name: ak.unflatten(np.ascontiguousarray(values), hits.counts) for name, values in lists.items()
    }
    return content | {"hit": ak.zip(lengths)}


def _kind(ak: Any, values: Any) -> Any:
    """Return the type of a branch."""
    if isinstance(values, np.ndarray):
        return np.dtype((values.dtype, values.shape[1:]))
    return ak.type(values).content


def _read_facts(file: Any) -> dict[str, Any]:
    """Return the attributes that caloforge wrote; nothing of others."""
    if f"{_FACTS};1" not in file.keys(recursive=False):
        return {}
    try:
        found = json.loads(str(file[_FACTS]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


ROOT = RootFiles()
