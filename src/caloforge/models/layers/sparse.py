r"""Output of cells that are often exactly zero: a sigmoid followed by a ReLU.

.. math:: f(a) = \max(0, \; 2 \sigma(a) - 1)

It lies in [0, 1) and is zero for a <= 0. A ReLU on the bare sigmoid would do nothing; the offset and the factor are
our reading of "sigmoid followed by ReLU" in ATL-SOFT-PUB-2018-001.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SparseSigmoid"]


class SparseSigmoid(nn.Module):
    """Sigmoid, centred and stretched, then ReLU."""

    def forward(self, a: Tensor) -> Tensor:
        """Return values in [0, 1), zero where ``a`` is not positive."""
        return torch.relu(2.0 * torch.sigmoid(a) - 1.0)
