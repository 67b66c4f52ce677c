from __future__ import annotations

import numpy as np
import pytest

from caloforge.errors import InputError
from caloforge.statistics.two_sample import make_splits


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
