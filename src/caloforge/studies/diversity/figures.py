"""The figures of the study: similarities over L, distances to the training set, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.feature_distances import PRDC as NAMES
from caloforge.studies.base import Figure
from caloforge.studies.diversity.distances import Likeness
from caloforge.studies.diversity.sample import Measured
from caloforge.validate.plots.panel import BAND, INK, colour

__all__ = ["figures_of"]

_BINS = 40


def figures_of(labels: Sequence[str], measured: Sequence[Measured]) -> list[Figure]:
    """Return the figures that the measurements allow; the reference first among them."""
    figures = []
    if measured[0].likeness("within") is not None:
        figures += [_similarity_histograms(labels, measured), _similarity_curve(labels, measured)]
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


def _known(labels: Sequence[str], measured: Sequence[Measured]) -> list[tuple[int, str, str, Likeness]]:
    """Return (role, line, label, likeness) of every set of pairs, the trusted pairs first."""
    out = []
    for role, (label, one) in enumerate(zip(labels, measured, strict=True)):
        for name, line in (("within", "-"), ("between", "--")):
            found = one.likeness(name)
            if found is not None:
                text = f"{label} pairs" if name == "within" else f"{labels[0]} with {label}"
                out.append((role, line, text, found))
    return out


def _similarity_histograms(labels: Sequence[str], measured: Sequence[Measured]) -> Figure:
    """Return histograms of the similarities, a panel for each L."""
    sets = _known(labels, measured)
    ranges = sets[0][3].data_ranges

    def draw(pyplot: Any) -> Any:
        columns = min(3, len(ranges))
        rows = -(-len(ranges) // columns)
        size = (4.6 * columns + 0.4, 4.0 * rows + 0.7)
        figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        for place in axes.flat[len(ranges) :]:
            place.set_axis_off()
        for k, (place, data_range) in enumerate(zip(axes.flat, ranges, strict=False)):
            edges = _edges([found.values[:, k] for *_, found in sets])
            for role, line, text, found in sets:
                counts = np.histogram(found.values[:, k], edges)[0] / len(found.values)
                if role == 0:
                    place.stairs(counts, edges, fill=True, color=BAND)
                place.stairs(counts, edges, color=colour(role), ls=line, lw=1.6, label=text)
            place.set_title(f"L = {data_range:g} GeV", fontsize=13, loc="left")
            place.locator_params(axis="x", nbins=5)
            place.set_ylim(bottom=0)
            place.set_xlabel("structural similarity", fontsize=13)
        for row in axes:
            row[0].set_ylabel("part of the pairs", fontsize=13)
        figure.legend(
            *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=min(3, len(sets))
        )
        return figure

    return Figure(
        "ssim_histograms",
        "Structural similarity of pairs",
        f"{len(sets[0][3].values):,} pairs of like energy in each set. Pairs of a generator that are more alike than trusted "
        "ones show a lack of diversity; mixed pairs that are less alike show a difference between both.",
        draw,
    )


def _edges(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return bins that hold nearly all values, fewer where there are few values."""
    low = min(float(np.quantile(one, 0.002)) for one in values)
    high = max(float(np.quantile(one, 0.998)) for one in values)
    margin = 0.05 * (high - low) or 0.01
    n_bins = int(np.clip(1.3 * np.sqrt(len(values[0])), 10, _BINS))
    return np.linspace(low - margin, high + margin, n_bins + 1)


def _similarity_curve(labels: Sequence[str], measured: Sequence[Measured]) -> Figure:
    """Return the mean similarity against L, and its difference from the trusted pairs'."""
    sets = _known(labels, measured)
    trusted = sets[0][3]

    def draw(pyplot: Any) -> Any:
        figure, (main, difference) = pyplot.subplots(
            2, 1, figsize=(7.6, 7.2), sharex=True, height_ratios=(2, 1), layout="constrained"
        )
        x = np.array(trusted.data_ranges)
        main.fill_between(x, trusted.mean - trusted.spread, trusted.mean + trusted.spread, color=BAND, lw=0)
        for role, line, text, found in sets:
            main.plot(x, found.mean, color=colour(role), ls=line, marker="o", ms=5, label=text)
            if found is not trusted:
                error = np.hypot(found.error, trusted.error)
                gap = found.mean - trusted.mean
                difference.errorbar(x, gap, error, color=colour(role), ls=line, marker="o", ms=5)
        difference.axhline(0.0, color=INK, lw=1.0)
        difference.set_xscale("log")
        difference.set(xlabel="data range L [GeV]", ylabel=f"minus {labels[0]}'s")
        main.set_ylabel("mean structural similarity")
        main.legend(fontsize=12)
        return figure

    return Figure(
        "ssim_against_range",
        "Structural similarity against the data range L",
        "Means over pairs; grey: the standard deviation of trusted pairs. Below: differences with their errors.",
        draw,
    )


def _distances(labels: Sequence[str], measured: Sequence[Measured]) -> Figure:
    """Return histograms of the distances to the training set and to held-out showers, a panel a sample."""
    shown = [(role, labels[role], one.memory) for role, one in enumerate(measured) if one.memory is not None]

    def draw(pyplot: Any) -> Any:
        size = (4.9 * len(shown) + 0.4, 4.9)
        figure, axes = pyplot.subplots(1, len(shown), figsize=size, squeeze=False, layout="constrained")
        for place, (role, label, memory) in zip(axes[0], shown, strict=True):
            training, held = memory.to_training.distance, memory.to_held_out.distance
            edges = _edges([held, training])
            place.stairs(
                np.histogram(held, edges)[0] / len(held), edges, fill=True, color=BAND, label="to held-out"
            )
            place.stairs(
                np.histogram(training, edges)[0] / len(training),
                edges,
                color=colour(role),
                label="to training",
            )
            part, error = memory.closer
            name = label if role else f"{label}, held out"
            place.set_title(f"{name}\ncloser to training: {part:.3f} ± {error:.3f}", fontsize=12, loc="left")
            place.set_xlabel("distance to the nearest", fontsize=13)
            place.locator_params(axis="x", nbins=5)
            place.legend(fontsize=11)
        axes[0][0].set_ylabel("part of the showers", fontsize=13)
        return figure

    return Figure(
        "memory",
        "Distance to the nearest training shower and to the nearest held-out one",
        "Training set and held-out set are equally large. A generator that remembers nothing has equal histograms and one "
        "half of its showers closer to the training set, as other held-out showers (first panel) must have.",
        draw,
    )


def _nearest(role: int, label: str, pairs: NDArray[np.float64]) -> Figure:
    """Return the images of generated showers beside their nearest training showers."""

    def draw(pyplot: Any) -> Any:
        from matplotlib.colors import LogNorm

        size = (2.9 * len(pairs) + 0.3, 6.2)
        figure, axes = pyplot.subplots(2, len(pairs), figsize=size, squeeze=False, layout="constrained")
        for column, pair in enumerate(pairs):
            top = float(pair.max()) or 1.0
            for row, (image, name) in enumerate(zip(pair, ("generated", "training"), strict=True)):
                place = axes[row][column]
                shown = np.where(image > 0, image, np.nan).T
                place.imshow(shown, norm=LogNorm(top * 1e-5, top), cmap="magma_r", origin="lower")
                place.set_title(name, fontsize=11, loc="left")
                place.set_xticks([])
                place.set_yticks([])
                place.minorticks_off()
        return figure

    return Figure(
        f"nearest_{role}",
        f"Showers of {label} nearest to the training set",
        "Above: generated showers; below: the training shower nearest to each; summed over layers, logarithmic colours.",
        draw,
    )


def _quality(labels: Sequence[str], measured: Sequence[Measured]) -> Figure:
    """Return precision, recall, density and coverage with the floor of two halves of the reference."""
    shown = [(role, labels[role], one.quality) for role, one in enumerate(measured) if one.quality]

    def draw(pyplot: Any) -> Any:
        figure, axes = pyplot.subplots(1, len(NAMES), figsize=(13.0, 4.4), layout="constrained")
        for place, name in zip(axes, NAMES, strict=True):
            for k, (role, label, quality) in enumerate(shown):
                value = quality[name]
                error = np.nan_to_num(value.uncertainty or 0.0)
                place.bar(k, value.value, 0.8, yerr=error, color=colour(role), label=label)
            floor = shown[0][2][name].floor
            if floor is not None:
                text = f"two halves of {labels[0]}"
                place.axhline(floor, color=INK, lw=1.6, ls="--", label=text)
            place.set_title(name, fontsize=14, loc="left")
            place.set_xticks([])
            place.minorticks_off()
            place.set(xlim=(-0.7, len(shown) - 0.3), ylim=(0, 1.1 * max(1.0, place.get_ylim()[1])))
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)))
        return figure

    return Figure(
        "precision_recall",
        "Precision, recall, density, coverage",
        "Of log10 cell energies. The dashed lines are what two halves of the trusted showers reach, with half as many of them; "
        "all four depend on the sizes of the samples.",
        draw,
    )
