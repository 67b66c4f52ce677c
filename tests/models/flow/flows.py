"""Short trainings of the flow models on quick showers of ATLAS."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.models import MODELS
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import Showers
from caloforge.simulate import simulate
from caloforge.train import train
from caloforge.train.folder import RunFolder

ENERGIES = ("1024MeV", "2048MeV", "4096MeV")
SHORT = (
    "batch_size=64",
    "summary.warmup=5",
    "summary.ema=0",
    "summary.lr=2e-3",
    "optimizer.warmup=5",
    "optimizer.ema=0",
    "optimizer.lr=2e-3",
    "validation=0",
)
"""A training of few steps: no long warming up, no slow average of the weights, nothing held out."""


DISTILLED = (
    "summary_epochs=8",
    "epochs=3",
    "summary_student_epochs=6",
    "student_epochs=3",
    "summary_jumps=3",
    "jumps=2",
    "teacher_steps=2",
    "student.warmup=3",
    "student.ema=0",
    "student.lr=1e-3",
)
"""A distillation of few steps."""


@cache
def showers() -> Showers:
    """360 photons of three energies, all alignments, mixed."""
    parts = [
        simulate("atlas-em-barrel", 120, energy=energy, engine="gflash", seed=seed)
        for seed, energy in enumerate(ENERGIES)
    ]
    return Showers.concatenate(parts).take(np.random.default_rng(0).permutation(360))


@cache
def file() -> Path:
    """The same as a file."""
    return showers().save(Path(tempfile.mkdtemp()) / "showers.h5")


def fitted(name: str, **settings: object) -> FlowMatching:
    """An untrained model of preset ``small`` whose constants are fitted."""
    torch.manual_seed(1)
    kind = MODELS[name]
    model = kind(showers().detector, kind.resolve({"preset": "small", **settings}))
    model.fit_transforms(showers())
    assert isinstance(model, FlowMatching)
    return model.eval()


def targets_of(model: FlowMatching, summary: Tensor, encoded: Tensor) -> LayerTargets:
    """What summaries (B, rows, kinds) say of the layers of the first showers."""
    conditions = model.condition_matrix(showers())[: len(summary)]
    return model.summary.decode(summary, model.condition(conditions, "incident_energy")[:, 0], encoded)


def run(name: str, output: Path, *overrides: str, resume: bool = False, data: Path | None = None) -> Path:
    """Train into a folder, on the showers of a file or on those of :func:`showers`."""
    settings = [*SHORT, *overrides]
    return train(
        name, data or file(), output, preset="small", overrides=settings, device="cpu", seed=3, resume=resume
    )


@cache
def run_folder(name: str, *overrides: str) -> Path:
    """Train once into a temporary folder."""
    return run(name, Path(tempfile.mkdtemp()) / "run", *overrides)


@cache
def trained(name: str, *overrides: str) -> FlowMatching:
    """Train once and load."""
    (model,) = RunFolder(run_folder(name, *overrides)).models()
    assert isinstance(model, FlowMatching)
    return model.eval()


def stopped(monkeypatch: pytest.MonkeyPatch, name: str, output: Path, after: int, *overrides: str) -> None:
    """Train and break off after some checkpoints, as if killed."""
    from caloforge.train import run as module

    saved, count = module.save_state, 0

    class Killed(BaseException):
        pass

    def save(path: Path, state: object) -> None:
        nonlocal count
        saved(path, state)
        count += 1
        if count == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_state", save)
        with pytest.raises(Killed):
            run(name, output, *overrides)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
