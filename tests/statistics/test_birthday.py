"""The birthday curve and the rate of colliding pairs against exhaustive counts, exact formulas and known supports."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from caloforge.errors import InputError
from caloforge.statistics.birthday import (
    Duplicates,
    Interval,
    birthday_curve,
    clopper_pearson,
    collision_rate,
    no_duplicate,
)


def uniform(support, n, seed):
    labels = np.random.default_rng(seed).integers(0, support, n)
    first, second = np.nonzero(np.triu(labels[:, None] == labels[None, :], 1))
    return Duplicates(n, np.stack([first, second], axis=1))


def test_curve_agrees_with_every_subset():
    duplicates = Duplicates(8, np.array([[0, 1], [1, 2], [4, 7]]))
    curve = birthday_curve(duplicates, 6, subsets=4000, seed=3)
    for size, found in zip(curve.sizes, curve.probability, strict=True):
        subsets = [set(s) for s in combinations(range(8), int(size))]
        exact = np.mean([any({i, j} <= s for i, j in duplicates.pairs.tolist()) for s in subsets])
        assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000) + 1e-9


def test_bands_are_the_exact_binomial_ones():
    low, high = clopper_pearson(np.array([0, 3, 20]), 20)
    assert low[0] == 0
    assert high[2] == 1
    tail = sum(math.comb(20, k) * low[1] ** k * (1 - low[1]) ** (20 - k) for k in range(3, 21))
    assert tail == pytest.approx(0.025)
    assert (1 - high[0]) ** 20 == pytest.approx(0.025)


def test_the_classical_birthday():
    different = np.exp(no_duplicate(365, 30))
    assert different[22] > 0.5 > different[23]
    assert different[23] == pytest.approx(math.prod(1 - i / 365 for i in range(23)))


@pytest.mark.parametrize("support", [60, 1000])
def test_uniform_draws_give_back_their_number(support):
    n, values, rules, covered = 400, [], [], 0
    for seed in range(40):
        curve = birthday_curve(uniform(support, n, seed), n // 4, subsets=200, seed=seed)
        values.append(curve.fit.value)
        rules.append(curve.rule.value)
        covered += curve.fit.low <= support <= curve.fit.high
    assert np.mean(values) == pytest.approx(support, rel=0.08)
    # the paper's rule is larger: the first size past one half, about 1.39 N
    exact = float(np.argmax(no_duplicate(support, 100) < math.log(0.5))) ** 2
    assert exact == pytest.approx(2 * math.log(2) * support, rel=0.25)
    assert np.mean(rules) == pytest.approx(exact, rel=0.1)
    assert covered >= 35


def test_never_above_one_half_is_a_lower_bound():
    curve = birthday_curve(Duplicates(200, np.array([[3, 9]])), 40, subsets=300)
    assert math.isnan(curve.rule.value)
    assert curve.rule.low == 40**2
    assert curve.probability[-1] < 0.5
    none = birthday_curve(Duplicates(200, np.empty((0, 2), np.int64)), 40, subsets=50)
    assert none.probability.max() == 0
    assert math.isnan(none.fit.value)
    assert none.expected().max() == 0


def test_collapse_to_one_shower():
    pairs = np.array(list(combinations(range(30), 2)))
    curve = birthday_curve(Duplicates(30, pairs), 10, subsets=50)
    assert curve.rule.value == 4  # any two are duplicates
    assert curve.fit.value == pytest.approx(1.0, abs=0.05)


def test_same_seed_same_curve_and_a_band_around_it():
    duplicates = uniform(300, 200, 1)
    a, b = (birthday_curve(duplicates, 50, subsets=100, seed=4) for _ in range(2))
    np.testing.assert_array_equal(a.probability, b.probability)
    assert (a.low <= a.probability).all()
    assert (a.probability <= a.high).all()
    assert (np.diff(a.probability) >= 0).all()


def test_subsets_larger_than_the_sample_are_refused():
    with pytest.raises(InputError, match="expected 2 to 5"):
        birthday_curve(Duplicates(5, np.array([[0, 1]])), 6)


def duplicates_of(labels):
    """Return the duplicates of draws with known identity, the slow way."""
    pairs = [(i, j) for i, j in combinations(range(len(labels)), 2) if labels[i] == labels[j]]
    return Duplicates(len(labels), np.array(pairs, np.int64).reshape(-1, 2))


def draw(rng, weights, n):
    return duplicates_of(rng.choice(len(weights), size=n, p=weights / np.sum(weights)))


def test_rate_and_variance_follow_from_all_couples_of_pairs():
    labels = [0, 1, 0, 2, 0, 1, 3]
    found = collision_rate(duplicates_of(labels))
    pairs = list(combinations(range(7), 2))
    same = [labels[i] == labels[j] for i, j in pairs]
    apart = [
        a * b
        for a, p in zip(same, pairs, strict=True)
        for b, q in zip(same, pairs, strict=True)
        if not set(p) & set(q)
    ]
    rate = np.mean(same)
    assert (found.n, found.count) == (7, 4)
    assert found.rate == pytest.approx(rate)
    variance = max(rate**2 - np.mean(apart), rate * (1 - rate) / len(pairs))
    assert found.error == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize("weights", [np.ones(300), 1.0 / np.arange(1, 300)], ids=["uniform", "unequal"])
def test_rate_is_unbiased_and_its_interval_covers(weights):
    rng = np.random.default_rng(5)
    truth = float(np.sum((weights / weights.sum()) ** 2))
    found = [collision_rate(draw(rng, weights, 150)) for _ in range(200)]
    rates = np.array([item.rate for item in found])
    assert abs(rates.mean() - truth) < 4 * rates.std() / math.sqrt(len(rates))
    covered = np.mean([item.low <= truth <= item.high for item in found])
    assert 0.88 <= covered <= 1.0
    # the stated errors are those that the repetition shows
    assert np.sqrt(np.mean([item.error**2 for item in found])) == pytest.approx(rates.std(), rel=0.25)


@pytest.mark.parametrize("support", [20, 500])
def test_uniform_draws_give_back_their_number_by_collisions(support):
    rng = np.random.default_rng(support)
    found = [collision_rate(draw(rng, np.ones(support), 120)).support for _ in range(150)]
    values = np.array([item.value for item in found])
    assert abs(values.mean() / support - 1) < 4 * values.std() / support / math.sqrt(len(values)) + 0.01
    assert np.mean([item.low <= support <= item.high for item in found]) >= 0.9


def test_no_duplicate_gives_a_lower_bound_that_the_truth_keeps():
    found = collision_rate(Duplicates(100, np.empty((0, 2), np.int64)))
    assert found.rate == 0
    assert math.isnan(found.support.value)
    assert math.isinf(found.support.high)
    # with this support, 100 draws are without duplicate in 2.5 % of all cases
    assert math.exp(-4950 / found.support.low) == pytest.approx(0.025)


def test_one_shower_over_and_over_is_a_support_of_one():
    found = collision_rate(duplicates_of([7] * 12))
    assert found.rate == 1
    assert found.support == Interval(1.0, 1.0, 1.0)


def test_ratio_of_intervals_adds_errors_in_quadrature():
    a, b = Interval(100.0, 50.0, 200.0), Interval(10.0, 5.0, 20.0)
    ratio = a.over(b)
    assert ratio.value == 10
    assert ratio.low == pytest.approx(10 / 2 ** math.sqrt(2))
    assert ratio.high == pytest.approx(10 * 2 ** math.sqrt(2))
    bound = Interval(math.nan, 400.0, math.inf)
    assert math.isnan(a.over(bound).value)
    assert a.over(bound).high == pytest.approx(0.5)
    assert bound.over(a).low == pytest.approx(2.0)


def test_pairs_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match="pairs of shape"):
        Duplicates(5, np.zeros((3, 3), np.int64))
