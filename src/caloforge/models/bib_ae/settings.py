"""Settings of the BIB-AE; the defaults are the preset ``improved``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from caloforge.models.calibration.base import CalibratedSampling
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = ["PAPER", "BibAeConfig", "BibSampling", "BibWeights", "FlowSettings", "SortedWeights"]

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class BibSampling(CalibratedSampling):
    """Options of generation.

    Arguments:
        calibrated: Whether the energies of hits are mapped to the true spectrum.
        latent: Density of the latents: ``normal``, ``kde`` or ``flow``; empty: the model's setting.
    """

    latent: Literal["", "normal", "kde", "flow"] = ""


class BibWeights(Settings):
    """Weights of the losses of encoder and decoder.

    Arguments:
        likelihood: Of the mean energies and of the sampled cells, where the generator has them.
        critic: Of the critic that is trained throughout.
        fresh: Of the critic that is initialised again.
        latent_critic: Of the critic of latents.
        latent_mmd: Of the discrepancy (MMD) of latents from N(0, 1).
        kl: Of the Kullback-Leibler divergence, summed over latents.
    """

    likelihood: Weight = 0.01
    critic: Weight = 0.05
    fresh: Weight = 0.05
    latent_critic: Weight = 0.05
    latent_mmd: Weight = 1.0
    kl: Weight = 0.005


class SortedWeights(Settings):
    """Weights of the losses of the post-processor.

    Arguments:
        fidelity: Of the squared error, or of the likelihood, cell by cell.
        mmd: Of the two discrepancies of the sorted cells.
        mse: Of the squared error of the sorted cells.
        mae: Of the absolute error of the sorted cells.
        total: Of the squared difference of the sums, MeV^2.
        stride: Cells between two windows of the discrepancies.
    """

    fidelity: Weight = 0.01
    mmd: Weight = 1.0
    mse: Weight = 0.01
    mae: Weight = 0.1
    total: Weight = 0.0
    stride: Count = 75


class FlowSettings(Settings):
    """Sizes of the flow, see :class:`~caloforge.models.bib_ae.latents.LatentFlow`."""

    blocks: Count = 4
    couplings: Annotated[int, Field(ge=0)] = 1
    hidden: tuple[int, ...] = (128, 128)
    spline_hidden: tuple[int, ...] = (128, 128)
    bins: Annotated[int, Field(ge=2)] = 8


class BibAeConfig(ModelConfig):
    """Settings of the BIB-AE.

    Arguments:
        decoder: Decoder and post-processor: ``published``, or along the shower ``axis`` (:mod:`~caloforge.models.bib_ae.generators`).
        latent_size: Latents.
        noise: Further normal numbers of the decoder.
        cell_noise: Normal numbers for the cells; distant cells share one where there are more cells.
        width: Channels of the post-processor.
        features: Maps of the decoder for the post-processor, beside the energy.
        latent: Density of the latents at generation: ``normal``, ``kde`` or ``flow``.
        adversarial: Losses of critics and generator (:mod:`~caloforge.models.nn.adversarial`), with the penalty of each.
        penalty: Weight of the critics' gradient penalty.
        penalty_every: Steps between two penalties, whose weight is that much larger.
        critic_steps: Critic steps for one step of encoder and decoder.
        critics_ramp: Part of the first stage over which the critics' weights rise from 0.
        differences: Whether the critics see the difference to the encoded shower.
        fresh_every: Epochs after which the second critic is initialised again.
        symmetries: Mirror training showers in x where the beam enters in the middle.
        weights: Of the first stage.
        sorted: Of the second stage.
        flow: Sizes of the flow.
        kde_most: Most components of the kernel density.
        kde_bandwidth: Factor on its bandwidth.
        epochs: Of the first stage.
        post_epochs: Of the second stage.
        post_first: Part of the second stage with the cell-by-cell loss alone.
        flow_epochs: Of the last stage.
        batch_size: Showers a step.
        flow_batch_size: Codes a step of the flow.
        generator: Optimiser of encoder and decoder.
        critic: Optimiser of each critic of showers.
        latent_critic: Optimiser of the latent critic.
        post: Optimiser of the post-processor.
        flow_optimizer: Optimiser of the flow.
    """

    decoder: Literal["published", "axis"] = "axis"
    latent_size: Count = 24
    noise: Count = 64
    cell_noise: Annotated[int, Field(ge=16)] = 8192
    width: Count = 32
    features: Annotated[int, Field(ge=0)] = 4
    latent: Literal["normal", "kde", "flow"] = "flow"
    adversarial: Literal["wasserstein", "bce"] = "bce"
    penalty: Weight = 0.1
    penalty_every: Count = 8
    critic_steps: Count = 1
    critics_ramp: Annotated[float, Field(ge=0, le=1)] = 0.3
    differences: bool = False
    fresh_every: Count = 20
    symmetries: bool = True
    weights: BibWeights = BibWeights()
    sorted: SortedWeights = SortedWeights()
    flow: FlowSettings = FlowSettings()
    kde_most: Count = 2000
    kde_bandwidth: Annotated[float, Field(gt=0)] = 0.5
    epochs: Count = 100
    post_epochs: Annotated[int, Field(ge=0)] = 20
    post_first: Annotated[float, Field(ge=0, le=1)] = 0.5
    flow_epochs: Annotated[int, Field(ge=0)] = 300
    batch_size: Annotated[int, Field(ge=2)] = 64
    flow_batch_size: Annotated[int, Field(ge=2)] = 512
    generator: OptimizerSettings = OptimizerSettings(
        lr=1e-3, betas=(0.9, 0.99), schedule="cosine", final=0.02, warmup=200, clip=5.0, ema=0.999
    )
    critic: OptimizerSettings = OptimizerSettings(lr=3e-4, betas=(0.0, 0.99), schedule="cosine", final=0.05)
    latent_critic: OptimizerSettings = OptimizerSettings(lr=3e-4, betas=(0.0, 0.99), schedule="cosine")
    post: OptimizerSettings = OptimizerSettings(
        lr=1e-3, betas=(0.9, 0.99), schedule="cosine", warmup=50, clip=5.0, ema=0.995
    )
    flow_optimizer: OptimizerSettings = OptimizerSettings(
        lr=1e-3, schedule="cosine", warmup=50, clip=5.0, ema=0.995
    )


_PLAIN: Mapping[str, Any] = {"warmup": 0, "clip": 0.0, "ema": 0.0}
_BETAS = {"betas": (0.5, 0.9), "schedule": "exponential", "gamma": 0.97, **_PLAIN}

PAPER: Mapping[str, Any] = {
    "decoder": "published",
    "noise": 488,
    "width": 128,
    "features": 0,
    "adversarial": "wasserstein",
    "penalty": 10.0,
    "penalty_every": 1,
    "critic_steps": 5,
    "critics_ramp": 0.0,
    "differences": True,
    "fresh_every": 1,
    "symmetries": False,
    "weights": {
        "likelihood": 0.0,
        "critic": 1.0,
        "fresh": 1.0,
        "latent_critic": 100.0,
        "latent_mmd": 100.0,
        "kl": 0.1,
    },
    "sorted": {"fidelity": 1.0, "mmd": 5.0, "mse": 10.0, "mae": 10.0, "total": 1e-4, "stride": 25},
    "flow": {"blocks": 8, "couplings": 3, "hidden": (250, 250), "spline_hidden": (100, 100)},
    "epochs": 100,
    "flow_epochs": 200,
    "batch_size": 256,
    "flow_batch_size": 2048,
    "generator": {"lr": 5e-5, **_BETAS},
    "critic": {"lr": 5e-5, **_BETAS},
    "latent_critic": {"lr": 2e-4, **_BETAS},
    "post": {"lr": 5e-5, "schedule": "constant", **_PLAIN},
    "flow_optimizer": {"lr": 1e-4, "schedule": "constant", **_PLAIN},
}
"""The preset ``paper``."""
