"""Spectra of cell and layer energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from caloforge.validate.observables.cell_histograms import FINE_EDGES, CellHistograms, cell_histograms
from caloforge.validate.plots.histogram import histogram_panel
from caloforge.validate.plots.panel import Array, Curve, Heat, Image, Panel

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["cell_spectra", "layer_spectra", "whole_spectrum"]

_MOST_LAYERS = 6
_LEAST_NEAR = 500  # reference cells around the threshold below which the region is not drawn
_JOINED = 2  # bins that make one of the map by layer
_LEAST_CELLS = 20.0  # expected in a bin of the map
_REACH = 2.0  # ends of the map's colours, in powers of two


def cell_spectra(samples: Sequence[Sample]) -> list[Panel | Heat]:
    """Return the spectrum of the cells, the same in fine bins around the hit threshold, and its ratio layer by layer.

    Errors are those of the spread over showers, since the cells of one shower fluctuate together.
    """
    spectra = [cell_histograms(sample) for sample in samples]
    labels = [sample.label for sample in samples]
    near = _near_threshold(spectra, labels, samples[0].threshold)
    return [*whole_spectrum(samples), *near, *_layer_map(spectra, labels)]


def whole_spectrum(samples: Sequence[Sample]) -> list[Panel]:
    """Return the spectrum of all cells, from the lowest filled bin of any sample to the highest."""
    spectra = [cell_histograms(sample) for sample in samples]
    labels = [sample.label for sample in samples]
    every = np.arange(len(spectra[0].groups))
    bins = np.arange(-1, len(FINE_EDGES), dtype=np.int64)
    bins[-1] = -1  # neither underflow nor overflow
    totals = [spectrum.totals().sum(axis=0) for spectrum in spectra]
    filled = np.flatnonzero(np.sum(totals, axis=0)[1:-1])
    if not len(filled):
        return []
    shown = slice(int(filled[0]), int(filled[-1]) + 1)
    curves = []
    for role, (spectrum, label) in enumerate(zip(spectra, labels, strict=True)):
        mean, error = _mean_and_error(spectrum.sums(bins, every))
        curves.append(Curve(role, label, mean[shown], error[shown]))
    notes = [
        f"{label}: {total[0]:.0f} cells below and {total[-1]:.0f} above the axis"
        for label, total in zip(labels, totals, strict=True)
        if total[0] + total[-1] > 0
    ]
    return [
        Panel(
            "cell_spectrum",
            "Cell energies",
            "cell energy [MeV]",
            "cells a shower in a bin",
            FINE_EDGES[shown.start : shown.stop + 1],
            tuple(curves),
            log_x=True,
            log_y=True,
            note="; ".join(notes),
        )
    ]


def _near_threshold(
    spectra: Sequence[CellHistograms], labels: Sequence[str], threshold: float
) -> list[Panel]:
    """Return the spectrum in bins of 2 % around the threshold; without bins that hardly any reference shower fills."""
    if spectra[0].near.sum() < _LEAST_NEAR:
        return []
    edges = spectra[0].near_edges
    curves = []
    for role, (spectrum, label) in enumerate(zip(spectra, labels, strict=True)):
        mean, error = _mean_and_error(np.asarray(spectrum.near.toarray(), np.float64))
        curves.append(Curve(role, label, mean, error))
    return [
        Panel(
            "cell_spectrum_threshold",
            f"Cell energies around the hit threshold of {threshold:g} MeV",
            "cell energy [MeV]",
            "cells a shower in a bin of 2 %",
            edges,
            tuple(curves),
            log_y=_spans(curves),
        )
    ]


def _spans(curves: Sequence[Curve]) -> bool:
    """Return whether a spike would leave nothing else visible on a linear axis."""
    return any(float(curve.y.max()) > 4.0 * float(curves[0].y.max()) for curve in curves[1:])


def _mean_and_error(counts: Array) -> tuple[Array, Array]:
    """Return the mean of counts (n, K) over showers, and its error."""
    n = len(counts)
    return counts.mean(axis=0), counts.std(axis=0) / np.sqrt(max(n - 1, 1))


def _layer_map(spectra: Sequence[CellHistograms], labels: Sequence[str]) -> list[Heat]:
    """Return the logarithm of generated over reference cells, by layer and energy."""
    groups = spectra[0].groups
    n_bins = (len(FINE_EDGES) - 1) // _JOINED
    rates = [
        spectrum.totals()[:, 1:-1].reshape(len(groups), n_bins, _JOINED).sum(axis=2) / spectrum.n
        for spectrum in spectra
    ]
    known = rates[0] * min(spectrum.n for spectrum in spectra) >= _LEAST_CELLS
    if len(groups) < 2 or not known.any() or len(spectra) < 2:
        return []
    columns = np.flatnonzero(known.any(axis=0))
    shown = slice(int(columns[0]), int(columns[-1]) + 1)
    images = []
    for label, rate in zip(labels[1:], rates[1:], strict=True):
        ratio = np.where(known, rate / np.where(known, rates[0], 1.0), np.nan)
        values = np.log2(np.maximum(ratio, 2.0**-_REACH))[:, shown]
        images.append(Image(f"{label} / {labels[0]}", np.minimum(values, _REACH).T))
    return [
        Heat(
            "cell_spectrum_layers",
            "Ratio of the numbers of cells, by layer and energy",
            "log10(cell energy / MeV)",
            "",
            np.log10(FINE_EDGES[::_JOINED]).astype(np.float64)[shown.start : shown.stop + 1],
            np.arange(len(groups) + 1, dtype=np.float64) - 0.5,
            tuple(images),
            "log2 of the ratio",
            symmetric=_REACH,
            y_ticks=tuple(group.name for group in groups),
            note=f"1 is twice as many cells, −1 half as many; bins of fewer than {_LEAST_CELLS:g} expected cells are white.",
        )
    ]


def layer_spectra(samples: Sequence[Sample]) -> list[Panel]:
    """Return the distribution of the energy in each layer; of six layers spread over the depth when there are many."""
    name = "layer_energy"
    tables = [sample.observables for sample in samples]
    if not all(name in table.names for table in tables):
        return []
    detector = samples[0].detector
    n = detector.n_layers
    chosen = (
        range(n)
        if n <= _MOST_LAYERS
        else np.unique(np.linspace(0, n - 1, _MOST_LAYERS + 2).round()[1:-1].astype(int))
    )
    panels = []
    for layer in chosen:
        values = [np.asarray(table[name], float)[:, layer] for table in tables]
        named = detector.layers[layer].name
        panel = histogram_panel(
            f"layer_energy_{layer:02d}",
            f"Energy in {named if not named.isdigit() else f'layer {layer}'}",
            "layer energy [MeV]",
            values,
            [s.label for s in samples],
        )
        if panel is not None:
            panels.append(panel)
    return panels
