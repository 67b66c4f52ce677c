"""One of each kind of part that other packages can add to caloforge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from caloforge.formats import Format
from caloforge.formats.arrays import ArrayTable, MemoryRows
from caloforge.geometry import Detector, load_detector
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch, OptimizerSpec, Stage, Updater
from caloforge.settings import ModelConfig, OptimizerSettings
from caloforge.validate.metrics.base import Key, Metric, Settings, Value
from caloforge.validate.observables.base import Observable
from caloforge.validate.sample import Sample

PEAK_SHARE = Observable(
    name="peak_share",
    label="highest cell energy / visible energy",
    unit="",
    compute=lambda batch: batch.max(batch.energy) / (batch.total + 1e-9),
)


class MeanShift(Metric):
    """Difference of the mean visible energies, in standard deviations of the reference."""

    name = "mean_shift"
    keys = (Key("mean_shift", "Shift of the mean", 0.0),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Value]:
        """Return the shift with its statistical error."""
        a, b = (sample.observables["visible_energy"] for sample in (reference, generated))
        error = np.hypot(1 / np.sqrt(a.size), b.std() / a.std() / np.sqrt(b.size))
        return {"mean_shift": Value((b.mean() - a.mean()) / a.std(), uncertainty=error)}


class MeanConfig(ModelConfig):
    """Settings of the mean shower."""

    epochs: int = 3
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-3, schedule="cosine")


class MeanShower(ShowerModel):
    """The mean shower, scaled with the energy."""

    Config = MeanConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"improved": {}}

    def __init__(self, detector: Detector, config: MeanConfig) -> None:
        super().__init__(detector, config)
        self.shares = torch.nn.Parameter(torch.full((detector.n_cells,), 0.02 / detector.n_cells))

    @property
    def noise_size(self) -> int:
        """One number: the fluctuation of the visible energy."""
        return 1

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, cells), MeV."""
        energy = self.condition(conditions, "incident_energy")
        return energy * torch.relu(self.shares) * torch.exp(0.05 * noise)

    def stages(self) -> tuple[Stage, ...]:
        """One stage, least squares."""
        spec = OptimizerSpec((self.shares,), self.config.optimizer)
        return (Stage("mean", self.config.epochs, 128, {"mean": spec}, self.step, metric="physics"),)

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Take one step."""
        energy = self.condition(batch.conditions, "incident_energy")
        loss = ((self.shares - batch.cells / energy) ** 2).sum(1).mean()
        updater.update("mean", loss)
        return {"loss": loss}


class Lines(Format):
    """A shower a line: the incident energy in GeV, then the cells in MeV."""

    name = "lines"
    summary = "lines of text: incident energy (GeV), cells (MeV)"

    def matches(self, path: Path) -> bool:
        """Return whether the name ends with .txt."""
        return path.suffix == ".txt"

    def open(self, path: Path, options: Any) -> ArrayTable:
        """Return the file as a table."""
        lines = np.loadtxt(path, ndmin=2)
        arrays = {"energy": lines[:, 0], "cells": lines[:, 1:]}
        table = ArrayTable(
            path, {role: role for role in arrays}, lambda name, role: MemoryRows(name, arrays[name])
        )
        table.energy_unit, table.cell_unit = "GeV", "MeV"
        return table


LINES = Lines()


def ten_layers() -> Detector:
    """Return ten layers of tungsten and silicon with 4 x 4 cells."""
    return load_detector(Path(__file__).with_name("ten-layers.toml"))
