"""Ours to another format and back: the same showers bit for bit, whatever the format."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.formats import convert, open_file, read
from caloforge.showers import Showers, read_showers
from caloforge.showers.seen import identities

WRITTEN = {
    "caloforge": ("a.h5", {}),
    "sparse": ("b.h5", {"layout": "sparse"}),
    "showerdata": ("c.h5", {"to": "showerdata"}),
    "root": ("d.root", {}),
    "numpy": ("e.npz", {}),
}


def assert_equal(left: Showers, right: Showers) -> None:
    assert left.detector == right.detector
    assert left.detector.definition == right.detector.definition
    for name in ("cells", "incident_energy", "incident_theta", "seen"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)
    assert left.conditions.keys() == right.conditions.keys()
    for name, values in left.conditions.items():
        np.testing.assert_array_equal(values, right.conditions[name], name)
    for name in ("has_theta", "particle", "source", "seed"):
        assert getattr(left, name) == getattr(right, name), name


@pytest.mark.parametrize("sample", ["photons", "inclined", "barrel", "voxels", "own", "finer", "rings"])
@pytest.mark.parametrize("form", WRITTEN)
def test_there_and_back(form: str, sample: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if form == "root":
        pytest.importorskip("uproot", reason="needs the extra 'formats'")
    showers = request.getfixturevalue(sample)
    first = showers.save(tmp_path / "first.h5")
    name, options = WRITTEN[form]
    there = convert(first, tmp_path / name, **options)
    assert (there.n, there.detector) == (len(showers), showers.detector.name)
    back = convert(there.output, tmp_path / "back.h5")
    assert back.read_as[0] == f"format {'caloforge' if form == 'sparse' else form} (guessed)"
    assert not back.warnings
    result = read_showers(back.output)
    assert_equal(showers, result)
    assert_equal(showers, read(there.output))
    np.testing.assert_array_equal(identities(result), identities(showers))
    kept = {name: value for name, value in showers.attributes.items() if name != "geant4_version"}
    assert {name: result.attributes[name] for name in kept} == kept


@pytest.mark.parametrize("form", WRITTEN)
def test_whole_numbers_keep_their_digits(form: str, tmp_path: Path) -> None:
    if form == "root":
        pytest.importorskip("uproot", reason="needs the extra 'formats'")
    events = np.array([2**24 + 1, 2**53 + 1, 2**62 + 1])
    cells = np.random.default_rng(4).random((3, 100), np.float32)
    showers = Showers("ild-ecal-10x10", cells, np.full(3, 50e3), conditions={"event": events})
    name, options = WRITTEN[form]
    there = convert(showers.save(tmp_path / "first.h5"), tmp_path / name, **options).output
    back = read_showers(convert(there, tmp_path / "back.h5").output)
    np.testing.assert_array_equal(back.conditions["event"][:, 0], events)


@pytest.mark.parametrize("name", ["c.h5", "d.root", "e.npz"])
def test_any_rows_are_those_of_the_whole(name: str, own: Showers, tmp_path: Path) -> None:
    """Going back and forth in a file, in chunks of any size."""
    if name.endswith(".root"):
        pytest.importorskip("uproot", reason="needs the extra 'formats'")
    path = tmp_path / name
    convert(own.save(tmp_path / "first.h5"), path, to="showerdata" if name == "c.h5" else None)
    with open_file(path) as file:
        chosen = np.array([30, 2, 2, 39, 0])
        assert_equal(file.take(chosen), own[chosen])
        assert_equal(file[11:13], own[11:13])
        assert_equal(file[own.incident_energy > 5e4], own[own.incident_energy > 5e4])
        assert_equal(file[::-7], own[::-7])
        assert len(file[5:5]) == len(file.take([])) == 0
        assert_equal(Showers.concatenate(file.chunks(7)), own)
        np.testing.assert_array_equal(file.condition("incident_theta")[:, 0], own.incident_theta)
        assert file.condition_names == ()


def test_showerdata_native_form(own: Showers, tmp_path: Path) -> None:
    """Rows are sequences of variable length, as the package's functions that change rows need."""
    path = convert(own.save(tmp_path / "a.h5"), tmp_path / "b.h5", to="showerdata").output
    with h5py.File(path) as file:
        assert h5py.check_vlen_dtype(file["showers"].dtype) == np.float32
        assert tuple(file["shape"][()]) == (40, file["num_points"][()].max(), 4)
        x, y, layer, energy = file["showers"][3].reshape(-1, 4).T
        assert file.attrs["energy_unit"] == "MeV"
        np.testing.assert_allclose(np.linalg.norm(file["directions"], axis=1), 1, rtol=1e-6)
    filled = np.flatnonzero(own.cells[3])
    np.testing.assert_array_equal(energy, own.cells[3, filled])
    np.testing.assert_array_equal(layer, own.detector.cell_layer[filled])
    np.testing.assert_allclose(np.stack([x, y], 1), own.detector.cell_centres[filled, :2], atol=1e-5)


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("hits", [0, 1, 3])
def test_showers_with_as_many_hits_each(form: str, hits: int, tmp_path: Path) -> None:
    """One shower, or several whose lists of hits are equally long, or all empty."""
    if form == "root":
        pytest.importorskip("uproot", reason="needs the extra 'formats'")
    name, options = WRITTEN[form]
    for n in (1, 4):
        cells = np.zeros((n, 27000), np.float32)
        cells[:, 5 : 5 + hits] = 1.5
        showers = Showers("ild-ecal", cells, np.full(n, 100.0))
        convert(showers.save(tmp_path / f"first{n}.h5"), tmp_path / f"{n}{name}", **options)
        assert_equal(read(tmp_path / f"{n}{name}"), showers)


def test_the_tree_of_root(inclined: Showers, tmp_path: Path) -> None:
    uproot = pytest.importorskip("uproot", reason="needs the extra 'formats'")
    path = convert(inclined.save(tmp_path / "a.h5"), tmp_path / "b.root").output
    with uproot.open(path) as file:
        tree = file["showers"].arrays(library="ak")
    filled = np.flatnonzero(inclined.cells[4])
    centres = inclined.detector.cell_centres[filled]
    for axis, name in enumerate(("hit_x", "hit_y", "hit_z")):
        np.testing.assert_allclose(tree[name][4].to_numpy(), centres[:, axis], atol=1e-4)
    np.testing.assert_array_equal(tree["hit_energy"][4].to_numpy(), inclined.cells[4, filled])
    np.testing.assert_array_equal(tree["incident_theta"].to_numpy(), inclined.incident_theta)


def test_the_arrays_of_npz(barrel: Showers, tmp_path: Path) -> None:
    path = convert(barrel.save(tmp_path / "a.h5"), tmp_path / "b.npz").output
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["showers"], barrel.cells)
        np.testing.assert_array_equal(arrays["incident_energies"][:, 0], barrel.incident_energy)
        np.testing.assert_array_equal(arrays["conditions/impact"], barrel.conditions["impact"])
