"""Lateral profiles: energy in bins of x, of y, and of the distance from the shower axis, MeV.

Cells of a grid fall into the bin of their own column. A layer whose cells are wider or narrower than the bins,
or move with an alignment, shares each cell's energy among the bins in proportion to the overlap. Voxels of a
mesh fall where their centre is. The outermost bins are open, so that the bins always sum to the visible energy.

The radial profile is taken about the line through the shower's centre of gravity along the incident direction
(a mesh: its own r), cells at their centres; its last bin is open.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.validate.observables.axes import lateral_edges, radial_edges
from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch, is_filled

__all__ = ["RADIAL_PROFILE", "X_PROFILE", "Y_PROFILE"]


@lru_cache(maxsize=32)
def _bin_of_cell(detector: Detector, coordinate: int) -> NDArray[np.int64]:
    """Return the bin (n_cells,) that holds each cell's nominal centre."""
    inner = lateral_edges(detector, coordinate)[1:-1]
    return np.searchsorted(inner, detector.cell_centres[:, coordinate], side="right")


def _lateral(batch: ShowerBatch, coordinate: int) -> NDArray[np.float64]:
    if batch.detector.order == "layered":
        return _shared(batch, coordinate)
    n_bins = len(lateral_edges(batch.detector, coordinate)) - 1
    bins = _bin_of_cell(batch.detector, coordinate)[batch.cell]
    return batch.sum_bins(bins, n_bins, batch.energy)


def _shared(batch: ShowerBatch, coordinate: int) -> NDArray[np.float64]:
    """Share each cell's energy among the bins that it overlaps."""
    inner = lateral_edges(batch.detector, coordinate)[1:-1]
    below = np.zeros((batch.n, len(inner)))
    filled = is_filled(batch.showers.cells, batch.cut)
    cells = np.where(filled, batch.showers.cells, 0).astype(np.float64)
    for index, (layer, members) in enumerate(
        zip(batch.detector.layers, batch.detector.layer_cells, strict=True)
    ):
        assert isinstance(layer, ReadoutLayer)
        grid = cells[:, members].reshape(batch.n, layer.nx, layer.ny)
        energy = grid.sum(axis=2 - coordinate)
        centre, pitch = ((layer.x, layer.pitch_x), (layer.y, layer.pitch_y))[coordinate]
        shift = np.zeros((batch.n, 1)) if batch.shift is None else batch.shift[:, index, coordinate, None]
        low = (centre - pitch / 2)[None, :] + shift
        part = np.clip((inner[None, None, :] - low[:, :, None]) / pitch, 0.0, 1.0)
        below += np.einsum("nc,nce->ne", energy, part)
    bounded = np.concatenate([np.zeros((batch.n, 1)), below, batch.total[:, None]], axis=1)
    return np.maximum(np.diff(bounded, axis=1), 0.0)


def _x(batch: ShowerBatch) -> NDArray[np.float64]:
    return _lateral(batch, 0)


def _y(batch: ShowerBatch) -> NDArray[np.float64]:
    return _lateral(batch, 1)


def _radial(batch: ShowerBatch) -> NDArray[np.float64]:
    edges = radial_edges(batch.detector)
    bins = np.searchsorted(edges[1:-1], batch.axis_radius, side="right")
    return batch.sum_bins(bins, len(edges) - 1, batch.energy)


X_PROFILE = Observable("x_profile", "energy in the column", "MeV", _x, "x")
Y_PROFILE = Observable("y_profile", "energy in the row", "MeV", _y, "y")
RADIAL_PROFILE = Observable("radial_profile", "energy in the ring", "MeV", _radial, "r")
