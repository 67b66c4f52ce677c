"""The families of figures in the order of the report, and slices of samples in energy and angle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge.registry import Registry
from caloforge.validate.plots.event import format_energy
from caloforge.validate.plots.panel import Array, Heat, Panel

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["FAMILIES", "TITLES", "Family", "Shown", "Slices", "all_figures", "angle_slices", "energy_slices"]


_FEWEST = 10  # showers of each sample in a slice that is shown


@dataclass(frozen=True)
class Slices:
    """Slices of one condition, common to all samples."""

    edges: Array  # (S + 1,) their ends
    middles: Array  # (S,) mean of the reference's values in each
    names: tuple[str, ...]  # what each is called
    members: tuple[NDArray[np.int64], ...]  # for each sample, the slice (N,) of each shower, -1 outside

    def enough(self, number: int) -> bool:
        """Return whether every sample has ten showers in a slice."""
        return all(int((member == number).sum()) >= _FEWEST for member in self.members)


def energy_slices(samples: Sequence[Sample], number: int = 8) -> Slices | None:
    """Return slices of incident energy; None when all showers have the same."""
    values = [sample.observables.incident_energy for sample in samples]
    return _slices(values, number, format_energy)


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


Shown: TypeAlias = Panel | Heat
Family: TypeAlias = Callable[["Sequence[Sample]"], "Sequence[Panel | Heat]"]

FAMILIES: Registry[Family] = Registry(
    "figure family",
    {
        "response": "caloforge.validate.plots.response:response",
        "cells": "caloforge.validate.plots.spectra:cell_spectra",
        "energies": "caloforge.validate.plots.spectra:energies",
        "spectra": "caloforge.validate.plots.spectra:spectra",
        "profiles": "caloforge.validate.plots.images:profiles",
        "layers": "caloforge.validate.plots.spectra:layer_spectra",
        "images": "caloforge.validate.plots.images:images",
        "correlations": "caloforge.validate.plots.images:correlations",
        "reconstructed": "caloforge.validate.plots.response:reconstructed",
    },
)


TITLES: dict[str, tuple[str, str]] = {
    "response": ("Response", "Mean and width of the visible energy against the conditions."),
    "energies": ("Energies one by one", "The response at each incident energy, or in slices of it."),
    "cells": (
        "Cell energies",
        "Number of cells a shower by energy: all, around the hit threshold, and by layer.",
    ),
    "spectra": (
        "Distributions",
        "One histogram an observable; every bin is a fraction of the sample's showers.",
    ),
    "profiles": ("Profiles", "Means over all showers, with the error of the mean."),
    "layers": ("Layer energies", "The energy in single layers."),
    "images": ("Mean images", "Mean energy of the cells, and its ratio to the reference."),
    "correlations": (
        "Correlations",
        "Linear correlation in the reference, and the samples' differences from it.",
    ),
    "reconstructed": (
        "After reconstruction",
        "Digitised (0.5 MIP and above), clustered, and calibrated on the reference: the remaining differences.",
    ),
}
"""Heading and introduction of each family in the report."""


def all_figures(samples: Sequence[Sample], without: Collection[str] = ()) -> dict[str, list[Shown]]:
    """Return every family's figures; families without one are left out.

    Arguments:
        samples: The reference first.
        without: Families that are not wanted.
    """
    drawn = {name: list(family(samples)) for name, family in FAMILIES.items() if name not in without}
    return {name: figures for name, figures in drawn.items() if figures}
