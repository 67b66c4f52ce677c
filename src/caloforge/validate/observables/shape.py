r"""Observables of the energy and of the longitudinal and lateral shape of a shower.

**Energies and depth**

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

**Centre of gravity and central moments**, over the cells' centres (moved by the detector's layer shift where its cells move); NaN for
empty showers:

.. math::
    \bar x = \frac{\sum_i E_i x_i}{\sum_i E_i}, \qquad
    m_k(x) = \frac{\sum_i E_i (x_i - \bar x)^k}{\sum_i E_i}, \quad k = 2, 3

**Centre and width of each layer** in x (eta), y (phi) and r, exactly as the CaloChallenge defines them:

.. math::
    C_l(x) = \frac{\sum x E}{\sum E + 10^{-16}}, \qquad
    W_l(x) = \sqrt{\max\left(0, \frac{\sum x^2 E}{\sum E + 10^{-16}} - C_l(x)^2\right)}

Voxels of a mesh have x = r cos(alpha) and y = r sin(alpha); a layer with a single angular bin lies at 0 in both. r is a voxel's own
radius, and for cells the distance from the nominal beam line at the layer's depth. Empty layers have centre and width 0.

**Direction** as theta: 90 degrees along +z, smaller leaning towards +y. From the layers' barycentres: the energy-weighted straight line
y = a + b z through them has b = cov(y, z) / var(z), and theta = atan2(1, b). From the principal axis: the eigenvector
(v_x, v_y, v_z), v_z >= 0, of the largest eigenvalue of the energy-weighted covariance of the cells' positions; theta = atan2(v_z, v_y).
Both are NaN where the energy lies in fewer than two layers.

**Profiles**: energy in bins of x, of y, and of the distance from the shower axis, MeV. Cells of a grid are in the bin of their own
column. A layer whose cells are wider or narrower than the bins, or move with an alignment, shares each cell's energy among the bins in
proportion to the overlap. Voxels of a mesh are in the bin of their centre. The outermost bins are open, so that the bins sum
to the visible energy. The radial profile is about the line through the shower's centre of gravity along the incident direction (a mesh:
its own r), cells at their centres; its last bin is open.

**Containment**: the distance from the same line within which 90 % of the visible energy lies, which is that of the cell at which the
cumulative energy, ordered by distance, reaches 90 %. NaN for empty showers.

References:
    C. Krause et al., CaloChallenge 2022, arXiv:2410.21611, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.validate.observables.base import (
    Axis,
    Observable,
    always,
    lateral_edges,
    needs_layers,
    radial_edges,
)
from caloforge.validate.observables.batch import Array, ShowerBatch, cell_positions, is_filled

__all__ = ["beam_window", "principal_angle", "tracked_cells"]

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


def _rule(detector: Detector) -> str:
    """Require three layers at known depths."""
    if detector.n_layers < 3:
        return f"needs 3 layers; {detector.name} has {detector.n_layers}"
    if detector.order == "cylindrical" and len(detector.shape) == 1:
        return f"needs the depths of the layers in mm; those of {detector.name} are not published"
    return ""


def _deep(batch: ShowerBatch) -> NDArray[np.bool_]:
    """Return which showers (N,) have energy in two layers or more."""
    return np.asarray((batch.layer_energy > 0).sum(axis=1) > 1)


def _barycentres(batch: ShowerBatch) -> Array:
    covariance = batch.covariance
    slope = np.full(batch.n, np.nan)
    np.divide(covariance[:, 1, 2], covariance[:, 2, 2], out=slope, where=_deep(batch))
    return np.asarray(np.degrees(np.arctan2(1.0, slope)))


def principal_angle(batch: ShowerBatch) -> Array:
    """Return theta (N,) of the showers' principal axes, degrees."""
    theta, deep = np.full(batch.n, np.nan), _deep(batch)
    if deep.any():
        axis = np.linalg.eigh(batch.covariance[deep])[1][:, :, -1]
        axis = axis * np.where(axis[:, 2:] < 0, -1.0, 1.0)
        theta[deep] = np.degrees(np.arctan2(axis[:, 2], axis[:, 1]))
    return theta


_MISSING = "showers with energy in fewer than two layers"
ANGLE_BARYCENTRES = Observable(
    "angle_barycentres", "angle from layer barycentres", "degrees", _barycentres, missing=_MISSING, rule=_rule
)
ANGLE_AXIS = Observable(
    "angle_axis", "angle of the principal axis", "degrees", principal_angle, missing=_MISSING, rule=_rule
)

_RULES = {"x": always, "y": always, "z": needs_layers(2)}


def _moments(axis: int, name: str) -> tuple[Observable, Observable, Observable]:
    """Return centre of gravity, second and third central moment along an axis."""

    def third(batch: ShowerBatch) -> Array:
        offset = batch.offsets[axis]
        return batch.mean(offset * offset * offset)

    def observable(key: str, label: str, unit: str, compute: Callable[[ShowerBatch], Array]) -> Observable:
        return Observable(
            f"{key}_{name}", f"{label} in {name}", unit, compute, missing="empty showers", rule=_RULES[name]
        )

    return (
        observable("centre", "centre of gravity", "mm", lambda batch: batch.centre[axis]),
        observable("second_moment", "second central moment", "mm2", lambda x: x.covariance[:, axis, axis]),
        observable("third_moment", "third central moment", "mm3", third),
    )


CENTRE_X, SECOND_X, THIRD_X = _moments(0, "x")
CENTRE_Y, SECOND_Y, THIRD_Y = _moments(1, "y")
CENTRE_Z, SECOND_Z, THIRD_Z = _moments(2, "z")

_TINY = 1e-16  # MeV, the CaloChallenge's guard of empty layers


def _layer_moments(name: str, position: str, sums: str) -> tuple[Observable, Observable]:
    """Return centre and width of each layer along an axis, from attributes of the batch: positions, and their weighted sums."""

    def centre(batch: ShowerBatch) -> Array:
        return np.asarray(getattr(batch, sums) / (batch.layer_energy + _TINY))

    def width(batch: ShowerBatch) -> Array:
        x = getattr(batch, position)
        squares = batch.sum_layers(batch.energy * x * x) / (batch.layer_energy + _TINY)
        return np.sqrt(np.maximum(0.0, squares - centre(batch) ** 2))

    return (
        Observable(f"layer_centre_{name}", f"centre of the layer in {name}", "mm", centre, "layer"),
        Observable(f"layer_width_{name}", f"width of the layer in {name}", "mm", width, "layer"),
    )


LAYER_CENTRE_X, LAYER_WIDTH_X = _layer_moments("x", "x", "layer_ex")
LAYER_CENTRE_Y, LAYER_WIDTH_Y = _layer_moments("y", "y", "layer_ey")
LAYER_CENTRE_R, LAYER_WIDTH_R = _layer_moments("r", "beam_radius", "layer_er")


@lru_cache(maxsize=32)
def _bin_of_cell(detector: Detector, coordinate: int) -> NDArray[np.int64]:
    """Return the bin (n_cells,) of each cell's nominal centre."""
    inner = lateral_edges(detector, coordinate)[1:-1]
    return np.searchsorted(inner, detector.cell_centres[:, coordinate], side="right")


def _lateral(batch: ShowerBatch, coordinate: int) -> Array:
    if batch.detector.order == "layered":
        return _shared(batch, coordinate)
    n_bins = len(lateral_edges(batch.detector, coordinate)) - 1
    bins = _bin_of_cell(batch.detector, coordinate)[batch.cell]
    return batch.sum_bins(bins, n_bins, batch.energy)


def _shared(batch: ShowerBatch, coordinate: int) -> Array:
    """Share each cell's energy among the bins that it overlaps."""
    inner = lateral_edges(batch.detector, coordinate)[1:-1]
    below = np.zeros((batch.n, len(inner)))
    filled = is_filled(batch.showers.cells, batch.cut)
    cells = np.where(filled, batch.showers.cells, 0).astype(np.float64)
    members_of = batch.detector.layer_cells
    for index, (layer, members) in enumerate(zip(batch.detector.layers, members_of, strict=True)):
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


def _radial(batch: ShowerBatch) -> Array:
    edges = radial_edges(batch.detector)
    bins = np.searchsorted(edges[1:-1], batch.axis_radius, side="right")
    return batch.sum_bins(bins, len(edges) - 1, batch.energy)


X_PROFILE = Observable("x_profile", "energy in the column", "MeV", lambda batch: _lateral(batch, 0), "x")
Y_PROFILE = Observable("y_profile", "energy in the row", "MeV", lambda batch: _lateral(batch, 1), "y")
RADIAL_PROFILE = Observable("radial_profile", "energy in the ring", "MeV", _radial, "r")


def _radius_90(batch: ShowerBatch) -> Array:
    out = np.full(batch.n, np.nan)
    radius = batch.axis_radius
    if not len(radius):
        return out
    step = float(radius.max()) + 1.0  # keeps the showers apart in one sort of all hits
    order = np.argsort(radius + step * batch.shower)
    cumulative = np.concatenate([[0.0], np.cumsum(batch.energy[order])])
    first, last = batch.bounds[:-1][batch.filled], batch.bounds[1:][batch.filled]
    before, after = cumulative[first], cumulative[last]
    target = before + _CONTAINED * (1 - _ROUNDING) * (after - before)
    reached = np.clip(np.searchsorted(cumulative, target) - 1, first, last - 1)
    out[batch.filled] = radius[order[reached]]
    return out


RADIUS_90 = Observable("radius_90", "radius of 90 % of the energy", "mm", _radius_90, missing="empty showers")
