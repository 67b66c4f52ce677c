"""Base of the GANs on grids: values, conditions, losses and training steps.

A subclass builds the two networks, see :mod:`~caloforge.models.grid_gan.conv3d` and :mod:`~caloforge.models.grid_gan.conv2d`.
A training step is

1. the discriminator on real and on generated showers, two updates as published or one with both: a BCE(real or generated) + b |E error|
   of its two learned heads, optionally with the penalty R1 on real showers;
2. ``generator_steps`` times the generator, with new noise each, on the losses of all heads: those two, the error in per cent of the
   cell sum against the mean visible energy at these conditions, and |measured angle - theta| in radians.

Beside the published settings there are, each off in the preset ``paper``:

- ``rescale``: the cells are multiplied so that their sum is a visible energy drawn from the distribution fitted to the training
  showers (:class:`~caloforge.models.grid_gan.settings.VisibleEnergy`). The normal number that decides it is also the first latent
  number, so that the shape can follow the energy. Response and resolution are then fitted and not learned by the network;
- ``symmetries``: training showers, and generated ones by three more normal numbers, are mirrored and swapped by the
  symmetries of the beam (:mod:`~caloforge.models.nn.conditions`);
- ``mean_epochs``: epochs before those, in which the generator minimises the squared distance of its values to real ones of the same
  conditions, without rectifier or discriminator. On a large grid a generator that begins with noise in all cells does not recover;
- ``informed``: what the discriminator sees (:mod:`~caloforge.models.grid_gan.discriminator`);
- moving averages of the generator's weights, for which the batch norms' means and variances are recomputed before they are used or saved;
- ``calibrate``: post-training calibration of layers, rings and core cells (:mod:`~caloforge.models.calibration.grids`), which otherwise
  deviate by several per cent, and the depth of showers by half its width.

Initial weights are uniform within sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010) and biases 0, the defaults of the library
of the published networks. Where the latent vector is multiplied by the incident energy, random biases would let an untrained generator
make the same shower, often an empty one, at all low energies.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.models.base import counted_noise
from caloforge.models.calibration.base import CalibratedModel
from caloforge.models.calibration.grids import GridCalibration
from caloforge.models.calibration.spectrum import RESERVE
from caloforge.models.grid_gan.discriminator import (
    CELL_SCALES,
    GridDiscriminator,
    Heads,
    normalise_spectrum,
)
from caloforge.models.grid_gan.settings import CONDITIONINGS, GridGanConfig, VisibleEnergy, percentage_error
from caloforge.models.nn.adversarial import gradient_square
from caloforge.models.nn.conditions import BeamSymmetry, ConditionEncoder
from caloforge.models.selection import compare, shape_figures
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater
from caloforge.settings import ModelConfig
from caloforge.showers import Showers

__all__ = ["THRESHOLD", "GridGan"]

THRESHOLD = 1e-3
"""Cells below it are empty, MeV (1e-6 GeV, as published)."""
_FLAGS = 3
_RISE = 10.0  # of the reserve with the network's values
_SETTLED = 256  # showers a pass, and passes, that give the batch norms' statistics
_PASSES = 4


class GridGan(CalibratedModel):
    """Base of the generators on grids."""

    Config = GridGanConfig
    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)
    config: GridGanConfig

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        other = [n for n in self.conditions if n not in ("incident_energy", "incident_theta")]
        if other or "incident_energy" not in self.columns:
            msg = (
                f"conditions are {', '.join(self.conditions)}; expected incident_energy, or incident_energy and "
                "incident_theta"
            )
            raise ConfigError(msg)
        c = self.config
        self.angled = "incident_theta" in self.columns
        self.encoder = ConditionEncoder(detector, self.columns)
        theta = self.columns["incident_theta"].start if self.angled else None
        self.latent = CONDITIONINGS[c.latent](
            self.latent_size, self.encoder, self.columns["incident_energy"].start, theta
        )
        self.scale = CELL_SCALES[c.cells](c.cell_unit, c.cell_power)
        self.visible = VisibleEnergy(self.encoder.width, detector.sampling_fraction)
        self.symmetry = BeamSymmetry(detector, self.columns)
        self.calibration = (
            GridCalibration(detector, self.encoder.width, self.angled, self.symmetry) if c.calibrate else None
        )
        self.generator = self.build_generator()
        body, features = self.build_discriminator(2 if c.informed else 1)
        self.discriminator = GridDiscriminator(
            detector, self.scale, body, features, self.encoder.width, c.informed, self.angled
        )
        for part in (*self.generator.modules(), *self.discriminator.modules()):
            if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        if c.norm == "spectral":
            normalise_spectrum(self.discriminator.body)

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """Length of the generator's input."""

    @abstractmethod
    def build_generator(self) -> nn.Module:
        """Return the network (B, latent_size) -> values (B, X, Y, L) before the rectifier."""

    @abstractmethod
    def build_discriminator(self, channels: int) -> tuple[nn.Module, int]:
        """Return the network (B, channels, X, Y, L) -> (B, features), and the number of features."""

    @property
    def noise_size(self) -> int:
        """Normal numbers a shower: the latent ones, and those that choose its symmetry."""
        return self.latent.n_normals + (_FLAGS if self.config.symmetries else 0)

    def values(
        self,
        noise: Tensor,
        conditions: Tensor,
        rectified: bool = True,
        rescaled: bool = True,
        reserve: bool = False,
    ) -> Tensor:
        """Return values (B, X, Y, L) of noise and conditions; without rectifier they may be negative.

        With a ``reserve`` cells that would be empty have energies below 1e-5 MeV, which rise with the network's output.
        """
        normals = noise[:, : self.latent.n_normals]
        flags = self.symmetry.flags(noise[:, -_FLAGS:]) if self.config.symmetries else None
        if flags is not None:
            conditions = self.symmetry.conditions(conditions, flags)
        values: Tensor = self.generator(self.latent(normals, conditions)).float()
        faint = RESERVE * torch.sigmoid(_RISE * values) if reserve else None
        if rectified:
            values = torch.relu(values)
        if self.config.rescale and rescaled:
            cells = self.scale.inverse(values)
            energy = self.condition(conditions, "incident_energy")[:, 0]
            wanted = self.visible.draw(normals[:, 0], self.encoder(conditions), energy)
            factor = wanted / cells.clamp_min(0.0).sum((1, 2, 3)).clamp_min(1e-5 * wanted)
            values = self.scale(cells * factor[:, None, None, None])
        if faint is not None:
            values = self.scale(self.scale.inverse(values) + faint)
        if flags is None:
            return values
        return self.symmetry.cells(values.flatten(1), flags).view_as(values)

    def make(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return the cells (B, n_cells) before the calibration, MeV, none between 0 and the threshold."""
        return _cut(self.scale.inverse(self.values(noise, conditions)).flatten(1))

    def make_for_calibration(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return all cells (B, n_cells), MeV, also faint ones, and a reserve of fainter ones where they would be empty."""
        return self.scale.inverse(self.values(noise, conditions, reserve=True)).flatten(1)

    def encode(self, conditions: Tensor) -> Tensor:
        """Return the encoded conditions (B, width)."""
        encoded: Tensor = self.encoder(conditions)
        return encoded

    def fit_transforms(self, showers: Showers) -> None:
        """Fit the encoder and the visible energy; find the symmetries of beam and showers."""
        super().fit_transforms(showers)
        matrix = self.condition_matrix(showers)
        self.encoder.fit(matrix)
        visible = torch.from_numpy(showers.visible_energy)
        self.visible.fit(self.encoder(matrix), torch.from_numpy(showers.incident_energy), visible)
        self.symmetry.allow(showers.incident_theta)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with a random symmetry applied to each shower."""
        return self.symmetry.augment(batch, generator) if self.config.symmetries else batch

    def stages(self) -> tuple[Stage, ...]:
        """Return the stage of both networks, then the calibration."""
        training = Stage(
            "gan",
            self.config.epochs,
            self.config.batch_size,
            {
                "generator": OptimizerSpec.of(self.config.generator, self.generator),
                "discriminator": OptimizerSpec.of(self.config.discriminator, self.discriminator),
            },
            self.step,
            metric="shapes",
            # the compiler has no gradients of gradients, which the penalty needs
            compiled=(self.generator,) if self.config.r1 else (self.generator, self.discriminator),
        )
        return (training, *self.calibration_stages())

    def judge(self, values: Tensor, conditions: Tensor) -> Heads:
        """Return the discriminator's heads for values (B, X, Y, L)."""
        energy = self.condition(conditions, "incident_energy")[:, 0]
        theta = (
            self.condition(conditions, "incident_theta")[:, 0] if self.angled else energy.new_full((), 90.0)
        )
        heads: Heads = self.discriminator(values, energy, torch.deg2rad(theta), self.encoder(conditions))
        return heads

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Train the discriminator once, then the generator ``generator_steps`` times."""
        real, conditions = self.scale(_cut(batch.cells)).view(-1, *self.detector.shape), batch.conditions
        if updater.epoch < self.config.mean_epochs:
            noise = updater.normal(len(batch), self.noise_size)
            loss = (self.values(noise, conditions, rectified=False, rescaled=False) - real).square().mean()
            updater.update("generator", loss)
            return {"mean": loss.detach()}
        rectified = updater.epoch >= self.config.linear_epochs
        with torch.no_grad():
            fake = self.values(updater.normal(len(batch), self.noise_size), conditions, rectified)
        logs = self._discriminator_step(real, fake, conditions, updater)
        for _ in range(self.config.generator_steps):
            noise = updater.normal(len(batch), self.noise_size)
            loss = self._generator_loss(self.values(noise, conditions, rectified), conditions)
            updater.update("generator", loss)
        return {**logs, "generator": loss.detach()}

    def _discriminator_step(
        self, real: Tensor, fake: Tensor, conditions: Tensor, updater: Updater
    ) -> dict[str, Tensor]:
        c = self.config
        penalised = c.r1 > 0 and updater.every(c.r1_every)
        terms = {}
        for name, values, label in (("real", real, c.real_label), ("fake", fake, 0.0)):
            values = values.detach().requires_grad_(penalised and name == "real")
            device = values.device.type
            rounded = torch.is_autocast_enabled(device) and not values.requires_grad
            with torch.autocast(device, enabled=rounded):  # gradients of gradients need more than 8 bits
                heads = self.judge(values, conditions)
            flipped = updater.uniform(len(values)) < c.flips
            targets = torch.where(flipped, c.real_label - label, label).to(heads.real)
            loss = c.weights.real * binary_cross_entropy_with_logits(heads.real, targets)
            if c.weights.energy:
                loss = loss + c.weights.energy * self.latent.energy_error(heads.energy, conditions)
            if values.requires_grad:
                loss = loss + 0.5 * c.r1 * c.r1_every * gradient_square(heads.real, values)
            if c.separate:
                updater.update("discriminator", loss)
            terms[name] = loss
        if not c.separate:
            updater.update("discriminator", terms["real"] + terms["fake"])
        return {f"discriminator_{name}": loss.detach() for name, loss in terms.items()}

    def _generator_loss(self, values: Tensor, conditions: Tensor) -> Tensor:
        w, heads = self.config.weights, self.judge(values, conditions)
        loss = w.real * binary_cross_entropy_with_logits(heads.real, torch.ones_like(heads.real))
        if w.energy:
            loss = loss + w.energy * self.latent.energy_error(heads.energy, conditions)
        if w.total:
            energy = self.condition(conditions, "incident_energy")[:, 0]
            mean = self.visible.mean(self.encoder(conditions), energy)
            loss = loss + w.total * percentage_error(heads.total, mean)
        if w.angle and self.angled:
            theta = torch.deg2rad(self.condition(conditions, "incident_theta")[:, 0])
            loss = loss + w.angle * (heads.theta - theta).abs().mean()
        return loss

    def validate(self, data: TrainingData) -> dict[str, float]:
        """Return figures of generated against held-out showers; see :mod:`caloforge.models.selection`."""
        truth, fake, energy = self.imitate(data)
        layer = torch.as_tensor(self.detector.cell_layer, device=data.device)
        return compare(truth, fake, energy, layer) | shape_figures(truth, fake, energy, self.detector.shape)

    @torch.no_grad()
    def settle(self, data: TrainingData) -> None:
        """Recompute the statistics of the generator's batch norms if its weights are averaged, with the same noise each time."""
        norms = [m for m in self.generator.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
        if not self.config.generator.ema or len(data) < 2:
            return
        n = min(_SETTLED, len(data))
        conditions = data.take(torch.linspace(0, len(data) - 1, n).long().to(data.device)).conditions
        kept = [(norm.momentum, norm.training) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for index in range(_PASSES):
            noise = counted_noise(1, index * n, n, self.noise_size, conditions.device, "batch norm")
            self.values(noise, conditions)
        for norm, (momentum, training) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.train(training)


def _cut(cells: Tensor) -> Tensor:
    """Return cells with those below the threshold empty."""
    return torch.where(cells < THRESHOLD, torch.zeros_like(cells), cells)
