r"""Distances between one-dimensional distributions: Kolmogorov-Smirnov and Wasserstein-1.

With distribution functions :math:`F` (reference) and :math:`G` (generated),

.. math:: D = \max_x |F(x) - G(x)|, \qquad W_1 = \int |F(x) - G(x)|\, dx .

Values come from SciPy. The uncertainty is the spread over bootstrap samples of both sides, the floor that
of pairs of halves of the reference (:mod:`caloforge.statistics.resampling`); both reuse one sorting through weighted distribution functions.
:math:`W_1` is given in units of the reference's standard deviation, the raw one (in the observable's
unit) in its detail. A bootstrap spread of :math:`D` is an estimate; near zero it is on the large side.

References:
    A. Ramdas, N. Garcia Trillos, M. Cuturi, On Wasserstein two-sample testing, Entropy 19 (2017) 47.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.statistics.resampling import bootstrap_counts, floor_at, half_masks, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Column, finite_columns

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["DistributionDistances", "distances_of", "ks_test", "wasserstein", "weighted_distances"]

_BLOCK = 1 << 22  # numbers held at once
_EXACT = 100  # showers a side up to which SciPy's exact p-value is quick


def ks_test(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the two-sample Kolmogorov-Smirnov statistic and its p-value.

    Arguments:
        reference: Values (N,).
        generated: Values (M,).
    """
    from scipy.stats import ks_2samp

    a, b = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    method = "exact" if max(a.size, b.size) <= _EXACT else "asymp"
    result = ks_2samp(a, b, method=method)
    return float(result.statistic), float(result.pvalue)


def wasserstein(reference: ArrayLike, generated: ArrayLike) -> float:
    """Return the Wasserstein-1 distance of values (N,) and (M,), in their unit."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(reference, generated))


def weighted_distances(
    values: NDArray[np.float64], weights: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both distances for many weightings of the same values.

    Arguments:
        values: Values of both sides (N,).
        weights: Signed weights (N, S): those of the reference sum to 1, those of the other side to -1.

    Returns:
        The Kolmogorov-Smirnov statistics (S,) and the Wasserstein-1 distances (S,).
    """
    order = np.argsort(values, kind="stable")
    x = values[order]
    last = np.append(np.diff(x) > 0, True)  # a distribution function is read off behind equal values
    gaps = np.append(np.diff(x), 0.0)
    ks, w1 = [], []
    size = max(1, _BLOCK // len(x))
    for start in range(0, weights.shape[1], size):
        difference = np.abs(np.cumsum(weights[order, start : start + size], axis=0, dtype=np.float64))
        ks.append(difference[last].max(axis=0))
        w1.append(gaps @ difference)
    return np.concatenate(ks), np.concatenate(w1)


class _Repeats:
    """Weights of bootstrap samples and halves, kept from one column to the next of the same lengths."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sizes = (0, 0)
        self._boot = self._floor = np.empty((0, 0), np.float32)

    def _prepare(self, n: int, m: int) -> None:
        if (n, m) == self._sizes:
            return
        s, self._sizes = self._settings, (n, m)
        a = bootstrap_counts(n, s.n_bootstrap, s.seed, "reference").T / np.float32(n)
        b = bootstrap_counts(m, s.n_bootstrap, s.seed, "generated").T / np.float32(-m)
        self._boot = np.concatenate([a, b]).astype(np.float32)
        first, second = half_masks(n, s.n_halves if n > 3 else 0, s.seed)
        self._floor = ((first.astype(np.float32) - second) / np.float32(max(1, n // 2))).T

    def of(self, column: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return both distances (2, S) of the bootstrap samples and (2, H) of the halves."""
        a, b = column.reference, column.generated
        self._prepare(a.size, b.size)
        boot = weighted_distances(np.concatenate([a, b]), self._boot)
        if self._floor.shape[1] == 0:
            return np.stack(boot), np.empty((2, 0))
        return np.stack(boot), np.stack(weighted_distances(a, self._floor))


def distances_of(columns: Iterable[Column], settings: Settings) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return the Kolmogorov-Smirnov statistics and the scaled Wasserstein distances of columns, by name."""
    repeats = _Repeats(settings)
    ks: dict[str, Value] = {}
    w1: dict[str, Value] = {}
    for column in columns:
        if column.reason:
            missing = Value(float("nan"), detail={"reason": column.reason, **column.counts})
            ks[column.name] = w1[column.name] = missing
            continue
        boot, floor = repeats.of(column)
        statistic, p = ks_test(column.reference, column.generated)
        below = floor_at(floor[0], column.reference.size, column.generated.size, degree=1)
        detail = {"statistic": statistic, "p": p, **below.detail, **column.counts}
        ks[column.name] = Value(statistic, spread(boot[0]), below.value, below.uncertainty, detail)
        w1[column.name] = _scaled(column, boot[1], floor[1])
    return ks, w1


class DistributionDistances(Metric):
    """Kolmogorov-Smirnov statistic (p-value ``p`` in the detail) and Wasserstein-1 distance by observable."""

    name: ClassVar[str] = "distances"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("ks", "Kolmogorov-Smirnov", 0.0, by="observable"),
        Key("wasserstein", "Wasserstein-1", 0.0, by="observable"),
    )

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``ks`` and ``wasserstein``; the latter over the reference's deviation, ``raw`` in the detail."""
        ks, w1 = distances_of(finite_columns(reference, generated), settings)
        return {"ks": ks, "wasserstein": w1}


def _scaled(column: Column, boot: NDArray[np.float64], floor: NDArray[np.float64]) -> Value:
    """Return the Wasserstein distance in units of the reference's standard deviation."""
    raw, scale = wasserstein(column.reference, column.generated), float(column.reference.std())
    detail = {"raw": raw, "scale": scale, **column.counts}
    if scale == 0.0:
        reason = "constant in the reference: only the raw distance can be said"
        return Value(0.0 if raw == 0.0 else float("nan"), detail={**detail, "reason": reason})
    below = floor_at(floor / scale, column.reference.size, column.generated.size, degree=1)
    return Value(
        raw / scale, spread(boot / scale), below.value, below.uncertainty, {**detail, **below.detail}
    )
