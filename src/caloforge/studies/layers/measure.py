"""What is needed of every shower: layer energies, depth, lateral centres and widths; and the slices in energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.showers import ShowerSource
from caloforge.studies.layers.axes import layer_axes
from caloforge.studies.layers.profiles import LayerProfile, layer_profiles
from caloforge.validate.observables import observe
from caloforge.validate.resolution import bins_of

__all__ = ["COLUMNS", "EnergySlices", "LayerSample", "from_arrays", "measure_layers"]

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
class EnergySlices:
    """Slices of incident energy: one at each value where there are few, else of equal numbers.

    Attributes:
        edges: (S + 1,) MeV.
        centres: (S,) mean of the reference's energies, MeV.
    """

    edges: NDArray[np.float64]
    centres: NDArray[np.float64]

    @classmethod
    def of(cls, energy: NDArray[np.float64], bins: int) -> EnergySlices:
        """Return the slices of the reference's energies (N,)."""
        edges = bins_of(energy, bins)
        place = np.searchsorted(edges, energy, side="right") - 1
        centres = [float(energy[place == s].mean()) for s in range(len(edges) - 1)]
        return cls(edges, np.array(centres))

    def __len__(self) -> int:
        return len(self.centres)

    def members(self, energy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the slice (N,) of each energy (N,); -1 outside."""
        place = np.searchsorted(self.edges, energy, side="right") - 1
        return np.where((place >= 0) & (place < len(self)), place, -1)

    def nearest(self, energy: float) -> int:
        """Return the slice whose mean is nearest to an energy, MeV, in the logarithm."""
        return int(np.abs(np.log(self.centres / energy)).argmin())

    def name(self, number: int) -> str:
        """Return what a slice is called."""
        return f"{self.centres[number] / 1000.0:.3g} GeV"


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
