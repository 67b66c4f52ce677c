r"""ATLAS variational autoencoder for a list of cells, conditional on energy and cell alignment.

Showers as vectors that an autoencoder learns, and back: two codes behind one interface.

``FractionCode``, as in ATL-SOFT-PUB-2018-001: the cells over the incident energy, here over E times the sampling
fraction, since visible energies are stored; the decoder's output passes a sigmoid. Loss: squared error, plus the weighted
squared differences of the total and of the layer fractions.

``LayerCode``: first the response and the layer fractions (:class:`~caloforge.models.nn.cell_networks.LayerEnergies`),
then each cell on a logarithmic scale,

.. math:: u_i = \ln(E_i / c) \quad (E_i > c), \qquad u_i = -\epsilon_i \quad (E_i \le c)

with an exponential :math:`\epsilon` of mean 1, so that empty cells are the negative side of one continuous variable;
all at unit width at each energy. The decoder gives mean and width of every number, the loss is minus the logarithm of
that normal density. On the way back cells with u <= 0 are empty and each layer is scaled to its energy.

Variational autoencoder of ATLAS for a list of cells, conditioned on energy and cell alignments.

With encoder q(z|x), decoder p(x|z) and the normal prior p(z), all given the conditions, it lowers

.. math:: L = R(x, z) + w_{KL} \, D_{KL}(q(z|x) \,|\, p(z))

where R is the reconstruction of :mod:`caloforge.models.atlas.vae`.

As published (preset ``paper``): cells over E, sigmoid output, ELU, encoder of four hidden layers and the mirrored
decoder, ten latents, weights 1 (cells), 1e-4 (KL), 1e-2 (total energy) and 8e-2, 6e-1, 2e-1 (layer fractions; the
fourth is not given: 2e-1 again), RMSprop 1e-4, batches of 100, 100 epochs, variance-scaling kernels, biases of one. Not
given and chosen here: the fourth width (50), squared error as the reconstruction.

What ``improved`` changes, and why: the squared error of cells over E sees only the few largest ones, and sampling the
decoder's mean alone makes every distribution too narrow. So the code is layers first and cells on a logarithmic scale,
the decoder gives a width for every number, which sampling draws, and the KL has its proper weight of 1 (raised from 0
over the first fifth). More latents, Adam, a moving average. After training, layer energies and cells are carried to the
training showers' distributions (:mod:`caloforge.models.calibration.showers`).

References:
    ATLAS Collaboration, Deep generative models for fast shower simulation in ATLAS, ATL-SOFT-PUB-2018-001.
    D. Kingma, M. Welling, Auto-encoding variational Bayes, arXiv:1312.6114.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.base import CalibratedModel
from caloforge.models.calibration.moments import EnergyMoments
from caloforge.models.calibration.showers import ShowerCalibration
from caloforge.models.nn.cell_networks import LayerEnergies
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.models.nn.layer_sums import LayerSums
from caloforge.models.nn.mlp import mlp
from caloforge.models.nn.symmetry import BeamSymmetry
from caloforge.models.stage import Batch, OptimizerSpec, Stage, Updater
from caloforge.settings import ModelConfig, OptimizerSettings
from caloforge.showers import Showers

__all__ = ["CODES", "FractionCode", "LayerCode", "ShowerCode", "Vae", "VaeConfig"]


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
        self.scale = EnergyMoments(detector.n_cells, floor=1e-3)
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


class VaeConfig(ModelConfig):
    """Settings of the autoencoder.

    Arguments:
        code: How showers are written: ``fractions`` as published, or ``layers``.
        latent: Latent variables.
        hidden: Widths of the encoder, mirrored in the decoder.
        kl: Weight of the KL term.
        kl_warmup: Part of the training over which that weight rises from 0.
        published_init: Variance-scaling kernels and biases of one.
        epochs: Passes over the training set.
        batch_size: Showers a step.
        symmetries: Mirror training showers as the beam allows.
        calibrate: Post-training calibration of layer energies and cells by quantile mapping.
        optimizer: The optimiser.
    """

    code: Literal["fractions", "layers"] = "layers"
    latent: Annotated[int, Field(ge=1)] = 24
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (384, 256, 128)
    kl: Annotated[float, Field(ge=0)] = 1.0
    kl_warmup: Annotated[float, Field(ge=0, le=1)] = 0.2
    published_init: bool = False
    epochs: Annotated[int, Field(ge=1)] = 150
    batch_size: Annotated[int, Field(ge=1)] = 128
    symmetries: bool = True
    calibrate: bool = True
    optimizer: OptimizerSettings = OptimizerSettings(
        lr=1e-3, schedule="cosine", warmup=100, clip=20.0, ema=0.995
    )


class Vae(CalibratedModel):
    """Conditional variational autoencoder; see the module."""

    Config = VaeConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "symmetries": False,
            "calibrate": False,
            "code": "fractions",
            "latent": 10,
            "hidden": (200, 150, 100, 50),
            "kl": 1e-4,
            "kl_warmup": 0.0,
            "published_init": True,
            "epochs": 100,
            "batch_size": 100,
            "optimizer": {
                "kind": "rmsprop",
                "lr": 1e-4,
                "schedule": "constant",
                "warmup": 0,
                "clip": 0,
                "ema": 0,
            },
        },
        "improved": {},
    }
    training_only: ClassVar[tuple[str, ...]] = ("encoder",)
    config: VaeConfig

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        assert isinstance(config, VaeConfig)
        self.encode_conditions = ConditionEncoder(detector, self.columns)
        self.symmetry = BeamSymmetry(detector, self.columns)
        self.code: ShowerCode = CODES[config.code](detector)
        self.calibration = (
            ShowerCalibration(detector, self.columns, self.symmetry) if config.calibrate else None
        )
        width = self.encode_conditions.width
        activation = nn.ELU if config.published_init else nn.SiLU
        self.encoder = mlp(self.code.size + width, config.hidden, 2 * config.latent, activation)
        self.decoder = mlp(config.latent + width, config.hidden[::-1], self.code.outputs, activation)
        if config.published_init:
            for layer in (*self.encoder, *self.decoder):
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="linear")
                    nn.init.ones_(layer.bias)

    def fit_transforms(self, showers: Showers) -> None:
        """Set the constants of conditions and code."""
        super().fit_transforms(showers)
        self.symmetry.allow(showers.incident_theta)
        conditions = self.condition_matrix(showers)
        self.encode_conditions.fit(conditions)
        self.code.fit(torch.from_numpy(showers.cells), self.condition(conditions, "incident_energy")[:, 0])

    @property
    def noise_size(self) -> int:
        """Latents, then what the code draws."""
        return self.config.latent + self.code.noise

    def make(self, noise: Tensor, conditions: Tensor, dense: bool = False) -> Tensor:
        """Decode latents from the prior: noise (B, noise_size), conditions (B, C) -> cells (B, n_cells), MeV."""
        latent, drawn = noise[:, : self.config.latent], noise[:, self.config.latent :]
        output = self.decoder(torch.cat([latent, self.encode_conditions(conditions)], 1))
        return self.code.decode(output, self.condition(conditions, "incident_energy")[:, 0], drawn, dense)

    def make_for_calibration(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, with small energies in those that would be empty."""
        return self.make(noise, conditions, dense=True)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with each shower changed by a symmetry that holds."""
        return self.symmetry.augment(batch, generator) if self.config.symmetries else batch

    def stages(self) -> tuple[Stage, ...]:
        """Return the training, then the calibration."""
        spec = OptimizerSpec.of(self.config.optimizer, self.encoder, self.decoder)
        training = Stage(
            "vae",
            self.config.epochs,
            self.config.batch_size,
            {"vae": spec},
            self.step,
            metric="physics",
            compiled=(self.encoder, self.decoder),
        )
        return (training, *self.calibration_stages())

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Lower the loss of one batch."""
        energy = self.condition(batch.conditions, "incident_energy")[:, 0]
        encoded = self.encode_conditions(batch.conditions)
        code = self.code.encode(batch.cells, energy, updater.uniform(*batch.cells.shape))
        mean, log_variance = self.encoder(torch.cat([code, encoded], 1)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-10.0, 5.0)
        latent = mean + torch.exp(0.5 * log_variance) * updater.normal(*mean.shape)
        terms = self.code.losses(self.decoder(torch.cat([latent, encoded], 1)), code)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        rise = min(1.0, updater.progress / self.config.kl_warmup) if self.config.kl_warmup else 1.0
        loss = sum(terms.values(), self.config.kl * rise * kl)
        updater.update("vae", loss)
        return {"loss": loss, "kl": kl, **terms}
