"""A job array on the command line: ranges of a seed, and their merging."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caloforge.showers import read_showers

Run = Callable[..., Any]
BEAM = ("atlas-em-barrel", "--engine", "gflash", "--energy", "20GeV", "--theta", "90", "--particle", "gamma")


def test_jobs_are_made_and_merged(run: Run, refused: Run, tmp_path: Path) -> None:
    for first in (0, 40):
        made = run("simulate", *BEAM, "-n", 40, "--first", first, "-o", tmp_path / f"{first}.h5")
        assert f"seed 0, showers {first} to {first + 39}" in made.stdout
        assert made.stderr == ""
    parts = (tmp_path / "40.h5", tmp_path / "0.h5")
    assert "wrote" in run("merge", *parts, "-o", tmp_path / "all.h5").stdout
    assert len(read_showers(tmp_path / "all.h5")) == 80
    assert "exists already" in refused("merge", *parts, "-o", tmp_path / "all.h5")
    assert "both have showers" in refused("merge", *parts, tmp_path / "all.h5", "-o", tmp_path / "more.h5")


@pytest.mark.parametrize("verb", ["simulate", "generate"])
def test_the_same_showers_are_warned_of(verb: str, run: Run, tmp_path: Path) -> None:
    model = ("ild-photon-50gev/vae-gan", "--energy", "50GeV")
    command = (verb, *(BEAM if verb == "simulate" else model), "-n", 10)
    assert run(*command, "-o", tmp_path / "a.h5").stderr == ""
    made = run(*command, "-o", tmp_path / "b.h5")
    [line] = made.stderr.splitlines()
    assert line.startswith("caloforge: warning: ")
    assert "showers 0 to 9 of the same seed 0" in line
    assert "seed 0, showers 0 to 9" in made.stdout
