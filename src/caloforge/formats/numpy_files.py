"""NumPy: arrays in memory, ``.npz`` and ``.npy`` files.

An ``.npz`` file is written with the names of our own files: ``showers`` (N, n_cells) float32 and ``incident_energies`` (N, 1) float64, MeV, where they apply
``incident_theta`` (N, 1) degrees and ``conditions/NAME`` (N, k), and ``facts``, the attributes as JSON text. Other files are read by names (``--key``). Members
of an ``.npz`` are streams: rows are read in order without loading the whole array. An ``.npy`` file holds the cells alone; the incident energy comes from ``--energy``.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path
from caloforge.formats.arrays import ArrayTable, MemoryRows, RowArray
from caloforge.formats.base import Format, ReadOptions, checked_chunks, facts_of
from caloforge.showers import ShowerSource, hdf5
from caloforge.showers.writing import columns_of

__all__ = ["NUMPY", "NumPyFiles", "array_table"]

_FACTS = "facts"
_MAGIC = {b"\x93NUMP": "npy", b"PK\x03\x04": "npz"}


class _Member(RowArray):
    """An array in an ``.npz`` file, read as a stream; going back starts it again."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, name: str) -> None:
        self.name, self._path, self._archive = name, path, archive
        self._open()
        if self._fortran and len(self.shape) > 1:
            raise FileFormatError(
                path,
                f"array '{name}'",
                "is stored in Fortran order; expected C order (numpy.ascontiguousarray)",
            )
        self._row = self.dtype.itemsize * math.prod(self.shape[1:])

    def _open(self) -> None:
        self._stream = self._archive.open(f"{self.name}.npy")
        try:
            version = npy.read_magic(self._stream)
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, self._fortran, self.dtype = header(self._stream)
        except (ValueError, KeyError) as error:
            raise FileFormatError(
                self._path, f"array '{self.name}'", f"is not a NumPy array: {error}"
            ) from error
        self.shape, self._at = tuple(shape), 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        if start < self._at:
            self._stream.close()
            self._open()
        try:
            while self._at < start:
                step = min(start - self._at, max(1, hdf5.STREAM_BYTES // max(1, self._row)))
                self._take(step)
            return np.frombuffer(self._take(stop - start), self.dtype).reshape(stop - start, *self.shape[1:])
        except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
            where = f"array '{self.name}', rows {start} to {stop - 1}"
            raise FileFormatError(
                self._path, where, f"cannot be read, the file is damaged: {error}"
            ) from error

    def _take(self, rows: int) -> bytes:
        data = self._stream.read(rows * self._row)
        if len(data) != rows * self._row:
            raise EOFError("it ends before its data do")
        self._at += rows
        return data


class _Archive(ArrayTable):
    """An open ``.npz`` file."""

    archive: zipfile.ZipFile

    def close(self) -> None:
        """Close the file."""
        self.archive.close()


@dataclass(frozen=True)
class NumPyFiles(Format):
    """``.npz`` and ``.npy`` files."""

    general: ClassVar[bool] = True
    name: str = "numpy"
    summary: str = "NumPy: .npz of caloforge, or any arrays, named with --key"
    endings: tuple[str, ...] = (".npz",)
    writes: bool = True

    def matches(self, path: Path) -> bool:
        """Return whether a file is one of NumPy's."""
        return _kind(path) is not None

    def open(self, path: Path, options: ReadOptions) -> ArrayTable:
        """Open a file.

        Raises:
            FileFormatError: When it is not NumPy's, or an array is missing.
        """
        kind = _kind(path)
        if kind == "npy":
            try:
                cells = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError) as error:
                raise FileFormatError(path, "", f"cannot be read as a NumPy array: {error}") from error
            return ArrayTable(path, [MemoryRows(path.name, cells)], None)
        if kind is None:
            raise FileFormatError(path, "", "is neither an .npz nor an .npy file")
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise FileFormatError(path, "", f"cannot be read as an .npz file: {error}") from error
        try:
            return self._table(path, archive, options)
        except BaseException:
            archive.close()
            raise

    def _table(self, path: Path, archive: zipfile.ZipFile, options: ReadOptions) -> _Archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        facts = _read_facts(path, archive) if _FACTS in names else {}
        ours = "caloforge_version" in facts
        usual = {"cells": hdf5.CELLS, "energy": hdf5.ENERGIES, "theta": hdf5.THETA} if ours else {}
        keys = {role: name for role, name in usual.items() if name in names} | dict(options.keys)
        if ours:
            keys = {name: name for name in names if name.startswith(f"{hdf5.CONDITIONS}/")} | keys

        def member(name: str, role: str) -> _Member:
            if name not in names:
                shown = ", ".join(names[:12]) or "nothing"
                raise FileFormatError(
                    path, f"array '{name}'", f"is missing (--key {role}=NAME); the file has: {shown}"
                )
            return _Member(path, archive, name)

        if "cells" not in keys:
            shown = ", ".join(names[:12]) or "nothing"
            raise FileFormatError(
                path, "", f"does not say which array holds the cells (--key cells=NAME); it has: {shown}"
            )
        table = _Archive(
            path,
            [member(name.strip(), "cells") for name in keys["cells"].split(",")],
            member(keys["energy"], "energy") if "energy" in keys else None,
            member(keys["theta"], "theta") if "theta" in keys else None,
            {
                role.removeprefix(f"{hdf5.CONDITIONS}/"): member(name, role)
                for role, name in keys.items()
                if role.startswith(f"{hdf5.CONDITIONS}/")
            },
            facts=facts,
        )
        table.archive = archive
        if ours and not options.keys:
            table.energy_unit, table.cell_unit, table.angle_unit, table.trusted = "MeV", "MeV", "deg", True
            if hdf5.SEEN in names:
                seen = member(hdf5.SEEN, "seen")
                table.seen = seen.read(0, seen.shape[0])
        return table

    def write(self, path: Path, showers: ShowerSource, *, force: bool, layout: str) -> None:
        """Write an ``.npz`` file, compressed; energies and conditions of all showers are kept in memory until the end, cells are not."""
        n, width = len(showers), showers.detector.n_cells
        columns: dict[str, list[NDArray[Any]]] = {}
        with (
            atomic_path(path, force) as part,
            zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            with archive.open(f"{hdf5.CELLS}.npy", "w", force_zip64=True) as stream:
                header = {"shape": (n, width), "fortran_order": False, "descr": "<f4"}
                npy.write_array_header_1_0(stream, header)
                for _, chunk in checked_chunks(path, showers):
                    stream.write(np.ascontiguousarray(chunk.cells, "<f4").data)
                    for name, values in columns_of(chunk).items():
                        columns.setdefault(name, []).append(values)
            arrays: dict[str, NDArray[Any]] = {name: np.concatenate(parts) for name, parts in columns.items()}
            if len(showers.seen):
                arrays[hdf5.SEEN] = showers.seen
            arrays[_FACTS] = np.array(json.dumps(facts_of(showers), default=str))
            for name, values in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    npy.write_array(stream, values, allow_pickle=False)


def array_table(
    cells: ArrayLike | Sequence[ArrayLike],
    energy: ArrayLike | None,
    theta: ArrayLike | None,
    conditions: Mapping[str, ArrayLike] | None,
) -> ArrayTable:
    """Return a table of arrays in memory: cells (N, ...), or a list of one array a layer, energies (N,), angles (N,), conditions (N, k)."""
    layers = list(cells) if isinstance(cells, list | tuple) else [cells]

    def rows(name: str, values: ArrayLike | None) -> MemoryRows | None:
        return None if values is None else MemoryRows(name, np.asarray(values))

    several = len(layers) > 1
    return ArrayTable(
        Path("arrays"),
        [MemoryRows(f"cells[{i}]" if several else "cells", np.asarray(one)) for i, one in enumerate(layers)],
        rows("energy", energy),
        rows("theta", theta),
        {name: MemoryRows(name, np.asarray(values)) for name, values in (conditions or {}).items()},
    )


def _kind(path: Path) -> str | None:
    """Return "npz", "npy" or None by the first bytes of a file."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError:
        return None
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def _read_facts(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the attributes that caloforge wrote; nothing of others."""
    with archive.open(f"{_FACTS}.npy") as stream:
        try:
            found = json.loads(str(npy.read_array(stream, allow_pickle=False)))
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


NUMPY = NumPyFiles()
