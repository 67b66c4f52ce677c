"""Settings of the generators on grids; the defaults are the preset ``improved``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from caloforge.models.config import ModelConfig, OptimizerSettings, Settings

__all__ = ["GridGanConfig", "HeadWeights"]


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
        cells: What the networks work on, see :mod:`~caloforge.models.layers.cell_scale`.
        cell_unit: MeV.
        cell_power: Power of ``cells = "power"``.
        latent: How conditions enter, see :mod:`~caloforge.models.layers.latent`.
        loss: See :mod:`~caloforge.models.layers.adversarial`.
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
