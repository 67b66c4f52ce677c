"""Histograms of observables, spectra of cell and layer energies, and slices of samples in energy and angle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.metrics.features import cell_histograms
from caloforge.validate.observables.base import OBSERVABLES
from caloforge.validate.observables.spectrum import FINE_EDGES, CellHistograms
from caloforge.validate.plots.axes import plain_name
from caloforge.validate.plots.event import format_energy
from caloforge.validate.plots.panel import Array, Curve, Heat, Image, Panel

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = [
    "Slices", "angle_slices", "cell_spectra", "choose_edges", "common_names", "energies", "energy_slices",
    "histogram_panel", "layer_spectra", "mean_panel", "observable_panel", "spectra", "whole_spectrum",
    "with_unit",
]  # fmt: skip


_FEW, _MANY = 12, 50


def choose_edges(reference: Array, others: Sequence[Array] = ()) -> tuple[Array, bool]:
    """Return bin edges that show the reference (N,) and the other samples, and whether they are logarithmic.

    The range covers all but 1 in 500 of the reference and the middle 98 % of the other samples, these only to twice
    the reference's range. Whole numbers get whole bins. Values over more than two decades get logarithmic bins. All are finite.
    """
    low, high = np.quantile(reference, [0.001, 0.999])
    span = high - low
    if span <= 0:
        width = max(abs(low) * 0.05, 0.5)
        return np.linspace(low - width, high + width, _FEW + 1), False
    number = int(np.clip(2.0 * len(reference) ** (1 / 3), _FEW, _MANY))
    first, last = _reach(low, high, span, others)
    positive = reference[reference > 0]
    small = float(np.quantile(positive, 0.01)) if len(positive) else 0.0
    if len(positive) > 0.98 * len(reference) and high > 100 * small:
        first = max(low, float(positive.min()), small / 10)
        return np.geomspace(first / 1.05, last * 1.05, number + 1), True
    if np.array_equal(reference, np.round(reference)):
        step = max(1, int(np.ceil(span / number)))
        return np.arange(np.floor(first) - 0.5, np.ceil(last) + step, step), False
    width = 1.08 * span / number  # set by the reference, so that a broad sample does not coarsen it
    before, after = (np.ceil(beyond / width + 0.04 * number) for beyond in (low - first, last - high))
    edges = low + width * np.arange(-before, number + after + 1)
    return (edges[edges > -width] if reference.min() >= 0 else edges), False


def _reach(low: float, high: float, span: float, others: Sequence[Array]) -> tuple[float, float]:
    """Return the range with the middle 98 % of the other samples, at most one span more at each end."""
    first, last = low, high
    for values in others:
        if len(values):
            start, end = np.quantile(values, [0.01, 0.99])
            first, last = min(first, max(start, low - span)), max(last, min(end, high + span))
    return float(first), float(last)


def histogram_panel(
    name: str, title: str, x_label: str, values: Sequence[Array], labels: Sequence[str], edges: Array | None = None
) -> Panel | None:  # fmt: skip
    """Return normalised histograms of (N,) values, one a sample; None when the reference has no finite value.

    Every bin is the fraction of all showers of its sample, with the binomial uncertainty neglecting the
    bin's own share: sqrt(n) / N. Entries out of range and values that are not finite are counted in the note.
    """
    finite = [sample[np.isfinite(sample)] for sample in values]
    if not len(finite[0]):
        return None
    bins, log_x = choose_edges(finite[0], finite[1:]) if edges is None else (edges, False)
    curves, notes = [], []
    for role, (label, sample, whole) in enumerate(zip(labels, finite, values, strict=True)):
        counts = np.histogram(sample, bins)[0].astype(float)
        outside, missing = len(sample) - int(counts.sum()), len(whole) - len(sample)
        if outside or missing:
            parts = [f"{outside} out of range"] * bool(outside) + [f"{missing} undefined"] * bool(missing)
            notes.append(f"{label}: {', '.join(parts)} of {len(whole)}")
        total = max(len(whole), 1)
        curves.append(Curve(role, label, counts / total, np.sqrt(counts) / total))
    shape = curves[0].y[curves[0].y > 0]
    log_y = len(shape) > 4 and float(shape.max()) > 200.0 * float(np.median(shape))
    note = "; ".join(notes)
    return Panel(
        name, title, x_label, "fraction of showers in a bin", bins, tuple(curves), log_x, log_y, note=note
    )


def mean_panel(
    name: str, title: str, x_label: str, y_label: str, edges: Array, values: Sequence[Array], labels: Sequence[str],
    ticks: tuple[str, ...] = (), log_y: bool = False,
) -> Panel:  # fmt: skip
    """Return the mean over showers of (N, k) values, one curve a sample, with the error of the mean.

    Values that are not finite are left out of the mean of their bin.
    """
    curves = []
    for role, (label, sample) in enumerate(zip(labels, values, strict=True)):
        data = np.asarray(sample, np.float64)
        known = np.isfinite(data)
        n = known.sum(axis=0)
        safe = np.maximum(n, 1)
        filled = np.where(known, data, 0.0)
        mean = filled.sum(axis=0) / safe
        spread = np.sqrt(np.where(known, (data - mean) ** 2, 0.0).sum(axis=0) / np.maximum(n - 1, 1) / safe)
        curves.append(Curve(role, label, np.where(n > 0, mean, np.nan), spread))
    return Panel(name, title, x_label, y_label, edges, tuple(curves), log_y=log_y, ticks=ticks)


def with_unit(label: str, unit: str) -> str:
    """Return an axis title."""
    unit = unit.replace("mm2", "mm²").replace("mm3", "mm³")
    return f"{label} [{unit}]" if unit else label


def common_names(samples: Sequence[Sample]) -> list[str]:
    """Return the observables that every sample has, in the order of the reference's."""
    tables = [sample.observables for sample in samples]
    return [name for name in tables[0].names if all(name in table for table in tables)]


def observable_panel(name: str, samples: Sequence[Sample]) -> Panel | None:
    """Return the histogram of an observable with one number a shower; None when the reference has no finite value."""
    observable = OBSERVABLES[name]
    text = observable.label[:1].upper() + observable.label[1:], with_unit(observable.label, observable.unit)
    return histogram_panel(name, *text, [s.observables[name] for s in samples], [s.label for s in samples])


def spectra(samples: Sequence[Sample]) -> list[Panel]:
    """Return one histogram an observable."""
    names = [name for name in common_names(samples) if OBSERVABLES[name].is_scalar]
    return [panel for name in names if (panel := observable_panel(name, samples)) is not None]


_MOST_LAYERS = 6
_LEAST_NEAR = 500  # reference cells around the threshold below which the region is not drawn
_JOINED = 2  # bins that make one of the map by layer
_LEAST_CELLS = 20.0  # expected in a bin of the map
_REACH = 2.0  # ends of the map's colours, in powers of two


def cell_spectra(samples: Sequence[Sample]) -> list[Panel | Heat]:
    """Return the spectrum of the cells, the same in fine bins around the hit threshold, and its ratio layer by layer.

    Errors are those of the spread over showers, since the cells of one shower fluctuate together.
    """
    spectra, labels = [cell_histograms(sample) for sample in samples], [sample.label for sample in samples]
    near = _near_threshold(spectra, labels, samples[0].threshold)
    return [*whole_spectrum(samples), *near, *_layer_map(spectra, labels)]


def whole_spectrum(samples: Sequence[Sample]) -> list[Panel]:
    """Return the spectrum of all cells, from the lowest filled bin of any sample to the highest."""
    spectra, labels = [cell_histograms(sample) for sample in samples], [sample.label for sample in samples]
    every = np.arange(len(spectra[0].groups))
    bins = np.arange(-1, len(FINE_EDGES), dtype=np.int64)
    bins[-1] = -1  # neither underflow nor overflow
    totals = [spectrum.totals().sum(axis=0) for spectrum in spectra]
    filled = np.flatnonzero(np.sum(totals, axis=0)[1:-1])
    if not len(filled):
        return []
    shown = slice(int(filled[0]), int(filled[-1]) + 1)
    means = [_mean_and_error(spectrum.sums(bins, every)) for spectrum in spectra]
    curves = [Curve(role, labels[role], y[shown], error[shown]) for role, (y, error) in enumerate(means)]
    notes = [
        f"{label}: {total[0]:.0f} cells below and {total[-1]:.0f} above the axis"
        for label, total in zip(labels, totals, strict=True)
        if total[0] + total[-1] > 0
    ]
    text = "cell_spectrum", "Cell energies", "cell energy [MeV]", "cells a shower in a bin, mean"
    edges = FINE_EDGES[shown.start : shown.stop + 1]
    return [Panel(*text, edges, tuple(curves), log_x=True, log_y=True, note="; ".join(notes))]


def _near_threshold(
    spectra: Sequence[CellHistograms], labels: Sequence[str], threshold: float
) -> list[Panel]:
    """Return the spectrum in bins of 2 % around the threshold; none where hardly any reference cell lies there."""
    if spectra[0].near.sum() < _LEAST_NEAR:
        return []
    means = [_mean_and_error(np.asarray(spectrum.near.toarray(), np.float64)) for spectrum in spectra]
    curves = tuple(Curve(role, labels[role], y, error) for role, (y, error) in enumerate(means))
    # a spike would leave nothing else visible on a linear axis
    spike = any(float(curve.y.max()) > 4.0 * float(curves[0].y.max()) for curve in curves[1:])
    name, title = "cell_spectrum_threshold", f"Cell energies around the hit threshold of {threshold:g} MeV"
    y_label = "cells a shower in a bin of 2 %, mean"
    return [Panel(name, title, "cell energy [MeV]", y_label, spectra[0].near_edges, curves, log_y=spike)]


def _mean_and_error(counts: Array) -> tuple[Array, Array]:
    return counts.mean(axis=0), counts.std(axis=0) / np.sqrt(max(len(counts) - 1, 1))


def _layer_map(spectra: Sequence[CellHistograms], labels: Sequence[str]) -> list[Heat]:
    """Return the logarithm of generated over reference cells, by layer and energy."""
    groups = spectra[0].groups
    shape = len(groups), (len(FINE_EDGES) - 1) // _JOINED, _JOINED
    rates = [spectrum.totals()[:, 1:-1].reshape(shape).sum(axis=2) / spectrum.n for spectrum in spectra]
    known = rates[0] * min(spectrum.n for spectrum in spectra) >= _LEAST_CELLS
    if len(groups) < 2 or not known.any() or len(spectra) < 2:
        return []
    columns = np.flatnonzero(known.any(axis=0))
    shown = slice(int(columns[0]), int(columns[-1]) + 1)
    images = []
    for label, rate in zip(labels[1:], rates[1:], strict=True):
        ratio = np.where(known, rate / np.where(known, rates[0], 1.0), np.nan)
        values = np.log2(np.maximum(ratio, 2.0**-_REACH))[:, shown]
        images.append(Image(f"{label} / {plain_name(labels[0])}", np.minimum(values, _REACH).T))
    name, title = (
        "cell_spectrum_layers",
        f"Number of cells, model / {plain_name(labels[0])}, by layer and energy",
    )
    x_edges = np.log10(FINE_EDGES[::_JOINED]).astype(np.float64)[shown.start : shown.stop + 1]
    y_edges = np.arange(len(groups) + 1, dtype=np.float64) - 0.5
    ticks = tuple(group.name for group in groups)
    note = f"1 is twice as many cells, −1 half as many; bins of fewer than {_LEAST_CELLS:g} expected cells are empty."
    places = "log10(cell energy / MeV)", "layer", x_edges, y_edges
    unit = f"log2(model / {plain_name(labels[0])})"
    return [Heat(name, title, *places, tuple(images), unit, symmetric=_REACH, y_ticks=ticks, note=note)]


def layer_spectra(samples: Sequence[Sample]) -> list[Panel]:
    """Return the distribution of the energy in each layer; of six layers spread over the depth when there are many."""
    if "layer_energy" not in common_names(samples):
        return []
    layers = samples[0].detector.layers
    chosen = np.arange(len(layers))
    if len(layers) > _MOST_LAYERS:
        chosen = np.unique(np.linspace(0, len(layers) - 1, _MOST_LAYERS + 2).round()[1:-1].astype(int))
    panels = []
    for layer in chosen:
        values = [sample.observables["layer_energy"][:, layer] for sample in samples]
        named = layers[layer].name
        where = f"layer {layer}" if named.isdigit() else named
        text = f"layer_energy_{layer:02d}", f"Energy in {where}", "layer energy [MeV]"
        panels.append(histogram_panel(*text, values, [s.label for s in samples]))
    return [panel for panel in panels if panel is not None]


_FEWEST_IN_SLICE = 10  # showers of each sample in a slice that is shown


@dataclass(frozen=True)
class Slices:
    """Slices of one condition, common to all samples."""

    edges: Array  # (S + 1,) their ends
    middles: Array  # (S,) mean of the reference's values in each
    names: tuple[str, ...]  # what each is called
    members: tuple[NDArray[np.int64], ...]  # for each sample, the slice (N,) of each shower, -1 outside

    def enough(self, number: int) -> bool:
        """Return whether every sample has ten showers in a slice."""
        return all(int((member == number).sum()) >= _FEWEST_IN_SLICE for member in self.members)


def energy_slices(samples: Sequence[Sample], number: int = 8) -> Slices | None:
    """Return slices of incident energy; None when all showers have the same."""
    return _slices([sample.observables.incident_energy for sample in samples], number, format_energy)


def angle_slices(samples: Sequence[Sample], number: int = 6) -> Slices | None:
    """Return slices of the incident angle; None when all showers have the same."""
    values = [sample.observables.incident_theta for sample in samples]
    return _slices(values, number, lambda angle: f"{angle:.0f}°")


def _slices(values: Sequence[Array], number: int, write: Callable[[float], str]) -> Slices | None:
    reference = values[0]
    low, high = float(reference.min()), float(reference.max())
    if high - low <= 1e-3 * abs(high):
        return None
    distinct = np.unique(np.round(reference, 3))
    if len(distinct) <= 16:
        x = np.log(distinct) if distinct[0] > 0 else distinct
        inner = (x[1:] + x[:-1]) / 2
        edges = np.concatenate([[2 * x[0] - inner[0]], inner, [2 * x[-1] - inner[-1]]])
        edges = np.exp(edges) if distinct[0] > 0 else edges
        names = tuple(write(value) for value in distinct)
    else:
        edges = np.quantile(reference, np.linspace(0, 1, number + 1))
        edges[-1] += 1e-9 * abs(edges[-1])
        names = tuple(f"{write(a)} to {write(b)}" for a, b in pairwise(edges))
    members = []
    for sample in values:
        place = np.searchsorted(edges, sample, side="right") - 1
        members.append(np.where((place >= 0) & (place < len(edges) - 1), place, -1))
    middles = np.array([reference[members[0] == s].mean() for s in range(len(edges) - 1)])
    return Slices(edges, middles, names, tuple(members))


def energies(samples: Sequence[Sample]) -> list[Panel]:
    """Return the distribution of visible over incident energy in each slice of the incident energy."""
    slices = energy_slices(samples, 6)
    if slices is None:
        return []
    ratios = [sample.observables["visible_energy"] / sample.observables.incident_energy for sample in samples]
    panels = []
    for number in (k for k in range(len(slices.names)) if slices.enough(k)):
        values = [ratio[member == number] for ratio, member in zip(ratios, slices.members, strict=True)]
        text = f"response_at_{number:02d}", f"Response at {slices.names[number]}", "visible / incident energy"
        panels.append(histogram_panel(*text, values, [s.label for s in samples]))
    return [panel for panel in panels if panel is not None]
