"""The figures of the study: similarities over L, distances to the training set, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.feature_distances import PRDC
from caloforge.studies.base import Figure
from caloforge.studies.diversity.measure import Measured, Similarities
from caloforge.studies.drawing import Margins, histograms, legend, panel_row, panels, shower_image
from caloforge.validate.plots.axes import logarithmic
from caloforge.validate.plots.panel import BAND, INK, colour

__all__ = ["figures_of"]

_BINS = 40

Set = tuple[int, str, str, Similarities]
"""Role, line style, label and similarities of a set of pairs."""


def figures_of(labels: Sequence[str], measured: Sequence[Measured]) -> list[Figure]:
    """Return the figures that the measurements allow; the reference first among them."""
    figures = []
    sets = _sets(labels, measured)
    if sets:
        figures += [_similarity_histograms(sets), _similarity_curve(sets, labels[0])]
    if any(one.memory is not None for one in measured[1:]):
        figures.append(_distances(labels, measured))
    figures += [
        _nearest(role, label, one.drawn)
        for role, (label, one) in enumerate(zip(labels, measured, strict=True))
        if one.drawn is not None
    ]
    if any(one.quality for one in measured):
        figures.append(_quality(labels, measured))
    return figures


def _sets(labels: Sequence[str], measured: Sequence[Measured]) -> list[Set]:
    """Return every set of pairs, the reference pairs first; none without these."""
    out: list[Set] = []
    for role, (label, one) in enumerate(zip(labels, measured, strict=True)):
        for name, line, text in (
            ("within", "-", f"{label} pairs"),
            ("between", "--", f"{labels[0]} with {label}"),
        ):
            found = one.similarities(name)
            if found is not None:
                out.append((role, line, text, found))
    return out


def _sets_legend(figure: Any, pyplot: Any, sets: Sequence[Set]) -> None:
    handles = [pyplot.Line2D([], [], color=colour(role), ls=line, lw=1.6) for role, line, *_ in sets]
    legend(figure, pyplot, [text for _, _, text, _ in sets], handles=handles)


def _similarity_histograms(sets: Sequence[Set]) -> Figure:
    """Return histograms of the similarities, a panel for each L."""
    ranges = sets[0][3].data_ranges

    def draw(pyplot: Any) -> Any:
        figure, places = panel_row(pyplot, len(ranges), 3, width=3.9, height=3.2, margins=Margins(top=0.95))
        for k, (place, data_range) in enumerate(zip(places, ranges, strict=True)):
            values = [found.values[:, k] for *_, found in sets]
            roles, lines, *_ = zip(*sets, strict=True)
            histograms(place, values, _edges(values), roles=roles, lines=lines)
            place.set_title(f"L = {data_range:g} GeV", fontsize=13, loc="left")
        figure.supxlabel("structural similarity", fontsize=13)
        figure.supylabel("fraction of pairs in a bin", fontsize=13)
        _sets_legend(figure, pyplot, sets)
        return figure

    caption = (
        f"{len(sets[0][3].values):,} pairs of similar energy in each set. If pairs of a generator are more similar than reference "
        "pairs, it lacks diversity; if mixed pairs are less similar, generator and reference differ."
    )
    return Figure("ssim_histograms", "Structural similarity of pairs", caption, draw)


def _edges(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return bins over nearly all values, fewer where there are few values."""
    low = min(float(np.quantile(one, 0.002)) for one in values)
    high = max(float(np.quantile(one, 0.998)) for one in values)
    margin = 0.05 * (high - low) or 0.01
    n_bins = int(np.clip(1.3 * np.sqrt(len(values[0])), 10, _BINS))
    return np.linspace(low - margin, high + margin, n_bins + 1)


def _similarity_curve(sets: Sequence[Set], name: str) -> Figure:
    """Return the mean similarity against L, and its difference from the reference pairs'."""
    reference = sets[0][3]

    def draw(pyplot: Any) -> Any:
        heights, margins = {"height_ratios": (2, 1)}, Margins(left=1.1, top=0.95, down=0.15)
        figure, axes = panels(pyplot, 2, 1, 6.3, 3.0, margins, small=False, sharex=True, gridspec_kw=heights)
        main, difference = axes[:, 0]
        x, band = np.array(reference.data_ranges), reference.spread
        main.fill_between(x, reference.mean - band, reference.mean + band, color=BAND, lw=0)
        for role, line, _, found in sets:
            style: dict[str, Any] = {"color": colour(role), "ls": line, "marker": "o", "ms": 5}
            main.plot(x, found.mean, **style)
            if found is not reference:
                error = np.hypot(found.error, reference.error)
                difference.errorbar(x, found.mean - reference.mean, error, **style)
        difference.axhline(0.0, color=INK, lw=1.0)
        logarithmic(difference)
        difference.set(xlabel="data range L [GeV]", ylabel=f"model − {name}")
        main.set_ylabel("mean structural similarity")
        _sets_legend(figure, pyplot, sets)
        return figure

    caption = "Means over pairs; the grey band is the standard deviation of reference pairs. Below: differences with their errors."
    return Figure("ssim_against_range", "Structural similarity against the data range L", caption, draw)


def _distances(labels: Sequence[str], measured: Sequence[Measured]) -> Figure:
    """Return histograms of the distances to the training set and to held-out showers, a panel a sample."""
    shown = [(role, labels[role], one.memory) for role, one in enumerate(measured) if one.memory is not None]

    def draw(pyplot: Any) -> Any:
        figure, places = panel_row(pyplot, len(shown), 5, width=4.1, height=3.4, small=False)
        for place, (role, label, memory) in zip(places, shown, strict=True):
            values = [memory.to_held_out.distance, memory.to_training.distance]
            histograms(place, values, _edges(values), roles=(0, max(role, 1)), head=1.3)
            part, error = memory.closer
            name = label if role else f"{label}, held out"
            place.set_title(f"{name}\ncloser to training: {part:.3f} ± {error:.3f}", fontsize=12, loc="left")
            handles = [
                pyplot.Rectangle((0, 0), 1, 1, color=BAND),
                pyplot.Line2D([], [], color=colour(max(role, 1))),
            ]
            place.legend(handles, ("to held-out", "to training"), fontsize=11, loc="upper right")
        figure.supxlabel("distance to the nearest shower (of logarithms of the cells)", fontsize=13)
        figure.supylabel("fraction of showers in a bin", fontsize=13)
        return figure

    caption = (
        "Training set and held-out set are equally large. A generator that does not repeat its training showers has equal histograms, and half of "
        "its showers are closer to the training set. The same must hold for other held-out showers (first panel)."
    )
    title = "Distance to the nearest training shower and to the nearest held-out one"
    return Figure("memory", title, caption, draw)


def _nearest(role: int, label: str, pairs: NDArray[np.float64]) -> Figure:
    """Return the images of generated showers beside their nearest training showers."""

    def draw(pyplot: Any) -> Any:
        margins = Margins(left=0.2, bottom=0.2, top=0.45, across=0.25, down=0.45)
        figure, axes = panels(pyplot, 2, len(pairs), 2.5, 2.5, margins)
        for column, pair in zip(axes.T, pairs, strict=True):
            for place, image, name in zip(column, pair, ("generated", "training"), strict=True):
                shower_image(place, image, float(pair.max()), name)
        return figure

    caption = "Above: generated showers. Below: the nearest training shower of each. Energies are summed over layers, with logarithmic colours."
    return Figure(f"nearest_{role}", f"Showers of {label} nearest to the training set", caption, draw)


def _quality(labels: Sequence[str], measured: Sequence[Measured]) -> Figure:
    """Return precision, recall, density and coverage with the floor of two halves of the reference."""
    shown = [(role, labels[role], one.quality) for role, one in enumerate(measured) if one.quality]

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, 1, len(PRDC), 2.6, 3.2, Margins(bottom=0.35, top=0.95))
        for place, name in zip(axes[0], PRDC, strict=True):
            for k, (role, _, quality) in enumerate(shown):
                value = quality[name]
                error = np.nan_to_num(value.uncertainty or 0.0)
                place.bar(k, value.value, 0.8, yerr=error, color=colour(role))
            floor = shown[0][2][name].floor
            if floor is not None:
                place.axhline(floor, color=INK, lw=1.6, ls="--")
            place.set_title(name, fontsize=14, loc="left")
            place.set_xticks([])
            place.set(xlim=(-0.7, len(shown) - 0.3), ylim=(0, 1.1 * max(1.0, place.get_ylim()[1])))
        names = [*(label for _, label, _ in shown), f"two halves of {labels[0]}"]
        handles = [pyplot.Line2D([], [], color=colour(role), lw=6) for role, *_ in shown]
        legend(figure, pyplot, names, handles=[*handles, pyplot.Line2D([], [], color=INK, ls="--")])
        return figure

    caption = (
        "Computed from log10 of the cell energies. The dashed lines are the values for two halves of the reference, with half as many showers; "
        "all four metrics depend on the sizes of the samples."
    )
    return Figure("precision_recall", "Precision, recall, density, coverage", caption, draw)
