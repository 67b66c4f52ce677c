"""The figures of the study, after figures 7 to 14 of the ATLAS note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.studies.base import Figure
from caloforge.studies.layers.measure import EnergySlices, LayerSample
from caloforge.studies.layers.profiles import LayerProfile
from caloforge.studies.layers.summaries import Means
from caloforge.validate.plots.style import BAND, INK, colour
from caloforge.validate.resolution import ResponseCurve

__all__ = [
    "depth_figure",
    "fraction_figure",
    "histogram_figure",
    "means_figure",
    "profile_figure",
    "response_figure",
    "shown_layers",
]

_MARKERS = ("o", "s", "D", "^", "P", "X")
_MOST = 8
_AXIS_LABELS = {"x": "x (η) [mm]", "y": "y (φ) [mm]", "alpha": "α [rad]", "r": "r [mm]"}
_DIRECTIONS = {"x": "eta", "y": "phi", "alpha": "alpha", "r": "r"}


def shown_layers(detector: Detector) -> list[int]:
    """Return the layers that get a panel of their own: all, or eight spread evenly."""
    if detector.n_layers <= _MOST:
        return list(range(detector.n_layers))
    return [int(layer) for layer in np.linspace(0, detector.n_layers - 1, _MOST).round()]


def _panels(pyplot: Any, count: int, columns: int = 4, height: float = 3.1) -> tuple[Any, list[Any]]:
    """Return a figure of ``count`` panels."""
    columns = min(columns, count if count != 4 else 2)
    rows = -(-count // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(3.7 * columns + 0.8, height * rows + 0.9),
        squeeze=False,
        layout="constrained",
    )
    places = list(axes.flat)
    for place in places[count:]:
        place.set_visible(False)
    for place in places:
        place.tick_params(labelsize=10)
    return figure, places[:count]


def _legend(figure: Any, pyplot: Any, labels: Sequence[str]) -> None:
    handles = [
        pyplot.Line2D([], [], color=colour(role), lw=2.0 if role else 1.4) for role in range(len(labels))
    ]
    figure.legend(handles, labels, loc="outside upper right", ncols=min(5, len(labels)), fontsize=11)


def _histograms(place: Any, samples: Sequence[NDArray[np.float64]], bins: int, scale: float = 1.0) -> None:
    """Draw normalised histograms, the reference filled; entries outside are added to the first and last bin."""
    known = samples[0][np.isfinite(samples[0])] * scale
    if len(known) == 0:
        return
    low, high = np.quantile(known, (0.002, 0.998))
    margin = 0.1 * (high - low) or max(abs(high), 1.0) * 0.05
    edges = np.linspace(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin, bins + 1)
    top = 0.0
    for role, values in enumerate(samples):
        found = values[np.isfinite(values)] * scale
        if len(found) == 0:
            continue
        counts = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(found)
        top = max(top, float(counts.max()))
        if role == 0:
            place.stairs(counts, edges, fill=True, color=BAND)
        place.stairs(counts, edges, color=colour(role), lw=1.5 if role else 1.0)
    place.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.15 * top))
    place.locator_params(axis="both", nbins=5)


def histogram_figure(
    samples: Sequence[LayerSample], detector: Detector, slices: EnergySlices, number: int
) -> Figure:
    """Return histograms of the energy in each layer, in one slice."""
    layers = shown_layers(detector)

    def draw(pyplot: Any) -> Any:
        figure, places = _panels(pyplot, len(layers))
        for place, layer in zip(places, layers, strict=True):
            energies = [sample.in_slice("layer_energy", number)[:, layer] for sample in samples]
            unit = 1e-3 if np.median(energies[0]) > 1000.0 else 1.0
            _histograms(place, energies, 35, unit)
            place.set_title(detector.layers[layer].name, fontsize=12, loc="left")
            place.set_xlabel(f"energy [{'GeV' if unit < 1 else 'MeV'}]", fontsize=11)
        figure.supylabel("part of the showers", fontsize=12)
        _legend(figure, pyplot, [sample.label for sample in samples])
        return figure

    return Figure(
        "layer_energy",
        f"Energy in the layers at {slices.name(number)}",
        "Visible energy of each shower in a layer. Grey: the reference.",
        draw,
    )


def fraction_figure(
    found: Sequence[Means], labels: Sequence[str], detector: Detector, slices: EnergySlices, number: int
) -> Figure:
    """Return the mean part of the energy in each layer: against energy for few layers, else in one slice."""
    few = detector.n_layers <= _MOST

    def draw(pyplot: Any) -> Any:
        if few:
            figure, places = _panels(pyplot, detector.n_layers)
            for layer, place in enumerate(places):
                for role, means in enumerate(found):
                    _points(place, slices.centres / 1000.0, means.mean[:, layer], means.error[:, layer], role)
                place.set_title(detector.layers[layer].name, fontsize=12, loc="left")
                _energy_axis(place, slices.centres)
                place.set_xlabel("incident energy [GeV]", fontsize=11)
        else:
            figure, places = _panels(pyplot, 1, height=4.6)
            figure.set_size_inches(8.5, 5.5)
            for role, means in enumerate(found):
                _points(
                    places[0], np.arange(detector.n_layers), means.mean[number], means.error[number], role
                )
            places[0].set_xlabel("layer", fontsize=12)
        figure.supylabel("part of the visible energy", fontsize=12)
        _legend(figure, pyplot, labels)
        return figure

    title = "Energy fractions against energy" if few else f"Energy fractions at {slices.name(number)}"
    return Figure(
        "layer_fractions", title, "Mean over the showers of a layer's part of the visible energy.", draw
    )


def _energy_axis(place: Any, energies: NDArray[np.float64]) -> None:
    """Set the limits of an axis of energies (S,) given in MeV, logarithmic where they span much."""
    low, high = energies.min() / 1000.0, energies.max() / 1000.0
    if high > 5 * low:
        place.set_xscale("log")
        place.set_xlim(low / 1.3, high * 1.3)
    else:
        margin = 0.08 * (high - low) or 0.1 * high
        place.set_xlim(low - margin, high + margin)


def _points(
    place: Any, x: NDArray[np.float64], y: NDArray[np.float64], error: NDArray[np.float64], role: int
) -> None:
    place.errorbar(
        x,
        y,
        error,
        color=colour(role),
        fmt=_MARKERS[role % len(_MARKERS)],
        ms=4.5,
        lw=1.1,
        ls="-" if role == 0 else "none",
    )


def depth_figure(samples: Sequence[LayerSample], slices: EnergySlices) -> Figure:
    """Return histograms of the shower depth in each slice."""
    shown = [s for s in range(len(slices)) if int((samples[0].member == s).sum()) > 0][:12]

    def draw(pyplot: Any) -> Any:
        figure, places = _panels(pyplot, len(shown), columns=3)
        for place, number in zip(places, shown, strict=True):
            _histograms(place, [sample.in_slice("shower_depth", number) for sample in samples], 35)
            place.set_title(slices.name(number), fontsize=12, loc="left")
        figure.supxlabel("shower depth [layers]", fontsize=12)
        figure.supylabel("part of the showers", fontsize=12)
        _legend(figure, pyplot, [sample.label for sample in samples])
        return figure

    return Figure(
        "shower_depth",
        "Shower depth",
        "The energy-weighted mean layer of each shower, counted from 0. Grey: the reference.",
        draw,
    )


def response_figure(curves: Sequence[ResponseCurve], labels: Sequence[str]) -> Figure:
    """Return response and resolution against energy, with the ratio to the reference."""

    def draw(pyplot: Any) -> Any:
        figure, axes = pyplot.subplots(
            2,
            2,
            figsize=(12, 6.4),
            sharex=True,
            layout="constrained",
            gridspec_kw={"height_ratios": (2.2, 1)},
        )
        for column, (name, error, label) in enumerate(
            (
                ("response", "response_error", "energy response"),
                ("resolution", "resolution_error", "resolution σ/E"),
            )
        ):
            known = getattr(curves[0], name)
            for role, curve in enumerate(curves):
                y, dy = getattr(curve, name), getattr(curve, error)
                _points(axes[0][column], curve.centre / 1000.0, y, dy, role)
                _points(axes[1][column], curve.centre / 1000.0, y / known, dy / known, role)
            axes[1][column].axhline(1.0, color=INK, lw=0.8)
            axes[0][column].set_ylabel(label, fontsize=13)
            axes[1][column].set_ylabel("ratio", fontsize=13)
            axes[1][column].set_xlabel("incident energy [GeV]", fontsize=13)
            _energy_axis(axes[1][column], (curves[0].edges[1:] + curves[0].edges[:-1]) / 2)
        _legend(figure, pyplot, labels)
        return figure

    return Figure(
        "response",
        "Response and resolution against energy",
        "Visible energy over the detector's sampling fraction and the incident energy: mean, and width over mean; below, "
        "both over the reference's.",
        draw,
    )


def profile_figure(
    samples: Sequence[LayerSample], detector: Detector, slices: EnergySlices, number: int, coordinate: int
) -> Figure:
    """Return the average profile along one axis in each layer, with the ratio to the reference."""
    layers = shown_layers(detector)
    chosen = [2 * layer + coordinate for layer in layers]
    axis = samples[0].profiles[chosen[0]].axis

    def draw(pyplot: Any) -> Any:
        columns = min(4, len(layers)) if len(layers) != 4 else 2
        rows = -(-len(layers) // columns)
        figure, axes = pyplot.subplots(
            2 * rows,
            columns,
            figsize=(3.8 * columns + 0.8, 4.3 * rows + 0.9),
            squeeze=False,
            layout="constrained",
            gridspec_kw={"height_ratios": [2.4, 1] * rows},
        )
        for place in axes.flat:
            place.set_visible(False)
        for index, (layer, profile) in enumerate(zip(layers, chosen, strict=True)):
            row, column = divmod(index, columns)
            main, ratio = axes[2 * row][column], axes[2 * row + 1][column]
            main.set_title(detector.layers[layer].name, fontsize=12, loc="left")
            _profile(main, ratio, [sample.profiles[profile] for sample in samples], number)
            ratio.set_xlabel(_AXIS_LABELS[axis.name], fontsize=11)
        figure.supylabel("part of the layer's energy, and ratio", fontsize=12)
        _legend(figure, pyplot, [sample.label for sample in samples])
        return figure

    direction = _DIRECTIONS[axis.name]
    return Figure(
        f"profile_{axis.name}",
        f"Average {direction} profiles at {slices.name(number)}",
        "Mean energy in each column of a layer over the layer's mean energy; below, the ratio to the reference, "
        "whose own error is the grey band.",
        draw,
    )


def _profile(main: Any, ratio: Any, profiles: Sequence[LayerProfile], number: int) -> None:
    edges, known = profiles[0].axis.edges, profiles[0].mean[number]
    for place in (main, ratio):
        place.set_visible(True)
        place.tick_params(labelsize=9)
        place.set_xlim(edges[0], edges[-1])
    main.tick_params(labelbottom=False)
    middle = (edges[1:] + edges[:-1]) / 2
    safe = np.where(known > 0, known, np.nan)
    band = np.nan_to_num(profiles[0].error[number] / safe)
    ratio.fill_between(
        edges, np.append(1 - band, 1 - band[-1]), np.append(1 + band, 1 + band[-1]), step="post", color=BAND
    )
    ratio.axhline(1.0, color=INK, lw=0.8)
    for role, profile in enumerate(profiles):
        y, error = profile.mean[number], profile.error[number]
        main.stairs(np.nan_to_num(y), edges, color=colour(role), lw=1.4)
        if role:
            ratio.errorbar(middle, y / safe, error / safe, color=colour(role), fmt="o", ms=2.5, lw=0.9)
    ratio.set_ylim(0.45, 1.55)
    positive = np.nan_to_num(known)[np.nan_to_num(known) > 0]
    if len(positive):
        main.set_yscale("log")
        main.set_ylim(max(positive.min() / 3, 1e-6), 4 * positive.max())


def means_figure(
    centres: Sequence[dict[str, Means]],
    widths: Sequence[dict[str, Means]],
    labels: Sequence[str],
    detector: Detector,
    slices: EnergySlices,
    number: int,
) -> Figure:
    """Return the mean energy-weighted centre and width of each layer in eta and phi, in one slice."""

    def draw(pyplot: Any) -> Any:
        figure, axes = pyplot.subplots(2, 2, figsize=(11.5, 7.4), sharex=True, layout="constrained")
        shift = 0.12 if detector.n_layers <= _MOST else 0.0
        for column, axis in enumerate(("x", "y")):
            for row, (found, name) in enumerate(((centres, "centre"), (widths, "width"))):
                for role, means in enumerate(found):
                    x = np.arange(detector.n_layers) + shift * (role - (len(labels) - 1) / 2)
                    _points(axes[row][column], x, means[axis].mean[number], means[axis].error[number], role)
                axes[row][column].set_ylabel(f"mean {name} in {_AXIS_LABELS[axis]}", fontsize=12)
            if detector.n_layers <= _MOST:
                axes[1][column].set_xticks(
                    range(detector.n_layers), [layer.name for layer in detector.layers]
                )
                axes[1][column].tick_params(axis="x", which="minor", bottom=False, top=False)
            else:
                axes[1][column].set_xlabel("layer", fontsize=12)
        _legend(figure, pyplot, labels)
        return figure

    return Figure(
        "centres_and_widths",
        f"Energy-weighted mean and width of each layer at {slices.name(number)}",
        "Mean over showers of the energy-weighted centre and width of a layer's cells; layers without energy left out.",
        draw,
    )
