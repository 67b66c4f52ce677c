r"""A network's output on top of the best linear estimate.

For a number of mean m and standard deviation s on the path x_t = (1 - t) x_0 + t x_1 the best linear estimate of x_1 and the
error that it leaves are

.. math:: L = m + G (x_t - t m), \quad G = \frac{t s^2}{t^2 s^2 + (1 - t)^2}, \quad c = \frac{s (1 - t)}{\sqrt{t^2 s^2 + (1 - t)^2}},

and the estimate is D = L + c F with the network's F, as in EDM, whose numbers are of order one at all times.

References:
    T. Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv:2206.00364.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Precondition"]

_LEAST = 0.05


class Precondition(nn.Module):
    """Linear estimates for numbers of given means and widths.

    Arguments:
        shape: Of the numbers of one shower.

    Attributes:
        mean: m.
        spread: s.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Set means and widths from values (N, *shape)."""
        self.mean.copy_(values.mean(0))
        self.spread.copy_(values.std(0).clamp_min(_LEAST))

    def forward(self, x: Tensor, time: Tensor, output: Tensor) -> Tensor:
        """Return the estimate (B, *shape).

        Arguments:
            x: x_t (B, *shape).
            time: (B,).
            output: F (B, *shape).
        """
        t = time.view(-1, *[1] * (x.dim() - 1))
        rest = 1.0 - t
        variance = self.spread.square()
        norm = t.square() * variance + rest.square()
        found = self.mean + t * variance / norm * (x - t * self.mean)
        return found + self.spread * rest * norm.rsqrt() * output
