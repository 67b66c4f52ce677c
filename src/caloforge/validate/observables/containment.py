"""Lateral containment: the distance from the shower axis within which 90 % of the visible energy lies.

The cells are ordered by the distance of their centres from the line through the shower's centre of gravity
along the incident direction; the radius is that of the cell at which the cumulative energy reaches 90 %. NaN
for empty showers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["RADIUS_90"]

_CONTAINED = 0.9
_ROUNDING = 1e-12


def _radius_90(batch: ShowerBatch) -> NDArray[np.float64]:
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
