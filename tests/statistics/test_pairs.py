"""Divergences of pairs and nearest neighbours: blocks against loops, shifted profiles, copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import rel_entr

from caloforge.errors import InputError
from caloforge.statistics import pairs
from caloforge.statistics.pairs import nearest, pair_differences, pair_divergences, pair_indices


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
