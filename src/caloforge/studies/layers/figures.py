"""The figures of the study, after figures 7 to 14 of the ATLAS note."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, errorbars, histograms, legend, panel_row, panels
from caloforge.studies.layers.measure import LayerProfile, LayerSample
from caloforge.validate.plots.axes import logarithmic, ratio_limits
from caloforge.validate.plots.panel import BAND, INK, colour

__all__ = ["layer_figures"]

_MOST = 8  # layers with a panel of their own
_AXIS_LABELS = {"x": "x (η) [mm]", "y": "y (φ) [mm]", "alpha": "α [rad]", "r": "r [mm]"}
_DIRECTIONS = {"x": "eta", "y": "phi", "alpha": "alpha", "r": "r"}


def layer_figures(samples: Sequence[LayerSample], at: int, names: Sequence[str]) -> list[Figure]:
    """Return every figure, with these names of the samples; those of one energy show the slice ``at``."""
    samples = [copy(sample) for sample in samples]
    for sample, name in zip(samples, names, strict=True):
        sample.label = name
    return [
        _histogram_figure(samples, at),
        _fraction_figure(samples, at),
        _depth_figure(samples),
        _response_figure(samples),
        _profile_figure(samples, at, 0),
        _profile_figure(samples, at, 1),
        _means_figure(samples, at),
    ]


def _shown(detector: Detector) -> list[int]:
    """Return the layers that get a panel of their own: all, or eight spread evenly."""
    if detector.n_layers <= _MOST:
        return list(range(detector.n_layers))
    return [int(layer) for layer in np.linspace(0, detector.n_layers - 1, _MOST).round()]


def _labels(samples: Sequence[LayerSample]) -> list[str]:
    return [sample.label for sample in samples]


def _histogram_figure(samples: Sequence[LayerSample], at: int) -> Figure:
    detector = samples[0].detector
    layers = _shown(detector)

    def draw(pyplot: Any) -> Any:
        figure, places = panel_row(pyplot, len(layers))
        for place, layer in zip(places, layers, strict=True):
            energies = [sample.in_slice("layer_energy", at)[:, layer] for sample in samples]
            scale = 1e-3 if np.median(energies[0]) > 1000.0 else 1.0
            histograms(place, energies, scale=scale)
            place.set_title(detector.layers[layer].name, fontsize=12, loc="left")
            place.set_xlabel(f"energy [{'GeV' if scale < 1 else 'MeV'}]", fontsize=11)
        figure.supylabel("fraction of showers in a bin", fontsize=12)
        legend(figure, pyplot, _labels(samples))
        return figure

    title = f"Energy in the layers at {samples[0].slices.name(at)}"
    caption = "Visible energy of each shower in a layer. Grey: the reference."
    return Figure("layer_energy", title, caption, draw)


def _fraction_figure(samples: Sequence[LayerSample], at: int) -> Figure:
    """Return the mean part of the energy in each layer: against energy for few layers, else in one slice."""
    detector, slices = samples[0].detector, samples[0].slices
    few = detector.n_layers <= _MOST

    def draw(pyplot: Any) -> Any:
        if few:
            figure, places = panel_row(pyplot, detector.n_layers)
        else:
            figure, places = panel_row(pyplot, 1, width=7.0, height=4.4, small=False)
        for layer, place in enumerate(places):
            chosen = (slice(None), layer) if few else (at, slice(None))
            x = slices.centres / 1000.0 if few else np.arange(detector.n_layers, dtype=np.float64)
            for role, sample in enumerate(samples):
                errorbars(place, x, sample.fractions.mean[chosen], sample.fractions.error[chosen], role)
            if few:
                place.set_title(detector.layers[layer].name, fontsize=12, loc="left")
                _energy_axis(place, slices.centres)
            place.set_xlabel("incident energy [GeV]" if few else "layer", fontsize=11 if few else 12)
        figure.supylabel("fraction of the visible energy, mean of the showers", fontsize=12)
        legend(figure, pyplot, _labels(samples))
        return figure

    title = f"Energy fractions {'against energy' if few else f'at {slices.name(at)}'}"
    caption = "Mean over the showers of the fraction of the visible energy in each layer."
    return Figure("layer_fractions", title, caption, draw)


def _energy_axis(place: Any, energies: NDArray[np.float64]) -> None:
    """Set the limits of an axis of energies (S,) in GeV, logarithmic where they span much; ``energies`` are in MeV."""
    low, high = energies.min() / 1000.0, energies.max() / 1000.0
    if high > 5 * low:
        place.set_xlim(low / 1.3, high * 1.3)
        logarithmic(place)
    else:
        margin = 0.08 * (high - low) or 0.1 * high
        place.set_xlim(low - margin, high + margin)


def _depth_figure(samples: Sequence[LayerSample]) -> Figure:
    """Return histograms of the shower depth in each slice."""
    shown = np.flatnonzero(samples[0].n > 0)[:12].tolist()

    def draw(pyplot: Any) -> Any:
        figure, places = panel_row(pyplot, len(shown), columns=3)
        for place, number in zip(places, shown, strict=True):
            histograms(place, [sample.in_slice("shower_depth", number) for sample in samples])
            place.set_title(samples[0].slices.name(number), fontsize=12, loc="left")
        figure.supxlabel("shower depth [layers]", fontsize=12)
        figure.supylabel("fraction of showers in a bin", fontsize=12)
        legend(figure, pyplot, _labels(samples))
        return figure

    caption = "The energy-weighted mean layer of each shower, counted from 0. Grey: the reference."
    return Figure("shower_depth", "Shower depth", caption, draw)


def _response_figure(samples: Sequence[LayerSample]) -> Figure:
    """Return response and resolution against energy, with the ratio to the reference."""

    def draw(pyplot: Any) -> Any:
        heights = {"height_ratios": (2.2, 1)}
        margins = Margins(across=1.0, down=0.12)
        figure, axes = panels(pyplot, 2, 2, 5.0, 2.7, margins, small=False, sharex="col", gridspec_kw=heights)
        curves = [sample.response for sample in samples]
        for column, (name, label) in enumerate(
            (("response", "mean of visible / incident energy"), ("resolution", "σ / mean of visible energy"))
        ):
            main, ratio = axes[:, column]
            known, ratios = getattr(curves[0], name), []
            for role, curve in enumerate(curves):
                y, error = getattr(curve, name), getattr(curve, f"{name}_error")
                errorbars(main, curve.centre / 1000.0, y, error, role)
                errorbars(ratio, curve.centre / 1000.0, y / known, error / known, role)
                ratios += [(y / known, error / known)] * bool(role)
            ratio.axhline(1.0, color=INK, lw=0.8)
            ratio.set_ylim(*ratio_limits(ratios))
            main.set_ylabel(label, fontsize=13)
            ratio.set_ylabel(f"model /\n{samples[0].label}", fontsize=12)
            ratio.set_xlabel("incident energy [GeV]", fontsize=13)
            _energy_axis(ratio, (curves[0].edges[1:] + curves[0].edges[:-1]) / 2)
        legend(figure, pyplot, _labels(samples))
        return figure

    caption = (
        "Visible energy over the detector's sampling fraction and the incident energy: mean, and width over mean; below, "
        "both over the reference's."
    )
    return Figure("response", "Response and resolution against energy", caption, draw)


def _profile_figure(samples: Sequence[LayerSample], at: int, coordinate: int) -> Figure:
    """Return the average profile along one axis in each layer, with the ratio to the reference."""
    detector = samples[0].detector
    layers = _shown(detector)
    axis = samples[0].profiles[2 * layers[0] + coordinate].axis

    def draw(pyplot: Any) -> Any:
        columns = min(4, len(layers)) if len(layers) != 4 else 2
        rows = -(-len(layers) // columns)
        heights = {"height_ratios": ([2.4, 1, 1.15] * rows)[:-1]}  # a row of panels, its ratios, room
        margins = Margins(down=0.08)
        figure, axes = panels(
            pyplot, 3 * rows - 1, columns, height=1.35, margins=margins, gridspec_kw=heights
        )
        for place in axes.flat:
            place.set_visible(False)
        for index, layer in enumerate(layers):
            row, column = divmod(index, columns)
            main, ratio = axes[3 * row][column], axes[3 * row + 1][column]
            main.set_title(detector.layers[layer].name, fontsize=12, loc="left")
            _profile(main, ratio, [sample.profiles[2 * layer + coordinate] for sample in samples], at)
            ratio.set_xlabel(_AXIS_LABELS[axis.name], fontsize=11)
        figure.supylabel(
            f"fraction of the layer's energy, mean of the showers; model / {samples[0].label}", fontsize=12
        )
        legend(figure, pyplot, _labels(samples))
        return figure

    title = f"Average {_DIRECTIONS[axis.name]} profiles at {samples[0].slices.name(at)}"
    caption = (
        "Mean energy in each column of a layer over the layer's mean energy; below, the ratio to the reference, "
        "whose own error is the grey band."
    )
    return Figure(f"profile_{axis.name}", title, caption, draw)


def _profile(main: Any, ratio: Any, profiles: Sequence[LayerProfile], number: int) -> None:
    edges, known = profiles[0].axis.edges, profiles[0].mean[number]
    for place in (main, ratio):
        place.set_visible(True)
        place.set_xlim(edges[0], edges[-1])
    main.tick_params(labelbottom=False)
    middle = (edges[1:] + edges[:-1]) / 2
    safe = np.where(known > 0, known, np.nan)
    band = np.nan_to_num(profiles[0].error[number] / safe)
    band = np.append(band, band[-1])
    ratio.fill_between(edges, 1 - band, 1 + band, step="post", color=BAND)
    ratio.axhline(1.0, color=INK, lw=0.8)
    ratios = []
    for role, profile in enumerate(profiles):
        y, error = profile.mean[number], profile.error[number]
        main.stairs(np.nan_to_num(y), edges, color=colour(role), lw=1.4)
        if role:
            ratio.errorbar(middle, y / safe, error / safe, color=colour(role), fmt="o", ms=2.5, lw=0.9)
            ratios.append((y / safe, error / safe))
    ratio.set_ylim(*ratio_limits(ratios))
    positive = known[np.nan_to_num(known) > 0]
    if len(positive):
        main.set_yscale("log")
        main.set_ylim(max(positive.min() / 3, 1e-6), 4 * positive.max())


def _means_figure(samples: Sequence[LayerSample], at: int) -> Figure:
    """Return the mean energy-weighted centre and width of each layer in eta and phi, in one slice."""
    detector = samples[0].detector
    few = detector.n_layers <= _MOST

    def draw(pyplot: Any) -> Any:
        margins = Margins(across=1.0, down=0.15)
        figure, axes = panels(pyplot, 2, 2, 4.8, 3.0, margins, small=False, sharex=True)
        layers = np.arange(detector.n_layers, dtype=np.float64)
        for row, quantity in enumerate(("centre", "width")):
            for role, sample in enumerate(samples):
                x = layers + (0.12 * (role - (len(samples) - 1) / 2) if few else 0.0)
                for place, means in zip(axes[row], sample.lateral(quantity).values(), strict=True):
                    errorbars(place, x, means.mean[at], means.error[at], role)
            for place, axis in zip(axes[row], ("x", "y"), strict=True):
                place.set_ylabel(f"{quantity} in {_AXIS_LABELS[axis]}, mean", fontsize=12)
        for place in axes[1]:
            if few:
                place.set_xticks(range(detector.n_layers), [layer.name for layer in detector.layers])
                place.tick_params(axis="x", which="minor", bottom=False, top=False)
            else:
                place.set_xlabel("layer", fontsize=12)
        legend(figure, pyplot, _labels(samples))
        return figure

    title = f"Energy-weighted mean and width of each layer at {samples[0].slices.name(at)}"
    caption = "Mean over showers of the energy-weighted centre and width of a layer's cells; layers without energy left out."
    return Figure("centres_and_widths", title, caption, draw)
