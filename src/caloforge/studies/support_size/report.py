"""Support sizes of a sample from its duplicates, the rows with the paper's beside them, and the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from caloforge.statistics.birthday import (
    BirthdayCurve,
    CollisionRate,
    Interval,
    birthday_curve,
    collision_rate,
)
from caloforge.studies.base import Figure, Row
from caloforge.studies.drawing import Margins, legend, panels, shower_image
from caloforge.studies.page import paper_values
from caloforge.studies.support_size.duplicates import DEFINITIONS, Definition
from caloforge.studies.support_size.sample import ClosePair, Findings, SupportSizeSettings
from caloforge.validate.plots.panel import BAND, INK, colour

__all__ = ["SampleResult", "figures_of", "rows_of", "support_text"]


_LEVEL = 0.95
_SIGMAS = 1.959964  # standard deviations in half an interval of that level
_SHARE = 5  # the largest subset is this part of the showers, so that subsets differ enough
_KEPT_SIZES = 150


@dataclass(frozen=True, eq=False)
class SampleResult:
    """The support sizes of a sample; role 0 is the reference."""

    label: str
    role: int
    findings: Findings
    curves: dict[str, BirthdayCurve]  # birthday curve by definition
    rates: dict[str, CollisionRate]  # collision rate by definition
    by_alpha: dict[str, list[CollisionRate]]  # collision rates by definition, one for each alpha

    @classmethod
    def of(
        cls, label: str, role: int, findings: Findings, chosen: SupportSizeSettings, seed: int
    ) -> SampleResult:
        """Return the support sizes of a sample; the seed decides which subsets are taken."""
        curves, rates, by_alpha = {}, {}, {}
        for name in (definition.name for definition in DEFINITIONS):
            duplicates = findings.duplicates(name)
            if duplicates is None:
                continue
            size = min(duplicates.n, chosen.largest or max(2, duplicates.n // _SHARE))
            curves[name] = birthday_curve(duplicates, size, chosen.subsets, seed, _LEVEL)
            found = [findings.duplicates(name, int(k)) for k in np.argsort(chosen.all_alphas)]
            by_alpha[name] = [collision_rate(one, _LEVEL) for one in found if one is not None]
            rates[name] = collision_rate(duplicates, _LEVEL)
        return cls(label, role, findings, curves, rates, by_alpha)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``study.json``; curves at some sizes, closer to each other at their start."""
        out: dict[str, Any] = {"n": self.findings.n, "pairs_compared_cell_by_cell": self.findings.compared}
        for name, curve in self.curves.items():
            n = len(curve.sizes)
            keep = np.unique(np.round(np.geomspace(1, n, _KEPT_SIZES)).astype(np.int64)) - 1
            out[name] = {
                "candidates": self.findings.candidates(name),
                "collision": asdict(self.rates[name]),
                "rule": asdict(curve.rule),
                "fit": asdict(curve.fit),
                "curve": {
                    "subsets": curve.subsets,
                    "sizes": curve.sizes[keep],
                    "probability": curve.probability[keep],
                    "low": curve.low[keep],
                    "high": curve.high[keep],
                    "fitted": curve.expected()[keep],
                },
                "by_alpha": [asdict(rate) for rate in self.by_alpha[name]],
            }
        out["closest"] = [
            {"showers": pair.showers, "closeness": pair.closeness, "similarity": pair.similarity}
            for pair in self.findings.close
        ]
        return out


def support_text(number: Interval, form: str = ",.0f") -> str:
    """Return a support size as a reader expects it: with its interval, or the bound."""
    if math.isnan(number.value):
        return f"above {number.low:{form}}"
    return f"{number.value:{form}} ({number.low:{form}} to {_end(number, form)})"


def _end(number: Interval, form: str) -> str:
    return f"{number.high:{form}}" if math.isfinite(number.high) else "no upper end"


def _row(
    quantity: str, number: Interval, paper: str | None, note: str, sample: str, form: str = ",.0f"
) -> Row:
    known = not math.isnan(number.value)
    # a very skew interval has no meaningful standard deviation
    error = (number.high - number.low) / (2 * _SIGMAS) if known and number.high < 3 * number.value else None
    if known:
        bound = f"95 % interval {number.low:{form}} to {_end(number, form)}"
    elif math.isfinite(number.high):
        bound = f"below {number.high:{form}}"
    else:
        bound = f"above {number.low:{form}}" if number.low > 0 else ""
    return Row(quantity, number.value, error, paper, "", "; ".join(filter(None, (bound, note))), sample)


def rows_of(results: Sequence[SampleResult]) -> list[Row]:
    """Return our support sizes beside the paper's; the reference first."""
    published, reference = paper_values("support-size"), results[0]
    rows = []
    for result in results:
        row = partial(_row, sample=result.label)
        for definition in DEFINITIONS:
            name, label = definition.name, definition.label
            if name not in result.curves:
                continue
            curve, rate = result.curves[name], result.rates[name]
            key = f"{'gan' if result.role else 'geant4'}_{name}"
            paper = f"support-size.{key}" if key in published else None
            used = f"{rate.count:,} duplicate{'' if rate.count == 1 else 's'} among {rate.n:,} showers"
            rule = "s² at the first P > 1/2"
            if math.isnan(curve.rule.value):
                rule = f"probability at most {curve.probability[-1]:.2g} up to {curve.sizes[-1]} showers"
            rows += [
                row(f"support size, {label}: paper's rule", curve.rule, paper, rule),
                row(f"support size, {label}: fit of the curve", curve.fit, None, "exact birthday curve"),
                row(f"support size, {label}: pair collisions", rate.support, None, used),
            ]
            if result.role and name in reference.rates:
                ratio = rate.support.over(reference.rates[name].support)
                title = f"support over {reference.label}'s, {label}"
                rows.append(row(title, ratio, None, f"from pair collisions{_meaning(ratio)}", form=".3g"))
    return rows


def _meaning(ratio: Interval) -> str:
    """Return what a support far from the reference's says of a generator."""
    if ratio.low > 1.0:
        return "; larger is not better: its showers differ from each other more than those of the reference, for example by noise in the cells"
    if math.isfinite(ratio.high) and ratio.high < 1.0:
        return "; smaller: its showers repeat each other more than those of the reference"
    return ""


_ESTIMATORS = (("paper's rule", "o"), ("fit", "s"), ("pair collisions", "D"))
_GREY = "#7a7f87"


def figures_of(
    results: Sequence[SampleResult], alphas: Sequence[float], alpha: float, alike: bool
) -> list[Figure]:
    """Return every figure; ``alphas`` increase, ``alpha`` is the chosen one, the reference is the first result.

    Arguments:
        alike: Whether the showers are of the paper's kind, so that its numbers stand beside ours.
    """
    used = [one for one in DEFINITIONS if one.name in results[0].curves]
    figures = [
        _birthday(results, used),
        _support(results, used, alpha, alike),
        _sensitivity(results, used, alphas, alpha),
    ]
    return figures + [_closest(result) for result in results if result.findings.close]


def _definition_panels(
    pyplot: Any, used: Sequence[Definition], x_label: str, height: float = 3.9, left: float = 1.1
) -> tuple[Any, Any]:
    """Return a figure with a panel for each definition, with a logarithmic x axis."""
    margins = Margins(left=left, top=0.95, across=0.35)
    figure, axes = panels(pyplot, 1, len(used), 4.4, height, margins, small=False, sharey=True)
    for place, definition in zip(axes[0], used, strict=True):
        place.set_xscale("log")
        place.tick_params(axis="x", which="minor", labelbottom=False)  # 3 x 10^4 runs into 4 x 10^4
        place.set_title(definition.label, fontsize=14, loc="left")
        place.set_xlabel(x_label, fontsize=14)
    return figure, axes[0]


def _birthday(results: Sequence[SampleResult], used: Sequence[Definition]) -> Figure:
    """Return the probability of a duplicate against the size of the subset, a panel a definition."""

    def draw(pyplot: Any) -> Any:
        figure, places = _definition_panels(pyplot, used, "showers in the subset")
        for place, definition in zip(places, used, strict=True):
            for result in results:
                curve, shade = result.curves[definition.name], colour(result.role)
                place.fill_between(curve.sizes, curve.low, curve.high, color=shade, alpha=0.3, lw=0)
                place.plot(curve.sizes, curve.probability, color=shade)
                if not math.isnan(curve.fit.value):
                    place.plot(curve.sizes, curve.expected(), color=shade, ls=":", lw=1.4)
            place.axhline(0.5, color=INK, lw=1.0, ls="--")
        places[0].set(ylabel="probability of a duplicate", ylim=(0, 1.02))
        legend(figure, pyplot, [result.label for result in results])
        return figure

    subsets = next(iter(results[0].curves.values())).subsets
    caption = (
        f"{subsets:,} random subsets of each size, with 95 % bands (Clopper and Pearson). The dotted line is the exact birthday curve of "
        "the fitted support size; the dashed line is a probability of one half, at which the paper reads the support size."
    )
    return Figure("birthday", "Probability that a subset has a duplicate", caption, draw)


def _support(
    results: Sequence[SampleResult], used: Sequence[Definition], alpha: float, alike: bool
) -> Figure:
    """Return all support sizes with their intervals, and the paper's of showers of its kind."""
    published = paper_values("support-size") if alike else {}
    names = [f"{result.label}: {text}" for result in results for text, _ in _ESTIMATORS]
    names += ["paper: Geant4", "paper: 3DGAN"] if alike else []

    def draw(pyplot: Any) -> Any:
        left = 0.4 + 0.085 * max(map(len, names))
        figure, places = _definition_panels(pyplot, used, "support size (showers)", 0.36 * len(names), left)
        for place, definition in zip(places, used, strict=True):
            row = 0
            for result in results:
                curve, rate = result.curves[definition.name], result.rates[definition.name]
                numbers = (curve.rule, curve.fit, rate.support)
                for number, (_, mark) in zip(numbers, _ESTIMATORS, strict=True):
                    _point(place, -row, number, colour(result.role), mark)
                    row += 1
            for side in ("geant4", "gan") if alike else ():
                found = published.get(f"{side}_{definition.name}")
                if found is not None:
                    value = math.nan if found.value is None else found.value
                    low = found.value if found.low is None else found.low
                    _point(place, -row, Interval(value, low or 0.0, value), _GREY, "*")
                row += 1
            place.grid(axis="x", color=BAND, lw=0.6)
            place.tick_params(axis="y", which="minor", left=False, right=False)
            low, high = place.get_xlim()
            if math.floor(math.log10(high)) < math.log10(low):  # no power of ten inside
                place.set_xlim(10 ** math.floor(math.log10(low)), high)
        places[0].set_yticks(-np.arange(len(names)), names, fontsize=12)
        places[0].set_ylim(-len(names) + 0.4, 0.6)
        return figure

    caption = (
        f"Limits at alpha = {alpha:g}; bars are 95 % intervals, arrows lower bounds. For equally likely showers the paper's rule gives 1.39 times the "
        "number that the other two estimators give."
    )
    return Figure("support_size", "Support sizes by three estimators", caption, draw)


def _point(place: Any, height: float, number: Interval, shade: str, mark: str) -> None:
    """Draw a number with its interval, or an arrow at its lower bound."""
    if math.isnan(number.value):
        if number.low > 0 and math.isfinite(number.low):
            place.plot([number.low], [height], marker=">", ms=8, color=shade)
            place.plot([number.low, 3.0 * number.low], [height, height], color=shade, lw=1.2)
        return
    place.plot([number.low, _drawn_end(number)], [height, height], color=shade, lw=1.6)
    place.plot([number.value], [height], marker=mark, ms=11 if mark == "*" else 7, color=shade)


def _drawn_end(number: Interval) -> float:
    """Return where a bar ends: ten times the value when it has no upper end."""
    return number.high if math.isfinite(number.high) else 10 * number.value


def _sensitivity(
    results: Sequence[SampleResult], used: Sequence[Definition], alphas: Sequence[float], alpha: float
) -> Figure:
    """Return the support size from pair collisions against alpha."""

    def draw(pyplot: Any) -> Any:
        figure, places = _definition_panels(pyplot, used, "alpha")
        for place, definition in zip(places, used, strict=True):
            for result in results:
                shade = colour(result.role)
                x = np.array(alphas) * (1.0 + 0.03 * (result.role - 0.5 * (len(results) - 1)))
                numbers = [rate.support for rate in result.by_alpha[definition.name]]
                value = np.array([number.value for number in numbers])
                known = np.isfinite(value)
                place.plot(x[known], value[known], marker="o", ms=6, color=shade)
                for one, number in zip(x, numbers, strict=True):
                    if math.isnan(number.value):
                        place.plot([one], [number.low], marker="^", ms=8, mfc="none", color=shade)
                    else:
                        place.plot([one, one], [number.low, _drawn_end(number)], color=shade, lw=1.4)
            place.axvline(alpha, color=INK, lw=1.0, ls="--")
            place.set_yscale("log")
        places[0].set_ylabel("support size from pair collisions")
        legend(figure, pyplot, [result.label for result in results])
        return figure

    caption = (
        "The support size depends on the definition of a duplicate far more than on the sample, so compare samples at one alpha. "
        "Open triangles are lower bounds where no duplicate was found; the dashed line is the chosen alpha."
    )
    return Figure("sensitivity", "Support size against alpha", caption, draw)


def _closest(result: SampleResult) -> Figure:
    """Return the closest pairs of a sample: their images and profiles."""
    pairs = result.findings.close
    images = pairs[0].images is not None

    def draw(pyplot: Any) -> Any:
        margins = Margins(top=0.45, across=0.6, down=0.5)
        figure, axes = panels(pyplot, len(pairs), 5 if images else 3, 2.7, 2.5, margins)
        for row, pair in zip(axes, pairs, strict=True):
            if pair.images is not None:
                for place, image, shower in zip(row[:2], pair.images, pair.showers, strict=True):
                    shower_image(place, image, float(pair.images.max()), f"shower {shower}")
            _profiles(row[-3:], pair, result.role)
            similarity = "" if math.isnan(pair.similarity) else f", SSIM {pair.similarity:.3f}"
            row[-3].set_title(f"closeness {pair.closeness:.2f}{similarity}", fontsize=11, loc="left")
            row[-3].set_ylabel("energy [MeV]", fontsize=12)
        for place, axis in zip(axes[-1][-3:], ("column in x", "row in y", "layer"), strict=True):
            place.set_xlabel(axis, fontsize=12)
        return figure

    caption = (
        ("Left: the two showers summed over the layers (MeV, logarithmic colours). " if images else "")
        + "Right: their profiles (MeV) in x, y and layers. Closeness is the largest criterion in units of its limit: 1 or "
        "less means a duplicate by profiles and energy, 0 a copy."
    )
    return Figure(f"closest_{result.role}", f"The closest pairs of {result.label}", caption, draw)


def _profiles(places: Sequence[Any], pair: ClosePair, role: int) -> None:
    for place, (axis, (first, second)) in zip(places, pair.profiles.items(), strict=True):
        place.stairs(first, color=INK, lw=1.4)
        place.stairs(second, color=colour(max(role, 1)), lw=1.4, ls="--")
        place.locator_params(axis="x", nbins=5)
        if axis == "z":
            place.locator_params(axis="y", nbins=5)
        else:
            top = max(float(first.max()), float(second.max()), 1e-6)
            place.set(yscale="log", ylim=(top * 1e-4, top * 2))
