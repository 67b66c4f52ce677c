"""Synthetic showers on the 25-layer grids, and an updater that records what a step asks of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import get_detector
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch
from caloforge.showers import Showers


@cache
def grid_showers(name: str = "clic-ecal", n: int = 12, seed: int = 0, upright: bool = True) -> Showers:
    """Blobs along the beam with 1.65 % of the incident energy, 5 % resolution, and many empty cells."""
    detector = get_detector(name)
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(5e3), np.log(5e5), n))
    theta = np.full(n, 90.0) if upright else rng.uniform(80.0, 100.0, n)
    centres = detector.cell_centres.reshape(*detector.shape, 3)
    x, y, z = (centres[..., i] for i in range(3))
    cells = np.zeros((n, *detector.shape), np.float32)
    for i in range(n):
        lean = z / np.tan(np.radians(theta[i]))
        depth = (z / 40.0) ** 3 * np.exp(-z / 25.0)
        density = depth * np.exp(-np.hypot(x, y - lean) / 6.0) * rng.gamma(2.0, 0.5, detector.shape)
        density[density < 1e-4 * density.max()] = 0.0
        cells[i] = density * (0.0165 * energy[i] * rng.normal(1.0, 0.05) / density.sum())
    return Showers(detector, cells.reshape(n, -1), energy, theta, particle="e-")


def batch_of(model: ShowerModel, showers: Showers) -> Batch:
    return Batch(torch.from_numpy(showers.cells), model.condition_matrix(showers), torch.arange(len(showers)))


def built(kind: type[ShowerModel], showers: Showers, seed: int = 1, **values: object) -> ShowerModel:
    torch.manual_seed(seed)
    model = kind(showers.detector, kind.resolve(values))
    model.fit_transforms(showers)
    return model


class HeldOut:
    """The least that a validation needs of its data."""

    device = torch.device("cpu")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, indices: Tensor) -> Batch:
        return Batch(self.batch.cells[indices], self.batch.conditions[indices], indices)

    def batches(self, size: int):
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))


class RecordingUpdater:
    """Plain gradient descent; keeps the names of the updates and every loss."""

    def __init__(self, model: ShowerModel, epoch: int = 0, rate: float = 1e-3) -> None:
        self.stage = model.stages()[0]
        self.model, self.epoch, self.rate = model, epoch, rate
        self.step, self.epochs, self.progress = 0, self.stage.epochs, 0.0
        self.device = torch.device("cpu")
        self.generator = torch.Generator().manual_seed(2)
        self.names: list[str] = []
        self.reached: dict[str, set[str]] = {}

    def every(self, n: int) -> bool:
        return True

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def reset(self, name: str) -> None:
        raise AssertionError(name)

    def update(self, name: str, loss: Tensor, retain_graph: bool = False) -> None:
        assert torch.isfinite(loss)
        self.names.append(name)
        held: list[nn.Parameter] = list(self.stage.optimizers[name].parameters)
        gradients = torch.autograd.grad(loss, held, allow_unused=True)
        names = {id(p): key for key, p in self.model.named_parameters()}
        for parameter, gradient in zip(held, gradients, strict=True):
            if gradient is not None and bool(gradient.abs().sum() > 0):
                self.reached.setdefault(name, set()).add(names[id(parameter)])
                with torch.no_grad():
                    parameter.sub_(self.rate * gradient)
