r"""Minibatch discrimination: how close a shower lies to the others of its batch, against collapse to few modes.

With :math:`M_{bfd} = \sum_a x_{ba} T_{afd}`,

.. math:: o_{bf} = \sum_{b'} \exp\Big(-\sum_d |M_{bfd} - M_{b'fd}|\Big)

The sum includes b' = b, which adds 1.

References:
    T. Salimans et al., Improved techniques for training GANs, arXiv:1606.03498, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MinibatchDiscrimination"]


class MinibatchDiscrimination(nn.Module):
    """Closeness features of a batch.

    Arguments:
        inputs: Numbers a shower that come in.
        features: Numbers a shower that come out.
        dims: Dimensions in which the distance of one feature is taken.
    """

    def __init__(self, inputs: int, features: int = 20, dims: int = 10) -> None:
        super().__init__()
        self.features, self.dims = features, dims
        self.kernel = nn.Parameter(torch.empty(inputs, features * dims))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel uniformly within the square root of 6 / (fan in + fan out) (Glorot)."""
        bound = math.sqrt(6.0 / (self.kernel.shape[0] + self.kernel.shape[1]))
        nn.init.uniform_(self.kernel, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, features) for (B, inputs)."""
        m = (x @ self.kernel).view(len(x), self.features, self.dims).transpose(0, 1)  # (F, B, D)
        distance = (m[:, :, None, :] - m[:, None, :, :]).abs().sum(3)
        return torch.exp(-distance).sum(2).transpose(0, 1)
