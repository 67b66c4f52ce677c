r"""Means, standard deviations and their ratios with errors; moments in bins of a condition and at a point.

The error of the mean of n values is :math:`s / \sqrt n`. For a standard deviation, the unbiased sample variance :math:`s^2`
of any distribution with the cumulants :math:`\kappa_2, \kappa_4` has exactly

.. math:: \mathrm{var}(s^2) = \frac{\kappa_4}{n} + \frac{2 \kappa_2^2}{n - 1} .

Fisher's k-statistics :math:`k_2 = s^2` and :math:`k_4` are unbiased for the cumulants, and
:math:`E[k_2^2] = \kappa_2^2 + \mathrm{var}(s^2)`, so that

.. math:: \widehat{\mathrm{var}}(s^2) = \frac{2 n k_2^2 + (n - 1) k_4}{n (n + 1)}, \qquad
          \sigma(s) = \frac{\sqrt{\widehat{\mathrm{var}}(s^2)}}{2 s} ,

the first without bias, the second by :math:`d s = d(s^2) / (2 s)`. With the central moments :math:`m_2, m_4`,
:math:`k_2 = n m_2 / (n - 1)` and :math:`k_4 = n^2 [(n + 1) m_4 - 3 (n - 1) m_2^2] / [(n - 1)(n - 2)(n - 3)]`. For large n this is
the often used :math:`(m_4 - s^4) / (4 n s^2)`, which for ten normal values gives little more than half of the true variance.

**At a point** of the conditions, such as energy :math:`E` and angle :math:`\theta`: entries in a window around it differ in
their conditions, which moves and widens any quantity :math:`x`. A straight line is fitted to them,

.. math:: x_i = \mu + a (E_i - E_0) + b (\theta_i - \theta_0) + r_i ,

so that :math:`\mu` is the mean at the point :math:`(E_0, \theta_0)`, :math:`\sigma`, the standard deviation of the residuals
:math:`r_i`, is the width there, and :math:`\mu + r_i` are the values moved to the point. Terms whose condition does
not vary are left out; with neither, :math:`\mu` is the plain mean and :math:`\sigma` the plain standard deviation.

Errors: :math:`\sigma_\mu^2 = \sigma^2 (X^T X)^{-1}_{00}`, and for the width that of the standard deviation of the residuals.
Each sample is fitted by itself, so that one that is another times a factor has exactly that factor in mean and width.

References:
    M. G. Kendall, A. Stuart, The advanced theory of statistics 1 (1977), chapter 12 (k-statistics and their variances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEWEST",
    "BinnedMoments",
    "LocalMoments",
    "central_width",
    "condition_bins",
    "core_cells",
    "levels",
    "local_moments",
    "mean_and_std",
    "mean_with_error",
    "moment_ratios",
    "moments_in_bins",
    "ratio_with_error",
    "significance_of_largest",
    "std_error",
    "weighted_moments",
]

Array = NDArray[np.float64]

_NAN = float("nan")
_CENTRAL = (15.865, 50.0, 84.135)
_DISTINCT = 20  # values of a condition up to which each has a bin
_SAME = 1e-6  # relative difference of values that differ by rounding alone
_CORE_CUBES = {(25, 25, 25): slice(10, 17)}
_CORE_SHARE = 0.1


def mean_with_error(x: Array) -> tuple[float, float]:
    """Return the mean of values (N,) and its standard error; NaN where there are too few."""
    if x.size == 0:
        return _NAN, _NAN
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else _NAN


def std_error(x: Array) -> float:
    """Return the error of the standard deviation of values (N,); NaN for fewer than four, 0 for a constant."""
    n = x.size
    if n < 4:
        return _NAN
    squares = (x - x.mean()) ** 2
    m2, m4 = float(squares.mean()), float(squares @ squares) / n
    if m2 == 0.0:
        return 0.0
    k2 = n * m2 / (n - 1)
    k4 = n**2 * ((n + 1) * m4 - 3 * (n - 1) * m2**2) / ((n - 1) * (n - 2) * (n - 3))
    variance = (2 * n * k2**2 + (n - 1) * k4) / (n * (n + 1))
    return float(np.sqrt(max(variance, 0.0) / (4 * k2)))


def mean_and_std(x: Array) -> tuple[float, float, float, float]:
    """Return the mean of values (N,), its error, their standard deviation, its error; NaN where there are too few."""
    mean, error = mean_with_error(x)
    return mean, error, float(x.std(ddof=1)) if x.size > 1 else _NAN, std_error(x)


def ratio_with_error(above: tuple[float, float], below: tuple[float, float]) -> tuple[float, float]:
    """Return the ratio of two independent numbers, each (value, error), with its error; NaN when divided by zero."""
    (a, error_a), (b, error_b) = above, below
    return (a / b, float(np.hypot(error_a, a / b * error_b)) / abs(b)) if b != 0 else (_NAN, _NAN)


def significance_of_largest(z: float, trials: int) -> float:
    r"""Return the significance of the largest of N deviations of z standard deviations, :math:`\sqrt{z^2 - 2 \ln N}`, 0 at least.

    References:
        E. Gross, O. Vitells, Eur. Phys. J. C 70 (2010) 525, arXiv:1005.1891.
    """
    return float(np.sqrt(max(z * z - 2.0 * np.log(trials), 0.0)))


def central_width(x: Array) -> tuple[Array, Array]:
    """Return half the width of the central 68.3 % and the median of values (..., N) along the last axis, each (...)."""
    low, middle, high = np.percentile(x, _CENTRAL, axis=-1)
    return (high - low) / 2.0, middle


def levels(x: Array, most: int) -> Array | None:
    """Return the different values (K,) of a condition (N,), ascending; None when there are more than ``most``.

    Values that differ by at most a millionth of their size, as rounding makes them, are one level, the lowest of them.
    """
    values = np.unique(x)
    found: list[float] = []
    place = 0
    while place < len(values):
        if len(found) == most:
            return None
        first = float(values[place])
        found.append(first)
        place = max(place + 1, int(np.searchsorted(values, first + _SAME * abs(first), "right")))
    return np.array(found)


def condition_bins(x: Array, n_bins: int = 10, open_ends: bool = False) -> Array:
    """Return bin edges (K + 1,) for a condition.

    Arguments:
        x: Its values (N,). Up to 20 different :func:`levels` have a bin each, with edges half-way between them; others are divided
            into bins of equal numbers.
        n_bins: How many of these.
        open_ends: Whether the outer edges are infinite; else just outside the values.
    """
    values = levels(x, _DISTINCT)
    if values is not None:
        reach = max(float(np.ptp(values)), abs(float(values[-1])), 1.0) * 1e-3
        inner = (values[1:] + values[:-1]) / 2
        edges = np.concatenate([[values[0] - reach], inner, [values[-1] + reach]])
    else:
        edges = np.unique(np.quantile(x, np.linspace(0, 1, n_bins + 1)))
        edges[-1] = np.nextafter(edges[-1], np.inf)
    if open_ends:
        edges[0], edges[-1] = -np.inf, np.inf
    return edges


class BinnedMoments(NamedTuple):
    """Moments of a quantity in K bins of a condition, each (K,); NaN where a bin has too few values.

    ``centre`` is the mean of the condition, ``half_width`` half the width of the central 68.3 % of the quantity.
    """

    n: NDArray[np.int64]
    centre: Array
    mean: Array
    mean_error: Array
    std: Array
    std_error: Array
    half_width: Array
    median: Array


def moments_in_bins(x: Array, condition: Array, edges: Array, fewest: int = 10) -> BinnedMoments:
    """Return mean, standard deviation and central width of a quantity (N,) in bins of a condition (N,), with edges (K + 1,).

    Values that are not finite are left out. Moments of a bin of fewer than ``fewest`` values are NaN; its ``centre`` needs one.
    """
    place = np.where(np.isfinite(x), np.searchsorted(edges, condition, side="right") - 1, -1)
    n = np.bincount(place[(place >= 0) & (place < len(edges) - 1)], minlength=len(edges) - 1)
    table = np.full((7, len(n)), np.nan)
    for k in np.flatnonzero(n):
        chosen = place == k
        table[0, k] = condition[chosen].mean()
        if n[k] >= fewest:
            table[1:5, k] = mean_and_std(x[chosen])
            table[5:, k] = central_width(x[chosen])
    return BinnedMoments(n, *table)


def weighted_moments(
    x: NDArray[np.floating], weights: NDArray[np.generic] | None = None
) -> tuple[Array, Array]:
    """Return mean and standard deviation (d,) of rows (N, d), each counted as often as its weight (N,) says."""
    w = np.ones(len(x)) if weights is None else weights.astype(np.float64)
    mean = w @ x / w.sum()
    return mean, np.sqrt(w @ (x - mean) ** 2 / (w.sum() - 1.0))


def core_cells(mean: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the flat indices (c,) of the core of a shower, from the mean energy of each cell (n_cells,).

    In a grid of 25 x 25 x 25 cells it is the published cube [10, 16]^3, elsewhere the cells whose mean energy is at least a
    tenth of the largest.

    References:
        F. Rehm et al., arXiv:2103.13698.
    """
    if shape not in _CORE_CUBES:
        return np.flatnonzero((mean >= _CORE_SHARE * mean.max()) & (mean > 0))
    inside = np.zeros(shape, bool)
    inside[(_CORE_CUBES[shape],) * 3] = True
    return np.flatnonzero(inside)


def moment_ratios(reference: tuple[Array, Array], generated: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return generated over reference means and standard deviations of cells, from both of each sample, (c,) each.

    Cells where the reference is 0 are left out, so that there are at most c ratios of each.
    """
    mean, std = (g[r > 0] / r[r > 0] for r, g in zip(reference, generated, strict=True))
    return mean, std


FEWEST = 20
"""Entries below which mean and width at a point are NaN."""
_RELATIVE = 1e-4  # a condition that varies by less does not vary


@dataclass(frozen=True, eq=False)
class LocalMoments:
    """Mean and width of a quantity at a point, with errors of one standard deviation, from ``n`` entries.

    Attributes:
        missing: Entries without the quantity (NaN).
        width: Standard deviation at the point.
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

    The values (N,) are NaN where an entry does not have the quantity; each condition is (N,), the point one number a condition.
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
