"""AUC against the number of showers, and horizontal bars of importance, drawn for paper.

:mod:`caloforge.validate.report.detectability` draws both for the page, from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.plots.panel import BAND, INK, Array, colour, marker

__all__ = ["KINDS", "Bars", "Growth", "GrowthCurve", "Mark", "draw_bars", "draw_growth"]

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


def draw_growth(growth: Growth, pyplot: Any) -> Any:
    """Return a matplotlib figure of the AUC against the number of showers."""
    figure, axes = pyplot.subplots(figsize=(7.6, 5.4), layout="constrained")
    axes.axhline(0.5, color=INK, lw=1.0)
    for curve in growth.curves:
        shade = colour(curve.role)
        style = {
            "color": shade,
            "fmt": marker(curve.role, paper=True),
            "ms": 6,
            "lw": 1.2,
            "label": curve.label,
        }
        axes.errorbar(curve.showers, curve.auc, curve.error, **style)
        if len(curve.line_showers):
            axes.fill_between(curve.line_showers, curve.low, curve.high, color=shade, alpha=0.18, lw=0)
            for part, dashes in zip(curve.parts(), ("-", "--"), strict=True):
                axes.plot(curve.line_showers[part], curve.line[part], color=shade, lw=1.4, ls=dashes)
        for entry in curve.marks:
            axes.plot([entry.low, entry.high], [entry.auc] * 2, color=shade, lw=4.0, alpha=0.5)
            axes.plot(entry.showers, entry.auc, marker="|", ms=16, mew=2.2, color=shade)
            axes.annotate(
                entry.name, (entry.showers, entry.auc), (0, 12), textcoords="offset points",
                ha="center", fontsize=11, color=shade,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlabel="showers a side", ylabel="AUC of the strongest classifier", ylim=growth.limits())
    axes.legend(loc="upper left")
    axes.set_title(growth.title, loc="left", fontsize=14)
    return figure


def draw_bars(bars: Bars, pyplot: Any) -> Any:
    """Return a matplotlib figure of horizontal bars."""
    figure, axes = pyplot.subplots(figsize=(7.6, 1.4 + 0.36 * len(bars.names)), layout="constrained")
    place = np.arange(len(bars.names))[::-1]
    shades = [KINDS.get(kind, BAND) for kind in bars.kinds]
    axes.barh(place, bars.values, color=shades, height=0.72)
    axes.errorbar(bars.values, place, xerr=np.nan_to_num(bars.errors), fmt="none", color=INK, lw=1.1)
    axes.set_yticks(place, bars.names)
    axes.tick_params(axis="y", which="both", left=False, right=False)
    axes.axvline(0.0, color=INK, lw=1.0)
    for kind in dict.fromkeys(bars.kinds):
        axes.barh([np.nan], [np.nan], color=KINDS.get(kind, BAND), label=kind)
    axes.legend(loc="lower right")
    axes.set_xlabel(bars.x_label)
    axes.set_title(bars.title, loc="left", fontsize=14)
    return figure
