"""Bootstrap samples and halves, as weights, so that data are sorted or binned once.

A bootstrap sample of ``n`` showers is how often each is drawn; a half is who belongs to it. Statistics
that are functions of weighted sums (distribution functions, histograms, means) follow from either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator

__all__ = ["bootstrap_counts", "half_masks", "halves", "spread"]


def bootstrap_counts(n: int, samples: int, seed: int, stream: str) -> NDArray[np.uint8]:
    """Return how often each of ``n`` showers is drawn in each bootstrap sample (samples, n)."""
    counts = np.empty((samples, n), dtype=np.uint8)
    for index in range(samples):
        rng = generator(seed, f"bootstrap/{stream}", index)
        counts[index] = np.bincount(rng.integers(0, n, size=n), minlength=n)
    return counts


def halves(n: int, index: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices of two disjoint random halves of ``n`` showers, each of ``n // 2``."""
    order = generator(seed, "halves", index).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 : 2 * (n // 2)])


def half_masks(n: int, samples: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the halves of :func:`halves` as weights of 0 and 1, each (samples, n)."""
    first, second = np.zeros((samples, n), np.uint8), np.zeros((samples, n), np.uint8)
    for index in range(samples):
        a, b = halves(n, index, seed)
        first[index, a] = 1
        second[index, b] = 1
    return first, second


def spread(values: NDArray[np.float64]) -> float:
    """Return the standard deviation of repeated values; NaN for fewer than two finite ones."""
    finite = values[np.isfinite(values)]
    return float(np.std(finite, ddof=1)) if finite.size > 1 else float("nan")
