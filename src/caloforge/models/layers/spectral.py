r"""Spectral normalisation, also of weights that differ from position to position.

A weight W, flattened to (rows, columns), is divided by its largest singular value

.. math:: \sigma = u^T W v, \qquad v \leftarrow W^T u / |W^T u|, \quad u \leftarrow W v / |W v|

one power iteration in each forward pass in training. A locally connected layer has one matrix for each position,
and each is divided by its own value; torch's version would take them for one matrix.

References:
    T. Miyato et al., Spectral normalization for generative adversarial networks, arXiv:1802.05957.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from caloforge.models.layers.locally_connected import LocallyConnected2d

__all__ = ["spectral_norm"]

M = TypeVar("M", bound=nn.Module)
_WARM_UP = 15


class _UnitNorm(nn.Module):
    """Divide each matrix of a weight by its largest singular value."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, separate: bool) -> None:
        super().__init__()
        self.separate = separate
        matrices = self._matrices(weight.detach())
        self.register_buffer("u", functional.normalize(torch.randn(*matrices.shape[:2], 1), dim=1))
        self.register_buffer(
            "v", functional.normalize(torch.randn(len(matrices), matrices.shape[2], 1), dim=1)
        )
        self._iterate(matrices, _WARM_UP)

    def _matrices(self, weight: Tensor) -> Tensor:
        """Return a weight as (positions, rows, columns)."""
        return weight if self.separate else weight.flatten(1)[None]

    @torch.no_grad()
    def _iterate(self, matrices: Tensor, times: int) -> None:
        for _ in range(times):
            self.v.copy_(functional.normalize(matrices.transpose(1, 2) @ self.u, dim=1))
            self.u.copy_(functional.normalize(matrices @ self.v, dim=1))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalised weight, in its own shape and precision, under autocast too."""
        matrices = self._matrices(weight)
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self._iterate(matrices.detach(), 1)
            u, v = self.u.clone(), self.v.clone()  # a later pass moves the buffers before this one's backward
            sigma = (u * (matrices @ v)).sum((1, 2), keepdim=True)
            return (matrices / sigma).reshape(weight.shape)


def spectral_norm(module: M) -> M:
    """Normalise the weight of a linear, convolutional or locally connected module, and return the module."""
    weight = module.get_parameter("weight")
    separate = isinstance(module, LocallyConnected2d)
    parametrize.register_parametrization(module, "weight", _UnitNorm(weight, separate))
    return module
