r"""Variational autoencoder of ATLAS for a list of cells, conditioned on energy and cell alignments.

With encoder q(z|x), decoder p(x|z) and the normal prior p(z), all given the conditions, it lowers

.. math:: L = R(x, z) + w_{KL} \, D_{KL}(q(z|x) \,|\, p(z))

where R is the reconstruction of :mod:`caloforge.models.layers.cell_codes`.

As published (preset ``paper``): cells over E, sigmoid output, ELU, encoder of four hidden layers and the mirrored
decoder, ten latents, weights 1 (cells), 1e-4 (KL), 1e-2 (total energy) and 8e-2, 6e-1, 2e-1 (layer fractions; the
fourth is not given: 2e-1 again), RMSprop 1e-4, batches of 100, 100 epochs, variance-scaling kernels, biases of one. Not
given and chosen here: the fourth width (50), squared error as the reconstruction.

What ``improved`` changes, and why: the squared error of cells over E sees only the few largest ones, and sampling the
decoder's mean alone makes every distribution too narrow. So the code is layers first and cells on a logarithmic scale,
the decoder gives a width for every number, which sampling draws, and the KL has its proper weight of 1 (raised from 0
over the first fifth). More latents, Adam, a moving average. After training, layer energies and cells are carried to the
training showers' distributions (:mod:`caloforge.models.layers.shower_calibration`).

References:
    ATLAS Collaboration, Deep generative models for fast shower simulation in ATLAS, ATL-SOFT-PUB-2018-001.
    D. Kingma, M. Welling, Auto-encoding variational Bayes, arXiv:1312.6114.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel
from caloforge.models.config import ModelConfig, OptimizerSettings
from caloforge.models.layers.beam_symmetry import BeamSymmetry
from caloforge.models.layers.cell_codes import CODES, ShowerCode
from caloforge.models.layers.conditions import ConditionEncoder
from caloforge.models.layers.mlp import mlp
from caloforge.models.layers.shower_calibration import ShowerCalibration
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater
from caloforge.showers import Showers

__all__ = ["Vae", "VaeConfig"]


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
        calibrate: After training, carry layer energies and cells to the training showers' distributions.
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


class Vae(ShowerModel):
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

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Decode latents from the prior: noise (B, noise_size), conditions (B, C) -> cells (B, n_cells), MeV."""
        if self.calibration is None or not self.calibration.fitted:
            return self.make(noise, conditions)
        cells: Tensor = self.calibration(self.make(noise, conditions, dense=True), conditions)
        return cells

    def make(self, noise: Tensor, conditions: Tensor, dense: bool = False) -> Tensor:
        """Return the decoder's own cells (B, n_cells), MeV."""
        latent, drawn = noise[:, : self.config.latent], noise[:, self.config.latent :]
        output = self.decoder(torch.cat([latent, self.encode_conditions(conditions)], 1))
        return self.code.decode(output, self.condition(conditions, "incident_energy")[:, 0], drawn, dense)

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
        return (
            (training,)
            if self.calibration is None
            else (training, Stage("calibration", fit=self.fit_calibration))
        )

    def fit_calibration(self, data: TrainingData, generator: torch.Generator) -> None:
        """Compare generated with training showers and set the calibration."""
        assert self.calibration is not None
        self.eval()
        self.calibration.fit_to(data, partial(self.make, dense=True), self.noise_size)

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
