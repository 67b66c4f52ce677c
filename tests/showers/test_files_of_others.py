"""HDF5 files that other programs wrote: what cannot be read is refused in one line that says what it is, the rest is read right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.errors import FileFormatError, IncompatibleError, InputError
from caloforge.formats import open_file
from caloforge.geometry import Detector
from caloforge.showers import Showers, ShowerSource, datasets, hdf5, open_showers
from caloforge.showers.datasets import dataset_names
from caloforge.showers.storage import storage_fault
from caloforge.showers.views import JoinedShowers, open_any

N = 12
Change = Callable[[h5py.File], object]


@pytest.fixture
def foreign(make, tmp_path: Path) -> Callable[[Change], Path]:
    """Return a function that writes plain arrays of showers to a file and changes them."""
    showers = make(N)

    def written(change: Change) -> Path:
        path = tmp_path / "foreign.h5"
        with h5py.File(path, "w") as file:
            file["showers"] = showers.cells
            file["incident_energies"] = showers.incident_energy[:, None]
            file["incident_theta"] = showers.incident_theta[:, None]
            file["conditions/impact"] = showers.conditions["impact"]
            change(file)
        return path

    return written


def _open(path: Path, toy: Detector, how: str) -> ShowerSource:
    """Open a file as one of our layout, or through the formats of others."""
    if how == "own":
        return open_showers(path, toy, allow_implausible=True)
    return open_file(path, format="calochallenge", detector=toy, allow_implausible=True)


def _broken(file: h5py.File, name: str, item: object) -> None:
    del file[name]
    file[name] = item


def _unwritten(file: h5py.File, name: str) -> None:
    values = file[name][()]
    del file[name]
    made = file.create_dataset(name, values.shape, values.dtype, chunks=(3, values.shape[1]))
    made[:6], made[9:] = values[:6], values[9:]


def _never(file: h5py.File, name: str) -> None:
    shape, kind = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, kind)


def _raw(file: h5py.File, name: str, raw: str) -> None:
    values = file[name][()]
    del file[name]
    file.create_dataset(name, values.shape, values.dtype, external=[(raw, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, source: str) -> None:
    """Make a dataset virtual, its source in the file itself or in another one."""
    file.move(name, "x")
    layout = h5py.VirtualLayout(file["x"].shape, file["x"].dtype)
    layout[:] = h5py.VirtualSource(source, "x" if source == "." else name, file["x"].shape)
    file.create_virtual_dataset(name, layout)


def _elsewhere(file: h5py.File, name: str, through: bool = False) -> None:
    """Move a dataset into another file that is there, behind an external link."""
    with h5py.File(Path(file.filename).with_name("part.h5"), "w") as other:
        file.copy(name, other, "a/x")
    if through:
        file["out"] = h5py.ExternalLink("part.h5", "/a")
    _broken(file, name, h5py.SoftLink("/out/x") if through else h5py.ExternalLink("part.h5", "/a/x"))


def _large(file: h5py.File, name: str) -> None:
    kind, shape = file[name].dtype, file[name].shape[1:]
    del file[name]
    try:
        made = file.create_dataset(
            name, (1 << 28, *shape), kind, chunks=(1 << 27, *shape), compression="gzip"
        )
    except ValueError:
        pytest.skip("this version of HDF5 writes no chunks of 4 GiB")
    made.id.write_direct_chunk((0,) * made.ndim, b"x")


def _odd(file: h5py.File, name: str) -> None:
    """Store numbers with another bias of the exponent."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    values = file[name][()]
    del file[name]
    space = h5py.h5s.create_simple(values.shape)
    made = h5py.h5d.create(
        file[name.rpartition("/")[0] or "/"].id, name.rpartition("/")[2].encode(), kind, space
    )
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, values.astype("f4"))


FAULTS: dict[str, tuple[Callable[[h5py.File, str], object], str]] = {
    "soft link": (
        lambda f, n: _broken(f, n, h5py.SoftLink("/gone/x")),
        "is a link to /gone/x, which is not there",
    ),
    "external link": (
        lambda f, n: _broken(f, n, h5py.ExternalLink("gone.h5", "/x")),
        "is a link out of the file, to gone.h5:/x",
    ),
    "external link that is there": (_elsewhere, "is a link out of the file, to part.h5:/a/x"),
    "through an external link": (
        lambda f, n: _elsewhere(f, n, through=True),
        "is a link out of the file, to part.h5:/a",
    ),
    "circular link": (lambda f, n: _broken(f, n, h5py.SoftLink(f"/{n}")), "which is not there"),
    "null dataset": (lambda f, n: _broken(f, n, h5py.Empty("f4")), "has no content"),
    "unwritten rows": (_unwritten, "rows that were never written, the first of them in 6 to 8"),
    "never written": (_never, "was never written"),
    "external storage": (
        lambda f, n: _raw(f, n, "/etc/passwd"),
        "has its values in another file, /etc/passwd",
    ),
    "external storage that is missing": (
        lambda f, n: _raw(f, n, "gone.raw"),
        "has its values in another file, gone.raw",
    ),
    "virtual": (lambda f, n: _virtual(f, n, "."), "is a virtual dataset"),
    "virtual of itself": (lambda f, n: _virtual(f, n, f.filename), "is a virtual dataset"),
    "virtual of nothing": (lambda f, n: _virtual(f, n, "gone.h5"), "is a virtual dataset"),
    "large chunks": (_large, r"has chunks of [\d,]+ MiB, .* expected at most 256 MiB"),
    "odd numbers": (_odd, r"has numbers of no usual type \(4 bytes\)"),
}


@pytest.mark.parametrize("how", ["own", "formats"])
@pytest.mark.parametrize("name", ["showers", "incident_energies", "incident_theta", "conditions/impact"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_there_is_named(fault: str, name: str, how: str, foreign, toy: Detector) -> None:
    """Not once are zeros, or a file without the dataset, read instead."""
    change, message = FAULTS[fault]
    path = foreign(lambda file: change(file, name))
    with pytest.raises(FileFormatError, match=message) as caught:
        _open(path, toy, how)
    assert f"dataset '{name}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_group_is_not_left_out(foreign, toy: Detector) -> None:
    path = foreign(lambda file: _broken(file, "conditions", h5py.SoftLink("/gone")))
    with pytest.raises(FileFormatError, match="'conditions': is a link to /gone, which is not there"):
        open_showers(path, toy, allow_implausible=True)


@pytest.mark.parametrize("how", ["own", "formats"])
def test_links_within_the_file_are_followed(make, how: str, foreign, toy: Detector) -> None:
    def change(file: h5py.File) -> None:
        file.move("incident_energies", "elsewhere/e")
        file["other"] = h5py.SoftLink("elsewhere")
        file["incident_energies"] = h5py.SoftLink("other/e")
        file["hard"] = file["incident_theta"]

    made, expected = _open(foreign(change), toy, how)[:], make(N)
    np.testing.assert_array_equal(made.cells, expected.cells)
    np.testing.assert_array_equal(made.incident_energy, expected.incident_energy)
    np.testing.assert_array_equal(made.incident_theta, expected.incident_theta)


def test_values_behind_a_link_have_the_range_of_its_name(foreign, toy: Detector) -> None:
    def change(file: h5py.File) -> None:
        file["incident_energies"][3] = -5
        file.move("incident_energies", "e")
        file["incident_energies"] = h5py.SoftLink("/e")

    with (
        open_showers(foreign(change), toy, allow_implausible=True) as file,
        pytest.raises(FileFormatError, match="'incident_energies', row 3: is -5"),
    ):
        file[:]


@pytest.mark.parametrize("name", ["incident_energy", "incident_theta"])
def test_a_condition_cannot_have_the_name_of_energy_or_angle(name: str, make, foreign, toy: Detector) -> None:
    with pytest.raises(
        FileFormatError, match=f"'conditions/{name}': stands for a dataset of the file itself"
    ):
        open_showers(foreign(lambda f: f.__setitem__(f"conditions/{name}", np.ones(N))), toy)
    with pytest.raises(InputError, match=f"condition '{name}' has the name of an argument"):
        make(3).replace(conditions={name: np.ones(3)})


ATTRIBUTES = {
    "long double": (np.longdouble(1.5), 1.5),
    "complex": (1 + 2j, "(1+2j)"),
    "bytes": (np.bytes_(b"text"), "text"),
    "list": ([1, 2], [1, 2]),
    "truth value": (np.bool_(True), True),
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_attributes_become_plain_values(kind: str, foreign, toy: Detector) -> None:
    given, expected = ATTRIBUTES[kind]
    with open_showers(
        foreign(lambda file: file.attrs.__setitem__("note", given)), toy, allow_implausible=True
    ) as file:
        found = file.attributes["note"]
        assert found == expected
        assert type(found) is type(expected)


def test_attributes_without_a_plain_value_are_left_out(foreign, toy: Detector) -> None:
    def change(file: h5py.File) -> None:
        file.attrs["reference"], file.attrs["null"] = file["showers"].ref, h5py.Empty("f4")
        file.attrs["references"] = np.array([file["showers"].ref], dtype=h5py.ref_dtype)

    with open_showers(foreign(change), toy, allow_implausible=True) as file:
        assert file.attributes == {}


def test_bytes_that_are_no_text_can_be_written_again(foreign, toy: Detector, tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file.attrs.create("note", b"caf\xe9", dtype=h5py.string_dtype())

    with open_showers(foreign(change), toy, allow_implausible=True) as file:
        assert file.attributes == {"note": "caf\ufffd"}
        file[:].save(tmp_path / "again.h5")


def test_several_detectors_are_none(foreign, toy: Detector) -> None:
    path = foreign(lambda file: file.attrs.__setitem__("detector", ["toy", "other"]))
    with pytest.raises(
        FileFormatError, match=r"attribute 'detector': is \['toy', 'other'\]; expected a text"
    ):
        open_showers(path, toy)


def test_points_that_were_never_written_are_missed(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of padding may be left out, whole showers may not."""
    monkeypatch.setattr("caloforge.showers.chunks._BAND_BYTES", 3 * 16 * 16)
    monkeypatch.setattr("caloforge.showers.chunks._CHUNK_POINTS", 16)
    path = make(N).save(tmp_path / "s.h5", layout="sparse")
    with h5py.File(path, "r+") as file:
        old = file["showers"]
        values, written = old[()], {"shape": old.shape, "dtype": old.dtype, "chunks": old.chunks}
        del file["showers"]
        rows = written["chunks"][0]
        made = file.create_dataset("showers", **written)
        made[rows:] = values[rows:]
    with pytest.raises(FileFormatError, match=r"'showers', row 0: was never written; expected \d+ points"):
        open_showers(path)


def test_facts_of_all_showers_may_stand_in_arrays_of_one_value(foreign, toy: Detector) -> None:
    def change(file: h5py.File) -> None:
        file.attrs["detector"], file.attrs["particle"] = ["toy"], np.array([["gamma"]], dtype=object)
        file.attrs["seed"], file.attrs["seen_seeds"] = np.array([5]), 3

    with open_showers(foreign(change), toy, allow_implausible=True) as file:
        assert (file.detector.name, file.particle, file.seed) == ("toy", "gamma", 5)
        assert file.attributes == {"seen_seeds": [3]}


def _with_filter(file: h5py.File, number: int, applied: bool) -> None:
    """Write the cells with an optional filter that is not there, as if it had been applied or was left out."""
    values = file["showers"][()]
    del file["showers"]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk(values.shape)
    layout.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(values.shape)
    made = h5py.h5d.create(file.id, b"showers", h5py.h5t.IEEE_F32LE, space, layout)
    made.write_direct_chunk((0, 0), values.astype("<f4").tobytes(), 0 if applied else 1)


@pytest.mark.parametrize("how", ["own", "formats"])
def test_a_missing_filter_is_not_called_damage(how: str, foreign, toy: Detector) -> None:
    path = foreign(lambda file: _with_filter(file, 32500, applied=True))
    with pytest.raises(FileFormatError, match=r"filter that HDF5 does not have here: unnamed \(id 32500\)"):
        _open(path, toy, how)


def test_a_filter_that_was_not_applied_is_not_needed(make, foreign, toy: Detector) -> None:
    path = foreign(lambda file: _with_filter(file, 32500, applied=False))
    with open_showers(path, toy, allow_implausible=True) as file:
        np.testing.assert_array_equal(file[:].cells, make(N).cells)


@pytest.mark.parametrize("how", ["own", "formats"])
def test_chunks_of_one_row_are_read_in_blocks(
    make, how: str, foreign, toy: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(file: h5py.File) -> None:
        values = file["showers"][()]
        del file["showers"]
        file.create_dataset("showers", data=values, chunks=(1, values.shape[1]))

    path, calls, read_rows = foreign(change), [], datasets.read_rows

    def counted(path: Path, dataset: h5py.Dataset, start: int, out: np.ndarray) -> None:
        calls.append((dataset.name, len(out)))
        read_rows(path, dataset, start, out)

    source = _open(path, toy, how)
    monkeypatch.setattr(datasets, "read_rows", counted)
    made = Showers.concatenate(list(source.chunks()))
    np.testing.assert_array_equal(made.cells, make(N).cells)
    assert [rows for name, rows in calls if name == "/showers"] == [N]


@pytest.mark.parametrize("chunk", [1, 3, 7, 5000])
def test_a_band_is_whole_chunks_of_bounded_size(chunk: int, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("x", (5000, 1000), "f4", chunks=(chunk, 10))
        rows = datasets.band_rows(made)
    assert rows % chunk == 0
    assert rows * 4000 <= max(hdf5.CHUNK_BYTES, chunk * 4000)


def test_names_behind_links_are_found_once_and_circles_end(foreign) -> None:
    def change(file: h5py.File) -> None:
        file["conditions/up"] = h5py.SoftLink("/")
        file["broken"] = h5py.SoftLink("/gone")
        file["alias"] = h5py.SoftLink("/showers")

    with h5py.File(foreign(change)) as file:
        found = datasets.dataset_names(file)
    expected = {"showers", "incident_energies", "incident_theta", "conditions/impact", "broken", "alias"}
    assert set(found) == expected
    assert len(found) == len(expected)


def test_several_files_are_one_sample(make, tmp_path: Path) -> None:
    parts = [make(5, seed=seed) for seed in (1, 2, 3)]
    paths = [part.save(tmp_path / f"{number}.h5") for number, part in enumerate(parts)]
    with open_any([paths[0], parts[1], str(paths[2])]) as source:
        made = source[:]
        assert isinstance(source, JoinedShowers)
        np.testing.assert_array_equal(made.cells, np.concatenate([part.cells for part in parts]))
        np.testing.assert_array_equal(source.incident_energy, made.incident_energy)
    with open_any([paths[0]]) as single, open_any(paths[0]) as alone:
        np.testing.assert_array_equal(single[:].cells, alone[:].cells)
    with pytest.raises(InputError, match="a sample of no files"), open_any([]):
        pass


def test_joined_showers_keep_what_is_wrong_with_any_model(make) -> None:
    good = make(3, attributes={"physics_list": "one", "seen_seeds": [1]})
    bad = make(
        3, attributes={"physics_list": "two", "seen_seeds": [2], "model_status": "unfinished"}, particle="e-"
    )
    joined = JoinedShowers([good, bad])
    assert joined.attributes == {"seen_seeds": [1, 2], "model_status": "unfinished"}
    assert joined.particle == "mixed"
    wide = make(3, conditions={"impact": np.zeros((3, 3)), "alignment": np.zeros(3)})
    with pytest.raises(IncompatibleError, match="condition 'impact' has 2, 3 values a shower"):
        JoinedShowers([good, wide]).condition("impact")


def test_a_chunk_that_the_index_hides_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hidden.h5"
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        file.create_dataset("a", data=np.arange(40.0)[:, None] + 1, chunks=(64, 1), maxshape=(None, 1))
    data = bytearray(path.read_bytes())
    end = data.find(b"TREE\x01") + 24 + 32 + 8 + 8  # the last key of the index: the end of the first chunk
    data[end : end + 24] = bytes(24)
    path.write_bytes(data)
    with h5py.File(path) as file:
        assert not file["a"][:].any()  # HDF5 reads zeros without an error
        assert "does not lead to one of them" in str(storage_fault(file["a"]))


def test_names_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        file.create_group(b"\xff\xfe")
        file["a"] = [1.0]
        assert dataset_names(file) == ["a"]
    with pytest.raises(FileFormatError, match="is missing; the file has"):
        open_showers(path, "ild-ecal-10x10")


def test_identities_of_seen_showers_are_there_once(foreign: Callable[[Change], Path], toy: Detector) -> None:
    def zeros(file: h5py.File) -> None:
        file["seen_identities"] = np.zeros(5, np.uint64)  # a checksum of zeros is right for zeros

    with pytest.raises(FileFormatError, match="5 identities of showers, of which 0 differ"):
        _ = _open(foreign(zeros), toy, "own").seen
