r"""Variational autoencoder of ATLAS for a list of cells, conditional on energy and cell alignments.

With encoder q(z|x), decoder p(x|z) and the normal prior p(z), all conditional, it minimises

.. math:: L = R(x, z) + w_{KL} \, D_{KL}(q(z|x) \,|\, p(z))

where the reconstruction R depends on the code of the showers. ``FractionCode``, as published: the cells over the incident
energy, here over E times the sampling fraction, since visible energies are stored; the decoder's output passes a sigmoid, and R
is the squared error, plus the weighted squared differences of the total and of the layer fractions.

``LayerCode``: first the response and the layer fractions (:class:`~caloforge.models.nn.cell_networks.LayerEnergies`),
then each cell on a logarithmic scale,

.. math:: u_i = \ln(E_i / c) \quad (E_i > c), \qquad u_i = -\epsilon_i \quad (E_i \le c)

with an exponential :math:`\epsilon` of mean 1, so that empty cells are the negative side of one continuous variable;
all at unit width at each energy. The decoder predicts mean and width of every number, and R is minus the logarithm of
that normal density. In the inverse cells with u <= 0 are empty and each layer is scaled to its energy.

As published (preset ``paper``): cells over E, sigmoid output, ELU, encoder of four hidden layers and the mirrored
decoder, ten latents, weights 1 (cells), 1e-4 (KL), 1e-2 (total energy) and 8e-2, 6e-1, 2e-1 (layer fractions; the
fourth is not published: 2e-1 again), RMSprop 1e-4, batches of 100, 100 epochs, variance-scaling kernels, biases of one. Not
published and chosen here: the fourth width (50), squared error as the reconstruction.

What ``improved`` changes, and why: the squared error of cells over E sees only the few largest ones, and sampling the
decoder's mean alone makes every distribution too narrow. So the code is layers first and cells on a logarithmic scale,
the decoder predicts a width for every number, from which sampling draws, and the KL has its proper weight of 1 (raised from 0
over the first fifth). More latents, Adam, a moving average, and a post-training calibration of layer energies and cells
(:mod:`caloforge.models.calibration.showers`).

References:
    ATLAS Collaboration, Deep generative models for fast shower simulation in ATLAS, ATL-SOFT-PUB-2018-001.
    D. Kingma, M. Welling, Auto-encoding variational Bayes, arXiv:1312.6114.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.atlas import AtlasConfig, AtlasModel
from caloforge.models.calibration.moments import EnergyMoments
from caloforge.models.nn.cell_networks import LayerEnergies, LayerSums, mlp
from caloforge.models.stage import Batch, OptimizerSpec, Stage, Updater
from caloforge.settings import OptimizerSettings
from caloforge.showers import Showers

__all__ = ["CODES", "FractionCode", "LayerCode", "Vae", "VaeConfig"]

_TOTAL = 1e-2
_LAYERS = (8e-2, 6e-1, 2e-1)


class FractionCode(nn.Module):
    """Cells over the mean visible energy: ``size`` numbers of a shower, ``outputs`` of the decoder, ``noise`` for ``decode``."""

    weights: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.size = self.outputs = detector.n_cells
        self.noise = 0
        self.scale = detector.sampling_fraction
        self.sums = LayerSums(detector)
        weights = [_LAYERS[min(layer, len(_LAYERS) - 1)] for layer in range(detector.n_layers)]
        self.register_buffer("weights", torch.tensor(weights))

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Do nothing: there are no constants."""

    def encode(self, cells: Tensor, energy: Tensor, uniform: Tensor) -> Tensor:
        """Return cells (B, n_cells) over E times the sampling fraction."""
        return cells / (self.scale * energy[:, None])

    def decode(self, output: Tensor, energy: Tensor, noise: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV, of the decoder's output (B, outputs)."""
        return torch.sigmoid(output) * self.scale * energy[:, None]

    def losses(self, output: Tensor, code: Tensor) -> dict[str, Tensor]:
        """Return weighted squared errors of cells, total and layer fractions."""
        cells = torch.sigmoid(output)
        layers, truth = self.sums(cells), self.sums(code)
        total, true_total = layers.sum(1, keepdim=True), truth.sum(1, keepdim=True)
        fractions = (layers / total.clamp_min(1e-9) - truth / true_total.clamp_min(1e-9)).square()
        return {
            "reconstruction": (cells - code).square().sum(1).mean(),
            "total": _TOTAL * (total - true_total).square().mean(),
            "layers": (self.weights * fractions).sum(1).mean(),
        }


class LayerCode(nn.Module):
    """Response and layer fractions, then cells on a logarithmic scale; see the module.

    Arguments:
        cut: The energy c below which a cell counts as empty, MeV.
    """

    top: Tensor

    def __init__(self, detector: Detector, cut: float = 0.02) -> None:
        super().__init__()
        self.layers = LayerEnergies(detector)
        self.cut = cut
        self.size = self.noise = self.layers.size + detector.n_cells
        self.outputs = 2 * self.size
        self.scale = EnergyMoments(detector.n_cells, floor=1e-3)
        self.register_buffer("top", torch.zeros(detector.n_cells))

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set the scales from training showers: cells (N, n_cells) and incident energies (N,), MeV."""
        self.layers.fit(cells, energy)
        generator = torch.Generator().manual_seed(0)
        u = self._logarithm(cells, torch.rand(cells.shape, generator=generator))
        self.scale.fit(u, energy)
        self.top.copy_(u.amax(0))

    def _logarithm(self, cells: Tensor, uniform: Tensor) -> Tensor:
        empty = torch.log1p(-uniform)
        return torch.where(cells > self.cut, torch.log(cells.clamp_min(self.cut) / self.cut), empty)

    def encode(self, cells: Tensor, energy: Tensor, uniform: Tensor) -> Tensor:
        """Return the module's numbers (B, size) of cells and uniform numbers in [0, 1), (B, n_cells) each."""
        mean, std = self.scale(energy)
        return torch.cat([self.layers(cells, energy), (self._logarithm(cells, uniform) - mean) / std], 1)

    def decode(self, output: Tensor, energy: Tensor, noise: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV, of a decoder's output (B, outputs) and noise (B, noise).

        ``dense`` leaves small energies in cells that would be empty, the larger the less empty they are.
        """
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


CODES: Mapping[str, type[FractionCode] | type[LayerCode]] = {"fractions": FractionCode, "layers": LayerCode}
"""Setting ``code`` to class."""


class VaeConfig(AtlasConfig):
    """Settings of the autoencoder, beside those of :class:`~caloforge.models.atlas.AtlasConfig`."""

    search: ClassVar[Mapping[str, str]] = {
        "latent": "8:64:log",
        "hidden": "[64, 64],[128, 128],[256, 128],[384, 256, 128],[512, 384, 256],[1024, 512, 256]",
        "kl": "0.3:2:log",
        "batch_size": "64,128,256",
        "optimizer.lr": "3e-4:5e-3:log",
    }

    # representation of the showers: ``fractions`` as published, or ``layers``
    code: Literal["fractions", "layers"] = "layers"
    latent: Annotated[int, Field(ge=1)] = 24  # latent variables
    # widths of the encoder, mirrored in the decoder
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (384, 256, 128)
    kl: Annotated[float, Field(ge=0)] = 1.0  # weight of the KL term
    # part of the training over which that weight rises from 0
    kl_warmup: Annotated[float, Field(ge=0, le=1)] = 0.2
    published_init: bool = False  # variance-scaling kernels and biases of one
    epochs: Annotated[int, Field(ge=1)] = 150  # passes over the training set
    batch_size: Annotated[int, Field(ge=1)] = 128  # showers a step
    optimizer: OptimizerSettings = OptimizerSettings(  # the optimiser
        lr=1e-3, schedule="cosine", warmup=100, clip=20.0, ema=0.995
    )


class Vae(AtlasModel):
    """Conditional variational autoencoder; see the module."""

    papers: ClassVar[tuple[str, ...]] = ("atlas",)
    Config = VaeConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "symmetries": False, "calibrate": False, "code": "fractions", "latent": 10, "hidden": (200, 150, 100, 50),
            "kl": 1e-4, "kl_warmup": 0.0, "published_init": True, "epochs": 100, "batch_size": 100,
            "optimizer": {"kind": "rmsprop", "lr": 1e-4, "schedule": "constant", "warmup": 0, "clip": 0, "ema": 0},
        },
        "improved": {},
    }  # fmt: skip
    training_only: ClassVar[tuple[str, ...]] = ("encoder",)
    config: VaeConfig

    def __init__(self, detector: Detector, config: VaeConfig) -> None:
        super().__init__(detector, config)
        self.code: FractionCode | LayerCode = CODES[config.code](detector)
        width = self.condition_encoder.width
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
        self.code.fit(torch.from_numpy(showers.cells), self.energy(self.condition_matrix(showers)))

    @property
    def noise_size(self) -> int:
        """Latents, then the noise of the code."""
        return self.config.latent + self.code.noise

    def make(self, noise: Tensor, conditions: Tensor, dense: bool = False) -> Tensor:
        """Decode latents from the prior: noise (B, noise_size), conditions (B, C) -> cells (B, n_cells), MeV."""
        latent, rest = noise[:, : self.config.latent], noise[:, self.config.latent :]
        output = self.decoder(torch.cat([latent, self.condition_encoder(conditions)], 1))
        return self.code.decode(output, self.energy(conditions), rest, dense)

    def stages(self) -> tuple[Stage, ...]:
        """Return the training, then the calibration."""
        c, parts = self.config, (self.encoder, self.decoder)
        optimizers = {"vae": OptimizerSpec.of(c.optimizer, *parts)}
        sizes = c.epochs, c.batch_size
        training = Stage("vae", *sizes, optimizers, self.step, metric="physics", compiled=parts)
        return training, *self.calibration_stages()

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Minimise the loss of one batch; return its terms."""
        encoded = self.condition_encoder(batch.conditions)
        uniform = updater.uniform(*batch.cells.shape)
        code = self.code.encode(batch.cells, self.energy(batch.conditions), uniform)
        mean, log_variance = self.encoder(torch.cat([code, encoded], 1)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-10.0, 5.0)
        latent = mean + torch.exp(0.5 * log_variance) * updater.normal(*mean.shape)
        terms = self.code.losses(self.decoder(torch.cat([latent, encoded], 1)), code)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        rise = min(1.0, updater.progress / self.config.kl_warmup) if self.config.kl_warmup else 1.0
        loss = sum(terms.values(), self.config.kl * rise * kl)
        updater.update("vae", loss)
        return {"loss": loss, "kl": kl, **terms}
