"""Colours and marks of every figure: readable with any colour vision, on paper, and in grey.

The reference is dark ink with a grey band; generated samples take the six colours of Petroff (arXiv:2107.02270),
which are told apart with the common kinds of colour blindness, and differ in their dashes as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from caloforge.extras import require

__all__ = ["BAND", "DASHES", "INK", "MARKERS", "SEQUENTIAL", "colour", "dash", "figure_style", "marker"]

INK = "#1b1f24"
BAND = "#c4c9cf"
# Light to dark, so that it reads in grey and with any colour vision.
SEQUENTIAL = ("#fde3a7", "#f8a35c", "#de5b6a", "#8f2f86", "#2a115c")
_PETROFF = ("#5790fc", "#e42536", "#f89c20", "#964a8b", "#7a21dd", "#9c9ca1")
DASHES = ("solid", "solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def colour(role: int) -> str:
    """Return the colour of a sample: 0 is the reference, 1 the first generated one, and so on."""
    return INK if role == 0 else _PETROFF[(role - 1) % len(_PETROFF)]


def dash(role: int) -> str:
    """Return plotly's name of the dashes of a sample's lines."""
    return "solid" if role == 0 else DASHES[(role - 1) % len(DASHES)]


def marker(role: int) -> str:
    """Return plotly's name of a sample's marker."""
    return MARKERS[role % len(MARKERS)]


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
        "figure.figsize": (7.0, 6.4),
        "font.size": 15,
        "font.family": "sans-serif",
        "font.sans-serif": ["TeX Gyre Heros", "Helvetica", "Arial", "DejaVu Sans"],
        "axes.labelsize": 15,
        "axes.titlesize": 14,
        "axes.linewidth": 1.3,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.labelsize": 13,
        "ytick.labelsize": 13,
        "legend.fontsize": 13,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "xtick.minor.ndivs": 2,
        "ytick.minor.ndivs": 2,
        "savefig.dpi": 140,
        "savefig.facecolor": "white",
        "pdf.fonttype": 42,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(), pyplot.style.context([mplhep.style.ROOT, own]):
        try:
            yield pyplot
        finally:
            pyplot.close("all")
