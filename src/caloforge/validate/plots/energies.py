"""One panel an incident energy: the visible energy at each, where the energy varies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caloforge.validate.plots.histogram import histogram_panel
from caloforge.validate.plots.panel import Panel
from caloforge.validate.plots.slices import energy_slices

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["energies"]


def energies(samples: Sequence[Sample]) -> list[Panel]:
    """Return the distribution of visible over incident energy in each slice of the incident energy."""
    slices = energy_slices(samples, 6)
    if slices is None:
        return []
    labels = [sample.label for sample in samples]
    ratios = [sample.observables["visible_energy"] / sample.observables.incident_energy for sample in samples]
    panels = []
    for number, name in enumerate(slices.names):
        if not slices.enough(number):
            continue
        values = [ratio[member == number] for ratio, member in zip(ratios, slices.members, strict=True)]
        panel = histogram_panel(
            f"response_at_{number:02d}", f"Response at {name}", "visible / incident energy", values, labels
        )
        if panel is not None:
            panels.append(panel)
    return panels
