r"""Layer energies and cells as outputs of a network, for any detector, and the view of them for a critic.

``LayerEnergies`` standardises the response and the layer fractions. With the layer energies :math:`E_l` and the incident energy E,

.. math:: t = \sum_l E_l / E, \qquad p_l = E_l / \sum_l E_l

get the mean and width that they have in the training showers at that incident energy. The inverse sets negative values to zero and
normalises the fractions, so that any output of a network is a set of layer energies. Response and fractions are separate because the width of
the total is many times smaller than that of the layers, whose fluctuations cancel.

``PlainNetworks`` generate cell energies over E, as ATL-SOFT-PUB-2018-001. ``LayeredNetworks`` generate response, layer fractions and
the shape of each layer, and show the critic the same quantities at unit width, so that small energies count, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.moments import EnergyMoments
from caloforge.models.nn.layer_sums import LayerSums

__all__ = ["CELL_NETWORKS", "CellNetworks", "LayerEnergies", "LayeredNetworks", "PlainNetworks"]


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
        self.scale = EnergyMoments(self.size)

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set the constants from training showers: cells (N, n_cells) and incident energies (N,), MeV."""
        self.scale.fit(self._plain(cells, energy), energy)

    def _plain(self, cells: Tensor, energy: Tensor) -> Tensor:
        layers: Tensor = self.sums(cells)
        total = layers.sum(1, keepdim=True)
        fractions = layers / total.clamp_min(1e-20) if self.size > 1 else layers[:, :0]
        return torch.cat([total / energy[:, None], fractions], dim=1)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the standardised numbers (B, size) of cells (B, n_cells) at incident energies (B,), MeV."""
        mean, std = self.scale(energy)
        numbers: Tensor = (self._plain(cells, energy) - mean) / std
        return numbers

    def inverse(self, numbers: Tensor, energy: Tensor) -> Tensor:
        """Return the layer energies (B, n_layers), MeV, of standardised numbers (B, size)."""
        mean, std = self.scale(energy)
        plain = torch.relu(mean + std * numbers)
        total = plain[:, :1] * energy[:, None]
        if self.size == 1:
            return total
        fractions = plain[:, 1:]
        return total * fractions / fractions.sum(1, keepdim=True).clamp_min(1e-20)


_REACH = 6.0
"""Standard deviations above its mean that a cell can reach before its layer is scaled."""
_LEAK = 1e-4
"""Largest energy of a cell that would be empty, in units of its reach."""
_EMPHASIS = 4.0
"""Weight of response and fractions in the critic's view: they are few beside the cells, and matter most."""
_HIT = 0.1
"""Energy below which a cell is noise, MeV; the scale of the critic's logarithm."""


class CellNetworks(nn.Module, ABC):
    """From a network's outputs to cells, and from cells to the critic's inputs.

    Arguments of all kinds: the detector; ``build``, a function that makes the network with so many outputs; ``output``, a module
    whose result is zero for negative numbers, a sparse sigmoid or a ReLU.

    Attributes:
        width: Inputs a shower of the critic.
        extras: How many of them, the first, are not cell by cell; the rest are maps of n_cells each.
    """

    width: int
    extras: int
    output: nn.Module

    @abstractmethod
    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set constants from training showers: cells (N, n_cells) and incident energies (N,), MeV."""

    @abstractmethod
    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV, for the network's input (B, k).

        ``dense`` leaves small energies in cells that would be empty, which rise with the network's output.
        """

    def cut(self, numbers: Tensor, dense: bool) -> Tensor:
        """Return the output for the network's numbers (B, n_cells), never exactly zero if ``dense``."""
        result: Tensor = self.output(numbers)
        return result + _LEAK * torch.sigmoid(numbers) if dense else result

    @abstractmethod
    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the critic's inputs (B, width)."""


class PlainNetworks(CellNetworks):
    """Cells over expected visible energy, E times the sampling fraction, from one network; the critic sees the same."""

    def __init__(self, detector: Detector, build: Callable[[int], nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.sampling_fraction = detector.sampling_fraction
        self.width, self.extras = detector.n_cells, 0
        self.net, self.output = build(detector.n_cells), output

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Do nothing; there are no constants."""

    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        return self.cut(self.net(inputs), dense) * (energy * self.sampling_fraction)[:, None]

    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return cells over expected visible energy."""
        return cells / (energy * self.sampling_fraction)[:, None]


class LayeredNetworks(CellNetworks):
    r"""Layer energies and shapes from one network with two heads.

    With f the output and :math:`c_i(E)` mean + 6 standard deviations of cell i over E,

    .. math:: e_i = E_{l(i)} \frac{c_i f(a_i)}{\sum_{j \in l(i)} c_j f(a_j)}

    The critic sees 4 times the standardised response and layer fractions, (e_i/E - mean) / std of each cell, and
    ln(1 + e_i / 0.1 MeV) / 4, which separates hits from noise.
    """

    def __init__(self, detector: Detector, build: Callable[[int], nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.energies = LayerEnergies(detector)
        self.cells = EnergyMoments(detector.n_cells, floor=1e-5)
        self.width, self.extras = self.energies.size + 2 * detector.n_cells, self.energies.size
        self.net, self.output = build(self.energies.size + detector.n_cells), output

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set means and widths."""
        self.energies.fit(cells, energy)
        self.cells.fit(cells / energy[:, None], energy)

    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        out = self.net(inputs)
        layers = self.energies.inverse(out[:, : self.energies.size], energy)
        mean, std = self.cells(energy)
        shape = self.cut(out[:, self.energies.size :], dense) * (mean + _REACH * std)
        return self.energies.sums.normalise(shape, layers)

    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return standardised energies and cells, and the cells' logarithms."""
        mean, std = self.cells(energy)
        linear = (cells / energy[:, None] - mean) / std
        energies = _EMPHASIS * self.energies(cells, energy)
        return torch.cat([energies, linear, torch.log1p(cells / _HIT) / 4.0], dim=1)


CELL_NETWORKS: dict[str, type[PlainNetworks] | type[LayeredNetworks]] = {
    "plain": PlainNetworks,
    "layered": LayeredNetworks,
}
"""Names in settings to classes."""
