"""Writing: what comes back is what went in; what fails leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from comparison import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

import caloforge
from caloforge.errors import (
    FileFormatError,
    IncompatibleError,
    InputError,
    OutputError,
    OutputExistsError,
    WriteError,
)
from caloforge.geometry import Detector
from caloforge.showers import Showers, ShowerWriter, open_showers, read_showers, write_showers
from caloforge.showers.writing import GuardedFile


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any),
    angled=st.booleans(),
    conditioned=st.booleans(),
    seed=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    layout=st.sampled_from(["dense", "sparse"]),
)
def test_round_trip_in_any_pieces(
    make, sizes: list[int], angled: bool, conditioned: bool, seed: int | None, layout: str
) -> None:
    changes = {} if angled else {"incident_theta": None}
    changes |= {} if conditioned else {"conditions": {}}
    whole = make(sum(sizes), **changes).replace(seed=seed)
    starts = np.cumsum([0, *sizes])
    parts = [whole[a:b] for a, b in pairwise(starts)]
    with tempfile.TemporaryDirectory() as folder:
        path = write_showers(Path(folder) / "showers.h5", iter(parts), layout=layout)
        back = read_showers(path)
    assert back.conditions.keys() == whole.conditions.keys()
    assert_same(back, whole.replace(conditions={name: whole.conditions[name] for name in back.conditions}))


def test_layout_of_the_file(make, tmp_path: Path) -> None:
    showers = make(4)
    with h5py.File(showers.save(tmp_path / "s.h5")) as file:
        assert sorted(file) == ["conditions", "incident_energies", "incident_theta", "showers"]
        assert (file["showers"].shape, file["showers"].dtype) == ((4, 60), np.float32)
        assert file["incident_energies"].shape == file["incident_theta"].shape == (4, 1)
        assert file["conditions/impact"].shape == (4, 2)
        assert (file["showers"].compression, file["showers"].shuffle) == ("gzip", True)
        facts = dict(file.attrs)
    assert facts.pop("detector_definition") == showers.detector.definition
    assert facts == {
        "detector": "toy",
        "particle": "gamma",
        "source": "test",
        "seed": 7,
        "caloforge_version": caloforge.__version__,
        "physics_list": "one",
        "cpu_seconds_per_shower": 0.25,
    }


@pytest.mark.parametrize("name", ["ild-ecal", "clic-ecal-wide", "ild-ecal-angled"])
def test_chunks_are_of_one_to_four_megabytes(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no showers"), ShowerWriter(tmp_path / "s.h5", name) as writer:
        chunks = writer._opened()[1]["showers"].chunks
    assert 2**20 <= 4 * chunks[0] * chunks[1] <= 2**22


def test_attributes_may_come_until_the_end(make, tmp_path: Path) -> None:
    showers = make(3)
    path = tmp_path / "s.h5"
    with ShowerWriter(path, showers.detector) as writer:
        writer.append(showers)
        writer.attributes |= {
            "cpu_seconds_per_shower": 1.5,
            "seeds": [1, 2],
            "missing": None,
            "detector": "ignored",
            "path": Path("x"),
        }
        assert len(writer) == 3
    back = read_showers(path)
    assert back.attributes == {"cpu_seconds_per_shower": 1.5, "seeds": [1, 2], "path": "x"}
    assert (back.particle, back.source, back.seed) == ("", "", None)


def test_long_attributes_are_kept(make, tmp_path: Path) -> None:
    text = "x" * 200_000
    path = make(1, attributes={"notes": text}).save(tmp_path / "s.h5")
    assert read_showers(path).attributes == {"notes": text}


def test_angles_that_come_late(make, tmp_path: Path) -> None:
    parts = [make(2, incident_theta=None), make(2), make(2, incident_theta=None)]
    back = read_showers(write_showers(tmp_path / "s.h5", parts))
    assert_same(back.replace(conditions={}), Showers.concatenate(parts).replace(conditions={}))


def test_a_file_can_be_copied_from_an_open_one(make, tmp_path: Path) -> None:
    showers = make(5)
    with open_showers(showers.save(tmp_path / "a.h5")) as file:
        write_showers(tmp_path / "b.h5", file)
    back = read_showers(tmp_path / "b.h5")
    assert_same(back, read_showers(tmp_path / "a.h5"))


def test_copying_reads_each_chunk_once(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    with open_showers(make(50).save(tmp_path / "a.h5")) as file:
        read = file._read_cells
        monkeypatch.setattr(file, "_read_cells", lambda a, b: rows.append(range(a, b)) or read(a, b))
        write_showers(tmp_path / "b.h5", file)
    assert [row for part in rows for row in part] == list(range(50))


def test_existing_files_are_kept(make, tmp_path: Path) -> None:
    path = make(5).save(tmp_path / "s.h5")
    before = path.read_bytes()

    def batches():
        pytest.fail("work was started")
        yield

    with pytest.raises(OutputExistsError, match="exists already; use force=True"):
        write_showers(path, batches())
    with pytest.raises(OutputExistsError), ShowerWriter(path, "ild-ecal"):
        pytest.fail("the writer was opened")
    assert path.read_bytes() == before
    assert len(read_showers(make(2).save(path, force=True))) == 2


def test_no_folder_to_write_to(make, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        make(1).save(tmp_path / "none" / "s.h5")


def test_a_failure_leaves_the_old_file_and_nothing_else(make, tmp_path: Path) -> None:
    path = make(5).save(tmp_path / "s.h5")

    def interrupted():
        yield make(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_showers(path, interrupted(), force=True)
    assert len(read_showers(path)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cells", -1.0, r"dataset 'showers', row 5: cell 0 is -1; .*; not written"),
        ("cells", np.nan, r"dataset 'showers', row 5: cell 0 is nan"),
        ("incident_energy", 0.0, r"dataset 'incident_energies', row 5: is 0"),
        ("incident_theta", 190.0, r"dataset 'incident_theta', row 5: is 190"),
    ],
)
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_bad_values_are_not_written(
    make, tmp_path: Path, field: str, value: float, message: str, layout: str
) -> None:
    bad = make(3, seed=1)
    array = getattr(bad, field).copy()
    array.reshape(3, -1)[2, 0] = value
    with pytest.raises(FileFormatError, match=message):
        write_showers(tmp_path / "s.h5", [make(3), bad.replace(**{field: array})], layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_batches_must_fit(make, tmp_path: Path) -> None:
    other = Showers("ild-ecal-10x10", np.zeros((1, 100)), [1.0])
    with pytest.raises(IncompatibleError, match="'ild-ecal-10x10' cannot be added to 'toy'"):
        write_showers(tmp_path / "s.h5", [make(1), other])
    for second in ({"conditions": {}}, {"conditions": {"impact": np.ones((1, 3)), "alignment": np.ones(1)}}):
        with pytest.raises(IncompatibleError, match="cannot be added to"):
            write_showers(tmp_path / "s.h5", [make(1), make(1, **second)])
    assert list(tmp_path.iterdir()) == []


def test_no_showers(make, tmp_path: Path) -> None:
    for nothing in ([], make(0), [make(0)]):
        with pytest.raises(InputError, match="no showers to write; expected at least one"):
            write_showers(tmp_path / "s.h5", nothing)
    assert list(tmp_path.iterdir()) == []


def test_attributes_that_a_file_cannot_hold(make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="attribute 'odd' is a dict; expected a text"):
        make(1, attributes={"odd": {"a": 1}}).save(tmp_path / "s.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_out_of_its_block(make, toy: Detector, tmp_path: Path) -> None:
    writer = ShowerWriter(tmp_path / "s.h5", toy)
    with pytest.raises(InputError, match="is not open; use it in a 'with' block"):
        writer.append(make(1))
    with writer:
        writer.append(make(1))
    with pytest.raises(InputError, match="is not open"):
        writer.append(make(1))


FULL = """
import resource, sys
import numpy as np
from caloforge.errors import WriteError
from caloforge.showers import Showers, ShowerWriter
limit, n = int(sys.argv[2]), 400
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
batch = Showers("calochallenge-1-photons", rng.random((n, 368)), np.ones(n))
try:
    with ShowerWriter(sys.argv[1], batch.detector, layout=sys.argv[4], threads=3) as writer:
        for _ in range(int(sys.argv[3])):
            writer.append(batch)
except WriteError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("limit", "batches", "layout"),
    [
        (1, 1, "dense"),
        (300_000, 1, "dense"),
        (700_000, 40, "dense"),
        (1, 1, "sparse"),
        (2_000_000, 20, "sparse"),
    ],
)
def test_a_full_disk(tmp_path: Path, limit: int, batches: int, layout: str) -> None:
    """The limit strikes at the header, at the end, or among the chunks; the process must live to tell."""
    path = tmp_path / "s.h5"
    # the limit would strike a coverage measurement of the process too, so there is none
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit), str(batches), layout],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == f"{path}: writing failed, nothing was kept: File too large\n"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_last_sync(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match=r"s\.h5: writing failed, nothing was kept: No space left on device"):
        make(2).save(tmp_path / "s.h5")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_library_itself(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("something in HDF5")

    monkeypatch.setattr(h5py.Dataset, "resize", broken)
    with pytest.raises(WriteError, match="something in HDF5"):
        make(2).save(tmp_path / "s.h5")
    assert list(tmp_path.iterdir()) == []


def test_guarded_file_keeps_its_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GuardedFile(tmp_path / "f")
    assert file.readable()
    assert file.writable()
    assert file.seekable()
    assert file.write(b"abc") == 3
    assert (file.tell(), file.seek(0), file.read(2)) == (3, 0, b"ab")
    with open("/dev/full", "w+b", buffering=0) as full:
        monkeypatch.setattr(file, "_file", full)
        assert file.write(b"abc") == 3
        first = file.error
        assert first is not None
        assert file.write(b"more") == 4
        assert file.truncate(7) == 7
    file.close()
    file.close()
    assert file.error is first
