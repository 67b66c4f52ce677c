"""Generators of showers, one architecture a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caloforge.registry import Registry

if TYPE_CHECKING:
    from caloforge.models.base import ShowerModel

__all__ = ["MODELS"]

MODELS: Registry[type[ShowerModel]] = Registry(
    "model",
    {
        "bib-ae": "caloforge.models.bib_ae:BibAe",
        "conv2d-gan": "caloforge.models.conv2d_gan:Conv2dGan",
        "conv3d-gan": "caloforge.models.conv3d_gan:Conv3dGan",
        "flow-matching": "caloforge.models.flow_matching:FlowMatching",
        "flow-matching-fast": "caloforge.models.flow_matching_fast:FlowMatchingFast",
        "vae": "caloforge.models.vae:Vae",
        "vae-gan": "caloforge.models.vae_gan:VaeGan",
        "wgan-gp": "caloforge.models.wgan_gp:WganGp",
    },
    group="caloforge.models",
)
