"""Observables: one number a shower, or one number a shower for each bin of an axis; their registry, and the bins of the axes.

======== ============================================================================== =====
axis     bins                                                                           unit
======== ============================================================================== =====
layer    one a readout layer                                                            layer
x, y     grid: its columns or rows; layered: uniform bins of the median pitch;          mm
         mesh: 20 uniform bins
r        grid, layered: uniform bins of the median pitch; mesh: the rings of the layer  mm
         that has most; the last bin is open
energy   cell energies, 20 a decade from 1e-3 to 1e6 MeV; underflow and overflow first  MeV
         and last, so that there are two more values than bins
cell     chosen cells
======== ============================================================================== =====
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer
from caloforge.registry import Registry
from caloforge.validate.observables.batch import Array, ShowerBatch

__all__ = [
    "AXIS_LABELS",
    "OBSERVABLES",
    "SPECTRUM_EDGES",
    "Axis",
    "Observable",
    "always",
    "axis_edges",
    "decade_edges",
    "lateral_edges",
    "needs_layers",
    "radial_edges",
]

Axis = Literal["shower", "layer", "x", "y", "r", "energy", "cell"]

AXIS_LABELS: dict[Axis, tuple[str, str]] = {
    "shower": ("", ""),
    "layer": ("layer", ""),
    "x": ("x", "mm"),
    "y": ("y", "mm"),
    "r": ("distance from the shower axis", "mm"),
    "energy": ("cell energy", "MeV"),
    "cell": ("cell", ""),
}
"""Label and unit of each axis, for figures."""


def decade_edges(first: int, last: int, bins: int = 20) -> Array:
    """Return edges from 10^first to 10^last, ``bins`` a decade."""
    out: Array = 10.0 ** (first + np.arange((last - first) * bins + 1) / bins)
    return out


SPECTRUM_EDGES: Array = decade_edges(-3, 6)
"""Edges (181,) of the cell-energy spectrum, MeV."""

_MESH_BINS = 20
_MOST_RINGS = 30


def axis_edges(axis: Axis, detector: Detector) -> Array | None:
    """Return the bin edges of an axis; None for "shower" and "cell"."""
    if axis == "layer":
        return np.arange(detector.n_layers + 1, dtype=np.float64) - 0.5
    if axis == "x" or axis == "y":
        return lateral_edges(detector, 0 if axis == "x" else 1)
    if axis == "r":
        return radial_edges(detector)
    return SPECTRUM_EDGES if axis == "energy" else None


def lateral_edges(detector: Detector, coordinate: int) -> Array:
    """Return the common bins of all layers in x (0) or y (1), mm."""
    spans, pitches = [], []
    for layer in detector.layers:
        if isinstance(layer, CylindricalLayer):
            spans.append((-layer.r_edges[-1], layer.r_edges[-1]))
            continue
        n, pitch = ((layer.nx, layer.pitch_x), (layer.ny, layer.pitch_y))[coordinate]
        centre = (layer.x_centre, layer.y_centre)[coordinate]
        spans.append((centre - n * pitch / 2, centre + n * pitch / 2))
        pitches.append(pitch)
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    n_bins = max(1, round((high - low) / float(np.median(pitches)))) if pitches else _MESH_BINS
    return np.linspace(low, high, n_bins + 1)


def radial_edges(detector: Detector) -> Array:
    """Return the bins of the distance from the shower axis, mm; the last one is open."""
    rings = [layer for layer in detector.layers if isinstance(layer, CylindricalLayer)]
    if rings:
        finest = max(rings, key=lambda layer: layer.n_r)
        return np.append(np.asarray(finest.r_edges[:-1]), np.inf)
    grids = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
    pitch = float(np.median([min(layer.pitch_x, layer.pitch_y) for layer in grids]))
    across = (
        max(layer.nx * layer.pitch_x for layer in grids),
        max(layer.ny * layer.pitch_y for layer in grids),
    )
    reach = min(across) / 2
    n_bins = int(np.clip(round(reach / pitch), 1, _MOST_RINGS))
    return np.append(pitch * np.arange(n_bins), np.inf)


def always(detector: Detector) -> str:
    """Apply to every detector."""
    return ""


def needs_layers(n: int) -> Callable[[Detector], str]:
    """Return a rule that requires at least ``n`` layers."""

    def rule(detector: Detector) -> str:
        return "" if detector.n_layers >= n else f"needs {n} layers; {detector.name} has {detector.n_layers}"

    return rule


@dataclass(frozen=True)
class Observable:
    """One observable, or one closely related set along an axis.

    Arguments:
        name: Name in the registry, in tables and in metrics.json.
        label: Label of a figure's axis, without the unit.
        unit: Unit, empty for a pure number.
        compute: Batch of N showers to (N,) when the axis is "shower", else (N, k).
        axis: The axis along which the values of one shower lie.
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

    def edges(self, detector: Detector) -> Array | None:
        """Return the bin edges (k + 1,) along the axis; None for one number a shower and for chosen cells."""
        return axis_edges(self.axis, detector)


_HERE = "caloforge.validate.observables"

OBSERVABLES: Registry[Observable] = Registry(
    "observable",
    {
        "visible_energy": f"{_HERE}.shape:VISIBLE_ENERGY",
        "response": f"{_HERE}.shape:RESPONSE",
        "peak_energy": f"{_HERE}.shape:PEAK_ENERGY",
        "hits": f"{_HERE}.shape:HITS",
        "sparsity": f"{_HERE}.shape:SPARSITY",
        "shower_depth": f"{_HERE}.shape:SHOWER_DEPTH",
        "shower_start": f"{_HERE}.shape:SHOWER_START",
        "depth_90": f"{_HERE}.shape:DEPTH_90",
        "radius_90": f"{_HERE}.shape:RADIUS_90",
        "centre_x": f"{_HERE}.shape:CENTRE_X",
        "centre_y": f"{_HERE}.shape:CENTRE_Y",
        "centre_z": f"{_HERE}.shape:CENTRE_Z",
        "second_moment_x": f"{_HERE}.shape:SECOND_X",
        "second_moment_y": f"{_HERE}.shape:SECOND_Y",
        "second_moment_z": f"{_HERE}.shape:SECOND_Z",
        "third_moment_x": f"{_HERE}.shape:THIRD_X",
        "third_moment_y": f"{_HERE}.shape:THIRD_Y",
        "third_moment_z": f"{_HERE}.shape:THIRD_Z",
        "angle_barycentres": f"{_HERE}.shape:ANGLE_BARYCENTRES",
        "angle_axis": f"{_HERE}.shape:ANGLE_AXIS",
        "core_mean": f"{_HERE}.shape:CORE_MEAN",
        "core_std": f"{_HERE}.shape:CORE_STD",
        "layer_energy": f"{_HERE}.shape:LAYER_ENERGY",
        "layer_fraction": f"{_HERE}.shape:LAYER_FRACTION",
        "layer_sparsity": f"{_HERE}.shape:LAYER_SPARSITY",
        "layer_centre_x": f"{_HERE}.shape:LAYER_CENTRE_X",
        "layer_centre_y": f"{_HERE}.shape:LAYER_CENTRE_Y",
        "layer_centre_r": f"{_HERE}.shape:LAYER_CENTRE_R",
        "layer_width_x": f"{_HERE}.shape:LAYER_WIDTH_X",
        "layer_width_y": f"{_HERE}.shape:LAYER_WIDTH_Y",
        "layer_width_r": f"{_HERE}.shape:LAYER_WIDTH_R",
        "x_profile": f"{_HERE}.shape:X_PROFILE",
        "y_profile": f"{_HERE}.shape:Y_PROFILE",
        "radial_profile": f"{_HERE}.shape:RADIAL_PROFILE",
        "cell_spectrum": f"{_HERE}.spectrum:CELL_SPECTRUM",
        "core_cells": f"{_HERE}.shape:CORE_CELLS",
    },
    group="caloforge.observables",
)
