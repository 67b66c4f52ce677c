"""What the two generators on grids share: values, conditions, losses, steps.

A subclass brings the two networks; :mod:`~caloforge.models.grid_gan.conv3d` and
:mod:`~caloforge.models.grid_gan.conv2d` do. A training step is

1. the discriminator on real and on generated showers, two updates as published or one with both, with the losses
   of its two learnt heads, a R (real or not) + b |E error|; optionally the penalty R1 on real showers;
2. ``generator_steps`` times the generator, with new noise each, on the losses of all heads: those two, the error in
   per cent of the cell sum against the mean visible energy of the conditions, and |measured angle - theta| in radians.

Beside the published settings there are, each off in the preset ``paper``:

- ``rescale``: the cells are multiplied so that their sum is a visible energy drawn from the distribution fitted to the
  training showers (:mod:`~caloforge.models.calibration.conditional_quantiles`); the normal number that decides it is also the first of the latent
  ones, so that the shape can follow the energy. The response and its width are then fitted and not learnt by the network;
- ``symmetries``: training showers, and generated ones by three more normal numbers, are mirrored and swapped by the
  symmetries that hold for the training showers (:mod:`~caloforge.models.nn.symmetry`);
- ``mean_epochs``: epochs before those, in which the generator lowers the squared distance of its values to real ones of the same
  conditions, without rectifier or discriminator. A large grid that begins with noise everywhere loses to the discriminator otherwise;
- ``informed``: what the discriminator sees (:mod:`~caloforge.models.grid_gan.discriminator`);
- moving averages of the generator's weights; before each validation the batch norms' means and variances are
  taken anew for them;
- ``calibrate``: after training, layers, rings and core cells of generated showers are carried to the means and widths that they
  have in the training showers (:mod:`~caloforge.models.calibration.grids`), which the adversarial training leaves off by several per cent,
  the depth of showers by half its width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel, counted_noise
from caloforge.models.calibration.conditional_quantiles import VisibleEnergy
from caloforge.models.calibration.grids import GridCalibration
from caloforge.models.grid_gan.discriminator import (
    GridDiscriminator,
    Heads,
    cell_scale,
    cell_sum,
    normalise_spectrum,
)
from caloforge.models.grid_gan.selection import grid_figures
from caloforge.models.grid_gan.settings import CONDITIONINGS, GridGanConfig, glorot
from caloforge.models.nn.adversarial import ADVERSARIAL, gradient_square, labels, percentage_error
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.models.nn.symmetry import GridSymmetry
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater
from caloforge.settings import ModelConfig
from caloforge.showers import Showers

__all__ = ["GridGan"]

THRESHOLD = 1e-3
"""Cells below it are empty, MeV (1e-6 GeV, as published)."""
_FLAGS = 3


class GridGan(ShowerModel):
    """Base of the generators on grids.

    Attributes:
        latent_size: Length of the generator's input.
        generator: Turns latent vectors (B, latent_size) into values (B, X, Y, L) before the rectifier.
        discriminator: Judges values.
    """

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
        self.angled = "incident_theta" in self.columns
        self.encoder = ConditionEncoder(detector, self.columns)
        theta = self.columns["incident_theta"].start if self.angled else None
        self.latent = CONDITIONINGS[self.config.latent](
            self.latent_size, self.encoder, self.columns["incident_energy"].start, theta
        )
        self.scale = cell_scale(self.config.cells, self.config.cell_unit, self.config.cell_power)
        self.visible = VisibleEnergy(self.encoder.width, detector.sampling_fraction)
        self.symmetry = GridSymmetry()
        self.calibration = (
            GridCalibration(detector, self.encoder.width, self.angled) if self.config.calibrate else None
        )
        self.generator = self.build_generator()
        body, features = self.build_discriminator(2 if self.config.informed else 1)
        self.discriminator = GridDiscriminator(
            detector, self.scale, body, features, self.encoder.width, self.config.informed, self.angled
        )
        glorot(self.generator)
        glorot(self.discriminator)
        if self.config.norm == "spectral":
            normalise_spectrum(self.discriminator.body)

    # what a subclass says

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

    # generation

    @property
    def noise_size(self) -> int:
        """Normal numbers that one shower takes: the latent ones, and those that choose its symmetry."""
        return self.latent.n_normals + (_FLAGS if self.config.symmetries else 0)

    def values(
        self, noise: Tensor, conditions: Tensor, rectified: bool = True, rescaled: bool = True
    ) -> Tensor:
        """Return values (B, X, Y, L) of noise and conditions; without rectifier they may be negative."""
        normals = noise[:, : self.latent.n_normals]
        flags = self.symmetry.flags(noise[:, -_FLAGS:]) if self.config.symmetries else None
        if flags is not None:
            conditions = self._mirrored(conditions, flags)
        values: Tensor = self.generator(self.latent(normals, conditions)).float()
        if rectified:
            values = torch.relu(values)
        if self.config.rescale and rescaled:
            cells = self.scale.inverse(values)
            energy = self.condition(conditions, "incident_energy")[:, 0]
            wanted = self.visible.draw(normals[:, 0], self.encoder(conditions), energy)
            factor = wanted / cell_sum(cells.clamp_min(0.0)).clamp_min(1e-5 * wanted)
            values = self.scale(cells * factor[:, None, None, None])
        if flags is None:
            return values
        turned: Tensor = self.symmetry(values, flags)
        return turned

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, none between 0 and the threshold."""
        cells = self.make(noise, conditions)
        if self.calibration is None or not self.calibration.fitted:
            return cells
        return _cut(self.calibration(cells, self.encoder(conditions)))

    def make(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return the generator's own cells (B, n_cells), MeV, none between 0 and the threshold."""
        return _cut(self.scale.inverse(self.values(noise, conditions)).flatten(1))

    def load_weights(self, state: Mapping[str, Tensor], shipped: bool = False) -> None:
        """Load weights; those without a calibration, of a run that had none, load as they are."""
        if self.calibration is not None and not any(name.startswith("calibration.") for name in state):
            unfitted = GridCalibration(self.detector, self.encoder.width, self.angled)
            state = {**unfitted.state_dict(prefix="calibration."), **state}
        super().load_weights(state, shipped)

    # constants and symmetries

    def fit_transforms(self, showers: Showers) -> None:
        """Fit the encoder and the visible energy; find the symmetries that hold for the beam."""
        super().fit_transforms(showers)
        matrix = self.condition_matrix(showers)
        self.encoder.fit(matrix)
        visible = torch.from_numpy(showers.visible_energy)
        self.visible.fit(self.encoder(matrix), torch.from_numpy(showers.incident_energy), visible)
        beam = self.detector.beam
        square = self.detector.shape[0] == self.detector.shape[1] and _pitches(self.detector)
        upright = bool((abs(showers.incident_theta - 90.0) < 1e-3).all()) and not self.angled
        mirror_x, mirror_y = abs(beam.x) < 1e-6, abs(beam.y) < 1e-6 and (upright or self.angled)
        self.symmetry.allow(mirror_x, mirror_y, mirror_x and mirror_y and upright and square)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with each shower changed by a symmetry that holds."""
        if not self.config.symmetries:
            return batch
        numbers = torch.rand(len(batch), _FLAGS, generator=generator, device=batch.cells.device) - 0.5
        flags = self.symmetry.flags(numbers)
        grid = self.symmetry(batch.cells.view(-1, *self.detector.shape), flags)
        return Batch(grid.flatten(1), self._mirrored(batch.conditions, flags), batch.indices)

    def _mirrored(self, conditions: Tensor, flags: Tensor) -> Tensor:
        """Return the conditions with theta -> 180 - theta where y is mirrored."""
        if not self.angled:
            return conditions
        column = self.columns["incident_theta"].start
        theta = conditions[:, column]
        mirrored = torch.where(flags[:, 1], 180.0 - theta, theta)
        return torch.cat([conditions[:, :column], mirrored[:, None], conditions[:, column + 1 :]], 1)

    # training

    def stages(self) -> tuple[Stage, ...]:
        """Return the stage in which both networks learn, then the calibration."""
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
        if self.calibration is None:
            return (training,)
        return (training, Stage("calibrate", fit=self.fit_calibration))

    def fit_calibration(self, data: TrainingData, generator: torch.Generator) -> None:
        """Compare generated with training showers and set the calibration."""
        assert self.calibration is not None
        self.eval()

        def encode(conditions: Tensor) -> tuple[Tensor, Tensor]:
            return self.encoder(conditions), self.condition(conditions, "incident_energy")[:, 0]

        self.calibration.fit_to(data, self.make, self.noise_size, encode, self.symmetry.allowed)

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
        real = self.scale(_cut(batch.cells)).view(-1, *self.detector.shape)
        if updater.epoch < self.config.mean_epochs:
            return {"mean": self._mean_step(real, batch.conditions, updater)}
        rectified = updater.epoch >= self.config.linear_epochs
        with torch.no_grad():
            fake = self.values(updater.normal(len(batch), self.noise_size), batch.conditions, rectified)
        logs = self._discriminator_step(real, fake, batch.conditions, updater)
        for _ in range(self.config.generator_steps):
            noise = updater.normal(len(batch), self.noise_size)
            loss = self._generator_loss(self.values(noise, batch.conditions, rectified), batch.conditions)
            updater.update("generator", loss)
        return {**logs, "generator": loss.detach()}

    def _mean_step(self, real: Tensor, conditions: Tensor, updater: Updater) -> Tensor:
        noise = updater.normal(len(real), self.noise_size)
        loss = (self.values(noise, conditions, rectified=False, rescaled=False) - real).square().mean()
        updater.update("generator", loss)
        return loss.detach()

    def _discriminator_step(
        self, real: Tensor, fake: Tensor, conditions: Tensor, updater: Updater
    ) -> dict[str, Tensor]:
        c = self.config
        penalised = c.r1 > 0 and updater.every(c.r1_every)
        terms = {}
        for name, values, label, other in (
            ("real", real, c.real_label, 0.0),
            ("fake", fake, 0.0, c.real_label),
        ):
            values = values.detach().requires_grad_(penalised and name == "real")
            with (
                nullcontext()
                if not values.requires_grad
                else torch.autocast(values.device.type, enabled=False)
            ):
                heads = self.judge(values, conditions)  # a gradient of a gradient is not left to 8 bits
            targets = labels(updater.uniform(len(values)), label, other, c.flips)
            loss = c.weights.real * ADVERSARIAL[c.loss].discriminator(heads.real, targets)
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
        loss = w.real * ADVERSARIAL[self.config.loss].generator(heads.real, torch.ones_like(heads.real))
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
        """Take the batch norms' statistics anew for the weights in place, then compare shapes and core cells."""
        if self.config.generator.ema:
            self.settle(data.take(torch.arange(min(256, len(data)), device=data.device)).conditions)
        return grid_figures(self, data)

    @torch.no_grad()
    def settle(self, conditions: Tensor, passes: int = 4) -> None:
        """Set the generator's batch norms to the mean over some passes with conditions (B, C) and fixed noise."""
        norms = [m for m in self.generator.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
        if len(conditions) < 2:
            return
        kept = [(norm.momentum, norm.training) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for index in range(passes):
            noise = counted_noise(
                1, index * len(conditions), len(conditions), self.noise_size, conditions.device
            )
            self.values(noise, conditions)
        for norm, (momentum, training) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.train(training)


def _cut(cells: Tensor) -> Tensor:
    """Return cells with those below the threshold empty."""
    return torch.where(cells < THRESHOLD, torch.zeros_like(cells), cells)


def _pitches(detector: Detector) -> bool:
    """Whether the cells are as wide as high."""
    centres = detector.cell_centres
    return bool(abs(centres[:, 0].max() - centres[:, 1].max()) < 1e-6)
