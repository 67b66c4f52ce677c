"""Figures of several panels with margins in inches.

Letting matplotlib find the margins costs as much as drawing, once a file; here they are given, and the small panels have
no minor ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.plots.panel import BAND, colour

__all__ = ["MARKERS", "Margins", "errorbars", "histograms", "legend", "panels"]

MARKERS = ("o", "s", "D", "^", "P", "X")
_KEY, _LETTER = 0.75, 0.095
"""Width of a legend's line and of a letter beside it, inches."""


@dataclass(frozen=True)
class Margins:
    """Distances in inches.

    Attributes:
        left: From the figure's edge.
        right: From the figure's edge.
        bottom: From the figure's edge.
        top: From the figure's edge; the legend stands there.
        across: Between columns.
        down: Between rows.
    """

    left: float = 0.95
    right: float = 0.2
    bottom: float = 0.75
    top: float = 0.75
    across: float = 0.7
    down: float = 0.65


def panels(
    pyplot: Any,
    rows: int,
    columns: int,
    width: float = 3.2,
    height: float = 2.5,
    margins: Margins | None = None,
    small: bool = True,
    **options: Any,
) -> tuple[Any, Any]:
    """Return a figure and its axes (rows, columns).

    Arguments:
        pyplot: ``matplotlib.pyplot``.
        rows: Number of rows.
        columns: Number of columns.
        width: Of a panel, inches.
        height: Of a panel, inches.
        margins: Around and between the panels.
        small: Small letters and no minor ticks.
        options: For ``pyplot.subplots``.
    """
    m = margins or Margins()
    total = (
        m.left + columns * width + (columns - 1) * m.across + m.right,
        m.bottom + rows * height + (rows - 1) * m.down + m.top,
    )
    grid = {
        "left": m.left / total[0],
        "right": 1 - m.right / total[0],
        "bottom": m.bottom / total[1],
        "top": 1 - m.top / total[1],
        "wspace": m.across / width,
        "hspace": m.down / height,
    } | options.pop("gridspec_kw", {})
    figure, axes = pyplot.subplots(
        rows, columns, figsize=total, squeeze=False, layout="none", gridspec_kw=grid, **options
    )
    for place in axes.flat:
        place.tick_params(labelsize=10 if small else 12)
        if small:
            place.minorticks_off()
    return figure, axes


def legend(figure: Any, pyplot: Any, labels: Sequence[str], first: int = 0) -> None:
    """Write the samples' names in their colours at the upper right.

    Arguments:
        figure: The figure.
        pyplot: ``matplotlib.pyplot``.
        labels: Names, in order.
        first: Role of the first: 0 is the reference.
    """
    roles = range(first, first + len(labels))
    handles = [pyplot.Line2D([], [], color=colour(role), lw=2.0 if role else 1.4) for role in roles]
    widths = [_KEY + _LETTER * len(label) for label in labels]
    width = float(figure.get_size_inches()[0])
    fitting = len(labels) if sum(widths) <= width else int(width / max(widths))
    columns = max(1, min(5, fitting))
    rows = -(-len(labels) // columns)
    figure.legend(
        handles,
        labels,
        loc="upper right",
        ncols=columns,
        fontsize=12 if rows == 1 else 10,
        borderaxespad=0.4,
        labelspacing=0.25,
    )


def errorbars(
    place: Any, x: NDArray[np.float64], y: NDArray[np.float64], error: NDArray[np.float64], role: int
) -> None:
    """Draw points (K,) with their errors in a sample's colour; the reference's are joined by lines."""
    place.errorbar(
        x,
        y,
        np.nan_to_num(error),
        color=colour(role),
        fmt=MARKERS[role % len(MARKERS)],
        ms=4.5,
        lw=1.1,
        ls="-" if role == 0 else "none",
    )


def histograms(
    place: Any, samples: Sequence[NDArray[np.float64]], bins: int = 35, scale: float = 1.0, head: float = 1.15
) -> None:
    """Draw normalised histograms of values (N,), the reference filled.

    The bins span the reference; entries outside are added to the first and last bin.

    Arguments:
        place: Axes.
        samples: The reference's values first; NaN are left out.
        bins: Their number.
        scale: Factor of the values.
        head: Height of the panel over the highest bin.
    """
    known = samples[0][np.isfinite(samples[0])] * scale
    if len(known) == 0:
        return
    low, high = np.quantile(known, (0.002, 0.998))
    margin = 0.12 * (high - low) or max(abs(high), 1.0) * 0.05
    edges = np.linspace(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin, bins + 1)
    top = 0.0
    for role, values in enumerate(samples):
        found = values[np.isfinite(values)] * scale
        if len(found) == 0:
            continue
        counts = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(found)
        top = max(top, float(counts.max()))
        if role == 0:
            place.stairs(counts, edges, fill=True, color=BAND)
        place.stairs(counts, edges, color=colour(role), lw=1.5 if role else 1.0)
    place.set(xlim=(edges[0], edges[-1]), ylim=(0, head * top))
    place.locator_params(axis="both", nbins=5)
