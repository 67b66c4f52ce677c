"""What an exported graph computes, its inputs, and the metadata that describe them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import caloforge
from caloforge.errors import IncompatibleError
from caloforge.generate import Generator, condition_range
from caloforge.geometry import CylindricalLayer, Detector
from caloforge.models.base import ShowerModel, counted_noise

__all__ = ["FORMS", "PLACES", "CellForm", "Par04Form", "describe", "frozen", "random_inputs"]

FORMAT = 1
"""Version of the metadata."""
PLACES = 3
"""Showers of the example that a graph is traced with: more than one, since a size of 1 would be a constant."""
_UNITS = {"incident_energy": "MeV", "incident_theta": "degree"}
LICENCE = "BSD-3-Clause"
"""Of the shipped weights."""


def frozen(model: ShowerModel) -> ShowerModel:
    """Return a copy whose marks of a fitted calibration are numbers, which a graph can decide by, and not tensors."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for part in model.modules():
        if part._buffers.get("known") is not None:
            known = float(part._buffers.pop("known") or 0.0)
            part.known = known  # type: ignore[assignment]
    return model


class CellForm(nn.Module):
    """Noise (B, noise_size) and conditions (B, C) to cells (B, n_cells), MeV, and ``in_range`` (B,)."""

    name: ClassVar[str] = "cells"
    outputs: ClassVar[tuple[str, str]] = ("cells", "in_range")
    low: Tensor
    high: Tensor

    def __init__(self, model: ShowerModel) -> None:
        super().__init__()
        self.model = model
        for name, bound in zip(("low", "high"), condition_range(model), strict=True):
            self.register_buffer(name, bound)

    @property
    def inputs(self) -> dict[str, int]:
        """Names of the inputs to their numbers a shower."""
        return {"noise": self.model.noise_size, "conditions": self.model.n_conditions}

    def forward(self, noise: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cells (B, n_cells), MeV, and whether the conditions are in the training's range (B,)."""
        inside = ((conditions >= self.low) & (conditions <= self.high)).all(1)
        return self.model.sample(noise, conditions), inside

    def rows(self, noise: Tensor, conditions: Tensor) -> dict[str, Tensor]:
        """Return the inputs of noise (B, noise_size) and conditions (B, C)."""
        return {"noise": noise, "conditions": conditions}

    def in_mev(self, cells: np.ndarray, inputs: Mapping[str, Tensor]) -> np.ndarray:
        """Return cells (B, n_cells) of the first output, MeV."""
        return cells

    def facts(self) -> dict[str, Any]:
        """Return what the metadata say of the form beside that of the model."""
        return {"cell_unit": "MeV", "cell_order": self.model.detector.order}


class Par04Form(CellForm):
    """The single input of Geant4's example Par04, which DDML also uses, and cells in the order of Par04.

    ``input`` (B, noise_size + 4): the latent numbers, E / 1024 GeV, theta / 90 degrees, and two numbers that say which detector it
    is, which are not looked at. Cells (B, n_cells) are parts of the incident energy, which Par04 multiplies by it, with the layers (z)
    fastest: (r, alpha, z) of cylinders, (x, y, layer) of grids.

    References:
        Geant4, examples/extended/parameterisations/Par04, ``Par04InferenceSetup::GetEnergies`` and ``GetPositions``.
    """

    name: ClassVar[str] = "par04"
    most_energy: ClassVar[float] = 1_024_000.0  # MeV
    most_angle: ClassVar[float] = 90.0  # degrees
    detectors: ClassVar[int] = 2
    order: Tensor

    def __init__(self, model: ShowerModel) -> None:
        super().__init__(model)
        unknown = [name for name in model.conditions if name not in _UNITS]
        if unknown:
            msg = f"form 'par04' has only energy and angle; the model also needs '{unknown[0]}'"
            raise IncompatibleError(msg)
        self.register_buffer("order", torch.from_numpy(_mesh_order(model.detector)), persistent=False)

    @property
    def inputs(self) -> dict[str, int]:
        """The one input and its numbers a shower."""
        return {"input": self.model.noise_size + 2 + self.detectors}

    def forward(self, row: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return cells over the incident energy (B, n_cells) and whether the conditions are in the training's range (B,)."""
        size = self.model.noise_size
        noise, values = row[:, :size], {
            "incident_energy": row[:, size : size + 1] * self.most_energy,
            "incident_theta": row[:, size + 1 : size + 2] * self.most_angle,
        }  # fmt: skip
        conditions = torch.cat([values[name] for name in self.model.conditions], 1)
        cells, inside = super().forward(noise, conditions)
        return cells.index_select(1, self.order) / values["incident_energy"], inside

    def rows(self, noise: Tensor, conditions: Tensor) -> dict[str, Tensor]:
        """Return the one input of noise (B, noise_size) and conditions (B, C)."""
        columns = self.model.columns
        energy = conditions[:, columns["incident_energy"]]
        theta = torch.full_like(energy, 90.0)
        if "incident_theta" in columns:
            theta = conditions[:, columns["incident_theta"]]
        one_hot = torch.tensor([[0.0, 1.0]]).expand(len(noise), -1)
        return {"input": torch.cat([noise, energy / self.most_energy, theta / self.most_angle, one_hot], 1)}

    def in_mev(self, cells: np.ndarray, inputs: Mapping[str, Tensor]) -> np.ndarray:
        """Return cells (B, n_cells), MeV."""
        energy = inputs["input"][:, self.model.noise_size, None].numpy() * self.most_energy
        return cells * energy

    def facts(self) -> dict[str, Any]:
        """Return what the metadata say of the form."""
        return {
            "cell_unit": "incident energy",
            "cell_order": "last axis (z, layer) fastest",
            "energy_unit_mev": self.most_energy,
            "angle_unit_degree": self.most_angle,
            "detector_columns": self.detectors,
        }


def _mesh_order(detector: Detector) -> np.ndarray:
    """Return the cells (n_cells,) in Par04's order.

    Raises:
        IncompatibleError: When the cells are no mesh of equal layers.
    """
    if detector.is_grid:
        return np.arange(detector.n_cells)
    layers = [layer for layer in detector.layers if isinstance(layer, CylindricalLayer)]
    meshes = {(layer.n_r, layer.n_alpha) for layer in layers}
    if len(layers) != detector.n_layers or len(meshes) != 1:
        msg = f"form 'par04' needs a mesh of equal layers; '{detector.name}' has {detector.shape}"
        raise IncompatibleError(msg)
    ((n_r, n_alpha),) = meshes
    cells = np.stack(list(detector.layer_cells)).reshape(detector.n_layers, n_alpha, n_r)
    return np.ascontiguousarray(cells.transpose(2, 1, 0)).ravel()


FORMS: Mapping[str, type[CellForm]] = {"cells": CellForm, "par04": Par04Form}
"""Names to forms."""


def random_inputs(graph: CellForm, n: int, seed: int = 0) -> dict[str, Tensor]:
    """Return n rows of counted noise and of conditions between the ends of the training's, whole numbers where both ends are."""
    model = graph.model
    noise = counted_noise(seed, 0, n, model.noise_size, stream="export")
    part = torch.linspace(0.0, 1.0, n)[:, None]
    low, high = model.condition_low, model.condition_high
    conditions = low + (high - low) * part
    for name, columns in model.columns.items():
        if name in dict(model.detector.beam.alignments):
            conditions[:, columns] = conditions[:, columns].round()
    return graph.rows(noise, conditions)


def describe(generator: Generator, graph: CellForm) -> dict[str, str]:
    """Return the metadata of a file: names to text, numbers and lists as JSON.

    ``conditions`` is a list with the name, columns, unit and the lowest and highest value of the training of each condition; ``card``
    what was measured of a shipped model, ``{}`` for a run of the user's.
    """
    model, detector = graph.model, generator.detector
    conditions = [
        {
            "name": name,
            "first_column": columns.start,
            "columns": columns.stop - columns.start,
            "unit": _UNITS.get(name, ""),
            "low": model.condition_low[columns].tolist(),
            "high": model.condition_high[columns].tolist(),
        }
        for name, columns in model.columns.items()
    ]
    values: dict[str, Any] = {
        "format": FORMAT,
        "caloforge_version": caloforge.__version__,
        "model": generator.name,
        "form": graph.name,
        "detector": detector.name,
        "particle": generator.particle or detector.beam.particle,
        "inputs": graph.inputs,
        "outputs": list(graph.outputs),
        "noise": "independent standard normal numbers",
        "noise_size": model.noise_size,
        "n_cells": detector.n_cells,
        "shape": list(detector.shape),
        "conditions": conditions,
        "sampling": model.sampling.model_dump(),
        "sampling_fraction": detector.sampling_fraction,
        "licence": generator.card.get("licence", LICENCE) if generator.card else "its owner's",
        "card": generator.card,
        **graph.facts(),
    }
    return {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in values.items()}
