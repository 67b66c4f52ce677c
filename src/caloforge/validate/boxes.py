"""The hit cells of one shower as solid boxes in space, for event displays.

A rectangular cell is a box of its pitches; a polar voxel is a wedge, cut into several when it spans a wide
angle. Along z a box has the length of its layer's active slabs, and at least 0.6 of the distance to the
next layer, so that thin silicon can be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.geometry.layers import CylindricalLayer
from caloforge.showers import Showers

__all__ = ["FACES", "HitBoxes", "hit_boxes", "layer_extents"]

# Corners of a box count in binary: bit 2 is the first axis, bit 1 the second, bit 0 along z.
FACES = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]], dtype=np.int64
)
_WEDGES = 16  # a full ring is drawn with this many
_FILL = 0.6


@dataclass(frozen=True)
class HitBoxes:
    """Boxes of one shower's hits, the most energetic last.

    Attributes:
        corners: (B, 8, 3) mm, as (x, y, z).
        energy: (B,) MeV of the cell that a box belongs to.
        centres: (H, 3) mm of the hit cells.
        hits: (H,) MeV of the hit cells.
        layers: (H,) their layers.
        hidden: Hits above the threshold that were left out to keep the drawing small.
        hidden_energy: Their energy, MeV.
    """

    corners: NDArray[np.float64]
    energy: NDArray[np.float64]
    centres: NDArray[np.float64]
    hits: NDArray[np.float64]
    layers: NDArray[np.int64]
    hidden: int
    hidden_energy: float


def layer_extents(detector: Detector) -> NDArray[np.float64]:
    """Return where each layer's boxes begin and end along z, (n_layers, 2) mm."""
    z = np.array([layer.z for layer in detector.layers])
    gap = np.abs(np.diff(z))
    near = np.full(len(z), 1.0)
    if len(gap):
        near = np.minimum(np.append(gap, np.inf), np.insert(gap, 0, np.inf))
    low, high = z - _FILL * near / 2, z + _FILL * near / 2
    for slab in detector.stack:
        if slab.active:
            low[slab.layer] = min(low[slab.layer], slab.z)
            high[slab.layer] = max(high[slab.layer], slab.z + slab.thickness)
    return np.stack([low, high], axis=1)


def hit_boxes(shower: Showers, threshold: float = 0.1, most: int = 4000) -> HitBoxes:
    """Return the boxes of one shower's hits.

    Arguments:
        shower: One shower.
        threshold: A cell with more energy than this is a hit, MeV.
        most: Most hits drawn; the least energetic ones are left out and counted.

    Raises:
        InputError: When it is not exactly one shower.
    """
    if len(shower) != 1:
        msg = f"an event display shows one shower, not {len(shower)}"
        raise InputError(msg)
    detector = shower.detector
    energy = np.asarray(shower.cells[0], np.float64)
    cells = np.flatnonzero(energy > threshold)
    cells = cells[np.argsort(energy[cells], kind="stable")]
    dropped = cells[: max(0, len(cells) - most)]
    cells = cells[len(dropped) :]
    layers = detector.cell_layer[cells]
    shift = detector.layer_shift(shower.conditions)
    offset = np.zeros((len(cells), 2)) if shift is None else shift[0][layers]
    centres = detector.cell_centres[cells].copy()
    centres[:, :2] += offset
    corners, owner = _corners(detector, cells)
    corners[:, :, :2] += offset[owner][:, None, :]
    order = np.argsort(owner, kind="stable")
    return HitBoxes(
        corners=corners[order],
        energy=energy[cells][owner[order]],
        centres=centres,
        hits=energy[cells],
        layers=layers,
        hidden=len(dropped),
        hidden_energy=float(energy[dropped].sum()),
    )


def _corners(detector: Detector, cells: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the corners (B, 8, 3) and, for each box, the position (B,) in ``cells`` of its cell."""
    extents = layer_extents(detector)
    position = np.empty(detector.n_cells, np.int64)
    for members in detector.layer_cells:
        position[members] = np.arange(len(members))
    boxes, owners = [], []
    for number, layer in enumerate(detector.layers):
        owner = np.flatnonzero(detector.cell_layer[cells] == number)
        extent = layer.boxes()[position[cells[owner]]]
        if isinstance(layer, CylindricalLayer):
            pieces = -(-_WEDGES // layer.n_alpha)
            steps = np.arange(pieces) / pieces
            width = (extent[:, 1] - extent[:, 0])[:, None]
            low = (extent[:, :1] + width * steps).ravel()
            extent, owner = np.repeat(extent, pieces, axis=0), np.repeat(owner, pieces)
            extent[:, 0], extent[:, 1] = low, low + width.repeat(pieces, axis=1).ravel() / pieces
        boxes.append(_box(extent, extents[number], isinstance(layer, CylindricalLayer)))
        owners.append(owner)
    return np.concatenate(boxes), np.concatenate(owners)


def _box(extent: NDArray[np.float64], z: NDArray[np.float64], polar: bool) -> NDArray[np.float64]:
    """Return the corners (B, 8, 3) of boxes with extents (B, 4) in x, y or, when polar, alpha, r."""
    corners = np.empty((len(extent), 8, 3))
    for bit in range(8):
        first, second = extent[:, bit >> 2], extent[:, 2 + (bit >> 1 & 1)]
        corners[:, bit, 0] = second * np.cos(first) if polar else first
        corners[:, bit, 1] = second * np.sin(first) if polar else second
        corners[:, bit, 2] = z[bit & 1]
    return corners
