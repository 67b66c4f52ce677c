"""Building blocks that several models share, one idea a file."""

from __future__ import annotations

from caloforge.models.layers.conditions import ConditionEncoder
from caloforge.models.layers.initialise import reinitialise
from caloforge.models.layers.mlp import mlp
from caloforge.models.layers.sums import LayerSums

__all__ = ["ConditionEncoder", "LayerSums", "mlp", "reinitialise"]
