from __future__ import annotations

import numpy as np
import pytest

from caloforge.statistics.resampling import (
    bootstrap_counts,
    floor_at,
    floor_scale,
    halves,
    resample,
)


def test_halves_are_disjoint_and_repeatable() -> None:
    first, second = halves(11, 3, seed=5)
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)
    np.testing.assert_array_equal(halves(11, 3, seed=5), (first, second))
    assert not np.array_equal(halves(11, 4, seed=5)[0], first)


def test_bootstrap_counts_sum_to_n() -> None:
    counts = bootstrap_counts(100, 20, 0, "x")
    assert (counts.sum(axis=1) == 100).all()
    assert len(np.unique(counts, axis=0)) == 20


def test_the_scale_is_one_for_samples_of_the_halves_size_and_falls_with_the_degree() -> None:
    assert floor_scale(500, 500, 500, 1) == floor_scale(500, 500, 500, 2) == pytest.approx(1.0)
    assert floor_scale(1000, 1000, 500, 2) == pytest.approx(0.5)
    assert floor_scale(1000, 1000, 500, 1) == pytest.approx(0.5**0.5)
    assert floor_scale(1000, 10**12, 500, 2) == pytest.approx(0.25)


def test_means_of_normal_samples_obey_the_scale() -> None:
    rng = np.random.default_rng(0)
    n, m, repeats = 50, 20, 20_000
    apart = np.abs(rng.normal(0, n**-0.5, repeats) - rng.normal(0, m**-0.5, repeats))
    halves = np.abs(rng.normal(0, (n / 2) ** -0.5, (2, repeats)).T @ [1, -1])
    for degree in (1, 2):
        assert floor_at(halves**degree, n, m, degree).value == pytest.approx((apart**degree).mean(), rel=0.03)


def test_a_floor_is_measured_around_the_ideal_and_needs_a_value() -> None:
    floor = floor_at(np.array([1.2, np.nan, 1.4]), 100, 100, degree=1, ideal=1.0)
    assert floor.value == pytest.approx(1.0 + 0.3 * 0.5**0.5)
    assert floor.uncertainty == pytest.approx(np.std([1.2, 1.4], ddof=1) * 0.5**0.5)
    assert floor.detail["floor_measured"] == pytest.approx(1.3)
    assert floor.detail["floor_size"] == 50
    assert floor_at(np.array([np.nan]), 100, 100, degree=1).value is None


def test_resampled_statistics_are_those_of_repeated_rows() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 30))

    def difference(a, b, weights_a=None, weights_b=None) -> float:
        return float(np.average(a, weights=weights_a) - np.average(b, weights=weights_b))

    boot, floors = resample(difference, a, b, 4, 3, seed=7)
    counts = [bootstrap_counts(30, 4, 7, side) for side in ("reference", "generated")]
    expected = [np.repeat(a, x).mean() - np.repeat(b, y).mean() for x, y in zip(*counts, strict=True)]
    np.testing.assert_allclose(boot, expected)
    np.testing.assert_allclose(floors[2], np.subtract(*(a[rows].mean() for rows in halves(30, 2, 7))))
    assert resample(difference, a[:3], b, 2, 3, seed=7)[1].shape == (0,)
