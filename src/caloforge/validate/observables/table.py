"""The observables of a sample, as a table of one row a shower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, UnknownNameError
from caloforge.geometry import Detector
from caloforge.validate.observables.base import OBSERVABLES
from caloforge.validate.observables.batch import CellStatistics

__all__ = ["Histogram", "ObservableTable"]


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
        detector: The detector.
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

    @property
    def scalars(self) -> list[str]:
        """Names of those that give one number a shower."""
        return [name for name, values in self.values.items() if values.ndim == 1]

    def take(
        self, rows: ArrayLike, statistics: Callable[[], CellStatistics] | None = None
    ) -> ObservableTable:
        """Return the table of some rows.

        Arguments:
            rows: Indices (K,) or a mask (N,).
            statistics: Returns the cells' statistics of those rows; without it they are not available.
        """
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

    @property
    def cell_mean(self) -> NDArray[np.float64]:
        """Mean energy of every cell (n_cells,), MeV."""
        return self.cells.mean

    @property
    def cell_std(self) -> NDArray[np.float64]:
        """Standard deviation of every cell (n_cells,), MeV."""
        return self.cells.std
