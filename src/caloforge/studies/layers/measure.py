"""Layer energies, depth and lateral shape of every shower, and their numbers in slices of energy.

Numbers of each slice in energy: layer fractions, depth, centres and widths, response, lateral shapes.

All are means over the showers of a slice with their errors, arrays (S, ...); a slice of fewer than ten showers gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.showers import ShowerSource
from caloforge.studies.layers.profiles import LayerProfile, deviation, layer_axes, layer_profiles
from caloforge.validate.metrics.distances import ks_test
from caloforge.validate.observables import observe
from caloforge.validate.resolution import EnergySlices, ResponseCurve, response_curve

__all__ = [
    "COLUMNS",
    "Depth",
    "LayerSample",
    "Means",
    "centre_means",
    "depths",
    "fractions",
    "from_arrays",
    "lateral_deviations",
    "measure_layers",
    "response",
    "width_means",
]


COLUMNS = (
    "visible_energy",
    "layer_energy",
    "layer_fraction",
    "shower_depth",
    "layer_centre_x",
    "layer_centre_y",
    "layer_width_x",
    "layer_width_y",
)
"""Observables that the study takes."""
_VALUES, _PROFILE = "values/", "profile/"


@dataclass(frozen=True, eq=False)
class LayerSample:
    """What was measured of N showers.

    Attributes:
        label: Name of the sample.
        energy: (N,) incident, MeV.
        member: (N,) slice of each shower.
        values: Observables by name, (N,) or (N, L).
        profiles: Both axes of every layer, in each slice.
    """

    label: str
    energy: NDArray[np.float64]
    member: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    profiles: list[LayerProfile]

    def in_slice(self, name: str, number: int) -> NDArray[np.float64]:
        """Return an observable of the showers of a slice (K,) or (K, L)."""
        found: NDArray[np.float64] = self.values[name][self.member == number]
        return found


def measure_layers(source: ShowerSource, slices: EnergySlices, label: str) -> dict[str, NDArray[Any]]:
    """Measure all showers; return plain arrays by name, for a cache, see :func:`from_arrays`.

    Arguments:
        source: N showers.
        slices: Slices of the reference.
        label: Shown with the progress.
    """
    table = observe(source, COLUMNS, label=label)
    member = slices.members(np.asarray(source.incident_energy, np.float64))
    arrays: dict[str, NDArray[Any]] = {"energy": table.incident_energy, "member": member}
    arrays |= {f"{_VALUES}{name}": np.asarray(table.values[name]) for name in COLUMNS}
    for index, profile in enumerate(layer_profiles(source, member, len(slices))):
        arrays |= {f"{_PROFILE}{index}/mean": profile.mean, f"{_PROFILE}{index}/error": profile.error}
        arrays["n"] = profile.n
    return arrays


def from_arrays(arrays: dict[str, NDArray[Any]], label: str, detector: Detector) -> LayerSample:
    """Build what was measured from the arrays of :func:`measure_layers`."""
    n = arrays["n"].astype(np.int64)
    profiles = [
        LayerProfile(axis, n, arrays[f"{_PROFILE}{index}/mean"], arrays[f"{_PROFILE}{index}/error"])
        for index, axis in enumerate(layer_axes(detector))
    ]
    values = {name: arrays[f"{_VALUES}{name}"].astype(np.float64) for name in COLUMNS}
    return LayerSample(label, arrays["energy"], arrays["member"].astype(np.int64), values, profiles)


FEWEST = 10
"""Showers below which a slice says nothing."""
_AXES = ("x", "y")


@dataclass(frozen=True, eq=False)
class Means:
    """Means over showers, (S, ...), with their errors."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Depth:
    """Shower depth in each slice, layers.

    Attributes:
        mean: (S,).
        error: (S,) of the mean.
        width: (S,) standard deviation.
        p: (S,) Kolmogorov-Smirnov probability against the reference; 1 for the reference itself.
    """

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    width: NDArray[np.float64]
    p: NDArray[np.float64]


def _means(values: Sequence[NDArray[np.float64]], width: tuple[int, ...]) -> Means:
    """Return mean and error of the showers (K, ...) of each slice, NaN entries left out."""
    mean, error = np.full((2, len(values), *width), np.nan)
    for number, found in enumerate(values):
        n = np.isfinite(found).sum(axis=0)
        enough = n >= FEWEST
        if not enough.any():
            continue
        total = np.nansum(found, axis=0)
        centre = np.where(enough, total / np.maximum(n, 1), np.nan)
        square = np.nansum((found - centre) ** 2, axis=0)
        mean[number] = centre
        error[number] = np.where(enough, np.sqrt(square / np.maximum(n - 1, 1) / np.maximum(n, 1)), np.nan)
    return Means(mean, error)


def fractions(sample: LayerSample, slices: EnergySlices) -> Means:
    """Return the mean part of the visible energy in each layer (S, L); showers without energy are left out."""
    filled = sample.values["visible_energy"] > 0
    found = sample.values["layer_fraction"]
    parts = [found[(sample.member == s) & filled] for s in range(len(slices))]
    return _means(parts, (found.shape[1],))


def depths(sample: LayerSample, reference: LayerSample, slices: EnergySlices) -> Depth:
    """Return the shower depth in each slice."""
    out = np.full((4, len(slices)), np.nan)
    for number in range(len(slices)):
        mine, theirs = (one.in_slice("shower_depth", number) for one in (sample, reference))
        mine, theirs = mine[np.isfinite(mine)], theirs[np.isfinite(theirs)]
        if len(mine) < FEWEST or len(theirs) < FEWEST:
            continue
        width = float(mine.std(ddof=1))
        p = 1.0 if sample is reference else ks_test(theirs, mine)[1]
        out[:, number] = mine.mean(), width / np.sqrt(len(mine)), width, p
    return Depth(*out)


def response(sample: LayerSample, slices: EnergySlices, sampling_fraction: float) -> ResponseCurve:
    """Return response and resolution in each slice: visible energy over sampling fraction and incident energy."""
    measured = sample.values["visible_energy"] / sampling_fraction
    return response_curve(measured, sample.energy, edges=slices.edges, fewest=FEWEST)


def _per_layer(sample: LayerSample, slices: EnergySlices, quantity: str) -> dict[str, Means]:
    """Return the mean of a lateral quantity in each layer (S, L), for x and y; empty layers are left out."""
    seen = sample.values["layer_energy"] > 0
    out = {}
    for axis in _AXES:
        values = np.where(seen, sample.values[f"layer_{quantity}_{axis}"], np.nan)
        parts = [values[sample.member == s] for s in range(len(slices))]
        out[axis] = _means(parts, (values.shape[1],))
    return out


def centre_means(sample: LayerSample, slices: EnergySlices) -> dict[str, Means]:
    """Return the mean energy-weighted centre of each layer (S, L) in x and y, mm."""
    return _per_layer(sample, slices, "centre")


def width_means(sample: LayerSample, slices: EnergySlices) -> dict[str, Means]:
    """Return the mean energy-weighted width of each layer (S, L) in x and y, mm."""
    return _per_layer(sample, slices, "width")


def lateral_deviations(
    sample: LayerSample, reference: LayerSample, slices: EnergySlices
) -> NDArray[np.float64]:
    """Return how far the average profiles are off, (profiles, S, 3).

    The last axis is that of :func:`~caloforge.studies.layers.profiles.deviation`: the largest deviation in bins
    of at least a hundredth of the layer's energy, its error, and the mean deviation weighted with the energy.
    """
    out = np.full((len(reference.profiles), len(slices), 3), np.nan)
    for index, (known, found) in enumerate(zip(reference.profiles, sample.profiles, strict=True)):
        for number in range(len(slices)):
            if known.n[number] >= FEWEST and found.n[number] >= FEWEST:
                out[index, number] = deviation(known, found, number)
    return out
