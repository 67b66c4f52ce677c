"""HDF5: the file layout, opening with clear errors, and chunked datasets.

The file layout: names of datasets and attributes, sizes of chunks.

It is the CaloChallenge's (https://calochallenge.github.io) with names added: ``showers`` (N, cells) float32 MeV and
``incident_energies`` (N, 1) MeV; where they apply ``incident_theta`` (N, 1) degrees and ``conditions/NAME`` (N, k).

HDF5 beneath the layout: opening with clear errors, datasets with a fitting chunk cache, writing that can fail.

HDF5 unpacks a whole chunk whenever any of it is read. Its cache therefore holds one band of rows (all chunks that
a row touches) and one chunk more, so that slices in sequence unpack each chunk once, whatever their size.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError

__all__ = [
    "CELLS",
    "CHUNK_BYTES",
    "COMPRESSION_LEVEL",
    "CONDITIONS",
    "DEFINITION",
    "ENERGIES",
    "MODEL_STATUS",
    "PERPENDICULAR",
    "RESERVED",
    "SEEN",
    "SEEN_INCOMPLETE",
    "SEEN_SEEDS",
    "STREAM_BYTES",
    "THETA",
    "GuardedFile",
    "band_rows",
    "open_dataset",
    "open_hdf5",
    "plain_attributes",
    "read_rows",
    "rows_per_chunk",
    "rows_per_stream",
]


CELLS: Final = "showers"
ENERGIES: Final = "incident_energies"
THETA: Final = "incident_theta"
CONDITIONS: Final = "conditions"

SEEN: Final = "seen_identities"
"""Dataset (M,) uint64, sorted: identities of the showers that trained or selected the model that made a file."""
SEEN_SEEDS: Final = "seen_seeds"
"""Attribute: simulation seeds whose showers trained or selected the model, where the files themselves are lost."""
SEEN_INCOMPLETE: Final = "seen_incomplete"
"""Attribute: why the identities do not name all showers that trained or selected the model."""
MODEL_STATUS: Final = "model_status"
"""Attribute: what is wrong with the model, such as "unfinished: stage cells not trained"."""

DEFINITION: Final = "detector_definition"
RESERVED: Final = frozenset({"detector", DEFINITION, "particle", "source", "seed", "caloforge_version"})
"""Attributes that are written from the showers' own fields."""

PERPENDICULAR: Final = 90.0
"""Angle in degrees of showers whose file holds none."""

CHUNK_BYTES: Final = 2 * 2**20
"""Size of a chunk of cells in the file: a unit of compression, and of what a sliced read must unpack."""

STREAM_BYTES: Final = 16 * 2**20
"""Size of the cells that ``chunks()`` hands out at a time unless told otherwise."""

COMPRESSION_LEVEL: Final = 1
"""gzip level: after the byte shuffle, level 4 is 15 to 20 % smaller on Geant4 showers but takes twice the time
to write and to read; level 9 takes 20 times as long for another 10 %. ``benchmarks/bench_io.py`` measures it."""


def rows_per_chunk(row_bytes: int, target: int = CHUNK_BYTES) -> int:
    """Return how many rows make a chunk of about ``target`` bytes, at least one."""
    return max(1, target // max(1, row_bytes))


def rows_per_stream(row_bytes: int, chunk_rows: int) -> int:
    """Return a number of rows of about ``STREAM_BYTES``, a multiple of the file's chunks where they are small."""
    rows = rows_per_chunk(row_bytes, STREAM_BYTES)
    return max(1, rows // chunk_rows) * chunk_rows if chunk_rows <= rows else rows


_CACHE_SLOTS = 12421
"""Slots of the hash table of cached chunks: a prime well above the number of chunks that it holds."""

_CACHE_LIMIT = 256 * 2**20
"""Most bytes that a chunk cache may take, whatever the file's chunks."""


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        FileFormatError: When it is not there, not readable, not HDF5, or cut short.
    """
    if not path.is_file():
        raise FileFormatError(path, "", "is a folder, not a file" if path.is_dir() else "no such file")
    if not os.access(path, os.R_OK):
        raise FileFormatError(path, "", "is not readable (permission denied)")
    if not h5py.is_hdf5(path):
        raise FileFormatError(path, "", "is not an HDF5 file")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if "truncated" in str(error):
            message = "is truncated: it ends before its data do; copy it or make it again"
        else:
            message = f"cannot be opened as HDF5: {_reason(error)}"
        raise FileFormatError(path, "", message) from error


def open_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Open a dataset with a cache that holds a band of its chunks."""
    dataset = file[name]
    if dataset.chunks is None:
        return dataset
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    wanted = dataset.chunks[0] * _row_bytes(dataset) + chunk_bytes
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(_CACHE_SLOTS, max(chunk_bytes, min(wanted, _CACHE_LIMIT)), 1.0)
    # The cache of a dataset is fixed when it is first opened, so the look at its chunks is closed before.
    del dataset
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))


def band_rows(dataset: h5py.Dataset) -> int:
    """Return how many rows are best read at a time: those of a chunk, or about 2 MiB where there are none."""
    if dataset.chunks is not None:
        return int(dataset.chunks[0])
    return rows_per_chunk(_row_bytes(dataset))


def _row_bytes(dataset: h5py.Dataset) -> int:
    size: int = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    return size


def read_rows(path: Path, dataset: h5py.Dataset, start: int, out: NDArray[Any]) -> None:
    """Fill ``out`` with the rows of a dataset from ``start`` on, converted to its type.

    Raises:
        FileFormatError: When the file's data are damaged.
    """
    stop = start + len(out)
    try:
        dataset.read_direct(out, np.s_[start:stop], np.s_[: len(out)])
    except (OSError, RuntimeError) as error:
        where = f"dataset '{dataset.name.lstrip('/')}', rows {start} to {stop - 1}"
        raise FileFormatError(
            path, where, f"cannot be read, the file is damaged: {_reason(error)}"
        ) from error


def plain_attributes(file: h5py.File) -> dict[str, Any]:
    """Return the file's attributes as plain Python values."""
    return {name: _plain(value) for name, value in file.attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()] if value.ndim else _plain(value.item())
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value


def _reason(error: Exception) -> str:
    """Return the first line of HDF5's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class GuardedFile(io.RawIOBase):
    """A file for HDF5 to write to that never fails towards HDF5.

    After an I/O error the HDF5 library cannot close its file any more and may bring the process down when it
    ends. Here the first error is kept in :attr:`error`, later writes go nowhere, HDF5 closes in peace, and the
    writer, which looks at :attr:`error`, throws the file away.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the file."""
        return self._file.readinto(buffer) or 0

    def write(self, data: Any) -> int:
        """Write all of ``data``, or keep the error and pretend to."""
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while self.error is None and len(view):
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length."""
        try:
            return self._file.truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def sync(self) -> None:
        """Bring what was written to the disk; delayed allocation may find only then that it is full."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self.error = self.error or error

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error
        super().close()
