"""``simulate``: in memory, to a file, again after an interruption; what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_engines import IsolatedToy, ToyEngine

from caloforge.errors import (
    IncompatibleError,
    InputError,
    OutputError,
    OutputExistsError,
    UnitError,
    UnknownNameError,
)
from caloforge.geometry import Detector
from caloforge.showers import open_showers, read_showers
from caloforge.simulate import ENGINES, simulate


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES._entries, "toy", ToyEngine)
    monkeypatch.setitem(ENGINES._entries, "isolated", IsolatedToy)


@pytest.mark.parametrize(("engine", "workers"), [("toy", 2), ("isolated", 1), ("gflash", 1)])
def test_file_and_memory_are_the_same(tmp_path: Path, tiny: Detector, engine: str, workers: int) -> None:
    path = tmp_path / "s.h5"
    options: dict[str, Any] = {"n": 10, "engine": engine, "seed": 4, "energy": "1-2GeV", "theta": "60-90"}
    assert simulate(tiny, output=path, workers=workers, **options) == path
    memory = simulate(tiny, **options)
    with open_showers(path) as file:
        stored = file[:]
        assert file.attributes["beam_energy"] == "1-2GeV"
        assert file.attributes["beam_theta"] == "60-90"
        assert file.attributes["n"] == 10
        assert file.attributes["cpu_seconds_per_shower"] >= 0
        assert (file.detector.name, file.seed) == ("tiny-ecal", 4)
    assert (stored.cells == memory.cells).all()
    assert stored.incident_energy == pytest.approx(memory.incident_energy, rel=1e-6)
    assert stored.condition("incident_theta") == pytest.approx(memory.condition("incident_theta"), rel=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.parametrize(("engine", "workers"), [("toy", 1), ("isolated", 2)])
def test_memory_needs_no_files(
    tiny: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, workers: int
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_args, **_kwargs: pytest.fail("a temporary file"))
    modified = tmp_path.stat().st_mtime_ns
    showers = simulate(tiny, n=10, engine=engine, workers=workers, mantissa_bits=23)
    assert (showers.cells == ToyEngine().run(tiny, tiny.beam, 0, 0, 10).cells).all()
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mtime_ns == modified


def test_parts_are_read_once(tmp_path: Path, tiny: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, read = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read(path))
    simulate(tiny, n=10, engine="toy", output=tmp_path / "s.h5")
    assert opened == [f"{a:010d}-{b:010d}.npz" for a, b in ((0, 4), (4, 8), (8, 10))]


def test_more_showers_begin_with_the_same(tiny: Detector) -> None:
    few, many = (simulate(tiny, n=n, engine="toy", seed=1) for n in (6, 11))
    assert (many.cells[:6] == few.cells).all()
    assert (simulate(tiny, n=6, engine="toy", seed=2).cells != few.cells).any()


def test_conditions_are_kept(tmp_path: Path) -> None:
    path = simulate("atlas-em-barrel", n=9, engine="toy", output=tmp_path / "a.h5")
    assert set(read_showers(path).conditions) == {"alignment_phi", "alignment_eta", "impact"}


def test_an_existing_output_is_kept_unless_forced(tmp_path: Path, tiny: Detector) -> None:
    path = tmp_path / "s.h5"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        simulate(tiny, n=2, engine="toy", output=path)
    assert path.read_text() == "mine"
    simulate(tiny, n=2, engine="toy", output=path, force=True)
    assert len(read_showers(path)) == 2


def test_a_run_goes_on_with_another_number_of_showers(
    tmp_path: Path, tiny: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("caloforge.simulate.run._join", broken)
        with pytest.raises(KeyboardInterrupt):
            simulate(tiny, n=10, engine="toy", output=tmp_path / "s.h5")
    assert (tmp_path / "s.h5.parts").is_dir()
    with pytest.raises(IncompatibleError, match="beam energy"):
        simulate(tiny, n=10, energy="3GeV", engine="toy", output=tmp_path / "s.h5")
    path = simulate(tiny, n=15, engine="toy", output=tmp_path / "s.h5")
    assert (read_showers(path).cells == simulate(tiny, n=15, engine="toy").cells).all()


def test_parts_of_a_written_output_go_and_others_stay(
    tmp_path: Path, tiny: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / "s.h5", tmp_path / "s.h5.parts"
    with monkeypatch.context() as patch:  # killed after the output had its name
        patch.setattr("caloforge.simulate.chunks.Parts.remove", lambda _: None)
        simulate(tiny, n=10, engine="toy", output=path)
    assert parts.is_dir()
    with pytest.raises(OutputExistsError):
        simulate(tiny, n=10, engine="toy", output=path, seed=1)  # not this one's
    assert parts.is_dir()
    card = (parts / "job.json").read_text()
    for left in ("all", "no parts", "nothing"):  # what the kill left
        parts.mkdir(exist_ok=True)
        (parts / ".lock").touch()
        if left == "no parts":
            (parts / "job.json").write_text(card)
        with pytest.raises(OutputExistsError):
            simulate(tiny, n=10, engine="toy", output=path)
        assert not parts.exists()

    def broken(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # interrupted before it replaces the output
        patch.setattr("caloforge.simulate.run._join", broken)
        with pytest.raises(KeyboardInterrupt):
            simulate(tiny, n=15, engine="toy", output=path, force=True)
    with pytest.raises(OutputExistsError):
        simulate(tiny, n=15, engine="toy", output=path)
    assert parts.is_dir()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n": 0}, InputError, "n is 0; expected 1 or more"),
        ({"n": 2, "workers": 0}, InputError, "workers is 0"),
        ({"n": 2, "energy": "50"}, UnitError, "no unit"),
        ({"n": 2, "theta": "200"}, UnitError, "out of range"),
        ({"n": 2, "engine": "fluka"}, UnknownNameError, "known: geant4, gflash"),
        ({"n": 2, "physics_list": "FTFP_BERT"}, InputError, "engine 'toy' has no option 'physics_list'"),
        ({"n": 2, "download_data": True}, InputError, "no option 'download_data'"),
        ({"n": 2, "detector": "calochallenge-1-pions"}, IncompatibleError, "cannot be simulated"),
        (
            {"n": 2, "detector": "calochallenge-2", "theta": "80-90"},
            IncompatibleError,
            "at 90 degrees, not theta 80-90",
        ),
        ({"n": 2, "detector": "no-such"}, UnknownNameError, "unknown detector"),
        ({"n": 2, "output": "no/such/folder/s.h5"}, OutputError, "does not exist"),
    ],
)
def test_bad_input(tiny: Detector, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        simulate(**({"detector": tiny, "engine": "toy"} | arguments))
