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


def _raw(file: h5py.File, name: str) -> None:
    values = file[name][()]
    del file[name]
    external = [(str(Path(file.filename).with_name("data.raw")), 0, values.nbytes)]
    file.create_dataset(name, data=values, external=external)
    Path(file.filename).with_name("data.raw").unlink(missing_ok=True)


def _short(file: h5py.File, name: str) -> None:
    values, raw = file[name][()], Path(file.filename).with_name("short.raw")
    del file[name]
    file.create_dataset(name, data=values, external=[(str(raw), 0, values.nbytes)])
    file.flush()
    raw.write_bytes(raw.read_bytes()[:-4] if raw.stat().st_size else b"")


def _virtual(file: h5py.File, name: str, rows: int, write: bool = True) -> None:
    """Put the first rows of a dataset into another file, of which it becomes a virtual dataset."""
    values = file[name][()]
    del file[name]
    if write:
        with h5py.File(Path(file.filename).with_name("part.h5"), "w") as other:
            other["x"] = values[:rows]
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:rows] = h5py.VirtualSource("part.h5", "x", values[:rows].shape)
    file.create_virtual_dataset(name, layout)


FAULTS: dict[str, tuple[Callable[[h5py.File, str], object], str]] = {
    "soft link": (
        lambda f, n: _broken(f, n, h5py.SoftLink("/gone/x")),
        "is a link to /gone/x, which is not there",
    ),
    "external link": (
        lambda f, n: _broken(f, n, h5py.ExternalLink("gone.h5", "/x")),
        "is a link to gone.h5:/x, which is not there",
    ),
    "circular link": (lambda f, n: _broken(f, n, h5py.SoftLink(f"/{n}")), "which is not there"),
    "null dataset": (lambda f, n: _broken(f, n, h5py.Empty("f4")), "has no content"),
    "unwritten rows": (_unwritten, "rows that were never written, the first of them in 6 to 8"),
    "never written": (_never, "was never written"),
    "raw data missing": (_raw, r"has its data in .*data\.raw, which is not there"),
    "raw data too short": (_short, r"has its data in .*short\.raw, which is too short"),
    "source missing": (
        lambda f, n: _virtual(f, n, N, write=False),
        "virtual dataset of part.h5:x, which is not there",
    ),
    "source too short": (lambda f, n: _virtual(f, n, 7), r"sources fill \d+ of \d+ values"),
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
def test_links_and_virtual_datasets_that_are_there_are_read(make, how: str, foreign, toy: Detector) -> None:
    def change(file: h5py.File) -> None:
        file.move("incident_energies", "elsewhere")
        file["incident_energies"] = h5py.SoftLink("/elsewhere")
        with h5py.File(Path(file.filename).with_name("theta.h5"), "w") as other:
            file.copy("incident_theta", other)
        _broken(file, "incident_theta", h5py.ExternalLink("theta.h5", "incident_theta"))
        _virtual(file, "showers", N)

    made, expected = _open(foreign(change), toy, how)[:], make(N)
    np.testing.assert_array_equal(made.cells, expected.cells)
    np.testing.assert_array_equal(made.incident_energy, expected.incident_energy)
    np.testing.assert_array_equal(made.incident_theta, expected.incident_theta)


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
        FileFormatError, match=r"attribute 'detector': is '\['toy', 'other'\]'; expected 'toy'"
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
