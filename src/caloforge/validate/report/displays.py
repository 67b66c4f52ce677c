"""Event displays side by side: a typical shower of the reference and each sample's nearest to its conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from caloforge.showers import Showers
from caloforge.validate.boxes import hit_boxes
from caloforge.validate.plots.event import EventDrawing, describe_shower, energy_limits, event_png
from caloforge.validate.report.event import event_figure
from caloforge.validate.report.page import Plot

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["display_blocks", "event_drawings", "pick_showers"]

_MOST_HITS = 1200  # a display on the page
_NEAR = 5  # showers of nearly the same conditions, of which the most typical one is shown
_MOST_SAMPLES = 6  # WebGL contexts are scarce


def pick_showers(samples: Sequence[Sample]) -> list[Showers]:
    """Return one shower of each sample: the reference's of median energy, and those nearest in energy and angle.

    Of the five nearest ones always that with the median visible energy is taken.
    """
    reference = samples[0]
    energy = reference.observables.incident_energy
    theta = reference.observables.incident_theta
    wanted = float(np.sort(energy)[len(energy) // 2])
    angle = float(np.sort(theta[np.abs(energy - wanted) <= 0.1 * wanted])[-1])
    picked = []
    for sample in samples:
        first = np.abs(np.log(sample.observables.incident_energy / wanted))
        second = np.abs(sample.observables.incident_theta - angle) / 30.0
        order = np.argsort(first + second, kind="stable")
        near = order[:_NEAR]
        visible = sample.observables["visible_energy"][near]
        typical = near[np.argsort(visible, kind="stable")[len(near) // 2]]
        picked.append(sample.source.take(np.array([typical])))
        if sample is reference:
            wanted, angle = float(energy[typical]), float(theta[typical])
    return picked


def display_blocks(samples: Sequence[Sample], showers: Sequence[Showers], threshold: float) -> list[Plot]:
    """Return the interactive displays, all with the same colours."""
    boxes = [hit_boxes(shower, threshold, _MOST_HITS) for shower in showers]
    limits = energy_limits(np.concatenate([box.hits for box in boxes]), threshold)
    corners = np.concatenate([box.corners.reshape(-1, 3) for box in boxes])
    extent = np.stack([corners.min(axis=0), corners.max(axis=0)]) if len(corners) else None
    return [
        Plot(
            event_figure(
                shower, threshold=threshold, most=_MOST_HITS, limits=limits, extent=extent, height=420
            ),
            describe_shower(shower, box),
            sample.label,
            still=event_png(shower, title=" ", threshold=threshold, most=_MOST_HITS, limits=limits),
            key=f"event-{number}",
        )
        for number, (sample, shower, box) in enumerate(zip(samples, showers, boxes, strict=True))
        if number < _MOST_SAMPLES
    ]


def event_drawings(
    samples: Sequence[Sample], showers: Sequence[Showers], threshold: float
) -> list[EventDrawing]:
    """Return the displays for paper: event_0 (the reference), event_1 and so on, all with the same colours."""
    boxes = [hit_boxes(shower, threshold) for shower in showers]
    limits = energy_limits(np.concatenate([box.hits for box in boxes]), threshold)
    return [
        EventDrawing(
            f"event_{number}", shower, f"{sample.label}: {describe_shower(shower, box)}", threshold, limits
        )
        for number, (sample, shower, box) in enumerate(zip(samples, showers, boxes, strict=True))
    ]
