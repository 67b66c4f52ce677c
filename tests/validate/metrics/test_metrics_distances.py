from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from caloforge.statistics.resampling import bootstrap_counts, half_masks, halves
from caloforge.validate.metrics.distances import ks_test, wasserstein, weighted_distances

VALUES = arrays(np.float64, st.integers(2, 40), elements=st.integers(-3, 3).map(float))


@given(VALUES, VALUES)
def test_weighted_distances_are_scipys_for_repeated_values(a: np.ndarray, b: np.ndarray) -> None:
    counts_a, counts_b = bootstrap_counts(a.size, 3, 0, "a"), bootstrap_counts(b.size, 3, 0, "b")
    weights = np.concatenate([counts_a.T / a.size, counts_b.T / -b.size]).astype(np.float32)
    ks, w1 = weighted_distances(np.concatenate([a, b]), weights)
    for s in range(3):
        x, y = np.repeat(a, counts_a[s]), np.repeat(b, counts_b[s])
        assert ks[s] == pytest.approx(stats.ks_2samp(x, y, method="asymp").statistic, abs=1e-5)
        assert w1[s] == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-4)


def test_known_values() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    assert wasserstein(x, x + 0.7) == pytest.approx(0.7)
    statistic, p = ks_test(x, rng.normal(size=20_000) + 0.5)
    assert statistic == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=0.02)
    assert p < 1e-10
    assert ks_test(x[:50], x[:50]) == (0.0, 1.0)


def test_halves_are_disjoint_and_repeatable() -> None:
    first, second = halves(11, 3, seed=5)
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)
    a, b = half_masks(11, 4, seed=5)
    np.testing.assert_array_equal(np.flatnonzero(a[3]), first)
    np.testing.assert_array_equal(np.flatnonzero(b[3]), second)


def test_bootstrap_counts_sum_to_n() -> None:
    counts = bootstrap_counts(100, 20, 0, "x")
    assert (counts.sum(axis=1) == 100).all()
    assert len(np.unique(counts, axis=0)) == 20
