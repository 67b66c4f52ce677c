"""Random sparse showers for tests, with the odd ones among them: an empty one and one with a single hit."""

from __future__ import annotations

import numpy as np

from caloforge.geometry import get_detector
from caloforge.showers import Showers


def sparse_showers(name: str, n: int = 6, hits: int = 60, seed: int = 0, theta: bool = False) -> Showers:
    """Return n showers, the last one empty and the one before with one hit."""
    detector = get_detector(name)
    rng = np.random.default_rng(seed)
    cells = np.zeros((n, detector.n_cells), np.float32)
    for row in cells[: n - 2]:
        chosen = rng.choice(detector.n_cells, min(hits, detector.n_cells // 2), replace=False)
        row[chosen] = rng.lognormal(-1.0, 3.0, len(chosen))
    if n > 1:
        cells[n - 2, detector.n_cells // 3] = 2.5
    conditions = {
        name: rng.integers(0, dict(detector.beam.alignments)[name], (n, 1))
        for name, _ in detector.beam.alignments
    }
    return Showers(
        detector,
        cells,
        rng.uniform(1e3, 1e5, n),
        rng.uniform(30, 90, n) if theta else None,
        conditions,
        particle="gamma",
        source="made up",
    )
