"""Response curves against numbers that are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caloforge.errors import TooFewShowersError
from caloforge.statistics.moments import condition_bins
from caloforge.validate.resolution import fit_resolution, response_curve

ENERGIES = 1024.0 * 2.0 ** np.arange(9)


def _smeared(a: float, b: float, c: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    incident = np.repeat(ENERGIES, n)
    gev = incident / 1000
    sigma = np.sqrt(a**2 / gev + b**2 / gev**2 + c**2)
    return incident * (1 + sigma * rng.normal(size=len(incident))), incident


def test_the_terms_of_the_resolution_come_back() -> None:
    measured, incident = _smeared(0.12, 0.2, 0.015)
    curve = response_curve(measured, incident)
    fit = fit_resolution(curve)
    assert fit.stochastic == pytest.approx(0.12, rel=0.05)
    assert fit.noise == pytest.approx(0.2, rel=0.05)
    assert fit.constant == pytest.approx(0.015, rel=0.05)
    pulls = (curve.resolution - fit(curve.centre)) / curve.resolution_error
    assert np.abs(pulls).max() < 4
    np.testing.assert_allclose(curve.width68, curve.resolution, rtol=0.1)
    assert (np.abs(curve.response - 1) < 4 * curve.response_error).all()


def test_errors_are_those_of_repeated_samples() -> None:
    rng = np.random.default_rng(2)
    curves = [response_curve(rng.normal(900, 90, 500), np.full(500, 1000.0)) for _ in range(200)]
    for name in ("response", "resolution"):
        spread = np.std([getattr(curve, name)[0] for curve in curves])
        stated = np.mean([getattr(curve, f"{name}_error")[0] for curve in curves])
        assert stated == pytest.approx(spread, rel=0.2)


def test_linearity_is_the_deviation_from_the_mean_response() -> None:
    incident = np.repeat([1000.0, 2000.0], 50)
    curve = response_curve(incident * np.where(incident < 1500, 0.9, 1.1), incident)
    np.testing.assert_allclose(curve.response, [0.9, 1.1])
    np.testing.assert_allclose(curve.linearity, [-0.1, 0.1])
    np.testing.assert_allclose(curve.resolution, 0.0, atol=1e-12)


def test_a_wide_bin_does_not_broaden_the_resolution() -> None:
    rng = np.random.default_rng(3)
    incident = rng.uniform(1e3, 1e5, 5000)
    curve = response_curve(incident * rng.normal(1, 0.02, 5000), incident, edges=np.array([0.0, 1e6]))
    assert curve.resolution[0] == pytest.approx(0.02, rel=0.05)


def test_against_the_angle_with_the_references_bins() -> None:
    rng = np.random.default_rng(4)
    theta = rng.uniform(30, 90, 1000)
    edges = condition_bins(theta, 6)
    counts = np.histogram(theta, edges)[0]
    assert counts.sum() == 1000
    assert np.ptp(counts) <= 2
    curve = response_curve(
        np.ones(900), np.ones(900), rng.uniform(20, 90, 900), edges=edges, name="incident_theta"
    )
    assert curve.variable == "incident_theta"
    assert curve.out_of_range + curve.n.sum() == 900
    assert curve.out_of_range > 50
    json.dumps(curve.to_dict())


def test_bins_with_few_showers_are_nan_and_counted() -> None:
    incident = np.array([1e3] * 30 + [2e3] * 3)
    curve = response_curve(0.9 * incident, incident)
    np.testing.assert_array_equal(curve.n, [30, 3])
    assert np.isfinite(curve.response[0])
    assert np.isnan(curve.response[1])
    zero = response_curve(np.zeros(30), np.full(30, 1e3))
    assert zero.response[0] == 0.0
    assert np.isnan(zero.resolution[0])


def test_too_few() -> None:
    with pytest.raises(TooFewShowersError, match="at least 10"):
        response_curve(np.ones(3), np.ones(3))
    with pytest.raises(TooFewShowersError, match="3 bins"):
        fit_resolution(response_curve(np.ones(30), np.ones(30)))
