r"""Mean and width of a quantity at a point of the conditions, from entries around it.

Entries in a window around a point differ in their conditions, such as energy :math:`E` and angle :math:`\theta`, which moves
and widens any quantity :math:`x`. A straight line is fitted to them,

.. math:: x_i = \mu + a (E_i - E_0) + b (\theta_i - \theta_0) + r_i ,

so that :math:`\mu` is the mean at the point :math:`(E_0, \theta_0)`, :math:`\sigma`, the standard deviation of the residuals
:math:`r_i`, is the width there, and :math:`\mu + r_i` are the values moved to the point. Terms whose condition does
not vary are left out; with neither, :math:`\mu` is the plain mean and :math:`\sigma` the plain standard deviation.

Each sample is fitted by itself, so that a sample that is another one times a factor has its mean and its width
times exactly that factor. Errors: :math:`\sigma_\mu^2 = \sigma^2 (X^T X)^{-1}_{00}`, and for the width that of the standard
deviation of the residuals (:mod:`caloforge.statistics.moments`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.moments import std_error

__all__ = ["FEWEST", "LocalMoments", "local_moments"]

FEWEST = 20
"""Entries below which mean and width are NaN."""
_RELATIVE = 1e-4  # a condition that varies by less does not vary


@dataclass(frozen=True, eq=False)
class LocalMoments:
    """A quantity at a point.

    Attributes:
        n: Entries that have the quantity.
        missing: Entries that do not (NaN).
        mean: At the point.
        mean_error: One standard deviation.
        width: Standard deviation at the point.
        width_error: One standard deviation.
        moved: (n,) the values moved to the point.
    """

    n: int
    missing: int
    mean: float
    mean_error: float
    width: float
    width_error: float
    moved: NDArray[np.float64]


def local_moments(
    values: NDArray[np.float64], conditions: Sequence[NDArray[np.float64]], point: Sequence[float]
) -> LocalMoments:
    """Return mean and width of a quantity at a point; NaN where fewer than :data:`FEWEST` entries have it.

    Arguments:
        values: (N,) NaN where an entry does not have the quantity.
        conditions: Each (N,), such as energy and angle.
        point: Where, one number a condition.
    """
    good = np.isfinite(values)
    x, n = values[good], int(good.sum())
    missing = len(values) - n
    if n < FEWEST:
        return LocalMoments(n, missing, np.nan, np.nan, np.nan, np.nan, x)
    columns = [np.ones(n)]
    for condition, where in zip(conditions, point, strict=True):
        offset = condition[good] - where
        scale = max(abs(where), float(np.abs(condition[good]).max()))
        if np.ptp(offset) > _RELATIVE * scale:
            columns.append(offset / np.abs(offset).max())
    design = np.stack(columns, axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, x, rcond=None)
    residual = x - design @ solution
    variance = float(residual @ residual) / max(n - int(rank), 1)
    sigma = float(np.sqrt(variance))
    mean_error = sigma * float(np.sqrt(np.linalg.pinv(design.T @ design)[0, 0]))
    moved = solution[0] + residual
    return LocalMoments(n, missing, float(solution[0]), mean_error, sigma, std_error(moved), moved)
