"""Quantiles of values at given levels, as the tables of several layers hold them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["quantiles"]


def quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return the quantiles (k, ...) of values (n, ...) along the first axis, linear between the ordered values, in float64.

    Arguments:
        values: At least one.
        levels: (k,) in [0, 1], float64.
    """
    ordered = values.double().sort(0).values
    place = levels * (len(ordered) - 1)
    below = place.floor().long()
    above = (below + 1).clamp_max(len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], (place - below).view(-1, *[1] * (values.dim() - 1)))
