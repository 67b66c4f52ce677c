r"""What a critic sees of a batch as a whole: how unlike its showers are, against showers that are all alike.

With the standard deviation and the sum of the cells of shower b, :math:`s_b = (\sigma_b, \Sigma_b)`,

.. math:: o_b = \Big( \langle h(s_b - s_{b'}) \rangle_{b'}, \; \mathrm{std}_{b'} \, h(s_b - s_{b'}) \Big)

where h is a stack of 1 x 1 convolutions (the same dense layers for every pair) of 64, 64 and 16 features. The mean and the deviation
run over the whole batch, b itself included.

References:
    E. Buhmann et al., Hadrons, better, faster, stronger, arXiv:2112.09709; arXiv:2303.18150.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BatchStatistics"]

_FEATURES = 16


class BatchStatistics(nn.Module):
    """Pairwise differences within a batch.

    Attributes:
        width: Numbers a shower that come out.
    """

    width = 2 * _FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.pairs = nn.Sequential(
            nn.Linear(2, 64),
            nn.LeakyReLU(0.01),
            nn.Linear(64, 64),
            nn.LeakyReLU(0.01),
            nn.Linear(64, _FEATURES),
        )

    def forward(self, cells: Tensor) -> Tensor:
        """Return (B, 32) of cells (B, n_cells)."""
        numbers = torch.stack([(cells.var(1, unbiased=False) + 1e-12).sqrt(), cells.sum(1)], 1)
        found = self.pairs(numbers[:, None] - numbers[None])
        spread = (found.var(1, unbiased=False) + 1e-8).sqrt()
        return torch.cat([found.mean(1), spread], 1)
