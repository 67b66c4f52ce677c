"""Configurations of every transform, and sparse showers to try them on."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
import torch

from caloforge.geometry import Detector, get_detector
from caloforge.showers.transforms import (
    LayerNormalise,
    Transform,
)

ATLAS = get_detector("atlas-em-barrel")
ILD = get_detector("ild-ecal-10x10")
LARGEST = 20.0
"""Response of the strategy's brightest showers: calibrated energies of faint showers may be far above the truth."""

CONFIGS: dict[str, list[dict]] = {
    "threshold": [{"threshold": 0.1}, {"threshold": 0}],
    "scale": [{"factor": 100.0}],
    "layer-rescale": [{"first": 1, "last": 2, "factor": 2.03}],
    "energy-normalise": [{}],
    "sum-normalise": [{}],
    "layer-normalise": [{}],
    "layer-ratios": [{}],
    "log": [{"epsilon": math.exp(-5)}, {"epsilon": 1e-3}],
    "logit": [{"delta": 1e-6}, {}],
    "power": [{"exponent": 0.85}, {"exponent": 2.0}],
    "standardise": [{"per_column": True}, {"per_column": False}],
    "columns": [
        {"start": -4, "transform": {"name": "scale", "factor": 3.0}},
        {"start": 0, "stop": 5, "transform": {"name": "standardise"}},
    ],
    "compose": [
        {"transforms": []},
        {
            "transforms": [
                {"name": "threshold", "threshold": 0.01},
                {"name": "layer-rescale", "first": 0, "last": 1, "factor": 2.0},
                {"name": "layer-normalise"},
                {"name": "layer-ratios"},
                {"name": "logit", "delta": 1e-6},
                {"name": "standardise"},
            ]
        },
        {
            "transforms": [
                {"name": "sum-normalise"},
                {"name": "columns", "stop": -1, "transform": {"name": "logit", "delta": 1e-6}},
                {"name": "columns", "start": -1, "transform": {"name": "log", "epsilon": 1.0}},
                {"name": "standardise", "per_column": False},
            ]
        },
        {"transforms": [{"name": "energy-normalise"}, {"name": "power", "exponent": 0.5}]},
    ],
}
CASES = [
    pytest.param({"name": name, **one}, id=f"{name}-{i}")
    for name in CONFIGS
    for i, one in enumerate(CONFIGS[name])
]
UNIT = {"logit"}
"""Transforms of fractions: they are given cells / largest cell."""


def draw(
    seed: int, n: int, sparsity: float, spread: float, detector: Detector = ATLAS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make sparse showers (n, cells) of cells that span decades, some layers and some showers empty, and energies."""
    rng = np.random.default_rng(seed)
    cells = 10 ** rng.normal(0, spread, (n, detector.n_cells)) * (
        rng.random((n, detector.n_cells)) > sparsity
    )
    for layer in range(detector.n_layers):
        cells[np.ix_(rng.random(n) < 0.2, detector.layer_cells[layer])] = 0
    cells[rng.random(n) < 0.1] = 0
    energy = np.maximum(cells.sum(1), 1.0) / rng.uniform(
        0.02, 0.5 * LARGEST, n
    )  # a layer may be doubled on its way
    return torch.from_numpy(cells.astype(np.float32)), torch.from_numpy(energy.astype(np.float32))


@functools.cache
def fitted(text: str) -> Transform:
    """Build and fit a transform; the cells have gone through the layers' normalisation for one that wants them so."""
    config = json.loads(text)
    cells, energy = draw(99, 64, 0.3, 0.5)
    energy = 0.4 * energy  # no shower of a test lies beyond the largest response seen here
    if config["name"] == "layer-ratios":
        cells = LayerNormalise(ATLAS)(cells, energy)
    return Transform.from_config(config, ATLAS, cells.shape[1]).fit(cells, energy, batch_size=17)


def prepared(config: dict, cells: torch.Tensor, energy: torch.Tensor) -> tuple[Transform, torch.Tensor]:
    """Return a fitted transform, and the cells as what it is made for."""
    if config["name"] in UNIT:
        cells = cells / max(float(cells.max()), 1e-30)
    if config["name"] == "layer-ratios":
        cells = LayerNormalise(ATLAS)(cells, energy)
    return fitted(json.dumps(config)), cells


def floor_of(config: dict) -> float:
    """Return the threshold that a transform applies."""
    steps = config.get("transforms", [config])
    return max([step.get("threshold", 0.0) for step in steps] or [0.0])
