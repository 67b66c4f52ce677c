"""Figures of several panels with margins in inches, and what is drawn in many of them.

Letting matplotlib find the margins costs as much as drawing, once a file; here they are set, and small panels have no
minor ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.plots.panel import BAND, INK, colour, marker

__all__ = [
    "Margins",
    "errorbars",
    "histograms",
    "legend",
    "number_map",
    "panel_row",
    "panels",
    "shower_image",
]

_KEY, _LETTER = 0.75, 0.095
"""Width of a legend's line and of a letter beside it, inches."""


@dataclass(frozen=True)
class Margins:
    """Distances in inches: from the figure's edges (the legend stands at the top), between columns and between rows."""

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
    """Return a figure and its axes (rows, columns); ``width`` and ``height`` of a panel are in inches.

    Arguments:
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


def panel_row(pyplot: Any, count: int, columns: int = 4, **options: Any) -> tuple[Any, list[Any]]:
    """Return a figure of ``count`` panels, row by row, and their axes; four stand two by two; options of :func:`panels`."""
    columns = min(columns, 2 if count == 4 else count)
    figure, axes = panels(pyplot, -(-count // columns), columns, **options)
    places = list(axes.flat)
    for place in places[count:]:
        place.set_visible(False)
    return figure, places[:count]


def legend(
    figure: Any, pyplot: Any, labels: Sequence[str], first: int = 0, handles: Sequence[Any] | None = None
) -> None:
    """Write the samples' names in their colours at the upper right.

    Arguments:
        first: Role of the first: 0 is the reference.
        handles: What stands beside the names; by default a line in each sample's colour.
    """
    if handles is None:
        roles = range(first, first + len(labels))
        handles = [pyplot.Line2D([], [], color=colour(role), lw=2.0 if role else 1.4) for role in roles]
    widths = [_KEY + _LETTER * len(label) for label in labels]
    width = float(figure.get_size_inches()[0])
    fitting = len(labels) if sum(widths) <= width else int(width / max(widths))
    columns = max(1, min(5, fitting))
    rows = -(-len(labels) // columns)
    _make_room(figure, 0.34 + 0.22 * rows)
    figure.legend(
        handles,
        labels,
        loc="upper right",
        ncols=columns,
        fontsize=12 if rows == 1 else 10,
        borderaxespad=0.4,
        labelspacing=0.25,
    )


def _make_room(figure: Any, need: float) -> None:
    """Let a figure grow at its top until there are that many inches over its panels."""
    grid = next(place.get_subplotspec().get_gridspec() for place in figure.axes if place.get_subplotspec())
    width, height = (float(size) for size in figure.get_size_inches())
    more = need - (1.0 - grid.top) * height
    if grid.top is not None and more > 0:
        scale = height / (height + more)
        grid.update(top=grid.top * scale, bottom=grid.bottom * scale)
        figure.set_size_inches(width, height + more)


def errorbars(
    place: Any, x: NDArray[np.float64], y: NDArray[np.float64], error: NDArray[np.float64], role: int
) -> None:
    """Draw points (K,) with their errors in a sample's colour; the reference's are joined by lines."""
    place.errorbar(
        x,
        y,
        np.nan_to_num(error),
        color=colour(role),
        fmt=marker(role, paper=True),
        ms=4.5,
        lw=1.1,
        ls="-" if role == 0 else "none",
    )


def histograms(
    place: Any,
    samples: Sequence[NDArray[np.float64]],
    edges: NDArray[np.float64] | None = None,
    scale: float = 1.0,
    head: float = 1.15,
    roles: Sequence[int] | None = None,
    lines: Sequence[str] | None = None,
) -> None:
    """Draw normalised histograms of values (N,), those of the reference filled.

    Entries outside the bins are added to the first and last one.

    Arguments:
        place: Axes.
        samples: The reference's values first; NaN are left out.
        edges: Bins of the scaled values; by default 35 over the reference.
        scale: Factor of the values.
        head: Height of the panel over the highest bin.
        roles: Role of each sample; by default in order.
        lines: Line style of each sample.
    """
    known = [values[np.isfinite(values)] * scale for values in samples]
    if len(known[0]) == 0:
        return
    if edges is None:
        low, high = np.quantile(known[0], (0.002, 0.998))
        margin = 0.12 * (high - low) or max(abs(high), 1.0) * 0.05
        edges = np.linspace(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin, 36)
    top = 0.0
    for number, values in enumerate(known):
        role = number if roles is None else roles[number]
        if len(values) == 0:
            continue
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        top = max(top, float(counts.max()))
        if number == 0:
            place.stairs(counts, edges, fill=True, color=BAND)
        style = "-" if lines is None else lines[number]
        place.stairs(counts, edges, color=colour(role), lw=1.5 if role else 1.0, ls=style)
    place.set(xlim=(edges[0], edges[-1]), ylim=(0, head * top))
    place.locator_params(axis="both", nbins=5)


def number_map(
    place: Any,
    values: NDArray[np.float64],
    texts: str,
    rows: Sequence[str],
    columns: Sequence[str],
    dark: float = np.inf,
    **colours: Any,
) -> None:
    """Draw a matrix (R, C) in colours, with its numbers in a format such as ``+.0f``; "-" for NaN.

    Arguments:
        dark: Absolute value above which the text is white.
        colours: ``cmap``, ``vmin`` and ``vmax``.
    """
    place.imshow(values, aspect="auto", **colours)
    for (row, column), value in np.ndenumerate(values):
        text = f"{np.clip(value, -999, 999):{texts}}" if np.isfinite(value) else "-"
        shade = "w" if np.isfinite(value) and abs(value) > dark else INK
        place.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
    place.set_xticks(range(len(columns)), columns, fontsize=9)
    place.set_yticks(range(len(rows)), rows, fontsize=9)
    place.tick_params(which="both", length=0)


def shower_image(place: Any, image: NDArray[np.float64], top: float, title: str) -> None:
    """Draw a shower summed over the layers (nx, ny), MeV, in logarithmic colours down to 1e-5 of ``top``."""
    from matplotlib.colors import LogNorm

    shown = np.where(image > 0, image, np.nan).T
    place.imshow(shown, norm=LogNorm((top or 1.0) * 1e-5, top or 1.0), cmap="magma_r", origin="lower")
    place.set_title(title, fontsize=11, loc="left")
    place.set(xticks=[], yticks=[])
    place.minorticks_off()
