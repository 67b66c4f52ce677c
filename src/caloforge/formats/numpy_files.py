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
from caloforge.formats.arrays import CONDITION, ArrayTable, MemoryRows, RowArray
from caloforge.formats.base import Format, ReadOptions, checked_chunks, facts_of, guarded
from caloforge.showers import ShowerSource, hdf5
from caloforge.showers.writing import columns_of
from caloforge.text_files import TEXT_BYTES, parse_json

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
        with guarded(self._path, f"array '{self.name}'", "is not a NumPy array"):
            self._stream = self._archive.open(f"{self.name}.npy")
            version = npy.read_magic(self._stream)
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, self._fortran, self.dtype = header(self._stream)
            if any(type(size) is not int or not 0 <= size < 2**62 for size in shape):
                raise ValueError(f"its shape is {shape}")
        self.shape, self._at = tuple(shape), 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        if start < self._at:
            self._stream.close()
            self._open()
        with guarded(self._path, f"array '{self.name}', rows {start} to {stop - 1}"):
            while self._at < start:
                step = min(start - self._at, max(1, hdf5.STREAM_BYTES // max(1, self._row)))
                self._take(step)
            data = self._take(stop - start)
            if self._at == self.shape[0] and self._stream.read(1):  # at the end the checksum is compared
                raise ValueError("it has more data than it says")
            return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _take(self, rows: int) -> bytes:
        data = self._stream.read(rows * self._row)
        if len(data) != rows * self._row:
            raise EOFError("it ends before its data do")
        self._at += rows
        return data


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
            with guarded(path, "", "cannot be read as a NumPy array"):
                cells = np.load(path, mmap_mode="r", allow_pickle=False)
            return ArrayTable(path, {"cells": path.name}, lambda name, _: MemoryRows(name, cells))
        if kind is None:
            raise FileFormatError(path, "", "is neither an .npz nor an .npy file")
        with guarded(path, "", "cannot be read as an .npz file"):
            archive = zipfile.ZipFile(path)
        try:
            with guarded(path):
                return self._table(path, archive, options)
        except BaseException:
            archive.close()
            raise

    def _table(self, path: Path, archive: zipfile.ZipFile, options: ReadOptions) -> ArrayTable:
        for name in archive.namelist():
            archive.open(
                name
            ).close()  # the list of names has no checksum; each is compared with that of its data
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        shown = ", ".join(names[:12]) or "nothing"
        facts = _read_facts(archive) if _FACTS in names else {}
        ours = "caloforge_version" in facts
        usual = {"cells": hdf5.CELLS, "energy": hdf5.ENERGIES, "theta": hdf5.THETA}
        usual |= {name: name for name in names if name.startswith(CONDITION)}
        keys = {role: name for role, name in usual.items() if ours and name in names} | dict(options.keys)
        if "cells" not in keys:
            message = f"does not say which array holds the cells (--key cells=NAME); it has: {shown}"
            raise FileFormatError(path, "", message)

        def member(name: str, role: str) -> _Member:
            if name not in names:
                message = f"is missing (--key {role}=NAME); the file has: {shown}"
                raise FileFormatError(path, f"array '{name}'", message)
            return _Member(path, archive, name)

        table = ArrayTable(path, keys, member, facts=facts, close=archive.close)
        if ours and not options.keys:
            table.trust()
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
    arrays = {f"cells {number}": layer for number, layer in enumerate(layers)}
    others = {"energy": energy, "theta": theta, **{CONDITION + k: v for k, v in (conditions or {}).items()}}
    given = {role: values for role, values in others.items() if values is not None}
    keys = {"cells": ",".join(arrays)} | {role: role for role in given}
    return ArrayTable(
        Path("arrays"), keys, lambda name, _: MemoryRows(name, np.asarray((arrays | given)[name]))
    )


def _kind(path: Path) -> str | None:
    """Return "npz", "npy" or None by the first bytes of a file."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError:
        return None
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def _read_facts(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the attributes that caloforge wrote; nothing of others."""
    if (size := archive.getinfo(f"{_FACTS}.npy").file_size) > TEXT_BYTES:
        raise ValueError(f"'{_FACTS}' has {size:,} bytes; expected at most {TEXT_BYTES:,}")
    with archive.open(f"{_FACTS}.npy") as stream:
        found = npy.read_array(stream, allow_pickle=False)
    return parse_json(str(found), f"array '{_FACTS}'") if found.dtype.kind == "U" and not found.shape else {}


NUMPY = NumPyFiles()
