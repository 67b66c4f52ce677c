"""Separation power, distances, energy and direction after reconstruction.

In ``metrics.json`` they are under ``reconstructed``: ``separation_power``, ``ks`` and ``wasserstein`` of the main observables and of the
clusters (``cluster_response``: calibrated energy over incident energy, ``cluster_direction``: angle of the axis minus the incident
angle in degrees, ``clusters``: their number, ``outside_cluster``: share of the energy outside the leading one); ``response``, its
mean; ``resolution``, its standard deviation over its mean; and ``direction``, the standard deviation of ``cluster_direction`` in
degrees, its mean in the detail. These last three have ``reference``, ``generated`` and their ``ratio``; response and resolution in
bins of the incident energy and of the angle, where they vary, are in the detail.

References:
    E. Buhmann et al., Comput. Softw. Big Sci. 5 (2021) 13, arXiv:2005.05334; arXiv:2303.18150.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from caloforge.statistics.moments import condition_bins, mean_and_std, mean_with_error, ratio_with_error
from caloforge.statistics.resampling import floor_at, halves
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.distances import distances_of
from caloforge.validate.metrics.features import Array, Column, make_column
from caloforge.validate.metrics.separation import separation_of
from caloforge.validate.reconstruction.sample import MAIN, After, can_reconstruct, reconstruct, why_not
from caloforge.validate.resolution import response_curve
from caloforge.validate.sample import Sample

__all__ = ["Reconstructed"]

_Measure = Callable[[Array], tuple[float, float]]
_FEWEST = 10  # showers of a response curve


def _width(x: Array) -> tuple[float, float]:
    """Return the standard deviation of values (N,) and its error; NaN for fewer than four."""
    return mean_and_std(x)[2:] if x.size > 3 else (float("nan"), float("nan"))


def _resolution(x: Array) -> tuple[float, float]:
    """Return the standard deviation over the mean of values (N,) and its error; NaN for a mean of zero."""
    (width, error), mean = _width(x), float(x.mean()) if x.size else 0.0
    return (width / mean, error / mean) if mean > 0 else (float("nan"), float("nan"))


class Reconstructed(Metric):
    """The differences that remain after reconstruction."""

    name: ClassVar[str] = "reconstructed"
    papers: ClassVar[tuple[str, ...]] = ("getting-high", "new-angles")
    keys: ClassVar[tuple[Key, ...]] = (
        Key("reconstructed.separation_power", "Separation power, reconstructed", 0.0, by="observable"),
        Key("reconstructed.ks", "Kolmogorov-Smirnov, reconstructed", 0.0, by="observable"),
        Key("reconstructed.wasserstein", "Wasserstein-1, reconstructed", 0.0, by="observable"),
        Key("reconstructed.response", "Cluster energy response", 1.0, by="sample"),
        Key("reconstructed.resolution", "Cluster energy resolution", 1.0, by="sample"),
        Key("reconstructed.direction", "Cluster angular resolution (degrees)", 1.0, by="sample"),
    )
    minimum: ClassVar[int] = 4

    def wanted(self, settings: Settings) -> bool:
        """Return whether the metric runs by default: unless the settings switch it off."""
        return settings.reconstruction is not False

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        return why_not(reference.detector, settings.reconstruction) or can_reconstruct(reference) or None

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return everything under ``reconstructed``."""
        a, b = reconstruct(reference, reference), reconstruct(reference, generated)
        columns = list(_columns(a, b))
        ks, wasserstein = distances_of(columns, settings)
        found: dict[str, Entry] = {
            "separation_power": separation_of(columns, reference.detector, settings),
            "ks": ks,
            "wasserstein": wasserstein,
            "response": _samples(a.response, b.response, mean_with_error, settings, _curves(a, b)),
            "resolution": _samples(a.response, b.response, _resolution, settings),
        }
        angles = [x.direction[np.isfinite(x.direction)] for x in (a, b)]
        detail = [
            {"mean": mean, "mean_uncertainty": error, "without_axis": len(x.direction) - len(angle)}
            for x, angle in zip((a, b), angles, strict=True)
            for mean, error in [mean_with_error(angle)]
        ]
        found["direction"] = _samples(angles[0], angles[1], _width, settings, detail)
        return {"reconstructed": found}


def _columns(a: After, b: After) -> Iterator[Column]:
    for name in MAIN:
        if name in a.sample.observables and name in b.sample.observables:
            yield make_column(name, name, a.sample.observables[name], b.sample.observables[name])
    for name, values in a.clusters.items():
        yield make_column(name, name, values, b.clusters[name])


def _samples(
    a: Array, b: Array, measure: _Measure, settings: Settings, details: list[dict[str, Any]] | None = None
) -> dict[str, Value]:
    """Return a measure of values (N,) of the reference and (M,) of the generated sample, and their ratio."""
    first, second = details or [{}, {}]
    of_a, of_b = measure(a), measure(b)
    parts = (a[rows] for rows in halves(a.size, 0, settings.seed))
    floor, error = ratio_with_error(*(measure(part) for part in parts))
    below = floor_at(np.array([floor]), max(a.size, 1), max(b.size, 1), 1, ideal=1.0, uncertainty=error)
    ratio = ratio_with_error(of_b, of_a)
    reason: dict[str, Any] = (
        {} if np.isfinite(ratio[0]) else {"reason": "too few showers have a cluster or an axis"}
    )
    return {
        "reference": Value(*of_a, detail=first),
        "generated": Value(*of_b, detail=second),
        "ratio": Value.with_floor(*ratio, below, **reason),
    }


def _curves(a: After, b: After) -> list[dict[str, Any]]:
    """Return response and resolution of each sample in the reference's bins of the conditions that vary."""
    details: list[dict[str, Any]] = [{}, {}]
    if min(len(a.response), len(b.response)) < _FEWEST:
        return details
    for name in ("incident_energy", "incident_theta"):
        variable: Array = getattr(a.sample, name)
        if np.ptp(variable) <= 1e-6 * np.abs(variable).max():
            continue
        edges = condition_bins(variable)
        for x, detail in zip((a, b), details, strict=True):
            energy = x.sample.incident_energy
            curve = response_curve(x.response * energy, energy, getattr(x.sample, name), edges, name, _FEWEST)
            detail[name] = curve.to_dict()
    return details
