r"""Direction against energy and angle: local mean, width, bias and resolution.

Mean and width of a quantity at a point, from showers around it.

Showers in a window around a point differ in energy :math:`E` and angle :math:`\theta`, which moves and widens any quantity
:math:`x`. A straight line is fitted to them,

.. math:: x_i = \mu + a (E_i - E_0) + b (\theta_i - \theta_0) + r_i ,

so that :math:`\mu` is the mean at the point :math:`(E_0, \theta_0)`, :math:`\sigma`, the spread of the residuals
:math:`r_i`, is the width there, and :math:`\mu + r_i` are the showers moved to the point. Terms whose condition does
not vary are left out; with neither, :math:`\mu` is the plain mean and :math:`\sigma` the plain standard deviation.

Each sample is fitted by itself, so that a sample that is another one times a factor has its mean and its width
times exactly that factor. Errors: :math:`\sigma_\mu^2 = \sigma^2 (X^T X)^{-1}_{00}`, and for the width
:math:`(m_4 - \sigma^4) / (4 n \sigma^2)` with the residuals' fourth moment, which holds for any distribution.

Direction against energy and against angle: bias and resolution.

In each bin of the variable, with the residual :math:`\delta = \theta - \theta_{inc}` of each shower, the bias is
:math:`\langle\delta\rangle` and the resolution the standard deviation of :math:`\delta`. A few showers point far off (two clusters, early
conversions), so that half the width of the central 68.3 % is given as well. Energy response and resolution come from
:mod:`caloforge.validate.resolution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.resolution import ResponseCurve, bins_of, plain_fields, response_curve

__all__ = ["FEWEST", "AngleCurve", "Local", "angle_curve", "at_point", "energy_curve"]


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


_CENTRAL = (15.865, 84.135)
_FEWEST = 10


@dataclass(frozen=True, eq=False)
class AngleCurve:
    """Bias and resolution of the direction in bins; arrays (k,), NaN in bins of too few showers.

    Attributes:
        variable: "incident_energy" (MeV) or "incident_theta" (degrees).
        edges: (k + 1,).
        centre: Mean of the variable in the bin.
        n: Showers with a direction.
        bias: Mean residual, degrees.
        bias_error: One standard deviation.
        resolution: Standard deviation of the residual, degrees.
        resolution_error: One standard deviation.
        width68: Half the width of the central 68.3 %, degrees.
        missing: Showers without a direction.
    """

    variable: str
    edges: NDArray[np.float64]
    centre: NDArray[np.float64]
    n: NDArray[np.int64]
    bias: NDArray[np.float64]
    bias_error: NDArray[np.float64]
    resolution: NDArray[np.float64]
    resolution_error: NDArray[np.float64]
    width68: NDArray[np.float64]
    missing: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, by attribute."""
        return plain_fields(self)


def angle_curve(
    residual: NDArray[np.float64],
    variable: NDArray[np.float64],
    edges: NDArray[np.float64] | None = None,
    name: str = "incident_theta",
) -> AngleCurve:
    """Return bias and resolution of the direction in bins of a variable.

    Arguments:
        residual: (N,) measured minus incident angle, degrees; NaN without a direction.
        variable: (N,) what to bin in.
        edges: (k + 1,) bins; from :func:`~caloforge.validate.resolution.bins_of` when None.
        name: Name of the variable.
    """
    edges = bins_of(variable) if edges is None else edges
    k = len(edges) - 1
    place = np.searchsorted(edges, variable, side="right") - 1
    good = np.isfinite(residual)
    table, n = np.full((6, k), np.nan), np.zeros(k, np.int64)
    for index in range(k):
        chosen = good & (place == index)
        n[index] = chosen.sum()
        if n[index]:
            table[0, index] = variable[chosen].mean()
        if n[index] >= _FEWEST:
            table[1:, index] = _moments(residual[chosen])
    return AngleCurve(
        variable=name,
        edges=edges,
        centre=table[0],
        n=n,
        bias=table[1],
        bias_error=table[2],
        resolution=table[3],
        resolution_error=table[4],
        width68=table[5],
        missing=int((~good).sum()),
    )


def _moments(x: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Return mean, its error, standard deviation, its error, and half the central 68.3 %."""
    n, variance = len(x), float(x.var(ddof=1))
    fourth = float(((x - x.mean()) ** 4).mean())
    error = np.sqrt(max(fourth - variance**2, 0.0) / (4 * n * variance)) if variance > 0 else 0.0
    low, high = np.percentile(x, _CENTRAL)
    width = float(np.sqrt(variance))
    return float(x.mean()), width / np.sqrt(n), width, float(error), float((high - low) / 2)


def energy_curve(
    response: NDArray[np.float64],
    variable: NDArray[np.float64],
    edges: NDArray[np.float64] | None = None,
    name: str = "incident_energy",
) -> ResponseCurve:
    """Return response and resolution in bins of a variable, from measured over incident energies (N,)."""
    return response_curve(response, np.ones_like(response), variable, edges, name)
