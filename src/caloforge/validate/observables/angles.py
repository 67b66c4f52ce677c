"""The shower's direction as theta: 90 degrees along +z, smaller leaning towards +y.

- from the layers' barycentres: the energy-weighted straight line y = a + b z through them has
  b = cov(y, z) / var(z), and theta = atan2(1, b);
- from the principal axis: the eigenvector (v_x, v_y, v_z), v_z >= 0, of the largest eigenvalue of the
  energy-weighted covariance of the cells' positions; theta = atan2(v_z, v_y).

Both are NaN where the energy lies in fewer than two layers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["ANGLE_AXIS", "ANGLE_BARYCENTRES", "principal_angle"]


def _rule(detector: Detector) -> str:
    """Ask for three layers at known depths."""
    if detector.n_layers < 3:
        return f"needs 3 layers; {detector.name} has {detector.n_layers}"
    if detector.order == "cylindrical" and len(detector.shape) == 1:
        return f"needs the depths of the layers in mm; those of {detector.name} are not published"
    return ""


def _deep(batch: ShowerBatch) -> NDArray[np.bool_]:
    """Return which showers (N,) have energy in two layers or more."""
    return np.asarray((batch.layer_energy > 0).sum(axis=1) > 1)


def _barycentres(batch: ShowerBatch) -> NDArray[np.float64]:
    covariance = batch.covariance
    slope = np.full(batch.n, np.nan)
    np.divide(covariance[:, 1, 2], covariance[:, 2, 2], out=slope, where=_deep(batch))
    return np.asarray(np.degrees(np.arctan2(1.0, slope)))


def principal_angle(batch: ShowerBatch) -> NDArray[np.float64]:
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
