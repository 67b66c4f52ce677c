"""How deep the shower sits: depth, start, and where 90 % of its energy is contained.

- shower depth: d = sum E_l l / sum E_l, with the layers l counted from 0 (ATL-SOFT-PUB-2018-001);
- shower start: the first layer up to which at least 1 % of the visible energy is seen;
- depth of 90 %: where the cumulative energy, drawn as straight lines through (z_l, E_0 + ... + E_l), reaches
  90 % of the visible energy; it starts from zero one layer distance before the first layer.

All are NaN for empty showers. The depth in mm is the centre of gravity in z.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable, needs_layers
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["DEPTH_90", "SHOWER_DEPTH", "SHOWER_START", "depth_of_fraction"]

_START = 0.01
_CONTAINED = 0.9
_ROUNDING = 1e-12  # relative; keeps the last layer's cumulative sum above a target of the whole


def _depth(batch: ShowerBatch) -> NDArray[np.float64]:
    return batch.over_total(batch.layer_energy @ np.arange(batch.detector.n_layers, dtype=np.float64))


def _start(batch: ShowerBatch) -> NDArray[np.float64]:
    target = _START * (1 - _ROUNDING) * batch.total
    reached = np.cumsum(batch.layer_energy, axis=1) >= target[:, None]
    return np.where(batch.filled, reached.argmax(axis=1), np.nan)


def depth_of_fraction(
    layer_energy: NDArray[np.float64], z: NDArray[np.float64], fraction: float
) -> NDArray[np.float64]:
    """Return the depth up to which a fraction of the energy is contained.

    Arguments:
        layer_energy: (N, n_layers) MeV.
        z: (n_layers,) depths, mm; at least two.
        fraction: Between 0 and 1.

    Returns:
        (N,) mm; NaN for empty showers.
    """
    total = layer_energy.sum(axis=1)
    cumulative = np.cumsum(layer_energy, axis=1)
    target = fraction * (1 - _ROUNDING) * total
    last = (cumulative >= target[:, None]).argmax(axis=1)
    rows = np.arange(len(total))
    upper = cumulative[rows, last]
    lower = upper - layer_energy[rows, last]
    edges = np.concatenate([[2 * z[0] - z[1]], z])
    part = np.full(len(total), np.nan)
    np.divide(target - lower, upper - lower, out=part, where=total > 0)
    depth: NDArray[np.float64] = edges[last] + part * (edges[last + 1] - edges[last])
    return depth


def _depth_90(batch: ShowerBatch) -> NDArray[np.float64]:
    z = np.array([layer.z for layer in batch.detector.layers])
    return depth_of_fraction(batch.layer_energy, z, _CONTAINED)


_EMPTY = "empty showers"
SHOWER_DEPTH = Observable(
    "shower_depth", "shower depth", "layers", _depth, missing=_EMPTY, rule=needs_layers(2)
)
SHOWER_START = Observable(
    "shower_start", "shower start", "layers", _start, missing=_EMPTY, rule=needs_layers(2)
)
DEPTH_90 = Observable(
    "depth_90", "depth of 90 % of the energy", "mm", _depth_90, missing=_EMPTY, rule=needs_layers(2)
)
