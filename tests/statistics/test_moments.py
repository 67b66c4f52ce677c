"""Means and widths with errors, in bins and at a point, against known distributions."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.statistics.moments import (
    central_width,
    condition_bins,
    core_cells,
    levels,
    local_moments,
    mean_and_std,
    mean_with_error,
    moment_ratios,
    moments_in_bins,
    ratio_with_error,
    std_error,
    weighted_moments,
)


@pytest.mark.parametrize("n", [8, 60])
@pytest.mark.parametrize("kind", ["normal", "uniform", "exponential"])
def test_the_error_of_a_width_is_that_of_repeated_samples(kind: str, n: int) -> None:
    """The estimated variance of s^2 has no bias, for any distribution and few values."""
    rng = np.random.default_rng(n)
    samples = getattr(rng, kind)(size=(8000, n))
    variances = samples.var(axis=1, ddof=1)
    estimates = np.array([4 * std_error(x) ** 2 * v for x, v in zip(samples, variances, strict=True)])
    squares = (variances - variances.mean()) ** 2
    error = np.hypot(estimates.std(), squares.std()) / np.sqrt(8000)
    assert abs(estimates.mean() - squares.mean()) < 4 * error
    assert 4 * error < 0.35 * squares.mean()  # the biased formula is off by 45 % for eight normal values


def test_the_error_of_a_width_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_t(6, 400)
    boot = x[rng.integers(0, 400, (600, 400))].std(axis=1, ddof=1)
    mean, error, std, of_std = mean_and_std(x)
    assert (mean, std) == pytest.approx((x.mean(), x.std(ddof=1)))
    assert error == pytest.approx(std / 20)
    assert of_std == pytest.approx(boot.std(), rel=0.12)


def test_errors_scale_with_the_unit_and_need_enough_values() -> None:
    x = np.random.default_rng(4).gamma(2.0, size=50)
    assert std_error(1e3 + 5 * x) == pytest.approx(5 * std_error(x))
    assert std_error(np.ones(10)) == 0.0
    assert np.isnan(std_error(x[:3]))
    assert np.isnan(mean_and_std(x[:0])).all()
    assert np.isnan(mean_and_std(x[:1])[1:]).all()


def test_means_and_ratios_with_errors() -> None:
    x = np.array([1.0, 2.0, 3.0])
    assert mean_with_error(x) == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert np.isnan(mean_with_error(x[:0])).all()
    assert np.isnan(mean_with_error(x[:1])[1])
    value, error = ratio_with_error((2.0, 0.2), (4.0, 0.0))
    assert (value, error) == pytest.approx((0.5, 0.05))
    assert np.isnan(ratio_with_error((1.0, 0.1), (0.0, 0.1))).all()


def test_the_central_width_of_normal_values_is_their_standard_deviation() -> None:
    x = np.random.default_rng(5).normal(3.0, 2.0, (2, 100_000))
    half, median = central_width(x)
    np.testing.assert_allclose(half, 2.0, rtol=0.02)
    np.testing.assert_allclose(median, 3.0, rtol=0.02)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_values_that_differ_by_rounding_are_one_level(scale: float) -> None:
    rng = np.random.default_rng(6)
    true = scale * np.array([-3.0, 0.0, 1.0, 1.00001, 50.0])
    x = np.repeat(true, 200) * (1 + 1e-7 * rng.uniform(-1, 1, 1000))
    found = levels(x, 5)
    assert found is not None
    np.testing.assert_allclose(found, true, rtol=1e-6)
    assert levels(x, 4) is None
    np.testing.assert_array_equal(np.histogram(x, condition_bins(x, open_ends=True))[0], 200)


def test_close_values_of_a_continuous_condition_are_not_one_level() -> None:
    x = np.linspace(97_500.0, 102_500.0, 1_000_000)  # steps of 5e-8
    assert levels(x, 32) is None
    assert len(condition_bins(x)) == 11


def test_bins_of_a_condition_are_by_value_or_by_quantile() -> None:
    few = np.array([1.0, 2.0, 2.0, 4.0])
    np.testing.assert_allclose(condition_bins(few, open_ends=True), [-np.inf, 1.5, 3.0, np.inf])
    np.testing.assert_allclose(condition_bins(few), [0.996, 1.5, 3.0, 4.004])
    many = np.random.default_rng(5).random(1000)
    edges = condition_bins(many)
    assert len(edges) == 11
    np.testing.assert_array_equal(np.histogram(many, edges)[0], 100)


def test_moments_in_bins_are_those_of_the_values_inside() -> None:
    rng = np.random.default_rng(6)
    condition, x = rng.random(300), rng.normal(size=300)
    x[7] = np.nan
    edges = np.array([0.0, 0.5, 0.52, 0.9])
    found = moments_in_bins(x, condition, edges, fewest=20)
    inside = (condition < 0.5) & np.isfinite(x)
    assert found.n.tolist() == [np.histogram(condition[np.isfinite(x)], edges)[0][k] for k in range(3)]
    assert [row[0] for row in found[2:6]] == pytest.approx(mean_and_std(x[inside]))
    assert found.centre[0] == pytest.approx(condition[inside].mean())
    assert np.isfinite(found.centre[1])
    assert np.isnan([row[1] for row in found[2:]]).all()


def test_the_core_of_a_grid_is_the_published_cube() -> None:
    cells = core_cells(np.zeros(25**3), (25, 25, 25))
    index = np.array(np.unravel_index(cells, (25, 25, 25)))
    assert (len(cells), index.min(), index.max()) == (7**3, 10, 16)
    np.testing.assert_array_equal(core_cells(np.array([0.0, 5.0, 10.0, 100.0]), (4,)), [2, 3])
    assert core_cells(np.zeros(4), (4,)).size == 0


def test_moment_ratios_leave_out_what_is_constant() -> None:
    x = np.random.default_rng(3).gamma(2.0, size=(50, 3))
    weights = np.random.default_rng(4).integers(0, 3, 50)
    rows = np.repeat(x, weights, axis=0)
    np.testing.assert_allclose(weighted_moments(x, weights), [rows.mean(axis=0), rows.std(axis=0, ddof=1)])
    wide = weighted_moments(np.c_[x, np.zeros(50)])
    means, deviations = moment_ratios(wide, weighted_moments(np.c_[2 * x, x[:, 0]]))
    np.testing.assert_allclose([means, deviations], 2.0)


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
