"""Scale the cells of some layers: y = s x for the layers first to last.

The BIB-AE scales the layers behind the thicker absorber, 20 to 29 of the ILD calorimeter, by 2.03.

References:
    S. Diefenbacher et al., New Angles on Fast Calorimeter Shower Simulation (2023), arXiv:2303.18150.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.showers.transforms.base import Transform

__all__ = ["LayerRescale"]


class LayerRescale(Transform):
    """Scale the cells of some layers; columns behind the cells stay as they are.

    Arguments:
        detector: The detector.
        width: Number of columns.
        first: First layer, counted from 0.
        last: Last layer, included.
        factor: s, above 0.
    """

    name: ClassVar[str] = "layer-rescale"
    factors: Tensor

    def __init__(self, detector: Detector, width: int, /, *, first: int, last: int, factor: float) -> None:
        super().__init__(first=first, last=last, factor=factor)
        self.require(0 <= first < detector.n_layers, "first", f"a layer from 0 to {detector.n_layers - 1}")
        self.require(
            first <= last < detector.n_layers, "last", f"a layer from {first} to {detector.n_layers - 1}"
        )
        self.require(0 < factor < float("inf"), "factor", "a number above 0")
        layer = torch.from_numpy(detector.cell_layer.copy())
        factors = torch.ones(width)
        factors[: detector.n_cells][(layer >= first) & (layer <= last)] = float(factor)
        # It follows from the options and the detector; stored, it would be as large as a shower.
        self.constant("factors", factors, persistent=False)

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the detector and the number of columns."""
        return detector, width

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Scale rows (B, n)."""
        return x * self.factors

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo it on rows (B, n)."""
        return y / self.factors
