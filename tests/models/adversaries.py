"""Showers and an updater for the tests of adversarial models."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from caloforge.data import sample_path
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch
from caloforge.showers import Showers, read_showers
from caloforge.train.dataset import CellDataset
from caloforge.train.updater import StageUpdater


@cache
def _sample() -> Showers:
    return read_showers(sample_path())


def atlas_showers(n: int = 300) -> Showers:
    """Geant4 showers of the packaged sample, spread over all of it."""
    return _sample()[np.linspace(0, len(_sample()) - 1, n).astype(int)]


def images(n: int = 200, seed: int = 0) -> Showers:
    """Blobs near the middle of 10 x 10 pixels, of about 1 GeV with a spread of 5 %, with empty pixels."""
    rng = np.random.default_rng(seed)
    grid = np.arange(10) - 4.5
    x, y = rng.normal(scale=0.3, size=(2, n, 1))
    wide = rng.uniform(0.8, 1.2, size=(n, 1))
    profile = np.einsum(
        "ni,nj->nij", np.exp(-(((grid - x) / wide) ** 2)), np.exp(-(((grid - y) / wide) ** 2))
    )
    profile *= rng.gamma(5.0, 0.2, size=profile.shape)
    profile /= profile.sum((1, 2), keepdims=True)
    cells = (profile.reshape(n, 100) * rng.normal(1075.0, 55.0, size=(n, 1))).astype(np.float32)
    cells[cells < 0.05] = 0.0
    return Showers("ild-ecal-10x10", cells, np.full(n, 50_000.0), particle="gamma")


def updater_of(model: ShowerModel, steps: int = 10) -> StageUpdater:
    stage = model.stages()[0]
    return StageUpdater(stage, steps, torch.Generator().manual_seed(3))


def dataset(model: ShowerModel, showers: Showers) -> CellDataset:
    return CellDataset.of(showers, model, torch.device("cpu"))


def batch_of(model: ShowerModel, showers: Showers) -> Batch:
    return dataset(model, showers).take(torch.arange(len(showers)))
