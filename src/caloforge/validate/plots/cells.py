"""Spectra of cell and layer energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from caloforge.validate.observables.registry import OBSERVABLES
from caloforge.validate.plots.histogram import histogram_panel
from caloforge.validate.plots.panel import Curve, Panel
from caloforge.validate.plots.spectra import with_unit

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["cell_spectra", "layer_spectra"]

_MOST_LAYERS = 6


def cell_spectra(samples: Sequence[Sample]) -> list[Panel]:
    """Return the mean number of cells a shower in bins of their energy, for every such spectrum."""
    tables = [sample.observables for sample in samples]
    panels = []
    for name in tables[0].histograms:
        if not all(name in table for table in tables):
            continue
        spectra = [table.histograms[name] for table in tables]
        filled = np.flatnonzero(np.sum([spectrum.counts for spectrum in spectra], axis=0))
        if not len(filled):
            continue
        shown = slice(int(filled[0]), int(filled[-1]) + 1)
        curves = tuple(
            Curve(
                role, sample.label, spectrum.counts[shown] / len(table), spectrum.errors[shown] / len(table)
            )
            for role, (sample, table, spectrum) in enumerate(zip(samples, tables, spectra, strict=True))
        )
        notes = [
            f"{sample.label}: {spectrum.underflow:.0f} cells below and {spectrum.overflow:.0f} above the axis"
            for sample, spectrum in zip(samples, spectra, strict=True)
            if spectrum.underflow + spectrum.overflow > 0
        ]
        edges = spectra[0].edges[shown.start : shown.stop + 1]
        panels.append(
            Panel(
                name,
                "Cell energies",
                with_unit("cell energy", OBSERVABLES[name].unit or "MeV"),
                "cells a shower in a bin",
                edges,
                curves,
                log_x=True,
                log_y=True,
                note="; ".join(notes),
            )
        )
    return panels


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
