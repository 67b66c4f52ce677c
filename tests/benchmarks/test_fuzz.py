"""The campaign of changed inputs, in its short form, and what it found, as a kind each."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.errors import ConfigError, FileFormatError
from caloforge.formats import open_file
from caloforge.geometry import Detector, detector_from_definition, get_detector
from caloforge.geometry.definition import load_detector
from caloforge.showers import Showers, open_showers
from caloforge.text_files import parse_json, parse_toml, read_json, read_toml

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

LIGHT = (
    "own",
    "own sparse",
    "plain HDF5",
    "showerdata",
    "calochallenge",
    "own npz",
    "npz",
    "detector.toml",
    "limits.toml",
)
TOY = {"name": "toy", "nx": 3, "ny": 4, "pitch": 5, "layers": [{"repeat": 5, "depth_mm": 3}]}


@pytest.fixture(scope="module")
def toy() -> Detector:
    return detector_from_definition(json.dumps(TOY))


@pytest.fixture
def showers(toy: Detector) -> Showers:
    random = np.random.default_rng(1)
    cells = random.exponential(10, (40, toy.n_cells)) * (random.random((40, toy.n_cells)) < 0.4)
    return Showers(toy, cells, random.uniform(1e4, 1e5, 40), seed=7, particle="gamma", source="gflash")


def test_every_reader_answers_changed_inputs() -> None:
    """Nothing is read wrongly, ends in a traceback, hangs, takes all memory or kills the process."""
    from fuzz import GOOD, campaign

    outcomes = campaign(lambda subject: range(12), seed=3, only=LIGHT, heavy=(False,))
    assert len(outcomes) == 12 * len(LIGHT)
    assert [one for one in outcomes if one.outcome not in GOOD] == []
    assert min(Counter(one.outcome for one in outcomes).values()) > 10


@pytest.mark.slow
def test_models_answer_changed_files() -> None:
    from fuzz import GOOD, campaign

    outcomes = campaign(lambda subject: range(12), seed=3, heavy=(True,))
    assert [one for one in outcomes if one.outcome not in GOOD] == []


def test_the_campaign_notices_each_kind_of_fault(tmp_path: Path) -> None:
    """A reader that is wrong, raises, hangs, fills the memory or dies is counted as such."""
    import fuzz
    from fuzz_changes import Fair
    from fuzz_subjects import Subject

    faults: dict[str, Callable[[], Any]] = {
        "wrong": lambda: {"x": 2},
        "unexpected": lambda: 1 / 0,
        "memory": lambda: np.ones(1 << 40),
        "crashes": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "refused": lambda: get_detector("none"),
        "right": lambda: {"x": 1},
    }
    (tmp_path / "intact").mkdir()
    (tmp_path / "intact" / "f").touch()
    for outcome, read in faults.items():
        subject = Subject("a", lambda p: p, lambda p, r=read: r(), lambda p, r: ("none", Fair.SAME))
        found = fuzz.attack(subject, tmp_path / "intact", {"x": 1, "path": ["f"]}, 1, 1)
        assert found.outcome == outcome, found


def test_a_change_can_be_made_again() -> None:
    from fuzz_changes import damage

    data = bytes(range(256)) * 4
    made = [damage(data, Random(f"1/{number}")) for number in range(50)]
    assert made == [damage(data, Random(f"1/{number}")) for number in range(50)]
    assert sum(one == data for one in made) < 3


TEXTS = {
    "deep": ("[" * 5000, "nested deeper than 64 levels"),
    "deep, without recursion": ('{"a":' * 80 + "1" + "}" * 80, "nested deeper than 64 levels"),
    "digits": ('{"a": ' + "9" * 5000 + "}", "too many digits"),
    "large": ('{"a": ' + "9" * 30 + "}", "more than 64 bits"),
    "not a number": ('{"a": NaN}', "NaN is not a number"),
    "infinite": ('{"a": 1e999}', "1e999 is not a number"),
    "a list": ("[1]", "expected an object"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_json_is_bounded(name: str) -> None:
    text, message = TEXTS[name]
    with pytest.raises(FileFormatError, match=message):
        parse_json(text, "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5000, "nested deeper"),
        ("a" + ".a" * 100 + " = 1", "nested deeper"),
        ("a = " + "9" * 5000, "too many digits"),
        ("a = 0x" + "f" * 5000, "more than 64 bits"),
        ("a =", "is not TOML"),
    ],
)
def test_toml_is_bounded(text: str, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        parse_toml(text, "a.toml")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _nothing(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (_pipe, "is a pipe or a device, not a file"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "is a pipe or a device, not a file"),
    "gigabytes of nothing": (_nothing, "17,179,869,184 bytes"),
    "folder": (lambda p: p.mkdir(), "is a folder, not a file"),
    "circle": (lambda p: p.symlink_to(p.name), "cannot be read"),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("read", [read_json, read_toml, load_detector])
def test_only_regular_files_of_bounded_size_are_read(
    name: str, read: Callable[[Path], Any], tmp_path: Path
) -> None:
    make, message = SPECIAL[name]
    make(tmp_path / "a.toml")
    with pytest.raises(FileFormatError, match=message):
        read(tmp_path / "a.toml")


@pytest.mark.parametrize("name", ["pipe", "device", "gigabytes of nothing"])
def test_showers_are_in_regular_files(name: str, tmp_path: Path) -> None:
    SPECIAL[name][0](tmp_path / "a.h5")
    for read in (open_showers, open_file):
        with pytest.raises(FileFormatError):
            read(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"layers": [{"repeat": 1000, "depth_mm": 1}], "nx": 1000, "ny": 1000},
            "1,000,000,000 cells; expected at most",
        ),
        ({"layers": [{"repeat": 600, "depth_mm": 1}] * 2}, "1,200 layers; expected at most 1,000"),
        ({"layers": [{"repeat": True, "depth_mm": 1}]}, "layers.0.repeat': expected a number, not true"),
        ({"pitch": 1e300}, "expected a length of 1e-06 to 1e"),
        ({"padding": "5"}, "'padding': expected a number, not a text"),
        ({"description": 5}, "'description': expected a text, not a number"),
    ],
)
def test_detectors_have_bounded_sizes_and_plain_kinds(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector_from_definition(json.dumps(TOY | change))


def test_chunks_in_wrong_places_are_damage(showers: Showers, toy: Detector, tmp_path: Path) -> None:
    """Chunks that are marked as stored without their filters, or in bytes of one another, are not unpacked."""
    path = tmp_path / "s.h5"
    for mask, stored, message in (
        (1, None, "without a filter"),
        (0, b"x" * (3 << 20), "bytes of a chunk are not as many"),
    ):
        showers.save(path, force=True)
        with h5py.File(path, "r+") as file:
            kept = file["showers"].id.read_direct_chunk((0, 0))[1]
            file["showers"].id.write_direct_chunk((0, 0), stored or kept + bytes(1), mask)
        with pytest.raises(FileFormatError, match=f"dataset 'showers': is damaged: .*{message}"):
            open_showers(path)


def test_lists_of_variable_length_are_walked_before_hdf5_does(tmp_path: Path, toy: Detector) -> None:
    """HDF5 goes round for ever where an object of a collection says that it has no bytes."""
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file.attrs["particle"] = "gamma"
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    data[at : at + 16] = struct.pack("<HHIQ", 0, 0, 0, 0)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"a collection of texts or lists at byte .* is damaged"):
        open_showers(path, toy)


def test_attributes_that_readers_rely_on_have_their_kind(showers: Showers, tmp_path: Path) -> None:
    path = showers.save(tmp_path / "s.h5")
    for name, value in (
        ("seed", 1.5),
        ("particle", [1, 2]),
        ("source", h5py.Empty("f4")),
        ("seen_seeds", "many"),
    ):
        with h5py.File(path, "r+") as file:
            before = file.attrs.get(name)
            file.attrs[name] = value
        with pytest.raises(FileFormatError, match=f"attribute '{name}'"):
            open_showers(path)
        with h5py.File(path, "r+") as file:
            if before is None:
                del file.attrs[name]
            else:
                file.attrs[name] = before


def test_take_needs_no_list_of_all_rows(
    showers: Showers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_showers(showers.save(tmp_path / "s.h5")) as file:
        np.testing.assert_array_equal(file.take([-1, 3]).cells, showers.cells[[39, 3]])
        mask = np.arange(40) % 7 == 0
        np.testing.assert_array_equal(file.take(mask).cells, showers.cells[mask])
