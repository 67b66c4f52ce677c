from __future__ import annotations

import numpy as np
import pytest
from gaussians import gaussians
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from caloforge.statistics.scoring import (
    auc_with_error,
    calibrate,
    divergence_bits,
    importance,
    placements,
    separate,
)


def test_only_what_the_classifier_uses_is_important() -> None:
    a, b = gaussians(3000, 3, 1.0, seed=1)
    x = np.concatenate([a, b])

    def score(rows):
        return rows[:, 0].astype(float)

    found = importance(score, x, 3000, [np.array([k]) for k in range(3)], np.random.default_rng(2))
    assert found[0, 0] == pytest.approx(norm.cdf(1 / np.sqrt(2)) - 0.5, abs=4 * found[0, 1])
    assert 0.002 < found[0, 1] < 0.02
    np.testing.assert_array_equal(found[1:], 0.0)


def test_columns_that_say_the_same_are_important_together() -> None:
    """Each of two copies of a column is worth half of what they are worth together, at most."""
    a, b = gaussians(3000, 1, 1.5, seed=3)
    x = np.repeat(np.concatenate([a, b]), 2, axis=1)

    def score(rows):
        return rows.max(axis=1).astype(float)

    groups = [np.array([0]), np.array([1]), np.array([0, 1])]
    found = importance(score, x, 3000, groups, np.random.default_rng(4))
    assert found[2, 0] > 0.3
    assert found[2, 0] > found[:2, 0].max() + 5 * found[2, 1]


def test_the_error_of_a_fall_covers() -> None:
    pulls = []
    for seed in range(60):
        a, b = gaussians(150, 2, 0.8, seed=10 + seed)
        found = importance(
            lambda rows: rows[:, 0].astype(float),
            np.concatenate([a, b]),
            150,
            [np.array([0])],
            np.random.default_rng(seed),
        )[0]
        pulls.append((found[0] - (norm.cdf(0.8 / np.sqrt(2)) - 0.5)) / found[1])
    assert abs(np.mean(pulls)) < 0.5
    assert 0.6 < np.std(pulls) < 1.4


def test_columns_are_ordered_by_what_they_separate_alone() -> None:
    a, b = gaussians(500, 3, 1.0, seed=5)
    a[:400, 2] = np.nan  # lower than everything
    found = separate(np.concatenate([a, b]), 500)
    assert found[2] == pytest.approx(0.4, abs=0.03)
    assert found[0] == pytest.approx(0.26, abs=0.05)
    assert found[1] < 0.06


def test_auc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, 300), rng.integers(2, 10, 200)
    labels = np.repeat([0, 1], [300, 200])
    auc, error = auc_with_error(a, b)
    assert auc == pytest.approx(roc_auc_score(labels, np.concatenate([a, b])))
    boot = [auc_with_error(rng.choice(a, 300), rng.choice(b, 200))[0] for _ in range(300)]
    assert error == pytest.approx(np.std(boot), rel=0.2)


@pytest.mark.parametrize("truth", [(1.0, 0.0), (0.4, 0.7)])
def test_calibration_is_logistic_regression(truth: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=5000) * 2
    y = (rng.random(5000) < 1 / (1 + np.exp(-truth[0] * z - truth[1]))).astype(float)
    slope, offset = calibrate(z, y)
    fit = LogisticRegression(C=np.inf).fit(z[:, None], y)
    assert slope == pytest.approx(fit.coef_[0, 0], abs=0.01)
    assert offset == pytest.approx(fit.intercept_[0], abs=0.01)


def test_calibration_of_separable_scores_is_finite() -> None:
    z = np.concatenate([np.full(50, -3.0), np.full(50, 3.0)])
    slope, offset = calibrate(z, np.repeat([0.0, 1.0], 50))
    assert np.isfinite([slope, offset]).all()
    jsd, error = divergence_bits(slope * z[:50] + offset, slope * z[50:] + offset)
    assert 0.8 < jsd < 1.0
    assert error == pytest.approx(0.0, abs=1e-9)


def test_delongs_error_covers() -> None:
    rng = np.random.default_rng(8)
    true = norm.cdf(0.7 / np.sqrt(2.0))
    pulls = []
    for _ in range(500):
        value, error = auc_with_error(rng.standard_normal(120), 0.7 + rng.standard_normal(80))
        pulls.append((value - true) / error)
    assert abs(np.mean(np.abs(pulls) < 1.0) - 0.683) < 0.07
    assert abs(np.mean(pulls)) < 0.15


def test_placements_are_fractions_of_pairs() -> None:
    a, b = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    above, below = placements(a, b)
    np.testing.assert_allclose(above, [0.5, 1.0])
    np.testing.assert_allclose(below, [1.0, 0.75, 0.5])
