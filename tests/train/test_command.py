"""The command that trains a run again asks for the run's settings, whatever they were."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from caloforge.train import RunFolder, train
from caloforge.train.settings import read_settings, resolve
from caloforge.zoo.shipping import settings_of_command, train_command

IDLE = {"log_every", "checkpoint_seconds", "max_seconds"}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("preset", [None, "paper"])
def test_it_asks_for_the_same_settings(preset: str | None, toy_file: Path, tmp_path: Path) -> None:
    overrides = (
        "critic_steps=2",
        "optimizer.betas=[0.5, 0.9]",
        "train.validation=0.3",
        "train_size=20",
        "log_every=2",
        "max_seconds=1000",
        "metric=response",
    )
    run = RunFolder(
        train("toy-adversarial", toy_file, tmp_path / "run", None, overrides, preset, device="cpu", seed=7)
    )
    command = train_command(run, ["a b.h5", "c.h5"], "again")
    asked, had = settings_of_command(command), resolve("toy-adversarial", read_settings(run.config))
    assert asked.model == had.model
    assert asked.train.model_dump(exclude=IDLE) == had.train.model_dump(exclude=IDLE)
    words = shlex.split(command)
    assert words[:7] == ["caloforge", "train", "toy-adversarial", "a b.h5", "c.h5", "-o", "again"]
    assert words[-4:] == ["--device", "cpu", "--seed", "7"]
    assert not any(key in command for key in IDLE)


@pytest.mark.usefixtures("toys")
def test_following_it_gives_the_same_weights(toy_file: Path, tmp_path: Path) -> None:
    first = RunFolder(
        train("toy-adversarial", toy_file, tmp_path / "run", None, ("epochs=2",), device="cpu", seed=3)
    )
    asked = settings_of_command(train_command(first, [str(toy_file)], "again"))
    again = RunFolder(
        train("toy-adversarial", toy_file, tmp_path / "again", asked.as_dict(), device="cpu", seed=3)
    )
    weights = again.models()[0].state_dict()
    assert all(torch.equal(weights[name], value) for name, value in first.models()[0].state_dict().items())


@pytest.mark.usefixtures("toys")
def test_a_time_limit_that_ended_the_training_is_kept(toy_file: Path, tmp_path: Path) -> None:
    overrides = ("epochs=100000", "max_seconds=1.0")
    run = train("toy-adversarial", toy_file, tmp_path / "run", None, overrides, device="cpu")
    assert "train.max_seconds=1.0" in train_command(RunFolder(run), ["a.h5"], "again")
