"""Reading showers from files: checked, lazily sliced, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import CaloforgeError, FileFormatError, InputError, UnknownNameError
from caloforge.geometry import DETECTORS, Detector, detector_from_definition, get_detector
from caloforge.showers.container import (
    Fault,
    Showers,
    check_cells,
    check_condition,
    check_energies,
    check_theta,
)
from caloforge.showers.hdf5 import (
    CELLS,
    CONDITIONS,
    DEFINITION,
    ENERGIES,
    PERPENDICULAR,
    RESERVED,
    SEEN,
    THETA,
    band_rows,
    open_dataset,
    open_hdf5,
    plain_attributes,
    read_rows,
    rows_per_stream,
)
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.source import Index, as_selection, chunk_size

__all__ = [
    "ShowerFile",
    "find_cells",
    "find_columns",
    "find_detector",
    "open_showers",
    "read_seen",
    "read_showers",
]


def find_detector(path: Path, stored: dict[str, Any], asked: str | Path | Detector | None) -> Detector:
    """Return the detector of a file: the one that it names or defines, which must be the one asked for.

    Arguments:
        path: The file, for messages.
        stored: The file's attributes.
        asked: The detector that is expected; needed when the file names none.

    Raises:
        FileFormatError: When there is none, it is unknown, or another than asked for.
    """
    where = "attribute 'detector'"
    wanted = None if asked is None else get_detector(asked)
    name = stored.get("detector")
    if name is None:
        if wanted is None:
            _reject(path, where, "is missing; name the detector of its showers (--detector NAME)")
        return wanted
    if wanted is not None and wanted.name != name:
        _reject(path, where, f"is '{name}'; expected '{wanted.name}'")
    try:
        if DEFINITION in stored:
            found = detector_from_definition(str(stored[DEFINITION]))
        elif wanted is not None:
            found = wanted
        else:
            found = _built_in(str(name))
    except CaloforgeError as error:
        message = f"is '{name}', which cannot be built: {error}; give its .toml file (--detector FILE.toml)"
        raise FileFormatError(path, where, message) from error
    if wanted is not None and wanted != found:
        _reject(path, f"attribute '{DEFINITION}'", f"defines another '{name}' than the expected one")
    return found


def find_cells(path: Path, file: h5py.File, detector: Detector) -> h5py.Dataset:
    """Open the cells (N, n_cells)."""
    return _numbers(path, file, CELLS, detector.n_cells, f" for detector '{detector.name}'")


def find_columns(path: Path, file: h5py.File, n: int) -> dict[str, h5py.Dataset]:
    """Open everything else that has a row for each of ``n`` showers: energies, angles, conditions by full name."""
    columns = {ENERGIES: _numbers(path, file, ENERGIES, 1)}
    if THETA in file:
        columns[THETA] = _numbers(path, file, THETA, 1)
    group = file.get(CONDITIONS)
    if group is not None and not isinstance(group, h5py.Group):
        _reject(path, f"'{CONDITIONS}'", "is a dataset; expected a group of datasets")
    for name in group or ():
        columns[f"{CONDITIONS}/{name}"] = _numbers(path, file, f"{CONDITIONS}/{name}", None)
    for name, column in columns.items():
        if len(column) != n:
            _reject(path, f"dataset '{name}'", f"has {len(column)} rows; expected {n}, one a shower")
    return columns


def read_seen(path: Path, file: h5py.File) -> NDArray[np.uint64]:
    """Return the identities (M,), sorted, of the showers that the model behind a file has seen; none when it names none."""
    if SEEN not in file:
        return NO_IDENTITIES
    found = file[SEEN]
    if not isinstance(found, h5py.Dataset) or found.dtype != np.uint64 or found.ndim != 1:
        _reject(
            path, f"dataset '{SEEN}'", "does not hold identities of showers; expected (M,) of type uint64"
        )
    try:
        return seen_union([found[:]])
    except (OSError, RuntimeError) as error:
        _reject(path, f"dataset '{SEEN}'", f"cannot be read, the file is damaged: {error}")


def _built_in(name: str) -> Detector:
    """Return a detector by its name alone: a file must not make its reader open another one."""
    if name not in DETECTORS:
        raise UnknownNameError("detector", name, DETECTORS.names())
    return get_detector(name)


def _numbers(path: Path, file: h5py.File, name: str, width: int | None, note: str = "") -> h5py.Dataset:
    """Open a dataset (N, width) of numbers; (N,) does for (N, 1), and any width when it is None."""
    where = f"dataset '{name}'"
    if name not in file:
        _reject(path, where, f"is missing; the file holds: {', '.join(file) or 'nothing'}")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        _reject(path, where, "is a group; expected a dataset")
    if found.dtype.kind not in "fiu":
        _reject(path, where, f"has type {found.dtype}; expected numbers")
    shape = (*found.shape, 1) if found.ndim == 1 else found.shape
    if len(shape) != 2 or width not in (None, shape[1]):
        _reject(path, where, f"has shape {found.shape}; expected (N, {width or 'k'}){note}")
    return open_dataset(file, name)


def _reject(path: Path, where: str, message: str) -> NoReturn:
    raise FileFormatError(path, where, message)


def open_showers(
    path: str | Path, detector: str | Path | Detector | None = None, allow_empty: bool = False
) -> ShowerFile:
    """Open a file of showers for reading.

    Arguments:
        path: The file.
        detector: Detector that is expected; needed when the file names none.
        allow_empty: Accept a file without showers.

    Raises:
        FileFormatError: When the file is not what it should be; says where and what was expected.
    """
    return ShowerFile(path, detector, allow_empty)


def read_showers(path: str | Path, detector: str | Path | Detector | None = None) -> Showers:
    """Read a whole file into memory, every value checked."""
    with open_showers(path, detector) as file:
        return file[:]


class ShowerFile:
    """Showers in a file, read when they are asked for.

    Indexing, :meth:`chunks` and :meth:`take` give :class:`Showers` in memory, whose values were checked. Memory is
    that of the showers asked for and of a chunk of the file. It may be pickled: the copy opens the file again.

    Arguments: see :func:`open_showers`.
    """

    def __init__(
        self, path: str | Path, detector: str | Path | Detector | None = None, allow_empty: bool = False
    ) -> None:
        self.path = Path(path)
        self._allow_empty = allow_empty
        self._file = open_hdf5(self.path)
        try:
            stored = plain_attributes(self._file)
            self.detector = find_detector(self.path, stored, detector)
            self.particle = str(stored.get("particle", ""))
            self.source = str(stored.get("source", ""))
            self.seed: int | None = stored.get("seed")
            self.attributes: dict[str, Any] = {k: v for k, v in stored.items() if k not in RESERVED}
            self.caloforge_version = str(stored.get("caloforge_version", ""))
            self._cells = find_cells(self.path, self._file, self.detector)
            if not len(self._cells) and not allow_empty:
                self._raise(Fault(f"dataset '{CELLS}'", "holds no showers; expected at least one"))
            self._columns = find_columns(self.path, self._file, len(self._cells))
        except BaseException:
            self._file.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return open_showers, (self.path, self.detector, self._allow_empty)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read from it stays."""
        self._file.close()

    def __repr__(self) -> str:
        state = f"{len(self)} x {self.detector.name}" if self._file else "closed"
        return f"ShowerFile('{self.path}', {state})"

    def __len__(self) -> int:
        self._check_open()
        return len(self._cells)

    @property
    def has_theta(self) -> bool:
        """Whether the file holds angles; otherwise all are 90 degrees."""
        return THETA in self._columns

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        prefix = f"{CONDITIONS}/"
        return tuple(name.removeprefix(prefix) for name in self._columns if name.startswith(prefix))

    @cached_property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these; empty for none."""
        self._check_open()
        return read_seen(self.path, self._file)

    @cached_property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        return self._read_column(ENERGIES, 0, len(self))

    @cached_property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees; 90 where the file holds none."""
        return self._read_column(THETA, 0, len(self)) if self.has_theta else np.full(len(self), PERPENDICULAR)

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k): "incident_energy" MeV, "incident_theta" degrees, or a named one.

        Raises:
            UnknownNameError: When the file has no condition of that name.
        """
        known = ("incident_energy", "incident_theta", *self.condition_names)
        if name not in known:
            raise UnknownNameError("condition", name, list(known))
        if name in known[:2]:
            column: NDArray[np.float64] = getattr(self, name)
            return column[:, None]
        return self._read_condition(name, 0, len(self))

    @cached_property
    def n_empty(self) -> int:
        """Number of showers without any energy; found by one pass over the file."""
        return sum(part.n_empty for part in self.chunks())

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers: an int (one shower), a slice, a mask (N,) or indices."""
        chosen = as_selection(index, len(self))
        if isinstance(chosen, slice):
            start, stop, step = chosen.indices(len(self))
            if step == 1:
                return self._read(start, max(start, stop))
            return self.take(np.arange(start, stop, step))
        return self.take(np.flatnonzero(chosen) if chosen.dtype == bool else chosen)

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time (by default about 16 MiB of cells)."""
        n = len(self)
        step = chunk_size(size, rows_per_stream(4 * self.detector.n_cells, band_rows(self._cells)))
        return (self._read(start, min(start + step, n)) for start in range(0, n, step))

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory.

        Each chunk of the file is unpacked once, and only those that hold a chosen shower.
        """
        wanted = np.arange(len(self))[as_selection(np.asarray(indices), len(self))]
        order = np.argsort(wanted, kind="stable")
        cells = np.empty((len(wanted), self.detector.n_cells), dtype=np.float32)
        bands = wanted[order] // band_rows(self._cells)
        for places in np.split(order, np.flatnonzero(np.diff(bands)) + 1):
            if len(places):
                first, last = int(wanted[places[0]]), int(wanted[places[-1]])
                cells[places] = self._read_cells(first, last + 1)[wanted[places] - first]
        if not len(wanted):
            return self._read(0, 0)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return self._with_columns(cells, low, high, wanted - low)

    def _read(self, start: int, stop: int) -> Showers:
        """Read and check the showers [start, stop)."""
        return self._with_columns(self._read_cells(start, stop), start, stop, slice(None))

    def _read_cells(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read and check cells, a band of chunks at a time, while they are in the processor's cache."""
        cells = np.empty((stop - start, self.detector.n_cells), dtype=np.float32)
        step = band_rows(self._cells)
        for low, high in pairwise([start, *range((start // step + 1) * step, stop, step), stop]):
            block = cells[low - start : high - start]
            read_rows(self.path, self._cells, low, block)
            self._raise(check_cells(block, low))
        return cells

    def _with_columns(
        self, cells: NDArray[np.float32], start: int, stop: int, rows: slice | NDArray[np.int64]
    ) -> Showers:
        """Put cells together with those ``rows`` of [start, stop) that they belong to."""
        return Showers(
            detector=self.detector,
            cells=cells,
            incident_energy=self._read_column(ENERGIES, start, stop)[rows],
            incident_theta=self._read_column(THETA, start, stop)[rows] if self.has_theta else None,
            conditions={name: self._read_condition(name, start, stop)[rows] for name in self.condition_names},
            particle=self.particle,
            source=self.source,
            seed=self.seed,
            attributes=self.attributes,
            seen=self.seen,
        )

    def _read_column(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        self._check_open()
        dataset = self._columns[name]
        column = np.empty((stop - start, *dataset.shape[1:]), dtype=np.float64)
        read_rows(self.path, dataset, start, column)
        column = column.reshape(stop - start)
        self._raise({ENERGIES: check_energies, THETA: check_theta}[name](column, start))
        return column

    def _read_condition(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        self._check_open()
        dataset = self._columns[f"{CONDITIONS}/{name}"]
        values = np.empty((stop - start, *dataset.shape[1:]), dtype=np.float32)
        read_rows(self.path, dataset, start, values)
        values = values[:, None] if values.ndim == 1 else values
        self._raise(check_condition(name, values, start))
        return values

    def _check_open(self) -> None:
        if not self._file:
            msg = f"{self.path} is closed; open it again to read from it"
            raise InputError(msg)

    def _raise(self, fault: Fault | None) -> None:
        if fault is not None:
            raise FileFormatError(self.path, fault.where, fault.message)
