"""Writing showers to files: streamed in bounded memory and compressed; a file is complete or does not exist."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.errors import FileFormatError, IncompatibleError, InputError, UnknownNameError, WriteError
from caloforge.files import atomic_path, check_output
from caloforge.geometry import Detector, get_detector
from caloforge.random import check_seed
from caloforge.showers import hdf5
from caloforge.showers.chunks import CellStore, ChunkStream, DenseStore, SparseStore
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.sparse import Hits

__all__ = ["GuardedFile", "ShowerBatch", "ShowerWriter", "check_layout", "columns_of", "write_showers"]

_LAYOUTS: dict[str, type[CellStore[Any]]] = {"dense": DenseStore, "sparse": SparseStore}


class _Facts(Protocol):
    """All of a batch but its cells."""

    detector: Detector
    incident_energy: NDArray[np.float64]
    has_theta: bool
    incident_theta: NDArray[np.float64]
    conditions: dict[str, NDArray[Any]]
    particle: str
    source: str
    seed: int | None
    attributes: dict[str, Any]
    seen: NDArray[np.uint64]

    def __len__(self) -> int:
        """Return the number of showers."""


class DenseBatch(_Facts, Protocol):
    """Showers in memory with all cells; see :class:`~caloforge.showers.Showers`."""

    cells: NDArray[np.float32]


@runtime_checkable
class SparseBatch(_Facts, Protocol):
    """Showers in memory as hits; see :class:`~caloforge.showers.SparseShowers`."""

    hits: Hits


ShowerBatch: TypeAlias = DenseBatch | SparseBatch


@runtime_checkable
class _Chunked(Protocol):
    """A source of showers; an iterable of batches has no chunks."""

    def chunks(self) -> Iterator[ShowerBatch]:
        """Iterate over all showers in order."""


def check_layout(layout: str) -> str:
    """Return the name of a layout.

    Raises:
        UnknownNameError: When there is none of that name.
    """
    if layout not in _LAYOUTS:
        raise UnknownNameError("layout", layout, list(_LAYOUTS))
    return layout


def columns_of(showers: _Facts) -> dict[str, NDArray[Any]]:
    """Return energies, conditions and, where there are some, angles, each (N, k), by the name of the dataset."""
    columns: dict[str, NDArray[Any]] = {hdf5.ENERGIES: showers.incident_energy[:, None]}
    if showers.has_theta:
        columns[hdf5.THETA] = showers.incident_theta[:, None]
    return columns | {f"{hdf5.CONDITIONS}/{name}": values for name, values in showers.conditions.items()}


class GuardedFile(io.RawIOBase):
    """A file to which HDF5 writes; its errors never reach HDF5.

    After an I/O error the HDF5 library cannot close its file any more and may crash the process when it
    ends. Here the first error is stored in :attr:`error`, later writes are discarded, HDF5 closes normally, and the
    writer, which checks :attr:`error`, removes the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    writable = seekable = readable

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
        """Write all of ``data``, or store the error and report success."""
        view = memoryview(data).cast("B")
        size = len(view)
        with self._storing_errors():
            while self.error is None and len(view):
                view = view[self._file.write(view) or 0 :]
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length."""
        with self._storing_errors():
            if self.error is None:
                return self._file.truncate(size)
        return size or 0

    def sync(self) -> None:
        """Flush to the disk; delayed allocation may find only then that it is full."""
        with self._storing_errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            with self._storing_errors():
                self._file.close()
        super().close()

    @contextmanager
    def _storing_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


class ShowerWriter:
    """Writes showers to a file, batch by batch, in order.

    The file appears under its name when the ``with`` block ends without an error; otherwise nothing is left. While a batch is compressed
    and written, by threads, the next one can be made; of the batches only some chunks of the file stay in memory, and their arrays may
    change after :meth:`append`. ``attributes`` (texts, numbers, and lists of one; None is left out) may be changed until the end.
    Identities and seeds that the batches' models have seen are written too.

    Arguments:
        layout: "dense", with all cells, or "sparse", with the cells that have energy; see :mod:`caloforge.showers.sparse`.
        threads: Number of threads that compress; by default that of the free processors, at most 8.

    Raises:
        UnknownNameError: When there is no such layout.
        OutputError: When the name does not end with .h5 or .hdf5.
        OutputExistsError: On entering, when the file exists and ``force`` is not set.
        WriteError: When the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        detector: Detector | str,
        particle: str = "",
        source: str = "",
        seed: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        force: bool = False,
        layout: str = "dense",
        threads: int | None = None,
    ) -> None:
        self.path = hdf5.check_ending(path)
        self.detector = get_detector(detector)
        self.particle = particle
        self.source = source
        self.seed = None if seed is None else check_seed(seed)
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.layout = check_layout(layout)
        self._force = force
        self._threads = threads
        self._n = 0
        self._widths: dict[str, int] = {}
        self._kinds: dict[str, np.dtype[Any]] = {}
        self._seen: NDArray[np.uint64] = NO_IDENTITIES
        self._seen_seeds: set[int] = set()
        self._open: tuple[GuardedFile, h5py.File, CellStore[Any], ChunkStream] | None = None
        self._stack = ExitStack()

    def __len__(self) -> int:
        return self._n

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            part = stack.enter_context(atomic_path(self.path, self._force))
            raw = stack.enter_context(GuardedFile(part))
            file = h5py.File(raw, "w", libver=("v108", "v110"))
            stack.callback(_close_quietly, file)
            stream = stack.enter_context(ChunkStream(self._threads))
            self._open = raw, file, _LAYOUTS[self.layout](file, self.detector, stream), stream
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The stack ends the threads, closes HDF5, then the file below, then renames it, or removes it after a failure.
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()

    def append(self, showers: ShowerBatch) -> None:
        """Add showers at the end.

        Raises:
            FileFormatError: When a value may not be written: NaN, infinite, negative or out of range.
            IncompatibleError: When their detector or conditions are not those of the file.
            WriteError: When the disk is full.
        """
        raw, file, store, stream = self._opened()
        if showers.detector != self.detector:
            found = showers.detector.name
            msg = f"{self.path}: showers of '{found}' cannot be added to '{self.detector.name}'"
            raise IncompatibleError(msg)
        columns = columns_of(showers)
        if hdf5.THETA in self._widths:
            columns[hdf5.THETA] = showers.incident_theta[:, None]
        fault = hdf5.check_columns(columns, self._n)
        content = showers.hits if isinstance(showers, SparseBatch) else showers.cells
        parts, wrong = store.check(content) if fault is None else ([], fault)
        if wrong is not None:
            raise FileFormatError(self.path, wrong.where, f"{wrong.message}; not written")
        self._check_kinds(columns)
        new = self._match({name: values.shape[1] for name, values in columns.items()})
        kinds = {name: columns[name].dtype for name in new}
        self._kinds |= kinds
        start, stop = self._n, self._n + len(showers)
        stored = store.columns(columns, showers.incident_theta, parts)
        kept = {name: np.array(values) for name, values in stored.items()}  # the caller's may change

        def write() -> None:
            for name, width in new.items():
                column = hdf5.create_column(file, name, width, kinds[name])
                column.resize(start, axis=0)
                column[:] = hdf5.PERPENDICULAR  # rows before the first angle; conditions have none
            for name, values in kept.items():
                file[name].resize(stop, axis=0)
                file[name][start:stop] = values

        with self._reporting(raw):
            stream.run(write)
            store.append(parts)
        self._n = stop
        if showers.seen is not self._seen:
            self._seen = seen_union([self._seen, showers.seen])
        self._seen_seeds.update(int(seed) for seed in showers.attributes.get(hdf5.SEEN_SEEDS, ()))

    def _check_kinds(self, columns: dict[str, NDArray[Any]]) -> None:
        """Raise IncompatibleError when the type of a condition, which is that of the first batch, does not hold its values."""
        for name, kind in self._kinds.items():
            values = columns.get(name)
            if values is None or values.dtype == kind:
                continue
            with np.errstate(invalid="ignore"):
                same = np.array_equal(values.astype(kind).astype(values.dtype), values)
            if not same:
                raise IncompatibleError(
                    f"{self.path}: '{name}' of type {values.dtype} cannot be added to {kind} without a loss of digits"
                )

    def _match(self, widths: dict[str, int]) -> dict[str, int]:
        """Return the angles and conditions (name to width) for which datasets are missing; all batches must have the same conditions."""
        prefix = f"{hdf5.CONDITIONS}/"
        found = {name: width for name, width in widths.items() if name.startswith(prefix)}
        stored = {name: width for name, width in self._widths.items() if name.startswith(prefix)}
        if found != (stored if self._n else found | stored):
            raise IncompatibleError(
                f"{self.path}: showers with {found or 'no conditions'} cannot be added to {stored or 'none'}"
            )
        known = {hdf5.ENERGIES, *self._widths}
        new = {name: width for name, width in widths.items() if name not in known}
        self._widths |= new
        return new

    def _finish(self) -> None:
        """Write the attributes and flush everything."""
        raw, file, store, _ = self._opened()
        if not self._n:
            raise InputError(f"{self.path}: no showers to write; expected at least one")
        own = {
            "detector": self.detector.name,
            hdf5.DEFINITION: self.detector.definition or None,
            "particle": self.particle,
            "source": self.source,
            "seed": self.seed,
            "caloforge_version": __version__,
        }
        kept = {name: value for name, value in self.attributes.items() if name not in hdf5.RESERVED}
        seeds = self._seen_seeds.union(int(seed) for seed in kept.get(hdf5.SEEN_SEEDS, ()))
        kept |= {hdf5.SEEN_SEEDS: sorted(seeds)} if seeds else {}
        with self._reporting(raw):
            store.finish(self.particle)
            for name, value in {**own, **store.attributes, **kept}.items():
                self._set(file, name, value)
            if len(self._seen):
                file.create_dataset(hdf5.SEEN, data=self._seen, chunks=True, fletcher32=True)
            file.close()
            raw.sync()
            raw.close()

    def _set(self, file: h5py.File, name: str, value: Any) -> None:
        if value is None:
            return
        try:
            file.attrs[name] = str(value) if isinstance(value, Path) else value
        except (TypeError, OverflowError) as error:
            raise InputError(
                f"attribute '{name}' is a {type(value).__name__}; expected a text, a number or a list of one"
            ) from error

    def _opened(self) -> tuple[GuardedFile, h5py.File, CellStore[Any], ChunkStream]:
        if self._open is None or not self._open[1]:
            raise InputError(f"{self.path}: the writer is not open; use it in a 'with' block")
        return self._open

    @contextmanager
    def _reporting(self, raw: GuardedFile) -> Iterator[None]:
        """Raise WriteError when the block, or anything before it, could not be written."""
        failure: Exception | None = None
        try:
            yield
        except (OSError, RuntimeError) as error:
            failure = error
        failure = raw.error or failure
        if failure is not None:
            reason = raw.error.strerror if raw.error is not None else failure
            raise WriteError(f"{self.path}: writing failed, nothing was kept: {reason}") from failure


def _close_quietly(file: h5py.File) -> None:
    """Close a file that is discarded, or was closed before."""
    with suppress(OSError, RuntimeError):
        file.close()


def write_showers(
    path: str | Path,
    showers: _Chunked | SparseBatch | Iterable[ShowerBatch],
    force: bool = False,
    layout: str = "dense",
) -> Path:
    """Write showers to a file, in chunks, and return its path.

    Arguments:
        showers: Showers, all cells or hits alone, an open file of them, or batches that are written as they come. Particle, source, seed
            and attributes are those of the first batch.
        layout: "dense", with all cells, or "sparse", with the cells that have energy.

    Raises:
        InputError: When there are no showers to write.
        UnknownNameError: When there is no such layout.
        OutputError: When the name does not end with .h5 or .hdf5.
        OutputExistsError: Before any work, when the file exists and ``force`` is not set.
        WriteError: When the disk is full.
    """
    check_layout(layout)
    path = check_output(hdf5.check_ending(path), force)
    if isinstance(showers, SparseBatch):
        showers = [showers]
    batches = iter(showers.chunks() if isinstance(showers, _Chunked) else showers)
    first = next(batches, None)
    if first is None:
        raise InputError(f"{path}: no showers to write; expected at least one")
    with ShowerWriter(
        path, first.detector, first.particle, first.source, first.seed, first.attributes, force, layout
    ) as writer:
        for batch in chain([first], batches):
            writer.append(batch)
    return path
