"""Conditioning: windows, means and widths at a point against known answers, the whole study on small showers."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.studies.conditioning.local import at_point
from caloforge.studies.conditioning.points import TestPoint, grid_of_points, select, window_around

# -- windows -----------------------------------------------------------------------------------------------


def test_the_nine_points_are_every_combination() -> None:
    points = grid_of_points((20e3, 50e3, 90e3), (40.0, 60.0, 85.0))
    assert len(points) == 9
    assert points[1] == TestPoint(20e3, 60.0)
    assert points[-1].key == "90gev-85deg"


def test_a_window_is_as_narrow_as_the_showers_allow() -> None:
    rng = np.random.default_rng(1)
    energy, theta = rng.uniform(10e3, 100e3, 20_000), rng.uniform(30.0, 90.0, 20_000)
    point = TestPoint(50e3, 60.0)
    windows = [window_around(energy, theta, point, wanted) for wanted in (10, 100, 500)]
    counts = [len(select(energy, theta, point, window)) for window in windows]
    assert [window.energy for window in windows] == sorted(window.energy for window in windows)
    for wanted, count in zip((10, 100, 500), counts, strict=True):
        assert count >= wanted
    chosen = select(energy, theta, point, windows[1])
    assert np.abs(energy[chosen] - 50e3).max() <= windows[1].energy
    assert np.abs(theta[chosen] - 60.0).max() <= windows[1].theta
    assert window_around(energy, theta, point, 10**6).theta == 10.0


def test_a_file_made_at_the_points_needs_no_width() -> None:
    energy, theta = np.repeat([20e3, 50e3, 90e3], 40), np.tile([40.0, 60.0, 85.0, 60.0], 30)
    window = window_around(energy, theta, TestPoint(50e3, 60.0), 300)
    assert window.theta < 0.1
    assert window.energy < 100.0


def test_widths_that_are_given_are_kept() -> None:
    window = window_around(np.array([1e4]), np.array([40.0]), TestPoint(2e4, 40.0), 10, 3e3, 2.5)
    assert (window.energy, window.theta) == (3e3, 2.5)


# -- mean and width at a point -----------------------------------------------------------------------------


def _around(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    energy, theta = rng.uniform(45e3, 60e3, n), rng.uniform(52.0, 64.0, n)
    return 3.0 + 0.02 * (energy - 50e3) - 4.0 * (theta - 60.0) + rng.normal(0.0, 7.0, n), energy, theta


def test_a_plane_with_noise_gives_its_height_and_its_noise() -> None:
    heights, widths = [], []
    for seed in range(20):
        values, energy, theta = _around(seed=seed)
        found = at_point(values, (energy, theta), (50e3, 60.0))
        heights.append((found.mean - 3.0) / found.mean_error)
        widths.append((found.width - 7.0) / found.width_error)
    assert abs(np.mean(heights)) < 3 / np.sqrt(20)
    assert abs(np.mean(widths)) < 3 / np.sqrt(20)
    assert 0.6 < np.std(heights) < 1.5
    assert 0.6 < np.std(widths) < 1.5


def test_a_factor_goes_through_exactly() -> None:
    values, energy, theta = _around()
    plain, scaled = (at_point(v, (energy, theta), (50e3, 60.0)) for v in (values, 1.02 * values))
    assert scaled.mean == pytest.approx(1.02 * plain.mean, rel=1e-9)
    assert scaled.width == pytest.approx(1.02 * plain.width, rel=1e-9)
    np.testing.assert_allclose(scaled.moved, 1.02 * plain.moved, rtol=1e-9)


def test_without_a_spread_of_conditions_it_is_the_plain_mean() -> None:
    values = np.random.default_rng(3).gamma(3.0, 2.0, 500)
    found = at_point(values, (np.full(500, 5e4), np.full(500, 60.0)), (5e4, 60.0))
    assert found.mean == pytest.approx(values.mean())
    assert found.width == pytest.approx(values.std(ddof=1))
    assert found.mean_error == pytest.approx(values.std(ddof=1) / np.sqrt(500))


def test_missing_values_are_counted_and_too_few_say_nothing() -> None:
    values, energy, theta = _around(100)
    values[:30] = np.nan
    found = at_point(values, (energy, theta), (50e3, 60.0))
    assert (found.n, found.missing) == (70, 30)
    few = at_point(values[:45], (energy[:45], theta[:45]), (50e3, 60.0))
    assert np.isnan(few.mean)
    assert np.isnan(few.width_error)
