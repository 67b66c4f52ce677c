"""Made-up showers for the tests of the metrics."""

from __future__ import annotations

import numpy as np

from caloforge.geometry import get_detector
from caloforge.showers import Showers


def toy_showers(detector: str, n: int, seed: int, scale: float = 1.0, energy: float = 10_000.0) -> Showers:
    """Sparse showers whose cells fall off from the centre of each layer; ``scale`` multiplies all energies."""
    d = get_detector(detector)
    rng = np.random.default_rng(seed)
    centres = d.cell_centres
    radius = np.hypot(centres[:, 0] - centres[:, 0].mean(), centres[:, 1] - centres[:, 1].mean())
    mean = np.exp(-radius / (0.2 * radius.max() + 1e-9)) * (1.0 + d.cell_layer) / d.n_layers
    mean *= 0.03 * energy / mean.sum()
    cells = rng.gamma(0.5, 2.0 * mean, size=(n, d.n_cells)) * scale
    cells[cells < 0.02 * mean.max()] = 0.0
    conditions = {name: np.zeros((n, size), np.float32) for name, size in d.condition_sizes.items()}
    return Showers(d, cells.astype(np.float32), np.full(n, energy), None, conditions, source="toy")
