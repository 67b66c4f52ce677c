r"""Linearity and resolution against energy and angle, before and after reconstruction.

Linearity and resolution: mean response and its relative width against energy and angle.

The response is visible over incident energy. Mean :math:`\mu` and width :math:`\sigma` are those of all showers in
a slice; their errors are :math:`\sigma/\sqrt{n}` and, for :math:`\sigma/\mu`, from the fourth central moment,

.. math:: \mathrm{var}(\sigma) = \frac{m_4 - \sigma^4 (n-3)/(n-1)}{4 \sigma^2 n}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from caloforge.validate.observables.base import OBSERVABLES
from caloforge.validate.plots.families import Slices, angle_slices, energy_slices
from caloforge.validate.plots.images import profiles
from caloforge.validate.plots.panel import Array, Curve, Panel
from caloforge.validate.plots.spectra import histogram_panel, whole_spectrum, with_unit
from caloforge.validate.reconstruction.sample import can_reconstruct, reconstruct

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["moments", "reconstructed", "response", "response_panels"]


def moments(values: Array) -> tuple[float, float, float, float]:
    """Return mean, its error, relative width, and its error of (N,) values; NaN for fewer than four."""
    n = len(values)
    if n < 4:
        return (float("nan"),) * 4
    mean, width = float(values.mean()), float(values.std(ddof=1))
    fourth = float(((values - mean) ** 4).mean())
    variance = max(0.0, fourth - width**4 * (n - 3) / (n - 1)) / (4 * width**2 * n) if width > 0 else 0.0
    scale = abs(mean) if mean else float("nan")
    return mean, width / np.sqrt(n), width / scale, float(np.sqrt(variance)) / scale


def response(samples: Sequence[Sample]) -> list[Panel]:
    """Return linearity and resolution against energy and against angle, where these vary."""
    ratios = [
        np.asarray(sample.observables["visible_energy"], float) / np.asarray(sample.incident_energy, float)
        for sample in samples
    ]
    return response_panels(samples, ratios)


def response_panels(
    samples: Sequence[Sample], ratios: Sequence[Array], prefix: str = "", title: str = ""
) -> list[Panel]:
    """Return mean and relative width of measured over incident energy (N,) against the conditions that vary.

    Arguments:
        samples: The reference first.
        ratios: What was measured over the incident energy, by sample.
        prefix: Put before the names of the figures.
        title: Put behind their titles.
    """
    panels: list[Panel] = []
    for slices, name, label in (
        (energy_slices(samples, 10), "energy", "incident energy [GeV]"),
        (angle_slices(samples, 8), "angle", "incident angle [degrees]"),
    ):
        if slices is not None:
            panels += [
                replace(panel, name=f"{prefix}{panel.name}", title=f"{panel.title}{title}")
                for panel in _pair(samples, ratios, slices, name, label)
            ]
    return panels


def _pair(
    samples: Sequence[Sample], ratios: Sequence[Array], slices: Slices, name: str, label: str
) -> list[Panel]:
    unit = 1e-3 if name == "energy" else 1.0
    edges, x = slices.edges * unit, slices.middles * unit
    log_x = name == "energy" and bool(edges[0] > 0 and edges[-1] > 20 * edges[0])
    rows = []
    for ratio, member in zip(ratios, slices.members, strict=True):
        rows.append(np.array([moments(ratio[member == s]) for s in range(len(x))]).T)
    panels = []
    for first, kind, title, y_label in (
        (0, "linearity", "Mean response", "mean response"),
        (2, "resolution", "Resolution", "width / mean"),
    ):
        curves = tuple(
            Curve(role, sample.label, row[first], row[first + 1])
            for role, (sample, row) in enumerate(zip(samples, rows, strict=True))
        )
        panels.append(
            Panel(
                f"{kind}_{name}",
                f"{title} against {name}",
                label,
                y_label,
                edges,
                curves,
                log_x,
                points=True,
                x=x,
            )
        )
    return panels


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
