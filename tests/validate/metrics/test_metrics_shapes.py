"""Separation power, bins, shapes, covariances, core cells: the formulas on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from caloforge.geometry import get_detector
from caloforge.validate.metrics.binning import bin_edges, general_edges, log_edges, lowest_energy
from caloforge.validate.metrics.cells import (
    core_cells,
    correlation_distance,
    covariance,
    covariance_distance,
    moment_ratios,
)
from caloforge.validate.metrics.features import Column
from caloforge.validate.metrics.separation import histogram, separation_power
from caloforge.validate.metrics.shapes import (
    energy_bins,
    fractions,
    mean_with_error,
    ratio_with_error,
    relative_mse,
    shape_mse,
)

COUNTS = arrays(np.int64, 7, elements=st.integers(0, 50)).filter(lambda x: x.sum() > 0)


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


def test_what_lies_outside_is_counted() -> None:
    h = histogram([-1.0, 0.0, 0.5, 1.0, 2.0], np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(h.counts, [1, 2])
    assert h.dropped == pytest.approx(0.4)


def column(name: str, values: np.ndarray) -> Column:
    return Column(name, name.split("[")[0], values, values, {})


@pytest.mark.parametrize(
    ("name", "bins", "low", "high"),
    [
        ("response", 100, 0.5, 1.5),
        ("layer_energy", 39, 0.5e-3 / 0.033, 7.0),
        ("layer_sparsity", 20, 0.0, 1.0),
        ("layer_centre_x", 100, -30.0, 30.0),
        ("layer_width_y", 100, 0.0, 30.0),
        ("layer_centre_r", 100, 0.0, 42.0),
        ("layer_width_r", 100, 0.0, 20.0),
        ("hits", 50, 2.0, 7.0),
    ],
)
def test_the_challenges_bins(name: str, bins: int, low: float, high: float) -> None:
    edges = bin_edges(column(name, np.array([2.0, 3.0, 7.0])), get_detector("calochallenge-2"))
    assert len(edges) == bins + 1
    assert edges[[0, -1]] == pytest.approx([low, high], rel=1e-6)


def test_bins_of_other_detectors_hold_the_whole_reference() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000) * 300
    edges = bin_edges(column("layer_centre_x", values), get_detector("ild-ecal"))
    assert histogram(values, edges).dropped == 0.0
    assert bin_edges(column("layer_centre_x", values), get_detector("calochallenge-1-pions"))[0] == -100
    assert lowest_energy(get_detector("calochallenge-1-photons")) == 1.0
    assert lowest_energy(get_detector("ild-ecal")) == 0.1
    x = np.array([3.0, 1e4])
    assert histogram(x, log_edges(1.0, 1e4, 39)).dropped == 0.0
    assert len(log_edges(1.0, 0.5, 10)) == 11


@pytest.mark.parametrize("value", [0.0, 5.0, -1e9, 1e-300])
def test_constant_values_have_bins(value: float) -> None:
    edges = general_edges(np.full(10, value))
    assert (np.diff(edges) > 0).all()
    assert histogram(np.full(10, value), edges).dropped == 0.0
    same = histogram(np.full(10, value), edges).counts
    assert separation_power(same, same) == 0.0


def test_neighbouring_floats_have_bins() -> None:
    values = np.array([1.0, np.nextafter(1.0, 2.0)])
    edges = general_edges(values)
    assert histogram(values, edges).counts.sum() == 2


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


def test_core_of_clic_is_the_published_cube() -> None:
    d = get_detector("clic-ecal")
    cells = core_cells(d, np.zeros(d.n_cells))
    assert len(cells) == 7**3
    index = np.array(np.unravel_index(cells, d.shape))
    assert index.min() == 10
    assert index.max() == 16
    np.testing.assert_array_equal(
        core_cells(get_detector("ild-ecal"), np.array([0.0, 5.0, 10.0, 100.0])), [2, 3]
    )
    assert core_cells(get_detector("ild-ecal"), np.zeros(4)).size == 0


def test_moment_ratios() -> None:
    x = np.random.default_rng(3).gamma(2.0, size=(50, 3))
    w = np.random.default_rng(4).integers(0, 3, 50)
    mean, std = moment_ratios(x, 2.0 * x)
    assert (mean, std) == pytest.approx((2.0, 2.0))
    rows = np.repeat(x, w, axis=0)
    expected = (
        np.mean(rows.mean(axis=0) / x.mean(axis=0)),
        np.mean(rows.std(axis=0, ddof=1) / x.std(axis=0, ddof=1)),
    )
    assert moment_ratios(x, x, None, w) == pytest.approx(expected)
    assert np.isnan(moment_ratios(0 * x, x)).all()


def test_fractions_leave_out_showers_without_energy() -> None:
    np.testing.assert_allclose(
        fractions(np.array([[1.0, 3.0], [0.0, 0.0], [2.0, 0.0]])), [[0.25, 0.75], [1, 0]]
    )


def test_energy_bins_by_value_or_by_quantile() -> None:
    few = energy_bins(np.array([1.0, 2.0, 2.0, 4.0]))
    np.testing.assert_allclose(few, [-np.inf, 1.5, 3.0, np.inf])
    many = energy_bins(np.random.default_rng(5).random(1000))
    assert len(many) == 11


def test_means_and_ratios_with_errors() -> None:
    x = np.array([1.0, 2.0, 3.0])
    assert mean_with_error(x) == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert np.isnan(mean_with_error(x[:0])).all()
    assert np.isnan(mean_with_error(x[:1])[1])
    value, error = ratio_with_error((2.0, 0.2), (4.0, 0.0))
    assert (value, error) == pytest.approx((0.5, 0.05))
    assert np.isnan(ratio_with_error((1.0, 0.1), (0.0, 0.1))).all()
