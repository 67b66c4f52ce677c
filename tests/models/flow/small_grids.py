"""A small grid, quick showers in it and short trainings of the flow for one core of a CPU."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch
from flows import SHORT
from torch import Tensor

from caloforge.geometry import Detector, load_detector
from caloforge.models.flow.columns import ColumnNetworks, Context
from caloforge.models.flow.cpu import FlowMatchingCpu
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import Showers
from caloforge.simulate import simulate
from caloforge.train import train
from caloforge.train.folder import RunFolder

NAME = "flow-matching-cpu"
SHAPE = (12, 9, 4)
CELLS = 12 * 9 * 4
_DETECTOR = """
name = "small-grid"
nx = 12
ny = 9
pitch_x = 6.0
pitch_y = 6.0
padding = 1

[[layers]]
repeat = 4
absorber = "G4_W"
absorber_mm = 6.0
active = "G4_Si"
active_mm = 0.5
gap_mm = 1.0

[beam]
particle = "gamma"
energy = "1-10GeV"
theta = "90"
entry = [6, 4]
"""
TINY = {
    "width": 16,
    "kernel": 3,
    "student_width": 48,
    "student_blocks": 1,
    "summary_width": 32,
    "summary_blocks": 1,
    "summary_heads": 2,
}
"""Narrow networks."""
TRAINING = (
    *SHORT,
    "summary_epochs=40",
    "epochs=8",
    "summary_student_epochs=30",
    "summary_batch_size=64",
    "calibration=200",
    "teacher_steps=2",
    "student.warmup=3",
    "student.ema=0",
    "student.lr=3e-3",
)
"""A training of few steps of all stages."""


def _written(text: str, name: str) -> Path:
    path = Path(tempfile.mkdtemp()) / name
    path.write_text(text)
    return path


@cache
def small_grid() -> Detector:
    """12 x 9 x 4 cells."""
    return load_detector(_written(_DETECTOR, "small-grid.toml"))


@cache
def grid_showers() -> Showers:
    """400 photons of 1 to 10 GeV."""
    return simulate(small_grid(), 400, energy="1-10GeV", engine="gflash", seed=1)


@cache
def grid_file() -> Path:
    """The same as a file."""
    return grid_showers().save(Path(tempfile.mkdtemp()) / "showers.h5")


def fitted_grid(**settings: object) -> FlowMatchingCpu:
    """An untrained model of narrow networks whose constants are fitted."""
    torch.manual_seed(1)
    config = FlowMatchingCpu.resolve({**TINY, **settings})
    model = FlowMatchingCpu(small_grid(), config)
    model.fit_transforms(grid_showers())
    return model.eval()


@cache
def grid_run(name: str, *overrides: str) -> Path:
    """Train once into a temporary folder: ``flow-matching-cpu`` or its teacher."""
    output = Path(tempfile.mkdtemp()) / "run"
    sizes = {key: value for key, value in TINY.items() if key.startswith("summary") or name == NAME}
    how = [*(f"{key}={value}" for key, value in sizes.items()), *overrides]
    preset = "improved" if name == NAME else "small"
    return train(name, grid_file(), output, preset=preset, overrides=how, device="cpu", seed=3)


@cache
def trained_grid(*overrides: str) -> FlowMatchingCpu:
    """Train once and load."""
    (model,) = RunFolder(grid_run(NAME, *TRAINING, *overrides)).models()
    assert isinstance(model, FlowMatchingCpu)
    return model.eval()


def woken(networks: ColumnNetworks, size: float = 0.1) -> ColumnNetworks:
    """Give weights and constants that begin with 0 small random values."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in networks.parameters():
            if not parameter.any():
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return networks


def context_of(model: FlowMatching, summary: Tensor) -> Context:
    """What the networks know of the first showers, whose summaries (B, rows, kinds) are given."""
    conditions = model.condition_matrix(grid_showers())[: len(summary)]
    encoded = model.encoder(conditions)
    energy = model.condition(conditions, "incident_energy")[:, 0]
    return Context.of(encoded, summary, model.summary.decode(summary, energy, encoded))
