"""Likeness and memory: identical showers, copies, fresh showers, and the blocks against a loop."""

from itertools import combinations

import numpy as np
import pytest

from caloforge.errors import TooFewShowersError
from caloforge.showers import Showers
from caloforge.simulate import simulate
from caloforge.statistics import pairs as module
from caloforge.statistics.pairs import Neighbours, nearest
from caloforge.statistics.ssim import structural_similarity
from caloforge.studies.diversity.distances import (
    Memory,
    fingerprints,
    memory_of,
    similarities_between,
    similarities_within,
)
from caloforge.studies.diversity.sample import known_showers


@pytest.fixture(scope="module")
def showers():
    return simulate("ild-ecal", 60, energy="10-100GeV", engine="gflash", seed=1)


def test_nearest_agrees_with_all_distances(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)
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


@pytest.mark.parametrize("dimensions", [2, 200], ids=["few", "many"])
def test_no_memory_is_one_half_within_its_error(dimensions):
    rng = np.random.default_rng(dimensions)

    def sets():
        return [rng.gamma(0.5, 2.0, (60, dimensions)).astype(np.float32) for _ in range(2)]

    pulls, differences, hubs = [], [], []
    for _ in range(80):
        (training, held), (one, other) = sets(), sets()
        memories = [Memory(nearest(x, training), nearest(x, held), 60) for x in (one, other)]
        part, error = memories[0].closer
        pulls.append((part - 0.5) / error)
        more, error = memories[0].more_than(memories[1])
        differences.append(more / error)
        hubs.append(memories[0].neighbours)
    # in many dimensions few showers are the neighbours of all, and the error must know it
    assert (np.mean(hubs) < 35) == (dimensions == 200)
    for found in (pulls, differences):
        assert abs(np.mean(found)) < 4 / np.sqrt(80)
        assert 0.7 < np.std(found) < 1.35


def test_exchange_error_is_the_spread_over_all_halves():
    rng = np.random.default_rng(7)
    x, y, z = (rng.normal(size=(n, 3)).astype(np.float32) for n in (11, 3, 3))
    memory = Memory(nearest(x, y), nearest(x, z), 3)
    halves = [memory.weights[list(half)].sum() for half in combinations(range(6), 3)]
    assert memory.closer[1] == pytest.approx(np.std(halves))
    assert memory.closer[0] == pytest.approx(
        np.mean(memory.to_training.distance < memory.to_held_out.distance)
    )
    assert np.mean(halves) == pytest.approx(0.5)


def test_ties_count_half():
    same = Neighbours(np.array([1.0, 2.0]), np.array([0, 1]))
    assert Memory(same, same, 2).closer[0] == 0.5


def test_a_generator_that_repeats_is_found_out():
    rng = np.random.default_rng(3)
    training, held, fresh = (rng.gamma(0.5, 2.0, (50, 60)).astype(np.float32) for _ in range(3))
    marks = set(fingerprints(training))
    repeated = training[rng.integers(0, 50, 40)] * np.float32(1.05)  # nearly
    memory = memory_of(repeated, training, held, marks, 0.1)
    assert memory.closer[0] == 1
    assert memory.ratio < 0.5
    assert memory.copies == 0
    assert memory_of(training[:9], training, held, marks, 0.1).copies == 9
    assert abs(memory_of(fresh, training, held, marks, 0.1).closer[0] - 0.5) < 0.3


def test_training_showers_are_left_out_of_the_held_out_ones(showers):
    training = showers[:40]
    trusted = Showers.concatenate(
        [showers[30:40], simulate("ild-ecal", 50, energy="50GeV", engine="gflash", seed=2)]
    )
    known = known_showers(training, set(fingerprints(training.cells)), trusted)
    assert known.shared == 10
    assert len(known.training) == len(known.held_out) == len(known.others) == 25
    rows = fingerprints(np.concatenate([known.held_out, known.others]))
    assert len(set(rows)) == 50
    assert not set(rows) & set(known.marks)
    with pytest.raises(TooFewShowersError, match="60 reference showers 20 are not training showers"):
        known_showers(training, set(fingerprints(training.cells)), showers)


def test_identical_samples_have_pairs_of_similarity_one(showers):
    found = similarities_between(showers, showers.take(np.arange(60)[::-1]), 60, (1e-5, 1e-3), seed=0)
    np.testing.assert_allclose(found.values, 1.0)
    own = similarities_within(showers, 20, (1e-5, 1e-3), seed=0)
    assert own.values.shape == (20, 2)
    assert own.values.max() < 1
    assert (own.mean[1:] > own.mean[:-1]).all()  # a larger range sees less


def test_pairs_are_of_like_energy_and_agree_with_single_ones(showers, monkeypatch):
    found = similarities_within(showers, 30, (1e-4,), seed=3)
    order = np.argsort(showers.incident_energy)
    grid = showers.grid()
    expected = structural_similarity(grid, order[::2], grid, order[1::2], (0.1,))  # MeV
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_a_collapsed_sample_is_more_alike(showers):
    rows = np.random.default_rng(5).integers(0, 4, 60)
    collapsed = showers.take(rows)
    a, b = (similarities_within(one, 30, (1e-4,), seed=0) for one in (showers, collapsed))
    assert b.mean[0] > a.mean[0] + 5 * a.error[0]


def test_one_pair_is_not_enough(showers):
    with pytest.raises(TooFewShowersError, match="at least 2"):
        similarities_within(showers[:3], 30, (1e-4,), seed=0)
