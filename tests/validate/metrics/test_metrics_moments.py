"""Means, widths and resolution by slices of the incident energy."""

from __future__ import annotations

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.moments import compare_slices
from caloforge.validate.sample import Sample

WHOLE = np.array([-np.inf, np.inf])


def test_the_moments_of_normal_values() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(10.0, 1.0, 4000), rng.normal(11.0, 2.0, 1000)
    (whole,) = compare_slices(a, b, np.ones(4000), np.ones(1000), WHOLE)
    ratio, error = whole.mean_ratio()
    assert ratio == pytest.approx(1.1, abs=4 * error)
    assert error == pytest.approx(np.hypot(2.0 / np.sqrt(1000), 1.1 / np.sqrt(4000)) / 10, rel=0.1)
    width, of_width = whole.width_ratio()
    assert width == pytest.approx(2.0, abs=4 * of_width)
    assert of_width == pytest.approx(2.0 * np.sqrt(1 / 2000 + 1 / 8000), rel=0.15)


def test_slices_take_the_spread_of_the_energies_out_of_the_error() -> None:
    rng = np.random.default_rng(1)
    energy = np.repeat([1.0, 10.0, 100.0], 200)
    a, b = energy * rng.normal(1.0, 0.05, 600), energy * rng.normal(1.0, 0.05, 600)
    slices = compare_slices(a, b, energy, energy, np.array([-np.inf, 5.0, 50.0, np.inf]))
    assert [s.energy for s in slices] == [1.0, 10.0, 100.0]
    assert sum(s.weight for s in slices) == pytest.approx(1.0)
    for entry in slices:
        assert entry.mean_ratio()[1] < 0.01


def test_slices_of_few_showers_or_a_constant_are_left_out() -> None:
    energy = np.array([1.0] * 20 + [10.0] * 3)
    values = np.arange(23.0)
    edges = np.array([-np.inf, 5.0, np.inf])
    assert len(compare_slices(values, values, energy, energy, edges)) == 1
    assert compare_slices(np.ones(23), values, energy, energy, edges) == []


@pytest.mark.parametrize("energies", ["fixed", "various"])
def test_a_scaled_sample_has_its_scale_as_ratio_and_an_equal_resolution(energies: str) -> None:
    showers = toy_showers("atlas-em-barrel", 300, 1)
    if energies == "various":
        incident = np.resize([5_000.0, 20_000.0], 300)
        cells = showers.cells * (incident / 10_000.0)[:, None].astype(np.float32)
        showers = showers.replace(cells=cells, incident_energy=incident)
    other = showers.replace(cells=showers.cells * np.float32(1.3))
    found = compute_metrics(Sample(showers, "a"), Sample(other, "b"), Settings(), ["moments"])["moments"]
    assert found["ratio"]["response"]["value"] == pytest.approx(1.3, rel=1e-5)
    assert found["width"]["response"]["value"] == pytest.approx(1.3, rel=1e-5)
    assert found["resolution"]["value"] == pytest.approx(1.0, rel=1e-4)
    assert found["shift"]["shower_depth"]["value"] == pytest.approx(0.0, abs=1e-4)
    for layer in range(4):
        assert found["ratio"][f"layer_energy[{layer}]"]["value"] == pytest.approx(1.3, rel=1e-5)
    slices = found["resolution"]["detail"].get("slices", [])
    assert len(slices) == (2 if energies == "various" else 0)


def test_a_worst_slice_is_named() -> None:
    showers = toy_showers("atlas-em-barrel", 600, 1)
    incident = np.resize([5_000.0, 20_000.0, 80_000.0], 600)
    truth = showers.replace(
        cells=showers.cells * (incident / 10_000.0)[:, None].astype(np.float32), incident_energy=incident
    )
    factor = np.where(incident == 20_000.0, 1.2, 1.0).astype(np.float32)
    wrong = truth.replace(cells=truth.cells * factor[:, None])
    found = compute_metrics(Sample(truth, "a"), Sample(wrong, "b"), Settings(), ["moments"])["moments"]
    worst = found["ratio"]["response"]["detail"]["worst"]
    assert worst["energy"] == pytest.approx(20_000.0)
    assert worst["ratio"] == pytest.approx(1.2, rel=1e-5)
