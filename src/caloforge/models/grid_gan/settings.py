"""Settings of the GANs on grids, how conditions enter the latent vector, and initial weights.

How a condition enters the latent vector of a generator on a grid, and what the energy head is to find.

Published (arXiv:1912.06794 and 2109.07388): with the energy alone, all latent numbers are multiplied by E / 100 GeV; with an
angle the vector is [E / 100 GeV, theta in radians, normal numbers]. The energy head finds E / 100 GeV with
the error in per cent.

Standardised: the vector is [encoded conditions, normal numbers] for one condition and for two. At 2 GeV the
published factor leaves 2 % of the noise, so that all showers of low energy are alike, and an error in per cent is decided by
the few showers of lowest energy; here the noise is the same at all energies and the head finds the standardised ln E with the
absolute error.

The initial weights of the library that the published networks on grids were written in.

Weights are uniform within sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010) and biases 0. The zeros matter where
the latent vector is multiplied by the incident energy: with random biases an untrained generator makes the same
shower, often an empty one, at all low energies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.models.nn.adversarial import percentage_error
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = ["CONDITIONINGS", "GridGanConfig", "HeadWeights", "PublishedLatent", "StandardisedLatent", "glorot"]


class HeadWeights(Settings):
    """Weights of the losses of the heads; the last two are the generator's alone."""

    real: Annotated[float, Field(gt=0)] = 1.0
    energy: Annotated[float, Field(ge=0)] = 0.0
    angle: Annotated[float, Field(ge=0)] = 0.0
    total: Annotated[float, Field(ge=0)] = 0.0


class GridGanConfig(ModelConfig):
    """Settings of a generator on a grid.

    Arguments:
        epochs: Passes over the training showers.
        batch_size: Showers a step.
        generator: Optimiser of the generator.
        discriminator: Optimiser of the discriminator.
        cells: What the networks work on, see :mod:`~caloforge.models.grid_gan.discriminator`.
        cell_unit: MeV.
        cell_power: Power of ``cells = "power"``.
        latent: How conditions enter, see :mod:`~caloforge.models.grid_gan.settings`.
        loss: See :mod:`~caloforge.models.nn.adversarial`.
        weights: Weights of the heads.
        real_label: Label of real showers for the discriminator.
        flips: Part of the discriminator's labels that are wrong on purpose.
        separate: Update the discriminator once with real and once with generated showers.
        generator_steps: Steps of the generator for each of the discriminator.
        r1: Weight of the penalty R1 (half the squared gradient); 0 for none.
        r1_every: Steps between two penalties, which are then that much larger.
        norm: Of the discriminator: batch norm or spectral norm.
        dropout: Of the discriminator, and of the 2-D generator.
        informed: Show the discriminator more than the cells.
        rescale: Draw the visible energy from the fitted distribution.
        symmetries: Use the symmetries of the training showers.
        mean_epochs: First epochs in which the generator alone learns, the mean shower at given conditions.
        linear_epochs: First epochs in which the generator's output is not rectified.
        calibrate: After training, carry layers, rings and core cells to the means and widths of the training showers'.
    """

    epochs: Annotated[int, Field(ge=1)] = 600
    batch_size: Annotated[int, Field(ge=2)] = 64
    generator: OptimizerSettings = OptimizerSettings(
        lr=5e-4, betas=(0.0, 0.99), schedule="cosine", final=0.05, warmup=100, ema=0.999
    )
    discriminator: OptimizerSettings = OptimizerSettings(
        lr=5e-4, betas=(0.0, 0.99), schedule="cosine", final=0.05, warmup=100
    )
    cells: Literal["power", "log"] = "log"
    cell_unit: Annotated[float, Field(gt=0)] = 0.2
    cell_power: Annotated[float, Field(gt=0, le=1)] = 1.0
    latent: Literal["published", "standardised"] = "standardised"
    loss: Literal["bce", "hinge"] = "bce"
    weights: HeadWeights = HeadWeights(real=1.0, energy=0.1)
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    flips: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    separate: bool = False
    generator_steps: Annotated[int, Field(ge=1)] = 1
    r1: Annotated[float, Field(ge=0)] = 0.1
    r1_every: Annotated[int, Field(ge=1)] = 4
    norm: Literal["batch", "spectral"] = "spectral"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    informed: bool = True
    rescale: bool = True
    symmetries: bool = True
    mean_epochs: Annotated[int, Field(ge=0)] = 0
    linear_epochs: Annotated[int, Field(ge=0)] = 0
    calibrate: bool = True


_HUNDRED_GEV = 1e5


class PublishedLatent(nn.Module):
    """Latent vectors as published.

    Arguments:
        size: Length of the latent vector.
        encoder: Encoder of the conditions, unused here.
        energy: Column of the incident energy in the condition matrix.
        theta: Column of the angle, or None.
    """

    def __init__(self, size: int, encoder: ConditionEncoder, energy: int, theta: int | None) -> None:
        super().__init__()
        self.energy, self.theta = energy, theta
        self.n_normals = size if theta is None else size - 2

    def forward(self, normals: Tensor, conditions: Tensor) -> Tensor:
        """Return latent vectors (B, size) of normals (B, n_normals) and conditions (B, C) in raw units."""
        energy = conditions[:, self.energy, None] / _HUNDRED_GEV
        if self.theta is None:
            return normals * energy
        return torch.cat([energy, torch.deg2rad(conditions[:, self.theta, None]), normals], 1)

    def energy_error(self, found: Tensor, conditions: Tensor) -> Tensor:
        """Return the error of the energy head (B,), per cent."""
        return percentage_error(found, conditions[:, self.energy] / _HUNDRED_GEV)


class StandardisedLatent(nn.Module):
    """Latent vectors that begin with the standardised conditions; arguments as above."""

    def __init__(self, size: int, encoder: ConditionEncoder, energy: int, theta: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.index = encoder.continuous.index(energy)
        self.n_normals = size - encoder.width

    def forward(self, normals: Tensor, conditions: Tensor) -> Tensor:
        """Return latent vectors (B, size) of normals (B, n_normals) and conditions (B, C) in raw units."""
        return torch.cat([self.encoder(conditions), normals], 1)

    def energy_error(self, found: Tensor, conditions: Tensor) -> Tensor:
        """Return the mean absolute error of the energy head (B,), standard deviations of ln E."""
        target: Tensor = self.encoder(conditions)[:, self.index]
        return (found - target).abs().mean()


CONDITIONINGS: Mapping[str, type[PublishedLatent] | type[StandardisedLatent]] = {
    "published": PublishedLatent,
    "standardised": StandardisedLatent,
}
"""Name to the module that makes latent vectors."""


def glorot(module: nn.Module) -> None:
    """Draw the weights of all linear and convolutional parts anew, and set their biases to 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
