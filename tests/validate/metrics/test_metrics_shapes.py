"""Bins of the separation power, core cells, layer fractions, copies of a shower."""

from __future__ import annotations

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.geometry import get_detector
from caloforge.statistics.distances import separation_power
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.features import Column
from caloforge.validate.metrics.separation import (
    bin_edges,
    general_edges,
    histogram,
    log_edges,
    lowest_energy,
)
from caloforge.validate.metrics.shapes import core_ratios, fractions
from caloforge.validate.sample import Sample


def test_what_lies_outside_is_counted() -> None:
    counts, outside = histogram([-1.0, 0.0, 0.5, 1.0, 2.0], np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(counts, [1, 2])
    assert outside == pytest.approx(0.4)


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
    assert histogram(values, edges)[1] == 0.0
    assert bin_edges(column("layer_centre_x", values), get_detector("calochallenge-1-pions"))[0] == -100
    assert lowest_energy(get_detector("calochallenge-1-photons")) == 1.0
    assert lowest_energy(get_detector("ild-ecal")) == 0.1
    x = np.array([3.0, 1e4])
    assert histogram(x, log_edges(1.0, 1e4, 39))[1] == 0.0
    assert len(log_edges(1.0, 0.5, 10)) == 11


@pytest.mark.parametrize("value", [0.0, 5.0, -1e9, 1e-300])
def test_constant_values_have_bins(value: float) -> None:
    edges = general_edges(np.full(10, value))
    assert (np.diff(edges) > 0).all()
    assert histogram(np.full(10, value), edges)[1] == 0.0
    same = histogram(np.full(10, value), edges)[0]
    assert separation_power(same, same) == 0.0


def test_neighbouring_floats_have_bins() -> None:
    values = np.array([1.0, np.nextafter(1.0, 2.0)])
    edges = general_edges(values)
    assert histogram(values, edges)[0].sum() == 2


def test_fractions_leave_out_showers_without_energy() -> None:
    np.testing.assert_allclose(
        fractions(np.array([[1.0, 3.0], [0.0, 0.0], [2.0, 0.0]])), [[0.25, 0.75], [1, 0]]
    )


def test_core_ratios_are_means_over_the_cells() -> None:
    x = np.random.default_rng(3).gamma(2.0, size=(50, 3))
    assert core_ratios(x, 2.0 * x) == pytest.approx((2.0, 2.0))
    assert np.isnan(core_ratios(0 * x, x)).all()


def test_a_sample_of_copies_is_too_alike(settings: Settings) -> None:
    showers = toy_showers("clic-ecal", 12, 1)
    copies = Sample(showers.take(np.zeros(12, int)), "copies")
    result = compute_metrics(Sample(showers, "reference"), copies, settings, ["ssim"])["ssim"]
    assert result["gen_gen"]["value"] == pytest.approx(1.0)
    assert result["ref_ref"]["value"] < 0.999
    assert result["ref_ref"]["detail"]["pairs"] == 6
    assert result["ref_ref"]["uncertainty"] > 0
    assert set(result) == {"ref_ref", "gen_gen", "ref_gen"}
