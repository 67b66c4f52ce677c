"""The two lateral axes of each layer and their bins.

A rectangular layer has x (eta) and y (phi), one bin a column or row. Where a layer's cells move with an alignment
of the shower, the bins are as narrow as the steps of the alignment, at rest in the frame of the beam: a
cell's energy is shared equally among the bins that it covers. A polar mesh has alpha and r, one bin each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer

__all__ = ["LayerAxis", "layer_axes"]

_ROUND = 6  # decimals of a mm to which shifts are told apart


@dataclass(frozen=True, eq=False)
class LayerAxis:
    """One lateral axis of one layer.

    Attributes:
        layer: Number of the layer.
        name: "x", "y", "alpha" or "r".
        unit: "mm" or "rad".
        edges: (k + 1,) bin edges.
        shape: Cells of the layer along its first and second axis.
        summed: Which of the two is summed over.
        parts: Bins that a cell covers.
        lowest: Smallest shift of the cells, mm.
        step: Width of a bin where cells move, mm; 0 where they do not.
    """

    layer: int
    name: str
    unit: str
    edges: NDArray[np.float64]
    shape: tuple[int, int]
    summed: int
    parts: int = 1
    lowest: float = 0.0
    step: float = 0.0

    @property
    def coordinate(self) -> int:
        """0 along the layer's first axis, 1 along its second."""
        return 1 - self.summed

    def profile(
        self, cells: NDArray[np.floating], shift: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return the energy of each shower in each bin (N, k).

        Arguments:
            cells: (N, cells of the layer) energies in the layer's own order.
            shift: (N,) by how much the cells of each shower moved, mm; None where they do not.
        """
        n = len(cells)
        columns: NDArray[np.float64] = np.asarray(
            cells.reshape(n, *self.shape).sum(axis=1 + self.summed, dtype=np.float64)
        )
        if self.step == 0.0 or shift is None:
            return columns
        shared = np.repeat(columns / self.parts, self.parts, axis=1)
        first = np.round((shift - self.lowest) / self.step).astype(np.int64)
        out = np.zeros((n, len(self.edges) - 1))
        for start in np.unique(first):
            rows = first == start
            out[rows, start : start + shared.shape[1]] = shared[rows]
        return out


@lru_cache(maxsize=16)
def layer_axes(detector: Detector) -> tuple[LayerAxis, ...]:
    """Return both lateral axes of every layer, layer by layer."""
    shifts = _possible_shifts(detector)
    axes: list[LayerAxis] = []
    for index, layer in enumerate(detector.layers):
        if isinstance(layer, CylindricalLayer):
            shape = (layer.n_alpha, layer.n_r)
            alpha = np.linspace(-np.pi, np.pi, layer.n_alpha + 1)
            axes.append(LayerAxis(index, "alpha", "rad", alpha, shape, 1))
            axes.append(LayerAxis(index, "r", "mm", np.asarray(layer.r_edges, np.float64), shape, 0))
            continue
        for coordinate in (0, 1):
            values = np.zeros(1) if shifts is None else shifts[:, index, coordinate]
            axes.append(_rectangular(index, layer, coordinate, values))
    return tuple(axes)


def _possible_shifts(detector: Detector) -> NDArray[np.float64] | None:
    """Return the cells' offsets for every combination of the alignments (M, n_layers, 2), mm."""
    alignments = detector.beam.alignments
    if detector.readout is None or not alignments:
        return None
    grids = np.meshgrid(*[np.arange(count) for _, count in alignments], indexing="ij")
    conditions = {name: grid.reshape(-1, 1) for (name, _), grid in zip(alignments, grids, strict=True)}
    return detector.layer_shift(conditions)


def _rectangular(index: int, layer: ReadoutLayer, coordinate: int, shifts: NDArray[np.float64]) -> LayerAxis:
    n, pitch = ((layer.nx, layer.pitch_x), (layer.ny, layer.pitch_y))[coordinate]
    first = float((layer.x, layer.y)[coordinate][0]) - pitch / 2
    shape, name, summed = (layer.nx, layer.ny), "xy"[coordinate], 1 - coordinate
    values = np.unique(np.round(shifts, _ROUND))
    if len(values) == 1:
        edges = first + float(values[0]) + pitch * np.arange(n + 1, dtype=np.float64)
        return LayerAxis(index, name, "mm", edges, shape, summed)
    parts = max(1, round(pitch / float(np.diff(values).min())))
    step = pitch / parts
    bins = n * parts + round(float(np.ptp(values)) / step)
    edges = first + float(values[0]) + step * np.arange(bins + 1, dtype=np.float64)
    return LayerAxis(index, name, "mm", edges, shape, summed, parts, float(values[0]), step)
