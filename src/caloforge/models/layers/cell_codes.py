r"""Showers as vectors that an autoencoder learns, and back: two codes behind one interface.

``FractionCode``, as in ATL-SOFT-PUB-2018-001: the cells over the incident energy, here over E times the sampling
fraction, since visible energies are stored; the decoder's output passes a sigmoid. Loss: squared error, plus the weighted
squared differences of the total and of the layer fractions.

``LayerCode``: first the response and the layer fractions (:class:`~caloforge.models.layers.layer_energies.LayerEnergies`),
then each cell on a logarithmic scale,

.. math:: u_i = \ln(E_i / c) \quad (E_i > c), \qquad u_i = -\epsilon_i \quad (E_i \le c)

with an exponential :math:`\epsilon` of mean 1, so that empty cells are the negative side of one continuous variable;
all at unit width at each energy. The decoder gives mean and width of every number, the loss is minus the logarithm of
that normal density. On the way back cells with u <= 0 are empty and each layer is scaled to its energy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.layers.energy_scale import EnergyScale
from caloforge.models.layers.layer_energies import LayerEnergies
from caloforge.models.layers.sums import LayerSums

__all__ = ["CODES", "FractionCode", "LayerCode", "ShowerCode"]


class ShowerCode(nn.Module, ABC):
    """A code of showers.

    Attributes:
        size: Numbers a shower.
        outputs: Numbers that the decoder gives.
        noise: Normal numbers that the way back takes.
    """

    size: int
    outputs: int
    noise: int

    @abstractmethod
    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set the constants from training showers: cells (N, n_cells) and incident energies (N,), MeV."""

    @abstractmethod
    def encode(self, cells: Tensor, energy: Tensor, uniform: Tensor) -> Tensor:
        """Return codes (B, size); ``uniform`` (B, n_cells) are uniform numbers in [0, 1)."""

    @abstractmethod
    def decode(self, output: Tensor, energy: Tensor, noise: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV, of a decoder's output (B, outputs) and noise (B, noise).

        ``dense`` leaves small energies in cells that would be empty, the larger the less empty they are.
        """

    @abstractmethod
    def losses(self, output: Tensor, code: Tensor) -> dict[str, Tensor]:
        """Return the terms of the reconstruction, already weighted."""


class FractionCode(ShowerCode):
    """Cells over the mean visible energy."""

    TOTAL: ClassVar[float] = 1e-2
    LAYERS: ClassVar[tuple[float, ...]] = (8e-2, 6e-1, 2e-1)

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.size = self.outputs = detector.n_cells
        self.noise = 0
        self.scale = detector.sampling_fraction
        self.sums = LayerSums(detector)
        weights = [self.LAYERS[min(layer, len(self.LAYERS) - 1)] for layer in range(detector.n_layers)]
        self.register_buffer("weights", torch.tensor(weights))

    weights: Tensor

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Nothing follows from the data."""

    def encode(self, cells: Tensor, energy: Tensor, uniform: Tensor) -> Tensor:
        """Return the cells over E times the sampling fraction."""
        return cells / (self.scale * energy[:, None])

    def decode(self, output: Tensor, energy: Tensor, noise: Tensor, dense: bool = False) -> Tensor:
        """Return the cells that the sigmoid gives."""
        return torch.sigmoid(output) * self.scale * energy[:, None]

    def losses(self, output: Tensor, code: Tensor) -> dict[str, Tensor]:
        """Return squared errors of cells, total and layer fractions."""
        made = torch.sigmoid(output)
        layers, truth = self.sums(made), self.sums(code)
        total, true_total = layers.sum(1, keepdim=True), truth.sum(1, keepdim=True)
        fractions = (layers / total.clamp_min(1e-9) - truth / true_total.clamp_min(1e-9)).square()
        return {
            "reconstruction": (made - code).square().sum(1).mean(),
            "total": self.TOTAL * (total - true_total).square().mean(),
            "layers": (self.weights * fractions).sum(1).mean(),
        }


class LayerCode(ShowerCode):
    """Response and layer fractions, then cells on a logarithmic scale; see the module.

    Arguments:
        detector: The detector.
        cut: The energy c below which a cell counts as empty, MeV.
    """

    top: Tensor

    def __init__(self, detector: Detector, cut: float = 0.02) -> None:
        super().__init__()
        self.layers = LayerEnergies(detector)
        self.cut = cut
        self.size = self.layers.size + detector.n_cells
        self.outputs = 2 * self.size
        self.noise = self.size
        self.scale = EnergyScale(detector.n_cells, floor=1e-3)
        self.register_buffer("top", torch.zeros(detector.n_cells))

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set the scales; the dequantisation uses the exponential's mean here."""
        self.layers.fit(cells, energy)
        generator = torch.Generator().manual_seed(0)
        u = self._logarithm(cells, torch.rand(cells.shape, generator=generator))
        self.scale.fit(u, energy)
        self.top.copy_(u.amax(0))

    def _logarithm(self, cells: Tensor, uniform: Tensor) -> Tensor:
        empty = torch.log1p(-uniform)
        return torch.where(cells > self.cut, torch.log(cells.clamp_min(self.cut) / self.cut), empty)

    def encode(self, cells: Tensor, energy: Tensor, uniform: Tensor) -> Tensor:
        """Return the standardised numbers of the module."""
        mean, std = self.scale(energy)
        return torch.cat([self.layers(cells, energy), (self._logarithm(cells, uniform) - mean) / std], 1)

    def decode(self, output: Tensor, energy: Tensor, noise: Tensor, dense: bool = False) -> Tensor:
        """Draw every number with its mean and width, then go back to cells."""
        mean, width = self._density(output)
        code = mean + width * noise
        k = self.layers.size
        energies = self.layers.inverse(code[:, :k], energy)
        centre, std = self.scale(energy)
        u = torch.minimum(centre + std * code[:, k:], self.top)
        cells = self.cut * torch.exp(u)
        if not dense:
            cells = torch.where(u > 0, cells, torch.zeros_like(u))
        return self.layers.sums.normalise(cells, energies)

    def _density(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_width = output.chunk(2, dim=1)
        return mean, torch.exp(log_width.clamp(-5.0, 1.0))

    def losses(self, output: Tensor, code: Tensor) -> dict[str, Tensor]:
        """Return minus the logarithm of the normal density of layers and of cells."""
        mean, width = self._density(output)
        surprise = 0.5 * ((code - mean) / width).square() + torch.log(width)
        k = self.layers.size
        return {"layers": surprise[:, :k].sum(1).mean(), "cells": surprise[:, k:].sum(1).mean()}


CODES: dict[str, type[FractionCode] | type[LayerCode]] = {"fractions": FractionCode, "layers": LayerCode}
