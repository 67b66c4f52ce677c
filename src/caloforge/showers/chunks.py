"""Writing of cells to a file: threads check, pack and compress them; they are written in order.

A band is the rows of one chunk of a dataset. Whole bands are packed (the byte shuffle of HDF5), compressed (the deflate of HDF5's
gzip filter) and written past HDF5's own filters, so that any reader unpacks them as usual. While a batch is being compressed
and written the next one can be made: :meth:`ChunkStream.submit` waits only when many bands are on their way, which bounds
the memory. One thread alone writes, in order, so that not a byte of a file depends on the number of threads.

Points are compressed by zlib's strategy RLE, which looks for runs of equal bytes alone: after the shuffle there is little else, and it
is faster and a tenth smaller than the default. Cells are not: their files would be a third smaller, but take twice the time to read.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from threading import BoundedSemaphore
from typing import Any, Generic, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.showers import hdf5
from caloforge.showers.sparse import PARTICLES, Cells, Hits, directions_of

__all__ = ["CellStore", "ChunkStream", "DenseStore", "SparseStore", "thread_count"]

Chunk = tuple[tuple[int, int], NDArray[np.uint8]]
"""Where a chunk begins in its dataset, and its bytes, shuffled."""

_POINT = np.dtype(("<f4", (4,)))
_COLUMNS = (
    (hdf5.POINT_ENERGIES, 1, np.float64),
    (hdf5.NUMBERS, None, np.int32),
    (hdf5.DIRECTIONS, 3, np.float32),
)
_CHUNK_POINTS = 512
_BAND_BYTES = 512 * 1024  # of the first chunk of a band of points
_BANDS = 3  # on their way for each thread
_JOBS = 64  # changes of the file other than bands, all small, that may wait

A = TypeVar("A")
B = TypeVar("B")
Rows = TypeVar("Rows", NDArray[np.float32], Hits)


def thread_count() -> int:
    """Return how many threads compress: one for each processor of this process but one, from 1 to 8."""
    if hasattr(os, "process_cpu_count"):
        found = os.process_cpu_count()
    else:
        found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, max(1, (found or 1) - 1))


class ChunkStream:
    """Packs, compresses and writes bands of chunks, in bounded memory.

    A failure of a thread is raised by the next call; after the ``with`` block no thread works on, whatever ended it.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or thread_count()
        # Packing may not wait behind compression: its caller does.
        self._packers = ThreadPoolExecutor(self._threads)
        self._compressors = ThreadPoolExecutor(self._threads)
        self._writer = ThreadPoolExecutor(1)
        self._slots = BoundedSemaphore(_BANDS * self._threads)
        self._jobs = BoundedSemaphore(_JOBS)
        self._last: Future[None] | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._packers, self._compressors, self._writer):
            pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """Return what ``work`` makes of each item, in order; it is done when this returns."""
        if self._threads == 1 or len(items) < 2:
            return [work(item) for item in items]
        return list(self._packers.map(work, items))

    def submit(
        self, dataset: h5py.Dataset, pack: Callable[[], list[Chunk]], strategy: int
    ) -> Future[list[Chunk]]:
        """Pack, compress and write a band behind those before it; returns when there is room, with the future of the packing."""
        self.check()
        self._slots.acquire()
        packed = self._packers.submit(pack)
        compressed = self._compressors.submit(_compress, packed, strategy)

        def write() -> None:
            for place, data in compressed.result():
                dataset.id.write_direct_chunk(place, data)

        self._last = self._writer.submit(self._work, write, self._slots)
        return packed

    def run(self, work: Callable[[], object]) -> None:
        """Do some small work on the file behind what was submitted before."""
        self.check()
        self._jobs.acquire()
        self._last = self._writer.submit(self._work, work, self._jobs)

    def check(self) -> None:
        """Raise the first failure of a thread."""
        if self._failure is not None:
            raise self._failure

    def drain(self) -> None:
        """Wait until all is written."""
        if self._last is not None:
            self._last.result()
        self.check()

    def _work(self, work: Callable[[], object], room: BoundedSemaphore) -> None:
        try:
            if self._failure is None:
                work()
        except BaseException as error:  # raised again where the caller waits
            self._failure = error
        finally:
            room.release()


def _compress(packed: Future[list[Chunk]], strategy: int) -> list[tuple[tuple[int, int], bytes]]:
    def deflate(data: NDArray[np.uint8]) -> bytes:
        coder = zlib.compressobj(hdf5.COMPRESSION_LEVEL, strategy=strategy)
        return coder.compress(data.data) + coder.flush()

    return [(place, deflate(data)) for place, data in packed.result()]


def _shuffled(values: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """Return the bytes of values of ``size`` bytes each: all first ones, all second ones, and so on (HDF5's shuffle)."""
    table = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, size)
    planes = np.empty((size, len(table)), np.uint8)
    for number, plane in enumerate(planes):
        plane[:] = table[:, number]
    return planes


class CellStore(ABC, Generic[Rows]):
    """The dataset ``showers`` of a file that is being written, in one of the layouts.

    Batches are split where a band ends; of the last, unfinished band the rows are kept. What :meth:`check` returns for a batch
    goes to :meth:`append`, after which the batch's arrays may change.
    """

    _strategy = zlib.Z_DEFAULT_STRATEGY

    def __init__(self, file: h5py.File, detector: Detector, stream: ChunkStream) -> None:
        self.detector, self._stream, self._n = detector, stream, 0
        self._waiting: list[Rows] = []
        self._dataset = self._create(file)
        self._band = int(self._dataset.chunks[0])

    @abstractmethod
    def _create(self, file: h5py.File) -> h5py.Dataset:
        """Create the dataset, without rows."""

    def columns(
        self, columns: dict[str, NDArray[Any]], theta: NDArray[np.float64], parts: Sequence[Rows]
    ) -> dict[str, NDArray[Any]]:
        """Return what else is stored of a batch: of its energies, angles and conditions, its angles (N,) and its parts."""
        return columns

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the file that belong to the layout."""
        return {}

    @abstractmethod
    def _rows(self, showers: NDArray[np.float32] | Hits, first_row: int) -> tuple[Rows, hdf5.Fault | None]:
        """Return showers as they are stored, and their first fault."""

    @abstractmethod
    def _resize(self, parts: Sequence[Rows]) -> None:
        """Make room for these rows at the end."""

    @abstractmethod
    def _pack(self, parts: Sequence[Rows], first_row: int) -> list[Chunk]:
        """Return the chunks of a band, filled up with zeros."""

    @abstractmethod
    def _keep(self, parts: Sequence[Rows]) -> Rows:
        """Return rows joined, in new memory."""

    def check(self, showers: NDArray[np.float32] | Hits) -> tuple[list[Rows], hdf5.Fault | None]:
        """Return a batch as it will be appended, in parts that each end with a band, and its first fault."""
        stops: list[int] = [*range(self._band - self._n % self._band, len(showers), self._band)]
        ranges = list(zip([0, *stops], [*stops, len(showers)], strict=True))
        found = self._stream.map(lambda r: self._rows(showers[r[0] : r[1]], self._n + r[0]), ranges)
        return [rows for rows, _ in found], next((fault for _, fault in found if fault is not None), None)

    def append(self, parts: Sequence[Rows]) -> None:
        """Add checked rows at the end."""
        self._resize(parts)
        packed = []
        for part in filter(len, parts):
            self._n += len(part)
            self._waiting.append(part)
            if not self._n % self._band:
                packed.append(self._submit())
        if self._waiting:
            self._waiting = [self._keep(self._waiting)]
        self._release(packed)

    def _release(self, packed: Sequence[Future[list[Chunk]]]) -> None:
        """Wait until the batch's arrays are not needed any more; rows that are copies need not wait."""

    def finish(self, particle: str) -> None:
        """Write the last band, wait until all is written, and write what belongs to the layout."""
        if self._waiting:
            self._submit()
        self._stream.drain()

    def _submit(self) -> Future[list[Chunk]]:
        parts, self._waiting = self._waiting, []
        first = (self._n - 1) // self._band * self._band
        return self._stream.submit(self._dataset, lambda: self._pack(parts, first), self._strategy)


class DenseStore(CellStore[NDArray[np.float32]]):
    """``showers`` (N, n_cells): all cells of each shower."""

    def _create(self, file: h5py.File) -> h5py.Dataset:
        hdf5.create_column(file, hdf5.ENERGIES, 1, np.float64)
        width = self.detector.n_cells
        chunks = hdf5.rows_per_chunk(4 * width, hdf5.CHUNK_BYTES), width
        return hdf5.create_dataset(file, hdf5.CELLS, width, np.float32, chunks)

    def _rows(
        self, showers: NDArray[np.float32] | Hits, first_row: int
    ) -> tuple[NDArray[np.float32], hdf5.Fault | None]:
        if isinstance(showers, Hits):
            fault = showers.check(self.detector.n_cells, first_row)
            width = self.detector.n_cells
            return showers.to_cells(width) if fault is None else np.empty((0, width), np.float32), fault
        return showers, hdf5.check_cells(showers, first_row)

    def _resize(self, parts: Sequence[NDArray[np.float32]]) -> None:
        n = self._n + sum(map(len, parts))
        self._stream.run(lambda: self._dataset.resize(n, axis=0))

    def _pack(self, parts: Sequence[NDArray[np.float32]], first_row: int) -> list[Chunk]:
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(rows) < self._band:
            rows = np.concatenate([rows, np.zeros((self._band - len(rows), rows.shape[1]), np.float32)])
        return [((first_row, 0), _shuffled(np.ascontiguousarray(rows, "<f4"), 4))]

    def _keep(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(parts)

    def _release(self, packed: Sequence[Future[list[Chunk]]]) -> None:
        for future in packed:
            future.result()


class SparseStore(CellStore[Hits]):
    """``showers`` (N, points) of four float32: the points of each shower; see :mod:`caloforge.showers.sparse`."""

    _strategy = zlib.Z_RLE

    def _create(self, file: h5py.File) -> h5py.Dataset:
        self._width = min(_CHUNK_POINTS, self.detector.n_cells)
        points = np.zeros((self.detector.n_cells, 4), "<f4")
        points[:, :3] = Cells(self.detector).points
        self._points = points.view(np.complex128)[:, 0]  # 16 bytes each, moved as one
        self._file, self._most = file, 1
        for name, width, kind in _COLUMNS:
            hdf5.create_column(file, name, width, kind)
        rows = hdf5.rows_per_chunk(_POINT.itemsize * self._width, _BAND_BYTES)
        return hdf5.create_dataset(file, hdf5.CELLS, self._most, _POINT, (rows, self._width), grows=True)

    def columns(
        self, columns: dict[str, NDArray[Any]], theta: NDArray[np.float64], parts: Sequence[Hits]
    ) -> dict[str, NDArray[Any]]:
        """Return the energies under ShowerData's name, and what else it expects of each shower."""
        others = {name: values for name, values in columns.items() if name != hdf5.ENERGIES}
        return others | {
            hdf5.POINT_ENERGIES: columns[hdf5.ENERGIES],
            hdf5.NUMBERS: np.concatenate([part.counts for part in parts]),
            hdf5.DIRECTIONS: directions_of(theta),
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """The unit of the energies."""
        return {hdf5.UNIT: "MeV"}

    def finish(self, particle: str) -> None:
        """Write the last band, wait until all is written, and write the rest of what ShowerData expects."""
        super().finish(particle)
        self._file[hdf5.SHAPE] = np.array([self._n, self._most, 4])
        options = {"shape": (self._n,), "dtype": np.int32, "chunks": (min(self._n, 2**14),)}
        # chunks that are not there read as the fill value
        self._file.create_dataset(hdf5.PDG, fillvalue=PARTICLES.get(particle, 0), **options)
        numbers = self._file.create_dataset(
            "shower_ids", compression="gzip", compression_opts=hdf5.COMPRESSION_LEVEL, shuffle=True, **options
        )
        for start in range(0, self._n, 2**18):
            numbers[start : start + 2**18] = np.arange(start, min(start + 2**18, self._n))

    def _rows(self, showers: NDArray[np.float32] | Hits, first_row: int) -> tuple[Hits, hdf5.Fault | None]:
        if isinstance(showers, Hits):
            return Hits.concatenate([showers]), showers.check(self.detector.n_cells, first_row)
        hits = Hits.from_cells(showers)
        good = not len(hits.energy) or (hits.energy.min() > 0 and hits.energy.max() < np.inf)
        return hits, None if good else hdf5.check_cells(showers, first_row)

    def _resize(self, parts: Sequence[Hits]) -> None:
        self._most = max(self._most, *(int(part.counts.max(initial=0)) for part in parts))
        shape = self._n + sum(map(len, parts)), self._most
        self._stream.run(lambda: self._dataset.resize(shape))

    def _pack(self, parts: Sequence[Hits], first_row: int) -> list[Chunk]:
        hits = parts[0] if len(parts) == 1 else Hits.concatenate(parts)
        points = self._points.take(hits.cell)
        points.view("<f4")[3::4] = hits.energy
        number = -(-int(hits.counts.max(initial=0)) // self._width)
        block = np.zeros((self._band, number * self._width), points.dtype)
        for row, (start, stop) in enumerate(pairwise(hits.offsets.tolist())):
            block[row, : stop - start] = points[start:stop]
        return [
            ((first_row, start), _shuffled(block[:, start : start + self._width], points.itemsize))
            for start in range(0, block.shape[1], self._width)
        ]

    def _keep(self, parts: Sequence[Hits]) -> Hits:
        return Hits.concatenate(parts)
