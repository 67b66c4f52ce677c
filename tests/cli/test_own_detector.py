"""A detector from a TOML file at every command: cells that differ by layer, and rings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.showers import read_showers

Run = Callable[..., Any]

FINER = """
name = "finer"
nx = [4, 4, 8, 8]
ny = 4
width = 80.0
[[layers]]
repeat = 4
absorber = "G4_Pb"
absorber_mm = 10.0
active = "plastic"
active_mm = 5.0
[materials.plastic]
density = 1.032
atoms = { C = 9, H = 10 }
[beam]
particle = "e-"
energy = "2GeV"
"""
RINGS = FINER.replace(
    "nx = [4, 4, 8, 8]\nny = 4\nwidth = 80.0", "r_edges = [0, 10, 40]\nn_alpha = [4, 4, 8, 8]"
)


@pytest.fixture(params=[("finer", FINER), ("rings", RINGS.replace("finer", "rings"))], ids=["finer", "rings"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, text = request.param
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return path


def simulated(run: Run, place: Path, n: int, name: str) -> Path:
    made = place.parent / name
    run("simulate", place, "-n", n, "--engine", "gflash", "--seed", 1, "-o", made)
    return made


def test_files_that_name_no_detector(place: Path, run: Run, refused: Callable[..., str]) -> None:
    made = simulated(run, place, 12, "a.h5")
    whole = read_showers(made)
    with h5py.File(made, "r+") as file:
        for name in ("detector", "detector_definition"):
            del file.attrs[name]
    for verb in ("view", "convert", "project", "validate"):
        files = (made, place.parent / "b.h5") if verb == "convert" else (made,)
        files = (made, made) if verb == "validate" else files
        out = () if verb == "convert" else ("-o", place.parent / f"{verb}.html")
        assert "--detector" in refused(verb, *files, *out)
    run("view", made, "--detector", place, "-o", place.parent / "x.html")
    run("convert", made, place.parent / "b.h5", "--detector", place)
    again = read_showers(place.parent / "b.h5")
    assert again.detector == whole.detector
    np.testing.assert_array_equal(again.cells, whole.cells)
    line = refused("train", "bib-ae", made, "-o", place.parent / "r", "--detector", place)
    assert f"'{whole.detector.name}' has ({whole.detector.n_cells},)" in line


def test_another_detector_of_the_same_name(place: Path, run: Run, refused: Callable[..., str]) -> None:
    made = simulated(run, place, 3, "a.h5")
    other = place.parent / "other.toml"
    other.write_text(place.read_text().replace("density = 1.032", "density = 1.05"))
    assert "another" in refused("view", made, "--detector", other, "-o", place.parent / "x.html")


def test_train_and_generate(place: Path, run: Run) -> None:
    made = simulated(run, place, 150, "a.h5")
    options = ("--set", "epochs=2", "--set", "train.validation=0.2", "--device", "cpu")
    run("train", "vae", made, "-o", place.parent / "run", *options)
    run(
        "generate",
        place.parent / "run",
        "-n",
        20,
        "--energy",
        "2GeV",
        "-o",
        place.parent / "g.h5",
        "--device",
        "cpu",
    )
    fake = read_showers(place.parent / "g.h5")
    assert fake.detector == read_showers(made).detector
    assert (fake.visible_energy > 0).all()
    shown = json.loads(run("detectors", place, "--json").stdout)
    assert shown["cells"] == fake.detector.n_cells
