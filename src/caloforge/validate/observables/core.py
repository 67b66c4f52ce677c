"""The core cells: the window around the beam, deep enough to hold the shower's maximum.

In a grid it is 7 x 7 x 7 cells: in x and y from two cells before to four cells after the cell that the beam enters,
in depth seven layers from 40 % of the layers on. In the 25 x 25 x 25 grid this is [10, 16]^3, the window of
F. Rehm et al. (arXiv:2103.13698). Elsewhere it is, in each of these layers, the quarter of the cells nearest to the beam,
at most 49. Windows are moved inside where they would reach beyond the grid.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch, is_filled
from caloforge.validate.observables.frame import cell_frame

__all__ = ["CORE_CELLS", "CORE_MEAN", "CORE_STD", "core_cells", "tracked_cells"]

_SIZE = 7
_BEFORE = 2
_FIRST_LAYER = 0.4
_WHOLE = 600  # cells up to which a detector is tracked whole


def _window(n: int, first: int) -> NDArray[np.int64]:
    """Return up to seven consecutive indices below n, from ``first`` where they fit."""
    size = min(_SIZE, n)
    start = int(np.clip(first, 0, n - size))
    return np.arange(start, start + size)


@lru_cache(maxsize=16)
def core_cells(detector: Detector) -> NDArray[np.int64]:
    """Return the flat indices of the core cells, sorted."""
    layers = _window(detector.n_layers, int(_FIRST_LAYER * detector.n_layers + 1e-9))
    first = detector.layers[0]
    beam = detector.beam
    if detector.is_grid and isinstance(first, ReadoutLayer):
        ix = _window(first.nx, int(np.abs(first.x - beam.x).argmin()) - _BEFORE)
        iy = _window(first.ny, int(np.abs(first.y - beam.y).argmin()) - _BEFORE)
        inside = (ix[:, None, None] * first.ny + iy[:, None]) * detector.n_layers + layers
        return np.sort(inside.reshape(-1))
    frame = cell_frame(detector)
    distance = np.hypot(frame.centre[0] - beam.x, frame.centre[1] - beam.y)
    distance = distance if frame.radius is None else frame.radius
    chosen = []
    for layer in layers:
        cells = detector.layer_cells[layer]
        count = min(_SIZE * _SIZE, -(-len(cells) // 4))
        chosen.append(cells[np.argsort(distance[cells], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


@lru_cache(maxsize=16)
def tracked_cells(detector: Detector) -> NDArray[np.int64]:
    """Return the cells whose energies the table keeps for each shower: all of a small detector, else the core."""
    return np.arange(detector.n_cells) if detector.n_cells <= _WHOLE else core_cells(detector)


def _energies(batch: ShowerBatch, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    chosen = batch.showers.cells[:, cells]
    return np.where(is_filled(chosen, batch.cut), chosen, np.float32(0))


def _tracked(batch: ShowerBatch) -> NDArray[np.float32]:
    return _energies(batch, tracked_cells(batch.detector))


def _mean(batch: ShowerBatch) -> NDArray[np.float64]:
    return np.asarray(_energies(batch, core_cells(batch.detector)).mean(axis=1, dtype=np.float64))


def _std(batch: ShowerBatch) -> NDArray[np.float64]:
    return np.asarray(_energies(batch, core_cells(batch.detector)).std(axis=1, dtype=np.float64))


CORE_CELLS = Observable("core_cells", "energies of the tracked cells", "MeV", _tracked, "cell")
CORE_MEAN = Observable("core_mean", "mean energy of the core cells", "MeV", _mean)
CORE_STD = Observable("core_std", "spread of the core cells' energies", "MeV", _std)
