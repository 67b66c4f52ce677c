"""The published post-processor: it changes each cell by itself, so that the spectrum of the cells comes out.

Six 1 x 1 x 1 convolutions of 128 channels take the decoded cell and, the same for all cells of a shower, the sum of the decoded cells,
the conditions and the sum of the energy that was drawn, and give the cell, not negative. Ours: the cell enters as itself and as ln(cell +
0.001 MeV), the sums as logarithms, and the output is added to the decoded cell before the ReLU.

References:
    E. Buhmann et al., arXiv:2005.05334, section 3.3, and arXiv:2303.18150.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.models.layers.pointwise import Pointwise

__all__ = ["PostProcessor"]

_LAYERS = 6


class PostProcessor(nn.Module):
    """Correct decoded cells.

    Arguments:
        conditions: Number of conditions beside the sum of the decoded cells.
        width: Channels.
    """

    def __init__(self, conditions: int, width: int = 128) -> None:
        super().__init__()
        self.cell = Pointwise(2, width)
        self.given = nn.Linear(1 + conditions, width)
        parts: list[nn.Module] = [nn.LeakyReLU(0.01)]
        for _ in range(_LAYERS - 2):
            parts += [Pointwise(width, width), nn.LeakyReLU(0.01)]
        self.body = nn.Sequential(*parts)
        self.last = Pointwise(width, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, cells: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, of decoded ones (B, X, Y, L) and conditions (B, k)."""
        total = torch.log(cells.sum((1, 2, 3)).clamp_min(1e-3) / 1e3)[:, None]
        local = self.cell(torch.stack([cells, torch.log(cells + 1e-3)], 1))
        given = self.given(torch.cat([total, conditions], 1))
        found = self.body(local + given[:, :, None, None, None])
        with torch.autocast(cells.device.type, enabled=False):
            change: Tensor = self.last(found.float())
        return torch.relu(cells + change[:, 0])
