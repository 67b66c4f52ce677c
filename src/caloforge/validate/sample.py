"""A sample: showers with a label, their observables computed once, and reproducible parts of them.

Halves and other parts are views: they hold the indices of their showers, take their observables from the
rows of the whole sample's table, and read cells only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import Showers, ShowerSource
from caloforge.validate.observables import ObservableTable, cell_statistics, observe
from caloforge.validate.observables.streaming import chunk_rows

__all__ = ["Sample"]


class Sample:
    """Showers to be compared.

    Arguments:
        source: Showers in memory or in a file.
        label: What tables and figures call them.
        threshold: Energy above which a cell counts as a hit, MeV.
        cut: Cells below it are empty for every observable, MeV; the detector's ``evaluation_cut`` when None, which
            is that of the CaloChallenge's evaluation for its meshes and 0 for all others.

    Raises:
        TooFewShowersError: When there are no showers.
    """

    def __init__(
        self, source: ShowerSource, label: str, threshold: float = 0.1, cut: float | None = None
    ) -> None:
        if len(source) == 0:
            msg = f"'{label}' holds no showers; expected at least one"
            raise TooFewShowersError(msg)
        self.source = source
        self.label = label
        self.threshold = threshold
        self.cut = source.detector.evaluation_cut if cut is None else cut
        self._parent: Sample | None = None
        self._rows: NDArray[np.int64] | None = None

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

    # -- conditions --------------------------------------------------------------------------------------

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

    @property
    def provenance(self) -> dict[str, Any]:
        """What is known of the showers' making, for a report."""
        attributes: Mapping[str, Any] = self.source.attributes
        path = getattr(self.source, "path", None)
        return {
            "label": self.label,
            "path": None if path is None else str(path),
            "n": self.n,
            "detector": self.detector.name,
            "particle": self.source.particle,
            "source": self.source.source,
            "seed": self.source.seed,
            "attributes": dict(attributes),
        }

    # -- observables -------------------------------------------------------------------------------------

    @cached_property
    def observables(self) -> ObservableTable:
        """Every observable of the showers, computed once."""
        if self._parent is None:
            return observe(self.source, threshold=self.threshold, cut=self.cut, label=self.label)
        return self._parent.observables.take(self.rows, lambda: cell_statistics(self, self.cut))

    # -- showers -----------------------------------------------------------------------------------------

    def take(self, n: int, seed: int = 0) -> Showers:
        """Return ``n`` showers in memory, the same ones for the same seed; all of them when there are not more.

        Arguments:
            n: How many at most.
            seed: Which.
        """
        return self.source.take(self.rows[self.choose(n, seed)])

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

        Arguments:
            rows: Positions in this sample (K,), or a mask (n,).
            label: Its label; this sample's when None.
        """
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else np.sort(chosen)
        if len(chosen) == 0:
            msg = f"a part of '{self.label}' holds no showers; expected at least one"
            raise TooFewShowersError(msg)
        if chosen[0] < 0 or chosen[-1] >= self.n:
            msg = f"a part of '{self.label}' asks for showers {chosen[0]} to {chosen[-1]}; it has {self.n}"
            raise InputError(msg)
        view = Sample(self.source, label or self.label, self.threshold, self.cut)
        view._parent = self._parent or self
        view._rows = self.rows[chosen]
        return view

    def halves(self, seed: int = 0, index: int = 0) -> tuple[Sample, Sample]:
        """Return two disjoint random halves, each of n // 2 showers.

        Arguments:
            seed: Which halves.
            index: Number of the split, for repeated halves of one seed.

        Raises:
            TooFewShowersError: When there are fewer than two showers.
        """
        if self.n < 2:
            msg = f"'{self.label}' holds {self.n} shower; halves need at least 2"
            raise TooFewShowersError(msg)
        order = generator(seed, "halves", index).permutation(self.n)
        size = self.n // 2
        return self.part(order[:size]), self.part(order[size : 2 * size])
