"""Reading: slices agree with the whole, each chunk is unpacked once, and every kind of bad file is named."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from comparison import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from caloforge.errors import FileFormatError, InputError, UnknownNameError
from caloforge.geometry import Detector
from caloforge.showers import Showers, ShowerSource, open_showers, read_showers

N = 53


@pytest.fixture(scope="module", params=["dense", "sparse"])
def path(make, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many small chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caloforge.showers.hdf5.CHUNK_BYTES", 7 * 60 * 4)
        patch.setattr("caloforge.showers.chunks._BAND_BYTES", 7 * 16 * 16)
        patch.setattr("caloforge.showers.chunks._CHUNK_POINTS", 16)
        patch.setattr("caloforge.showers.hdf5.COLUMN_BYTES", 64)
        path = make(N).save(tmp_path_factory.mktemp("showers") / "s.h5", layout=request.param)
    with h5py.File(path) as file:
        assert file["showers"].chunks == ((7, 60) if request.param == "dense" else (7, 16))
    return path


@pytest.fixture(scope="module")
def whole(path: Path) -> Showers:
    return read_showers(path)


def test_it_is_a_source(path: Path, whole: Showers) -> None:
    with open_showers(path) as file:
        assert isinstance(file, ShowerSource)
        assert len(file) == len(whole) == N
        for name in ("has_theta", "particle", "source", "seed", "attributes"):
            assert getattr(file, name) == getattr(whole, name)
        assert sorted(file.condition_names) == sorted(whole.condition_names)
        np.testing.assert_array_equal(file.incident_energy, whole.incident_energy)
        np.testing.assert_array_equal(file.incident_theta, whole.incident_theta)
        for name in ("incident_energy", "incident_theta", "impact", "alignment"):
            np.testing.assert_array_equal(file.condition(name), whole.condition(name))
        with pytest.raises(UnknownNameError, match="unknown condition 'tilt'; known: incident_energy"):
            file.condition("tilt")


@settings(deadline=None, max_examples=40)
@given(which=st.slices(N))
def test_slices_equal_those_of_the_whole(path: Path, whole: Showers, which: slice) -> None:
    with open_showers(path) as file:
        assert_same(file[which], whole[which])


@settings(deadline=None, max_examples=40)
@given(which=st.lists(st.integers(-N, N - 1), max_size=30))
def test_taking_equals_that_of_the_whole(path: Path, whole: Showers, which: list[int]) -> None:
    with open_showers(path) as file:
        assert_same(file.take(which), whole.take(which))
        assert_same(file[which], whole[which])


@settings(deadline=None, max_examples=25)
@given(size=st.one_of(st.none(), st.integers(1, 60)))
def test_chunks_join_to_the_whole(path: Path, whole: Showers, size: int | None) -> None:
    with open_showers(path) as file:
        assert_same(Showers.concatenate(file.chunks(size)), whole)


def test_masks_and_one(path: Path, whole: Showers) -> None:
    mask = whole.incident_theta > 60
    with open_showers(path) as file:
        assert_same(file[mask], whole[mask])
        assert_same(file[~mask & mask], whole[:0])
        assert_same(file[N - 1], whole[-1])
        with pytest.raises(IndexError, match=f"index {N} is out of range"):
            file[N]
        with pytest.raises(InputError, match="chunk size is -1"):
            file.chunks(-1)


def test_reading_unpacks_each_chunk_once(path: Path) -> None:
    """The cache holds a band of chunks, and the pieces of it that are left when a slice ends within it."""
    with open_showers(path) as file:
        cells = file._cells
        row = cells.dtype.itemsize * cells.shape[1]
        assert cells.id.get_access_plist().get_chunk_cache()[1] >= 7 * row + 7 * 60 * 4
        # A chunk that is spoilt on the disk after a slice has unpacked it is still whole in the cache.
        first = file[:3]
        place = file._cells.id.get_chunk_info(0)
        clean = path.read_bytes()
        try:
            with path.open("r+b") as raw:
                raw.seek(place.byte_offset)
                raw.write(bytes(place.size))
            second = file[3:7]
        finally:
            path.write_bytes(clean)
    assert_same(Showers.concatenate([first, second]), read_showers(path)[:7])


def test_closed_files_say_so(path: Path) -> None:
    file = open_showers(path)
    assert repr(file) == f"ShowerFile('{path}', {N} x toy)"
    file.close()
    assert repr(file) == f"ShowerFile('{path}', closed)"
    for use in (lambda: len(file), lambda: file[0:1], lambda: list(file.chunks())):
        with pytest.raises(InputError, match="is closed; open it again"):
            use()


def test_a_pickled_file_opens_again(path: Path, whole: Showers) -> None:
    with open_showers(path) as file:
        copy = pickle.loads(pickle.dumps(file))
    with copy:
        assert_same(copy[:], whole)


def test_a_users_detector_comes_from_the_file(toy: Detector, path: Path) -> None:
    with open_showers(path) as file:
        assert file.detector == toy
        assert file.detector.definition == toy.definition


# --- files of others -------------------------------------------------------------------------------------------------


def calochallenge(path: Path, **changes: np.ndarray) -> Path:
    """Write a file as the CaloChallenge does: no attributes, contiguous, double precision."""
    content = {
        "incident_energies": np.full((6, 1), 4e5),
        "showers": np.arange(6 * 368.0).reshape(6, 368),
    } | changes
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file[name] = values
    return path


def test_a_file_without_detector_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = calochallenge(tmp_path / "c.h5")
    showers = read_showers(path, detector="calochallenge-1-photons")
    np.testing.assert_array_equal(showers.cells, np.arange(6 * 368).reshape(6, 368))
    assert (showers.has_theta, showers.seed, showers.particle) == (False, None, "")
    with open_showers(path, "calochallenge-1-photons") as file:
        assert_same(file.take([5, 1]), showers.take([5, 1]))
    message = r"c\.h5: attribute 'detector': is missing; name the detector of its showers \(detector=NAME\)"
    with pytest.raises(FileFormatError, match=message):
        open_showers(path)


def test_columns_of_one_axis_and_chunks_across_cells(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cells = (0.1 * np.random.default_rng(0).random((100, 368))).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("showers", data=cells, chunks=(30, 25), compression="gzip")
        file["incident_energies"] = np.arange(1, 101)
        file["conditions/tag"] = np.arange(100, dtype=np.int8)
        file.attrs["detector"] = np.bytes_(b"calochallenge-1-photons")
        file.attrs["seed"] = 5
    with open_showers(path) as file:
        assert file._cells.id.get_access_plist().get_chunk_cache()[1] >= 30 * 368 * 4
        part = file[17:71]
    np.testing.assert_array_equal(part.cells, cells[17:71])
    np.testing.assert_array_equal(part.incident_energy, np.arange(18, 72))
    np.testing.assert_array_equal(part.conditions["tag"][:, 0], np.arange(17, 71))
    assert part.seed == 5


# --- bad files -------------------------------------------------------------------------------------------------------

Spoil = Callable[[h5py.File], None]


def swap(name: str, values: object) -> Spoil:
    def spoil(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file[name] = values

    return spoil


def put(name: str, row: int, value: float) -> Spoil:
    def spoil(file: h5py.File) -> None:
        file[name][row, 0] = value

    return spoil


def attribute(name: str, value: object) -> Spoil:
    def spoil(file: h5py.File) -> None:
        file.attrs[name] = value

    return spoil


STRUCTURE = {
    "no cells": (
        swap("showers", None),
        r"dataset 'showers': is missing; the file has: conditions, incident_e",
    ),
    "no energies": (swap("incident_energies", None), r"dataset 'incident_energies': is missing"),
    "wrong width": (
        swap("showers", np.zeros((9, 61))),
        r"'showers': has shape \(9, 61\); expected \(N, 60\) for det",
    ),
    "grid": (
        swap("showers", np.zeros((9, 3, 4, 5))),
        r"'showers': has shape \(9, 3, 4, 5\); expected \(N, 60\)",
    ),
    "text": (swap("showers", np.array([b"a"] * 9)), r"dataset 'showers': has type \|S1; expected numbers"),
    "two energies": (
        swap("incident_energies", np.ones((9, 2))),
        r"energies': has shape \(9, 2\); expected \(N, 1\)",
    ),
    "few energies": (
        swap("incident_energies", np.ones((8, 1))),
        r"energies': has 8 rows; expected 9, one a shower",
    ),
    "few angles": (
        swap("incident_theta", np.ones((8, 1))),
        r"dataset 'incident_theta': has 8 rows; expected 9",
    ),
    "few impacts": (
        swap("conditions/impact", np.ones((1, 2))),
        r"'conditions/impact': has 1 rows; expected 9",
    ),
    "deep impacts": (
        swap("conditions/impact", np.ones((9, 2, 2))),
        r"has shape \(9, 2, 2\); expected \(N, k\)",
    ),
    "conditions": (
        swap("conditions", np.ones(9)),
        r"'conditions': is a dataset; expected a group of datasets",
    ),
    "no showers": (
        swap("showers", np.zeros((0, 60))),
        r"dataset 'showers': has no showers; expected at least one",
    ),
    "broken definition": (
        attribute("detector_definition", "{}"),
        r"is 'toy', which cannot be built: .*detector",
    ),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_bad_structure_is_named_on_opening(make, tmp_path: Path, case: str) -> None:
    spoil, message = STRUCTURE[case]
    path = make(9).save(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(FileFormatError, match=message) as caught:
        open_showers(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_group_in_the_place_of_a_dataset(make, tmp_path: Path) -> None:
    path = make(2).save(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        del file["showers"]
        file.create_group("showers")
    with pytest.raises(FileFormatError, match="dataset 'showers': is a group; expected a dataset"):
        open_showers(path)


VALUES = {
    "NaN": (
        put("showers", 7, np.nan),
        r"dataset 'showers', row 7: cell 0 is nan; expected a finite energy in MeV",
    ),
    "negative": (put("showers", 7, -2.5), r"dataset 'showers', row 7: cell 0 is -2\.5"),
    "infinite": (put("showers", 7, np.inf), r"dataset 'showers', row 7: cell 0 is inf"),
    "no energy": (
        put("incident_energies", 7, 0),
        r"dataset 'incident_energies', row 7: is 0.* above zero",
    ),
    "NaN energy": (put("incident_energies", 7, np.nan), r"dataset 'incident_energies', row 7: is nan"),
    "angle": (
        put("incident_theta", 7, 181),
        r"dataset 'incident_theta', row 7: is 181.* between 0 and 180",
    ),
    "condition": (put("conditions/impact", 7, np.nan), r"dataset 'conditions/impact', row 7: is \[ *nan"),
}


@pytest.mark.parametrize("case", VALUES)
def test_bad_values_are_named_when_they_are_read(make, tmp_path: Path, case: str) -> None:
    spoil, message = VALUES[case]
    path = make(9).save(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        spoil(file)
    with open_showers(path) as file:
        assert len(file[:7]) == len(file.take([3, 6])) + 5
        for use in (lambda: file[5:], lambda: list(file.chunks(2)), lambda: file.take([7]), lambda: file[:]):
            with pytest.raises(FileFormatError, match=message) as caught:
                use()
            assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(FileFormatError, match=message):
        read_showers(path)


def test_columns_are_checked_as_well(make, tmp_path: Path) -> None:
    path = make(9).save(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["incident_energies"][4] = -1
    with (
        open_showers(path) as file,
        pytest.raises(FileFormatError, match="'incident_energies', row 4: is -1"),
    ):
        _ = file.incident_energy


def test_the_wrong_detector(make, tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileFormatError, match="attribute 'detector': is 'toy'; expected 'ild-ecal'"):
        open_showers(path, detector="ild-ecal")
    with h5py.File(make(2).save(tmp_path / "s.h5"), "r+") as file:
        text = file.attrs["detector_definition"]
        file.attrs["detector_definition"] = text.replace('"absorber_mm":3', '"absorber_mm":4')
    with pytest.raises(FileFormatError, match="attribute 'detector_definition': defines another 'toy'"):
        open_showers(tmp_path / "s.h5", detector=make(1).detector)


def test_an_unknown_detector(make, toy: Detector, tmp_path: Path) -> None:
    path = make(2).save(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["detector_definition"]
    with pytest.raises(
        FileFormatError, match=r"'detector': is 'toy', which cannot be built: unknown detector 'toy'"
    ):
        open_showers(path)
    assert len(read_showers(path, detector=toy)) == 2
    with h5py.File(path, "r+") as file:
        file.attrs["detector"] = "/etc/other.toml"
    with pytest.raises(FileFormatError, match="cannot be built: unknown detector"):
        open_showers(path)


def test_unknown_names_on_request(path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown detector 'other'"):
        open_showers(path, detector="other")


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none\.h5: no such file"):
        open_showers(tmp_path / "none.h5")
    with pytest.raises(FileFormatError, match="is a folder, not a file"):
        open_showers(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all\n" * 100])
def test_not_hdf5(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"s\.h5: is not an HDF5 file"):
        open_showers(path)


def test_not_readable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FileFormatError, match="is not readable"):
        open_showers(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated(make, tmp_path: Path, kept: float) -> None:
    path = make(200).save(tmp_path / "s.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(FileFormatError, match=r"s\.h5: is truncated: it ends before its data do"):
        open_showers(path)


def test_damaged_header(make, tmp_path: Path) -> None:
    path = make(3).save(tmp_path / "s.h5")
    content = bytearray(path.read_bytes())
    content[12:44] = bytes(32)
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"cannot be opened as HDF5|is not an HDF5 file|is truncated"):
        open_showers(path)


def test_damaged_data(make, tmp_path: Path) -> None:
    path = make(200).save(tmp_path / "s.h5")
    with h5py.File(path) as file:
        place = file["showers"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = place.byte_offset + place.size // 4
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)
    message = r"dataset 'showers', rows 0 to 199: cannot be read, the file is damaged"
    with open_showers(path) as file, pytest.raises(FileFormatError, match=message) as caught:
        file[:]
    assert "\n" not in str(caught.value)
