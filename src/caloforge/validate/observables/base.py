"""What an observable is, and the observables by name.

What an observable is.

An observable takes a batch of showers and gives one number a shower, or one number a shower for each bin of
an axis (layers, columns of x, distances from the axis, cell energies, chosen cells). It says for which
detectors it makes sense, and when it can be NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.registry import Registry
from caloforge.validate.observables.axes import Axis, axis_edges

if TYPE_CHECKING:
    from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["OBSERVABLES", "Observable", "always", "needs_layers"]


def always(detector: Detector) -> str:
    """Apply to every detector."""
    return ""


def needs_layers(n: int) -> Callable[[Detector], str]:
    """Return a rule that asks for at least ``n`` layers."""

    def rule(detector: Detector) -> str:
        return "" if detector.n_layers >= n else f"needs {n} layers; {detector.name} has {detector.n_layers}"

    return rule


@dataclass(frozen=True)
class Observable:
    """One observable, or one closely related set along an axis.

    Arguments:
        name: Name in the registry, in tables and in metrics.json.
        label: What a figure's axis says, without the unit.
        unit: Unit, empty for a pure number.
        compute: Batch of N showers to (N,) when the axis is "shower", else (N, k).
        axis: Along which axis the values of one shower lie; see :data:`~caloforge.validate.observables.axes.Axis`.
        missing: When it is NaN; empty when it never is.
        counts: Whether the values are counts (histograms of one shower).
        rule: Returns why it makes no sense for a detector; empty when it does.
    """

    name: str
    label: str
    unit: str
    compute: Callable[[ShowerBatch], NDArray[np.floating] | NDArray[np.integer]]
    axis: Axis = "shower"
    missing: str = ""
    counts: bool = False
    rule: Callable[[Detector], str] = always

    @property
    def is_scalar(self) -> bool:
        """Whether there is one number a shower."""
        return self.axis == "shower"

    def applies(self, detector: Detector) -> bool:
        """Return whether the observable makes sense for a detector."""
        return not self.rule(detector)

    def why_not(self, detector: Detector) -> str:
        """Return why the observable makes no sense for a detector; empty when it does."""
        return self.rule(detector)

    def edges(self, detector: Detector) -> NDArray[np.float64] | None:
        """Return the bin edges (k + 1,) along the axis; None for one number a shower and for chosen cells."""
        return axis_edges(self.axis, detector)


_HERE = "caloforge.validate.observables"

OBSERVABLES: Registry[Observable] = Registry(
    "observable",
    {
        "visible_energy": f"{_HERE}.energies:VISIBLE_ENERGY",
        "response": f"{_HERE}.energies:RESPONSE",
        "peak_energy": f"{_HERE}.energies:PEAK_ENERGY",
        "hits": f"{_HERE}.energies:HITS",
        "sparsity": f"{_HERE}.energies:SPARSITY",
        "shower_depth": f"{_HERE}.energies:SHOWER_DEPTH",
        "shower_start": f"{_HERE}.energies:SHOWER_START",
        "depth_90": f"{_HERE}.energies:DEPTH_90",
        "radius_90": f"{_HERE}.lateral:RADIUS_90",
        "centre_x": f"{_HERE}.lateral:CENTRE_X",
        "centre_y": f"{_HERE}.lateral:CENTRE_Y",
        "centre_z": f"{_HERE}.lateral:CENTRE_Z",
        "second_moment_x": f"{_HERE}.lateral:SECOND_X",
        "second_moment_y": f"{_HERE}.lateral:SECOND_Y",
        "second_moment_z": f"{_HERE}.lateral:SECOND_Z",
        "third_moment_x": f"{_HERE}.lateral:THIRD_X",
        "third_moment_y": f"{_HERE}.lateral:THIRD_Y",
        "third_moment_z": f"{_HERE}.lateral:THIRD_Z",
        "angle_barycentres": f"{_HERE}.lateral:ANGLE_BARYCENTRES",
        "angle_axis": f"{_HERE}.lateral:ANGLE_AXIS",
        "core_mean": f"{_HERE}.energies:CORE_MEAN",
        "core_std": f"{_HERE}.energies:CORE_STD",
        "layer_energy": f"{_HERE}.energies:LAYER_ENERGY",
        "layer_fraction": f"{_HERE}.energies:LAYER_FRACTION",
        "layer_sparsity": f"{_HERE}.energies:LAYER_SPARSITY",
        "layer_centre_x": f"{_HERE}.lateral:LAYER_CENTRE_X",
        "layer_centre_y": f"{_HERE}.lateral:LAYER_CENTRE_Y",
        "layer_centre_r": f"{_HERE}.lateral:LAYER_CENTRE_R",
        "layer_width_x": f"{_HERE}.lateral:LAYER_WIDTH_X",
        "layer_width_y": f"{_HERE}.lateral:LAYER_WIDTH_Y",
        "layer_width_r": f"{_HERE}.lateral:LAYER_WIDTH_R",
        "x_profile": f"{_HERE}.lateral:X_PROFILE",
        "y_profile": f"{_HERE}.lateral:Y_PROFILE",
        "radial_profile": f"{_HERE}.lateral:RADIAL_PROFILE",
        "cell_spectrum": f"{_HERE}.spectrum:CELL_SPECTRUM",
        "core_cells": f"{_HERE}.energies:CORE_CELLS",
    },
    group="caloforge.observables",
)
