"""Shower generators: one package for each model family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caloforge.registry import Registry

if TYPE_CHECKING:
    from caloforge.models.base import ShowerModel

__all__ = ["MODELS"]

MODELS: Registry[type[ShowerModel]] = Registry(
    "model",
    {
        "bib-ae": "caloforge.models.bib_ae.model:BibAe",
        "conv2d-gan": "caloforge.models.grid_gan.conv2d:Conv2dGan",
        "conv3d-gan": "caloforge.models.grid_gan.conv3d:Conv3dGan",
        "flow-matching": "caloforge.models.flow.model:FlowMatching",
        "flow-matching-cpu": "caloforge.models.flow.cpu:FlowMatchingCpu",
        "flow-matching-fast": "caloforge.models.flow.distilled:FlowMatchingFast",
        "image-copula": "caloforge.models.image_gan.copula:ImageCopula",
        "vae": "caloforge.models.atlas.vae:Vae",
        "vae-gan": "caloforge.models.image_gan.vae_gan:VaeGan",
        "wgan-gp": "caloforge.models.atlas.wgan_gp:WganGp",
    },
    group="caloforge.models",
)
