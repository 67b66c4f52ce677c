r"""Density estimators of N values of k quantities: histogram and kernel density, smoothed by cross-validation.

Histogram: each quantity is cut into m equal bins over the range of the values. With B = m^k bins of volume V, N values of
which :math:`n_b` lie in bin b,

.. math:: \hat p_b = \frac{n_b + \alpha}{(N + \alpha B) \, V}, \qquad \alpha = 1/B

one more value spread over all bins, so that no bin inside the range has zero likelihood. The number m maximises the
likelihood of held-out values in five folds; the range is that of all values, in every fold.

Kernel density: with quantities y in units of their standard deviations,

.. math:: \hat p(y) = \frac{1}{N} \sum_i \mathcal N(y; y_i, h^2 1)

The bandwidth h maximises the likelihood of held-out values in five folds, among 21 values from 0.1 to 10 times
Scott's :math:`N^{-1/(k+4)}`, equally spaced in their logarithm.

References:
    D. W. Scott, Multivariate density estimation (1992).
    scikit-learn, ``sklearn.neighbors.KernelDensity`` and ``GridSearchCV``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError, require
from caloforge.random import generator, normals, uniforms
from caloforge.registry import Registry

__all__ = ["ESTIMATORS", "DensityEstimator", "HistogramDensity", "KernelDensity", "folds"]

Array = NDArray[np.float64]

_LEAST = 20  # values to fit


class DensityEstimator(ABC):
    """Density of k quantities, such as E_vis, E_peak, CG_x and CG_y of a shower, estimated from N values.

    Attributes:
        label: What figures call it.
        smoothness: Chosen by cross-validation: number of bins, or bandwidth in standard deviations.
    """

    label: ClassVar[str]
    smoothness: float = 0.0

    @abstractmethod
    def fit(self, values: ArrayLike, seed: int = 0) -> Self:
        """Choose the smoothness by five-fold cross-validation and fit all values.

        Arguments:
            values: (N, k), any units; (N,) for one quantity.
            seed: Of the folds.

        Raises:
            InputError: When values are not finite or of another shape.
            TooFewShowersError: For less than 20 values.
        """

    @abstractmethod
    def sample(self, n: int, seed: int = 0, start: int = 0) -> Array:
        """Draw values (n, k); row i depends on (seed, start + i) alone."""

    @abstractmethod
    def log_prob(self, values: ArrayLike) -> Array:
        """Return ln of the density (N,) at values (N, k), in 1 over their units; -inf where it is 0."""


def _table(values: ArrayLike, columns: int | None = None, least: int = 0) -> Array:
    """Return values as (N, k), checked."""
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0 or (columns is not None and array.shape[1] != columns):
        wanted = "k" if columns is None else str(columns)
        msg = f"observables have shape {np.shape(values)}; expected (N, {wanted})"
        raise InputError(msg)
    if not np.isfinite(array).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        msg = f"observable {column} of shower {row} is {array[row, column]}; expected a finite number"
        raise InputError(msg)
    if len(array) < least:
        msg = f"{len(array)} showers are too few for a density; expected at least {least}"
        raise TooFewShowersError(msg)
    return array


def folds(n: int, k: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return k disjoint (training, held-out) index sets that cover n values, shuffled."""
    parts = np.array_split(generator(seed, "folds").permutation(n), k)
    return [(np.concatenate([*parts[:i], *parts[i + 1 :]]), parts[i]) for i in range(k)]


_BINS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
_MOST = 2**40
"""Most bins of all dimensions together."""


class HistogramDensity(DensityEstimator):
    """Equal bins in each quantity, ``n_bins`` of them, chosen among ``bins`` in ``n_folds`` folds."""

    label = "histogram"

    def __init__(self, bins: tuple[int, ...] = _BINS, n_folds: int = 5) -> None:
        self.bins, self.n_folds = bins, n_folds
        self.n_bins = 0

    def fit(self, values: ArrayLike, seed: int = 0) -> Self:
        """Choose the number of bins and count all values."""
        array = _table(values, least=_LEAST)
        n, k = array.shape
        self._low = array.min(axis=0)
        span = array.max(axis=0) - self._low
        self._span = np.where(span > 0, span, 1.0)
        scores = {}
        for bins in (m for m in self.bins if m**k <= _MOST):
            flat = self._flat(array, bins)
            parts = [
                _log_counts(flat[train], flat[held], bins**k).sum()
                for train, held in folds(n, self.n_folds, seed)
            ]
            scores[bins] = sum(parts) / n + k * np.log(bins)
        self.n_bins = max(scores, key=lambda bins: float(scores[bins]))
        self.smoothness = float(self.n_bins)
        self._counts = self._flat(array, self.n_bins)
        return self

    def _flat(self, array: Array, bins: int) -> NDArray[np.int64]:
        """Return the flat bin (N,) of values (N, k), those beyond the range in the nearest."""
        index = np.clip(((array - self._low) / self._span * bins).astype(np.int64), 0, bins - 1)
        flat: NDArray[np.int64] = index @ (bins ** np.arange(array.shape[1], dtype=np.int64))
        return flat

    def sample(self, n: int, seed: int = 0, start: int = 0) -> Array:
        """Draw a bin, then a point in it."""
        k, m = len(self._low), self.n_bins
        u = uniforms(seed, "histogram", start, n, 1 + 2 * k)
        count = len(self._counts)
        # the last stands for the value spread over all bins
        chosen = np.floor(u[:, 0] * (count + 1)).astype(np.int64)
        flat = self._counts[np.minimum(chosen, count - 1)]
        index = flat[:, None] // m ** np.arange(k, dtype=np.int64) % m
        anywhere = np.floor(u[:, 1 + k :] * m).astype(np.int64)
        index = np.where(chosen[:, None] == count, anywhere, index)
        drawn: Array = self._low + self._span * (index + u[:, 1 : 1 + k]) / m
        return drawn

    def log_prob(self, values: ArrayLike) -> Array:
        """Return ln of the density (N,); -inf outside the range."""
        k = len(self._low)
        array = _table(values, k)
        inside = ((array >= self._low) & (array <= self._low + self._span)).all(axis=1)
        volume = np.log(self._span / self.n_bins).sum()
        log_density = _log_counts(self._counts, self._flat(array, self.n_bins), self.n_bins**k) - volume
        return np.where(inside, log_density, -np.inf)


def _log_counts(train: NDArray[np.int64], test: NDArray[np.int64], bins: int) -> Array:
    """Return ln of the probability (N,) of the bins of test values, from those of training values."""
    known, counts = np.unique(train, return_counts=True)
    where = np.minimum(np.searchsorted(known, test), len(known) - 1)
    found = np.where(known[where] == test, counts[where], 0)
    log_probability: Array = np.log((found + 1.0 / bins) / (len(train) + 1.0))
    return log_probability


class KernelDensity(DensityEstimator):
    """Gaussian kernels of one width on standardised quantities.

    The width ``bandwidth``, in standard deviations, is chosen among ``n_bandwidths`` in ``n_folds`` folds.
    """

    label = "KDE"

    def __init__(self, n_bandwidths: int = 21, n_folds: int = 5) -> None:
        self.n_bandwidths, self.n_folds = n_bandwidths, n_folds
        self.bandwidth = 0.0

    def fit(self, values: ArrayLike, seed: int = 0) -> Self:
        """Choose the bandwidth and keep the values."""
        neighbours = require("sklearn.neighbors", extra="eval")
        selection = require("sklearn.model_selection", extra="eval")
        array = _table(values, least=_LEAST)
        spread = array.std(axis=0)
        self._mean, self._scale = array.mean(axis=0), np.where(spread > 0, spread, 1.0)
        self._centres = (array - self._mean) / self._scale
        n, k = array.shape
        scott = n ** (-1.0 / (k + 4))
        grid = scott * np.geomspace(0.1, 10.0, self.n_bandwidths)
        search = selection.GridSearchCV(
            neighbours.KernelDensity(rtol=1e-4), {"bandwidth": grid}, cv=folds(n, self.n_folds, seed)
        )
        search.fit(self._centres)
        self._density: Any = search.best_estimator_
        self.bandwidth = self.smoothness = float(search.best_params_["bandwidth"])
        return self

    def sample(self, n: int, seed: int = 0, start: int = 0) -> Array:
        """Draw a value of the training set and smear it."""
        count, k = self._centres.shape
        chosen = (uniforms(seed, "kde/centre", start, n, 1)[:, 0] * count).astype(np.int64)
        smeared = self._centres[chosen] + self.bandwidth * normals(seed, "kde/smear", start, n, k)
        drawn: Array = self._mean + self._scale * smeared
        return drawn

    def log_prob(self, values: ArrayLike) -> Array:
        """Return ln of the density (N,)."""
        standard = (_table(values, len(self._mean)) - self._mean) / self._scale
        log_density: Array = self._density.score_samples(standard) - np.log(self._scale).sum()
        return log_density


ESTIMATORS: Registry[type[DensityEstimator]] = Registry(
    "density estimator",
    {
        "histogram": "caloforge.statistics.density:HistogramDensity",
        "kde": "caloforge.statistics.density:KernelDensity",
    },
)
