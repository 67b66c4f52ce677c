"""Mean and width at a point against known planes."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.statistics.local import local_moments


def _around(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(45e3, 60e3, n), rng.uniform(52.0, 64.0, n)
    return 3.0 + 0.02 * (energy - 50e3) - 4.0 * (theta - 60.0) + rng.normal(0.0, 7.0, n), energy, theta


def test_a_plane_with_noise_gives_its_height_and_its_noise() -> None:
    heights, widths = [], []
    for seed in range(20):
        values, energy, theta = _around(seed=seed)
        found = local_moments(values, (energy, theta), (50e3, 60.0))
        heights.append((found.mean - 3.0) / found.mean_error)
        widths.append((found.width - 7.0) / found.width_error)
    assert abs(np.mean(heights)) < 3 / np.sqrt(20)
    assert abs(np.mean(widths)) < 3 / np.sqrt(20)
    assert 0.6 < np.std(heights) < 1.5
    assert 0.6 < np.std(widths) < 1.5


def test_a_factor_goes_through_exactly() -> None:
    values, energy, theta = _around()
    plain, scaled = (local_moments(v, (energy, theta), (50e3, 60.0)) for v in (values, 1.02 * values))
    assert scaled.mean == pytest.approx(1.02 * plain.mean, rel=1e-9)
    assert scaled.width == pytest.approx(1.02 * plain.width, rel=1e-9)
    np.testing.assert_allclose(scaled.moved, 1.02 * plain.moved, rtol=1e-9)


def test_without_a_spread_of_conditions_it_is_the_plain_mean() -> None:
    values = np.random.default_rng(3).gamma(3.0, 2.0, 500)
    found = local_moments(values, (np.full(500, 5e4), np.full(500, 60.0)), (5e4, 60.0))
    assert found.mean == pytest.approx(values.mean())
    assert found.width == pytest.approx(values.std(ddof=1))
    assert found.mean_error == pytest.approx(values.std(ddof=1) / np.sqrt(500))


def test_missing_values_are_counted_and_too_few_say_nothing() -> None:
    values, energy, theta = _around(100)
    values[:30] = np.nan
    found = local_moments(values, (energy, theta), (50e3, 60.0))
    assert (found.n, found.missing) == (70, 30)
    few = local_moments(values[:45], (energy[:45], theta[:45]), (50e3, 60.0))
    assert np.isnan(few.mean)
    assert np.isnan(few.width_error)
