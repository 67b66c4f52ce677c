"""The collision rate: unbiased, with intervals that cover, and N back from N equally likely showers."""

import math
from itertools import combinations

import numpy as np
import pytest

from caloforge.errors import InputError
from caloforge.statistics.birthday import Duplicates, Interval, collision_rate


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
def test_uniform_draws_give_back_their_number(support):
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
