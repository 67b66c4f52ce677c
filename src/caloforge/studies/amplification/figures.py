"""Figures of the amplification study: divergence against quantiles, plateau, effective size, the toy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.studies.amplification.curves import SampleCurves, TruthCurves
from caloforge.studies.amplification.estimators import SHOWERS_A_BIN, ToyResult
from caloforge.validate.plots.panel import INK, colour

__all__ = ["Panels", "draw_divergence", "draw_effective", "draw_plateau", "draw_toy"]

_COLUMNS = 4
_LIGHT = "#b3bac2"
_MARKS = ("o", "s", "D", "^", "v", "P")


@dataclass(frozen=True)
class Panels:
    """Everything that the figures show.

    Arguments:
        truth: The truth of each quantity.
        samples: Label to the curves of each quantity, in the order of ``truth``.
        name: What made the trusted showers.
        limit: What the number of trusted showers limits, in one line.
    """

    truth: Sequence[TruthCurves]
    samples: Mapping[str, Sequence[SampleCurves]]
    name: str
    limit: str

    def grid(self, pyplot: Any, draw: Callable[[Any, int], None], x_label: str, y_label: str) -> Any:
        """Return a figure with a panel for each quantity, a legend and the limit."""
        rows = -(-len(self.truth) // _COLUMNS)
        columns = min(_COLUMNS, len(self.truth))
        size = (4.3 * columns + 0.6, 3.9 * rows + 1.7)
        figure, axes = pyplot.subplots(rows, columns, squeeze=False, figsize=size, layout="none")
        margins = {"left": 0.95 / size[0], "right": 1 - 0.2 / size[0], "bottom": 0.8 / size[1]}
        figure.subplots_adjust(top=1 - 1.45 / size[1], wspace=0.27, hspace=0.3, **margins)
        for number, place in enumerate(axes.flat):
            place.set_visible(number < len(self.truth))
            if number < len(self.truth):
                draw(place, number)
                place.set_title(self.truth[number].quantity.label, fontsize=14)
                if number + columns >= len(self.truth):
                    place.set_xlabel(x_label)
                if number % columns == 0:
                    place.set_ylabel(y_label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="upper center",
            ncols=6,
            bbox_to_anchor=(0.5, 1 - 0.32 / size[1]),
            fontsize=12,
        )
        figure.text(0.5, 1 - 0.12 / size[1], self.limit, ha="center", va="top", fontsize=12, color=INK)
        return figure


def _split_line(
    place: Any, x: NDArray[Any], y: NDArray[Any], counted: NDArray[np.bool_], shade: Any, **options: Any
) -> None:
    """Draw a line, solid where it counts and dashed beyond."""
    label = options.pop("label", None)
    last = int(counted.sum())
    place.plot(x[:last], y[:last], color=shade, label=label, **options)
    place.plot(x[max(last - 1, 0) :], y[max(last - 1, 0) :], color=shade, ls=(0, (3, 2)), lw=1.2)


def _shades(number: int) -> list[str]:
    """Return greys for the sizes of the truth's own samples, light for small ones; colours belong to samples."""
    light, dark = (np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) for code in (_LIGHT, INK))
    places = np.linspace(0, 1, number) if number > 1 else [0.6]
    mixed = [np.round(light + place * (dark - light)).astype(int) for place in places]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in mixed]


def draw_divergence(panels: Panels) -> Callable[[Any], Any]:
    """Return the drawing of the divergence against the number of quantiles."""

    def draw(place: Any, number: int) -> None:
        truth = panels.truth[number]
        for size, shade in zip(truth.sizes, _shades(len(truth.sizes)), strict=True):
            mean, spread = truth.mean(size), np.nan_to_num(truth.spread(size))
            low, high = np.maximum(mean - spread, mean * 0.3), mean + spread
            place.fill_between(truth.quantiles, low, high, color=shade, alpha=0.3, lw=0)
            label = f"{panels.name}, {size:,} (x{len(truth.samples[size])})"
            _split_line(place, truth.quantiles, mean, truth.counts_for(size), shade, label=label)
        place.plot(
            truth.quantiles, truth.floor(), color=INK, lw=1, ls=":", label="endless sample of the truth"
        )
        for role, (name, curves) in enumerate(panels.samples.items(), start=1):
            curve, n = curves[number], int(curves[number].sizes[-1])
            counted, shade = truth.counts_for(n), colour(role)
            _split_line(
                place,
                truth.quantiles,
                curve.divergence[-1],
                counted,
                shade,
                label=f"{name}, {n:,}",
                marker=_MARKS[(role - 1) % len(_MARKS)],
                ms=4,
            )
            place.errorbar(
                truth.quantiles, curve.divergence[-1], curve.error[-1], fmt="none", color=shade, lw=1
            )
        place.set(xscale="log", yscale="log")
        place.set_xlim(1.7, truth.quantiles[-1] * 1.2)
        place.set_ylim(bottom=max(place.get_ylim()[0], 0.2 * float(truth.floor()[0])))

    return lambda pyplot: panels.grid(pyplot, draw, "quantiles", "quantile JSD")


def draw_plateau(panels: Panels, level: int) -> Callable[[Any], Any]:
    """Return the drawing of the divergence against the size of the generated sample, at one number of quantiles."""

    def draw(place: Any, number: int) -> None:
        truth = panels.truth[number]
        n_quant = int(truth.quantiles[level])
        for size, shade in zip(truth.sizes, _shades(len(truth.sizes)), strict=True):
            style = "-" if truth.counts_for(size)[level] else (0, (3, 2))
            label = f"{panels.name}, {size:,} (x{len(truth.samples[size])})"
            mean, spread = truth.mean(size)[level], np.nan_to_num(truth.spread(size)[level])
            place.axhline(mean, color=shade, ls=style, lw=1.4, label=label)
            place.axhspan(max(mean - spread, mean * 0.3), mean + spread, color=shade, alpha=0.2, lw=0)
        place.axhline(truth.floor()[level], color=INK, lw=1, ls=":", label="endless sample of the truth")
        for role, (name, curves) in enumerate(panels.samples.items(), start=1):
            curve, shade = curves[number], colour(role)
            y, error = curve.divergence[:, level], curve.error[:, level]
            few = curve.sizes < n_quant * SHOWERS_A_BIN
            mark = _MARKS[(role - 1) % len(_MARKS)]
            last = min(int(few.sum()) + 1, len(few)) if few.any() else 0
            place.plot(curve.sizes[:last], y[:last], color=shade, ls=(0, (3, 2)), lw=1.2)
            place.errorbar(
                curve.sizes[~few], y[~few], error[~few], color=shade, marker=mark, ms=4, lw=1.4, label=name
            )
        place.set(xscale="log", yscale="log")

    n_quant = int(panels.truth[0].quantiles[level])
    return lambda pyplot: panels.grid(pyplot, draw, "generated showers", f"JSD in {n_quant} quantiles")


def draw_effective(panels: Panels, trained_on: Mapping[str, int | None]) -> Callable[[Any], Any]:
    """Return the drawing of the effective size against the number of quantiles, with the training sets' sizes."""

    def draw(place: Any, number: int) -> None:
        truth = panels.truth[number]
        for size, shade in zip(truth.sizes, _shades(len(truth.sizes)), strict=True):
            place.axhline(size, color=shade, lw=1.0, label=f"{panels.name}, {size:,}")
        for role, (name, curves) in enumerate(panels.samples.items(), start=1):
            shade, curve = colour(role), curves[number]
            found = [
                truth.formula(float(d), float(e), level)
                for level, (d, e) in enumerate(zip(curve.divergence[-1], curve.error[-1], strict=True))
            ]
            known = np.array([size.value is not None for size in found])
            value = np.array([size.value or np.nan for size in found])
            low = np.array([size.low for size in found])
            high = np.array([size.high or np.nan for size in found])
            place.plot(
                truth.quantiles, value, color=shade, marker=_MARKS[(role - 1) % len(_MARKS)], ms=4, label=name
            )
            place.fill_between(truth.quantiles, low, high, where=known, color=shade, alpha=0.25, lw=0)
            place.plot(truth.quantiles[~known], low[~known], "^", mfc="none", color=shade, ms=6)
            if trained_on.get(name):
                place.axhline(float(trained_on[name] or 0), color=shade, ls=(0, (1, 2)), lw=1.2)
        place.set(xscale="log", yscale="log")

    return lambda pyplot: panels.grid(pyplot, draw, "quantiles", "effective showers")


def draw_toy(toy: ToyResult) -> Callable[[Any], Any]:
    """Return the drawing of the estimator against the closed form of the Gaussian toy."""

    def figure(pyplot: Any) -> Any:
        drawn, place = pyplot.subplots(figsize=(6.4, 5.4), layout="constrained")
        place.plot(toy.quantiles, toy.known, color=INK, label="closed form")
        place.errorbar(
            toy.quantiles,
            toy.found,
            toy.error,
            color=colour(1),
            fmt="o",
            ms=5,
            label="estimator of the study",
        )
        place.set(xscale="log", yscale="log", xlabel="quantiles", ylabel="amplification of a Gaussian fit")
        place.legend(loc="upper left")
        return drawn

    return figure
