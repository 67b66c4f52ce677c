r"""Distances between one-dimensional distributions: Kolmogorov-Smirnov and Wasserstein-1.

With distribution functions :math:`F` (reference) and :math:`G` (generated),

.. math:: D = \max_x |F(x) - G(x)|, \qquad W_1 = \int |F(x) - G(x)|\, dx .

Values come from SciPy. The uncertainty is the spread over bootstrap samples of both sides, the floor the
mean over pairs of halves of the reference; both reuse one sorting through weighted distribution functions.
:math:`W_1` is given in units of the reference's standard deviation, the raw one (in the observable's
unit) in its detail. A bootstrap spread of :math:`D` is an estimate; near zero it is on the large side.

References:
    A. Ramdas, N. Garcia Trillos, M. Cuturi, On Wasserstein two-sample testing, Entropy 19 (2017) 47.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Column, finite_columns
from caloforge.validate.metrics.resampling import bootstrap_counts, half_masks, spread

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["DistributionDistances", "ks_test", "wasserstein", "weighted_distances"]

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
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weights_a: NDArray[np.uint8],
    weights_b: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both distances for many weightings of the same values.

    Arguments:
        a: Values (N,).
        b: Values (M,).
        weights_a: Weights (S, N) of ``a``.
        weights_b: Weights (S, M) of ``b``.

    Returns:
        The Kolmogorov-Smirnov statistics (S,) and the Wasserstein-1 distances (S,).
    """
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled, kind="stable")
    x = pooled[order]
    last = np.append(np.diff(x) > 0, True)  # a distribution function is read off behind equal values
    gaps = np.append(np.diff(x), 0.0)
    ks, w1 = np.empty(len(weights_a)), np.empty(len(weights_a))
    signed = np.empty(pooled.size)
    for s, (wa, wb) in enumerate(zip(weights_a, weights_b, strict=True)):
        total_a, total_b = int(wa.sum()), int(wb.sum())
        if total_a == 0 or total_b == 0:
            ks[s] = w1[s] = np.nan
            continue
        np.divide(wa, total_a, out=signed[: a.size])
        np.divide(wb, -total_b, out=signed[a.size :])
        difference = np.abs(np.cumsum(signed[order]))
        ks[s] = difference[last].max()
        w1[s] = difference @ gaps
    return ks, w1


class _Repeats:
    """The bootstrap and half weights of two samples, made once for all columns of the same length."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cache: dict[tuple[str, int], NDArray[np.uint8]] = {}

    def _counts(self, side: str, n: int) -> NDArray[np.uint8]:
        if (side, n) not in self._cache:
            s = self._settings
            self._cache[side, n] = bootstrap_counts(n, s.n_bootstrap, s.seed, side)
        return self._cache[side, n]

    def _halves(self, n: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if ("half0", n) not in self._cache:
            pair = half_masks(n, self._settings.n_halves, self._settings.seed)
            self._cache["half0", n], self._cache["half1", n] = pair
        return self._cache["half0", n], self._cache["half1", n]

    def of(self, column: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (2, S) bootstrap and (2, H) floor values of both distances."""
        a, b = column.reference, column.generated
        boot = weighted_distances(a, b, self._counts("reference", a.size), self._counts("generated", b.size))
        first, second = self._halves(a.size)
        empty = np.empty(0)
        both = (first.astype(np.int16) - second).astype(np.int16)
        floor = _half_distances(a, both) if a.size > 3 else (empty, empty)
        return np.stack(boot), np.stack(floor)


def _half_distances(a: NDArray[np.float64], signs: NDArray[np.int16]) -> tuple[NDArray[np.float64], ...]:
    """Return both distances between the half with sign +1 and the half with sign -1, for each row."""
    order = np.argsort(a, kind="stable")
    x = a[order]
    last, gaps = np.append(np.diff(x) > 0, True), np.append(np.diff(x), 0.0)
    difference = np.abs(np.cumsum(signs[:, order], axis=1, dtype=np.int64)) / (a.size // 2)
    return difference[:, last].max(axis=1), difference @ gaps


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


class DistributionDistances(Metric):
    """Kolmogorov-Smirnov statistic (p-value ``p`` in the detail) and Wasserstein-1 distance by observable."""

    name: ClassVar[str] = "distances"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("ks", "Kolmogorov-Smirnov", 0.0, by="observable"),
        Key("wasserstein", "Wasserstein-1", 0.0, by="observable"),
    )

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``ks`` and ``wasserstein``; the latter over the reference's deviation, ``raw`` in the detail."""
        repeats = _Repeats(settings)
        ks: dict[str, Value] = {}
        w1: dict[str, Value] = {}
        for column in finite_columns(reference, generated):
            if column.reason:
                missing = Value(float("nan"), detail={"reason": column.reason, **column.counts})
                ks[column.name] = w1[column.name] = missing
                continue
            boot, floor = repeats.of(column)
            statistic, p = ks_test(column.reference, column.generated)
            detail = {"statistic": statistic, "p": p, **column.counts}
            ks[column.name] = Value(statistic, spread(boot[0]), _mean(floor[0]), spread(floor[0]), detail)
            w1[column.name] = _scaled(column, boot[1], floor[1])
        return {"ks": ks, "wasserstein": w1}


def _scaled(column: Column, boot: NDArray[np.float64], floor: NDArray[np.float64]) -> Value:
    """Return the Wasserstein distance in units of the reference's standard deviation."""
    raw, scale = wasserstein(column.reference, column.generated), float(column.reference.std())
    detail = {"raw": raw, "scale": scale, **column.counts}
    if scale == 0.0:
        reason = "constant in the reference: only the raw distance can be said"
        return Value(0.0 if raw == 0.0 else float("nan"), detail={**detail, "reason": reason})
    low, up = boot / scale, floor / scale
    return Value(raw / scale, spread(low), _mean(up), spread(up), detail)
