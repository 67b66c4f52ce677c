r"""Bootstrap samples and halves, and the floor of a metric.

A bootstrap sample of ``n`` rows is how often each is drawn; statistics that are functions of weighted sums (distribution functions,
histograms, means) need the data sorted or binned only once.

The floor of a metric is the value of a perfect generator for these sample sizes. It is measured between disjoint halves of the
reference, of :math:`h` rows each. Most metrics of two samples from the same distribution are not zero: they rise as the samples
shrink. With :math:`n` reference and :math:`m` generated rows the difference of two empirical measures has the variance
:math:`\sigma^2 (1/n + 1/m)`, so that a metric which is homogeneous of degree :math:`k` in this difference has for equal distributions

.. math:: E[M_{n,m}] = E[M_{h,h}] \left( \frac{1/n + 1/m}{2/h} \right)^{k/2} .

Distances and norms have k = 1 (Kolmogorov-Smirnov, Wasserstein-1, the covariance distance, the largest difference of mean
fractions), divergences and squared distances have k = 2 (separation power, Jensen-Shannon divergences, mean squared errors, Frechet
and kernel distances). The floor is the mean between halves times this factor: for :math:`n = m = 2h` it is :math:`1/\sqrt2` or
:math:`1/2`. The detail of a value has the mean and the factor. The law needs samples that are large for what is compared; the
separation power, whose histograms have bins that fill only as the samples grow, multiplies by the growth of their number as well.

Metrics without a simple law are compared at equal sizes instead (precision, recall, density, coverage), and those whose expectation
for equal samples does not depend on the size need nothing (the AUC).

References:
    A. W. van der Vaart, J. A. Wellner, Weak convergence and empirical processes (1996), section 3.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator

__all__ = [
    "Floor",
    "bootstrap_counts",
    "floor_at",
    "floor_scale",
    "halves",
    "resample",
    "spread",
]

Array = NDArray[np.float64]


def bootstrap_counts(n: int, samples: int, seed: int, stream: str) -> NDArray[np.uint8]:
    """Return how often each of ``n`` rows is drawn in each bootstrap sample (samples, n)."""
    counts = np.empty((samples, n), dtype=np.uint8)
    for index in range(samples):
        rng = generator(seed, f"bootstrap/{stream}", index)
        counts[index] = np.bincount(rng.integers(0, n, size=n), minlength=n)
    return counts


def halves(n: int, index: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices of two disjoint random halves of ``n`` rows, each of ``n // 2``."""
    order = generator(seed, "halves", index).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 : 2 * (n // 2)])


def resample(
    measure: Callable[..., Any], a: Any, b: Any, samples: int, n_halves: int, seed: int
) -> tuple[Array, Array]:
    """Return a statistic for bootstrap samples of rows a (n, ...) and b (m, ...), and between halves of a.

    Arguments:
        measure: ``measure(a, b)`` of rows, and ``measure(a, b, weights_a, weights_b)`` with how often each counts; returns a
            number or several.
        a, b: Rows of the two samples.
        samples: Bootstrap samples.
        n_halves: Pairs of halves; none of fewer than four rows.
        seed: Seed of both.

    Returns:
        The statistic of the bootstrap samples (samples, ...) and of the halves (n_halves, ...).
    """
    weights = zip(
        bootstrap_counts(len(a), samples, seed, "reference"),
        bootstrap_counts(len(b), samples, seed, "generated"),
        strict=True,
    )
    boot = [measure(a, b, *pair) for pair in weights]
    splits = [halves(len(a), index, seed) for index in range(n_halves if len(a) > 3 else 0)]
    return np.array(boot), np.array([measure(a[first], a[second]) for first, second in splits])


def spread(values: Array) -> float:
    """Return the standard deviation of repeated values; NaN for fewer than two finite ones."""
    finite = values[np.isfinite(values)]
    return float(np.std(finite, ddof=1)) if finite.size > 1 else float("nan")


@dataclass(frozen=True)
class Floor:
    """A floor at the sizes of the compared samples.

    Attributes:
        value: The floor; None when the reference is too small to be halved.
        uncertainty: One standard deviation of a single comparison of samples of these sizes, or None.
        detail: ``floor_size`` (rows of a half), ``floor_measured`` (mean between halves), ``floor_scale``.
    """

    value: float | None = None
    uncertainty: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def floor_scale(n: int, m: int, size: int, degree: int) -> float:
    """Return the factor from a metric of degree k, 1 or 2, between samples of ``size`` to one between ``n`` and ``m`` rows."""
    return float(((1.0 / n + 1.0 / m) * size / 2.0) ** (degree / 2.0))


def floor_at(
    between_halves: Array,
    n: int,
    m: int,
    degree: int,
    ideal: float = 0.0,
    size: int | None = None,
    uncertainty: float | None = None,
    growth: float = 1.0,
) -> Floor:
    """Return the floor of a metric of degree k for ``n`` reference and ``m`` generated rows.

    Arguments:
        between_halves: The metric between repeated pairs of halves of the reference, (R,).
        n, m, degree: Rows of the samples, and k.
        ideal: The metric of equal distributions for infinitely many rows.
        size: Rows of a half; n // 2 by default.
        uncertainty: That of one of the values; by default their standard deviation.
        growth: A further factor, for effects outside the law.
    """
    known = between_halves[np.isfinite(between_halves)]
    if known.size == 0:
        return Floor()
    half = n // 2 if size is None else size
    scale = floor_scale(n, m, half, degree) * growth
    measured = float(known.mean())
    error = spread(known) if uncertainty is None else uncertainty
    detail = {"floor_size": half, "floor_measured": measured, "floor_scale": scale}
    return Floor(ideal + scale * (measured - ideal), scale * error, detail)
