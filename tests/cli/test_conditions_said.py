"""What commands say about conditions, and the detector of files that do not name it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.data import sample_path
from caloforge.showers import read_showers
from caloforge.train import RunFolder
from caloforge.zoo.shipping import train_command

Refused = Callable[..., str]
Run = Callable[..., Any]
VAE = "atlas-photon/vae"


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that names no detector."""
    path = read_showers(sample_path())[:60].save(tmp_path_factory.mktemp("nameless") / "data.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["detector"]
    return path


def test_an_angle_that_the_model_does_not_know(refused: Refused, run: Run, tmp_path: Path) -> None:
    command = ("generate", VAE, "-n", 3, "--energy", "50GeV", "-o", tmp_path / "a.h5")
    assert "no condition 'incident_theta', it was trained at 90 degrees only" in refused(
        *command, "--theta", 45
    )
    assert not (tmp_path / "a.h5").exists()
    result = run(*command, "--theta", 45, "--allow-extrapolation")
    assert "its showers are those of 90 degrees" in result.stderr
    assert read_showers(tmp_path / "a.h5").incident_theta.tolist() == [90.0] * 3


@pytest.mark.parametrize(
    ("model", "energy"),
    [
        ("clic-electron/conv3d-gan", "1keV"),
        ("clic-electron/conv3d-gan", "1.9GeV"),
        (VAE, "500MeV"),
        (VAE, "1GeV"),
    ],
)
def test_energies_far_below_the_training(model: str, energy: str, refused: Refused, tmp_path: Path) -> None:
    line = refused("generate", model, "-n", 1, "--energy", energy, "-o", tmp_path / "a.h5")
    assert "is outside the training's" in line


def test_the_lowest_energy_of_the_beam_is_accepted(run: Run, tmp_path: Path) -> None:
    run("generate", "clic-electron/conv3d-gan", "-n", 1, "--energy", "2GeV", "-o", tmp_path / "a.h5")


def test_angles_that_are_drawn_are_said(run: Run, tmp_path: Path) -> None:
    command = ("generate", "ild-photon-angled/bib-ae", "-n", 1, "--energy", "50GeV", "-o")
    assert "no angle is given (--theta); drawn are 30-90 degrees" in run(*command, tmp_path / "a.h5").stderr
    assert run(*command, tmp_path / "b.h5", "--theta", 60).stderr == ""


def test_a_reference_of_another_particle(refused: Refused, run: Run, tmp_path: Path) -> None:
    showers = read_showers(sample_path())[:3]
    path = showers.replace(particle="e-").save(tmp_path / "electrons.h5")
    line = refused("generate", VAE, "--like", path, "-o", tmp_path / "a.h5")
    assert "'like' has showers of 'e-', the model makes those of 'gamma'" in line
    result = run("generate", VAE, "--like", showers.save(tmp_path / "b.h5"), "-o", tmp_path / "c.h5")
    assert "not taken from 'like', since the model does not know it: impact" in result.stderr


def test_files_that_name_no_detector(nameless: Path, refused: Refused, run: Run, tmp_path: Path) -> None:
    like = ("generate", VAE, "--like", nameless, "-o", tmp_path / "a.h5")
    settings = ("--set", "epochs=1", "--set", "calibrate=false", "--set", "hidden=[8]", "--device", "cpu")
    train = ("train", "vae", nameless, "-o", tmp_path / "run", *settings)
    named = ("--detector", "atlas-em-barrel")
    for command in (like, train):
        assert "--detector NAME" in refused(*command)
        assert "(60, 266); expected" in refused(*command, "--detector", "ild-ecal-10x10")
        run(*command, *named)
    made = read_showers(tmp_path / "a.h5")
    np.testing.assert_array_equal(made.incident_energy, read_showers(sample_path()).incident_energy[:60])
    assert "--detector atlas-em-barrel" in train_command(RunFolder(tmp_path / "run"), ["a.h5"], "again")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["detector"], facts["incident_theta"]) == ("atlas-em-barrel", [90.0, 90.0])
    assert "is a model of one detector" in refused(
        "generate", VAE, "-n", 1, "--energy", "50GeV", *named, "-o", tmp_path / "b.h5"
    )
