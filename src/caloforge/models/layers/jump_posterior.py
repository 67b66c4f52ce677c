r"""Where one jump leads a cell that is empty or filled: a few numbers of each cell and two of the network.

A jump always begins at the same time t, so what :class:`~caloforge.models.layers.spike_slab.SpikeSlab` says of a
cell at that time is a function of its noisy value x with numbers that are known before,

.. math:: D = -1 + \mathrm{sigmoid}(a + u + b x + c x^2) (e + f x + h v),

u and v from the network. With the showers' averages for a to h and u = v = 0 it is SpikeSlab's estimate for a width that the
network does not change. A jump follows the flow over a long way and is no posterior mean, so a, b, e, f and the width are
learnt for each cell. That costs a dozen passes over the cells instead of the forty of the general form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.models.layers.spike_slab import NOISE, REACH

__all__ = ["JumpPosterior"]


class JumpPosterior(nn.Module):
    """Estimates of cells at one time.

    Arguments:
        n_cells: Number of cells.
        time: The time t, below 1.

    Attributes:
        changes: (5, n_cells) learnt changes of the logit, its slope, the mean, the logarithm of the width, and the slope.
        outputs: Numbers of the network for each cell.
    """

    outputs = 2
    logit: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, n_cells: int, time: float) -> None:
        super().__init__()
        self.time = time
        self.register_buffer("logit", torch.zeros(n_cells))
        self.register_buffer("centre", torch.ones(n_cells))
        self.register_buffer("spread", torch.ones(n_cells))
        self.changes = nn.Parameter(torch.zeros(5, n_cells))

    def forward(self, x: Tensor, time: Tensor, outputs: tuple[Tensor, ...]) -> Tensor:
        """Return the estimate (B, n_cells).

        Arguments:
            x: x_t (B, n_cells).
            time: Not looked at; the posterior's own counts.
            outputs: u and v (B, n_cells) each.
        """
        return self.estimate(x, outputs, self.numbers().unbind(0))

    @staticmethod
    def estimate(x: Tensor, outputs: tuple[Tensor, ...], numbers: tuple[Tensor, ...]) -> Tensor:
        """Return D of values x (B, ...), outputs u and v (B, ...) and a, b, c, e, f and h (...)."""
        a, b, c, e, f, h = numbers
        change, shift = outputs
        odds = torch.addcmul(b, c, x).mul_(x).add_(a).add_(change).sigmoid_()
        filled = torch.addcmul(e, f, x).addcmul_(h, shift)
        return (filled * odds).sub_(1.0)

    def numbers(self) -> Tensor:
        """Return a, b, c, e, f and h (6, n_cells)."""
        t = self.time
        change, slope, shift, stretch, gain = self.changes.float()
        spread = self.spread * torch.exp(REACH * torch.tanh(stretch / REACH))
        centre = self.centre + self.spread * shift
        noise = (1.0 - t) ** 2 + NOISE**2
        variance = t**2 * spread.square() + noise
        a = self.logit + change + 0.5 * t**2 * (1.0 / noise - centre.square() / variance)
        a = a - 0.5 * torch.log(variance / noise)
        b = slope + t * (1.0 / noise + centre / variance)
        c = 0.5 * (1.0 / noise - 1.0 / variance)
        weight = t * spread.square() / variance
        rest = 1.0 - t * weight
        return torch.stack([a, b, c, 1.0 + centre * rest, weight + gain, self.spread * rest])
