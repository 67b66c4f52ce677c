"""How many cells are hit, and what fraction is not.

A hit is a cell above the threshold. Sparsity is 1 minus the fraction of cells with any energy after the cut,
for each layer as the CaloChallenge has it, and over all cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["HITS", "LAYER_SPARSITY", "SPARSITY"]


def _hits(batch: ShowerBatch) -> NDArray[np.float64]:
    return batch.n_hits


def _layer_sparsity(batch: ShowerBatch) -> NDArray[np.float64]:
    counts = batch.count_bins(batch.layer, batch.detector.n_layers)
    sizes = np.array([layer.n_cells for layer in batch.detector.layers], np.float64)
    return np.asarray(1.0 - counts / sizes)


def _sparsity(batch: ShowerBatch) -> NDArray[np.float64]:
    return 1.0 - np.diff(batch.bounds) / batch.detector.n_cells


HITS = Observable("hits", "cells above threshold", "", _hits)
SPARSITY = Observable("sparsity", "fraction of empty cells", "", _sparsity)
LAYER_SPARSITY = Observable("layer_sparsity", "fraction of empty cells", "", _layer_sparsity, "layer")
