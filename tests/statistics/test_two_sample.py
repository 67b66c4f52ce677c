"""Scores, folds and the choice of classifiers."""

from __future__ import annotations

import numpy as np
import pytest
from gaussians import candidate, discriminant, gaussians
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from caloforge.errors import InputError
from caloforge.statistics.networks import OccupancyMLP
from caloforge.statistics.training import PRESETS, fit_boosting, fit_network
from caloforge.statistics.two_sample import (
    auc_with_error,
    calibrate,
    choose,
    combine,
    cross_fit,
    divergence_bits,
    importance,
    make_splits,
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


def network(x, labels, x_validation, labels_validation, seed):
    return fit_network(
        x,
        labels,
        x_validation,
        labels_validation,
        seed,
        lambda inputs: OccupancyMLP(inputs, 32),
        PRESETS["fast"],
    )


def splits_of(a, b, folds: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    return make_splits(rng.random((len(a), 1)), rng.random((len(b), 1)), folds, seed)


@pytest.mark.parametrize("fit", [discriminant, fit_boosting, network])
def test_shifted_gaussians_have_the_analytic_auc(fit) -> None:
    a, b = gaussians(2400, 3, 1.0, seed=1)
    value, error = combine(cross_fit(candidate(a, b, fit), splits_of(a, b)))
    expected = norm.cdf(1.0 / np.sqrt(2.0))
    assert error < 0.02
    assert expected - 0.02 - 3 * error < value < expected + 3 * error


@pytest.mark.parametrize("fit", [fit_boosting, network])
def test_equal_samples_have_the_auc_one_half(fit) -> None:
    a, b = gaussians(900, 4, 0.0, seed=2)
    value, error = combine(cross_fit(candidate(a, b, fit), splits_of(a, b)))
    assert abs(value - 0.5) < 3.5 * error
    assert error < 0.03


@pytest.mark.parametrize("fit", [fit_boosting, network])
def test_what_is_missing_is_information(fit) -> None:
    """Equal values where there are some, but other rows without one: an empty cell."""
    a, b = gaussians(600, 3, 0.0, seed=3)
    rng = np.random.default_rng(4)
    a[rng.random(600) < 0.3, 1] = np.nan
    b[rng.random(600) < 0.7, 1] = np.nan
    value, error = combine(cross_fit(candidate(a, b, fit), splits_of(a, b)))
    assert value == pytest.approx(0.7, abs=0.03 + 3 * error)  # 1/2 + (0.7 - 0.3) / 2


def test_the_best_of_many_useless_classifiers_is_not_better_than_one_half() -> None:
    """The choice by the validation part is unbiased; the largest AUC of the test part is not."""

    def useless(k: int):
        def fit(x, labels, x_validation, labels_validation, seed):
            w = np.random.default_rng(1000 * k + seed).standard_normal(x.shape[1])
            return lambda rows: rows @ w

        return fit

    chosen, largest, pulls = [], [], []
    for repetition in range(40):
        a, b = gaussians(90, 5, 0.0, seed=100 + repetition)
        splits = splits_of(a, b, seed=repetition)
        outcomes = {
            f"c{k}": cross_fit(candidate(a, b, useless(k), f"c{k}"), splits, seed=repetition)
            for k in range(12)
        }
        test = choose(outcomes)
        chosen.append(test.auc)
        pulls.append((test.auc - 0.5) / test.error)
        largest.append(max(combine(found)[0] for found in outcomes.values()))
    spread = np.std(chosen, ddof=1) / np.sqrt(40)
    assert abs(np.mean(chosen) - 0.5) < 3 * spread
    assert np.mean(largest) - 0.5 > 5 * np.std(largest, ddof=1) / np.sqrt(40)
    assert 0.6 < np.std(pulls) < 1.4  # the error is right


def test_the_strongest_is_chosen_fold_by_fold() -> None:
    a, b = gaussians(600, 3, 1.0, seed=5)

    def blind(x, labels, x_validation, labels_validation, seed):
        return lambda rows: rows[:, 2].astype(float)

    splits = splits_of(a, b)
    outcomes = {
        "blind": cross_fit(candidate(a, b, blind), splits),
        "sees": cross_fit(candidate(a, b, discriminant), splits),
    }
    test = choose(outcomes)
    assert test.winner == "sees"
    assert test.chosen == ("sees",) * 3
    assert (test.auc, test.error) == combine(outcomes["sees"])


def test_samples_with_the_same_conditions_are_not_learned_backwards() -> None:
    """Each energy is once in either sample; nothing else is known of a shower."""
    energy = np.random.default_rng(6).random((600, 1)).astype(np.float32)
    found = [
        combine(cross_fit(candidate(energy, energy, fit_boosting), make_splits(energy, energy, 3, seed)))[0]
        for seed in range(3)
    ]
    np.testing.assert_allclose(found, 0.5, atol=1e-9)  # equal rows of both samples have equal scores


def test_chance_differences_of_the_conditions_are_not_learned() -> None:
    """Discrete energies drawn independently: the mean AUC of classifiers that see nothing else is 0.5."""
    rng = np.random.default_rng(9)
    found = []
    for seed in range(60):
        a, b = rng.integers(0, 40, (2, 240, 1)).astype(np.float32)

        def count(x, labels, x_validation, labels_validation, seed):
            more = np.bincount(x[:, 0].astype(int), weights=2 * labels - 1, minlength=40)
            return lambda rows: more[rows[:, 0].astype(int)]

        found.append(combine(cross_fit(candidate(a, b, count), make_splits(a, b, 3, seed)))[0])
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found) / np.sqrt(60)


def test_an_auc_below_one_half_stays_below() -> None:
    a, b = gaussians(300, 2, 1.0, seed=7)

    def reversed_fit(x, labels, x_validation, labels_validation, seed):
        return lambda rows: -rows[:, 0].astype(float)

    test = choose({"reversed": cross_fit(candidate(a, b, reversed_fit), splits_of(a, b))})
    assert test.auc < 0.35


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_row_is_held_out_once_and_never_trained_on_then(folds: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((157, 1)), rng.random((203, 1))
    splits = make_splits(a, b, folds, seed=3)
    assert len(splits) == folds
    for side, n in (("reference", 157), ("generated", 203)):
        held_out = np.concatenate([getattr(split.test, side) for split in splits])
        np.testing.assert_array_equal(np.sort(held_out), np.arange(n))
        for split in splits:
            parts = [getattr(part, side) for part in (split.train, split.validation, split.test)]
            np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
            assert abs(len(parts[1]) - 0.2 * (n - len(parts[2]))) < 0.1 * n


def test_rows_with_the_same_condition_are_in_the_same_part() -> None:
    energy = np.random.default_rng(1).random((300, 2))
    order = np.random.default_rng(2).permutation(300)
    for split in make_splits(energy, energy[order], 3):
        for part in (split.train, split.validation, split.test):
            np.testing.assert_array_equal(np.sort(part.reference), np.sort(order[part.generated]))


def test_each_value_of_a_discrete_condition_is_divided_evenly() -> None:
    energy = np.repeat(2.0 ** np.arange(4), 60)[:, None]
    for split in make_splits(energy, energy, 3):
        for rows in (split.test.reference, split.test.generated):
            np.testing.assert_array_equal(np.unique(energy[rows], return_counts=True)[1], 20)


def test_the_seed_decides() -> None:
    x = np.random.default_rng(1).random((100, 1))
    first, again, other = (make_splits(x, x, 2, seed)[0].test.reference for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InputError, match="3 folds of 29 and 40 rows; expected at least 2 folds of 10 rows"):
        make_splits(np.zeros((29, 1)), np.zeros((40, 1)), 3)
    with pytest.raises(InputError, match="1 folds"):
        make_splits(np.zeros((29, 1)), np.zeros((40, 1)), 1)


def test_chance_differences_of_discrete_conditions_are_independent_between_the_parts() -> None:
    """What one sample has more of in the training part says nothing about the held-out part."""
    rng = np.random.default_rng(4)
    products = []
    for seed in range(300):
        a, b = rng.integers(0, 30, (2, 300, 1))
        split = make_splits(a, b, 3, seed)[0]
        difference = [
            np.bincount(a[part.reference, 0], minlength=30) - np.bincount(b[part.generated, 0], minlength=30)
            for part in (split.train, split.test)
        ]
        products.append(np.mean(difference[0] * difference[1]))
    assert abs(np.mean(products)) < 3.5 * np.std(products) / np.sqrt(300)
