"""Normalisation layer by layer: cells as fractions of their layer's energy, layer energies as columns of their own.

With the cells x_c of layer l(c), E_l = sum of the cells of layer l, and the incident energy E,

    y = [ x_c / E_l(c),  E_l / E ],

n_cells + n_layers columns. :class:`~caloforge.showers.transforms.LayerRatios` turns the last ones into the ratios
that CaloFlow and CaloDREAM learn.

References:
    L. Favaro et al., CaloDREAM - Detector Response Emulation via Attentive flow Matching (2024),
    arXiv:2405.09629.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.showers.transforms.base import Transform, energy_column
from caloforge.showers.transforms.layer_index import LayerIndex
from caloforge.showers.transforms.total_normalise import fractions_of, or_one

__all__ = ["LayerNormalise"]


class LayerNormalise(Transform):
    """Fractions of layer energies, and layer energies: (B, n_cells) to (B, n_cells + n_layers).

    The inverse brings each layer's cells to unit sum first, so that its energy is what its column says.
    Layers without energy have all cells zero.

    Arguments:
        detector: The detector.
    """

    name: ClassVar[str] = "layer-normalise"

    def __init__(self, detector: Detector, /) -> None:
        super().__init__()
        self.layers = LayerIndex(detector)

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the detector."""
        return (detector,)

    def features(self, n: int) -> int:
        """Return a column more for each layer."""
        return n + self.layers.n_layers

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Normalise rows (B, n_cells), MeV."""
        sums = self.layers.sums(x)
        cells = x / self.layers.spread(or_one(sums))
        return torch.cat([cells, sums / energy_column(energy, self.name)], dim=-1)

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo it on rows (B, n_cells + n_layers)."""
        cells = fractions_of(y[:, : self.layers.n_cells])
        energies = y[:, self.layers.n_cells :] * energy_column(energy, self.name)
        return cells * self.layers.spread(energies / or_one(self.layers.sums(cells)))
