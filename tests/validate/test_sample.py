"""A sample computes its observables once; its parts are views of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import InputError, TooFewShowersError
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers
from caloforge.validate import sample as module
from caloforge.validate.sample import Sample


@pytest.fixture(scope="module")
def showers() -> Showers:
    rng = np.random.default_rng(0)
    cells = rng.exponential(1.0, (41, 100)) * (rng.random((41, 100)) < 0.4)
    return Showers(
        get_detector("ild-ecal-10x10"),
        cells,
        rng.uniform(1e3, 1e4, 41),
        rng.uniform(60, 90, 41),
        source="made up",
    )


@pytest.fixture
def sample(showers: Showers) -> Sample:
    return Sample(showers, "truth", threshold=0.2, cut=0.01)


def test_what_it_knows(sample: Sample, showers: Showers) -> None:
    assert (sample.n, len(sample), sample.label) == (41, 41, "truth")
    assert sample.detector.name == "ild-ecal-10x10"
    np.testing.assert_array_equal(sample.incident_energy, showers.incident_energy)
    np.testing.assert_array_equal(sample.incident_theta, showers.incident_theta)
    assert sample.condition("incident_energy").shape == (41, 1)
    assert "truth" in repr(sample)


def test_observables_are_computed_once(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = module.observe

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "observe", counted)
    table = sample.observables
    assert sample.observables is table
    first, second = sample.halves(3)
    assert len(first.observables) == len(second.observables) == 20
    assert len(calls) == 1
    assert (table.threshold, table.cut) == (0.2, 0.01)


def test_halves_are_disjoint_reproducible_rows(sample: Sample, showers: Showers) -> None:
    first, second = sample.halves(seed=5)
    assert (first.n, second.n) == (20, 20)
    assert not set(first.rows) & set(second.rows)
    assert (np.diff(first.rows) > 0).all()
    again, _ = sample.halves(seed=5)
    np.testing.assert_array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, sample.halves(seed=6)[0].rows)
    assert not np.array_equal(first.rows, sample.halves(seed=5, index=1)[0].rows)
    direct = Sample(showers[first.rows], "direct", 0.2, 0.01)
    for name in direct.observables.names:
        np.testing.assert_allclose(first.observables[name], direct.observables[name], err_msg=name)
    np.testing.assert_allclose(first.observables.cells.mean, direct.observables.cells.mean)
    np.testing.assert_allclose(first.observables.cells.std, direct.observables.cells.std)
    np.testing.assert_array_equal(first.incident_energy, showers.incident_energy[first.rows])
    np.testing.assert_array_equal(first.incident_theta, showers.incident_theta[first.rows])


def test_halves_of_halves_refer_to_the_whole(sample: Sample) -> None:
    first, _ = sample.halves(1)
    quarter, other = first.halves(1)
    assert set(quarter.rows) | set(other.rows) <= set(first.rows)
    np.testing.assert_array_equal(quarter.observables["hits"], sample.observables["hits"][quarter.rows])


def test_taking_is_reproducible_and_in_order(sample: Sample, showers: Showers) -> None:
    taken = sample.take(7, seed=2)
    np.testing.assert_array_equal(taken.cells, sample.take(7, seed=2).cells)
    np.testing.assert_array_equal(taken.cells, showers.cells[sample.choose(7, seed=2)])
    assert not np.array_equal(taken.cells, sample.take(7, seed=3).cells)
    assert len(sample.take(1000)) == 41
    half, _ = sample.halves(0)
    inside = {row.tobytes() for row in showers.cells[half.rows]}
    assert all(row.tobytes() in inside for row in half.take(9).cells)


def test_chunks_of_a_part(sample: Sample, showers: Showers) -> None:
    half, _ = sample.halves(4)
    np.testing.assert_array_equal(
        np.concatenate([chunk.cells for chunk in half.chunks(6)]), showers.cells[half.rows]
    )
    assert sum(len(chunk) for chunk in sample.chunks(6)) == 41


def test_a_part_by_mask(sample: Sample, showers: Showers) -> None:
    high = sample.part(showers.incident_energy > 5e3, "high")
    assert high.label == "high"
    assert (high.incident_energy > 5e3).all()
    with pytest.raises(TooFewShowersError):
        sample.part(showers.incident_energy > 1e9)
    with pytest.raises(InputError, match="it has 41"):
        sample.part([3, 41])


def test_from_a_file(sample: Sample, showers: Showers, tmp_path: Path) -> None:
    with open_showers(showers.save(tmp_path / "showers.h5")) as file:
        stored = Sample(file, "stored", 0.2, 0.01)
        np.testing.assert_array_equal(stored.take(11, seed=1).cells, sample.take(11, seed=1).cells)
        first, _ = stored.halves(2)
        np.testing.assert_allclose(first.observables.cells.mean, sample.halves(2)[0].observables.cells.mean)
        np.testing.assert_array_equal(stored.observables["hits"], sample.observables["hits"])


def test_too_few(showers: Showers) -> None:
    with pytest.raises(TooFewShowersError, match="'none' has no showers"):
        Sample(showers[:0], "none")
    with pytest.raises(TooFewShowersError):
        Sample(showers[:1], "one").halves()
