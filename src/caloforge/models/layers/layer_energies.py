r"""Total and layer energies of a shower as standardised numbers, and back.

Of a shower with layer energies :math:`E_l` and incident energy E,

.. math:: t = \sum_l E_l / E, \qquad p_l = E_l / \sum_l E_l

are standardised with the mean and width that they have at that incident energy
(:class:`~caloforge.models.layers.energy_scale.EnergyScale`). The way back cuts negative values to zero and makes
the fractions sum to 1, so that a network's output of any size gives energies. The response and the fractions are
apart because the width of the total is many times smaller than that of the layers, whose fluctuations cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.layers.energy_scale import EnergyScale
from caloforge.models.layers.sums import LayerSums

__all__ = ["LayerEnergies"]


class LayerEnergies(nn.Module):
    """Standardised response and layer fractions.

    Arguments:
        detector: The detector; one with a single layer has a response only.

    Attributes:
        size: Numbers a shower: 1 + n_layers, or 1.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.sums = LayerSums(detector)
        self.size = 1 + (detector.n_layers if detector.n_layers > 1 else 0)
        self.scale = EnergyScale(self.size)

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set the constants from training showers: cells (N, n_cells) and incident energies (N,), MeV."""
        self.scale.fit(self._plain(cells, energy), energy)

    def _plain(self, cells: Tensor, energy: Tensor) -> Tensor:
        layers: Tensor = self.sums(cells)
        total = layers.sum(1, keepdim=True)
        fractions = layers / total.clamp_min(1e-20) if self.size > 1 else layers[:, :0]
        return torch.cat([total / energy[:, None], fractions], dim=1)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the numbers (B, size) of cells (B, n_cells) at incident energies (B,), MeV."""
        mean, std = self.scale(energy)
        numbers: Tensor = (self._plain(cells, energy) - mean) / std
        return numbers

    def inverse(self, numbers: Tensor, energy: Tensor) -> Tensor:
        """Return the layer energies (B, n_layers), MeV, that numbers (B, size) stand for."""
        mean, std = self.scale(energy)
        plain = torch.relu(mean + std * numbers)
        total = plain[:, :1] * energy[:, None]
        if self.size == 1:
            return total
        fractions = plain[:, 1:]
        return total * fractions / fractions.sum(1, keepdim=True).clamp_min(1e-20)
