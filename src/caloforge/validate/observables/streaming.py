"""One pass over a source in bounded memory, which feeds everything that is computed from the showers.

Chunks of about 16 MiB are read in one thread while another computes from the chunk before; HDF5 releases Python's lock while it
reads and unpacks. Beside the chunks, the table of observables takes about 2 kB a shower.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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

__all__ = [
    "Chunked",
    "Consumer",
    "ObservableColumns",
    "batches",
    "cell_statistics",
    "chunk_rows",
    "observe",
    "prefetch",
    "stream",
]


_CHUNK_BYTES = 16 * 2**20
_MOST_ROWS = 4096
_MOST_HITS = 1_000_000  # in a batch, about 200 bytes each


def prefetch(chunks: Iterator[Showers]) -> Generator[Showers, None, None]:
    """Iterate over chunks; another thread reads the next one while a chunk is used. Its errors are raised here."""
    with ThreadPoolExecutor(1, "read showers") as pool:
        ahead = pool.submit(next, chunks, None)
        while (chunk := ahead.result()) is not None:
            ahead = pool.submit(next, chunks, None)
            yield chunk


def chunk_rows(detector: Detector) -> int:
    """Return how many showers make a chunk of about 16 MiB."""
    return int(np.clip(_CHUNK_BYTES // (4 * detector.n_cells), 1, _MOST_ROWS))


def batches(
    chunks: Iterable[Showers], threshold: float = 0.1, cut: float | None = None
) -> Generator[ShowerBatch, None, None]:
    """Cut chunks into batches of a bounded number of hits, so that memory is bounded for filled showers, too.

    Arguments:
        chunks: Showers of one detector.
        threshold: See :class:`ObservableColumns`.
        cut: See :class:`ObservableColumns`.
    """
    hits = np.inf  # a shower, estimated from the batch before
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            rows = max(1, int(_MOST_HITS / max(min(hits, chunk.detector.n_cells), 1.0)))
            batch = ShowerBatch(chunk[start : start + rows], threshold, cut)
            hits = 1.5 * len(batch.energy) / batch.n
            start += batch.n
            yield batch


class Consumer(Protocol):
    """Something computed from showers while they are read."""

    def add(self, batch: ShowerBatch) -> None:
        """Take the next showers of the source, in order."""
        ...


class Chunked(Protocol):
    """Showers in chunks."""

    @property
    def detector(self) -> Detector: ...  # noqa: D102

    def chunks(self, size: int | None = None) -> Iterator[Showers]: ...  # noqa: D102


def stream(
    source: Chunked,
    consumers: Sequence[Consumer],
    threshold: float = 0.1,
    cut: float | None = None,
    chunk_size: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Read a source once, in chunks, and pass every batch of showers to each consumer.

    Arguments:
        source: Showers in memory or in a file.
        consumers: Each sees all showers, in order.
        threshold: See :class:`ObservableColumns`.
        cut: See :class:`ObservableColumns`.
        chunk_size: Showers a chunk; about 16 MiB of cells when None.
        advance: Called with the number of showers of each finished batch.

    Raises:
        InputError: When a cell is NaN, infinite or negative.
    """
    with closing(prefetch(source.chunks(chunk_size or chunk_rows(source.detector)))) as chunks:
        for batch in batches(chunks, threshold, cut):
            for consumer in consumers:
                consumer.add(batch)
            if advance is not None:
                advance(batch.n)


class ObservableColumns:
    """Consumer that fills the table of observables.

    Arguments:
        detector: The detector.
        n: Number of showers that will be read.
        observables: Names; all when None. Those that do not apply to the detector are noted in the table's ``skipped``.
        threshold: Energy above which a cell counts as a hit, MeV.
        cut: Cells below it are empty for every observable, MeV; the detector's ``evaluation_cut`` when None.

    Raises:
        UnknownNameError: When there is no such observable.
    """

    def __init__(
        self,
        detector: Detector,
        n: int,
        observables: Sequence[str] | None = None,
        threshold: float = 0.1,
        cut: float | None = None,
    ) -> None:
        wanted = {name: OBSERVABLES[name] for name in (observables or OBSERVABLES.names())}
        self._skipped = {name: x.why_not(detector) for name, x in wanted.items() if not x.applies(detector)}
        self._used = {name: entry for name, entry in wanted.items() if name not in self._skipped}
        self._detector, self._threshold = detector, threshold
        self._cut = detector.evaluation_cut if cut is None else cut
        self._energy, self._theta = np.empty(n), np.empty(n)
        self._columns: dict[str, NDArray[np.generic]] = {}
        self._sums = CellSums(detector)
        self._start = 0

    def add(self, batch: ShowerBatch) -> None:
        """Compute the observables of the next showers."""
        rows = slice(self._start, self._start + batch.n)
        self._energy[rows], self._theta[rows] = batch.showers.incident_energy, batch.theta
        for name, entry in self._used.items():
            values = entry.compute(batch)
            if name not in self._columns:
                self._columns[name] = _column(entry, self._detector, len(self._energy), values)
            self._columns[name][rows] = values
        self._sums.add(batch)
        self._start += batch.n

    def table(self) -> ObservableTable:
        """Return the table of all showers."""
        statistics = self._sums.result()
        return ObservableTable(
            detector=self._detector,
            values={name: self._columns[name] for name in self._used},
            incident_energy=self._energy,
            incident_theta=self._theta,
            threshold=self._threshold,
            cut=self._cut,
            statistics=lambda: statistics,
            skipped=self._skipped,
        )


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
        observables: See :class:`ObservableColumns`.
        threshold: See :class:`ObservableColumns`.
        cut: See :class:`ObservableColumns`.
        chunk_size: Showers a chunk; about 16 MiB of cells when None.
        label: Shown with a progress bar on a terminal; none when empty.

    Raises:
        UnknownNameError: When there is no such observable.
        TooFewShowersError: When there are no showers.
        InputError: When a cell is NaN, infinite or negative.
    """
    if len(source) == 0:
        msg = f"no showers of '{source.detector.name}' to observe"
        raise TooFewShowersError(msg)
    columns = ObservableColumns(source.detector, len(source), observables, threshold, cut)
    with progress(len(source), label, None if label else False) as advance:
        stream(source, [columns], threshold, cut, chunk_size, advance)
    return columns.table()


def _column(entry: Observable, detector: Detector, n: int, first: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return an empty column for an observable, from its values of the first batch."""
    if entry.counts:
        kind: type[np.generic] = np.uint16 if detector.n_cells <= np.iinfo(np.uint16).max else np.uint32
    else:
        kind = np.float64 if entry.is_scalar else np.float32
    return np.empty((n, *first.shape[1:]), kind)


def cell_statistics(
    source: Chunked, cut: float | None = None, chunk_size: int | None = None
) -> CellStatistics:
    """Return mean, standard deviation and occupancy of every cell in one streaming pass."""
    sums = CellSums(source.detector)
    stream(source, [sums], cut=cut, chunk_size=chunk_size)
    return sums.result()
