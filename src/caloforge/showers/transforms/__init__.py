"""Invertible transforms between cell energies and what a model learns, as torch modules.

Their constants are buffers: they land in the state dict of the model that owns them, and its configuration
rebuilds them (:meth:`Transform.to_config`, :meth:`Transform.from_config`). This package needs torch.
"""

from __future__ import annotations

from caloforge.showers.transforms.base import Transform
from caloforge.showers.transforms.columns import Columns
from caloforge.showers.transforms.compose import Compose
from caloforge.showers.transforms.layer_normalise import LayerNormalise
from caloforge.showers.transforms.layer_ratios import LayerRatios
from caloforge.showers.transforms.layer_rescale import LayerRescale
from caloforge.showers.transforms.log import Log
from caloforge.showers.transforms.logit import Logit
from caloforge.showers.transforms.power import Power
from caloforge.showers.transforms.registry import TRANSFORMS
from caloforge.showers.transforms.scale import Scale
from caloforge.showers.transforms.standardise import Standardise
from caloforge.showers.transforms.threshold import Threshold
from caloforge.showers.transforms.total_normalise import EnergyNormalise, SumNormalise

__all__ = [
    "TRANSFORMS",
    "Columns",
    "Compose",
    "EnergyNormalise",
    "LayerNormalise",
    "LayerRatios",
    "LayerRescale",
    "Log",
    "Logit",
    "Power",
    "Scale",
    "Standardise",
    "SumNormalise",
    "Threshold",
    "Transform",
]
