"""``caloforge convert``: a foreign file in, one line of what was understood, a file that every verb reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import caloforge as cf
from caloforge.showers import Showers, read_showers

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def photons() -> Showers:
    """Return 6 photons of 50 GeV in ``ild-ecal``."""
    return cf.simulate("ild-ecal", n=6, engine="gflash", energy="50GeV", seed=1)


@pytest.fixture
def theirs(photons: Showers, tmp_path: Path) -> Path:
    """Return a file in the layout of getting_high."""
    path = tmp_path / "theirs.hdf5"
    with h5py.File(path, "w") as file:
        file["30x30/layers"] = photons.grid().transpose(0, 3, 1, 2)
        file["30x30/energy"] = photons.incident_energy[:, None] / 1e3
    return path


def test_a_foreign_file_becomes_ours(run: Run, theirs: Path, photons: Showers, tmp_path: Path) -> None:
    output = tmp_path / "ours.h5"
    said = ("--particle", "gamma", "--source", "geant4")
    lines = run("convert", theirs, output, *said).stdout.splitlines()
    assert lines[0] == (
        f"read {theirs} as: format getting-high (guessed); detector ild-ecal (guessed); cells '30x30/layers' (axes zxy); "
        "incident energies GeV; cells MeV"
    )
    assert lines[1] == f"wrote {output} (6 showers in ild-ecal, format caloforge)"
    made = read_showers(output)
    np.testing.assert_array_equal(made.cells, photons.cells)
    assert (made.particle, made.source) == ("gamma", "geant4")
    assert made.attributes["converted_from"] == "getting-high"
    run("convert", output, tmp_path / "points.h5", "--layout", "sparse")
    np.testing.assert_array_equal(read_showers(tmp_path / "points.h5").cells, photons.cells)


def test_json(run: Run, theirs: Path, tmp_path: Path) -> None:
    answer = json.loads(run("convert", theirs, tmp_path / "o.npz", "--json").stdout)
    assert (answer["n"], answer["detector"], answer["written_as"], answer["warnings"]) == (
        6,
        "ild-ecal",
        "numpy",
        [],
    )
    assert "incident energies GeV" in answer["read_as"]


def test_the_list(run: Run) -> None:
    listed = {row["name"]: row for row in json.loads(run("convert", "--json").stdout)}
    assert {"caloforge", "calogan", "getting-high", "3dgan", "lemurs", "edm4hep", "root", "numpy"} <= set(
        listed
    )
    assert "getting-high" in run("convert").stdout


def test_refusals(refused: Run, run: Run, photons: Showers, theirs: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["showers"] = photons.grid().transpose(0, 3, 1, 2).reshape(6, -1)
        file["incident_energies"] = photons.incident_energy
    place = ("--detector", "ild-ecal")
    assert "settle it with --axes zxy" in refused("convert", tmp_path / "flat.h5", output, *place)
    assert "convert" in refused("view", tmp_path / "flat.h5", *place, "-o", tmp_path / "x.html")
    assert "(other layouts: caloforge convert)" in refused("view", theirs, *place, "-o", tmp_path / "x.html")
    assert "--energy-unit GeV" in refused("convert", theirs, output, "--energy-unit", "MeV")
    for option, text in (
        (("--key", "cells"), "expected ROLE=NAME"),
        (("--origin", "1,2"), "expected X,Y,Z"),
        (("--format", "no"), "unknown format 'no'; known: caloforge"),
    ):
        assert text in refused("convert", theirs, output, *option)
    assert "IN OUT" in refused("convert", theirs)
    assert not output.exists()
    result = run("convert", theirs, output, "--energy-unit", "MeV", "--allow-implausible")
    assert result.stderr.startswith("caloforge: warning: implausible: cells hold ")
    assert "look like GeV" in read_showers(output).attributes["implausible"]


def test_verbs_refuse_energies_in_gev(refused: Run, tmp_path: Path) -> None:
    showers = cf.simulate("clic-ecal", n=4, engine="gflash", energy="10-500GeV", seed=1)
    path = tmp_path / "gev.h5"
    with h5py.File(path, "w") as file:
        file["showers"], file["incident_energies"] = showers.cells, showers.incident_energy[:, None] / 1e3
        file.attrs["detector"] = "clic-ecal"
    line = refused("generate", "clic-electron/conv3d-gan", "--like", path, "-n", 3, "-o", tmp_path / "o.h5")
    assert "incident energies look like GeV" in line
