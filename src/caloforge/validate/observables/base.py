"""What an observable is.

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
from caloforge.validate.observables.axes import Axis, axis_edges

if TYPE_CHECKING:
    from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["Observable", "always", "needs_layers"]


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
