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


def _barycentres(batch: ShowerBatch) -> NDArray[np.float64]:
    covariance = batch.covariance
    spread = covariance[:, 2, 2] > 0
    slope = np.full(batch.n, np.nan)
    np.divide(covariance[:, 1, 2], covariance[:, 2, 2], out=slope, where=spread)
    return np.asarray(np.degrees(np.arctan2(1.0, slope)))


def principal_angle(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return theta (N,), degrees, of the principal axes of covariances (N, 3, 3), mm2."""
    theta = np.full(len(covariance), np.nan)
    good = covariance[:, 2, 2] > 0
    if good.any():
        axis = np.linalg.eigh(covariance[good])[1][:, :, -1]
        axis = axis * np.where(axis[:, 2:] < 0, -1.0, 1.0)
        theta[good] = np.degrees(np.arctan2(axis[:, 2], axis[:, 1]))
    return theta


def _axis(batch: ShowerBatch) -> NDArray[np.float64]:
    return principal_angle(batch.covariance)


_MISSING = "showers with energy in fewer than two layers"
ANGLE_BARYCENTRES = Observable(
    "angle_barycentres", "angle from layer barycentres", "degrees", _barycentres, missing=_MISSING, rule=_rule
)
ANGLE_AXIS = Observable(
    "angle_axis", "angle of the principal axis", "degrees", _axis, missing=_MISSING, rule=_rule
)
