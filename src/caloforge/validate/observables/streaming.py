"""One pass over a source: every observable, in bounded memory.

Reading ahead: a thread that has the next chunk ready.

HDF5 releases Python's lock while it reads and unpacks, so that reading and computing overlap.

One pass over a source: every observable, in bounded memory.

Chunks of about 16 MiB are read in one thread while the previous ones are computed in another. Beside the
chunks only the table is held, about 2 kB a shower.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.showers import Showers, ShowerSource
from caloforge.validate.observables.base import OBSERVABLES, Observable
from caloforge.validate.observables.batch import CellStatistics, CellSums, ShowerBatch
from caloforge.validate.observables.table import ObservableTable

__all__ = ["Chunked", "batches", "cell_statistics", "chunk_rows", "histogram_cells", "observe", "prefetch"]


_POLL = 0.1  # s, how soon the reading thread notices that nobody listens


def prefetch(chunks: Iterator[Showers], depth: int = 1) -> Generator[Showers, None, None]:
    """Iterate over chunks that another thread reads ahead.

    Arguments:
        chunks: What to read.
        depth: Chunks that may wait.

    Yields:
        The chunks, in order; an error of the reading thread is raised here.
    """
    queue: Queue[Showers | BaseException | None] = Queue(depth)
    stop = Event()

    def put(item: Showers | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=_POLL)
            except Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for chunk in chunks:
                if not put(chunk):
                    return
        except BaseException as error:  # handed to the reader of the queue
            put(error)
            return
        put(None)

    thread = Thread(target=read, name="read showers", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=_POLL)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


_CHUNK_BYTES = 16 * 2**20
_MOST_ROWS = 4096
_MOST_HITS = 1_000_000  # in a batch, about 200 bytes each


def chunk_rows(detector: Detector) -> int:
    """Return how many showers make a chunk of about 16 MiB."""
    return int(np.clip(_CHUNK_BYTES // (4 * detector.n_cells), 1, _MOST_ROWS))


def batches(
    chunks: Iterable[Showers], threshold: float = 0.1, cut: float | None = None
) -> Generator[ShowerBatch, None, None]:
    """Cut chunks into batches of a bounded number of hits, so that memory is bounded for filled showers, too.

    Arguments:
        chunks: Showers of one detector.
        threshold: See :func:`observe`.
        cut: See :func:`observe`.
    """
    hits = np.inf  # a shower; the batch before tells
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            rows = max(1, int(_MOST_HITS / max(min(hits, chunk.detector.n_cells), 1.0)))
            batch = ShowerBatch(chunk[start : start + rows], threshold, cut)
            hits = 1.5 * len(batch.energy) / batch.n
            start += batch.n
            yield batch


def observe(
    source: ShowerSource,
    observables: Sequence[str] | None = None,
    threshold: float = 0.1,
    cut: float | None = None,
    chunk_size: int | None = None,
    label: str = "",
) -> ObservableTable:
    """Compute the observables of every shower in one streaming pass.

    Arguments:
        source: Showers in memory or in a file.
        observables: Names; all when None. Those that do not apply to the detector are noted in ``skipped``.
        threshold: Energy above which a cell counts as a hit, MeV.
        cut: Cells below it are empty for every observable, MeV; the detector's ``evaluation_cut`` when None.
        chunk_size: Showers a chunk; about 16 MiB of cells when None.
        label: Shown with a progress bar on a terminal; none when empty.

    Raises:
        UnknownNameError: When there is no such observable.
        TooFewShowersError: When there are no showers.
        InputError: When a cell is NaN, infinite or negative.
    """
    n, detector = len(source), source.detector
    if n == 0:
        msg = f"no showers of '{detector.name}' to observe"
        raise TooFewShowersError(msg)
    wanted = {name: OBSERVABLES[name] for name in (observables or OBSERVABLES.names())}
    skipped = {name: entry.why_not(detector) for name, entry in wanted.items() if not entry.applies(detector)}
    used = {name: entry for name, entry in wanted.items() if name not in skipped}
    columns: dict[str, NDArray[np.generic]] = {}
    energy, theta = np.empty(n), np.empty(n)
    sums = CellSums(detector)
    start = 0
    chunks = prefetch(source.chunks(chunk_size or chunk_rows(detector)))
    with closing(chunks), progress(n, label, None if label else False) as advance:
        for batch in batches(chunks, threshold, cut):
            rows = slice(start, start + batch.n)
            energy[rows], theta[rows] = batch.showers.incident_energy, batch.theta
            for name, entry in used.items():
                values = entry.compute(batch)
                if name not in columns:
                    columns[name] = _column(entry, detector, n, values)
                columns[name][rows] = values
            sums.add(batch)
            start += batch.n
            advance(batch.n)
    statistics = sums.result()
    ordered = {name: columns[name] for name in used}
    used_cut = detector.evaluation_cut if cut is None else cut
    return ObservableTable(detector, ordered, energy, theta, threshold, used_cut, lambda: statistics, skipped)


def _column(entry: Observable, detector: Detector, n: int, first: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return an empty column for an observable, given its values of the first chunk."""
    if entry.counts:
        kind: type[np.generic] = np.uint16 if detector.n_cells <= np.iinfo(np.uint16).max else np.uint32
    else:
        kind = np.float64 if entry.is_scalar else np.float32
    return np.empty((n, *first.shape[1:]), kind)


class Chunked(Protocol):
    """What a pass over cells needs."""

    @property
    def detector(self) -> Detector:
        """The detector."""
        ...

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers, ``size`` at a time."""
        ...


def cell_statistics(
    source: Chunked, cut: float | None = None, chunk_size: int | None = None
) -> CellStatistics:
    """Compute mean, spread and occupancy of every cell in one streaming pass."""
    sums = CellSums(source.detector)
    with closing(prefetch(source.chunks(chunk_size or chunk_rows(source.detector)))) as chunks:
        for batch in batches(chunks, cut=cut):
            sums.add(batch)
    return sums.result()


def histogram_cells(
    source: Chunked, edges: NDArray[np.float64], cut: float | None = None, chunk_size: int | None = None
) -> NDArray[np.int64]:
    """Count the energies of all filled cells in given bins, in one streaming pass.

    Arguments:
        source: Showers in memory or in a file.
        edges: (k + 1,) increasing, MeV.
        cut: Cells below it are not counted, MeV; the detector's ``evaluation_cut`` when None.
        chunk_size: Showers a chunk.

    Returns:
        (k + 2,): underflow, the bins, overflow (at or above the last edge).
    """
    counts = np.zeros(len(edges) + 1, np.int64)
    with closing(prefetch(source.chunks(chunk_size or chunk_rows(source.detector)))) as chunks:
        for batch in batches(chunks, cut=cut):
            bins = np.searchsorted(edges, batch.energy, side="right")
            counts += np.bincount(bins, minlength=len(counts))
    return counts
