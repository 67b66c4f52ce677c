"""Datasets of HDF5 files that any program may have written: found through links, checked, and read in blocks of rows.

Links are followed one by one, within the file alone: HDF5 itself would open whatever file a link names. What a name leads to is
looked at by :mod:`caloforge.showers.storage` before any of it is read.

HDF5 unpacks a whole chunk whenever any of it is read. The cache of a dataset therefore has room for one band of rows (all
chunks that a row touches) and one chunk more, so that consecutive slices unpack each chunk once, whatever their size.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.showers import hdf5
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.storage import CHUNK_LIMIT, filter_fault, storage_fault

__all__ = [
    "band_rows", "dataset_names", "find_dataset", "find_group", "follow", "has_item", "open_rows",
    "read_rows", "read_seen", "unreadable",
]  # fmt: skip

_CACHE_SLOTS = 12421  # hash table of the chunk cache: a prime well above the number of cached chunks
_CACHE_LIMIT = CHUNK_LIMIT  # most bytes of a chunk cache, whatever the file's chunks
_BAND_LIMIT = 4 * hdf5.STREAM_BYTES  # most bytes of a band, whatever the file's chunks
_LINKS = 16  # soft links one behind the other
_MOST_NAMES, _SHOWN = 10_000, 12  # names of a file that are looked at, and that a message lists


class _Outside(Exception):
    """A link leads out of its file."""


def has_item(file: h5py.File, name: str) -> bool:
    """Return whether a file has a name at its top, be it a link to something that is not there."""
    return bool(file.id.links.exists(name.encode()))


def dataset_names(file: h5py.File) -> list[str]:
    """Return the full names of all datasets, those behind links within the file too, and of links to what is not in it."""
    names: list[str] = []
    met: set[tuple[int, int]] = set()
    waiting: list[tuple[h5py.Group, str]] = [(file["/"], "")]
    while waiting and len(names) < _MOST_NAMES and len(met) < _MOST_NAMES:
        group, prefix = waiting.pop()
        info = h5py.h5o.get_info(group.id)
        if (info.fileno, info.addr) in met:
            continue
        met.add((info.fileno, info.addr))
        inner = []
        for name in group:
            if not isinstance(name, str):  # bytes that are no UTF-8; nothing that is read has such a name
                continue
            item = follow(group, name)
            if isinstance(item, h5py.Group):
                inner.append((item, f"{prefix}{name}/"))
            elif item is None or isinstance(item, h5py.Dataset):
                names.append(prefix + name)
        waiting.extend(reversed(inner))
    return names


def find_group(path: Path, file: h5py.File, name: str) -> h5py.Group | None:
    """Return a group of a file, or None where it has no such name.

    Raises:
        FileFormatError: When it is something else, or a link to what is not there or in another file.
    """
    if not has_item(file, name):
        return None
    parent, last = _resolved(path, file, name, f"'{name}'")
    found = parent[last]
    if not isinstance(found, h5py.Group):
        raise FileFormatError(path, f"'{name}'", "is a dataset; expected a group of datasets")
    return found


def find_dataset(
    path: Path, file: h5py.File, name: str, hint: str = "", padded: bool = False
) -> h5py.Dataset:
    """Return a dataset whose content can be read, all of it from this file.

    Arguments:
        padded: Chunks may be left out, since their fill value is meant.
        hint: What to try when it is missing, such as " (other layouts: caloforge convert)".

    Raises:
        FileFormatError: When it is missing, a link to what is not there or in another file, no dataset, without content, stored elsewhere, damaged, not
            written as a whole, or needs a filter that HDF5 does not have.
    """
    return _opened(path, file, name, hint, padded)[0]


def _opened(
    path: Path, file: h5py.File, name: str, hint: str, padded: bool
) -> tuple[h5py.Dataset, h5py.Group, str]:
    """Return a dataset, and the group and name that it has there."""
    where = f"dataset '{name}'"
    with hdf5.guarded(path, where):
        if not has_item(file, name.partition("/")[0]):
            names = [one if isinstance(one, str) else repr(one) for one in islice(file, _SHOWN + 1)]
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise FileFormatError(path, where, f"is missing; the file has: {shown or 'nothing'}{hint}")
        parent, last = _resolved(path, file, name, where)
        found = parent[last]
        if not isinstance(found, h5py.Dataset):
            kind = "group" if isinstance(found, h5py.Group) else "type"
            raise FileFormatError(path, where, f"is a {kind}; expected a dataset")
        message = storage_fault(found, padded)
        if message is not None:
            raise FileFormatError(path, where, message)
        try:
            kind, shape = found.dtype, found.shape
        except TypeError as error:
            message = f"has a type that cannot be read ({error}); expected numbers"
            raise FileFormatError(path, where, message) from error
        if shape is None:
            raise FileFormatError(path, where, f"has no content (a null dataset of {kind}); expected numbers")
        return found, parent, last


def open_rows(path: Path, file: h5py.File, name: str, hint: str = "", padded: bool = False) -> h5py.Dataset:
    """Return a dataset with a cache for a band of its chunks; see :func:`find_dataset`."""
    dataset, parent, last = _opened(path, file, name, hint, padded)
    if dataset.chunks is None:
        return dataset
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    wanted = dataset.chunks[0] * _row_bytes(dataset) + chunk_bytes
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(_CACHE_SLOTS, max(chunk_bytes, min(wanted, _CACHE_LIMIT)), 1.0)
    # The cache of a dataset is fixed when it is first opened, so this view of it is closed before.
    del dataset
    return h5py.Dataset(h5py.h5d.open(parent.id, last.encode(), access))


def band_rows(dataset: h5py.Dataset) -> int:
    """Return how many rows are best read at a time: about 2 MiB, in whole chunks where these are not too large."""
    row = _row_bytes(dataset)
    rows = hdf5.rows_per_chunk(row)
    if dataset.chunks is None:
        return rows
    chunk = int(dataset.chunks[0])
    return min(max(1, rows // chunk) * chunk, hdf5.rows_per_chunk(row, _BAND_LIMIT))


def read_rows(path: Path, dataset: h5py.Dataset, start: int, out: NDArray[Any]) -> None:
    """Fill ``out`` with the rows of a dataset from ``start`` on, converted to its type.

    Raises:
        FileFormatError: When the file's data are damaged.
    """
    stop = start + len(out)
    if not out.size:  # which some versions of h5py cannot read
        return
    try:
        dataset.read_direct(out, np.s_[start:stop], np.s_[: len(out)])
    except hdf5.UNREADABLE as error:
        unreadable(path, dataset, error, f", rows {start} to {stop - 1}")


def unreadable(path: Path, dataset: h5py.Dataset, error: Exception, rows: str = "") -> NoReturn:
    """Raise the error of a dataset whose data HDF5 could not read; ``rows`` says which, such as ", rows 0 to 9"."""
    message = filter_fault(dataset) or f"cannot be read, the file is damaged: {_reason(error)}"
    raise FileFormatError(path, f"dataset '{str(dataset.name).lstrip('/')}'{rows}", message) from error


def read_seen(path: Path, file: h5py.File) -> NDArray[np.uint64]:
    """Return the identities (M,), sorted, that a file has of showers seen by a model; empty for none.

    Raises:
        FileFormatError: When the dataset is no set of identities.
    """
    with hdf5.guarded(path, f"dataset '{hdf5.SEEN}'"):
        if not has_item(file, hdf5.SEEN):
            return NO_IDENTITIES
    found = find_dataset(path, file, hdf5.SEEN)
    if found.dtype != np.uint64 or found.ndim != 1:
        message = "is not a set of identities of showers; expected (M,) of type uint64"
        raise FileFormatError(path, f"dataset '{hdf5.SEEN}'", message)
    try:
        stored = found[:]
    except hdf5.UNREADABLE as error:
        unreadable(path, found, error)
    union = seen_union([stored])
    if len(union) != len(stored):
        message = f"has {len(stored)} identities of showers, of which {len(union)} differ; expected each once: the file is damaged"
        raise FileFormatError(path, f"dataset '{hdf5.SEEN}'", message)
    return union


def _row_bytes(dataset: h5py.Dataset) -> int:
    return int(dataset.dtype.itemsize * math.prod(dataset.shape[1:]))


def _reason(error: Exception) -> str:
    """Return the first line of HDF5's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def follow(group: h5py.Group, name: str) -> Any:
    """Return what a name in a group stands for; None when it is a link to what is not in the file."""
    with suppress(_Outside):
        place = _place(group, name)
        return None if place is None else place[0][place[1]]
    return None


def _place(group: h5py.Group, name: str) -> tuple[h5py.Group, str] | None:
    """Return the group that a name leads to, and the name without links there; None when it leads to nothing.

    Raises:
        _Outside: When a link on the way leads out of the file.
    """
    waiting, steps = deque(part for part in name.split("/") if part), 0
    last = ""
    while waiting:
        if last:
            group = group[last]
            if not isinstance(group, h5py.Group):
                return None
        last = waiting.popleft()
        if not group.id.links.exists(last.encode()):
            return None
        kind = group.id.links.get_info(last.encode()).type
        if kind == h5py.h5l.TYPE_HARD:
            continue
        if kind != h5py.h5l.TYPE_SOFT:
            link = group.get(last, getlink=True) if kind == h5py.h5l.TYPE_EXTERNAL else None
            raise _Outside("another file" if link is None else f"{link.filename}:{link.path}")
        steps += 1
        if steps > _LINKS:
            return None
        target = group.get(last, getlink=True).path
        group, last = (group["/"] if target.startswith("/") else group), ""
        waiting.extendleft(reversed([part for part in target.split("/") if part not in ("", ".")]))
    return group, last or "."


def _resolved(path: Path, file: h5py.File, name: str, where: str) -> tuple[h5py.Group, str]:
    """Return the group that a name leads to, and the name there.

    Raises:
        FileFormatError: When it is, or goes through, a link to what is not there or in another file.
    """
    parts = name.strip("/").split("/")
    for stop in range(1, len(parts) + 1):
        one = "/".join(parts[:stop])
        through = "" if stop == len(parts) else f" in '{one}',"
        try:
            place = _place(file, one)
        except _Outside as error:
            message = f"is{through} a link out of the file, to {error}; expected the values in this file"
            raise FileFormatError(path, where, message) from error
        if place is None:
            before = _place(file, "/".join(parts[: stop - 1])) if stop > 1 else (file, "/")
            holder = None if before is None else before[0][before[1]]
            link = holder.get(parts[stop - 1], getlink=True) if isinstance(holder, h5py.Group) else None
            target = getattr(link, "path", "")
            message = f"is{through} a link to {target}, which is not there" if target else "is missing"
            raise FileFormatError(path, where, message)
    assert place is not None
    return place
