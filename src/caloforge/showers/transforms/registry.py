"""The transforms by name; listing them imports nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caloforge.registry import Registry

if TYPE_CHECKING:
    from caloforge.showers.transforms.base import Transform

__all__ = ["TRANSFORMS"]

_HERE = "caloforge.showers.transforms"

TRANSFORMS: Registry[type[Transform]] = Registry(
    "transform",
    {
        "threshold": f"{_HERE}.threshold:Threshold",
        "scale": f"{_HERE}.scale:Scale",
        "layer-rescale": f"{_HERE}.layer_rescale:LayerRescale",
        "energy-normalise": f"{_HERE}.total_normalise:EnergyNormalise",
        "sum-normalise": f"{_HERE}.total_normalise:SumNormalise",
        "layer-normalise": f"{_HERE}.layer_normalise:LayerNormalise",
        "layer-ratios": f"{_HERE}.layer_ratios:LayerRatios",
        "log": f"{_HERE}.log:Log",
        "logit": f"{_HERE}.logit:Logit",
        "power": f"{_HERE}.power:Power",
        "standardise": f"{_HERE}.standardise:Standardise",
        "columns": f"{_HERE}.columns:Columns",
        "compose": f"{_HERE}.compose:Compose",
    },
)
