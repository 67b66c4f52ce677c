from __future__ import annotations

import numpy as np
import pytest
from gaussians import gaussians
from scipy.stats import norm

from caloforge.statistics.importance import importance, separate


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
