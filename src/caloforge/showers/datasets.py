"""Datasets of HDF5 files that any program may have written: found through links, checked, and read in blocks of rows.

HDF5 fills in zeros, without an error, where a chunk was never written, a source of a virtual dataset is not there, or a file of raw
data is too short. Zeros are energies as good as any, so all of these are found and refused when a dataset is opened: links whose target
is missing, null dataspaces, rows that were never written, sources that are missing, filters that HDF5 does not have here.

HDF5 unpacks a whole chunk whenever any of it is read. The cache of a dataset therefore has room for one band of rows (all
chunks that a row touches) and one chunk more, so that consecutive slices unpack each chunk once, whatever their size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.showers import hdf5
from caloforge.showers.identity import NO_IDENTITIES, seen_union

__all__ = [
    "band_rows", "dataset_names", "find_dataset", "find_group", "has_item", "open_rows",
    "read_rows", "read_seen", "unreadable", "unwritten_rows",
]  # fmt: skip

_CACHE_SLOTS = 12421  # hash table of the chunk cache: a prime well above the number of cached chunks
_CACHE_LIMIT = 256 * 2**20  # most bytes of a chunk cache, whatever the file's chunks
_BAND_LIMIT = 4 * hdf5.STREAM_BYTES  # most bytes of a band, whatever the file's chunks
_DEPTH = 8  # virtual datasets of virtual datasets

_FILTERS: Final = {
    307: "bzip2", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP", 32015: "Zstandard",
    32017: "SZ", 32024: "SZ3", 32026: "Blosc2", 32028: "Sperr",
}  # fmt: skip
"""Filters of the package hdf5plugin by their numbers (https://portal.hdfgroup.org/documentation/hdf5-docs/registered_filter_plugins.html)."""


def has_item(file: h5py.File, name: str) -> bool:
    """Return whether a file has a name, be it a link to something that is not there."""
    with suppress(KeyError, OSError, RuntimeError):
        return file.get(name, getlink=True) is not None
    return False


def dataset_names(file: h5py.File) -> list[str]:
    """Return the full names of all datasets, those behind links too, and of links to what is not there."""
    names: list[str] = []
    met: set[tuple[int, int]] = set()

    def visit(group: h5py.Group, prefix: str) -> None:
        info = h5py.h5o.get_info(group.id)
        if (info.fileno, info.addr) in met:
            return
        met.add((info.fileno, info.addr))
        for name in group:
            item = _follow(group, name)
            if isinstance(item, h5py.Group):
                visit(item, f"{prefix}{name}/")
            elif item is None or isinstance(item, h5py.Dataset):
                names.append(prefix + name)

    visit(file, "")
    return names


def find_group(path: Path, file: h5py.File, name: str) -> h5py.Group | None:
    """Return a group of a file, or None where it has no such name.

    Raises:
        FileFormatError: When it is something else, or a link to what is not there.
    """
    if not has_item(file, name):
        return None
    found = _resolved(path, file, name, f"'{name}'")
    if not isinstance(found, h5py.Group):
        raise FileFormatError(path, f"'{name}'", "is a dataset; expected a group of datasets")
    return found


def find_dataset(
    path: Path, file: h5py.File, name: str, hint: str = "", padded: bool = False
) -> h5py.Dataset:
    """Return a dataset whose content can be read.

    Arguments:
        padded: Chunks may be left out, since their fill value is meant.
        hint: What to try when it is missing, such as " (other layouts: caloforge convert)".

    Raises:
        FileFormatError: When it is missing, a link to what is not there, no dataset, without content, was not written as
            a whole, or needs a filter that HDF5 does not have.
    """
    where = f"dataset '{name}'"
    if not has_item(file, name):
        raise FileFormatError(path, where, f"is missing; the file has: {', '.join(file) or 'nothing'}{hint}")
    found = _resolved(path, file, name, where)
    if not isinstance(found, h5py.Dataset):
        kind = "group" if isinstance(found, h5py.Group) else "type"
        raise FileFormatError(path, where, f"is a {kind}; expected a dataset")
    try:
        kind, shape = found.dtype, found.shape
    except TypeError as error:
        raise FileFormatError(
            path, where, f"has a type that cannot be read ({error}); expected numbers"
        ) from error
    if shape is None:
        raise FileFormatError(path, where, f"has no content (a null dataset of {kind}); expected numbers")
    message = _storage_fault(path, found, padded)
    if message is not None:
        raise FileFormatError(path, where, message)
    return found


def open_rows(path: Path, file: h5py.File, name: str, hint: str = "", padded: bool = False) -> h5py.Dataset:
    """Return a dataset with a cache for a band of its chunks; see :func:`find_dataset`."""
    dataset = find_dataset(path, file, name, hint, padded)
    if dataset.chunks is None:
        return dataset
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    wanted = dataset.chunks[0] * _row_bytes(dataset) + chunk_bytes
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(_CACHE_SLOTS, max(chunk_bytes, min(wanted, _CACHE_LIMIT)), 1.0)
    # The cache of a dataset is fixed when it is first opened, so this view of it is closed before.
    del dataset
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))


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
    try:
        dataset.read_direct(out, np.s_[start:stop], np.s_[: len(out)])
    except (OSError, RuntimeError) as error:
        unreadable(path, dataset, error, f", rows {start} to {stop - 1}")


def unreadable(path: Path, dataset: h5py.Dataset, error: Exception, rows: str = "") -> NoReturn:
    """Raise the error of a dataset whose data HDF5 could not read; ``rows`` says which, such as ", rows 0 to 9"."""
    message = _filter_fault(dataset) or f"cannot be read, the file is damaged: {_reason(error)}"
    raise FileFormatError(path, f"dataset '{str(dataset.name).lstrip('/')}'{rows}", message) from error


def read_seen(path: Path, file: h5py.File) -> NDArray[np.uint64]:
    """Return the identities (M,), sorted, that a file has of showers seen by a model; empty for none.

    Raises:
        FileFormatError: When the dataset is no set of identities.
    """
    if not has_item(file, hdf5.SEEN):
        return NO_IDENTITIES
    found = find_dataset(path, file, hdf5.SEEN)
    if found.dtype != np.uint64 or found.ndim != 1:
        message = "is not a set of identities of showers; expected (M,) of type uint64"
        raise FileFormatError(path, f"dataset '{hdf5.SEEN}'", message)
    try:
        return seen_union([found[:]])
    except (OSError, RuntimeError) as error:
        unreadable(path, found, error)


def _row_bytes(dataset: h5py.Dataset) -> int:
    return int(dataset.dtype.itemsize * math.prod(dataset.shape[1:]))


def _reason(error: Exception) -> str:
    """Return the first line of HDF5's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _follow(group: h5py.Group, name: str) -> Any:
    """Return what a name stands for; None when it is a link to what is not there."""
    with suppress(KeyError, OSError, RuntimeError):
        return group[name]
    return None


def _resolved(path: Path, file: h5py.File, name: str, where: str) -> Any:
    """Return what a name of the file stands for.

    Raises:
        FileFormatError: When it is, or goes through, a link to what is not there.
    """
    found = _follow(file, name)
    if found is not None:
        return found
    parts = name.strip("/").split("/")
    for stop in range(1, len(parts) + 1):
        one = "/".join(parts[:stop])
        if _follow(file, one) is None:
            link = file.get(one, getlink=True)
            target = getattr(link, "path", "")
            if isinstance(link, h5py.ExternalLink):
                target = f"{link.filename}:{target}"
            through = "" if stop == len(parts) else f" in '{one}',"
            message = (
                f"is{through} a link to {target}, which is not there"
                if target
                else "cannot be opened: damaged"
            )
            raise FileFormatError(path, where, message)
    raise FileFormatError(path, where, "cannot be opened: damaged")


def _storage_fault(path: Path, dataset: h5py.Dataset, padded: bool = False, depth: int = 0) -> str | None:
    """Say why some of a dataset cannot be read, or would be read as zeros; None when all is there."""
    if not dataset.size:
        return None
    if dataset.is_virtual:
        return _virtual_fault(path, dataset, depth)
    if dataset.external:
        return _external_fault(path, dataset)
    if (missing := _filter_fault(dataset)) is not None:
        return missing
    if padded:
        return None
    if dataset.chunks is None:
        allocated = dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED
        return None if allocated else "was never written: it has no values"
    rows = unwritten_rows(dataset)
    if not rows.any():
        return None
    first = int(np.argmax(rows))
    last = min(first + int(dataset.chunks[0]), len(rows)) - 1
    return f"has rows that were never written, the first of them in {first} to {last}; they would be read as zeros"


def unwritten_rows(dataset: h5py.Dataset, partly: bool = True) -> NDArray[np.bool_]:
    """Return which rows (N,) of a dataset were never written, as far as its chunks tell.

    Arguments:
        partly: Count rows of which some chunks are written, too.
    """
    if dataset.chunks is None:
        return np.zeros(len(dataset), bool)
    counts = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() >= math.prod(counts):
        return np.zeros(len(dataset), bool)
    written = np.zeros(counts, bool)
    for place in _chunk_places(dataset):
        written[tuple(first // chunk for first, chunk in zip(place, dataset.chunks, strict=True))] = True
    bands = written.reshape(len(written), -1)
    good = bands.all(axis=1) if partly else bands.any(axis=1)
    return np.repeat(~good, dataset.chunks[0])[: len(dataset)]


def _chunk_places(dataset: h5py.Dataset) -> Iterator[tuple[int, ...]]:
    """Yield the first element of each chunk that is written."""
    if not hasattr(dataset.id, "chunk_iter"):
        yield from (dataset.id.get_chunk_info(k).chunk_offset for k in range(dataset.id.get_num_chunks()))
        return
    places: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda info: places.append(info.chunk_offset))
    yield from places


def _filter_fault(dataset: h5py.Dataset) -> str | None:
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
            "install it with: pip install hdf5plugin"
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


def _prefix(variable: str, path: Path) -> Path:
    """Return the folder that a variable of HDF5 names for files beside this one; by default the current one."""
    return Path(os.environ.get(variable, "").replace("${ORIGIN}", str(path.absolute().parent)))


def _external_fault(path: Path, dataset: h5py.Dataset) -> str | None:
    """Say which file of raw data is missing or too short; HDF5 looks for it from the current folder."""
    for name, offset, size in dataset.external:
        raw = _prefix("HDF5_EXTFILE_PREFIX", path) / name
        if not raw.is_file():
            return f"has its data in {name}, which is not there"
        needed = dataset.nbytes if size == h5py.h5f.UNLIMITED else min(size, dataset.nbytes)
        if raw.stat().st_size < offset + needed:
            return f"has its data in {name}, which is too short: {raw.stat().st_size} bytes, expected {offset + needed}"
    return None


def _virtual_fault(path: Path, dataset: h5py.Dataset, depth: int) -> str | None:
    """Say which source of a virtual dataset is missing, or that sources do not fill it."""
    if depth > _DEPTH:
        return "is a virtual dataset of virtual datasets without end"
    filled = 0
    for target, file_name, name, source in dataset.virtual_sources():
        if "%b" in file_name or "%b" in name:
            return None  # the shape is that of the sources which are there
        points = _selected(target)
        filled += points
        fault = _source_fault(path, dataset.file, file_name, name, source, points, depth)
        if fault is not None:
            return f"is a virtual dataset of {file_name}:{name}, {fault}"
    if filled < dataset.size:
        return f"is a virtual dataset of which sources fill {filled} of {dataset.size} values; the rest would be read as zeros"
    return None


def _selected(space: Any) -> int:
    """Return how many elements are selected; 0 where their number has no limit."""
    with suppress(ValueError, RuntimeError, TypeError, OverflowError):
        return int(space.get_select_npoints())
    return 0


def _source_fault(
    path: Path, file: h5py.File, file_name: str, name: str, source: Any, points: int, depth: int
) -> str | None:
    """Say what is wrong with one source of a virtual dataset."""
    if file_name == ".":
        return _part_fault(path, file, name, source, points, depth)
    places = (_prefix("HDF5_VDS_PREFIX", path) / file_name, path.parent / file_name, Path(file_name))
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        return "which is not there"
    try:
        other = hdf5.open_hdf5(place)
    except FileFormatError as error:
        return f"which {str(error).removeprefix(f'{place}: ')}"
    with other:
        return _part_fault(place, other, name, source, points, depth)


def _part_fault(path: Path, file: h5py.File, name: str, source: Any, points: int, depth: int) -> str | None:
    found = _follow(file, name)
    if not isinstance(found, h5py.Dataset):
        return "which is not there"
    if found.shape is None:
        return "which has no content"
    with suppress(ValueError, RuntimeError, TypeError):
        last = (
            (-1,) * found.ndim
            if source.get_select_type() == h5py.h5s.SEL_ALL
            else source.get_select_bounds()[1]
        )
        if any(one >= size for one, size in zip(last, found.shape, strict=True)) or 0 < points > found.size:
            return f"which has the shape {found.shape} and is too small"
    fault = _storage_fault(path, found, depth=depth + 1)
    return None if fault is None else f"which {fault}"
