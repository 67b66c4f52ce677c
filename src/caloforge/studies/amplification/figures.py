"""Figures of the amplification study: divergence against quantiles, plateau, effective size, the toy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry.draw import MATHEMATICS
from caloforge.statistics.effective_size import SHOWERS_A_BIN, ToyResult
from caloforge.studies.amplification.curves import SampleCurves, TruthCurves
from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, panel_row, panels
from caloforge.validate.plots.panel import INK, colour, marker

__all__ = ["Panels", "divergence_figure", "effective_figure", "plateau_figure", "toy_figure"]

_COLUMNS = 4
_LIGHT = "#b3bac2"
_DASHES = (0, (3, 2))


@dataclass(frozen=True)
class Panels:
    """Everything that the figures show: the truth and the samples' curves of each quantity."""

    truth: Sequence[TruthCurves]
    samples: Mapping[str, Sequence[SampleCurves]]
    name: str  # what made the reference showers
    limit: str  # what the number of reference showers limits, in one line

    def grid(self, draw: Callable[[Any, int], None], x_label: str, y_label: str) -> Callable[[Any], Any]:
        """Return the drawing of a figure with a panel for each quantity, a legend and the limit."""

        def figure(pyplot: Any) -> Any:
            margins = Margins(bottom=0.8, top=1.45, across=0.95, down=0.95)
            size = {"width": 3.6, "height": 3.0, "margins": margins, "small": False}
            drawn, places = panel_row(pyplot, len(self.truth), _COLUMNS, **size)
            columns = min(_COLUMNS, len(self.truth))
            for number, place in enumerate(places):
                draw(place, number)
                place.set_title(self.truth[number].quantity.label, fontsize=14, gid=MATHEMATICS)
                if number + columns >= len(self.truth):
                    place.set_xlabel(x_label)
                if number % columns == 0:
                    place.set_ylabel(y_label)
            height = float(drawn.get_size_inches()[1])
            where = {"loc": "upper center", "bbox_to_anchor": (0.5, 1 - 0.32 / height)}
            drawn.legend(*places[0].get_legend_handles_labels(), ncols=6, fontsize=12, **where)
            drawn.text(0.5, 1 - 0.12 / height, self.limit, ha="center", va="top", fontsize=12, color=INK)
            return drawn

        return figure

    def own_samples(self, number: int) -> list[tuple[int, str, str]]:
        """Return size, grey and label of the truth's own samples of a quantity; light for small ones."""
        truth = self.truth[number]
        light, dark = (np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) for code in (_LIGHT, INK))
        places = np.linspace(0, 1, len(truth.sizes)) if len(truth.sizes) > 1 else [0.6]
        mixed = [np.round(light + place * (dark - light)).astype(int) for place in places]
        return [
            (size, f"#{red:02x}{green:02x}{blue:02x}", f"{self.name}, {size:,} (x{len(truth.samples[size])})")
            for size, (red, green, blue) in zip(truth.sizes, mixed, strict=True)
        ]

    def generated(self, number: int) -> list[tuple[str, SampleCurves, str, str]]:
        """Return label, curves, colour and marker of each generated sample of a quantity."""
        return [
            (name, curves[number], colour(role), marker(role - 1, paper=True))
            for role, (name, curves) in enumerate(self.samples.items(), start=1)
        ]


def _quantile_axes(place: Any) -> None:
    """Make both axes logarithmic; labels of minor ticks would overlap."""
    place.set(xscale="log", yscale="log")
    place.tick_params(axis="x", which="minor", labelbottom=False)


def _split_line(
    place: Any, x: NDArray[Any], y: NDArray[Any], counted: NDArray[np.bool_], **options: Any
) -> None:
    """Draw a line, solid where it counts and dashed beyond."""
    last = int(counted.sum())
    place.plot(x[:last], y[:last], **options)
    place.plot(x[max(last - 1, 0) :], y[max(last - 1, 0) :], color=options["color"], ls=_DASHES, lw=1.2)


def divergence_figure(shown: Panels, name: str = "divergence", title: str = "", caption: str = "") -> Figure:
    """Return the divergence against the number of quantiles."""

    def draw(place: Any, number: int) -> None:
        truth = shown.truth[number]
        x = truth.quantiles
        for size, grey, label in shown.own_samples(number):
            mean, spread = truth.mean(size), np.nan_to_num(truth.spread(size))
            low = np.maximum(mean - spread, mean * 0.3)
            place.fill_between(x, low, mean + spread, color=grey, alpha=0.3, lw=0)
            _split_line(place, x, mean, truth.counts_for(size), color=grey, label=label)
        place.plot(x, truth.floor(), color=INK, lw=1, ls=":", label="endless sample of the truth")
        for label, curve, shade, mark in shown.generated(number):
            n, y = int(curve.sizes[-1]), curve.divergence[-1]
            line = {"color": shade, "label": f"{label}, {n:,}", "marker": mark, "ms": 4}
            _split_line(place, x, y, truth.counts_for(n), **line)
            place.errorbar(x, y, curve.error[-1], fmt="none", color=shade, lw=1)
        _quantile_axes(place)
        place.set_xlim(1.7, x[-1] * 1.2)
        place.set_ylim(bottom=max(place.get_ylim()[0], 0.2 * float(truth.floor()[0])))

    caption = caption or (
        "Divergence from the truth against the number of quantiles. Lines with bands are samples of the truth "
        "and their spread. Lines are dashed where there are fewer than ten showers a quantile."
    )
    drawing = shown.grid(draw, "quantiles", "quantile JSD")
    return Figure(name, title or "Quantile divergence", caption, drawing)


def plateau_figure(shown: Panels, level: int) -> Figure:
    """Return the divergence against the size of the generated sample, at one number of quantiles."""
    n_quant = int(shown.truth[0].quantiles[level])

    def draw(place: Any, number: int) -> None:
        truth = shown.truth[number]
        for size, grey, label in shown.own_samples(number):
            style = "-" if truth.counts_for(size)[level] else _DASHES
            mean, spread = truth.mean(size)[level], np.nan_to_num(truth.spread(size)[level])
            place.axhline(mean, color=grey, ls=style, lw=1.4, label=label)
            place.axhspan(max(mean - spread, mean * 0.3), mean + spread, color=grey, alpha=0.2, lw=0)
        place.axhline(truth.floor()[level], color=INK, lw=1, ls=":", label="endless sample of the truth")
        for label, curve, shade, mark in shown.generated(number):
            x, y, error = curve.sizes, curve.divergence[:, level], curve.error[:, level]
            few = x < n_quant * SHOWERS_A_BIN
            last = min(int(few.sum()) + 1, len(few)) if few.any() else 0
            place.plot(x[:last], y[:last], color=shade, ls=_DASHES, lw=1.2)
            points = {"color": shade, "marker": mark, "ms": 4, "lw": 1.4, "label": label}
            place.errorbar(x[~few], y[~few], error[~few], **points)
        place.set(xscale="log", yscale="log")

    caption = "Divergence against the size of the generated sample. Where the curve is flat, more showers add no information."
    drawing = shown.grid(draw, "generated showers", f"JSD in {n_quant} quantiles")
    return Figure("plateau", "Plateau", caption, drawing)


def effective_figure(shown: Panels, trained: Mapping[str, int | None]) -> Figure:
    """Return the effective size against the number of quantiles, with the training sets' sizes."""

    def draw(place: Any, number: int) -> None:
        x = shown.truth[number].quantiles
        for size, grey, _ in shown.own_samples(number):
            place.axhline(size, color=grey, lw=1.0, label=f"{shown.name}, {size:,}")
        for label, curve, shade, mark in shown.generated(number):
            found = [(s.value or np.nan, s.low, s.high or np.nan) for s in curve.formulas()]
            value, low, high = np.array(found).T
            known = np.isfinite(value)
            place.plot(x, value, color=shade, marker=mark, ms=4, label=label)
            place.fill_between(x, low, high, where=known, color=shade, alpha=0.25, lw=0)
            place.plot(x[~known], low[~known], "^", mfc="none", color=shade, ms=6)
            if trained.get(label):
                place.axhline(float(trained[label] or 0), color=shade, ls=(0, (1, 2)), lw=1.2)
        _quantile_axes(place)

    caption = (
        "By formula, with one standard deviation; open triangles are lower limits (two standard deviations). "
        "Dotted: the size of the training set."
    )
    drawing = shown.grid(draw, "quantiles", "effective showers")
    return Figure("effective_size", "Effective size", caption, drawing)


def toy_figure(toy: ToyResult) -> Figure:
    """Return the estimator against the closed form of the Gaussian toy."""

    def draw(pyplot: Any) -> Any:
        drawn, axes = panels(pyplot, 1, 1, 5.2, 4.3, small=False)
        place = axes[0][0]
        place.plot(toy.quantiles, toy.known, color=INK, label="closed form")
        style = {"color": colour(1), "fmt": "o", "ms": 5, "label": "estimator of the study"}
        place.errorbar(toy.quantiles, toy.found, toy.uncertainty, **style)
        _quantile_axes(place)
        place.set(xlabel="quantiles", ylabel="amplification of a Gaussian fit")
        place.legend(loc="upper left")
        return drawn

    caption = "The same estimator on Gaussian fits, whose amplification is known in closed form."
    return Figure("toy", "Check of the estimator", caption, draw)
