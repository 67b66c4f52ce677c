"""The families of figures in the order of the report, and those of response and resolution.

The response is visible over incident energy; mean, width and their errors are those of all showers in a slice
(:mod:`caloforge.statistics.moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from caloforge.registry import Registry
from caloforge.statistics.moments import moments_in_bins
from caloforge.validate.plots.images import profiles
from caloforge.validate.plots.panel import Array, Curve, Heat, Panel
from caloforge.validate.plots.spectra import (
    Slices,
    angle_slices,
    common_names,
    energy_slices,
    histogram_panel,
    observable_panel,
    whole_spectrum,
)
from caloforge.validate.reconstruction.sample import can_reconstruct, reconstruct

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = [
    "FAMILIES", "TITLES", "Family", "Shown", "all_figures", "reconstructed", "response", "response_panels",
]  # fmt: skip


_FEWEST = 4  # showers of a slice that is shown


def response(samples: Sequence[Sample]) -> list[Panel]:
    """Return linearity and resolution against energy and against angle, where these vary."""
    return response_panels(samples, [s.observables["visible_energy"] / s.incident_energy for s in samples])


def response_panels(
    samples: Sequence[Sample], ratios: Sequence[Array], title: str = "", energy: str = "visible"
) -> list[Panel]:
    """Return mean and relative width of measured over incident energy (N,), by sample, against the conditions that vary."""
    panels: list[Panel] = []
    for slices, name, label in (
        (energy_slices(samples, 10), "energy", "incident energy [GeV]"),
        (angle_slices(samples, 8), "angle", "incident angle [degrees]"),
    ):
        if slices is not None:
            pair = _pair(samples, ratios, slices, name, label, energy)
            panels += [replace(panel, title=f"{panel.title}{title}") for panel in pair]
    return panels


def _pair(
    samples: Sequence[Sample], ratios: Sequence[Array], slices: Slices, name: str, label: str, energy: str
) -> list[Panel]:
    unit = 1e-3 if name == "energy" else 1.0
    edges, x = slices.edges * unit, slices.middles * unit
    log_x = name == "energy" and bool(edges[0] > 0 and edges[-1] > 20 * edges[0])
    bins = np.arange(len(x) + 1, dtype=np.float64) - 0.5
    found = [
        moments_in_bins(ratio, member.astype(np.float64), bins, _FEWEST)
        for ratio, member in zip(ratios, slices.members, strict=True)
    ]
    means = [(each.mean, each.mean_error) for each in found]
    widths = [(each.std / np.abs(each.mean), each.std_error / np.abs(each.mean)) for each in found]
    panels = []
    for kind, title, y_label, values in (
        ("linearity", "Mean response", f"mean of {energy} / incident energy", means),
        ("resolution", "Resolution", f"σ / mean of {energy} / incident energy", widths),
    ):
        curves = tuple(Curve(role, samples[role].label, y, error) for role, (y, error) in enumerate(values))
        text = f"{kind}_{name}", f"{title} against {name}", label, y_label
        panels.append(Panel(*text, edges, curves, log_x, points=True, x=x))
    return panels


_PREFIX, _TITLE = "reconstructed_", ", reconstructed"
_CLUSTERS = {  # title and axis of the columns of the clusters
    "cluster_response": ("Cluster energy", "cluster energy / incident energy"),
    "cluster_direction": ("Cluster direction", "cluster angle − incident angle [degrees]"),
    "clusters": ("Clusters a shower", "clusters"),
    "outside_cluster": ("Energy outside the leading cluster", "fraction of the digitised energy"),
}
_SPECTRA = ("visible_energy", "hits", "peak_energy", "shower_depth", "radius_90")
_PROFILES = ("layer_energy", "radial_profile")


def reconstructed(samples: Sequence[Sample]) -> list[Panel]:
    """Return the figures after the reconstruction that is calibrated on the reference; none where it cannot be."""
    if can_reconstruct(samples[0]):
        return []
    after = [reconstruct(samples[0], sample) for sample in samples]
    labels = [sample.label for sample in samples]
    panels = [
        histogram_panel(name, title, axis, [each.clusters[name] for each in after], labels)
        for name, (title, axis) in _CLUSTERS.items()
    ]
    cells = [each.sample for each in after]
    panels += response_panels(cells, [each.response for each in after], " of the cluster energy", "cluster")
    names = set(common_names(cells))
    alike = [observable_panel(name, cells) for name in _SPECTRA if name in names]
    alike += [*profiles(cells, _PROFILES), *whole_spectrum(cells)]
    panels += [replace(panel, title=panel.title + _TITLE) for panel in alike if panel is not None]
    return [replace(panel, name=_PREFIX + panel.name) for panel in panels if panel is not None]


Shown: TypeAlias = Panel | Heat
Family: TypeAlias = Callable[["Sequence[Sample]"], "Sequence[Panel | Heat]"]

FAMILIES: Registry[Family] = Registry(
    "figure family",
    {
        "response": "caloforge.validate.plots.families:response",
        "cells": "caloforge.validate.plots.spectra:cell_spectra",
        "energies": "caloforge.validate.plots.spectra:energies",
        "spectra": "caloforge.validate.plots.spectra:spectra",
        "profiles": "caloforge.validate.plots.images:profiles",
        "layers": "caloforge.validate.plots.spectra:layer_spectra",
        "images": "caloforge.validate.plots.images:images",
        "correlations": "caloforge.validate.plots.images:correlations",
        "reconstructed": "caloforge.validate.plots.families:reconstructed",
    },
)


TITLES: dict[str, tuple[str, str]] = {
    "response": ("Response", "Mean and width of the visible energy against the conditions."),
    "energies": ("Energies one by one", "The response at each incident energy, or in slices of the energy."),
    "cells": (
        "Cell energies",
        "Number of cells a shower against their energy: in all layers, around the hit threshold, and by layer.",
    ),
    "spectra": (
        "Distributions",
        "A histogram for each observable; each bin has the fraction of the sample's showers.",
    ),
    "profiles": ("Profiles", "Means over all showers, with the error of the mean."),
    "layers": ("Layer energies", "The energy in single layers."),
    "images": ("Mean images", "Mean energy of the cells, and its ratio to the reference."),
    "correlations": (
        "Correlations",
        "Linear correlations in the reference, and how those of the samples differ from them.",
    ),
    "reconstructed": (
        "After reconstruction",
        "The differences that remain after digitisation (cells of 0.5 MIP and above), clustering, and calibration on the reference.",
    ),
}
"""Heading and introduction of each family in the report."""


def all_figures(samples: Sequence[Sample], without: Collection[str] = ()) -> dict[str, list[Shown]]:
    """Return every family's figures; families without one are left out.

    ``samples``: the reference first; ``without``: families that are not wanted.
    """
    drawn = {name: list(family(samples)) for name, family in FAMILIES.items() if name not in without}
    return {name: figures for name, figures in drawn.items() if figures}
