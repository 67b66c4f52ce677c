from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from caloforge.errors import InputError, TooFewShowersError
from caloforge.statistics.distances import (
    QuantileBins,
    correlation_distance,
    covariance,
    covariance_distance,
    expected_divergence,
    jensen_shannon,
    ks_test,
    quantile_divergence,
    relative_mse,
    separation_power,
    shape_mse,
    weighted_distances,
)
from caloforge.statistics.resampling import bootstrap_counts

VALUES = arrays(np.float64, st.integers(2, 40), elements=st.integers(-3, 3).map(float))
COUNTS = arrays(np.int64, 7, elements=st.integers(0, 50)).filter(lambda x: x.sum() > 0)


@given(VALUES, VALUES)
def test_weighted_distances_are_scipys_for_repeated_values(a: np.ndarray, b: np.ndarray) -> None:
    counts_a, counts_b = bootstrap_counts(a.size, 3, 0, "a"), bootstrap_counts(b.size, 3, 0, "b")
    weights = np.concatenate([counts_a.T / a.size, counts_b.T / -b.size]).astype(np.float32)
    ks, w1 = weighted_distances(np.concatenate([a, b]), weights)
    for s in range(3):
        x, y = np.repeat(a, counts_a[s]), np.repeat(b, counts_b[s])
        assert ks[s] == pytest.approx(stats.ks_2samp(x, y, method="asymp").statistic, abs=1e-5)
        assert w1[s] == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-4)


def test_the_kolmogorov_smirnov_test_of_shifted_normal_values() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    statistic, p = ks_test(x, rng.normal(size=20_000) + 0.5)
    assert statistic == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=0.02)
    assert p < 1e-10
    assert ks_test(x[:50], x[:50]) == (0.0, 1.0)


@given(COUNTS, COUNTS)
def test_separation_is_symmetric_and_bounded(p: np.ndarray, q: np.ndarray) -> None:
    s = separation_power(p, q)
    assert -1e-12 <= s <= 1 + 1e-9
    assert s == pytest.approx(separation_power(3 * q, p))
    a, b = p / p.sum(), q / q.sum()
    slow = 0.5 * sum((x - y) ** 2 / (x + y) for x, y in zip(a, b, strict=True) if x + y > 0)
    assert s == pytest.approx(slow, abs=1e-9)


def test_separation_of_known_histograms() -> None:
    assert separation_power([1, 1], [1, 1]) == 0.0
    assert separation_power([1, 0], [0, 1]) == pytest.approx(1.0)
    assert separation_power([1, 1, 0], [0, 1, 1]) == pytest.approx(0.5)
    assert np.isnan(separation_power([0, 0], [1, 0]))


def test_shape_error() -> None:
    p, g = np.array([1.0, 3.0]), np.array([2.0, 3.0])
    assert shape_mse(p, g) == pytest.approx((0.5**2 + 0) / 2)
    assert shape_mse(p, p) == 0.0
    assert shape_mse(10 * p, 10 * g) == pytest.approx(shape_mse(p, g))
    assert np.isnan(shape_mse([0.0, 0.0], g))
    assert relative_mse([0.0, 2.0], [1.0, 3.0]) == (0.25, 1)
    assert np.isnan(relative_mse([0.0], [1.0])[0])


def test_covariance_is_numpys_and_weights_repeat_rows() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(30, 4)), rng.integers(0, 3, 30).astype(np.uint8)
    np.testing.assert_allclose(covariance(x), np.cov(x, rowvar=False))
    np.testing.assert_allclose(covariance(x, w), np.cov(np.repeat(x, w, axis=0), rowvar=False))


def test_covariance_distance() -> None:
    c = np.cov(np.random.default_rng(2).normal(size=(50, 3)), rowvar=False)
    assert covariance_distance(c, c) == 0.0
    assert covariance_distance(c, 2 * c) == pytest.approx(1.0)
    assert correlation_distance(c, 2 * c) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(covariance_distance(0 * c, c))
    constant = c.copy()
    constant[0], constant[:, 0] = 0.0, 0.0
    assert np.isfinite(correlation_distance(c, constant))


def slow_counts(
    reference: np.ndarray, values: np.ndarray, levels: int, level: int = 0
) -> list[tuple[int, int]]:
    """Split at medians, dimensions in turn, by recursion."""
    if level == levels:
        return [(len(reference), len(values))]
    axis = level % reference.shape[1]
    cut = np.median(reference[:, axis])
    out = []
    for low in (True, False):
        a, b = (x[(x[:, axis] <= cut) == low] for x in (reference, values))
        out += slow_counts(a, b, levels, level + 1)
    return out


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_bins_are_those_of_recursive_medians(dimensions: int, levels: int) -> None:
    rng = np.random.default_rng(levels)
    a, b = rng.normal(size=(1024, dimensions)), rng.normal(size=(700, dimensions)) + 0.2
    bins = QuantileBins(a, 2**levels)
    slow = slow_counts(a, b, levels)
    assert sorted(zip(bins.counts, bins.count(b), strict=True)) == sorted(slow)
    assert (bins.counts == 1024 // 2**levels).all()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("n_quant", [2, 3, 7, 10, 100])
def test_any_number_of_bins_is_equally_filled(dimensions: int, n_quant: int) -> None:
    a = np.random.default_rng(1).normal(size=(2000, dimensions))
    bins = QuantileBins(a, n_quant)
    assert len(bins.counts) == n_quant
    assert bins.counts.sum() == 2000
    assert np.abs(bins.counts - 2000 / n_quant).max() <= 3
    np.testing.assert_array_equal(bins.count(a), bins.counts)


def test_divergence_is_scipys_distance_squared() -> None:
    rng = np.random.default_rng(2)
    p, g = rng.random(50), rng.random(50)
    p[3] = g[7] = 0.0
    assert jensen_shannon(p, g) == pytest.approx(jensenshannon(p, g) ** 2, rel=1e-9)
    assert jensen_shannon([1, 0], [0, 1]) == pytest.approx(np.log(2))
    assert jensen_shannon(p, p) == 0.0


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize(("n_quant", "n"), [(16, 400), (64, 1000)])
def test_sample_from_the_truth_gives_the_expected_divergence(dimensions: int, n_quant: int, n: int) -> None:
    rng = np.random.default_rng(3)
    bins = QuantileBins(rng.normal(size=(200_000, dimensions)), n_quant)
    d = [jensen_shannon(bins.counts, bins.count(rng.normal(size=(n, dimensions)))) for _ in range(200)]
    mean, error = np.mean(d), np.std(d) / np.sqrt(len(d))
    assert abs(mean - expected_divergence(n_quant, n)) < 4 * error + 0.05 * mean


def test_the_size_of_the_reference_counts_as_well() -> None:
    rng = np.random.default_rng(4)
    d = [quantile_divergence(rng.normal(size=500), rng.normal(size=500), 32) for _ in range(200)]
    assert np.mean(d) == pytest.approx(expected_divergence(32, 500, 500), rel=0.08)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_equal_values_stay_together(dimensions: int) -> None:
    rng = np.random.default_rng(5)
    a = rng.integers(0, 3, size=(600, dimensions)).astype(float)
    bins = QuantileBins(a, 8)
    assert bins.counts.sum() == 600
    np.testing.assert_array_equal(bins.count(a), bins.counts)
    assert (bins.counts > 0).sum() <= 3**dimensions
    constant = QuantileBins(np.ones((100, dimensions)), 4)
    assert (constant.counts > 0).sum() == 1
    assert jensen_shannon(constant.counts, constant.count(np.ones((50, dimensions)))) == 0.0
    assert jensen_shannon(constant.counts, constant.count(np.full((50, dimensions), 2.0))) == pytest.approx(
        np.log(2)
    )


def test_bins_refuse_bad_input() -> None:
    with pytest.raises(TooFewShowersError, match="fewer than the 8 bins"):
        QuantileBins(np.arange(5.0), 8)
    with pytest.raises(InputError, match="at least 2"):
        QuantileBins(np.arange(5.0), 1)
    with pytest.raises(InputError, match="not finite"):
        QuantileBins(np.array([1.0, np.nan, 2.0]), 2)
    with pytest.raises(InputError, match="dimensions"):
        QuantileBins(np.zeros((4, 2)), 2).count(np.zeros((4, 3)))
