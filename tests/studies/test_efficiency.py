"""The study of data efficiency, at tiny size, and what it concludes from measurements."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import InputError
from caloforge.simulate import simulate
from caloforge.studies import run_study
from caloforge.studies.efficiency.measure import Effort, Measured, training_part
from caloforge.studies.efficiency.report import expected, worth
from caloforge.train import train

TOML = """
name = "little"
nx = 5
ny = 5
pitch = 20.0
[[layers]]
repeat = 3
absorber = "G4_W"
absorber_mm = 7.0
active = "G4_Si"
active_mm = 0.5
[beam]
particle = "e-"
energy = "1-5GeV"
entry = [2, 2]
"""
TINY = {
    "preset": "small",
    "steps": 2,
    "summary_steps": 2,
    "batch": 16,
    "pretrain_showers": 100,
    "pretrain_epochs": 1,
    "device": "cpu",
}
ONE = Measured("little", 75, "nothing", 300, 0, 0.7, 0.01, 0.9, 100.0, 500, 10.0, "cpu", "", 0.51)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("efficiency")
    (folder / "little.toml").write_text(TOML)
    out = [
        simulate(folder / "little.toml", n, engine="gflash", seed=n, output=folder / f"{n}.h5")
        for n in (120, 60)
    ]
    return Path(out[0]), Path(out[1])


def test_it_trains_from_each_start_and_keeps_what_it_measured(
    samples: tuple[Path, Path], tmp_path: Path
) -> None:
    reference, showers = samples
    config = {"model": {"preset": "small", "epochs": 1, "summary_epochs": 1, "calibration": 0}}
    source = train("flow-matching", showers, tmp_path / "source", config, device="cpu")
    settings = {**TINY, "showers": (40, 1000), "source": str(source)}
    result = run_study("data-efficiency", reference, showers, output=tmp_path / "study", settings=settings)
    found = result.data["measured"]
    assert [(one["start"], one["n"]) for one in found] == [("nothing", 40), ("gflash", 40), ("detector", 40)]
    assert all(0.4 < one["auc"] <= 1.0 and one["generated"] == 120 and one["cells"] == 75 for one in found)
    assert (tmp_path / "study" / "report.html").is_file()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "cache").rglob("little-*.json")}
    assert len(kept) == 3
    again = run_study("data-efficiency", reference, showers, output=tmp_path / "study", settings=settings)
    assert again.data["measured"] == found
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    [place] = {path.parent for path in kept}
    shown = run_study(
        "data-efficiency", reference, output=tmp_path / "shown", settings={"results": str(place)}
    )
    assert sorted(one["auc"] for one in shown.data["measured"]) == sorted(one["auc"] for one in found)


def test_showers_that_train_are_not_those_that_measure(samples: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"60 showers of '60' are in the reference"):
        run_study("data-efficiency", samples[1], samples[1], output=tmp_path / "a", settings=TINY)
    with pytest.raises(InputError, match=r"no showers to train on"):
        run_study("data-efficiency", samples[0], output=tmp_path / "b", settings=TINY)
    with pytest.raises(InputError, match=r"is no folder"):
        run_study("data-efficiency", samples[0], output=tmp_path / "c", settings={"results": "nowhere"})


def test_smaller_sets_are_parts_of_larger_ones() -> None:
    showers = simulate("atlas-em-barrel", 30, engine="gflash", seed=1)
    few, more = training_part(showers, 5, 2), training_part(showers, 20, 2)
    np.testing.assert_array_equal(more.cells[:5], few.cells)
    assert not np.array_equal(training_part(showers, 5, 3).cells, few.cells)


def test_what_a_start_is_worth() -> None:
    """An AUC of 1/2 + n^-1/2 from nothing: 0.6 is that of 100 showers, 0.51 that of 10,000, inside and beyond the curve."""
    curve = [replace(ONE, n=n, auc=0.5 + n**-0.5) for n in (25, 400, 900)]
    rows = expected(curve)
    assert worth(rows, "little", 0.6) == pytest.approx(100.0, rel=0.02)
    assert worth(rows, "little", 0.51) == pytest.approx(10_000.0, rel=0.02)
    assert worth(rows, "other", 0.6) is None


def test_seeds_are_averaged() -> None:
    [row] = expected([ONE, replace(ONE, seed=1, auc=0.74, detectability=400.0)])
    assert row["auc"] == pytest.approx(0.72)
    assert row["auc_error"] == pytest.approx(0.02)
    assert row["detectability"] == 200
    [row] = expected([ONE, replace(ONE, seed=1, detectability=None)])
    assert "detectability" not in row


def test_steps_do_not_depend_on_the_number_of_showers() -> None:
    effort = Effort(steps=1000, summary_steps=2000, batch=100, validation=0.2)
    for n in (50, 1000, 10_000):
        model = effort.config(n, "gflash")["model"]
        steps = model["epochs"] * max(1, round(0.8 * n) // model["batch_size"])
        assert steps == pytest.approx(1000, rel=0.05)
        assert model["optimizer"]["lr"] == effort.tuning_rate


def test_the_table_of_expected_accuracy_reads() -> None:
    rows = tomllib.loads((files("caloforge.train") / "expected.toml").read_text(encoding="utf-8"))["measured"]
    assert rows
    for row in rows:
        assert {
            "detector",
            "cells",
            "start",
            "showers",
            "auc",
            "auc_error",
            "auc_floor",
            "seconds",
            "device",
        } <= set(row)
        assert row["start"] in ("nothing", "gflash", "detector")
        assert 0.45 < row["auc"] <= 1.0
