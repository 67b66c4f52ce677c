"""Mean profiles: along the layers, in x, in y and in the distance from the axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from caloforge.geometry import Detector
from caloforge.validate.observables.axes import AXIS_LABELS
from caloforge.validate.observables.registry import OBSERVABLES
from caloforge.validate.plots.histogram import mean_panel
from caloforge.validate.plots.panel import Array, Panel
from caloforge.validate.plots.spectra import with_unit

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["layer_ticks", "profiles"]

_FEW_LAYERS = 8
_AXES = ("layer", "x", "y", "r")
_LOG = ("x", "y", "r")


def layer_ticks(detector: Detector) -> tuple[str, ...]:
    """Return the layers' names where there are few enough to write them out."""
    return tuple(layer.name for layer in detector.layers) if detector.n_layers <= _FEW_LAYERS else ()


def profiles(samples: Sequence[Sample], names: Sequence[str] | None = None) -> list[Panel]:
    """Return the mean over showers of every observable along an axis in space, or of some of them."""
    detector = samples[0].detector
    tables = [sample.observables for sample in samples]
    panels = []
    for name in tables[0].names:
        if names is not None and name not in names:
            continue
        observable = OBSERVABLES[name]
        if observable.axis not in _AXES or not all(name in table.names for table in tables):
            continue
        edges = observable.edges(detector)
        if edges is None:
            continue
        x_label = with_unit(*AXIS_LABELS[observable.axis])
        panels.append(
            mean_panel(
                name,
                f"Mean {observable.label}",
                x_label,
                with_unit("mean", observable.unit),
                _closed(edges),
                [np.asarray(table[name]) for table in tables],
                [sample.label for sample in samples],
                layer_ticks(detector) if observable.axis == "layer" else (),
                log_y=observable.axis in _LOG,
            )
        )
    return panels


def _closed(edges: Array) -> Array:
    """Return edges with an open last bin drawn as wide as the one before."""
    edges = edges.copy()
    if not np.isfinite(edges[-1]):
        edges[-1] = edges[-2] + (edges[-2] - edges[-3] if len(edges) > 2 else 1.0)
    return edges
