"""The sparse layout: the same showers bit for bit, readable by ShowerData, and damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from comparison import assert_same

from caloforge.errors import FileFormatError, UnknownNameError
from caloforge.geometry import DETECTORS, Detector, get_detector
from caloforge.showers import (
    Hits,
    Showers,
    ShowerWriter,
    SparseShowers,
    open_showers,
    read_showers,
    write_showers,
)
from caloforge.showers.seen import identities
from caloforge.showers.sparse import Cells, directions_of

Change = Callable[[h5py.File], None]


def showers_of(detector: str, n: int = 9, fill: float = 0.1) -> Showers:
    place = get_detector(detector)
    rng = np.random.default_rng(1)
    cells = rng.exponential(1.0, (n, place.n_cells)) * (rng.random((n, place.n_cells)) < fill)
    cells[n // 2] = 0
    energy = rng.uniform(1e3, 1e5, n)
    cells *= place.sampling_fraction * energy.sum() / cells.sum()  # files of others must be plausible
    return Showers(place, cells, energy)


def save_as_showerdata(path: Path, showers: Showers, **changes: object) -> Path:
    """Write a file as version 0.7 of the package does: ``Showers.save`` without attributes, energies as they are given."""
    n, hits = len(showers), Hits.from_cells(showers.cells)
    points = np.concatenate([Cells(showers.detector).points[hits.cell], hits.energy[:, None]], axis=1)
    clouds = [points[a:b].ravel() for a, b in zip(hits.offsets, hits.offsets[1:], strict=False)]
    content = {
        "energies": showers.incident_energy[:, None].astype(np.float32),
        "directions": directions_of(showers.incident_theta),
        "pdg": np.full(n, 22, np.int32),
        "shower_ids": np.arange(n, dtype=np.int32),
        "shape": (n, int(hits.counts.max()), 4),
        "num_points": hits.counts.astype(np.int32),
    } | changes
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
        file.create_dataset("showers", (n,), h5py.vlen_dtype(np.float32))[...] = clouds
        file.attrs["showerdata_version"] = "0.7.0"
    return path


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS.names())
def test_every_cell_is_found_again(name: str) -> None:
    detector = get_detector(name)
    cells = Cells(detector)
    assert len(np.unique(cells.points, axis=0)) == detector.n_cells
    np.testing.assert_array_equal(cells.find(cells.points), np.arange(detector.n_cells))
    np.testing.assert_array_equal(cells.points[:, 2], detector.cell_layer)
    outside = cells.points + np.float32([1e5, 0, 0])
    assert (cells.find(outside) == -1).all()
    for wrong in (np.nan, np.inf, -1.0, detector.n_layers, 0.5):
        assert cells.find(np.array([[0, 0, wrong], [wrong, 0, -1]], np.float32)).tolist() == [-1, -1]


@pytest.mark.parametrize("name", ["atlas-em-barrel", "calochallenge-1-photons", "ild-ecal", "ild-ecal-10x10"])
def test_dense_to_sparse_to_dense_is_exact(name: str, tmp_path: Path) -> None:
    showers = showers_of(name)
    dense = showers.save(tmp_path / "a.h5")
    with open_showers(dense) as file:
        sparse = write_showers(tmp_path / "b.h5", file, layout="sparse")
    with open_showers(sparse) as file:
        back = write_showers(tmp_path / "c.h5", file)
        ours = identities(file)
    for path in (sparse, back):
        found = read_showers(path)
        assert_same(found, read_showers(dense))
        assert found.cells.tobytes() == showers.cells.tobytes()
    with open_showers(dense) as file:
        np.testing.assert_array_equal(ours, identities(file))


def test_the_seen_showers_and_everything_else_are_in_the_file(make, tmp_path: Path) -> None:
    showers = make(5, seen=np.arange(1, 9, dtype=np.uint64), attributes={"seen_seeds": [3, 4], "notes": "x"})
    back = read_showers(showers.save(tmp_path / "s.h5", layout="sparse"))
    np.testing.assert_array_equal(back.seen, showers.seen)
    assert_same(back, showers)


def test_the_file_does_not_depend_on_batches_threads_or_the_kind_of_batch(make, tmp_path: Path) -> None:
    whole = make(300)
    files: dict[str, set[bytes]] = {"dense": set(), "sparse": set()}
    for number, (size, threads, hits) in enumerate(
        [(300, 1, False), (300, 4, True), (7, 4, False), (130, 3, True)]
    ):
        for layout in ("dense", "sparse"):
            path = tmp_path / f"{number}-{layout}.h5"
            with ShowerWriter(path, whole.detector, layout=layout, threads=threads) as writer:
                for part in whole.chunks(size):
                    writer.append(SparseShowers.from_dense(part) if hits else part)
            if size == 300:
                files[layout].add(path.read_bytes())
            np.testing.assert_array_equal(read_showers(path).cells, whole.cells)
    assert [len(found) for found in files.values()] == [1, 1]
    for layout in files:
        with h5py.File(tmp_path / f"0-{layout}.h5") as a, h5py.File(tmp_path / f"2-{layout}.h5") as b:
            assert a["showers"].id.get_storage_size() == b["showers"].id.get_storage_size()


def test_batches_may_change_after_they_are_appended(make, tmp_path: Path) -> None:
    whole = make(200)
    for layout in ("dense", "sparse"):
        for hits in (False, True):
            path = tmp_path / f"{layout}-{hits}.h5"
            buffer = whole.cells[:50].copy()
            with ShowerWriter(path, whole.detector, layout=layout, threads=4) as writer:
                for start in range(0, 200, 50):
                    buffer[:] = whole.cells[start : start + 50]
                    part = whole[start : start + 50].replace(cells=buffer)
                    sparse = SparseShowers.from_dense(part)
                    writer.append(sparse if hits else part)
                    buffer[:] = -1
                    sparse.hits.energy[:] = -1
            np.testing.assert_array_equal(read_showers(path).cells, whole.cells)


def test_unknown_layout(make, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown layout 'packed'; known: dense, sparse"):
        make(2).save(tmp_path / "s.h5", layout="packed")


# --- ShowerData ------------------------------------------------------------------------------------------------------


def as_showerdata(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, points, 4) and their numbers as version 0.7 reads them (``core._get_shower_data``)."""
    with h5py.File(path) as file:
        shape = tuple(np.asarray(file["shape"][...], np.int32).tolist())
        rows = file["showers"][:]
        points = np.zeros((len(rows), shape[1], shape[2]), np.float32)
        for i, row in enumerate(rows):
            cloud = row.reshape(-1, shape[2])
            points[i, : len(cloud)] = cloud
        return points, np.asarray(file["num_points"][:], np.int32)


def test_showerdata_reads_our_files(make, tmp_path: Path) -> None:
    showers = make(9)
    path = showers.save(tmp_path / "s.h5", layout="sparse")
    points, numbers = as_showerdata(path)
    np.testing.assert_array_equal(numbers, np.count_nonzero(showers.cells, axis=1))
    np.testing.assert_array_equal(np.count_nonzero(points[:, :, 3], axis=1), numbers)
    np.testing.assert_array_equal(points[:, :, 3].max(axis=1), showers.cells.max(axis=1))
    centres = showers.detector.cell_centres
    for row, cells in enumerate(showers.cells):
        hit = np.flatnonzero(cells)
        np.testing.assert_allclose(points[row, : len(hit), :2], centres[hit, :2], rtol=1e-6)
        np.testing.assert_array_equal(points[row, : len(hit), 2], showers.detector.cell_layer[hit])
        np.testing.assert_array_equal(points[row, : len(hit), 3], cells[hit])
    with h5py.File(path) as file:
        assert (file["energies"].shape, file["directions"].shape) == ((9, 1), (9, 3))
        for name in ("pdg", "shower_ids", "num_points"):
            assert (file[name].shape, file[name].dtype) == ((9,), np.int32)
        assert file["pdg"][:].tolist() == [22] * 9
        assert file["shower_ids"][:].tolist() == list(range(9))
        np.testing.assert_allclose(np.linalg.norm(file["directions"], axis=1), 1, rtol=1e-6)
        theta = np.degrees(np.arctan2(file["directions"][:, 2], file["directions"][:, 1]))
        np.testing.assert_allclose(theta, showers.incident_theta, rtol=1e-5)


@pytest.mark.parametrize("name", ["ild-ecal-10x10", "atlas-em-barrel", "calochallenge-1-photons"])
def test_files_of_showerdata_are_read(name: str, tmp_path: Path) -> None:
    showers = showers_of(name, 200)
    path = save_as_showerdata(tmp_path / "s.h5", showers)
    with pytest.raises(FileFormatError, match=r"attribute 'detector': is missing; .*detector"):
        open_showers(path)
    with open_showers(path, name) as file:
        np.testing.assert_array_equal(file[:].cells, showers.cells)
        np.testing.assert_array_equal(file.take([150, 3]).cells, showers.cells[[150, 3]])
        np.testing.assert_allclose(file.incident_energy, showers.incident_energy, rtol=1e-6)
        assert (file.particle, file.has_theta, file.seed) == ("gamma", False, None)


def test_files_of_showerdata_with_angles_and_gev(make, tmp_path: Path) -> None:
    showers = make(20, conditions={})
    path = save_as_showerdata(
        tmp_path / "s.h5",
        showers.replace(incident_energy=showers.incident_energy / 1e3, cells=showers.cells / 1e3),
    )
    message = r"attribute 'energy_unit': is missing and energies are below 1000: MeV or GeV\?"
    with pytest.raises(FileFormatError, match=message):
        open_showers(path, showers.detector)
    with h5py.File(path, "r+") as file:
        file.attrs["energy_unit"] = "GeV"
    back = read_showers(path, showers.detector)
    np.testing.assert_allclose(back.incident_energy, showers.incident_energy, rtol=1e-6)
    np.testing.assert_allclose(back.incident_theta, showers.incident_theta, rtol=1e-5)
    np.testing.assert_allclose(back.cells, showers.cells, rtol=1e-6)


def test_points_of_others_in_one_cell_are_summed(tmp_path: Path) -> None:
    showers = showers_of("ild-ecal-10x10", 3)
    path = save_as_showerdata(tmp_path / "s.h5", showers)
    with h5py.File(path, "r+") as file:
        old = file["showers"][0].reshape(-1, 4)
        moved = old + np.float32([3, -3, 0.05, 0])
        file["showers"][0] = np.concatenate([old, moved]).ravel()
        file["num_points"][0] = 2 * len(old)
        del file["shape"]
        file["shape"] = (3, 100, 4)
    np.testing.assert_array_equal(read_showers(path, "ild-ecal-10x10").cells[0], 2 * showers.cells[0])


def test_a_time_of_each_point_is_ignored(tmp_path: Path) -> None:
    showers = showers_of("ild-ecal-10x10", 3)
    path = save_as_showerdata(tmp_path / "s.h5", showers, shape=(3, 100, 5))
    with h5py.File(path, "r+") as file:
        for row in range(3):
            points = file["showers"][row].reshape(-1, 4)
            file["showers"][row] = np.insert(points, 4, 7.0, axis=1).ravel()
    np.testing.assert_array_equal(read_showers(path, "ild-ecal-10x10").cells, showers.cells)


# --- damage ----------------------------------------------------------------------------------------------------------


def point(row: int, values: list[float], place: int = 0) -> Change:
    def change(file: h5py.File) -> None:
        points = file["showers"][row]
        points[place] = [old if new is None else new for old, new in zip(points[place], values, strict=True)]
        file["showers"][row] = points

    return change


def swap(name: str, values: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file[name] = values

    return change


def put(name: str, row: int, value: object) -> Change:
    def change(file: h5py.File) -> None:
        file[name][row] = value

    return change


def twice(file: h5py.File) -> None:
    points = file["showers"][7]
    points[1] = points[0]
    file["showers"][7] = points


DAMAGE: dict[str, tuple[Change, str]] = {
    "outside": (point(7, [None, 99, None, None]), r"dataset 'showers', row 7: point \(.*, 99, .*expected a point"),
    "beside a centre": (point(7, [None, -7.4, None, None]), r"row 7: .*the centre of a cell of 'toy'"),
    "no layer": (point(7, [None, None, 5, None]), r"dataset 'showers', row 7: point"),
    "NaN place": (point(7, [np.nan, None, None, None]), r"dataset 'showers', row 7: point \(nan"),
    "NaN energy": (point(7, [None, None, None, np.nan]), r"row 7: point .* has the energy nan"),
    "negative": (point(7, [None, None, None, -1]), r"row 7: point .* has the energy -1"),
    "infinite": (point(7, [None, None, None, np.inf]), r"row 7: point .* has the energy inf"),
    "twice": (twice, r"dataset 'showers', row 7: cell \d+ has several points; expected one"),
    "more points": (put("num_points", 7, 2), r"dataset 'showers', row 7: has energy behind its 2 points"),
    "no points": (put("num_points", 7, 0), r"dataset 'showers', row 7: has energy behind its 0 points"),
}  # fmt: skip

STRUCTURE: dict[str, tuple[Change, str]] = {
    "too many": (put("num_points", 7, 99), r"dataset 'num_points', row 7: is 99; expected 0 to \d+ points"),
    "negative number": (put("num_points", 7, -1), r"dataset 'num_points', row 7: is -1"),
    "few numbers": (swap("num_points", np.ones(8, int)), r"'num_points': has shape \(8,\) .* expected \(9,\)"),
    "no shape": (swap("shape", None), r"dataset 'shape': is missing"),
    "odd shape": (swap("shape", (9, 30, 3)), r"dataset 'shape': is \[9, 30, 3\]; expected \(N, points, 4 or 5\)"),
    "nothing": (swap("shape", (0, 30, 4)), r"dataset 'showers': has no showers"),
    "no points": (swap("showers", None), r"dataset 'showers': is missing"),
    "flat": (swap("showers", np.zeros((9, 40))), r"'showers': has shape \(9, 40\) .* expected \(9, points\)"),
    "text": (swap("num_points", [b"a"] * 9), r"dataset 'num_points': has shape \(9,\) and type"),
    "no energies": (swap("energies", None), r"dataset 'energies': is missing"),
    "unit": (lambda file: file.attrs.__setitem__("energy_unit", "eV"), r"'energy_unit': is 'eV'; expected MeV"),
    "other detector": (lambda file: file.attrs.__setitem__("detector", "clic"), r"'detector': is 'clic'; expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", [*DAMAGE, *(f"{name} (on opening)" for name in STRUCTURE)])
def test_damage_is_named(make, toy: Detector, case: str, tmp_path: Path) -> None:
    name = case.removesuffix(" (on opening)")
    change, message = (DAMAGE if name == case else STRUCTURE)[name]
    path = make(9).save(tmp_path / "s.h5", layout="sparse")
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_showers(path, toy)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    if name == case:
        with open_showers(path) as file:
            assert len(file[:7]) == len(file.take([8])) + 6
            with pytest.raises(FileFormatError, match=message):
                file[7]


def test_damaged_chunks(make, tmp_path: Path) -> None:
    path = make(200).save(tmp_path / "s.h5", layout="sparse")
    with h5py.File(path) as file:
        place = file["showers"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = place.byte_offset + place.size // 4
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)
    message = r"dataset 'showers', rows 0 to 199: cannot be read, the file is damaged"
    with open_showers(path) as file, pytest.raises(FileFormatError, match=message):
        file[:]


DIRECTIONS = {
    "x": ([0.6, 0, 0.8], r"dataset 'directions': has directions that lean in x"),
    "length": ([0, 0, 2], r"not of length 1"),
    "NaN": ([np.nan, 0, 1], r"dataset 'directions'"),
}


@pytest.mark.parametrize("case", DIRECTIONS)
def test_directions_that_are_not_angles(case: str, tmp_path: Path) -> None:
    wrong, message = DIRECTIONS[case]
    path = save_as_showerdata(
        tmp_path / "s.h5", showers_of("ild-ecal-10x10"), directions=np.tile(np.float32(wrong), (9, 1))
    )
    with pytest.raises(FileFormatError, match=message):
        open_showers(path, "ild-ecal-10x10")


def test_values_of_others_that_do_not_fit(tmp_path: Path) -> None:
    path = save_as_showerdata(tmp_path / "s.h5", showers_of("ild-ecal-10x10"))
    with h5py.File(path, "r+") as file:
        file["showers"][2] = file["showers"][2][:-1]
    with pytest.raises(
        FileFormatError, match=r"dataset 'showers', row 2: has \d+ values; expected \d+ points of 4"
    ):
        read_showers(path, "ild-ecal-10x10")
    path = save_as_showerdata(
        tmp_path / "t.h5", showers_of("ild-ecal-10x10"), energies=np.full((9, 1), np.nan)
    )
    with pytest.raises(FileFormatError, match=r"dataset 'energies', row 0: is nan"):
        read_showers(path, "ild-ecal-10x10")
