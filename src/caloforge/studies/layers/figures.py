"""The figures of the study, after figures 7 to 14 of the ATLAS note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, errorbars, histograms, legend, panels
from caloforge.studies.layers.measure import LayerSample, Means
from caloforge.studies.layers.profiles import LayerProfile
from caloforge.validate.plots.panel import BAND, INK, colour
from caloforge.validate.resolution import EnergySlices, ResponseCurve

__all__ = [
    "depth_figure",
    "fraction_figure",
    "histogram_figure",
    "means_figure",
    "profile_figure",
    "response_figure",
    "shown_layers",
]

_MOST = 8
_AXIS_LABELS = {"x": "x (η) [mm]", "y": "y (φ) [mm]", "alpha": "α [rad]", "r": "r [mm]"}
_DIRECTIONS = {"x": "eta", "y": "phi", "alpha": "alpha", "r": "r"}


def shown_layers(detector: Detector) -> list[int]:
    """Return the layers that get a panel of their own: all, or eight spread evenly."""
    if detector.n_layers <= _MOST:
        return list(range(detector.n_layers))
    return [int(layer) for layer in np.linspace(0, detector.n_layers - 1, _MOST).round()]


def _panels(pyplot: Any, count: int, columns: int = 4) -> tuple[Any, list[Any]]:
    """Return a figure of ``count`` panels; four stand two by two."""
    columns = min(columns, count if count != 4 else 2)
    figure, axes = panels(pyplot, -(-count // columns), columns)
    places = list(axes.flat)
    for place in places[count:]:
        place.set_visible(False)
    return figure, places[:count]


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
            histograms(place, energies, scale=unit)
            place.set_title(detector.layers[layer].name, fontsize=12, loc="left")
            place.set_xlabel(f"energy [{'GeV' if unit < 1 else 'MeV'}]", fontsize=11)
        figure.supylabel("part of the showers", fontsize=12)
        legend(figure, pyplot, [sample.label for sample in samples])
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
                    errorbars(
                        place, slices.centres / 1000.0, means.mean[:, layer], means.error[:, layer], role
                    )
                place.set_title(detector.layers[layer].name, fontsize=12, loc="left")
                _energy_axis(place, slices.centres)
                place.set_xlabel("incident energy [GeV]", fontsize=11)
        else:
            figure, axes = panels(pyplot, 1, 1, width=7.0, height=4.4, small=False)
            places = [axes[0][0]]
            for role, means in enumerate(found):
                errorbars(
                    places[0],
                    np.arange(detector.n_layers, dtype=np.float64),
                    means.mean[number],
                    means.error[number],
                    role,
                )
            places[0].set_xlabel("layer", fontsize=12)
        figure.supylabel("part of the visible energy", fontsize=12)
        legend(figure, pyplot, labels)
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


def depth_figure(samples: Sequence[LayerSample], slices: EnergySlices) -> Figure:
    """Return histograms of the shower depth in each slice."""
    shown = [s for s in range(len(slices)) if int((samples[0].member == s).sum()) > 0][:12]

    def draw(pyplot: Any) -> Any:
        figure, places = _panels(pyplot, len(shown), columns=3)
        for place, number in zip(places, shown, strict=True):
            histograms(place, [sample.in_slice("shower_depth", number) for sample in samples])
            place.set_title(slices.name(number), fontsize=12, loc="left")
        figure.supxlabel("shower depth [layers]", fontsize=12)
        figure.supylabel("part of the showers", fontsize=12)
        legend(figure, pyplot, [sample.label for sample in samples])
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
        margins = Margins(across=1.0, down=0.12)
        figure, axes = panels(
            pyplot,
            2,
            2,
            width=5.0,
            height=2.7,
            margins=margins,
            small=False,
            sharex="col",
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
                errorbars(axes[0][column], curve.centre / 1000.0, y, dy, role)
                errorbars(axes[1][column], curve.centre / 1000.0, y / known, dy / known, role)
            axes[1][column].axhline(1.0, color=INK, lw=0.8)
            axes[0][column].set_ylabel(label, fontsize=13)
            axes[1][column].set_ylabel("ratio", fontsize=13)
            axes[1][column].set_xlabel("incident energy [GeV]", fontsize=13)
            _energy_axis(axes[1][column], (curves[0].edges[1:] + curves[0].edges[:-1]) / 2)
        legend(figure, pyplot, labels)
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
        figure, axes = panels(
            pyplot, 2 * rows, columns, height=1.9, gridspec_kw={"height_ratios": [2.4, 1] * rows}
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
        legend(figure, pyplot, [sample.label for sample in samples])
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
        margins = Margins(across=1.0, down=0.15)
        figure, axes = panels(pyplot, 2, 2, 4.8, 3.0, margins, small=False, sharex=True)
        shift = 0.12 if detector.n_layers <= _MOST else 0.0
        for column, axis in enumerate(("x", "y")):
            for row, (found, name) in enumerate(((centres, "centre"), (widths, "width"))):
                for role, means in enumerate(found):
                    x = np.arange(detector.n_layers, dtype=np.float64) + shift * (
                        role - (len(labels) - 1) / 2
                    )
                    errorbars(axes[row][column], x, means[axis].mean[number], means[axis].error[number], role)
                axes[row][column].set_ylabel(f"mean {name} in {_AXIS_LABELS[axis]}", fontsize=12)
            if detector.n_layers <= _MOST:
                axes[1][column].set_xticks(
                    range(detector.n_layers), [layer.name for layer in detector.layers]
                )
                axes[1][column].tick_params(axis="x", which="minor", bottom=False, top=False)
            else:
                axes[1][column].set_xlabel("layer", fontsize=12)
        legend(figure, pyplot, labels)
        return figure

    return Figure(
        "centres_and_widths",
        f"Energy-weighted mean and width of each layer at {slices.name(number)}",
        "Mean over showers of the energy-weighted centre and width of a layer's cells; layers without energy left out.",
        draw,
    )
