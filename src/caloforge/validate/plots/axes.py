"""Ranges, ticks and titles of axes: they fit what is drawn, whatever outliers there are and however long a name is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import require

__all__ = [
    "FIVE_PERCENT",
    "fitted",
    "legend_columns",
    "logarithmic",
    "plain_name",
    "ratio_limits",
    "ratio_ticks",
    "whole_bins",
]

Array = NDArray[np.float64]

FIVE_PERCENT = (0.95, 1.05)
"""Dotted lines of a ratio axis."""
_MOST_REACH = 0.48
_RATIO_REACH = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


def fitted(text: str, inches: float, size: float = 14.0) -> tuple[str, float]:
    """Return a title and the size of its letters, points, so that it fits a width: smaller, and in several lines where that is not enough.

    Long names without spaces are broken inside.
    """
    letter = 0.53 / 72.0  # mean width of a letter, inches a point
    if len(text) * size * letter <= inches:
        return text, size
    small = max(0.72 * size, min(size, inches / (len(text) * letter)))
    return "\n".join(textwrap.wrap(text, max(8, int(inches / (small * letter))))), small


def legend_columns(labels: Sequence[str], inches: float, size: float = 13.0) -> tuple[int, float]:
    """Return the columns of a legend inside axes of that width, at most two, and the size of its letters, points: smaller before fewer."""
    longest = max(map(len, labels), default=0) * 0.56 + 3.6  # of an entry with its line, in letters' heights
    for columns, least in ((2, 0.75), (1, 0.6)):
        fits = 72.0 * inches / (columns * longest)
        if fits >= least * size:
            return columns, min(size, fits)
    return 1, 0.6 * size


def plain_name(label: str) -> str:
    """Return the reference's label without the remark that it is one."""
    return label.removesuffix(" (reference)")


def whole_bins(edges: Array) -> bool:
    """Return whether every bin is around one whole number."""
    return bool(np.allclose(np.diff(edges), 1.0) and np.allclose(edges % 1.0, 0.5))


def ratio_limits(ratios: Sequence[tuple[Array, Array]]) -> tuple[float, float]:
    """Return limits of an axis of ratios: they show where the samples are, and 5 % at least.

    A point counts the less the worse it is measured than half of them, and the last tenth does not count, so that outliers
    and bins of few entries do not set the range; above 50 % only what most points need does.

    Arguments:
        ratios: Of each sample the ratios (B,) and their uncertainties (B,).
    """
    reach, typical = [0.0], [0.0]
    for ratio, error in ratios:
        known = np.isfinite(ratio) & (error < 0.25)
        if (error[known] > 0.0).any():
            known &= error > 0.0  # an empty bin is not one that is known exactly
        if known.any():
            weights = 1.0 / np.maximum(error[known], max(0.01, float(np.median(error[known])))) ** 2
            off = np.abs(ratio[known] - 1.0)
            reach.append(_weighted_quantile(off + error[known], weights, 0.9))
            typical.append(_weighted_quantile(off, weights, 0.5))
    most = max(min(max(reach), _MOST_REACH), max(typical))
    width = next((w for w in _RATIO_REACH if most <= 0.97 * w), _RATIO_REACH[-1])
    return max(0.0, 1.0 - width), 1.0 + width


def ratio_ticks(low: float, high: float) -> list[float]:
    """Return where a ratio axis with these limits has numbers: in the middle, at the ends, and between where they are apart."""
    step = high - 1.0
    step = 1.0 if step > 1.0 else step if step <= FIVE_PERCENT[1] - 0.99 else step / 2
    return [float(value) for value in np.arange(low, high + step / 2, step).round(4)]


def logarithmic(place: Any) -> None:
    """Scale x of matplotlib axes by its logarithm: plain numbers at 1, 2 and 5 times powers of ten where it spans less than two decades.

    To be called when the limits are set. Between powers of ten matplotlib would write 3 x 10^2 and 4 x 10^2 over each other.
    """
    place.set_xscale("log")
    ticker = require("matplotlib.ticker", extra="report")
    low, high = place.get_xlim()
    if high < 100.0 * low:
        place.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        place.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    place.xaxis.set_minor_formatter(ticker.NullFormatter())


def _weighted_quantile(values: Array, weights: Array, part: float) -> float:
    """Return the value up to which that part of the weights is."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, part)), len(values) - 1)])
