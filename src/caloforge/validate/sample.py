"""A sample: showers with a label, their observables computed once, and reproducible parts of them.

Halves and other parts are views: they hold the indices of their showers, take their observables from the
rows of the whole sample's table, and read cells only on demand.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import Showers, ShowerSource
from caloforge.validate.observables import ObservableTable, cell_statistics, observe
from caloforge.validate.observables.batch import ShowerBatch
from caloforge.validate.observables.streaming import chunk_rows

__all__ = ["KeptCells", "Sample"]


class KeptCells:
    """Consumer that keeps the cells of some showers of a pass, sparse where that takes less memory.

    ``rows``: (K,) positions of the showers, increasing.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = rows
        self._start = 0
        self._blocks: list[tuple[tuple[int, int], NDArray[np.uint32] | None, NDArray[np.float32]]] = []

    def add(self, batch: ShowerBatch) -> None:
        """Keep the chosen ones of the next showers."""
        first, last = np.searchsorted(self.rows, (self._start, self._start + batch.n))
        cells = batch.showers.cells
        if last - first < batch.n:
            cells = cells[self.rows[first:last] - self._start]
        self._start += batch.n
        flat = np.ascontiguousarray(cells).reshape(-1)
        index = np.flatnonzero(flat)
        if 2 * len(index) < len(flat) < 2**32:
            self._blocks.append((cells.shape, index.astype(np.uint32), flat[index]))
        else:
            self._blocks.append((cells.shape, None, flat))

    def cells(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """Return the cells (last - first, n_cells) of the kept showers from ``first`` to before ``last``, MeV."""
        parts, start = [], 0
        last = len(self.rows) if last is None else last
        for (n, n_cells), index, values in self._blocks:
            if start < last and first < start + n:
                flat = values
                if index is not None:
                    flat = np.zeros(n * n_cells, np.float32)
                    flat[index] = values
                parts.append(flat.reshape(n, n_cells)[max(first - start, 0) : last - start])
            start += n
        return np.concatenate(parts)


class Sample:
    """Showers in memory or in a file, to be compared.

    Arguments:
        label: What tables and figures call them.
        threshold: Energy above which a cell counts as a hit, MeV.
        cut: Cells below it are empty for every observable, MeV; the detector's ``evaluation_cut`` when None, which
            is that of the CaloChallenge's evaluation for its meshes and 0 for all others.

    Attributes:
        memo: Results that are kept as long as the sample, by a key of the code that computes them.

    Raises:
        TooFewShowersError: When there are no showers.
    """

    def __init__(
        self, source: ShowerSource, label: str, threshold: float = 0.1, cut: float | None = None
    ) -> None:
        if len(source) == 0:
            msg = f"'{label}' has no showers; expected at least one"
            raise TooFewShowersError(msg)
        self.source = source
        self.label = label
        self.threshold = threshold
        self.cut = source.detector.evaluation_cut if cut is None else cut
        self.memo: dict[tuple[object, ...], Any] = {}
        self._parent: Sample | None = None
        self._rows: NDArray[np.int64] | None = None
        self._kept: tuple[tuple[int, int], KeptCells] | None = None

    def copy(self) -> Sample:
        """Return the same sample, to which results can be added that this one does not get."""
        other = copy(self)
        other.memo = dict(self.memo)
        return other

    def __len__(self) -> int:
        return len(self.source) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Sample({self.label!r}, n={self.n}, detector={self.detector.name!r})"

    @property
    def n(self) -> int:
        """Number of showers."""
        return len(self)

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.source.detector

    @property
    def rows(self) -> NDArray[np.int64]:
        """Indices (n,) of the showers in the source, increasing."""
        return np.arange(len(self.source)) if self._rows is None else self._rows

    @cached_property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (n,), MeV."""
        return self._of_rows(self.source.incident_energy)

    @cached_property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (n,), degrees; 90 where the showers do not say."""
        return self._of_rows(self.source.incident_theta)

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (n, k); also "incident_energy" (MeV) and "incident_theta" (degrees)."""
        return self._of_rows(self.source.condition(name))

    def _of_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._rows is None else values[self._rows]

    @cached_property
    def observables(self) -> ObservableTable:
        """Every observable of the showers, computed once."""
        if self._parent is None:
            return observe(self.source, threshold=self.threshold, cut=self.cut, label=self.label)
        return self._parent.observables.take(self.rows, lambda: cell_statistics(self, self.cut))

    def keep(self, n: int, seed: int = 0) -> KeptCells:
        """Return the consumer that keeps the cells of the showers that :meth:`take` will return first."""
        self._kept = (n, seed), KeptCells(self.choose(n, seed))
        return self._kept[1]

    def take(self, n: int, seed: int = 0) -> Showers:
        """Return ``n`` showers in memory, the same ones for the same seed; all of them when there are not more.

        Cells kept by :meth:`keep` are returned, and no longer kept here.
        """
        if self._kept is None or self._kept[0] != (n, seed):
            return self.source.take(self.rows[self.choose(n, seed)])
        kept, self._kept = self._kept[1], None
        return self._with_conditions(kept.rows, kept.cells())

    def at(self, row: int) -> Showers:
        """Return the shower at a position (0 to n - 1), in memory."""
        if self._kept is not None:
            kept = self._kept[1]
            place = int(np.searchsorted(kept.rows, row))
            if place < len(kept.rows) and kept.rows[place] == row:
                return self._with_conditions(np.array([row]), kept.cells(place, place + 1))
        return self.source.take(self.rows[[row]])

    def _with_conditions(self, rows: NDArray[np.int64], cells: NDArray[np.float32]) -> Showers:
        source, energy = self.source, self.incident_energy[rows]
        theta = self.incident_theta[rows] if source.has_theta else None
        conditions = {name: self.condition(name)[rows] for name in source.condition_names}
        facts = source.particle, source.source, source.seed, source.attributes
        return Showers(self.detector, cells, energy, theta, conditions, *facts, seen=source.seen)

    def choose(self, n: int, seed: int = 0) -> NDArray[np.int64]:
        """Return the positions (at most n,), increasing, of the showers that :meth:`take` returns."""
        if n >= self.n:
            return np.arange(self.n)
        return np.sort(generator(seed, "sample").choice(self.n, size=n, replace=False))

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over the showers in order, ``size`` at a time (about 16 MiB of cells when None)."""
        size = size or chunk_rows(self.detector)
        if self._rows is None:
            yield from self.source.chunks(size)
            return
        for start in range(0, self.n, size):
            yield self.source.take(self._rows[start : start + size])

    def part(self, rows: ArrayLike, label: str | None = None) -> Sample:
        """Return a view of some showers.

        ``rows``: positions in this sample (K,), or a mask (n,); ``label``: its label; this sample's when None.
        """
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else np.sort(chosen)
        if len(chosen) == 0:
            msg = f"a part of '{self.label}' has no showers; expected at least one"
            raise TooFewShowersError(msg)
        if chosen[0] < 0 or chosen[-1] >= self.n:
            msg = f"a part of '{self.label}' needs showers {chosen[0]} to {chosen[-1]}; it has {self.n}"
            raise InputError(msg)
        view = Sample(self.source, label or self.label, self.threshold, self.cut)
        view._parent = self._parent or self
        view._rows = self.rows[chosen]
        return view

    def halves(self, seed: int = 0, index: int = 0) -> tuple[Sample, Sample]:
        """Return two disjoint random halves, each of n // 2 showers.

        Arguments:
            index: Number of the split, for repeated halves of one seed.

        Raises:
            TooFewShowersError: When there are fewer than two showers.
        """
        if self.n < 2:
            msg = f"'{self.label}' has {self.n} shower; halves need at least 2"
            raise TooFewShowersError(msg)
        order = generator(seed, "halves", index).permutation(self.n)
        size = self.n // 2
        return self.part(order[:size]), self.part(order[size : 2 * size])
