"""The figures of the study: birthday curves, support sizes, sensitivity to alpha, the closest pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from caloforge.studies.base import Figure
from caloforge.studies.papers import PaperValue, paper_values
from caloforge.studies.support_size.birthday import Interval
from caloforge.studies.support_size.criteria import DEFINITIONS, Definition
from caloforge.studies.support_size.results import SampleResult
from caloforge.studies.support_size.sample import ClosePair
from caloforge.validate.plots.panel import BAND, INK, colour

__all__ = ["figures_of"]

_ESTIMATORS = (("rule", "paper's rule", "o"), ("fit", "fit", "s"), ("collisions", "pair collisions", "D"))


def figures_of(results: Sequence[SampleResult], alphas: Sequence[float], alpha: float) -> list[Figure]:
    """Return every figure.

    Arguments:
        results: Every sample, the reference first.
        alphas: Quantiles of the sensitivity, increasing.
        alpha: The chosen one.
    """
    used = [one for one in DEFINITIONS if one.name in results[0].curves]
    figures = [
        _birthday(results, used),
        _support(results, used, alpha),
        _sensitivity(results, used, alphas, alpha),
    ]
    return figures + [_closest(result) for result in results if result.findings.close]


def _birthday(results: Sequence[SampleResult], used: Sequence[Definition]) -> Figure:
    """Return the probability of a duplicate against the size of the subset, a panel a definition."""

    def draw(pyplot: Any) -> Any:
        size = (5.2 * len(used) + 0.8, 5.6)
        figure, axes = pyplot.subplots(
            1, len(used), figsize=size, sharey=True, squeeze=False, layout="constrained"
        )
        for place, definition in zip(axes[0], used, strict=True):
            for result in results:
                curve, shade = result.curves[definition.name], colour(result.role)
                place.fill_between(curve.sizes, curve.low, curve.high, color=shade, alpha=0.3, lw=0)
                place.plot(curve.sizes, curve.probability, color=shade, label=result.label)
                if not math.isnan(curve.fit.value):
                    place.plot(curve.sizes, curve.expected(), color=shade, ls=":", lw=1.4)
            place.axhline(0.5, color=INK, lw=1.0, ls="--")
            place.set_xscale("log")
            place.set_title(definition.label, fontsize=14, loc="left")
            place.set_xlabel("showers in the subset")
        axes[0][0].set(ylabel="probability of a duplicate", ylim=(0, 1.02))
        figure.legend(
            *axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=min(5, len(results))
        )
        return figure

    subsets = next(iter(results[0].curves.values())).subsets
    return Figure(
        "birthday",
        "Probability that a subset holds a duplicate",
        f"{subsets:,} random subsets of each size, bands of 95 % (Clopper and Pearson); dotted: the exact birthday curve of "
        "the fitted support; dashed: one half, where the paper reads the support size.",
        draw,
    )


def _numbers(result: SampleResult, name: str) -> dict[str, Interval]:
    curve = result.curves[name]
    return {"rule": curve.rule, "fit": curve.fit, "collisions": result.rates[name].support}


def _support(results: Sequence[SampleResult], used: Sequence[Definition], alpha: float) -> Figure:
    """Return all support sizes with their intervals, and the paper's."""
    published = paper_values("support-size")
    rows = [(result, estimator) for result in results for estimator in _ESTIMATORS]

    def draw(pyplot: Any) -> Any:
        size = (5.0 * len(used) + 2.5, 1.6 + 0.36 * (len(rows) + 2))
        figure, axes = pyplot.subplots(
            1, len(used), figsize=size, sharey=True, squeeze=False, layout="constrained"
        )
        for place, definition in zip(axes[0], used, strict=True):
            for row, (result, (key, _, mark)) in enumerate(rows):
                _point(place, -row, _numbers(result, definition.name)[key], colour(result.role), mark)
            for row, side in enumerate(("geant4", "gan"), start=len(rows)):
                found = published.get(f"{side}_{definition.name}")
                if found is not None:
                    _published(place, -row, found)
            place.set_xscale("log")
            place.set_title(definition.label, fontsize=14, loc="left")
            place.set_xlabel("support size (showers)")
            place.grid(axis="x", color=BAND, lw=0.6)
        names = [f"{result.label}: {text}" for result, (_, text, _) in rows] + [
            "paper: Geant4",
            "paper: 3DGAN",
        ]
        axes[0][0].set_yticks(-np.arange(len(names)), names, fontsize=12)
        axes[0][0].set_ylim(-len(names) + 0.4, 0.6)
        for place in axes[0]:
            place.tick_params(axis="y", which="minor", left=False, right=False)
            place.tick_params(axis="x", which="minor", labelbottom=False)  # 3 x 10^4 runs into 4 x 10^4
            low, high = place.get_xlim()
            if math.floor(math.log10(high)) < math.log10(low):  # no power of ten inside
                place.set_xlim(10 ** math.floor(math.log10(low)), high)
        return figure

    return Figure(
        "support_size",
        "Support sizes by three estimators",
        f"Limits at alpha = {alpha:g}; bars: 95 % intervals; arrows: lower bounds. The paper's rule reads 1.39 times the "
        "number of equally likely showers that the other two give.",
        draw,
    )


def _point(place: Any, height: float, number: Interval, shade: str, mark: str) -> None:
    """Draw a number with its interval, or an arrow at its lower bound."""
    if math.isnan(number.value):
        if number.low > 0 and math.isfinite(number.low):
            place.plot([number.low], [height], marker=">", ms=8, color=shade)
            place.plot([number.low, 3.0 * number.low], [height, height], color=shade, lw=1.2)
        return
    high = number.high if math.isfinite(number.high) else 10 * number.value
    place.plot([number.low, high], [height, height], color=shade, lw=1.6)
    place.plot([number.value], [height], marker=mark, ms=7, color=shade)


def _published(place: Any, height: float, found: PaperValue) -> None:
    value = found.value if found.value is not None else found.low
    if value is None:
        return
    place.plot([value], [height], marker="*" if found.value is not None else ">", ms=11, color="#7a7f87")
    if found.value is None:
        place.plot([value, 3.0 * value], [height, height], color="#7a7f87", lw=1.2)


def _sensitivity(
    results: Sequence[SampleResult], used: Sequence[Definition], alphas: Sequence[float], alpha: float
) -> Figure:
    """Return the support size from pair collisions against alpha."""

    def draw(pyplot: Any) -> Any:
        size = (5.2 * len(used) + 0.8, 5.4)
        figure, axes = pyplot.subplots(
            1, len(used), figsize=size, sharey=True, squeeze=False, layout="constrained"
        )
        for place, definition in zip(axes[0], used, strict=True):
            for result in results:
                shift = 1.0 + 0.03 * (result.role - 0.5 * (len(results) - 1))
                numbers = [rate.support for rate in result.by_alpha[definition.name]]
                x = np.array(alphas) * shift
                known = [not math.isnan(number.value) for number in numbers]
                value = np.array([number.value for number in numbers])
                shade = colour(result.role)
                place.plot(x[known], value[known], marker="o", ms=6, color=shade, label=result.label)
                for one, number, there in zip(x, numbers, known, strict=True):
                    if there:
                        high = number.high if math.isfinite(number.high) else 10 * number.value
                        place.plot([one, one], [number.low, high], color=shade, lw=1.4)
                    else:
                        place.plot([one], [number.low], marker="^", ms=8, mfc="none", color=shade)
            place.axvline(alpha, color=INK, lw=1.0, ls="--")
            place.set(xscale="log", yscale="log")
            place.set_title(definition.label, fontsize=14, loc="left")
            place.set_xlabel("alpha")
        axes[0][0].set_ylabel("support size from pair collisions")
        handles = [pyplot.Line2D([], [], color=colour(one.role), marker="o") for one in results]
        labels = [one.label for one in results]
        figure.legend(handles, labels, loc="outside upper right", ncols=min(5, len(results)))
        return figure

    return Figure(
        "sensitivity",
        "Support size against alpha",
        "The size depends on what counts as a duplicate far more than on the sample; compare samples at one alpha. "
        "Open triangles: lower bounds where no duplicate was found; dashed: the chosen alpha.",
        draw,
    )


def _closest(result: SampleResult) -> Figure:
    """Return the closest pairs of a sample: their images and profiles."""
    pairs = result.findings.close
    images = pairs[0].images is not None
    columns = 5 if images else 3

    def draw(pyplot: Any) -> Any:
        size = (3.3 * columns + 0.6, 3.1 * len(pairs) + 0.4)
        figure, axes = pyplot.subplots(len(pairs), columns, figsize=size, squeeze=False, layout="constrained")
        for row, pair in zip(axes, pairs, strict=True):
            if pair.images is not None:
                _images(pyplot, row[:2], pair)
            _profiles(row[-3:], pair, result.role)
            likeness = "" if math.isnan(pair.similarity) else f", SSIM {pair.similarity:.3f}"
            row[-3].set_title(f"closeness {pair.closeness:.2f}{likeness}", fontsize=11, loc="left")
        for place, axis in zip(axes[-1][-3:], ("column in x", "row in y", "layer"), strict=True):
            place.set_xlabel(axis, fontsize=12)
        for row in axes:
            row[-3].set_ylabel("energy [MeV]", fontsize=12)
        return figure

    return Figure(
        f"closest_{result.role}",
        f"The closest pairs of {result.label}",
        ("Left: the two showers summed over the layers (MeV, logarithmic colours). " if images else "")
        + "Profiles of both (MeV) in x, y and layers. Closeness is the largest criterion in units of its limit: 1 or "
        "less is a duplicate by profiles and energy, 0 a copy.",
        draw,
    )


def _images(pyplot: Any, places: Sequence[Any], pair: ClosePair) -> None:
    from matplotlib.colors import LogNorm

    assert pair.images is not None
    top = float(pair.images.max()) or 1.0
    norm = LogNorm(top * 1e-5, top)
    for place, image, shower in zip(places, pair.images, pair.showers, strict=True):
        place.imshow(np.where(image > 0, image, np.nan).T, norm=norm, cmap="magma_r", origin="lower")
        place.set_title(f"shower {shower}", fontsize=11, loc="left")
        place.set_xticks([])
        place.set_yticks([])
        place.minorticks_off()


def _profiles(places: Sequence[Any], pair: ClosePair, role: int) -> None:
    for place, axis in zip(places, ("x", "y", "z"), strict=True):
        for number, profile in enumerate(pair.profiles[axis]):
            style: dict[str, Any] = {"lw": 1.4} if number == 0 else {"lw": 1.4, "ls": "--"}
            place.stairs(profile, color=INK if number == 0 else colour(max(role, 1)), **style)
        place.tick_params(labelsize=10)
        place.locator_params(axis="x", nbins=5)
        if axis == "z":
            place.locator_params(axis="y", nbins=5)
        else:
            top = max(float(pair.profiles[axis].max()), 1e-6)
            place.set(yscale="log", ylim=(top * 1e-4, top * 2))
