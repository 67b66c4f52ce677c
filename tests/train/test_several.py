"""Trainings on files of several detectors, and what their models are for other detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.errors import ConfigError, IncompatibleError, InputError
from caloforge.showers import read_showers
from caloforge.simulate import simulate
from caloforge.train import RunFolder, held_out_showers, train
from caloforge.train.data import read_files
from caloforge.zoo.store import load

TOML = """
name = "{name}"
nx = {side}
ny = {side}
pitch = 15.0
[[layers]]
repeat = 4
absorber = "{absorber}"
absorber_mm = {mm}
active = "G4_Si"
active_mm = 0.5
[beam]
particle = "e-"
energy = "1-5GeV:log"
entry = [2, 2]
"""
SMALL = {
    "width": 16, "blocks": 1, "repeats": 1, "heads": 2, "local": 4, "summary_width": 16, "summary_blocks": 1, "summary_heads": 2,
    "epochs": 2, "summary_epochs": 2, "batch_size": 32, "summary_batch_size": 32, "calibration": 40, "detector_conditions": True,
}  # fmt: skip


def _toml(folder: Path, name: str, mm: float, absorber: str = "G4_W", side: int = 5) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(TOML.format(name=name, side=side, absorber=absorber, mm=mm))
    return path


def _file(
    folder: Path, name: str, mm: float, absorber: str = "G4_W", n: int = 80, side: int = 5, seed: int = 3
) -> Path:
    detector = _toml(folder, name, mm, absorber, side)
    return Path(
        simulate(detector, n, engine="gflash", seed=seed, output=folder / f"{name}-{seed}.h5", force=True)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    thin, thick = _file(folder, "thin", 3.0), _file(folder, "thick", 6.0)
    return [thin, thick, _file(folder, "lead", 7.0, "G4_Pb"), _file(folder, "thin", 3.0, n=40, seed=4)]


@pytest.fixture(scope="module")
def joint(folder: Path, files: list[Path]) -> Path:
    return train("flow-matching", files, folder / "joint", {"model": SMALL}, device="cpu", seed=1)


def test_a_run_on_several_detectors_says_so_and_is_the_first_ones(joint: Path, files: list[Path]) -> None:
    facts = RunFolder(joint).read()
    assert (facts["status"], facts["detector"], facts["detectors"]) == (
        "finished",
        "thin",
        ["thin", "thick", "lead"],
    )
    assert facts["train_showers"] + facts["held_out_showers"] == 280
    assert [name.partition("/")[2] for name in facts["stages"]] == ["summary", "cells", "calibrate"]
    [model] = RunFolder(joint).models()
    assert model.detector == read_showers(files[0]).detector
    assert float(model.get_buffer("summary.trend.mean").abs().max()) > 0
    torch.testing.assert_close(model.get_buffer("summary.trend.mean"), _trend(model, 0))
    factors = model.family.calibration[..., 0]  # type: ignore[union-attr]
    torch.testing.assert_close(model.get_buffer("filled_factor"), factors[0])
    assert float((factors[0] - factors[1]).abs().max()) > 0.0
    mine = held_out_showers(joint, files)
    assert 0 < len(mine) < facts["held_out_showers"]
    assert mine.detector == model.detector


def _trend(model: Any, number: int) -> torch.Tensor:
    found: torch.Tensor = model.family.trends[number, 0].flatten(1)
    return found


def test_rows_of_each_detector_keep_their_showers(files: list[Path]) -> None:
    read = read_files(files, several=True)
    assert [len(rows) for rows in read.by_detector(np.arange(280))] == [120, 80, 80]
    part = read.showers(read.by_detector(np.arange(280))[2])
    lead = read_showers(files[2])
    assert part.detector == lead.detector
    np.testing.assert_array_equal(part.cells, lead.cells)


def test_the_same_seed_gives_the_same_weights_and_a_stopped_run_goes_on(
    folder: Path, files: list[Path], joint: Path
) -> None:
    def stop(loop: Any, epoch: int, best: Any) -> None:
        if (loop.stage.name, epoch) == ("cells", 1):
            raise KeyboardInterrupt

    settings = {"model": SMALL, "train": {"checkpoint_epochs": 1}}
    with pytest.raises(KeyboardInterrupt):
        train("flow-matching", files, folder / "again", settings, device="cpu", seed=1, watch=stop)
    run = train("flow-matching", files, folder / "again", settings, device="cpu", seed=1, resume=True)
    [one], [other] = RunFolder(joint).models(), RunFolder(run).models()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, msg=name)


def test_showers_of_a_detector_that_was_never_seen(folder: Path, joint: Path) -> None:
    unseen = _toml(folder, "between", 4.5)
    model = load(joint, "cpu", {"summary_steps": 2, "steps": 2}, detector=unseen)
    own = load(joint, "cpu", {"summary_steps": 2, "steps": 2})
    made, before = (one.generate(20, energy="3GeV", seed=2) for one in (model, own))
    assert (made.detector.name, before.detector.name) == ("between", "thin")
    assert np.isfinite(made.cells).all()
    assert not np.allclose(made.cells, before.cells)


def test_few_showers_of_another_detector_start_from_it(folder: Path, joint: Path) -> None:
    few = _file(folder, "between", 4.5, n=60)
    settings = {"model": {"epochs": 1, "summary_epochs": 1, "batch_size": 32, "calibration": 20}}
    run = train(
        "flow-matching", few, folder / "few", settings, device="cpu", start=RunFolder(joint).weights()
    )
    [model] = RunFolder(run).models()
    assert not model.serves_others
    assert "0/calibrate" in RunFolder(run).read()["stages"]
    with pytest.raises(IncompatibleError, match=r"model of the detector 'between' alone; for 'thin'"):
        load(run, "cpu", detector=folder / "thin.toml")
    assert len(RunFolder(run).seen().inherited) == 280


def test_what_does_not_go_together_is_refused(folder: Path, files: list[Path], joint: Path) -> None:
    wide = _file(folder, "wide", 3.0, side=7)
    with pytest.raises(IncompatibleError, match=r"'wide' has 7 x 7 x 4 cells, 'thin' 5 x 5 x 4"):
        train("flow-matching", [files[0], wide], folder / "no", {"model": SMALL}, device="cpu")
    off, start = {"model": SMALL | {"detector_conditions": False}}, RunFolder(joint).weights()
    with pytest.raises(IncompatibleError, match=r"'thick' cannot be joined with those of 'thin'"):
        train("flow-matching", files[:2], folder / "no", off, device="cpu")
    with pytest.raises(ConfigError, match=r"train.start is set and the files are of several detectors"):
        train("flow-matching", files[:2], folder / "no", {"model": SMALL}, device="cpu", start=start)
    with pytest.raises(InputError, match="must fit in memory"):
        read_files(files, memory=100.0, several=True)
    with pytest.raises(IncompatibleError, match="7 x 7 x 4 cells"):
        train("flow-matching", wide, folder / "no", device="cpu", start=RunFolder(joint).weights())
    assert (
        not (folder / "no" / "run.json").exists()
        or json.loads((folder / "no" / "run.json").read_text())["status"] != "finished"
    )
