"""From a network's numbers to cells, and from cells to what a critic sees, for any detector.

``Plain*`` work on cell energies over E as ATL-SOFT-PUB-2018-001 does. ``Layered*`` first make the response and the
layer fractions and then the shape of each layer, and show the critic the same quantities at unit width, so that
what is small in energy is not small to the critic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.layers.energy_scale import EnergyScale
from caloforge.models.layers.layer_energies import LayerEnergies

__all__ = ["CELL_NETWORKS", "CellNetworks", "LayeredNetworks", "PlainNetworks"]

_REACH = 6.0
"""Standard deviations above its mean that a cell can reach before its layer is scaled."""
_LEAK = 1e-4
"""Largest part of a cell's reach that a cell which would be empty is given."""
_EMPHASIS = 4.0
"""Factor on response and fractions in the critic's view: they are few beside the cells, and matter most."""
_HIT = 0.1
"""Energy below which a cell is noise, MeV; the scale of the critic's logarithm."""


class CellNetworks(nn.Module, ABC):
    """How numbers become cells, and how cells are shown to a critic.

    Attributes:
        width: Numbers a shower of the critic's view.
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

        ``dense`` leaves small energies in cells that would be empty, the larger the less empty they are.
        """

    def cut(self, numbers: Tensor, dense: bool) -> Tensor:
        """Return the output of the network's numbers (B, n_cells), with a small rising part on top where ``dense``."""
        made: Tensor = self.output(numbers)
        return made + _LEAK * torch.sigmoid(numbers) if dense else made

    @abstractmethod
    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return what the critic sees (B, width)."""


class PlainNetworks(CellNetworks):
    """Cells over visible energy from one network; the critic sees the same.

    The visible energy is E times the detector's sampling fraction, so that the cells of a shower sum to about 1.

    Arguments:
        detector: The detector.
        build: Makes the network that gives so many numbers a shower.
        output: What cuts its numbers to zero: a sparse sigmoid or a ReLU.
    """

    def __init__(self, detector: Detector, build: Callable[[int], nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.sampling_fraction = detector.sampling_fraction
        self.width, self.extras = detector.n_cells, 0
        self.net, self.output = build(detector.n_cells), output

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Do nothing: there are no constants."""

    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        return self.cut(self.net(inputs), dense) * (energy * self.sampling_fraction)[:, None]

    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return cells over visible energy."""
        return cells / (energy * self.sampling_fraction)[:, None]


class LayeredNetworks(CellNetworks):
    r"""Layer energies and shapes from one network with two heads.

    With f the output and :math:`c_i(E)` mean + 6 standard deviations of cell i over E,

    .. math:: e_i = E_{l(i)} \frac{c_i f(a_i)}{\sum_{j \in l(i)} c_j f(a_j)}

    The critic sees 4 times the standardised response and layer fractions, (e_i/E - mean) / std of each cell, and
    ln(1 + e_i / 0.1 MeV) / 4, which tells hits from noise.

    Arguments:
        detector: The detector.
        build: Makes the network that gives so many numbers a shower.
        output: What cuts its numbers to zero: a sparse sigmoid or a ReLU.
    """

    def __init__(self, detector: Detector, build: Callable[[int], nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.energies = LayerEnergies(detector)
        self.cells = EnergyScale(detector.n_cells, floor=1e-5)
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
