"""Settings of the BIB-AE; the defaults are the preset ``improved``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from caloforge.models.calibration.base import CalibratedSampling
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = ["PAPER", "BibAeConfig", "BibSampling", "BibWeights", "FlowSettings", "SortedWeights"]

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class BibSampling(CalibratedSampling):
    """Options of generation; ``calibrated``: whether the energies of hits are mapped to the true spectrum."""

    # density of the latents: ``normal``, ``kde`` or ``flow``; empty: the model's setting
    latent: Literal["", "normal", "kde", "flow"] = ""


class BibWeights(Settings):
    """Weights of the losses of encoder and decoder."""

    likelihood: Weight = 0.01  # of the mean energies and of the sampled cells, where the generator has them
    critic: Weight = 0.05  # of the critic that is trained throughout
    fresh: Weight = 0.05  # of the critic that is initialised again
    latent_critic: Weight = 0.05  # of the critic of latents
    latent_mmd: Weight = 1.0  # of the discrepancy (MMD) of latents from N(0, 1)
    kl: Weight = 0.005  # of the Kullback-Leibler divergence, summed over latents


class SortedWeights(Settings):
    """Weights of the losses of the post-processor."""

    fidelity: Weight = 0.01  # of the squared error, or of the likelihood, cell by cell
    mmd: Weight = 1.0  # of the two discrepancies of the sorted cells
    mse: Weight = 0.01  # of the squared error of the sorted cells
    mae: Weight = 0.1  # of the absolute error of the sorted cells
    total: Weight = 0.0  # of the squared difference of the sums, MeV^2
    stride: Count = 75  # cells between two windows of the discrepancies


class FlowSettings(Settings):
    """Sizes of the flow, see :class:`~caloforge.models.bib_ae.latents.LatentFlow`."""

    blocks: Count = 4
    couplings: Annotated[int, Field(ge=0)] = 1
    hidden: tuple[int, ...] = (128, 128)
    spline_hidden: tuple[int, ...] = (128, 128)
    bins: Annotated[int, Field(ge=2)] = 8


class BibAeConfig(ModelConfig):
    """Settings of the BIB-AE."""

    search: ClassVar[Mapping[str, str]] = {
        "latent_size": "12:48:log",
        "noise": "32:128:log",
        "width": "16,24,32,48",
        "features": "0:8",
        "weights.critic": "0.01:0.2:log",
        "weights.kl": "0.001:0.05:log",
        "batch_size": "32,64,128",
        "generator.lr": "3e-4:3e-3:log",
        "critic.lr": "1e-4:1e-3:log",
    }

    # decoder and post-processor: ``published``, or along the shower ``axis``
    # (:mod:`~caloforge.models.bib_ae.generators`)
    decoder: Literal["published", "axis"] = "axis"
    latent_size: Count = 24  # latents
    noise: Count = 64  # further normal numbers of the decoder
    # normal numbers for the cells; distant cells share one where there are more cells
    cell_noise: Annotated[int, Field(ge=16)] = 8192
    width: Count = 32  # channels of the post-processor
    features: Annotated[int, Field(ge=0)] = 4  # maps of the decoder for the post-processor, beside the energy
    # density of the latents at generation: ``normal``, ``kde`` or ``flow``
    latent: Literal["normal", "kde", "flow"] = "flow"
    # losses of critics and generator (:mod:`~caloforge.models.nn.adversarial`), with the penalty of each
    adversarial: Literal["wasserstein", "bce"] = "bce"
    penalty: Weight = 0.1  # weight of the critics' gradient penalty
    penalty_every: Count = 8  # steps between two penalties, whose weight is that much larger
    critic_steps: Count = 1  # critic steps for one step of encoder and decoder
    # part of the first stage over which the critics' weights rise from 0
    critics_ramp: Annotated[float, Field(ge=0, le=1)] = 0.3
    differences: bool = False  # whether the critics see the difference to the encoded shower
    fresh_every: Count = 20  # epochs after which the second critic is initialised again
    symmetries: bool = True  # mirror training showers in x where the beam enters in the middle
    weights: BibWeights = BibWeights()  # of the first stage
    sorted: SortedWeights = SortedWeights()  # of the second stage
    flow: FlowSettings = FlowSettings()  # sizes of the flow
    kde_most: Count = 2000  # most components of the kernel density
    kde_bandwidth: Annotated[float, Field(gt=0)] = 0.5  # factor on its bandwidth
    epochs: Count = 100  # of the first stage
    post_epochs: Annotated[int, Field(ge=0)] = 20  # of the second stage
    # part of the second stage with the cell-by-cell loss alone
    post_first: Annotated[float, Field(ge=0, le=1)] = 0.5
    flow_epochs: Annotated[int, Field(ge=0)] = 300  # of the last stage
    batch_size: Annotated[int, Field(ge=2)] = 64  # showers a step
    flow_batch_size: Annotated[int, Field(ge=2)] = 512  # codes a step of the flow
    generator: OptimizerSettings = OptimizerSettings(  # optimiser of encoder and decoder
        lr=1e-3, betas=(0.9, 0.99), schedule="cosine", final=0.02, warmup=200, clip=5.0, ema=0.999
    )
    # optimiser of each critic of showers
    critic: OptimizerSettings = OptimizerSettings(lr=3e-4, betas=(0.0, 0.99), schedule="cosine", final=0.05)
    # optimiser of the latent critic
    latent_critic: OptimizerSettings = OptimizerSettings(lr=3e-4, betas=(0.0, 0.99), schedule="cosine")
    post: OptimizerSettings = OptimizerSettings(  # optimiser of the post-processor
        lr=1e-3, betas=(0.9, 0.99), schedule="cosine", warmup=50, clip=5.0, ema=0.995
    )
    flow_optimizer: OptimizerSettings = OptimizerSettings(  # optimiser of the flow
        lr=1e-3, schedule="cosine", warmup=50, clip=5.0, ema=0.995
    )


_PLAIN: Mapping[str, Any] = {"warmup": 0, "clip": 0.0, "ema": 0.0}
_BETAS = {"betas": (0.5, 0.9), "schedule": "exponential", "gamma": 0.97, **_PLAIN}

PAPER: Mapping[str, Any] = {
    "decoder": "published", "noise": 488, "width": 128, "features": 0,
    "adversarial": "wasserstein", "penalty": 10.0, "penalty_every": 1, "critic_steps": 5, "critics_ramp": 0.0,
    "differences": True, "fresh_every": 1, "symmetries": False,
    "weights": {
        "likelihood": 0.0, "critic": 1.0, "fresh": 1.0, "latent_critic": 100.0, "latent_mmd": 100.0, "kl": 0.1,
    },
    "sorted": {"fidelity": 1.0, "mmd": 5.0, "mse": 10.0, "mae": 10.0, "total": 1e-4, "stride": 25},
    "flow": {"blocks": 8, "couplings": 3, "hidden": (250, 250), "spline_hidden": (100, 100)},
    "epochs": 100, "flow_epochs": 200, "batch_size": 256, "flow_batch_size": 2048,
    "generator": {"lr": 5e-5, **_BETAS},
    "critic": {"lr": 5e-5, **_BETAS},
    "latent_critic": {"lr": 2e-4, **_BETAS},
    "post": {"lr": 5e-5, "schedule": "constant", **_PLAIN},
    "flow_optimizer": {"lr": 1e-4, "schedule": "constant", **_PLAIN},
}  # fmt: skip
"""The preset ``paper``."""
