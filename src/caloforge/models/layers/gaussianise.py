r"""Columns turned into standard normal numbers by their quantiles, and back.

Each column keeps its quantiles at the probabilities of equally spaced normal numbers z_0 < ... < z_K,

.. math:: q_k = F^{-1}(\Phi(z_k)), \qquad z(x) = z_k + (z_{k+1} - z_k) \frac{x - q_k}{q_{k+1} - q_k},

so that the inverse is an interpolation between equally spaced knots. Where a value is so frequent that several
quantiles are equal (an empty layer), its z is drawn uniformly from the range of probability that it covers, by a
number from outside. Values beyond the first and last quantile go on along the line of the outer knots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.models.layers.quantiles import quantiles

__all__ = ["Gaussianise"]

_REACH = 4.0
_INTERVALS = 160
_OUTER = 10
"""Intervals whose mean slope continues beyond the ends."""


class Gaussianise(nn.Module):
    """Quantile tables of some columns.

    Arguments:
        columns: Number of columns.

    Attributes:
        quantiles: (columns, K + 1), rising.
    """

    quantiles: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        line = torch.linspace(-_REACH, _REACH, _INTERVALS + 1)
        self.register_buffer("quantiles", line.repeat(columns, 1))

    @torch.no_grad()
    def fit(self, values: Tensor, column: int | None = None) -> None:
        """Set the tables of all columns from values (N, columns), or of one column from values (N,)."""
        if column is None:
            for index in range(self.quantiles.shape[0]):
                self.fit(values[:, index], index)
            return
        z = torch.linspace(-_REACH, _REACH, _INTERVALS + 1, dtype=torch.float64, device=values.device)
        levels = 0.5 * (1.0 + torch.erf(z / math.sqrt(2.0)))
        found = quantiles(values, levels)
        self.quantiles[column] = found.to(self.quantiles)

    def forward(self, values: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return z of values (..., columns).

        Arguments:
            values: The values.
            uniform: Numbers in [0, 1) of the same shape, which decide the z of frequent values; 0.5 when missing.
        """
        shape, columns = values.shape, self.quantiles.shape[0]
        rows = values.reshape(-1, columns).T.contiguous()
        right = torch.searchsorted(self.quantiles, rows, right=True).clamp(1, _INTERVALS)
        left = torch.searchsorted(self.quantiles, rows).clamp(0, _INTERVALS)
        low, high = self.quantiles.gather(1, right - 1), self.quantiles.gather(1, right)
        step = high - low
        inside = torch.where(step > 0, (rows - low) / torch.where(step > 0, step, 1.0), 0.0)
        between = right - 1 + inside.clamp(0.0, 1.0)
        first, last = self._slopes()
        outer = torch.where(
            rows < self.quantiles[:, :1],
            (rows - self.quantiles[:, :1]) / first,
            torch.where(rows > self.quantiles[:, -1:], (rows - self.quantiles[:, -1:]) / last, 0.0),
        )
        last_equal = torch.searchsorted(self.quantiles, rows, right=True) - 1
        tied = last_equal > left
        part = torch.full_like(rows, 0.5) if uniform is None else uniform.reshape(-1, columns).T
        spread = self._tied(left, last_equal, part)
        index = torch.where(tied, spread, between) + outer
        z = index * (2.0 * _REACH / _INTERVALS) - _REACH
        return z.T.reshape(shape)

    def inverse(self, z: Tensor) -> Tensor:
        """Return values of z (..., columns)."""
        shape, columns = z.shape, self.quantiles.shape[0]
        rows = z.reshape(-1, columns).T
        position = (rows + _REACH) * (_INTERVALS / (2.0 * _REACH))
        inside = position.clamp(0.0, float(_INTERVALS))
        index = inside.floor().clamp_max(_INTERVALS - 1)
        low = self.quantiles.gather(1, index.long())
        high = self.quantiles.gather(1, index.long() + 1)
        first, last = self._slopes()
        outer = (position - inside) * torch.where(position < 0, first, last)
        return (torch.lerp(low, high, inside - index) + outer).T.reshape(shape)

    def _slopes(self) -> tuple[Tensor, Tensor]:
        """Return the mean step of the outer intervals (columns, 1) at both ends."""
        q = self.quantiles
        first = (q[:, _OUTER] - q[:, 0]) / _OUTER
        last = (q[:, -1] - q[:, -1 - _OUTER]) / _OUTER
        return first.clamp_min(1e-6)[:, None], last.clamp_min(1e-6)[:, None]

    @staticmethod
    def _tied(left: Tensor, right: Tensor, part: Tensor) -> Tensor:
        """Return the knot position between two knots that is uniform in probability."""
        scale = 2.0 * _REACH / _INTERVALS
        a = 0.5 * (1.0 + torch.erf((left * scale - _REACH) / math.sqrt(2.0)))
        b = 0.5 * (1.0 + torch.erf((right * scale - _REACH) / math.sqrt(2.0)))
        level = torch.lerp(a, b, part).clamp(1e-6, 1.0 - 1e-6)
        found: Tensor = (torch.erfinv(2.0 * level - 1.0) * math.sqrt(2.0) + _REACH) / scale
        return found
