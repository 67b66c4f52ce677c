"""Trainings that are broken off, and runs compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from caloforge.train import train
from caloforge.train.folder import load_weights


def assert_same(a: Path, b: Path) -> None:
    """Compare the weights of two runs."""
    first, second = load_weights(a / "weights.safetensors"), load_weights(b / "weights.safetensors")
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def stopped(monkeypatch: pytest.MonkeyPatch, name: str, file: Path, run: Path, after: int, **how) -> None:
    """Train in this process and break off after some checkpoints, as if killed."""
    from caloforge.train import run as module

    saved, count = module.save_state, 0

    class Killed(BaseException):
        pass

    def save(path, state):
        nonlocal count
        saved(path, state)
        count += 1
        if count == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_state", save)
        with pytest.raises(Killed):
            train(name, file, run, device="cpu", **how)
