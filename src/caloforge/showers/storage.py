"""Checks that an HDF5 dataset is completely stored in its file, before any of it is read.

HDF5 opens other files for virtual datasets and external storage, fills in zeros, without an error, where a chunk was never written, and takes the sizes
that a file declares. Zeros are energies as good as any, and the bytes of another file are none of the showers. So a dataset is refused when its values
may come from elsewhere, when chunks are missing, overlap, or have sizes that do not fit, and when its numbers are of no usual type.
"""

from __future__ import annotations

import math
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHUNK_LIMIT",
    "Chunks",
    "chunks_of",
    "filter_fault",
    "heap_fault",
    "row_not_stored",
    "storage_fault",
]

CHUNK_LIMIT: Final = 256 * 2**20
"""Most bytes of a chunk, which HDF5 unpacks whole whenever any of it is read."""

_FILTERS: Final = {
    307: "bzip2", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP", 32015: "Zstandard",
    32017: "SZ", 32024: "SZ3", 32026: "Blosc2", 32028: "Sperr",
}  # fmt: skip
"""Filters of the package hdf5plugin by their numbers (https://portal.hdfgroup.org/documentation/hdf5-docs/registered_filter_plugins.html)."""

_SHUFFLE, _FLETCHER = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
_HEAP, _HEAP_HEADER = b"GCOL\x01\0\0\0", 16  # signature and version; bytes before the first object
_OBJECT = Struct("<HHxxxxQ")  # index, 0 for free space; references; size
_SCANNED, _SCANS = 8 * 2**20, 8  # bytes of a block that is looked through, and how many from either end
_LOOKED_UP = 1 << 20  # bytes of a dataset up to which each chunk is looked up by its place
_SPARE = 4096  # bytes by which a packed chunk may be larger than an unpacked one, beside an eighth
_KINDS: Final = (
    *(getattr(h5py.h5t, f"STD_{sign}{bits}{end}") for sign in "IU" for bits in (8, 16, 32, 64) for end in ("LE", "BE")),
    *(getattr(h5py.h5t, f"IEEE_F{bits}{end}") for bits in (16, 32, 64) for end in ("LE", "BE")),
    h5py.h5t.NATIVE_LDOUBLE,
)  # fmt: skip


class Chunks(NamedTuple):
    """The stored chunks of a dataset, in the order of their places."""

    grid: tuple[int, ...]  # how many chunks it has along each axis when all are stored
    place: NDArray[np.int64]  # (n, ndim): place of each stored one in that grid
    offset: NDArray[np.int64]  # (n,): where in the file
    size: NDArray[np.int64]  # (n,): bytes as they are stored
    mask: NDArray[np.int64]  # (n,): filters that were left out

    @property
    def missing(self) -> int | None:
        """The first row of chunks of which one is not stored; None when all are."""
        each = math.prod(self.grid[1:])
        if len(self.place) >= math.prod(self.grid):
            return None
        rows, counts = np.unique(self.place[:, 0], return_counts=True)
        whole = rows[counts >= each]
        gaps = np.flatnonzero(whole != np.arange(len(whole)))
        return int(gaps[0]) if len(gaps) else len(whole)


def chunks_of(dataset: h5py.Dataset) -> Chunks:
    """Return the stored chunks of a chunked dataset.

    Raises:
        ValueError: When they are not those of the dataset: out of its range, twice in one place, overlapping, of impossible sizes.
    """
    shape, chunk = dataset.shape, dataset.chunks
    found: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(
        lambda info: found.append((*info.chunk_offset, info.byte_offset, info.size, info.filter_mask))
    )
    table = np.array(found, np.int64).reshape(len(found), len(shape) + 3)
    index = table[:, : len(shape)] // np.array(chunk)
    grid = tuple(-(-size // one) for size, one in zip(shape, chunk, strict=True))
    if (index >= np.array(grid)).any() or (table[:, : len(shape)] % np.array(chunk)).any():
        raise ValueError("a chunk lies outside of it")
    order = np.lexsort(index.T[::-1])
    index, table = index[order], table[order]
    if len(index) > 1 and (index[1:] == index[:-1]).all(axis=1).any():
        raise ValueError("two chunks are in one place")
    offset, size, mask = table[:, -3], table[:, -2], table[:, -1]
    by_offset = np.argsort(offset)
    if (offset[by_offset][:-1] + size[by_offset][:-1] > offset[by_offset][1:]).any():
        raise ValueError("two chunks share bytes of the file")
    _check_sizes(dataset, size, mask)
    if size.sum() <= _LOOKED_UP:
        _look_up(dataset, table[:, : len(shape)])
    return Chunks(grid, index, offset, size, mask)


def _look_up(dataset: h5py.Dataset, places: NDArray[np.int64]) -> None:
    """Raise ValueError when the index of the chunks leads to one of them no more; it would be read as zeros."""
    for place in places.tolist():
        try:
            dataset.id.read_direct_chunk(tuple(place))
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError("the index of its chunks does not lead to one of them") from error


def row_not_stored(dataset: h5py.Dataset, numbers: NDArray[np.int64]) -> int | None:
    """Return the first row with values of which chunks are not stored; None when all are.

    Arguments:
        dataset: (N, M, ...).
        numbers: How many of the M a row has (N,), from the first one on; the others are padding, whose chunks may be left out.
    """
    if dataset.chunks is None:
        return None
    rows, stored = int(dataset.chunks[0]), chunks_of(dataset)
    bands, behind = -(-len(numbers) // rows), math.prod(stored.grid[2:])
    most = np.zeros(bands * rows, np.int64)
    most[: len(numbers)] = numbers
    needed = -(-most.reshape(bands, -1).max(1) // dataset.chunks[1]) * behind
    band, column = stored.place[:, 0], stored.place[:, 1]
    lost = np.bincount(band[column * behind < needed[band]], minlength=bands) < needed
    if not lost.any():
        return None
    first = int(np.argmax(lost)) * rows
    return first + int(np.argmax(numbers[first:] > 0))


def _check_sizes(dataset: h5py.Dataset, size: NDArray[np.int64], mask: NDArray[np.int64]) -> None:
    """Raise ValueError when a chunk is stored in more bytes than it can need, or unpacked in others than it has."""
    layout = dataset.id.get_create_plist()
    filters = [layout.get_filter(place)[0] for place in range(layout.get_nfilters())]
    whole = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    if (mask >> len(filters)).any() or any(
        (mask >> place & 1).any() for place, one in enumerate(filters) if one in (_SHUFFLE, _FLETCHER)
    ):
        raise ValueError("a chunk is marked as stored without a filter that all have")
    plain = np.ones(len(size), bool)
    for place, one in enumerate(filters):
        if one not in (_SHUFFLE, _FLETCHER):
            plain &= (mask >> place & 1).astype(bool)
    fixed = whole + 4 * filters.count(_FLETCHER)
    if (size[plain] != fixed).any() or (size > fixed + fixed // 8 + _SPARE).any():
        raise ValueError("the bytes of a chunk are not as many as it has")


def heap_fault(path: Path) -> str | None:
    """Say which collection of texts and lists of variable length is damaged, in a file of up to 128 MiB, or in its first and last 64 MiB.

    HDF5 goes through the objects of such a collection, which has no checksum, by the sizes that they say, and for ever where one of them is zero.
    """
    size = path.stat().st_size
    starts = range(0, size, _SCANNED)
    with path.open("rb") as file:
        for start in [*starts[:_SCANS], *starts[_SCANS:][-_SCANS:]]:
            file.seek(start)
            block = file.read(_SCANNED + len(_HEAP) - 1)
            at = block.find(_HEAP)
            while at >= 0:
                if not _is_walkable(file, start + at, size):
                    return f"a collection of texts or lists at byte {start + at:,} is damaged"
                at = block.find(_HEAP, at + 1)
    return None


def _is_walkable(file: BinaryIO, place: int, end: int) -> bool:
    """Return whether the sizes of the objects of a collection lead through it."""
    file.seek(place + len(_HEAP))
    length = int.from_bytes(file.read(8), "little")
    if not _HEAP_HEADER <= length <= end - place:
        return False
    data, at = file.read(length - _HEAP_HEADER), 0
    while at + _OBJECT.size <= len(data):
        index, _, size = _OBJECT.unpack_from(data, at)
        step = _OBJECT.size + -(-size // 8) * 8 if index else size
        if step < _OBJECT.size or at + step > len(data):
            return False
        at += step
    return True


def storage_fault(dataset: h5py.Dataset, padded: bool = False) -> str | None:
    """Say why some of a dataset cannot be read, would be read from elsewhere, or as zeros; None when all is there.

    ``padded``: chunks may be left out, since their fill value is meant.
    """
    layout = dataset.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL:
        return "is a virtual dataset, whose values are elsewhere; expected them in the dataset itself"
    if layout.get_external_count():
        name = layout.get_external(0)[0].decode("utf-8", errors="replace")
        return f"has its values in another file, {name} (external storage); expected them in this one"
    if not _is_usual(dataset.id.get_type()):
        return f"has numbers of no usual type ({dataset.id.get_type().get_size()} bytes); expected integers or IEEE floating point"
    if dataset.shape is None or not dataset.size:
        return None
    if dataset.chunks is None:
        allocated = dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED
        return None if allocated else "was never written: it has no values"
    unpacked = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    if unpacked > CHUNK_LIMIT:
        most = CHUNK_LIMIT >> 20
        return f"has chunks of {unpacked >> 20:,} MiB, each of which is read whole; expected at most {most} MiB (h5repack -l CHUNK=...)"
    if (missing := filter_fault(dataset)) is not None:
        return missing
    try:
        stored = chunks_of(dataset)
    except ValueError as error:
        return f"is damaged: {error}"
    if padded or (row := stored.missing) is None:
        return None
    first = row * int(dataset.chunks[0])
    last = min(first + int(dataset.chunks[0]), len(dataset)) - 1
    return f"has rows that were never written, the first of them in {first} to {last}; they would be read as zeros"


def _is_usual(kind: h5py.h5t.TypeID) -> bool:
    """Return whether numbers, if these are such, are of a type that computers have; of lists and arrays, the type of their elements."""
    while isinstance(kind, h5py.h5t.TypeArrayID | h5py.h5t.TypeVlenID):
        kind = kind.get_super()
    return not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID) or any(
        kind.equal(one) for one in _KINDS
    )


def filter_fault(dataset: h5py.Dataset) -> str | None:
    """Name the filter that a dataset needs and HDF5 does not have, if there is one; hdf5plugin is used where it is installed."""
    if dataset.chunks is None:
        return None
    layout = dataset.id.get_create_plist()
    for place in range(layout.get_nfilters()):
        number, _, _, name = layout.get_filter(place)
        if h5py.h5z.filter_avail(number) or not _is_applied(dataset, place):
            continue
        with suppress(ImportError):
            import_module("hdf5plugin")  # registers its filters
        if h5py.h5z.filter_avail(number):
            continue
        known = _FILTERS.get(number)
        said = name.decode("utf-8", errors="replace").strip() or "unnamed"
        remedy = (
            "install it with: pip install 'caloforge[formats]'"
            if known
            else "install its plugin and set HDF5_PLUGIN_PATH"
        )
        return f"is compressed with a filter that HDF5 does not have here: {known or said} (id {number}); {remedy}"
    return None


def _is_applied(dataset: h5py.Dataset, place: int) -> bool:
    """Return whether the filter at a place of the pipeline was applied to the first chunk; optional ones may be left out."""
    if not dataset.id.get_num_chunks():
        return False
    return not dataset.id.get_chunk_info(0).filter_mask >> place & 1
