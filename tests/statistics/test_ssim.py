from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.statistics import ssim as module
from caloforge.statistics.ssim import neighbour_pairs, order_at_random, rank_pairs, structural_similarity


def slow_ssim(x: NDArray[np.floating], y: NDArray[np.floating], data_range: float) -> float:
    """Return the mean over windows and layers of the formula, one window at a time."""
    distance = np.arange(11) - 5.0
    weights = np.exp(-0.5 * (distance[:, None] ** 2 + distance**2) / 1.5**2)
    weights /= weights.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            for layer in range(x.shape[2]):
                a, b = (z[i : i + 11, j : j + 11, layer] for z in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                above = (2 * mean_a * mean_b + c1) * (2 * both + c2)
                found.append(above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(found))


def test_equal_to_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._PAIRS, "cpu", 3)
    monkeypatch.setattr(module, "_IMAGES", 2)
    rng = np.random.default_rng(0)
    a, b = rng.exponential(0.03, size=(2, 5, 13, 12, 2))
    a[2], b[3] = 0.0, 0.0
    i, j = np.array([0, 4, 2, 2, 1]), np.array([1, 1, 3, 0, 4])
    expected = [[slow_ssim(a[k], b[m], size) for size in (0.1, 10.0)] for k, m in zip(i, j, strict=True)]
    values = structural_similarity(a, i, b, j, (0.1, 10.0))
    np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-9)
    assert values[2] == pytest.approx(1.0)
    np.testing.assert_allclose(structural_similarity(b, j, a, i, (0.1, 10.0)), values)
    np.testing.assert_allclose(structural_similarity(a, i, a, i, (0.1,)), 1.0)


@pytest.mark.parametrize("shape", [(2, 10, 12, 3), (2, 12, 12)])
def test_images_smaller_than_the_window_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=">= 11"):
        structural_similarity(np.zeros(shape), np.arange(2), np.zeros(shape), np.arange(2), (0.1,))


def test_pairs_are_neighbours_in_the_condition_and_nothing_is_in_two_pairs() -> None:
    rng = np.random.default_rng(1)
    energy = rng.permutation(np.repeat([1.0, 2.0, 3.0], 7))
    order = order_at_random(energy, rng)
    assert (np.diff(energy[order]) >= 0).all()
    assert not np.array_equal(order, order_at_random(energy, rng))
    first, second = neighbour_pairs(order)
    assert len(first) == len(second) == 10
    assert len({*first, *second}) == 20
    assert (np.abs(energy[first] - energy[second]) <= 1.0).all()
    a, b = rank_pairs(order, order[::3], 7)
    assert len(set(a)) == len(set(b)) == 7
    np.testing.assert_allclose(energy[a], energy[b], atol=1.0)
    assert [len(rows) for rows in rank_pairs(order[:0], order, 0)] == [0, 0]
