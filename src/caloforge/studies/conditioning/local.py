r"""Mean and width of a quantity at a point, from showers around it.

Showers in a window around a point differ in energy :math:`E` and angle :math:`\theta`, which moves and widens any quantity
:math:`x`. A straight line is fitted to them,

.. math:: x_i = \mu + a (E_i - E_0) + b (\theta_i - \theta_0) + r_i ,

so that :math:`\mu` is the mean at the point :math:`(E_0, \theta_0)`, :math:`\sigma`, the spread of the residuals
:math:`r_i`, is the width there, and :math:`\mu + r_i` are the showers moved to the point. Terms whose condition does
not vary are left out; with neither, :math:`\mu` is the plain mean and :math:`\sigma` the plain standard deviation.

Each sample is fitted by itself, so that a sample that is another one times a factor has its mean and its width
times exactly that factor. Errors: :math:`\sigma_\mu^2 = \sigma^2 (X^T X)^{-1}_{00}`, and for the width
:math:`(m_4 - \sigma^4) / (4 n \sigma^2)` with the residuals' fourth moment, which holds for any distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Local", "at_point"]

FEWEST = 20
"""Showers below which nothing is said."""
_RELATIVE = 1e-4  # a condition that varies by less does not vary


@dataclass(frozen=True, eq=False)
class Local:
    """A quantity at a point.

    Attributes:
        n: Showers that have the quantity.
        missing: Showers that do not (NaN).
        mean: At the point.
        mean_error: One standard deviation.
        width: Standard deviation at the point.
        width_error: One standard deviation.
        moved: (n,) the showers' values moved to the point.
    """

    n: int
    missing: int
    mean: float
    mean_error: float
    width: float
    width_error: float
    moved: NDArray[np.float64]


def at_point(
    values: NDArray[np.float64], conditions: Sequence[NDArray[np.float64]], point: Sequence[float]
) -> Local:
    """Return mean and width of a quantity at a point.

    Arguments:
        values: (N,) NaN where a shower does not have the quantity.
        conditions: Each (N,), such as energy and angle.
        point: Where, one number a condition.

    Returns:
        NaN in all numbers where fewer than :data:`FEWEST` showers have the quantity.
    """
    good = np.isfinite(values)
    x, n = values[good], int(good.sum())
    missing = len(values) - n
    if n < FEWEST:
        unknown = float("nan")
        return Local(n, missing, unknown, unknown, unknown, unknown, x)
    columns = [np.ones(n)]
    for condition, where in zip(conditions, point, strict=True):
        offset = condition[good] - where
        scale = max(abs(where), float(np.abs(condition[good]).max()))
        if np.ptp(offset) > _RELATIVE * scale:
            columns.append(offset / np.abs(offset).max())
    design = np.stack(columns, axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, x, rcond=None)
    residual = x - design @ solution
    free = max(n - int(rank), 1)
    variance = float(residual @ residual) / free
    covariance = np.linalg.pinv(design.T @ design)
    sigma = float(np.sqrt(variance))
    fourth = float((residual**4).mean())
    error = np.sqrt(max(fourth - variance**2, 0.0) / (4 * n * variance)) if variance > 0 else 0.0
    return Local(
        n=n,
        missing=missing,
        mean=float(solution[0]),
        mean_error=sigma * float(np.sqrt(covariance[0, 0])),
        width=sigma,
        width_error=float(error),
        moved=solution[0] + residual,
    )
