"""Layer energies, depth and lateral shape of every shower, and their means in slices of incident energy.

Means over the showers of a slice are arrays (S, ...) with their errors; a slice of fewer than ten showers gives NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.showers import ShowerSource
from caloforge.statistics.distances import ks_test
from caloforge.studies.layers.profiles import LayerProfile, deviation, layer_axes, layer_profiles
from caloforge.validate.observables import observe
from caloforge.validate.resolution import EnergySlices, ResponseCurve, response_curve

__all__ = ["Depth", "LayerSample", "Means", "measure_layers"]

_COLUMNS = (
    "visible_energy",
    "layer_energy",
    "layer_fraction",
    "shower_depth",
    "layer_centre_x",
    "layer_centre_y",
    "layer_width_x",
    "layer_width_y",
)
_FEWEST = 10
_VALUES, _PROFILE = "values/", "profile/"


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
        ks_p: (S,) Kolmogorov-Smirnov probability against the reference; 1 for the reference itself.
    """

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    width: NDArray[np.float64]
    ks_p: NDArray[np.float64]


def measure_layers(source: ShowerSource, slices: EnergySlices, label: str) -> dict[str, NDArray[Any]]:
    """Measure all showers of a source; return plain arrays by name for a :class:`LayerSample`.

    Arguments:
        source: N showers.
        slices: Slices of the reference.
        label: Shown with the progress.
    """
    table = observe(source, _COLUMNS, label=label)
    member = slices.members(np.asarray(source.incident_energy, np.float64))
    arrays: dict[str, NDArray[Any]] = {"energy": table.incident_energy, "member": member}
    arrays |= {f"{_VALUES}{name}": np.asarray(table.values[name]) for name in _COLUMNS}
    for index, profile in enumerate(layer_profiles(source, member, len(slices))):
        arrays |= {f"{_PROFILE}{index}/mean": profile.mean, f"{_PROFILE}{index}/error": profile.error}
        arrays["n"] = profile.n
    return arrays


class LayerSample:
    """The layers of N showers, in S slices of energy.

    Arguments:
        label: Name of the sample.
        arrays: As :func:`measure_layers` returns them.
        detector: Of L layers.
        slices: Slices of the reference.
        reference: The reference; None for the reference itself.

    Attributes:
        n: (S,) showers of each slice.
        profiles: Both axes of every layer, in each slice.
    """

    def __init__(
        self,
        label: str,
        arrays: Mapping[str, NDArray[Any]],
        detector: Detector,
        slices: EnergySlices,
        reference: LayerSample | None = None,
    ) -> None:
        self.label, self.detector, self.slices = label, detector, slices
        self.reference = self if reference is None else reference
        self.energy, self.member = arrays["energy"], arrays["member"].astype(np.int64)
        self.n = arrays["n"].astype(np.int64)
        self._values = {name: arrays[f"{_VALUES}{name}"].astype(np.float64) for name in _COLUMNS}
        self.profiles = [
            LayerProfile(axis, self.n, arrays[f"{_PROFILE}{k}/mean"], arrays[f"{_PROFILE}{k}/error"])
            for k, axis in enumerate(layer_axes(detector))
        ]

    def in_slice(self, name: str, number: int) -> NDArray[np.float64]:
        """Return an observable of the showers of a slice (K,) or (K, L)."""
        found: NDArray[np.float64] = self._values[name][self.member == number]
        return found

    def _means(self, values: NDArray[np.float64]) -> Means:
        """Return mean and error (S, L) of values (N, L), NaN entries left out."""
        mean, error = np.full((2, len(self.slices), values.shape[1]), np.nan)
        for number in range(len(self.slices)):
            found = values[self.member == number]
            n = np.isfinite(found).sum(axis=0)
            enough = n >= _FEWEST
            centre = np.where(enough, np.nansum(found, axis=0) / np.maximum(n, 1), np.nan)
            square = np.nansum((found - centre) ** 2, axis=0)
            mean[number] = centre
            error[number] = np.where(
                enough, np.sqrt(square / np.maximum(n - 1, 1) / np.maximum(n, 1)), np.nan
            )
        return Means(mean, error)

    @cached_property
    def fractions(self) -> Means:
        """Mean part of the visible energy in each layer (S, L); showers without energy are left out."""
        filled = self._values["visible_energy"] > 0
        return self._means(np.where(filled[:, None], self._values["layer_fraction"], np.nan))

    def lateral(self, quantity: str) -> dict[str, Means]:
        """Return the mean energy-weighted "centre" or "width" of each layer (S, L), mm, in x and y.

        Layers without energy are left out.
        """
        seen = self._values["layer_energy"] > 0
        return {
            axis: self._means(np.where(seen, self._values[f"layer_{quantity}_{axis}"], np.nan))
            for axis in ("x", "y")
        }

    @cached_property
    def depth(self) -> Depth:
        """Shower depth in each slice."""
        out = np.full((4, len(self.slices)), np.nan)
        for number in range(len(self.slices)):
            pair = (one.in_slice("shower_depth", number) for one in (self, self.reference))
            mine, theirs = (values[np.isfinite(values)] for values in pair)
            if min(len(mine), len(theirs)) >= _FEWEST:
                width = float(mine.std(ddof=1))
                p = 1.0 if self is self.reference else ks_test(theirs, mine)[1]
                out[:, number] = mine.mean(), width / np.sqrt(len(mine)), width, p
        return Depth(*out)

    @cached_property
    def response(self) -> ResponseCurve:
        """Visible energy over sampling fraction and incident energy: mean and width in each slice."""
        measured = self._values["visible_energy"] / self.detector.sampling_fraction
        return response_curve(measured, self.energy, edges=self.slices.edges, fewest=_FEWEST)

    @cached_property
    def deviations(self) -> NDArray[np.float64]:
        """How far the average profiles are off, (profiles, S, 3).

        The last axis is that of :func:`~caloforge.studies.layers.profiles.deviation`: the largest deviation in bins
        of at least a hundredth of the layer's energy, its error, and the mean deviation weighted with the energy.
        """
        out = np.full((len(self.profiles), len(self.slices), 3), np.nan)
        for index, (known, found) in enumerate(zip(self.reference.profiles, self.profiles, strict=True)):
            for number in np.flatnonzero((known.n >= _FEWEST) & (found.n >= _FEWEST)):
                out[index, number] = deviation(known, found, int(number))
        return out
