r"""Distances between samples of one quantity: Kolmogorov-Smirnov, Wasserstein, separation power, quantile divergence; of profiles and covariances.

With distribution functions :math:`F` and :math:`G`,

.. math:: D = \max_x |F(x) - G(x)|, \qquad W_1 = \int |F(x) - G(x)|\, dx .

With histograms :math:`p` (reference) and :math:`q` of unit sum the separation power and the Jensen-Shannon divergence are

.. math:: S = \frac12 \sum_i \frac{(p_i - q_i)^2}{p_i + q_i}, \qquad
          D_{JS} = \frac12 \sum_i \left( q_i \ln\frac{2 q_i}{q_i + p_i} + p_i \ln\frac{2 p_i}{q_i + p_i} \right) .

The quantile divergence is :math:`D_{JS}` in bins of equal probability, which come from splitting the reference at medians, the
dimensions in turn. For n values of the same distribution and a reference of :math:`n_{ref}`,
:math:`E[D_{JS}] \approx (n_{quant} - 1)/8\,(1/n + 1/n_{ref})`. Any number of bins is allowed: a node of ``m`` bins is split so that
its left child gets ``m // 2`` of them and the same share of the values. Equal values are never separated: they go to the side
that leaves the split nearest to its share, so that ties make bins unequal, or empty.

References:
    A. Ramdas, N. Garcia Trillos, M. Cuturi, Entropy 19 (2017) 47; C. Krause et al., CaloChallenge 2022, arXiv:2410.21611,
    section 4 (separation power); S. Bieringer et al., Calomplification, arXiv:2202.07352; A. Butter et al., GANplifying event
    samples, SciPost Phys. 10 (2021) 139, arXiv:2008.06545 (quantile divergence).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError

__all__ = [
    "QuantileBins",
    "correlation_distance",
    "covariance",
    "covariance_distance",
    "expected_divergence",
    "jensen_shannon",
    "ks_test",
    "quantile_divergence",
    "relative_mse",
    "separation_power",
    "shape_mse",
    "weighted_distances",
]

Array = NDArray[np.float64]

_BLOCK = 1 << 22  # numbers in memory at once
_EXACT = 100  # values a side up to which SciPy's exact p-value is quick
_GUARD = 1e-16


def ks_test(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the two-sample Kolmogorov-Smirnov statistic of values (N,) and (M,), and its p-value."""
    from scipy.stats import ks_2samp

    a, b = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    result = ks_2samp(a, b, method="exact" if max(a.size, b.size) <= _EXACT else "asymp")
    return float(result.statistic), float(result.pvalue)


def weighted_distances(values: Array, weights: NDArray[np.float32]) -> tuple[Array, Array]:
    """Return the Kolmogorov-Smirnov and Wasserstein-1 distances of many weightings of the same values, sorted once.

    Arguments:
        values: Values of both sides (N,).
        weights: Signed weights (N, S): those of the reference sum to 1, those of the other side to -1.

    Returns:
        The Kolmogorov-Smirnov statistics (S,) and the Wasserstein-1 distances (S,).
    """
    order = np.argsort(values, kind="stable")
    x = values[order]
    last = np.append(np.diff(x) > 0, True)  # a distribution function is evaluated after equal values
    gaps = np.append(np.diff(x), 0.0)
    ks, w1 = [], []
    size = max(1, _BLOCK // len(x))
    for start in range(0, weights.shape[1], size):
        difference = np.abs(np.cumsum(weights[order, start : start + size], axis=0, dtype=np.float64))
        ks.append(difference[last].max(axis=0))
        w1.append(gaps @ difference)
    return np.concatenate(ks), np.concatenate(w1)


def separation_power(p: ArrayLike, q: ArrayLike) -> float:
    """Return the separation power (0 to 1) of two histograms (K,), counts or fractions; NaN when one is empty."""
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if a.sum() <= 0 or b.sum() <= 0:
        return float("nan")
    a, b = a / a.sum(), b / b.sum()
    return float(0.5 * np.sum((a - b) ** 2 / (a + b + _GUARD)))


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence (natural logarithm, 0 to ln 2) of counts or fractions (K,)."""
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    a, b = a / a.sum(), b / b.sum()
    middle = a + b
    total = 0.0
    for part in (a, b):
        filled = part > 0
        total += float(np.sum(part[filled] * np.log(2.0 * part[filled] / middle[filled])))
    return max(0.0, 0.5 * total)


def shape_mse(reference: ArrayLike, generated: ArrayLike) -> float:
    r"""Return the mean squared difference of two mean profiles (K,) in units of the reference's mean bin.

    .. math:: \frac1K \sum_i \left( \frac{g_i - p_i}{\bar p} \right)^2
    """
    p, g = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    scale = p.mean()
    return float(np.mean(((g - p) / scale) ** 2)) if scale > 0 else float("nan")


def relative_mse(reference: ArrayLike, generated: ArrayLike) -> tuple[float, int]:
    """Return the mean squared relative difference over the bins filled in the reference, and how many are not filled."""
    p, g = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    filled = p > 0
    value = float(np.mean((g[filled] / p[filled] - 1.0) ** 2)) if filled.any() else float("nan")
    return value, int(p.size - filled.sum())


def covariance(x: NDArray[np.floating], weights: NDArray[np.generic] | None = None) -> Array:
    """Return the covariance (d, d) of rows (N, d), each counted as often as its weight (N,) says."""
    rows = np.asarray(x, np.float64)
    w = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    rooted = np.sqrt(w)[:, None] * (rows - w @ rows / w.sum())
    out: Array = rooted.T @ rooted / (w.sum() - 1.0)
    return out


def covariance_distance(reference: Array, generated: Array) -> float:
    r"""Return the distance of two covariance matrices (d, d) in the Frobenius norm; NaN for a zero reference.

    .. math:: |C_{gen} - C_{ref}|_F / |C_{ref}|_F
    """
    norm = float(np.linalg.norm(reference))
    return float(np.linalg.norm(generated - reference)) / norm if norm > 0 else float("nan")


def correlation_distance(reference: Array, generated: Array) -> float:
    """Return the same of the correlations of two covariances (d, d), without the diagonal; constants have none."""

    def correlation(matrix: Array) -> Array:
        variance = np.diag(matrix)
        scale = np.where(variance > 0, 1.0 / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
        out: Array = matrix * scale[:, None] * scale
        np.fill_diagonal(out, 0.0)
        return out

    return covariance_distance(correlation(reference), correlation(generated))


class QuantileBins:
    """Bins of equal probability of a reference set.

    Arguments:
        reference: Values (N,) or (N, d).
        n_quant: Number of bins, at least 2 and at most N.

    Attributes:
        counts: Reference entries of each bin (n_quant,).

    Raises:
        InputError: With fewer than two bins, or values that are not finite.
        TooFewShowersError: With fewer values than bins.
    """

    def __init__(self, reference: ArrayLike, n_quant: int) -> None:
        values = np.asarray(reference, np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if n_quant < 2:
            msg = f"quantile bins: {n_quant} bins requested, at least 2 are needed"
            raise InputError(msg)
        if len(values) < n_quant:
            msg = f"quantile bins: {len(values)} reference entries are fewer than the {n_quant} bins"
            raise TooFewShowersError(msg)
        if not np.isfinite(values).all():
            msg = "quantile bins: the reference has values that are not finite"
            raise InputError(msg)
        self.n_quant, self.dimensions = n_quant, values.shape[1]
        self._edges: Array | None = None
        if self.dimensions == 1:
            ordered = np.sort(values[:, 0])
            cuts = [i * len(ordered) // n_quant for i in range(1, n_quant)]
            self._edges = np.array([_threshold(ordered, k) for k in cuts])
            self.counts = self.count(ordered)
        else:
            self._build(values)

    def _build(self, values: Array) -> None:
        """Split node after node; node i has the children ``child[i]`` and cuts at ``cut[i]``."""
        child: list[tuple[int, int]] = [(0, 0)]
        cut: list[float] = [np.inf]
        leaf: list[int] = [-1]
        counts: list[int] = []
        front = [(0, self.n_quant, np.arange(len(values)))]
        self._depth = 0
        while front:
            column, ahead = values[:, self._depth % self.dimensions], []
            for node, bins, members in front:
                if bins == 1:
                    child[node], leaf[node] = (node, node), len(counts)
                    counts.append(len(members))
                    continue
                x = column[members]
                cut[node] = _split(x, len(members) * (bins // 2) // bins)
                low = x <= cut[node]
                child[node] = (len(cut), len(cut) + 1)
                for part, share in ((members[low], bins // 2), (members[~low], bins - bins // 2)):
                    ahead.append((len(cut), share, part))
                    child.append((0, 0))
                    cut.append(np.inf)
                    leaf.append(-1)
            front = ahead
            self._depth += 1
        self._child, self._cut = np.array(child), np.array(cut)
        self._leaf, self.counts = np.array(leaf), np.array(counts)

    def count(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return how many of the values (M,) or (M, d) fall into each bin (n_quant,)."""
        x = np.asarray(values, np.float64)
        x = x[:, None] if x.ndim == 1 else x
        if x.shape[1] != self.dimensions:
            msg = f"quantile bins: values have {x.shape[1]} dimensions, the bins {self.dimensions}"
            raise InputError(msg)
        if self._edges is not None:
            ordered = np.sort(x[:, 0])
            return np.diff(np.searchsorted(ordered, self._edges, "right"), prepend=0, append=len(ordered))
        node = np.zeros(len(x), np.int64)
        for level in range(self._depth):
            right = x[:, level % self.dimensions] > self._cut[node]
            node = self._child[node, right.astype(np.int64)]
        return np.bincount(self._leaf[node], minlength=self.n_quant)


def _split(x: Array, k: int) -> float:
    """Return the value that has k of the values (N,) below or at it."""
    if len(x) == 0:
        return 0.0
    if not 0 < k < len(x):
        return float(x.min()) if k <= 0 else float(x.max())
    part = np.partition(x, (k - 1, k))
    return _between(part[k - 1], part[k]) if part[k - 1] < part[k] else _threshold(np.sort(x), k)


def _threshold(ordered: Array, k: int) -> float:
    """Return the value that has the first ``k`` of sorted values below or at it; equal values stay together."""
    if ordered[k - 1] < ordered[k]:
        return _between(ordered[k - 1], ordered[k])
    first = int(np.searchsorted(ordered, ordered[k], "left"))
    behind = int(np.searchsorted(ordered, ordered[k], "right"))
    if first > 0 and k - first <= behind - k:
        return _between(ordered[first - 1], ordered[first])
    return float(ordered[k])


def _between(low: float, high: float) -> float:
    middle = float(low + 0.5 * (high - low))
    return middle if middle < high else float(low)


def quantile_divergence(reference: ArrayLike, generated: ArrayLike, n_quant: int) -> float:
    """Return the Jensen-Shannon divergence in ``n_quant`` quantile bins of the reference, (N,) or (N, d), of (M,) or (M, d)."""
    bins = QuantileBins(reference, n_quant)
    return jensen_shannon(bins.counts, bins.count(generated))


def expected_divergence(n_quant: int, n: int, n_reference: float = np.inf) -> float:
    """Return the expected quantile divergence of ``n`` values from the same distribution, for a reference of ``n_reference``."""
    return (n_quant - 1) / 8.0 * (1.0 / n + 1.0 / n_reference)
