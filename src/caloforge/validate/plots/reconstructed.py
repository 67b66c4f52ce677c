"""Figures after reconstruction: cluster energy and direction, and the main observables of the leading cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from caloforge.validate.observables.registry import OBSERVABLES
from caloforge.validate.plots.cells import whole_spectrum
from caloforge.validate.plots.histogram import histogram_panel
from caloforge.validate.plots.panel import Panel
from caloforge.validate.plots.profiles import profiles
from caloforge.validate.plots.response import response_panels
from caloforge.validate.plots.spectra import with_unit
from caloforge.validate.reconstructed import can_reconstruct, reconstruct

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["reconstructed"]

_PREFIX, _TITLE = "reconstructed_", ", reconstructed"
_CLUSTERS = {  # title and axis of what the clusters say
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
    panels: list[Panel | None] = []
    for name, (title, axis) in _CLUSTERS.items():
        panels.append(histogram_panel(name, title, axis, [each.clusters[name] for each in after], labels))
    cells = [each.sample for each in after]
    panels += response_panels(cells, [each.response for each in after], title=" of the cluster energy")
    tables = [sample.observables for sample in cells]
    for name in _SPECTRA:
        if all(name in table for table in tables):
            observable = OBSERVABLES[name]
            title = observable.label[:1].upper() + observable.label[1:] + _TITLE
            values = [np.asarray(table[name], np.float64) for table in tables]
            axis = with_unit(observable.label, observable.unit)
            panels.append(histogram_panel(name, title, axis, values, labels))
    panels += [
        replace(panel, title=panel.title + _TITLE)
        for panel in [*profiles(cells, _PROFILES), *whole_spectrum(cells)]
    ]
    return [replace(panel, name=_PREFIX + panel.name) for panel in panels if panel is not None]
