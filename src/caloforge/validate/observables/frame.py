"""Positions of a detector's cells in the form that the batch looks up, made once a detector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import CylindricalLayer, Detector

__all__ = ["CellFrame", "cell_frame"]


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
