"""Pairs, nearest neighbours and structural similarity against loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import rel_entr

from caloforge.errors import InputError
from caloforge.statistics import pairs
from caloforge.statistics import pairs as module
from caloforge.statistics.pairs import (
    nearest,
    neighbour_pairs,
    order_at_random,
    pair_differences,
    pair_divergences,
    pair_indices,
    rank_pairs,
    structural_similarity,
)


def slow(profiles):
    """Return the unnormalised Jensen-Shannon divergences of all pairs, one by one."""
    out = []
    for i, p in enumerate(profiles):
        for q in profiles[i + 1 :]:
            m = (p + q) / 2
            out.append(0.5 * sum(np.sum(rel_entr(x, m) - x + m) for x in (p, q)))
    return np.array(out)


@pytest.mark.parametrize("tile", [7, 1 << 18])
def test_blocks_agree_with_the_loop(monkeypatch, tile):
    monkeypatch.setitem(pairs._TILE, "cpu", tile)
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, 200.0, (23, 11)) * (rng.random((23, 11)) > 0.3)
    np.testing.assert_allclose(pair_divergences(profiles), slow(profiles), rtol=1e-5, atol=1e-9)


def test_identical_profiles_do_not_diverge_and_shifted_ones_more_with_the_shift():
    x = np.arange(60.0)
    shapes = np.stack([np.exp(-0.5 * ((x - c) / 3) ** 2) for c in (20, 20, 21, 22, 24, 28, 48)])
    found = pair_divergences(shapes)[:6]  # against the first
    assert found[0] < 1e-12 * found[1]
    assert (np.diff(found) > 0).all()
    # without overlap it is ln 2 times the energy
    assert found[-1] == pytest.approx(np.log(2) * shapes[0].sum(), rel=1e-3)
    # a Gaussian shifted by d has J = d^2 / (8 sigma^2) to leading order
    assert found[1] == pytest.approx(shapes[0].sum() / (8 * 9), rel=0.03)


def test_divergence_scales_with_the_unit_of_energy():
    profiles = np.random.default_rng(1).random((9, 5))
    np.testing.assert_allclose(
        pair_divergences(1000 * profiles), 1000 * pair_divergences(profiles), rtol=1e-5
    )


def test_condensed_order():
    n = 17
    expected = np.array([(i, j) for i in range(n) for j in range(i + 1, n)])
    np.testing.assert_array_equal(pair_indices(np.arange(len(expected)), n), expected)
    values = np.random.default_rng(2).random(n)
    found = pair_differences(values)
    np.testing.assert_allclose(found, np.abs(values[expected[:, 0]] - values[expected[:, 1]]), rtol=1e-6)


def test_negative_profiles_are_refused():
    with pytest.raises(InputError, match="not negative"):
        pair_divergences(np.array([[1.0, -1.0], [0.0, 1.0]]))


def test_nearest_agrees_with_all_distances(monkeypatch):
    monkeypatch.setattr(pairs, "_ROWS", 7)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 5)).astype(np.float32), rng.normal(size=(31, 5)).astype(np.float32)
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    found = nearest(a, b)
    np.testing.assert_array_equal(found.index, distances.argmin(axis=1))
    np.testing.assert_allclose(found.distance, distances.min(axis=1), rtol=1e-5)


def test_a_copy_is_its_own_neighbour_at_distance_zero():
    x = np.random.default_rng(1).normal(100.0, 1.0, (40, 300)).astype(np.float32)
    found = nearest(x[::-1], x)
    assert (found.distance == 0).all()
    np.testing.assert_array_equal(found.index, np.arange(40)[::-1])


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
