r"""WGAN-GP of ATLAS for a list of cells, conditional on energy and cell alignments.

With critic D, generator G and :math:`\hat x` between real x and generated G(z), critic and generator minimise

.. math:: L_D = \langle D(G(z)) \rangle - \langle D(x) \rangle
          + 10 \, \langle (|\nabla_{\hat x} D(\hat x)|_2 - 1)^2 \rangle, \qquad
          L_G = -\langle D(G(z)) \rangle + 10^{-5} \, \langle \textstyle\sum_i |G_i(z)| \rangle

with five critic steps for one of the generator. G and D take standardised log E (log10 and ln are then the same) and the
multi-hot alignments.

As published (preset ``paper``): latent 300; generator and critic three layers of 128 with LeakyReLU; cells over E;
sigmoid followed by ReLU; L1 activity 1e-5 on the output; two-sided penalty 10; Adam 5e-5; batch 64; 50,000 epochs;
of several seeds the best by the cells' covariance. Our readings: energies are visible ones here, so E is multiplied by
the sampling fraction; the sigmoid is centred so that the ReLU has something to cut; Adam's betas and the slope of
LeakyReLU are not published (0 and 0.9 as in Gulrajani et al., and 0.2).

What ``improved`` changes, and why:

- the generator makes the response and the layer fractions first, with the width they have at each energy, and then
  each layer's shape, scaled to its energy: total and fractions are learnt at all energies alike;
- the critic sees each of these at unit width, and the logarithms of the cells beside their energies: in units
  of E most cells are too small for its gradient, and the number of hits does not come out;
- wider networks, layer norm in the generator (it acts on each shower alone, so the penalty stays valid), a moving
  average of the generator's weights, a rate that falls to zero, larger batches;
- a post-training calibration of layer energies and cells (:mod:`caloforge.models.calibration.showers`).

The setting ``keep_by`` names the figure (:mod:`caloforge.models.selection`) that keeps the best epoch, and with
``train.trainings=4`` the best of four seeds: ``covariance``, ``physics`` or ``selection``, which combines both.

References:
    ATLAS Collaboration, Deep generative models for fast shower simulation in ATLAS, ATL-SOFT-PUB-2018-001.
    I. Gulrajani et al., Improved training of Wasserstein GANs, arXiv:1704.00028.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.atlas import AtlasConfig, AtlasModel
from caloforge.models.nn.adversarial import CRITIC_LOSSES
from caloforge.models.nn.cell_networks import CELL_NETWORKS, CellNetworks, mlp
from caloforge.models.selection import covariance_figure
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater
from caloforge.settings import OptimizerSettings
from caloforge.showers import Showers

__all__ = ["SparseSigmoid", "WganGp", "WganGpConfig"]

_LEAKY = partial(nn.LeakyReLU, 0.2)
_LOSSES = CRITIC_LOSSES["wasserstein"]


class SparseSigmoid(nn.Module):
    r"""Output of cells that are often exactly zero, :math:`f(a) = \max(0, 2 \sigma(a) - 1)`, in [0, 1) and zero for a <= 0.

    A ReLU on the bare sigmoid would do nothing; offset and factor are our reading of "sigmoid followed by ReLU".
    """

    def forward(self, a: Tensor) -> Tensor:
        """Return f(a)."""
        return torch.relu(2.0 * torch.sigmoid(a) - 1.0)


class WganGpConfig(AtlasConfig):
    """Settings of the WGAN-GP, beside those of :class:`~caloforge.models.atlas.AtlasConfig`."""

    search: ClassVar[Mapping[str, str]] = {
        "latent": "32:256:log",
        "generator": "[128, 128],[256, 256],[256, 256, 512],[512, 512, 512]",
        "critic": "[256, 256],[512, 512, 512]",
        "critic_steps": "2:6",
        "batch_size": "128,256,512",
        "generator_optimizer.lr": "5e-5:1e-3:log",
        "critic_optimizer.lr": "5e-5:1e-3:log",
    }

    latent: Annotated[int, Field(ge=1)] = 128  # normal numbers of a shower
    # representation of the cells: ``plain`` as published, or ``layered``
    cells: Literal["plain", "layered"] = "layered"
    generator: tuple[int, ...] = (256, 256, 512)  # widths of the generator
    critic: Annotated[tuple[int, ...], Field(min_length=1)] = (512, 512, 512)  # widths of the critic
    penalty: Annotated[float, Field(ge=0)] = 10.0  # weight of the gradient penalty
    # weight of the L1 norm of the output, cells over visible energy
    activity: Annotated[float, Field(ge=0)] = 1e-5
    critic_steps: Annotated[int, Field(ge=1)] = 5  # critic steps for one generator step
    epochs: Annotated[int, Field(ge=0)] = 600  # passes over the showers
    batch_size: Annotated[int, Field(ge=2)] = 256  # showers a step
    # figure that keeps the best epoch and seed
    keep_by: Literal["covariance", "selection", "physics"] = "selection"
    generator_optimizer: OptimizerSettings = OptimizerSettings(  # of the generator
        lr=2e-4, betas=(0.0, 0.9), schedule="cosine", ema=0.999
    )
    # of the critic
    critic_optimizer: OptimizerSettings = OptimizerSettings(lr=2e-4, betas=(0.0, 0.9), schedule="cosine")


class WganGp(AtlasModel):
    """Conditional WGAN-GP; see the module."""

    papers: ClassVar[tuple[str, ...]] = ("atlas",)
    Config = WganGpConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "improved": {},
        "paper": {
            "symmetries": False, "calibrate": False, "latent": 300, "cells": "plain", "generator": (128, 128, 128),
            "critic": (128, 128, 128), "epochs": 50_000, "batch_size": 64, "keep_by": "covariance",
            "generator_optimizer": {"lr": 5e-5, "schedule": "constant", "ema": 0.0},
            "critic_optimizer": {"lr": 5e-5, "schedule": "constant"},
        },
    }  # fmt: skip
    training_only = ("critic",)
    config: WganGpConfig

    def __init__(self, detector: Detector, config: WganGpConfig) -> None:
        super().__init__(detector, config)
        width, layered = self.condition_encoder.width, config.cells == "layered"

        def build(outputs: int) -> nn.Module:
            return mlp(config.latent + width, config.generator, outputs, _LEAKY, norm=layered)

        self.generator: CellNetworks = CELL_NETWORKS[config.cells](detector, build, SparseSigmoid())
        self.critic = mlp(self.generator.width + width, config.critic, 1, _LEAKY)
        self.critic[-1] = nn.Linear(config.critic[-1], 1, bias=False)  # an offset cancels in the loss

    def fit_transforms(self, showers: Showers) -> None:
        """Set the scale of the conditions and the widths of energies and cells."""
        super().fit_transforms(showers)
        self.generator.fit(torch.from_numpy(showers.cells), self.energy(self.condition_matrix(showers)))

    @property
    def noise_size(self) -> int:
        """Normal numbers of a shower."""
        return self.config.latent

    def make(self, noise: Tensor, conditions: Tensor, dense: bool = False) -> Tensor:
        """Return the generator's cells (B, n_cells), MeV, of noise (B, latent) and conditions (B, C)."""
        inputs = torch.cat([noise, self.condition_encoder(conditions)], dim=1)
        return self.generator.make(inputs, self.energy(conditions), dense)

    def score(self, view: Tensor, conditions: Tensor) -> Tensor:
        """Return the critic's value (B, 1) of views (B, k) under conditions (B, C)."""
        value: Tensor = self.critic(torch.cat([view, self.condition_encoder(conditions)], dim=1))
        return value

    def stages(self) -> tuple[Stage, ...]:
        """Return the adversarial training, then the calibration."""
        c = self.config
        optimizers = {
            "critic": OptimizerSpec.of(c.critic_optimizer, self.critic),
            "generator": OptimizerSpec.of(c.generator_optimizer, self.generator),
        }
        training = Stage("adversarial", c.epochs, c.batch_size, optimizers, self.step, metric=c.keep_by)
        return training, *self.calibration_stages()

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Update the critic, and each ``critic_steps``-th time the generator; return the losses."""
        losses = self.critic_losses(batch, updater)
        updater.update("critic", losses["critic"])
        if updater.every(self.config.critic_steps):
            losses["generator"] = self.generator_loss(batch, updater)
            updater.update("generator", losses["generator"])
        return {name: loss.detach() for name, loss in losses.items()}

    def critic_losses(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Return ``critic``, the loss; ``distance``, the Wasserstein estimate; ``penalty``, unweighted."""
        conditions, energy = batch.conditions, self.energy(batch.conditions)
        with torch.no_grad():
            cells = self.make(updater.normal(len(batch), self.noise_size), conditions)
            real, fake = self.generator.view(batch.cells, energy), self.generator.view(cells, energy)
        loss = _LOSSES.critic(self.score(real, conditions), self.score(fake, conditions))
        mix = updater.uniform(len(batch), 1)
        penalty = _LOSSES.penalty(lambda view: self.score(view, conditions), real, fake, mix)
        return {"critic": loss + self.config.penalty * penalty, "distance": -loss, "penalty": penalty}

    def generator_loss(self, batch: Batch, updater: Updater) -> Tensor:
        """Return the generator's loss; the L1 activity is that of the cells over visible energy."""
        energy = self.energy(batch.conditions)
        cells = self.make(updater.normal(len(batch), self.noise_size), batch.conditions)
        activity = (cells.abs().sum(1) / (energy * self.detector.sampling_fraction)).mean()
        value = self.score(self.generator.view(cells, energy), batch.conditions)
        return _LOSSES.generator(value) + self.config.activity * activity

    def validate(self, data: TrainingData) -> dict[str, float]:
        """Return the physics figures, ``covariance``, and ``selection`` = physics + 10 covariance."""
        figures = super().validate(data) | {"covariance": covariance_figure(*self.imitate(data, 4000))}
        return figures | {"selection": figures["physics"] + 10.0 * figures["covariance"]}
