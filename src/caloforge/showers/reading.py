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
from caloforge.showers import datasets, hdf5
from caloforge.showers.container import RESERVED_CONDITIONS, Showers
from caloforge.showers.description import html_table, known, lines
from caloforge.showers.plausibility import SAMPLE, axis_sizes, check_angles, check_axes, check_energies
from caloforge.showers.selection import Index, as_indices, as_selection, chunk_size
from caloforge.showers.sparse import PointFile, is_sparse

__all__ = ["ShowerFile", "find_detector", "open_showers", "open_with_default", "read_showers"]

_DETECTOR = "attribute 'detector'"
_PREFIX = f"{hdf5.CONDITIONS}/"


def open_showers(
    path: str | Path,
    detector: str | Path | Detector | None = None,
    energy_unit: str = "",
    allow_implausible: bool = False,
) -> ShowerFile:
    """Open a file of showers.

    Arguments:
        detector: Which is expected; needed when the file names none.
        energy_unit: MeV or GeV, for a file of points that does not say which.
        allow_implausible: Read a file of another program although its units or axes look wrong.

    Raises:
        FileFormatError: When the file is not what it should be; says where and what was expected.
    """
    return ShowerFile(path, detector, energy_unit, allow_implausible)


def open_with_default(path: str | Path, detector: str | Path | Detector | None) -> ShowerFile:
    """Open a file of the detector that it names, or, where it names none that is known, of ``detector``."""
    try:
        return open_showers(path)
    except FileFormatError as error:
        if detector is None or error.where != _DETECTOR:
            raise
        return open_showers(path, detector)


def read_showers(path: str | Path, detector: str | Path | Detector | None = None) -> Showers:
    """Read a whole file into memory, every value checked."""
    with open_showers(path, detector) as file:
        return file[:]


def find_detector(path: Path, stored: dict[str, Any], expected: str | Path | Detector | None) -> Detector:
    """Return the detector that a file's attributes name or define, which must be the expected one.

    Raises:
        FileFormatError: When they name none and none is expected, or another one, or one that cannot be built.
    """
    wanted = None if expected is None else get_detector(expected)
    name = stored.get("detector")
    if name is None:
        if wanted is None:
            message = "is missing; name the detector of its showers (--detector NAME)"
            raise FileFormatError(path, _DETECTOR, message)
        return wanted
    name = str(name)
    if wanted is not None and wanted.name != name:
        raise FileFormatError(path, _DETECTOR, f"is '{name}'; expected '{wanted.name}'")
    try:
        if hdf5.DEFINITION in stored:
            found = detector_from_definition(str(stored[hdf5.DEFINITION]))
        elif wanted is not None:
            found = wanted
        elif name not in DETECTORS:  # a name that is a path must not make the reader open another file
            raise UnknownNameError("detector", str(name), DETECTORS.names())
        else:
            found = get_detector(name)
    except CaloforgeError as error:
        message = f"is '{name}', which cannot be built: {error}; pass its .toml file (--detector FILE.toml)"
        raise FileFormatError(path, _DETECTOR, message) from error
    if wanted is not None and wanted != found:
        message = f"defines another '{name}' than the expected one"
        raise FileFormatError(path, f"attribute '{hdf5.DEFINITION}'", message)
    return found


class ShowerFile:
    """Showers in a file, read when they are needed.

    Indexing, :meth:`chunks` and :meth:`take` return :class:`Showers` in memory, whose values were checked. They take the memory
    of these showers and of a chunk of the file. It may be pickled: the copy opens the file again.

    Arguments: see :func:`open_showers`.
    """

    def __init__(
        self,
        path: str | Path,
        detector: str | Path | Detector | None = None,
        energy_unit: str = "",
        allow_implausible: bool = False,
    ) -> None:
        self.path = Path(path)
        self._said = energy_unit, allow_implausible
        self._file = hdf5.open_hdf5(self.path)
        try:
            with hdf5.guarded(self.path):
                self._open(detector, energy_unit, allow_implausible)
        except BaseException:
            self._file.close()
            raise

    def _open(
        self, detector: str | Path | Detector | None, energy_unit: str, allow_implausible: bool
    ) -> None:
        """Read what describes the showers, and open their datasets."""
        stored = hdf5.plain_attributes(self._file)
        self.detector = find_detector(self.path, stored, detector)
        self.particle = str(stored.get("particle", ""))
        self.source = str(stored.get("source", ""))
        seed = stored.get("seed")
        self.seed: int | None = seed if type(seed) is int else None
        self.version = str(stored.get("caloforge_version", ""))
        self.attributes: dict[str, Any] = {k: v for k, v in stored.items() if k not in hdf5.RESERVED}
        sparse = is_sparse(self._file)
        self._points = PointFile(self.path, self._file, self.detector, energy_unit) if sparse else None
        self._cells = self._open_cells()
        self._columns = self._open_columns()
        if self._points is not None and not self.particle:
            self.particle = self._points.particle
        if "caloforge_version" not in stored and not allow_implausible:
            self._check_plausible()

    def _open_cells(self) -> h5py.Dataset:
        """Open the cells, or the points."""
        if self._points is not None:
            return self._points.dataset
        cells = self._open_numbers(hdf5.CELLS, self.detector.n_cells, f" for detector '{self.detector.name}'")
        if not len(cells):
            self._reject(f"dataset '{hdf5.CELLS}'", "has no showers; expected at least one")
        return cells

    def _open_columns(self) -> dict[str, h5py.Dataset | NDArray[np.float64]]:
        """Open everything else that has a row for each shower: energies, angles, conditions by full name."""
        columns: dict[str, h5py.Dataset | NDArray[np.float64]] = {}
        if self._points is not None and not self._points.ours:
            columns |= self._points.columns()
            if datasets.has_item(
                self._file, hdf5.THETA
            ):  # written by caloforge, without the rounding of directions
                columns[hdf5.THETA] = self._open_numbers(hdf5.THETA, 1)
        else:
            energies = hdf5.ENERGIES if self._points is None else hdf5.POINT_ENERGIES
            columns[hdf5.ENERGIES] = self._open_numbers(energies, 1)
            if datasets.has_item(self._file, hdf5.THETA):
                columns[hdf5.THETA] = self._open_numbers(hdf5.THETA, 1)
        for name in datasets.find_group(self.path, self._file, hdf5.CONDITIONS) or ():
            if name in RESERVED_CONDITIONS:
                message = f"stands for a dataset of the file itself, not for a condition; expected another name than {' and '.join(RESERVED_CONDITIONS)}"
                self._reject(f"dataset '{_PREFIX}{name}'", message)
            columns[_PREFIX + name] = self._open_numbers(_PREFIX + name, None)
        for name, column in columns.items():
            if len(column) != len(self._cells):
                self._reject(
                    f"dataset '{self._stored(name)}'",
                    f"has {len(column)} rows; expected {len(self._cells)}, one a shower",
                )
        return columns

    def _check_plausible(self) -> None:
        """Refuse a file of another program whose units or axes cannot be those of this layout, by its first showers."""
        stop = min(SAMPLE, len(self._cells), max(1, hdf5.STREAM_BYTES // (4 * self.detector.n_cells)))
        try:
            showers = self._read(0, stop)
        except FileFormatError:
            return  # invalid values are named when they are read
        theta, energy = showers.incident_theta, showers.incident_energy
        finding = check_energies(showers.visible_energy, energy, self.detector, self.particle)
        if finding is None and self.has_theta:
            finding = check_angles(theta)
        if finding is None and self._points is None:
            axes = "".join(axis_sizes(self.detector))
            finding = check_axes(showers.cells, axes, energy, theta, self.detector, self.particle)
        if finding is not None and finding.clear:
            self._reject("", f"{finding.message}; {finding.remedy} of 'caloforge convert'")

    def _open_numbers(self, name: str, width: int | None, note: str = "") -> h5py.Dataset:
        """Open a dataset (N, width) of numbers; (N,) does for (N, 1), and any width when it is None."""
        where = f"dataset '{name}'"
        found = datasets.open_rows(self.path, self._file, name, " (other layouts: caloforge convert)")
        if found.dtype.kind not in "fiu":
            self._reject(where, f"has type {found.dtype}; expected numbers")
        shape = (*found.shape, 1) if found.ndim == 1 else found.shape
        if len(shape) != 2 or width not in (None, shape[1]):
            hint = " (other layouts: caloforge convert)" if len(shape) > 2 else ""
            self._reject(where, f"has shape {found.shape}; expected (N, {width or 'k'}){note}{hint}")
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return open_showers, (self.path, self.detector, *self._said)

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

    def _repr_html_(self) -> str:
        """Return a table for notebooks; no cells are read."""
        return html_table(repr(self), lines(known(self)) if self._file else ())

    def __len__(self) -> int:
        self._check_open()
        return len(self._cells)

    @property
    def file_facts(self) -> dict[str, Any]:
        """What is known of the file itself; see :func:`~caloforge.showers.description.known`."""
        layout, size = "sparse" if self.sparse else "dense", self.path.stat().st_size
        return {"file": str(self.path), "bytes": size, "layout": layout, "caloforge_version": self.version}

    @property
    def sparse(self) -> bool:
        """Whether the file is in the sparse layout."""
        return self._points is not None

    @property
    def has_theta(self) -> bool:
        """Whether the file has angles; otherwise all are 90 degrees."""
        return hdf5.THETA in self._columns

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return tuple(name.removeprefix(_PREFIX) for name in self._columns if name.startswith(_PREFIX))

    @cached_property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these; empty for none."""
        self._check_open()
        return datasets.read_seen(self.path, self._file)

    @cached_property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        return self._read_column(hdf5.ENERGIES, 0, len(self))[:, 0]

    @cached_property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees; 90 where the file has none."""
        if not self.has_theta:
            return np.full(len(self), hdf5.PERPENDICULAR)
        return self._read_column(hdf5.THETA, 0, len(self))[:, 0]

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k): "incident_energy" MeV, "incident_theta" degrees, or a named one.

        Raises:
            UnknownNameError: When the file has no condition of that name.
        """
        if name == "incident_energy":
            return self.incident_energy[:, None]
        if name == "incident_theta":
            return self.incident_theta[:, None]
        if name not in self.condition_names:
            known = ["incident_energy", "incident_theta", *self.condition_names]
            raise UnknownNameError("condition", name, known)
        return self._read_column(_PREFIX + name, 0, len(self))

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
        step = chunk_size(size, hdf5.rows_per_stream(4 * self.detector.n_cells, self._band))
        return (self._read(start, min(start + step, n)) for start in range(0, n, step))

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory.

        Each chunk of the file is unpacked once; where chunks are large, only those with a chosen shower.
        """
        wanted = as_indices(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        cells = np.empty((len(wanted), self.detector.n_cells), dtype=np.float32)
        bands = wanted[order] // self._band
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
        step = self._band
        for low, high in pairwise([start, *range((start // step + 1) * step, stop, step), stop]):
            block = cells[low - start : high - start]
            if self._points is not None:
                self._check_open()
                self._points.read(low, block)
            else:
                datasets.read_rows(self.path, self._cells, low, block)
                self._check(hdf5.check_cells(block, low))
        return cells

    def _with_columns(
        self, cells: NDArray[np.float32], start: int, stop: int, rows: slice | NDArray[np.int64]
    ) -> Showers:
        """Return showers of these cells and of the other values of ``rows`` of [start, stop)."""
        columns = {name: self._read_column(name, start, stop)[rows] for name in self._columns}
        return Showers(
            detector=self.detector,
            cells=cells,
            incident_energy=columns.pop(hdf5.ENERGIES),
            incident_theta=columns.pop(hdf5.THETA, None),
            conditions={name.removeprefix(_PREFIX): values for name, values in columns.items()},
            particle=self.particle,
            source=self.source,
            seed=self.seed,
            attributes=self.attributes,
            seen=self.seen,
        )

    def _read_column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read and check energies, angles (float64) or a condition (int64 or float32) as (n, k)."""
        self._check_open()
        dataset = self._columns[name]
        if isinstance(dataset, np.ndarray):
            return dataset[start:stop]
        named = name.startswith(_PREFIX)
        values = np.empty((stop - start, *dataset.shape[1:]), dataset.dtype if named else np.float64)
        datasets.read_rows(self.path, dataset, start, values)
        if named:
            try:
                values = hdf5.condition_values(name.removeprefix(_PREFIX), values)
            except InputError as error:
                self._reject(f"dataset '{name}'", str(error))
        self._check(hdf5.check_column(self._stored(name), values, start))
        return values[:, None] if values.ndim == 1 else values

    def _stored(self, name: str) -> str:
        """Return the name of a column in the file."""
        return hdf5.POINT_ENERGIES if name == hdf5.ENERGIES and self._points is not None else name

    @property
    def _band(self) -> int:
        """How many showers are best read at a time."""
        return datasets.band_rows(self._cells) if self._points is None else self._points.band

    def _check_open(self) -> None:
        if not self._file:
            raise InputError(f"{self.path} is closed; open it again to read from it")

    def _check(self, fault: hdf5.Fault | None) -> None:
        if fault is not None:
            self._reject(*fault)

    def _reject(self, where: str, message: str) -> NoReturn:
        raise FileFormatError(self.path, where, message)
