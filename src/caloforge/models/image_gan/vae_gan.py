r"""VAE-GAN for images of 10 x 10 pixels, the model of the amplification study.

With an encoder q(z|x), a generator G that is also the decoder, and a discriminator D that takes an image and its
difference to the input,

.. math:: L_D = -\langle \log D(x, 0) \rangle - \langle \log(1 - D(\tilde x, \tilde x - x)) \rangle, \qquad
          L_{G,E} = -\langle \log D(\tilde x, \tilde x - x) \rangle + w \, KL(q(z|x) \| N(0, 1))

where :math:`\tilde x = G(z)`, z from q(z|x) drawn once; D replaces the reconstruction loss. Generation draws z from
N(0, 1).

As published (preset ``paper``): these losses, non-saturating; two discriminator steps, then one of generator and
encoder; label smoothing; generator and discriminator after LAGAN with minibatch discrimination; spectral norm in place
of batch norm in the discriminator; the difference in its last dense layer; encoder of three convolutions (LeakyReLU,
LeakyReLU, ReLU) and two heads; Adam 8e-6; 50,000 epochs; no threshold in training; the epoch picked by five
histograms against the training set (:class:`ImageHistograms`), 96,000 images each time (fewer with
less than 3,840 held-out ones).

Not published, so ours: the latent size (200, LAGAN's), the widths for 10 x 10 (see
:mod:`caloforge.models.image_gan.networks`), the label (0.9 for real images), the batch (100), the KL weight (1, its
sum over latents), slopes, dropout (LAGAN's 0.2), pixels over visible energy as input. Two discriminator steps take two
batches. Every validated epoch may be picked, not only those after 40,000. Three trainings drawn in equal parts are
``train.trainings=3``, ``train.combine=ensemble``. The paper has one energy, 50 GeV; here pixels scale with the incident
energy, so that others come out in proportion.

What ``improved`` changes, and why:

- the response is made beside the image, with its measured width, and the image scaled to it: the visible energy
  varies by a few percent, which pixels alone do not keep;
- pixels have unit width for generator and discriminator, which also sees their logarithms: the peak has 60 % of the
  energy and hides the rest;
- images from N(0, 1) go to the discriminator too, as in Larsen et al., since these are what is generated;
- KL weight 0.05, wider locally connected layers, 64 latents, faster rates that fall to zero, a moving average;
- a post-training calibration maps visible energy, peak share and centres of gravity to the widths, shapes and correlations
  that they have in the training images, and cells to their means and widths, with few numbers and smooth maps
  (:mod:`caloforge.models.calibration.images`; setting ``calibrate``): adversarial training leaves them too narrow by a
  quarter. Each member of an ensemble has its own.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352.
    A. B. L. Larsen et al., Autoencoding beyond pixels using a learned similarity metric, arXiv:1512.09300.
    L. de Oliveira, M. Paganini, B. Nachman, Learning particle physics by example (LAGAN), arXiv:1701.05927.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.calibration.base import CalibratedModel
from caloforge.models.calibration.images import ImageCalibration
from caloforge.models.image_gan.networks import ImageDiscriminator, ImageEncoder, ImageGenerator
from caloforge.models.nn.adversarial import CRITIC_LOSSES
from caloforge.models.nn.cell_networks import CELL_NETWORKS, CellNetworks
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater
from caloforge.settings import ModelConfig, OptimizerSettings
from caloforge.showers import Showers
from caloforge.statistics.distances import separation_power

__all__ = ["OBSERVABLES", "ImageHistograms", "VaeGan", "VaeGanConfig"]


OBSERVABLES = ("E_vis", "E_peak", "E_pixel", "CG_x", "CG_y")
"""The five, in the order of the histograms."""
_BINS = 100
_THRESHOLD = 0.1  # MeV
_PIXEL_THRESHOLD = 5.0  # MeV
_TINY = 1e-12


class ImageHistograms(nn.Module):
    """Histograms of the training images, as constants, and the distance of others to them: epoch selection.

    The observables of an image with cells e_i > 0.1 MeV at (x_i, y_i): visible energy E_vis = sum e_i, peak energy
    E_peak = max e_i, energies of single pixels E_pixel above 5 MeV, and the centres of gravity CG_x = sum x_i e_i / sum e_i and
    CG_y. Each histogram of 100 bins spans the range of the training showers, with underflow and overflow in its first and last
    bin; pixel energies are binned in their logarithm. The figure is the sum of the five separation powers
    (:func:`~caloforge.statistics.distances.separation_power`), each from 0 to 1.

    References:
        S. Bieringer et al., arXiv:2202.07352, section 4: the five histograms and their 100 bins. The distance and the ranges
        are ours.
    """

    edges: Tensor
    reference: Tensor
    x: Tensor
    y: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        for axis, name in enumerate("xy"):
            centres = torch.tensor(detector.cell_centres[:, axis], dtype=torch.float32)
            self.register_buffer(name, centres, persistent=False)
        self.register_buffer("edges", torch.zeros(len(OBSERVABLES), _BINS + 1))
        self.register_buffer("reference", torch.zeros(len(OBSERVABLES), _BINS))

    def values(self, cells: Tensor) -> tuple[Tensor, ...]:
        """Return the five observables of cells (N, n_cells): each (N,), log pixel energies (n_pixels,).

        Energies are MeV, positions mm; empty images have their centre at 0.
        """
        cells = torch.where(cells > _THRESHOLD, cells, 0.0)
        visible = cells.sum(1)
        total = visible.clamp_min(_TINY)
        pixels = torch.log(cells[cells > _PIXEL_THRESHOLD])
        return visible, cells.amax(1), pixels, cells @ self.x / total, cells @ self.y / total

    def histograms(self, cells: Tensor) -> Tensor:
        """Return the numbers of entries (5, 100) of cells (N, n_cells)."""
        rows = []
        for value, edges in zip(self.values(cells), self.edges, strict=True):
            bins = torch.bucketize(value.contiguous(), edges[1:-1].contiguous(), right=True)
            rows.append(torch.bincount(bins, minlength=_BINS))
        return torch.stack(rows)

    @torch.no_grad()
    def fit(self, cells: Tensor) -> None:
        """Set ranges and histograms from the training images (N, n_cells), MeV."""
        parts = torch.linspace(0.0, 1.0, _BINS + 1)
        rows = []
        for value in self.values(cells):
            low, high = (value.amin(), value.amax()) if len(value) else (torch.zeros(()), torch.ones(()))
            rows.append(torch.lerp(low, torch.maximum(high, low + 1e-6 * low.abs() + 1e-6), parts))
        self.edges.copy_(torch.stack(rows))
        counts = self.histograms(cells)
        self.reference.copy_(counts / counts.sum(1, keepdim=True).clamp_min(1))

    @torch.no_grad()
    def distance(self, cells: Tensor) -> dict[str, float]:
        """Return the distance of images (N, n_cells) to the training images: of each, and ``histograms``, the sum.

        A histogram without entries is at distance 1.
        """
        pairs = zip(self.reference.cpu().numpy(), self.histograms(cells).cpu().numpy(), strict=True)
        each = [float(np.nan_to_num(separation_power(p, q), nan=1.0)) for p, q in pairs]
        named = {f"histogram_{name}": d for name, d in zip(OBSERVABLES, each, strict=True)}
        return {"histograms": sum(each)} | named


_RISE = 30.0
"""Of faint energies in empty pixels with the network's numbers: those of an image are of the order of a tenth."""
_LEAST = 6  # fewest pixels along a side
_EACH = 25  # most images generated for the histograms for each held-out one


class VaeGanConfig(ModelConfig):
    """Settings of the VAE-GAN."""

    search: ClassVar[Mapping[str, str]] = {
        "latent": "16:128:log",
        "generator": "[64, 16, 8, 8],[128, 32, 12, 12],[128, 64, 16, 16]",
        "kl": "0.01:0.3:log",
        "prior": "0.3:3:log",
        "discriminator_steps": "1:4",
        "generator_optimizer.lr": "3e-5:1e-3:log",
        "discriminator_optimizer.lr": "3e-5:1e-3:log",
    }

    latent: Annotated[int, Field(ge=1)] = 64  # latent numbers
    # representation of the pixels: ``plain`` as published, or ``layered``
    cells: Literal["plain", "layered"] = "layered"
    # channels of the generator: dense layer, convolution, two locally connected layers
    generator: tuple[int, int, int, int] = (128, 32, 12, 12)
    # channels of the discriminator: convolution, locally connected layers
    discriminator: tuple[int, int] = (32, 16)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the discriminator
    label: Annotated[float, Field(gt=0.5, le=1)] = 0.9  # label of real images; below 1 is smoothing
    kl: Annotated[float, Field(ge=0)] = 0.05  # weight of the Kullback-Leibler divergence
    # weight of images from N(0, 1) in both losses, that of reconstructions being 1; 0 for none
    prior: Annotated[float, Field(ge=0)] = 1.0
    # discriminator steps for one step of generator and encoder
    discriminator_steps: Annotated[int, Field(ge=1)] = 2
    epochs: Annotated[int, Field(ge=0)] = 4_000  # passes over the images
    batch_size: Annotated[int, Field(ge=2)] = 100  # images a step
    # images generated for the five histograms; 25 for each held-out one at most
    n_selection: Annotated[int, Field(ge=1)] = 20_000
    calibrate: bool = True  # post-training calibration of visible energy, peak, centres of gravity and cells
    generator_optimizer: OptimizerSettings = OptimizerSettings(  # of generator and encoder
        lr=1e-4, betas=(0.5, 0.999), schedule="cosine", ema=0.999
    )
    discriminator_optimizer: OptimizerSettings = OptimizerSettings(  # of the discriminator
        lr=1e-4, betas=(0.5, 0.999), schedule="cosine"
    )


class VaeGan(CalibratedModel):
    """VAE-GAN of the amplification study, for images such as ild-ecal-10x10."""

    papers: ClassVar[tuple[str, ...]] = ("calomplification",)
    Config = VaeGanConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "improved": {},
        "paper": {
            "latent": 200, "cells": "plain", "generator": (128, 64, 6, 6), "discriminator": (32, 8), "dropout": 0.2,
            "kl": 1.0, "prior": 0.0, "epochs": 50_000, "n_selection": 96_000, "calibrate": False,
            "generator_optimizer": {"lr": 8e-6, "betas": (0.9, 0.999), "schedule": "constant", "ema": 0.0},
            "discriminator_optimizer": {"lr": 8e-6, "betas": (0.9, 0.999), "schedule": "constant"},
        },
    }  # fmt: skip
    training_only = ("encoder", "discriminator", "histograms")
    config: VaeGanConfig

    def __init__(self, detector: Detector, config: VaeGanConfig) -> None:
        super().__init__(detector, config)
        if self.conditions != ("incident_energy",):
            msg = "vae-gan: key 'conditions': expected 'incident_energy' alone"
            raise ConfigError(msg)
        size = detector.shape[0], detector.shape[1]

        def build(outputs: int) -> nn.Module:
            return ImageGenerator(size, config.latent, config.generator, outputs - detector.n_cells)

        self.generator: CellNetworks = CELL_NETWORKS[config.cells](detector, build, nn.ReLU())
        self.generator.rise = _RISE
        self.calibration = ImageCalibration(detector) if config.calibrate else None
        extras = self.generator.extras
        maps = (self.generator.width - extras) // detector.n_cells
        self.encoder = ImageEncoder(size, maps, extras, config.latent)
        self.discriminator = ImageDiscriminator(size, maps, extras, config.discriminator, config.dropout)
        self.histograms = ImageHistograms(detector)

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Accept grids of one layer whose sides plus 2 are multiples of 4, such as 10 x 10.

        Raises:
            IncompatibleError: For any other detector.
        """
        sides = detector.shape[:2]
        fits = detector.is_grid and detector.n_layers == 1
        if not fits or any(side < _LEAST or (side + 2) % 4 for side in sides):
            msg = (
                f"vae-gan makes images of one layer, such as ild-ecal-10x10, not showers of '{detector.name}' "
                f"{detector.shape}; project them first (caloforge project)"
            )
            raise IncompatibleError(msg)

    def fit_transforms(self, showers: Showers) -> None:
        """Set widths of energy and pixels, and the training images' histograms."""
        super().fit_transforms(showers)
        cells = torch.from_numpy(showers.cells)
        self.generator.fit(cells, self._energy(self.condition_matrix(showers)))
        self.histograms.fit(cells)

    @property
    def noise_size(self) -> int:
        """Normal numbers that one shower takes."""
        return self.config.latent

    def make(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return the generator's own pixels (B, n_cells), MeV, which the discriminator sees."""
        return self.generator.make(noise, self._energy(conditions))

    def make_for_calibration(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return pixels (B, n_cells), MeV, with small energies in those that would be empty."""
        return self.generator.make(noise, self._energy(conditions), dense=True)

    def stages(self) -> tuple[Stage, ...]:
        """Return the adversarial training, then the calibration."""
        c = self.config
        optimizers = {
            "discriminator": OptimizerSpec.of(c.discriminator_optimizer, self.discriminator),
            "generator": OptimizerSpec.of(c.generator_optimizer, self.generator, self.encoder),
        }
        training = Stage("adversarial", c.epochs, c.batch_size, optimizers, self.step, metric="histograms")
        return training, *self.calibration_stages()

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Update the discriminator, and each ``discriminator_steps``-th time generator and encoder."""
        losses = {"discriminator": self.discriminator_loss(batch, updater)}
        updater.update("discriminator", losses["discriminator"])
        if updater.every(self.config.discriminator_steps):
            adversarial, divergence = self.generator_losses(batch, updater)
            losses |= {"generator": adversarial, "kl": divergence}
            updater.update("generator", adversarial + self.config.kl * divergence)
        return {name: loss.detach() for name, loss in losses.items()}

    def discriminator_loss(self, batch: Batch, updater: Updater) -> Tensor:
        """Return the discriminator's loss."""
        with torch.no_grad():
            real, fakes, _ = self._views(batch, updater)
        logits = self.discriminator(real, torch.zeros_like(real))
        loss = binary_cross_entropy_with_logits(logits, torch.full_like(logits, self.config.label))
        for weight, view, difference in fakes:
            loss = loss + weight * softplus(self.discriminator(view, difference)).mean()  # -log(1 - D)
        return loss

    def generator_losses(self, batch: Batch, updater: Updater) -> tuple[Tensor, Tensor]:
        """Return the adversarial loss of generator and encoder, and the divergence, unweighted."""
        _, fakes, divergence = self._views(batch, updater)
        loss = CRITIC_LOSSES["bce"].generator
        terms = [weight * loss(self.discriminator(view, difference)) for weight, view, difference in fakes]
        return torch.stack(terms).sum(), divergence

    def _views(
        self, batch: Batch, updater: Updater
    ) -> tuple[Tensor, list[tuple[float, Tensor, Tensor]], Tensor]:
        """Return the real view, (weight, view, difference) of generated ones, and the divergence.

        The weights sum to 1. Reconstructions and images from N(0, 1) pass the generator together.
        """
        n, energy, prior = len(batch), self._energy(batch.conditions), self.config.prior
        real = self.generator.view(batch.cells, energy)
        mean, log_variance = self.encoder(real)
        z = mean + torch.exp(0.5 * log_variance) * updater.normal(n, self.config.latent)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1).mean()
        if prior:
            z, energy = torch.cat([z, updater.normal(n, self.config.latent)]), energy.repeat(2)
        views = self.generator.view(self.generator.make(z, energy), energy)
        fakes = [(1.0 / (1.0 + prior), views[:n], views[:n] - real)]
        if prior:
            fakes.append((prior / (1.0 + prior), views[n:], torch.zeros_like(real)))
        return real, fakes, divergence

    def validate(self, data: TrainingData) -> dict[str, float]:
        """Return the physics figures and the five histograms' distance to the training images."""
        figures = super().validate(data)
        batch = data.take(torch.arange(len(data), device=data.device))
        n = min(self.config.n_selection, _EACH * len(data))
        rows = torch.arange(n, device=data.device) % len(data)
        cells = self.draw(batch.conditions[rows], seed=1, batch_size=10_000, stream="selection")
        return figures | self.histograms.distance(cells)

    def _energy(self, conditions: Tensor) -> Tensor:
        return conditions[:, 0]
