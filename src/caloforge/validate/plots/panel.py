"""The content of a figure, apart from how it is drawn: curves with a ratio, images, bars; colours and marks.

A family of figures returns panels; :mod:`caloforge.validate.plots.draw` draws them with matplotlib for paper and
:mod:`caloforge.validate.report.interactive` with plotly for the page, from the same numbers.

Figures can be read with any colour vision, on paper, and in grey: the reference is dark ink with a grey band; generated
samples take the six colours of M. Petroff (arXiv:2107.02270) and differ in their dashes and markers as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import require
from caloforge.validate.plots.axes import FIVE_PERCENT, plain_name, ratio_limits, ratio_ticks, whole_bins

__all__ = ["BAND", "INK", "KINDS", "SEQUENTIAL", "Array", "Bars", "Curve", "Growth", "GrowthCurve", "Heat", "Image", "Mark", "Panel", "colour", "dash", "figure_style", "marker"]  # fmt: skip


INK = "#1b1f24"
BAND = "#c4c9cf"
# Light to dark, so that it reads in grey and with any colour vision.
SEQUENTIAL = ("#fde3a7", "#f8a35c", "#de5b6a", "#8f2f86", "#2a115c")
_PETROFF = ("#5790fc", "#e42536", "#f89c20", "#964a8b", "#7a21dd", "#9c9ca1")
_DASHES = ("solid", "solid", "dash", "dot", "dashdot", "longdash")  # names of plotly
_PAPER_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_PAPER_MARKERS = dict(zip(_MARKERS, "osD^PX", strict=True))


def colour(role: int) -> str:
    """Return the colour of a sample: 0 is the reference, 1 the first generated one, and so on."""
    return INK if role == 0 else _PETROFF[(role - 1) % len(_PETROFF)]


def dash(role: int, paper: bool = False) -> Any:
    """Return the dashes of a sample's lines, for plotly or, on paper, for matplotlib."""
    name = "solid" if role == 0 else _DASHES[(role - 1) % len(_DASHES)]
    return _PAPER_DASHES[name] if paper else name


def marker(role: int, paper: bool = False) -> str:
    """Return a sample's marker, for plotly or, on paper, for matplotlib."""
    name = _MARKERS[role % len(_MARKERS)]
    return _PAPER_MARKERS[name] if paper else name


@contextmanager
def figure_style() -> Iterator[Any]:
    """Yield ``matplotlib.pyplot`` under mplhep's style, drawing to files only.

    Raises:
        MissingExtraError: When matplotlib or mplhep is not installed.
    """
    matplotlib = require("matplotlib", extra="report")
    mplhep = require("mplhep", extra="report")
    pyplot = require("matplotlib.pyplot", extra="report")
    own = {
        "figure.figsize": (7.0, 6.4), "font.size": 15, "font.family": "sans-serif",
        "font.sans-serif": ["TeX Gyre Heros", "Helvetica", "Arial", "DejaVu Sans"],
        "axes.labelsize": 15, "axes.titlesize": 14, "axes.linewidth": 1.3, "axes.unicode_minus": True,
        "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "lines.linewidth": 1.6,
        "xtick.labelsize": 13, "ytick.labelsize": 13, "xtick.minor.ndivs": 2, "ytick.minor.ndivs": 2,
        "legend.fontsize": 13, "legend.frameon": False,
        "savefig.dpi": 140, "savefig.facecolor": "white", "pdf.fonttype": 42,
    }  # fmt: skip
    with matplotlib.rc_context(), pyplot.style.context([mplhep.style.ROOT, own]):
        try:
            yield pyplot
        finally:
            pyplot.close("all")


Array = NDArray[np.float64]


_SHORT = 14
"""Most letters of the reference's name at the ratio axis."""
_ARCS = 48  # straight pieces of a full circle, at least
# how far samples may stretch a linear and a logarithmic axis over the reference's range
_BEYOND, _BEYOND_LOG = 2.5, 10.0


@dataclass(frozen=True)
class Curve:
    """One sample's values."""

    role: int  # 0 for the reference, 1 for the first generated sample, and so on
    label: str
    y: Array  # (B,) values; NaN where there is none
    error: Array  # (B,) their statistical uncertainties


@dataclass(frozen=True)
class Panel:
    """Curves over common bins, with their ratio to the reference below."""

    name: str  # file name of the figure
    title: str
    x_label: str  # with its unit
    y_label: str  # with its unit
    edges: Array  # (B + 1,) bin edges
    curves: tuple[Curve, ...]  # the reference first
    log_x: bool = False  # logarithmic x axis
    log_y: bool = False  # logarithmic y axis
    points: bool = False  # markers at ``x`` instead of a histogram
    x: Array | None = None  # (B,) where the markers are; the middles of the bins by default
    note: str = ""  # text under it, such as the number of entries out of range
    ticks: tuple[str, ...] = ()  # names of the bins (layers), empty for numbers

    @property
    def centres(self) -> Array:
        """Where markers stand, (B,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2 if self.x is None else self.x

    @property
    def signed(self) -> bool:
        """Whether the reference has both signs, as a centre around zero, so that differences are drawn and no ratios."""
        own = self.curves[0].y[np.isfinite(self.curves[0].y)]
        return bool((own < 0.0).any() and (own > 0.0).any())

    @property
    def base(self) -> float:
        """The ratio, or the difference, of the reference to itself."""
        return 0.0 if self.signed else 1.0

    def ratio(self, curve: Curve) -> tuple[Array, Array]:
        """Return a curve over the reference, or its difference, and its uncertainty (from the curve alone), NaN where not defined."""
        below = self.curves[0].y
        if self.signed:
            return curve.y - below, np.abs(curve.error)
        known = np.isfinite(below) & (below != 0) & np.isfinite(curve.y)
        safe = np.where(known, below, 1.0)
        return np.where(known, curve.y / safe, np.nan), np.where(known, np.abs(curve.error / safe), np.nan)

    @property
    def ratio_label(self) -> str:
        """What the ratio is of: "model / Geant4", or "model − Geant4"."""
        name = plain_name(self.curves[0].label)
        return f"model {'−' if self.signed else '/'} {name if len(name) <= _SHORT else 'reference'}"

    def ratio_lines(self, break_: str) -> str:
        """Return the same in two lines."""
        first, sign, name = self.ratio_label.split(" ", 2)
        return f"{first} {sign}{break_}{name}"

    @property
    def whole(self) -> bool:
        """Whether every bin is one whole number, such as a layer."""
        return not self.points and whole_bins(self.edges)

    def ratio_limits(self) -> tuple[float, float]:
        """Return limits of the ratio axis; see :func:`ratio_limits`. Those of differences are symmetric and hold nine tenths of them."""
        found = [self.ratio(curve) for curve in self.curves[1:]]
        if not self.signed:
            return ratio_limits(found)
        reach = np.concatenate(
            [np.abs(value) + np.nan_to_num(error) for value, error in found] or [np.ones(1)]
        )
        step = float(f"{max(float(np.nanquantile(reach, 0.9)), 1e-12):.1g}")
        return -1.25 * step, 1.25 * step

    def ratio_ticks(self) -> list[float]:
        """Return where the ratio axis has numbers."""
        low, high = self.ratio_limits()
        return [0.8 * low, 0.0, 0.8 * high] if self.signed else ratio_ticks(low, high)

    @property
    def guides(self) -> tuple[float, ...]:
        """Dotted lines of the ratio axis: 5 %, where it shows more."""
        low, high = self.ratio_limits()
        return () if self.signed or high - low <= 0.1001 else FIVE_PERCENT

    def x_limits(self) -> tuple[float, float]:
        """Return limits of the x axis: those of the bins, or a little beyond the first and the last marker."""
        known = np.any([np.isfinite(curve.y) for curve in self.curves], axis=0)
        x = self.centres[known]
        if not self.points or len(x) < 2 or x[-1] <= x[0]:
            return float(self.edges[0]), float(self.edges[-1])
        if self.log_x:
            factor = (x[-1] / x[0]) ** 0.06
            return float(x[0] / factor), float(x[-1] * factor)
        margin = 0.06 * (x[-1] - x[0])
        return float(x[0] - margin), float(x[-1] + margin)

    def y_limits(self) -> tuple[float, float]:
        """Return limits of the y axis that fit what is drawn; the reference sets them, others up to a factor of it.

        A linear axis begins at zero, unless all values are far from it; a logarithmic one under the reference's smallest value.
        Markers with errors more than four times the usual one do not set the range.
        """
        reference = self.curves[0].y[np.isfinite(self.curves[0].y)]
        values = np.concatenate([curve.y[self._measured(curve)] for curve in self.curves])
        high = float(reference.max(initial=0.0))
        top = float(values.max(initial=0.0))
        if self.log_y:
            positive, own = values[values > 0], reference[reference > 0]
            low = float(positive.min(initial=top)) if len(positive) else 1e-6
            if len(own):
                low, top = max(low, float(own.min()) / _BEYOND_LOG, 1e-8 * high), min(top, high * _BEYOND_LOG)
            return low / 2.5, max(top, low) * 3.0
        if high > 0.0 and not self.points:
            top = min(top, _BEYOND * high)
        bottom = float(values.min(initial=top))
        if bottom > 0.5 * top > 0:
            margin = 0.2 * (top - bottom) + 0.005 * top
            return bottom - margin, top + margin
        return min(bottom * 1.15, 0.0), (top * 1.18 if top > 0 else max(-bottom * 0.1, 1e-6))

    def _measured(self, curve: Curve) -> NDArray[np.bool_]:
        """Return which values (B,) set the range."""
        known = np.isfinite(curve.y)
        if not self.points or not known.any():
            return known
        error = np.nan_to_num(curve.error)
        poor = (error > 4.0 * float(np.median(error[known]))) & (
            error > 0.25 * np.abs(np.nan_to_num(curve.y))
        )
        return known & ~poor

    def beyond(self, curve: Curve, top: float) -> NDArray[np.bool_]:
        """Return which values (B,) are above the end of the y axis."""
        return np.isfinite(curve.y) & (curve.y > top)


@dataclass(frozen=True)
class Image:
    """One image (nx, ny) of a sample."""

    label: str
    values: Array


@dataclass(frozen=True)
class Heat:
    """Images with common axes, side by side."""

    name: str  # file name of the figure
    title: str
    x_label: str  # with its unit
    y_label: str  # with its unit
    x_edges: Array  # (nx + 1,)
    y_edges: Array  # (ny + 1,)
    images: tuple[Image, ...]  # the reference first
    unit: str  # what the colours mean
    log: bool = False  # logarithmic colours
    symmetric: float | None = None  # colours from minus to plus this; None for colours from low to high
    x_ticks: tuple[str, ...] = ()  # names of the columns
    y_ticks: tuple[str, ...] = ()  # names of the rows
    note: str = ""  # text under it
    polar: bool = False  # columns are angles [radians], rows radii [mm]; drawn as wedges around the axis

    def limits(self) -> tuple[float, float]:
        """Return the ends of the colours: those of the reference, six decades at most when logarithmic."""
        if self.symmetric is not None:
            return -self.symmetric, self.symmetric
        values = self.images[0].values
        top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
        if not self.log:
            return 0.0, top if top > 0 else 1.0
        positive = values[np.isfinite(values) & (values > 0)]
        low = float(positive.min()) if len(positive) else 1e-3
        others = [image.values[np.isfinite(image.values) & (image.values > 0)] for image in self.images[1:]]
        low = max(min([low, *(float(each.min()) for each in others if len(each))]), low / 3.0)
        return max(low, top * 1e-6), max(top, low * 1.01)

    def centres(self) -> tuple[Array, Array]:
        """Return the middles of the columns (nx,) and of the rows (ny,)."""
        return (self.x_edges[1:] + self.x_edges[:-1]) / 2, (self.y_edges[1:] + self.y_edges[:-1]) / 2

    def corners(self) -> tuple[Array, Array, int]:
        """Return the places (m nx + 1, ny + 1) of the corners of polar bins, mm, each cut into m along its arc, and m."""
        pieces = -(-_ARCS // (len(self.x_edges) - 1))
        steps = np.arange(pieces * (len(self.x_edges) - 1) + 1) / pieces
        angle = np.interp(steps, np.arange(len(self.x_edges)), self.x_edges)[:, None]
        return self.y_edges * np.cos(angle), self.y_edges * np.sin(angle), pieces


KINDS = {"observable": "#3f6fb5", "cell": "#c9501f", "spectrum bin": "#2f8f6b"}
"""Colour of each kind of feature."""


@dataclass(frozen=True)
class Mark:
    """Where a significance is reached."""

    name: str  # "2 sigma" or "5 sigma"
    showers: float  # showers a side
    low: float  # lower end of the 68 % range
    high: float  # upper end
    auc: float  # AUC there


@dataclass(frozen=True)
class GrowthCurve:
    """AUC of one sample against the number of showers that are compared."""

    role: int  # 1 for the first generated sample, and so on
    label: str
    showers: Array  # (K,) showers a side
    auc: Array  # (K,)
    error: Array  # (K,) one standard deviation
    line_showers: Array  # (L,) where the fit is drawn; empty without one
    line: Array  # (L,) fitted and extrapolated AUC
    low: Array  # (L,) lower end of its 68 % band
    high: Array  # (L,) upper end
    marks: tuple[Mark, ...] = ()  # where 2 and 5 standard deviations are reached

    def parts(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which points (L,) of the line lie within the measured sizes, and which are extrapolated; both have the joint."""
        inside = self.line_showers <= self.showers.max()
        outside = ~inside
        if inside.any() and outside.any():
            outside[np.flatnonzero(inside)[-1]] = True
        return inside, outside


@dataclass(frozen=True)
class Growth:
    """AUC against the number of showers, for several samples."""

    name: str  # file name
    title: str
    curves: tuple[GrowthCurve, ...]  # one for each sample
    note: str = ""  # text under it

    def limits(self) -> tuple[float, float]:
        """Return the ends of the vertical axis."""
        top = max(float(np.max(np.concatenate([c.auc + c.error, c.line]))) for c in self.curves)
        low = min(float(np.min(c.auc - c.error)) for c in self.curves)
        return min(0.48, low - 0.02), min(1.03, max(0.6, top + 0.05))


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, the largest on top."""

    name: str  # file name
    title: str
    x_label: str  # what the bars measure
    names: tuple[str, ...]  # what each bar is
    kinds: tuple[str, ...]  # kind of each, a key of :data:`KINDS`
    values: Array  # (K,)
    errors: Array  # (K,)
    note: str = ""  # text under it
