"""One pass over a source in bounded memory, and the table of observables that it fills.

Chunks of about 16 MiB are read in one thread while another computes from the chunk before; HDF5 releases Python's lock while it
reads and unpacks. Beside the chunks, the table of observables takes about 2 kB a shower.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError, UnknownNameError
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.showers import Showers, ShowerSource
from caloforge.validate.observables.base import OBSERVABLES, Observable
from caloforge.validate.observables.batch import CellStatistics, CellSums, ShowerBatch

__all__ = [
    "Consumer",
    "Histogram",
    "ObservableColumns",
    "ObservableTable",
    "batches",
    "cell_statistics",
    "chunk_rows",
    "observe",
    "prefetch",
    "stream",
]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Entries (k,) of all showers between edges (k + 1,), below the first and from the last edge on.

    The errors (k,) are from the variance between showers, since cells of a shower are correlated.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    errors: NDArray[np.float64]
    underflow: float
    overflow: float


@dataclass(frozen=True, eq=False)
class ObservableTable:
    """Observables of N showers.

    Arguments:
        detector: Geometry of the showers.
        values: Name to (N,) float64 or (N, k) float32; histograms of cells are unsigned integers (N, k + 2).
        incident_energy: (N,) MeV.
        incident_theta: (N,) degrees.
        threshold: Energy above which a cell was counted as hit, MeV.
        cut: Cells below it were taken as empty, MeV.
        skipped: Observables that do not apply to the detector, each with the reason.
        statistics: Returns the cells' statistics of the same showers.
    """

    detector: Detector
    values: Mapping[str, NDArray[np.generic]]
    incident_energy: NDArray[np.float64]
    incident_theta: NDArray[np.float64]
    threshold: float
    cut: float
    statistics: Callable[[], CellStatistics]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.incident_energy)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Return an observable (N,) or (N, k), in float64.

        Raises:
            UnknownNameError: When there is no such observable in the table; says why it was skipped.
        """
        if name not in self.values:
            if name in self.skipped:
                msg = f"observable '{name}' does not apply: {self.skipped[name]}"
                raise InputError(msg)
            raise UnknownNameError("observable", name, self.names)
        return self.values[name].astype(np.float64, copy=False)

    @property
    def names(self) -> list[str]:
        """Names of the observables in the table."""
        return list(self.values)

    def take(
        self, rows: ArrayLike, statistics: Callable[[], CellStatistics] | None = None
    ) -> ObservableTable:
        """Return the table of some rows, indices (K,) or a mask (N,); without ``statistics`` those of the cells are not available."""
        chosen = np.asarray(rows)

        def unknown() -> CellStatistics:
            msg = "the statistics of all cells are not kept by shower; take a subset of the Sample instead"
            raise InputError(msg)

        return replace(
            self,
            values={name: values[chosen] for name, values in self.values.items()},
            incident_energy=self.incident_energy[chosen],
            incident_theta=self.incident_theta[chosen],
            statistics=statistics or unknown,
        )

    @cached_property
    def histograms(self) -> dict[str, Histogram]:
        """Spectra of cells over the whole sample, by name."""
        return {name: self._histogram(name) for name in self.values if OBSERVABLES[name].counts}

    def _histogram(self, name: str) -> Histogram:
        counts = self.values[name]
        n = len(self)
        total = counts.sum(axis=0, dtype=np.float64)
        squares = np.zeros_like(total)
        for start in range(0, n, 4096):
            block = counts[start : start + 4096].astype(np.float64)
            squares += np.einsum("nk,nk->k", block, block)
        errors = np.sqrt(np.maximum(squares - total**2 / max(n, 1), 0.0))
        edges = OBSERVABLES[name].edges(self.detector)
        assert edges is not None
        return Histogram(edges, total[1:-1], errors[1:-1], float(total[0]), float(total[-1]))

    @cached_property
    def cells(self) -> CellStatistics:
        """Mean, standard deviation and occupancy of every cell; another pass over the data for subsets."""
        return self.statistics()


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
    """Cut chunks of showers into batches of a bounded number of hits, so that memory is bounded for filled showers, too."""
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
    def detector(self) -> Detector: ...

    def chunks(self, size: int | None = None) -> Iterator[Showers]: ...


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
        threshold, cut: See :class:`ObservableColumns`.
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
        detector: Geometry of the showers.
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
        self._skipped = {name: reason for name, x in wanted.items() if (reason := x.rule(detector))}
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
        self._energy[rows] = batch.showers.incident_energy
        self._theta[rows] = batch.showers.incident_theta
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
        observables, threshold, cut: See :class:`ObservableColumns`.
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
