r"""Histogram density of observables, its number of bins by cross-validation.

Each of the k observables is cut into m equal bins over the range of the showers. With B = m^k bins of volume V, N
showers of which :math:`n_b` lie in bin b,

.. math:: \hat p_b = \frac{n_b + \alpha}{(N + \alpha B) \, V}, \qquad \alpha = 1/B

one more shower spread over all bins, so that no bin inside the range has zero likelihood. The number m maximises the
likelihood of held-out showers in five folds; the range is that of all showers, in every fold.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.models.baselines.base import DensityEstimator, folds, table, training_table
from caloforge.random import uniforms

__all__ = ["HistogramDensity"]

_BINS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
_MOST = 2**40
"""Most bins of all dimensions together."""


class HistogramDensity(DensityEstimator):
    """Equal bins in each observable.

    Arguments:
        bins: Numbers of bins an observable to try.
        n_folds: Folds of the cross-validation.

    Attributes:
        n_bins: The chosen number of bins an observable.
    """

    def __init__(self, bins: tuple[int, ...] = _BINS, n_folds: int = 5) -> None:
        self.bins, self.n_folds = bins, n_folds
        self.n_bins = 0

    def fit(self, values: ArrayLike, seed: int = 0) -> Self:
        """Choose the number of bins and count all showers."""
        array = training_table(values)
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
        self._counts = self._flat(array, self.n_bins)
        return self

    def _flat(self, array: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
        """Return the flat bin (N,) of observables (N, k), those beyond the range in the nearest."""
        index = np.clip(((array - self._low) / self._span * bins).astype(np.int64), 0, bins - 1)
        flat: NDArray[np.int64] = index @ (bins ** np.arange(array.shape[1], dtype=np.int64))
        return flat

    def sample(self, n: int, seed: int = 0, start: int = 0) -> NDArray[np.float64]:
        """Draw a bin, then a point in it."""
        k, m = len(self._low), self.n_bins
        u = uniforms(seed, "histogram", start, n, 1 + 2 * k)
        count = len(self._counts)
        chosen = np.floor(u[:, 0] * (count + 1)).astype(
            np.int64
        )  # the last stands for the shower spread over all
        flat = self._counts[np.minimum(chosen, count - 1)]
        index = flat[:, None] // m ** np.arange(k, dtype=np.int64) % m
        anywhere = np.floor(u[:, 1 + k :] * m).astype(np.int64)
        index = np.where(chosen[:, None] == count, anywhere, index)
        drawn: NDArray[np.float64] = self._low + self._span * (index + u[:, 1 : 1 + k]) / m
        return drawn

    def log_prob(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return ln of the density (N,); -inf outside the range."""
        k = len(self._low)
        array = table(values, k)
        inside = ((array >= self._low) & (array <= self._low + self._span)).all(axis=1)
        volume = np.log(self._span / self.n_bins).sum()
        log_density = _log_counts(self._counts, self._flat(array, self.n_bins), self.n_bins**k) - volume
        return np.where(inside, log_density, -np.inf)


def _log_counts(train: NDArray[np.int64], test: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    """Return ln of the probability (N,) of the bins of test showers, given those of training showers."""
    known, counts = np.unique(train, return_counts=True)
    where = np.minimum(np.searchsorted(known, test), len(known) - 1)
    found = np.where(known[where] == test, counts[where], 0)
    log_probability: NDArray[np.float64] = np.log((found + 1.0 / bins) / (len(train) + 1.0))
    return log_probability
