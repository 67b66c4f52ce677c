"""Identities of showers: what they do not depend on, what changes them, and the sets that files have."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caloforge.errors import FileFormatError, InputError
from caloforge.geometry import get_detector
from caloforge.showers import Showers, ShowerWriter, open_showers, read_showers, write_showers
from caloforge.showers.identity import mixed, overlap, seen_union
from caloforge.showers.seen import identities
from caloforge.showers.views import JoinedShowers

IMAGE = get_detector("ild-ecal-10x10")


def images(n: int = 40, number: int = 0, **facts) -> Showers:
    rng = np.random.default_rng(number)
    cells = rng.gamma(0.3, 10.0, (n, 100)).astype(np.float32)
    cells[cells < 1.0] = 0.0
    cells[::7] = 0.0
    return Showers(IMAGE, cells, rng.uniform(1e4, 1e5, n), particle="gamma", **facts)


@given(st.integers(1, 50), st.integers(0, 40), st.integers(0, 40))
def test_identities_do_not_depend_on_chunks_and_slices(chunk: int, start: int, stop: int) -> None:
    showers = images()
    whole = identities(showers)
    np.testing.assert_array_equal(identities(showers, chunk=chunk), whole)
    np.testing.assert_array_equal(identities(showers[start:stop]), whole[start:stop])
    order = np.random.default_rng(chunk).permutation(len(showers))
    np.testing.assert_array_equal(identities(showers.take(order)), whole[order])


def test_identities_survive_files_joins_and_names(tmp_path: Path) -> None:
    first, second = images(30, 1, source="geant4", seed=4), images(25, 2)
    expected = np.concatenate([identities(first), identities(second)])
    np.testing.assert_array_equal(identities(Showers.concatenate([first, second])), expected)
    paths = [write_showers(tmp_path / f"{k}.h5", part) for k, part in enumerate((first, second))]
    with open_showers(paths[0]) as a, open_showers(paths[1]) as b:
        np.testing.assert_array_equal(identities(JoinedShowers([a, b]), chunk=11), expected)
    renamed = first.replace(source="other", seed=9, particle="e-", attributes={"x": 1})
    np.testing.assert_array_equal(identities(renamed), identities(first))
    strided = Showers(IMAGE, np.asfortranarray(first.cells), first.incident_energy)
    np.testing.assert_array_equal(identities(strided), identities(first))


def test_a_changed_cell_or_energy_changes_one_identity() -> None:
    showers = images()
    before = identities(showers)
    row = 5
    column = int(np.flatnonzero(showers.cells[row])[0])
    cells = showers.cells.copy()
    cells[row, column] = np.nextafter(cells[row, column], np.float32(np.inf))
    changed = identities(showers.replace(cells=cells)) != before
    assert np.flatnonzero(changed).tolist() == [row]
    moved = showers.cells.copy()
    moved[row] = np.roll(moved[row], 1)
    assert np.flatnonzero(identities(showers.replace(cells=moved)) != before).tolist() == [row]
    energy = showers.incident_energy.copy()
    energy[row] *= 1 + 1e-12  # below the precision of float32
    np.testing.assert_array_equal(identities(showers.replace(incident_energy=energy)), before)
    energy[row] *= 1.001
    assert np.flatnonzero(identities(showers.replace(incident_energy=energy)) != before).tolist() == [row]


def test_empty_showers_have_no_identity_and_no_overlap() -> None:
    showers = images()
    found = identities(showers)
    empty = ~showers.cells.any(axis=1)
    assert empty.sum() == 6
    assert (found[empty] == 0).all()
    assert (found[~empty] != 0).all()
    assert len(np.unique(found[~empty])) == (~empty).sum()
    np.testing.assert_array_equal(overlap(found, found), ~empty)
    zero = showers.cells.copy()
    zero[empty] = -0.0
    np.testing.assert_array_equal(identities(showers.replace(cells=zero)), found)


def test_the_hash_is_the_one_that_files_and_cards_were_made_with() -> None:
    cells = np.zeros((1, 100), np.float32)
    cells[0, [3, 17]] = [1.5, 0.25]
    assert identities(Showers(IMAGE, cells, [50_000.0])).tolist() == [0xDC46756FA62FC979]


def test_mixing_is_a_permutation_that_looks_uniform() -> None:
    values = np.arange(100_000, dtype=np.uint64)
    out = mixed(values)
    assert mixed(np.zeros(1, np.uint64))[0] == 0xE220A8397B1DCDAF  # first output of SplitMix64 from seed 0
    assert len(np.unique(out)) == len(out)
    part = (out < np.uint64(2**62)).mean()
    assert part == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / len(out)))


def test_unions_are_sorted_and_without_empties() -> None:
    a, b = np.array([5, 3, 0], np.uint64), np.array([3, 2**63], np.uint64)
    assert seen_union([a, b]).tolist() == [3, 5, 2**63]
    assert seen_union([]).tolist() == []
    with pytest.raises(InputError, match="uint64"):
        seen_union([np.array([1, 2])])


def test_what_a_model_has_seen_stays_with_its_showers(tmp_path: Path) -> None:
    seen, more = np.array([1, 7, 9], np.uint64), np.array([2, 7], np.uint64)
    showers = images(seen=seen, attributes={"seen_seeds": [11, 12]})
    other = images(number=3, seen=more, attributes={"seen_seeds": [12, 13]})
    for part in (showers[2:5], showers.take([1]), showers.replace(source="x"), next(showers.chunks(4))):
        np.testing.assert_array_equal(part.seen, seen)
    joined = Showers.concatenate([showers, other, images(number=4)])
    assert joined.seen.tolist() == [1, 2, 7, 9]
    assert joined.attributes["seen_seeds"] == [11, 12, 13]
    path = write_showers(tmp_path / "a.h5", [showers, other])
    with h5py.File(path) as file:
        assert file["seen_identities"].dtype == np.uint64
    with open_showers(path) as file:
        assert file.seen.tolist() == file[:3].seen.tolist() == [1, 2, 7, 9]
        assert file.attributes["seen_seeds"] == [11, 12, 13]
        assert JoinedShowers([file, images()]).seen.tolist() == [1, 2, 7, 9]
        again = write_showers(tmp_path / "b.h5", file)
    assert read_showers(again).seen.tolist() == [1, 2, 7, 9]
    with h5py.File(write_showers(tmp_path / "c.h5", images())) as file:
        assert "seen_identities" not in file


def test_a_broken_seen_set_is_named(tmp_path: Path) -> None:
    path = write_showers(tmp_path / "a.h5", images())
    with h5py.File(path, "a") as file:
        file["seen_identities"] = np.arange(3.0)
    with open_showers(path) as file, pytest.raises(FileFormatError, match=r"seen_identities.*uint64"):
        _ = file.seen


def test_a_writer_collects_the_sets_of_its_batches(tmp_path: Path) -> None:
    with ShowerWriter(tmp_path / "a.h5", IMAGE) as writer:
        for k in range(1, 4):
            writer.append(images(3, k, seen=np.array([k, 10], np.uint64)))
    assert read_showers(tmp_path / "a.h5").seen.tolist() == [1, 2, 3, 10]
