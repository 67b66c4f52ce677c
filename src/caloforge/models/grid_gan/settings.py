r"""Settings of the GANs on grids, and how conditions enter the latent vector.

``published`` (arXiv:1912.06794 and 2109.07388): with the energy alone all latent numbers are multiplied by E / 100 GeV; with an
angle the vector is [E / 100 GeV, theta in radians, normal numbers]. The energy head predicts E / 100 GeV, its error is in per cent.

``standardised``: the vector is [encoded conditions, normal numbers]. At 2 GeV the published factor leaves 2 % of the noise, so that
all showers of low energy are alike, and an error in per cent is dominated by the few showers of lowest energy; here the noise
is the same at all energies and the head predicts the standardised ln E with the absolute error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.models.calibration.monotone import MonotoneMap, normal_levels, quantiles
from caloforge.models.calibration.regression import Polynomial, least_squares
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = [
    "CONDITIONINGS",
    "PUBLISHED",
    "GridGanConfig",
    "HeadWeights",
    "PublishedLatent",
    "StandardisedLatent",
    "VisibleEnergy",
    "percentage_error",
]

_HUNDRED_GEV = 1e5


class HeadWeights(Settings):
    """Weights of the losses of the heads; ``angle`` and ``total`` are the generator's alone."""

    real: Annotated[float, Field(gt=0)] = 1.0
    energy: Annotated[float, Field(ge=0)] = 0.0
    angle: Annotated[float, Field(ge=0)] = 0.0
    total: Annotated[float, Field(ge=0)] = 0.0


class GridGanConfig(ModelConfig):
    """Settings of a generator on a grid."""

    search: ClassVar[Mapping[str, str]] = {
        "batch_size": "32,64,128",
        "generator.lr": "1e-4:2e-3:log",
        "discriminator.lr": "1e-4:2e-3:log",
        "generator_steps": "1,2",
        "r1": "0.01:1:log",
        "weights.energy": "0.03:0.3:log",
    }

    epochs: Annotated[int, Field(ge=1)] = 600  # passes over the training showers
    batch_size: Annotated[int, Field(ge=2)] = 64  # showers a step
    generator: OptimizerSettings = OptimizerSettings(  # optimiser of the generator
        lr=5e-4, betas=(0.0, 0.99), schedule="cosine", final=0.05, warmup=100, ema=0.999
    )
    discriminator: OptimizerSettings = OptimizerSettings(  # optimiser of the discriminator
        lr=5e-4, betas=(0.0, 0.99), schedule="cosine", final=0.05, warmup=100
    )
    # scale of the cell energies in the networks, see :mod:`~caloforge.models.grid_gan.discriminator`
    cells: Literal["power", "log"] = "log"
    cell_unit: Annotated[float, Field(gt=0)] = 0.2  # unit of that scale, MeV
    cell_power: Annotated[float, Field(gt=0, le=1)] = 1.0  # power of ``cells = "power"``
    # how conditions enter the latent vector, see :mod:`~caloforge.models.grid_gan.settings`
    latent: Literal["published", "standardised"] = "standardised"
    weights: HeadWeights = HeadWeights(real=1.0, energy=0.1)  # weights of the heads' losses
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0  # label of real showers for the discriminator
    # fraction of the discriminator's labels that are flipped
    flips: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    separate: bool = False  # update the discriminator once with real and once with generated showers
    generator_steps: Annotated[int, Field(ge=1)] = 1  # steps of the generator for each of the discriminator
    # weight of the penalty R1 (half the squared gradient); 0 for none
    r1: Annotated[float, Field(ge=0)] = 0.1
    r1_every: Annotated[int, Field(ge=1)] = 4  # steps between two penalties, which are then that much larger
    norm: Literal["batch", "spectral"] = "spectral"  # of the discriminator: batch norm or spectral norm
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the discriminator, and of the 2-D generator
    informed: bool = True  # show the discriminator profiles and conditions beside the cells
    rescale: bool = True  # draw the visible energy from its fitted distribution
    symmetries: bool = True  # apply the symmetries of the beam
    # first epochs, in which the generator alone learns the mean shower at given conditions
    mean_epochs: Annotated[int, Field(ge=0)] = 0
    # first epochs in which the generator's output is not rectified
    linear_epochs: Annotated[int, Field(ge=0)] = 0
    calibrate: bool = True  # calibrate layers, rings and core cells after training


PUBLISHED: Mapping[str, Any] = {
    "cells": "power",
    "cell_unit": 10.0,
    "latent": "published",
    "flips": 0.05,
    "separate": True,
    "r1": 0.0,
    "norm": "batch",
    "dropout": 0.2,
    "informed": False,
    "rescale": False,
    "symmetries": False,
    "calibrate": False,
}
"""What the presets after the papers have in common."""


def percentage_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error in per cent of the target, the unit of the published weights."""
    return 100.0 * ((prediction - target).abs() / target.abs().clamp_min(1e-7)).mean()


class PublishedLatent(nn.Module):
    """Latent vectors as published, with the columns of incident energy and angle (or None) in the condition matrix."""

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

    def energy_error(self, predicted: Tensor, conditions: Tensor) -> Tensor:
        """Return the error of the energy head (B,), per cent."""
        return percentage_error(predicted, conditions[:, self.energy] / _HUNDRED_GEV)


class StandardisedLatent(nn.Module):
    """Latent vectors that begin with the standardised conditions."""

    def __init__(self, size: int, encoder: ConditionEncoder, energy: int, theta: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.index = encoder.continuous.index(energy)
        self.n_normals = size - encoder.width

    def forward(self, normals: Tensor, conditions: Tensor) -> Tensor:
        """Return latent vectors (B, size) of normals (B, n_normals) and conditions (B, C) in raw units."""
        return torch.cat([self.encoder(conditions), normals], 1)

    def energy_error(self, predicted: Tensor, conditions: Tensor) -> Tensor:
        """Return the mean absolute error of the energy head (B,), standard deviations of ln E."""
        target: Tensor = self.encoder(conditions)[:, self.index]
        return (predicted - target).abs().mean()


CONDITIONINGS: Mapping[str, type[PublishedLatent] | type[StandardisedLatent]] = {
    "published": PublishedLatent,
    "standardised": StandardisedLatent,
}
"""Name to the module that makes latent vectors."""


_GEV = 1000.0
_KNOTS = 57
_REACH = 3.5


class VisibleEnergy(nn.Module):
    r"""Distribution of the visible energy, with a calorimeter's resolution; the response r = E_vis / E has

    .. math:: \langle r \rangle = w_0 + \sum_k w_k e_k + w'_k e_k^2, \qquad \sigma^2(E) = a^2 / E + b^2

    for encoded conditions e (standardised ln E, angle). w is a least-squares fit; a and b, the stochastic and the constant
    term, follow from the squared residuals. Before the fit r is the detector's sampling fraction.
    """

    weights: Tensor
    resolution: Tensor

    def __init__(self, width: int, response: float) -> None:
        super().__init__()
        self.terms = Polynomial(width, width, 2, cross=False)
        weights = torch.zeros(self.terms.size)
        weights[0] = response
        self.register_buffer("weights", weights)
        self.register_buffer("resolution", torch.tensor([0.0, (0.1 * response) ** 2]))
        self.shape = MonotoneMap(1, _KNOTS, _REACH, even="x")

    @torch.no_grad()
    def fit(self, encoded: Tensor, energy: Tensor, visible: Tensor) -> None:
        """Fit to encoded conditions (N, width), incident and visible energies (N,), MeV, on the CPU."""
        from scipy.optimize import nnls

        self.terms.fit(encoded)
        phi = self.terms(encoded).double()
        energy, response = energy.double(), (visible / energy).double()
        weights = least_squares(phi, response)
        residual = response - phi @ weights
        design = torch.stack([_GEV / energy, torch.ones_like(energy)], 1)
        floor = 1e-12 + 1e-6 * float(response.mean()) ** 2
        variance = residual.square().mean().clamp_min(floor).expand_as(energy)
        for _ in range(5):  # weighted least squares of the squares; their own variance is 2 sigma^4
            terms, _ = nnls((design / variance[:, None]).numpy(), (residual.square() / variance).numpy())
            self.resolution.copy_(torch.from_numpy(terms))
            variance = (design @ torch.from_numpy(terms)).clamp_min(floor)
        self.weights.copy_(weights)
        t = residual / variance.sqrt()
        self.shape.y[0, 0, 0] = quantiles(t, normal_levels(_KNOTS, _REACH)).to(self.weights)

    def mean(self, encoded: Tensor, energy: Tensor) -> Tensor:
        """Return the mean visible energy (B,), MeV."""
        # mixed precision would round a matrix product
        response: Tensor = (self.terms(encoded) * self.weights).sum(1)
        return response.clamp_min(1e-6) * energy

    def spread(self, energy: Tensor) -> Tensor:
        """Return the standard deviation of the visible energy (B,), MeV."""
        variance = self.resolution[0] * _GEV / energy + self.resolution[1]
        return variance.clamp_min(1e-12).sqrt() * energy

    def draw(self, normal: Tensor, encoded: Tensor, energy: Tensor) -> Tensor:
        """Return visible energies (B,), MeV: a pure, rising function of normal numbers (B,), above a twentieth of the mean."""
        mean = self.mean(encoded, energy)
        t = self.shape(normal[:, None])[:, 0]
        return torch.maximum(mean + t * self.spread(energy), 0.05 * mean)
