"""The observables of a sample, as a table of one row a shower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, UnknownNameError
from caloforge.geometry import Detector
from caloforge.validate.observables.base import OBSERVABLES, Observable
from caloforge.validate.observables.batch import CellStatistics
from caloforge.validate.observables.energies import tracked_cells

__all__ = ["Histogram", "ObservableTable", "correlation", "layer_correlation", "observable_correlation"]


@dataclass(frozen=True, eq=False)
class Histogram:
    """A spectrum over a sample; entries outside its range are counted, not dropped.

    Attributes:
        edges: (k + 1,).
        counts: (k,) entries of all showers.
        errors: (k,) one standard deviation: the spread between showers, since cells of a shower go together.
        underflow: Entries below the first edge.
        overflow: Entries at or above the last edge.
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

    @staticmethod
    def describe(name: str) -> Observable:
        """Return what an observable is: its label, unit, axis."""
        return OBSERVABLES[name]

    def edges(self, name: str) -> NDArray[np.float64] | None:
        """Return the bin edges (k + 1,) along an observable's axis; None for one number a shower."""
        return OBSERVABLES[name].edges(self.detector)

    def columns(self, names: Sequence[str] | None = None) -> tuple[list[str], NDArray[np.float64]]:
        """Return observables side by side, those with k values a shower as ``name[0]`` to ``name[k-1]``.

        Arguments:
            names: Which; all that give one number a shower when None.

        Returns:
            Names (K,) and values (N, K), NaN where undefined.
        """
        labels: list[str] = []
        parts: list[NDArray[np.float64]] = []
        for name in self.scalars if names is None else names:
            values = self[name]
            labels += [name] if values.ndim == 1 else [f"{name}[{k}]" for k in range(values.shape[1])]
            parts.append(values.reshape(len(self), -1))
        return labels, np.concatenate(parts, axis=1) if parts else np.empty((len(self), 0))

    def take(
        self, rows: ArrayLike, statistics: Callable[[], CellStatistics] | None = None
    ) -> ObservableTable:
        """Return the table of some rows.

        Arguments:
            rows: Indices (K,) or a mask (N,).
            statistics: Returns the cells' statistics of those rows; without it they cannot be had.
        """
        chosen = np.asarray(rows)

        def unknown() -> CellStatistics:
            msg = "the statistics of all cells are not kept by shower; take a subset of the Sample instead"
            raise InputError(msg)

        return ObservableTable(
            detector=self.detector,
            values={name: values[chosen] for name, values in self.values.items()},
            incident_energy=self.incident_energy[chosen],
            incident_theta=self.incident_theta[chosen],
            threshold=self.threshold,
            cut=self.cut,
            statistics=statistics or unknown,
            skipped=self.skipped,
        )

    @cached_property
    def n_empty(self) -> int:
        """Number of showers without any energy above the cut."""
        return int((self["visible_energy"] == 0).sum()) if "visible_energy" in self else 0

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
        edges = self.edges(name)
        assert edges is not None
        return Histogram(edges, total[1:-1], errors[1:-1], float(total[0]), float(total[-1]))

    @cached_property
    def cells(self) -> CellStatistics:
        """Mean, spread and occupancy of every cell; another pass over the data for subsets."""
        return self.statistics()

    @property
    def cell_mean(self) -> NDArray[np.float64]:
        """Mean energy of every cell (n_cells,), MeV."""
        return self.cells.mean

    @property
    def cell_std(self) -> NDArray[np.float64]:
        """Standard deviation of every cell (n_cells,), MeV."""
        return self.cells.std

    @property
    def cov_cells(self) -> NDArray[np.int64]:
        """Flat indices (k,) of the cells of :attr:`cell_cov`: all of a small detector, else the core."""
        return tracked_cells(self.detector)

    @cached_property
    def cell_cov(self) -> NDArray[np.float64]:
        """Covariance matrix (k, k) of the tracked cells, MeV2."""
        return np.atleast_2d(np.cov(self["core_cells"], rowvar=False, bias=True))


def correlation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation matrix of columns.

    Arguments:
        values: (N, K); rows with a NaN are left out.

    Returns:
        (K, K); NaN in the rows and columns of constants, 1 on the rest of the diagonal.
    """
    good = values[np.isfinite(values).all(axis=1)]
    if len(good) < 2:
        return np.full((values.shape[1], values.shape[1]), np.nan)
    offset = good - good.mean(axis=0)
    scale = np.sqrt((offset**2).mean(axis=0))
    scale[scale <= 1e-12 * np.abs(good).max(axis=0)] = np.nan  # constant up to rounding
    unit = offset / scale
    return np.asarray(np.clip(unit.T @ unit / len(good), -1.0, 1.0))


def layer_correlation(table: ObservableTable) -> NDArray[np.float64]:
    """Return the correlation of the layers' energies (n_layers, n_layers)."""
    return correlation(table["layer_energy"])


def observable_correlation(
    table: ObservableTable, names: Sequence[str] | None = None
) -> tuple[list[str], NDArray[np.float64]]:
    """Return the correlation of observables.

    Arguments:
        table: The observables.
        names: Which; all that give one number a shower when None.

    Returns:
        Names (K,) and matrix (K, K).
    """
    labels, values = table.columns(names)
    return labels, correlation(values)
