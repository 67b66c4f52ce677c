"""A generator without weights for tests of the Geant4 application: the cells of a shower are chosen by the test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.geometry import get_detector


class StubModel:
    """Draws the same grid for every particle, scaled with its energy, and writes down what it was asked."""

    conditions = ("incident_energy", "incident_theta")

    def __init__(self, grid: NDArray[np.float32] | None = None) -> None:
        self.detector = get_detector("ild-ecal-angled")
        self.condition_low, self.condition_high = torch.tensor([1e4, 30.0]), torch.tensor([1e5, 90.0])
        if grid is None:
            grid = np.zeros(self.detector.shape, np.float32)
            grid[15, 10] = 1.0 / 30
        self.grid = grid
        self.asked: list[NDArray[np.float32]] = []

    def draw(self, conditions: torch.Tensor, seed: int = 0, start: int = 0, batch_size: int = 1024) -> Any:
        assert batch_size >= len(conditions)
        self.asked.append(conditions.numpy().copy())
        return torch.from_numpy(self.grid.reshape(1, -1)) * conditions[:, :1] * 0.02


class StubGenerator:
    """What ``caloforge.load`` returns, as far as the application looks at it."""

    name = "stub"

    def __init__(self, grid: NDArray[np.float32] | None = None) -> None:
        self.model = StubModel(grid)
