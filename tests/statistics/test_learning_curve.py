from __future__ import annotations

import numpy as np
import pytest
from gaussians import candidate, discriminant, gaussians
from scipy.optimize import brentq
from scipy.stats import norm

from caloforge.random import generator
from caloforge.statistics.learning_curve import (
    bootstrap_auc,
    fit_curve,
    learning_points,
    null_error,
    significance,
)
from caloforge.statistics.two_sample import auc_with_error, make_splits

FOLDS = 3


def curve_of(n: int, d: int, shift: float, seed: int):
    a, b = gaussians(n, d, shift, seed)
    rng = np.random.default_rng(seed)
    split = make_splits(rng.random((n, 1)), rng.random((n, 1)), FOLDS, seed)[0]
    points = learning_points(candidate(a, b, discriminant), split, FOLDS, seed)
    return points, fit_curve(points, len(split.test.reference), FOLDS, generator(seed, "test"), replicas=60)


def analytic_auc(trained: float, d: int, shift: float) -> float:
    """Return the AUC of a discriminant whose mean difference is estimated from 4/5 of ``trained`` rows a side."""
    separation = shift**2 / np.sqrt(shift**2 + 2.0 * d / (0.8 * trained))
    return float(norm.cdf(separation / np.sqrt(2.0)))


def test_the_null_error_is_that_of_equal_samples() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 60):
        found = [auc_with_error(*rng.standard_normal((2, n)))[0] for _ in range(1500)]
        assert np.std(found) == pytest.approx(float(null_error(n)), rel=0.07)
    assert float(null_error(2)) == pytest.approx(np.sqrt(5.0 / 48.0))
    assert float(significance(0.5 + 2 * null_error(9), 9)) == pytest.approx(2.0)


def test_weighted_auc_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    scores = np.round(rng.standard_normal(50), 1)  # with equal ones
    weights = rng.integers(0, 4, (3, 20)).astype(float), rng.integers(0, 4, (3, 30)).astype(float)
    found = bootstrap_auc(scores, *weights)
    for k in range(3):
        a, b = (
            np.repeat(s, w[k].astype(int)) for s, w in zip((scores[:20], scores[20:]), weights, strict=True)
        )
        assert found[k] == pytest.approx(auc_with_error(a, b)[0])


def test_the_learning_curve_is_that_of_the_discriminant() -> None:
    """Measured AUCs follow the analytic ones, and the numbers for 2 and 5 standard deviations with them."""
    d, shift = 40, 0.8
    points, curve = curve_of(2400, d, shift, seed=2)
    trained = np.array([point.trained for point in points])
    assert trained[0] < 60
    assert trained[-1] == 1600
    expected = np.array([analytic_auc(t, d, shift) for t in trained])
    assert np.all(np.abs(curve.auc - expected) < 4 * curve.errors + 0.005)
    assert np.all(np.abs(curve.at(curve.sizes) - expected) < 0.03)
    assert curve.at(1e9) == pytest.approx(norm.cdf(shift / np.sqrt(2.0)), abs=0.03)
    for sigmas in (2.0, 5.0):

        def missing(n: float, sigmas: float = sigmas) -> float:
            return float(significance(analytic_auc(n * (FOLDS - 1) / FOLDS, d, shift), n)) - sigmas

        found = curve.crossing(sigmas)
        assert found.value == pytest.approx(brentq(missing, 5, 5000), rel=0.25)
        assert found.low < found.value < found.high < 2 * found.low
        assert not found.extrapolated


def test_what_lies_beyond_the_measured_sizes_is_extrapolated() -> None:
    """A separation so small that five standard deviations need more rows than there are."""
    d, shift = 3, 0.2
    _, curve = curve_of(1200, d, shift, seed=12)
    five = curve.crossing(5.0)
    assert five.value > curve.sizes[-1]
    assert five.extrapolated
    assert five.low <= five.value <= five.high


def test_the_band_contains_the_curve() -> None:
    _, curve = curve_of(900, 10, 0.8, seed=4)
    low, high = curve.band(curve.sizes)
    middle = curve.at(curve.sizes)
    assert np.all(low <= high)
    assert np.all((low - 0.02 < middle) & (middle < high + 0.02))
