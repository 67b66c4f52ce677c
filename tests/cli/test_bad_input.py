"""Bad input: exit code 2 and one line that says what, where and what was expected; nothing is left behind."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

Refused = Callable[..., str]
GFLASH = ("-n", 10, "--engine", "gflash")


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# names and settings


def test_a_folder_is_not_written_under_the_name_of_a_file(
    refused: Refused, showers_file: Path, tmp_path: Path
) -> None:
    name = tmp_path / "report.html"
    for command in (
        ("validate", showers_file, showers_file, "--allow-seen"),
        ("study", "layers", showers_file, showers_file),
        ("train", "vae", showers_file),
        ("benchmark", "atlas-photon/vae"),
        ("tune", "vae", showers_file, "--only", "--search", "latent=2,3"),
        ("split", showers_file, "--parts", 2),
        ("demo",),
    ):
        line = refused(*command, "-o", name)
        assert f"{name} is the name of a file; expected that of a folder" in line, command
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    "command", [("detectors", "ild-hcal"), ("simulate", "ild-hcal", *GFLASH, "-o", "x.h5")]
)
def test_unknown_detector(command: tuple[object, ...], refused: Refused) -> None:
    line = refused(*command)
    assert "unknown detector 'ild-hcal'" in line
    assert "ild-ecal" in line


def test_unknown_model(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    for command in (("models", "gan"), ("train", "gan", showers_file, "-o", tmp_path / "run")):
        line = refused(*command)
        assert "unknown model 'gan'" in line
        assert "vae" in line
    assert _left(tmp_path) == []


def test_unknown_engine_and_option_of_another_engine(refused: Refused, tmp_path: Path) -> None:
    line = refused("simulate", "ild-ecal", "-n", 1, "--engine", "fluka", "-o", tmp_path / "x.h5")
    assert "unknown engine 'fluka'; known: geant4, gflash" in line
    line = refused("simulate", "ild-ecal", *GFLASH, "--physics-list", "FTFP_BERT", "-o", tmp_path / "x.h5")
    assert "physics_list" in line
    assert _left(tmp_path) == []


WHOLE = 'name = "a"\nnx = 3\nny = 3\npitch = 5.0\n[[layers]]\n'
PLATES = 'absorber = "G4_W"\nabsorber_mm = 3.0\nactive = "G4_Si"\nactive_mm = 0.5\n'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"colour = 3\n{WHOLE}{PLATES}", "colour"),
        (f"{WHOLE}{PLATES}tint = 3\n", "layers.0.tint"),
        (f"{WHOLE}{PLATES.replace('G4_W', 'mithril')}", "mithril"),
        (f"{WHOLE}{PLATES.replace('3.0', '-3.0')}", "layers.0.absorber_mm"),
        (f"{WHOLE}{PLATES}[beam]\nenergy = '50'\n", "beam.energy"),
        ('name = "a"\nnx = 3\n', "ny"),
        ("name = [", "TOML"),
    ],
)
def test_wrong_field_of_a_detector_file(text: str, key: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    for command in (("detectors", path), ("simulate", path, *GFLASH, "-o", tmp_path / "x.h5")):
        line = refused(*command)
        assert str(path) in line
        assert key in line
    assert _left(tmp_path) == ["mine.toml"]


def test_unknown_key_of_a_training_file(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "vae.toml"
    path.write_text("[model]\nlatent_sise = 10\n")
    line = refused("train", "vae", showers_file, "-o", tmp_path / "run", "--config", path)
    assert str(path) in line
    assert "latent_sise" in line
    assert "known" in line
    assert _left(tmp_path) == ["vae.toml"]


@pytest.mark.parametrize("setting", ["no_such_key=1", "epochs=many", "epochs"])
def test_wrong_setting(setting: str, refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    assert setting.partition("=")[0] in refused(
        "train", "vae", showers_file, "-o", tmp_path / "run", "--set", setting
    )
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--precision", "half"), "unknown precision 'half'; known: float32, tf32, bf16"),
        (("--precision", "bf16"), "vae: no network of this model is known to be safe in bf16"),
        (("--compile",), "vae: this model names nothing to compile; leave out --compile"),
    ],
)
def test_a_precision_that_a_model_cannot_have(
    options: tuple[str, ...], text: str, refused: Refused, tmp_path: Path
) -> None:
    command = ("generate", "atlas-photon/vae", "-n", 3, "--energy", "65.536GeV", "--device", "cpu")
    assert text in refused(*command, *options, "-o", tmp_path / "x.h5")
    assert _left(tmp_path) == []


# energies and angles


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--energy", "50", "no unit"),
        ("--energy", "50parsec", "unknown unit"),
        ("--energy", "-5GeV", "not understood"),
        ("--energy", "0GeV", "out of range"),
        ("--energy", "1000000TeV", "out of range"),
        ("--energy", "100-10GeV", "out of range"),
        ("--theta", "0", "out of range"),
        ("--theta", "steep", "not understood"),
        ("--particle", "graviton", "graviton"),
    ],
)
def test_wrong_beam(option: str, value: str, text: str, refused: Refused, tmp_path: Path) -> None:
    line = refused("simulate", "clic-ecal", *GFLASH, f"{option}={value}", "-o", tmp_path / "x.h5")
    assert text in line
    assert "x.h5" not in _left(tmp_path)


def test_a_mesh_cannot_be_simulated(refused: Refused, tmp_path: Path) -> None:
    name = "calochallenge-1-pions"
    assert name in refused("simulate", name, *GFLASH, "-o", tmp_path / "x.h5")


def test_numbers_out_of_range_are_usage_errors(run: Callable[..., Any], tmp_path: Path) -> None:
    for option in (("-n", 0), ("-n", "many"), ("--workers", 0), ("--seed", -1)):
        result = run("simulate", "ild-ecal", *GFLASH, *option, "-o", tmp_path / "x.h5", code=2)
        assert "Traceback" not in result.output
    assert _left(tmp_path) == []


# outputs


def test_an_existing_output_is_kept(refused: Refused, run: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_text("mine")
    line = refused("simulate", "atlas-em-barrel", *GFLASH, "-o", path)
    assert str(path) in line
    assert "--force" in line
    assert path.read_text() == "mine"
    run("simulate", "atlas-em-barrel", *GFLASH, "-o", path, "--force")
    assert h5py.is_hdf5(path)
    assert _left(tmp_path) == ["x.h5"]


def test_an_existing_folder_is_kept(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    for command in (
        ("train", "vae", showers_file),
        ("validate", showers_file, showers_file),
    ):
        assert "--force" in refused(*command, "-o", tmp_path / "run")
    assert _left(tmp_path / "run") == ["notes.txt"]


@pytest.mark.parametrize("where", ["missing/x.h5", "file/x.h5"])
def test_a_folder_that_cannot_be_written(where: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused("simulate", "atlas-em-barrel", *GFLASH, "-o", tmp_path / where)
    assert str((tmp_path / where).parent) in line
    assert _left(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no file system here refuses even root")
def test_a_file_system_that_refuses(refused: Refused, showers_file: Path) -> None:
    for command in (
        ("simulate", "atlas-em-barrel", *GFLASH, "-o", "/proc/x.h5"),
        ("train", "vae", showers_file, "-o", "/proc/run"),
        ("validate", showers_file, showers_file, "-o", "/proc/report"),
        ("view", showers_file, "-o", "/proc/x.html"),
    ):
        assert "/proc" in refused(*command)


def test_a_folder_in_a_files_place(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for command in (("train", "vae", showers_file), ("validate", showers_file, showers_file)):
        line = refused(*command, "-o", tmp_path / "file")
        assert str(tmp_path / "file") in line
    assert "folder" in refused("simulate", "atlas-em-barrel", *GFLASH, "-o", tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", full)
    line = refused("simulate", "atlas-em-barrel", *GFLASH, "-o", tmp_path / "x.h5", code=1)
    assert "No space left" in line or "no space left" in line
    assert "x.h5" not in _left(tmp_path)
    assert not [name for name in _left(tmp_path) if name.endswith(".part")]


# files of showers


def test_a_file_that_is_not_there_or_not_hdf5(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("energy,cells\n")
    for wrong, reason in ((tmp_path / "none.h5", "no such file"), (text, "HDF5"), (tmp_path, "folder")):
        for command in (
            ("train", "vae", wrong, "-o", tmp_path / "out"),
            ("validate", showers_file, wrong, "-o", tmp_path / "out"),
            ("validate", wrong, showers_file, "-o", tmp_path / "out"),
            ("view", wrong, "-o", tmp_path / "out.html"),
        ):
            line = refused(*command)
            assert str(wrong) in line
            assert reason in line
    assert _left(tmp_path) == ["text.h5"]


def _changed(source: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def _empty(file: h5py.File) -> None:
    for name in ("showers", "incident_energies", *(f"conditions/{key}" for key in file["conditions"])):
        width = file[name].shape[1]
        del file[name]
        file[name] = np.zeros((0, width), np.float32)


def _put(row: int, value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["showers"][row, 3] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_empty, "no showers"),
        (_put(7, np.nan), "row 7"),
        (_put(9, -1.0), "row 9"),
        (lambda file: file.__delitem__("showers"), "showers"),
        (lambda file: file.attrs.__setitem__("detector", "clic-ecal"), "15625"),
        (lambda file: file.attrs.__delitem__("detector"), "--detector"),
    ],
    ids=["empty", "nan", "negative", "no-showers", "other-detector", "no-detector"],
)
def test_a_file_that_is_not_what_it_says(
    change: Callable[[h5py.File], None], text: str, refused: Refused, showers_file: Path, tmp_path: Path
) -> None:
    wrong = _changed(showers_file, tmp_path / "wrong.h5", change)
    for command in (
        ("validate", showers_file, wrong, "-o", tmp_path / "report"),
        ("train", "vae", wrong, "-o", tmp_path / "run", "--set", "epochs=1"),
    ):
        line = refused(*command)
        assert str(wrong) in line
        assert text in line
    assert not (tmp_path / "report" / "metrics.json").exists()


def test_files_of_two_detectors(
    refused: Refused, run: Callable[..., Any], showers_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.h5"
    run("simulate", "clic-ecal", "-n", 12, "--energy", "2GeV", "--engine", "gflash", "-o", other)
    line = refused("validate", showers_file, other, "-o", tmp_path / "report")
    assert "clic-ecal" in line
    assert "atlas-em-barrel" in line
    assert _left(tmp_path) == ["other.h5"]
    line = refused("view", other, "--detector", "atlas-em-barrel", "-o", tmp_path / "x.html")
    assert "clic-ecal" in line


def test_all_zero_showers_are_read_and_named(
    run: Callable[..., Any], refused: Refused, showers_file: Path, tmp_path: Path
) -> None:
    def blank(file: h5py.File) -> None:
        file["showers"][...] = 0.0

    zeros = _changed(showers_file, tmp_path / "zeros.h5", blank)
    assert "zero" in refused("train", "vae", zeros, "-o", tmp_path / "run", "--set", "epochs=1")
    run("view", zeros, "-o", tmp_path / "zeros.html")
    assert "<html" in (tmp_path / "zeros.html").read_text()[:200]


def test_an_event_that_is_not_there(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    assert "0 to 299" in refused("view", showers_file, "--event", 300, "-o", tmp_path / "x.html")
    assert ".html" in refused("view", showers_file, "-o", tmp_path / "x.gif")
    assert _left(tmp_path) == []


# generation


def test_a_source_that_is_no_model(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path / "none", tmp_path, showers_file):
        line = refused("generate", wrong, "-n", 10, "--energy", "50GeV", "-o", tmp_path / "x.h5")
        assert str(wrong) in line
    assert _left(tmp_path) == []


def test_what_to_generate_must_be_said(refused: Refused, showers_file: Path, tmp_path: Path) -> None:
    assert "--like" in refused("generate", tmp_path, "-o", tmp_path / "x.h5")
    both = ("--like", showers_file, "--energy", "5GeV")
    assert "--energy" in refused("generate", tmp_path, *both, "-o", tmp_path / "x.h5")
