"""Figures for paper: matplotlib in mplhep's style, drawn by other processes while this one measures.

A figure takes a third of a second of one core.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from caloforge.errors import require
from caloforge.files import atomic_path
from caloforge.geometry.draw import text_as_it_is
from caloforge.validate.plots.axes import fitted, legend_columns, logarithmic, whole_bins
from caloforge.validate.plots.event import EventDrawing
from caloforge.validate.plots.panel import (
    BAND,
    INK,
    KINDS,
    Array,
    Bars,
    Curve,
    Growth,
    GrowthCurve,
    Heat,
    Panel,
    colour,
    dash,
    figure_style,
    marker,
)

__all__ = ["Drawing", "Figure", "draw_figures", "draw_heat", "draw_panel", "fill_panel"]


Figure: TypeAlias = Panel | Heat | Growth | Bars | EventDrawing

# Fixed margins: letting matplotlib find them costs as much as drawing the figure.
_PLACE = {"height_ratios": (3, 1), "hspace": 0.07, "left": 0.145, "right": 0.97, "top": 0.94, "bottom": 0.105}
_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"pil_kwargs": {"compress_level": 4}},
    "pdf": {"metadata": {"CreationDate": None}},
}


def draw_figures(figures: Sequence[Figure], folder: Path, advance: Any = None) -> list[Path]:
    """Write every figure as NAME.png and NAME.pdf into a folder and return the paths."""
    paths: list[Path] = []
    with figure_style() as pyplot:
        for figure in figures:
            png, pdf = (folder / f"{figure.name}.{ending}" for ending in ("png", "pdf"))
            with atomic_path(png, force=True) as first, atomic_path(pdf, force=True) as second:
                if isinstance(figure, EventDrawing):
                    figure.draw({"png": first, "pdf": second})
                else:
                    drawn = _DRAW[type(figure)](figure, pyplot)
                    text_as_it_is(drawn)
                    for ending, path in (("png", first), ("pdf", second)):
                        drawn.savefig(path, format=ending, **_OPTIONS[ending])
                    pyplot.close(drawn)
            paths += [png, pdf]
            if advance is not None:
                advance(1)
    return paths


def draw_panel(panel: Panel, pyplot: Any) -> Any:
    """Return a matplotlib figure of curves with their ratio to the reference."""
    figure, (main, ratio) = pyplot.subplots(2, 1, sharex=True, gridspec_kw=_PLACE, layout="none")
    fill_panel(panel, main, ratio)
    return figure


def fill_panel(panel: Panel, main: Any, ratio: Any, inches: float = 5.6) -> None:
    """Draw curves into axes and their ratio to the reference into others below; the title has that much room."""
    mplhep, ticker = require("mplhep", extra="report"), require("matplotlib.ticker", extra="report")
    x, reference = panel.centres, panel.curves[0]
    low, high = panel.ratio_limits()
    _band(main, panel, reference.y, reference.error)
    for number, curve in enumerate(panel.curves):
        shade, line, mark = colour(curve.role), dash(curve.role, paper=True), marker(curve.role, paper=True)
        error = np.nan_to_num(curve.error)
        if panel.points:
            style = {"color": shade, "fmt": mark, "ms": 5.5, "ls": line, "lw": 1.1, "label": str(number)}
            main.errorbar(x, curve.y, error, **style)
        else:
            y = np.nan_to_num(curve.y)
            style = {"color": shade, "ls": line, "lw": 1.7, "label": str(number), "yerr": False}
            mplhep.histplot(y, panel.edges, ax=main, **style)
            if curve.role:
                main.errorbar(x, y, error, color=shade, fmt="none", lw=1.0)
        if curve.role:
            value, error = panel.ratio(curve)
            ratio.errorbar(x, value, error, color=shade, fmt=mark, ms=4, lw=1.0)
            for sign, edge, beyond in (("^", high, value > high), ("v", low, value < low)):
                if np.any(beyond):  # marked at the rim, so that none is lost
                    ratio.plot(x[beyond], np.full(beyond.sum(), edge), sign, color=shade, ms=6, clip_on=False)
    one, error = panel.ratio(reference)
    _band(ratio, panel, np.where(np.isfinite(one), panel.base, np.nan), error)
    ratio.axhline(panel.base, color=INK, lw=1.1)
    for edge in panel.guides:
        ratio.axhline(edge, color=INK, lw=0.6, ls=":")
    if panel.log_y:
        main.set_yscale("log")
    bottom, top = panel.y_limits()
    columns, letters = legend_columns([curve.label for curve in panel.curves], inches)
    room = 0.09 * -(-len(panel.curves) // columns)  # for the legend
    top = top * (top / bottom) ** (room / 0.9) if panel.log_y else top + room * (top - bottom)
    for curve in panel.curves:
        if np.any(over := panel.beyond(curve, top)):
            main.plot(x[over], np.full(over.sum(), top), "^", color=colour(curve.role), ms=6, clip_on=False)
    main.set(ylabel=panel.y_label, ylim=(bottom, top), xlim=panel.x_limits())
    if panel.log_x:
        logarithmic(main)
    ratio.set(xlabel=panel.x_label, ylim=(low, high))
    ratio.set_ylabel(panel.ratio_lines("\n"), fontsize=12, loc="center")
    ratio.set_yticks(
        ticks := panel.ratio_ticks(), [f"{tick:g}" if panel.signed else f"{tick:.2f}" for tick in ticks]
    )
    for label in (main.yaxis.label, ratio.xaxis.label):
        label.set_fontsize(min(15.0, 15.0 * 40 / max(len(label.get_text()), 1)))
    if panel.ticks:
        ratio.set_xticks(x, panel.ticks)
    elif panel.whole:
        ratio.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    if panel.ticks or panel.whole:
        for axes in (ratio, main):
            axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    where = {"loc": "upper right", "ncols": columns, "fontsize": letters}
    _legend(main, panel.curves, **where, handlelength=1.6, columnspacing=1.2)
    main.yaxis.get_offset_text().set_x(-0.13)  # a power of ten stands left of the title
    title, size = fitted(panel.title, inches)
    main.set_title(title, loc="left", fontsize=size)


def _legend(axes: Any, curves: Sequence[Curve | GrowthCurve], **options: Any) -> None:
    """Draw the legend of curves that are labelled with their numbers: matplotlib would leave out labels that begin with "_"."""
    for text in axes.legend(**options).get_texts():
        text.set_text(curves[int(text.get_text())].label)


def _band(axes: Any, panel: Panel, y: Array, error: Array) -> None:
    """Draw the reference's uncertainty as a grey band."""
    low, high = y - np.nan_to_num(error), y + np.nan_to_num(error)
    if panel.points:
        axes.fill_between(panel.centres, low, high, color=BAND, lw=0, alpha=0.8)
    else:
        low, high = np.append(low, low[-1]), np.append(high, high[-1])
        axes.fill_between(panel.edges, low, high, step="post", color=BAND, lw=0, alpha=0.8)


def draw_heat(heat: Heat, pyplot: Any) -> Any:
    """Return a matplotlib figure of images side by side with one colour bar."""
    colors, ticker = (require(f"matplotlib.{name}", extra="report") for name in ("colors", "ticker"))
    low, high = heat.limits()
    norm = colors.LogNorm(low, high, clip=False) if heat.log else colors.Normalize(low, high)
    named = pyplot.get_cmap("RdBu_r" if heat.symmetric is not None else "magma_r")
    scale = named.with_extremes(bad="white", under=None if heat.symmetric is not None else "white")
    columns = min(len(heat.images), 4)
    rows = -(-len(heat.images) // columns)
    side = max(3.6, 0.2 * len(heat.y_ticks))  # inches of one image
    names = 0.085 * max((len(tick) for tick in heat.y_ticks), default=6) + 0.35
    below = 0.085 * max((len(tick) for tick in heat.x_ticks), default=3) + 0.45
    width, height = (1.08 * side) * columns + names + 1.25, (1.22 * side) * rows + below + 0.45
    margins = {
        "left": names / width, "right": 1 - 1.25 / width, "bottom": below / height, "top": 1 - 0.75 / height,
        "wspace": 0.08, "hspace": 0.22,
    }  # fmt: skip
    options = {"figsize": (width, height), "gridspec_kw": margins, "layout": "none"}
    figure, axes = pyplot.subplots(rows, columns, squeeze=False, sharex=True, sharey=True, **options)
    for place in axes.flat[len(heat.images) :]:
        place.set_visible(False)
    mesh = None
    for place, image in zip(axes.flat, heat.images, strict=False):
        values = np.where(image.values > 0, image.values, np.nan) if heat.log else image.values
        if heat.polar:
            across, up, pieces = heat.corners()
            values = np.repeat(values, pieces, axis=0)
            mesh = place.pcolormesh(across, up, values, norm=norm, cmap=scale, rasterized=True)
            place.set_aspect("equal")
        else:
            mesh = place.pcolormesh(
                heat.x_edges, heat.y_edges, values.T, norm=norm, cmap=scale, rasterized=True
            )
        title, size = fitted(image.label, side * 0.95, 13)
        place.set_title(title, fontsize=size)
        x, y = heat.centres()
        for axis, ticks, edges in (
            (place.xaxis, heat.x_ticks, heat.x_edges),
            (place.yaxis, heat.y_ticks, heat.y_edges),
        ):
            if not ticks and not heat.polar and whole_bins(edges):
                axis.set_major_locator(ticker.MaxNLocator(8, integer=True))
                axis.set_minor_locator(ticker.NullLocator())
        if heat.x_ticks:
            place.set_xticks(x, heat.x_ticks, rotation=90, fontsize=9)
        if heat.y_ticks:
            place.set_yticks(y, heat.y_ticks, fontsize=9)
        if heat.x_ticks or heat.y_ticks:
            place.tick_params(which="both", length=0)
            place.minorticks_off()
    for place in axes[-1]:
        place.set_xlabel(heat.x_label, fontsize=13)
    for place in axes[:, 0]:
        place.set_ylabel(heat.y_label, fontsize=13)
    bottom, top = margins["bottom"], margins["top"]
    bar = figure.colorbar(mesh, cax=figure.add_axes((1 - 1.1 / width, bottom, 0.16 / width, top - bottom)))
    bar.set_label(heat.unit, fontsize=13)
    title, size = fitted(heat.title, 0.97 * width)
    figure.suptitle(title, fontsize=size, x=0.01, ha="left")
    return figure


def draw_growth(growth: Growth, pyplot: Any) -> Any:
    """Return a matplotlib figure of the AUC against the number of showers."""
    figure, axes = pyplot.subplots(figsize=(7.6, 5.4), layout="constrained")
    axes.axhline(0.5, color=INK, lw=1.0)
    for number, curve in enumerate(growth.curves):
        shade = colour(curve.role)
        style = {
            "color": shade,
            "fmt": marker(curve.role, paper=True),
            "ms": 6,
            "lw": 1.2,
            "label": str(number),
        }
        axes.errorbar(curve.showers, curve.auc, curve.error, **style)
        if len(curve.line_showers):
            axes.fill_between(curve.line_showers, curve.low, curve.high, color=shade, alpha=0.18, lw=0)
            for part, dashes in zip(curve.parts(), ("-", "--"), strict=True):
                axes.plot(curve.line_showers[part], curve.line[part], color=shade, lw=1.4, ls=dashes)
        for entry in curve.marks:
            axes.plot([entry.low, entry.high], [entry.auc] * 2, color=shade, lw=4.0, alpha=0.5)
            axes.plot(entry.showers, entry.auc, marker="|", ms=16, mew=2.2, color=shade)
            text = {"textcoords": "offset points", "ha": "center", "fontsize": 11, "color": shade}
            axes.annotate(entry.name, (entry.showers, entry.auc), (0, 12), **text)
    logarithmic(axes)
    axes.set(xlabel="showers a side", ylabel="AUC of the strongest classifier", ylim=growth.limits())
    _legend(axes, growth.curves, loc="upper left")
    title, size = fitted(growth.title, 6.3)
    axes.set_title(title, loc="left", fontsize=size)
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
    title, size = fitted(bars.title, 4.6)
    axes.set_title(title, loc="left", fontsize=size)
    return figure


_DRAW: dict[type, Callable[[Any, Any], Any]] = {
    Panel: draw_panel, Heat: draw_heat, Growth: draw_growth, Bars: draw_bars,
}  # fmt: skip

_FEW = 8  # figures for which no further process is started
_MOST_PROCESSES = 4


class Drawing:
    """Figures that other processes draw into a folder as PNG and PDF while this one measures; a context that ends them when left.

    ``processes`` of them draw; by default half of the cores, and at least one where there are two.
    """

    def __init__(self, figures: Sequence[Figure], folder: Path, processes: int | None = None) -> None:
        self.figures, self.folder = list(figures), folder
        most = _processes() if processes is None else processes
        self.processes = min(most, -(-len(self.figures) // _FEW))
        self._waiting: dict[Future[list[Path]], Figure] = {}

    def __enter__(self) -> Drawing:
        """Start the processes."""
        if self.processes:
            try:
                self._pool = ProcessPoolExecutor(self.processes, get_context("spawn"), _begin)
            except (OSError, ImportError):  # no semaphores, as without /dev/shm: all is drawn in this process
                self.processes = 0
                return self
            with _without_main():
                for figure in self.figures:
                    self._waiting[self._pool.submit(draw_figures, [figure], self.folder)] = figure
        return self

    def __exit__(self, *error: object) -> None:
        """End the processes; figures that are not begun are dropped."""
        if self.processes:
            self._pool.shutdown(cancel_futures=True)

    @property
    def paths(self) -> list[Path]:
        """The files that are written."""
        return [self.folder / f"{figure.name}.{end}" for figure in self.figures for end in ("png", "pdf")]

    def finish(self, advance: Callable[[int], object] | None = None) -> list[Path]:
        """Wait until all are drawn and return the files.

        What a process did not draw (killed for its memory, say), or all where there is one core, is drawn here.

        Arguments:
            advance: Called with how many more are there.
        """
        for future in as_completed(self._waiting):
            if future.exception() is not None:
                draw_figures([self._waiting[future]], self.folder)
            if advance is not None:
                advance(1)
        if not self._waiting:
            draw_figures(self.figures, self.folder, advance)
        return self.paths


def _processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_PROCESSES, cores // 2)


def _begin() -> None:
    """Prepare a drawing process: it ends with its parent, whatever ended that, and keeps warnings and tracebacks from the terminal.

    What it fails to draw is drawn again. Signals that reach the whole group are the parent's to answer.
    """
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep new processes from importing the calling script, which would run again without ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
