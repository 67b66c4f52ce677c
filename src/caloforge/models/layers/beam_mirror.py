"""Mirror showers in x at the plane of the beam, also where that is the middle of a cell.

A beam onto the centre of cell 15 of 30 maps cell i to 30 - i, so that cell 0 has no partner; it stays. That is not exact, but at the
edge there is next to no energy. Detectors with more than one cell without partner are not mirrored.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer

__all__ = ["BeamMirror"]

_MOST_ALONE = 1


class BeamMirror(nn.Module):
    """Mirror a grid in x.

    Arguments:
        detector: A grid.

    Attributes:
        holds: Whether the mirror is a symmetry of the detector with its beam.
    """

    order: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layer = next(layer for layer in detector.layers if isinstance(layer, ReadoutLayer))
        twice = 2.0 * (detector.beam.x - layer.x[0]) / layer.pitch_x
        image = np.round(twice).astype(int) - np.arange(layer.nx)
        alone = (image < 0) | (image >= layer.nx)
        exact = abs(twice - round(twice)) < 1e-3
        self.holds = bool(exact and alone.sum() <= _MOST_ALONE and detector.beam.spread_x == 0.0)
        order = np.where(alone, np.arange(layer.nx), image)
        self.register_buffer("order", torch.from_numpy(order), persistent=False)

    def forward(self, grid: Tensor) -> Tensor:
        """Return the mirrored grid (B, X, Y, L)."""
        return grid[:, self.order]
