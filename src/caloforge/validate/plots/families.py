"""The families of figures, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from caloforge.registry import Registry
from caloforge.validate.plots.panel import Heat, Panel

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["FAMILIES", "TITLES", "Family", "Shown", "all_figures"]

Shown: TypeAlias = Panel | Heat
Family: TypeAlias = Callable[["Sequence[Sample]"], "Sequence[Panel | Heat]"]

FAMILIES: Registry[Family] = Registry(
    "figure family",
    {
        "response": "caloforge.validate.plots.response:response",
        "cells": "caloforge.validate.plots.cells:cell_spectra",
        "energies": "caloforge.validate.plots.energies:energies",
        "spectra": "caloforge.validate.plots.spectra:spectra",
        "profiles": "caloforge.validate.plots.profiles:profiles",
        "layers": "caloforge.validate.plots.cells:layer_spectra",
        "images": "caloforge.validate.plots.images:images",
        "correlations": "caloforge.validate.plots.correlations:correlations",
        "reconstructed": "caloforge.validate.plots.reconstructed:reconstructed",
    },
)


@dataclass(frozen=True)
class Title:
    """How a family is introduced in the report."""

    heading: str
    intro: str


TITLES: dict[str, Title] = {
    "response": Title("Response", "Mean and width of the visible energy against the conditions."),
    "energies": Title("Energies one by one", "The response at each incident energy, or in slices of it."),
    "cells": Title(
        "Cell energies",
        "How many cells of which energy a shower has: all, around the hit threshold, and by layer.",
    ),
    "spectra": Title(
        "Distributions", "One histogram an observable; every bin is a fraction of the sample's showers."
    ),
    "profiles": Title("Profiles", "Means over all showers, with the error of the mean."),
    "layers": Title("Layer energies", "The energy in single layers."),
    "images": Title("Mean images", "Mean energy of the cells, and its ratio to the reference."),
    "correlations": Title(
        "Correlations", "Linear correlation in the reference, and the samples' differences from it."
    ),
    "reconstructed": Title(
        "After reconstruction",
        "Digitised (0.5 MIP and above), clustered, and calibrated on the reference: what is left of the differences.",
    ),
}


def all_figures(samples: Sequence[Sample], without: Collection[str] = ()) -> dict[str, list[Shown]]:
    """Return every family's figures; families without one are left out.

    Arguments:
        samples: The reference first.
        without: Families that are not wanted.
    """
    drawn: dict[str, list[Shown]] = {}
    for name, family in FAMILIES.items():
        if name in without:
            continue
        figures: list[Shown] = list(family(samples))
        if figures:
            drawn[name] = figures
    return drawn
