r"""Energies and depth: visible energy, hits, layer energies, depth, and the cells around the beam.

.. math:: E_{vis} = \sum_i E_i, \qquad R = \frac{E_{vis}}{f E_{inc}}, \qquad E_{peak} = \max_i E_i

with the detector's sampling fraction f, so that the response R is 1 on average. A hit is a cell above the threshold. Sparsity is 1
minus the fraction of cells with any energy after the cut, for each layer as the CaloChallenge has it, and over all cells.

- shower depth: d = sum E_l l / sum E_l, with the layers l counted from 0 (ATL-SOFT-PUB-2018-001);
- shower start: the first layer up to which at least 1 % of the visible energy is seen;
- depth of 90 %: where the cumulative energy, drawn as straight lines through (z_l, E_0 + ... + E_l), reaches
  90 % of the visible energy; it starts from zero one layer distance before the first layer.

All three are NaN for empty showers. The depth in mm is the centre of gravity in z.

``core_mean`` and ``core_std`` are of a window around the beam (:func:`beam_window`): in a grid 7 x 7 x 7 cells, in x and y from two cells
before to four cells after the cell that the beam enters, in depth seven layers from 40 % of the layers on. In the 25 x 25 x 25 grid
this is [10, 16]^3, the window of F. Rehm et al. (arXiv:2103.13698). Elsewhere it is, in each of these layers, the quarter of the
cells nearest to the beam, at most 49. Windows are moved inside where they would reach beyond the grid. ``core_cells`` are the
energies of these cells, or of all cells of a small detector (:func:`tracked_cells`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.validate.observables.base import Axis, Observable, needs_layers
from caloforge.validate.observables.batch import ShowerBatch, cell_positions, is_filled

__all__ = ["beam_window", "tracked_cells"]

Array = NDArray[np.float64]


_VISIBLE = "visible / (sampling fraction x incident energy)"
_CONTAINED = 0.9
_START = 0.01
_ROUNDING = 1e-12  # relative; keeps the last layer's cumulative sum above a target of the whole
_SIZE = 7  # of the window around the beam, cells and layers
_BEFORE = 2
_FIRST_LAYER = 0.4
_WHOLE = 600  # cells up to which a detector is tracked whole


def _layer_sparsity(batch: ShowerBatch) -> Array:
    counts = batch.count_bins(batch.layer, batch.detector.n_layers)
    sizes = np.array([layer.n_cells for layer in batch.detector.layers], np.float64)
    return np.asarray(1.0 - counts / sizes)


def _fraction(batch: ShowerBatch) -> Array:
    out = np.zeros_like(batch.layer_energy)
    np.divide(batch.layer_energy, batch.total[:, None], out=out, where=batch.filled[:, None])
    return out


def _start(batch: ShowerBatch) -> Array:
    target = _START * (1 - _ROUNDING) * batch.total
    reached = np.cumsum(batch.layer_energy, axis=1) >= target[:, None]
    return np.where(batch.filled, reached.argmax(axis=1), np.nan)


def _depth_90(batch: ShowerBatch) -> Array:
    layer_energy, z = batch.layer_energy, np.array([layer.z for layer in batch.detector.layers])
    total = layer_energy.sum(axis=1)
    cumulative = np.cumsum(layer_energy, axis=1)
    target = _CONTAINED * (1 - _ROUNDING) * total
    last = (cumulative >= target[:, None]).argmax(axis=1)
    rows = np.arange(len(total))
    upper = cumulative[rows, last]
    lower = upper - layer_energy[rows, last]
    edges = np.concatenate([[2 * z[0] - z[1]], z])
    part = np.full(len(total), np.nan)
    np.divide(target - lower, upper - lower, out=part, where=total > 0)
    depth: Array = edges[last] + part * (edges[last + 1] - edges[last])
    return depth


def _window(n: int, first: int) -> NDArray[np.int64]:
    """Return up to seven consecutive indices below n, from ``first`` where they fit."""
    size = min(_SIZE, n)
    start = int(np.clip(first, 0, n - size))
    return np.arange(start, start + size)


@lru_cache(maxsize=16)
def beam_window(detector: Detector) -> NDArray[np.int64]:
    """Return the flat indices of the cells around the beam, sorted."""
    layers = _window(detector.n_layers, int(_FIRST_LAYER * detector.n_layers + 1e-9))
    first = detector.layers[0]
    beam = detector.beam
    if detector.is_grid and isinstance(first, ReadoutLayer):
        ix = _window(first.nx, int(np.abs(first.x - beam.x).argmin()) - _BEFORE)
        iy = _window(first.ny, int(np.abs(first.y - beam.y).argmin()) - _BEFORE)
        inside = (ix[:, None, None] * first.ny + iy[:, None]) * detector.n_layers + layers
        return np.sort(inside.reshape(-1))
    positions = cell_positions(detector)
    distance = np.hypot(positions.centre[0] - beam.x, positions.centre[1] - beam.y)
    distance = distance if positions.radius is None else positions.radius
    chosen = []
    for layer in layers:
        cells = detector.layer_cells[layer]
        count = min(_SIZE * _SIZE, -(-len(cells) // 4))
        chosen.append(cells[np.argsort(distance[cells], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


@lru_cache(maxsize=16)
def tracked_cells(detector: Detector) -> NDArray[np.int64]:
    """Return the cells whose energies the table keeps for each shower: all of a small detector, else those around the beam."""
    return np.arange(detector.n_cells) if detector.n_cells <= _WHOLE else beam_window(detector)


def _energies(batch: ShowerBatch, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    chosen = batch.showers.cells[:, cells]
    return np.where(is_filled(chosen, batch.cut), chosen, np.float32(0))


def _of_layers(
    name: str, label: str, unit: str, compute: Callable[[ShowerBatch], Array], axis: Axis = "layer"
) -> Observable:
    """Return an observable of a detector of several layers; NaN for empty showers when it is one number a shower."""
    missing = "" if axis == "layer" else "empty showers"
    return Observable(name, label, unit, compute, axis, missing, rule=needs_layers(2))


VISIBLE_ENERGY = Observable("visible_energy", "visible energy", "MeV", lambda x: x.total)
RESPONSE = Observable(
    "response", _VISIBLE, "", lambda x: x.total / (x.detector.sampling_fraction * x.showers.incident_energy)
)
PEAK_ENERGY = Observable("peak_energy", "highest cell energy", "MeV", lambda x: x.max(x.energy))
HITS = Observable("hits", "cells above threshold", "", lambda x: x.n_hits)
SPARSITY = Observable(
    "sparsity", "fraction of empty cells", "", lambda x: 1.0 - np.diff(x.bounds) / x.detector.n_cells
)
LAYER_SPARSITY = Observable("layer_sparsity", "fraction of empty cells", "", _layer_sparsity, "layer")
LAYER_ENERGY = _of_layers("layer_energy", "layer energy", "MeV", lambda x: x.layer_energy)
LAYER_FRACTION = _of_layers("layer_fraction", "layer energy / visible energy", "", _fraction)
SHOWER_DEPTH = _of_layers(
    "shower_depth",
    "shower depth",
    "layers",
    lambda x: x.over_total(x.layer_energy @ np.arange(x.detector.n_layers, dtype=np.float64)),
    "shower",
)
SHOWER_START = _of_layers("shower_start", "shower start", "layers", _start, "shower")
DEPTH_90 = _of_layers("depth_90", "depth of 90 % of the energy", "mm", _depth_90, "shower")
CORE_CELLS = Observable(
    "core_cells",
    "energies of the tracked cells",
    "MeV",
    lambda x: _energies(x, tracked_cells(x.detector)),
    "cell",
)
CORE_MEAN = Observable(
    "core_mean",
    "mean energy of the cells around the beam",
    "MeV",
    lambda x: np.asarray(_energies(x, beam_window(x.detector)).mean(axis=1, dtype=np.float64)),
)
CORE_STD = Observable(
    "core_std",
    "standard deviation of the cells around the beam",
    "MeV",
    lambda x: np.asarray(_energies(x, beam_window(x.detector)).std(axis=1, dtype=np.float64)),
)
