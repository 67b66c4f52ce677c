"""Mean, spread and occupancy of every cell, added up over batches in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["CellStatistics", "CellSums"]


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """What the cells do over a sample; each array (n_cells,).

    Attributes:
        n: Number of showers.
        mean: Mean energy, empty cells included, MeV.
        std: Standard deviation, MeV.
        occupancy: Fraction of showers in which the cell has energy.
    """

    n: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    occupancy: NDArray[np.float64]


class CellSums:
    """Running sums behind :class:`CellStatistics`."""

    def __init__(self, detector: Detector) -> None:
        self._n = 0
        self._sums = np.zeros((3, detector.n_cells))

    def add(self, batch: ShowerBatch) -> None:
        """Add a batch."""
        self._n += batch.n
        energy, n_cells = batch.energy, self._sums.shape[1]
        for total, weights in zip(self._sums, (energy, energy * energy, None), strict=True):
            total += np.bincount(batch.cell, weights, n_cells)

    def result(self) -> CellStatistics:
        """Return the statistics of all batches so far."""
        mean, square, occupancy = self._sums / max(self._n, 1)
        return CellStatistics(self._n, mean, np.sqrt(np.maximum(square - mean**2, 0.0)), occupancy)
