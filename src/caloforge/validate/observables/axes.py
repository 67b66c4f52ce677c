"""The axes along which a shower's values lie, and the positions of cells.

The axes along which a shower's values lie, and their bins.

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

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer

__all__ = [
    "AXIS_LABELS",
    "SPECTRUM_EDGES",
    "Axis",
    "CellFrame",
    "axis_edges",
    "cell_frame",
    "lateral_edges",
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

_DECADES = (-3, 6)
_PER_DECADE = 20
SPECTRUM_EDGES: NDArray[np.float64] = 10.0 ** (
    _DECADES[0] + np.arange((_DECADES[1] - _DECADES[0]) * _PER_DECADE + 1) / _PER_DECADE
)
"""Edges (181,) of the cell-energy spectrum, MeV."""

_MESH_BINS = 20
_MOST_RINGS = 30


def axis_edges(axis: Axis, detector: Detector) -> NDArray[np.float64] | None:
    """Return the bin edges of an axis; None for "shower" and "cell"."""
    if axis == "layer":
        return np.arange(detector.n_layers + 1, dtype=np.float64) - 0.5
    if axis == "x" or axis == "y":
        return lateral_edges(detector, 0 if axis == "x" else 1)
    if axis == "r":
        return radial_edges(detector)
    return SPECTRUM_EDGES if axis == "energy" else None


def lateral_edges(detector: Detector, coordinate: int) -> NDArray[np.float64]:
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


def radial_edges(detector: Detector) -> NDArray[np.float64]:
    """Return the bins of the distance from the shower axis, mm; the last one is open."""
    rings = [layer for layer in detector.layers if isinstance(layer, CylindricalLayer)]
    if rings:
        finest = max(rings, key=lambda layer: layer.n_r)
        return np.append(np.asarray(finest.r_edges[:-1]), np.inf)
    grids = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
    pitch = float(np.median([min(layer.pitch_x, layer.pitch_y) for layer in grids]))
    reach = (
        min(
            max(layer.nx * layer.pitch_x for layer in grids), max(layer.ny * layer.pitch_y for layer in grids)
        )
        / 2
    )
    n_bins = int(np.clip(round(reach / pitch), 1, _MOST_RINGS))
    return np.append(pitch * np.arange(n_bins), np.inf)


@dataclass(frozen=True, eq=False)
class CellFrame:
    """Arrays over the cells, contiguous.

    Attributes:
        layer: (n_cells,) layer.
        centre: (3, n_cells) nominal x, y, z, mm.
        radius: (n_cells,) own r of a mesh's voxels, mm; None for cells.
    """

    layer: NDArray[np.int64]
    centre: NDArray[np.float64]
    radius: NDArray[np.float64] | None


@lru_cache(maxsize=16)
def cell_frame(detector: Detector) -> CellFrame:
    """Return the frame of a detector."""
    rings = [layer.radii() for layer in detector.layers if isinstance(layer, CylindricalLayer)]
    return CellFrame(
        layer=np.ascontiguousarray(detector.cell_layer),
        centre=np.ascontiguousarray(detector.cell_centres.T),
        radius=np.concatenate(rings) if rings else None,
    )
