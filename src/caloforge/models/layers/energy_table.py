r"""Logarithms of cell energies as numbers of a convenient density, and back.

A table x(ln e) whose slope is that of the quantile transform to a normal number, dz / d ln e with z = Phi^-1(F(ln e)), but
nowhere less than a least slope:

.. math:: x(\ln e) = \int \max\!\left(\frac{dz}{d \ln e}, s\right) d \ln e, \qquad x(\mathrm{median}) = 0.

So the peak of minimum ionising particles, where most cells are, is stretched over a wide range of x, and the few cells in
a shower's core, orders of magnitude above it, are not squeezed together. Both directions interpolate linearly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["EnergyTable"]

_KNOTS = 200
_REACH = 2.5
"""Quantiles are trusted between these normal numbers; beyond them the slope is the least."""
_MOST = 6.0
_BINS = 2048
"""More than ``_KNOTS`` times the largest slope over the least one."""
_MANY = 4
"""Values for each bin from which on bins are faster than searching."""


class EnergyTable(nn.Module):
    """Tables of some columns.

    Arguments:
        columns: Number of columns.
        slope: Least slope s.

    Attributes:
        logs: (columns, K) equally spaced values of ln e.
        values: (columns, K) x at them, rising.
    """

    logs: Tensor
    values: Tensor

    def __init__(self, columns: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        line = torch.linspace(-10.0, 10.0, _KNOTS)
        self.register_buffer("logs", line.repeat(columns, 1))
        self.register_buffer("values", slope * line.repeat(columns, 1))

    @torch.no_grad()
    def fit(self, energies: Tensor, column: int) -> None:
        """Set the table of a column from energies (N,), all above 0."""
        ordered = torch.log(energies.double()).sort().values
        knots = torch.linspace(float(ordered[0]), float(ordered[-1]) + 1e-3, _KNOTS, dtype=torch.float64)
        rank = torch.searchsorted(ordered, knots).double().clamp(0.5, len(ordered) - 0.5) / len(ordered)
        z = torch.erfinv(2.0 * rank - 1.0) * math.sqrt(2.0)
        step = knots[1] - knots[0]
        slopes = (torch.diff(z.clamp(-_REACH, _REACH)) / step).clamp(self.slope, _MOST)
        values = torch.cat([torch.zeros(1, dtype=torch.float64), (slopes * step).cumsum(0)])
        middle = ordered[len(ordered) // 2]
        place = ((middle - knots[0]) / step).clamp(0, _KNOTS - 1.001)
        index = int(place)
        values = values - torch.lerp(values[index], values[index + 1], place - index)
        self.logs[column], self.values[column] = knots.to(self.logs), values.to(self.values)

    def forward(self, logs: Tensor) -> Tensor:
        """Return x (columns, n) of ln e (columns, n); beyond the ends with the least slope."""
        first, last = self.logs[:, :1], self.logs[:, -1:]
        position = (logs - first) / (last - first) * (_KNOTS - 1)
        inside = position.clamp(0.0, _KNOTS - 1.0)
        index = inside.floor().clamp_max(_KNOTS - 2.0)
        low, high = self.values.gather(1, index.long()), self.values.gather(1, index.long() + 1)
        beyond = (logs - first).clamp_max(0.0) + (logs - last).clamp_min(0.0)
        return torch.lerp(low, high, inside - index) + self.slope * beyond

    def inverse(self, values: Tensor) -> Tensor:
        """Return ln e (columns, n) of x (columns, n)."""
        values = values.contiguous()
        first, last = self.values[:, :1], self.values[:, -1:]
        inside = torch.minimum(torch.maximum(values, first), last)
        index = self._interval(inside)
        low, high = self.values.gather(1, index), self.values.gather(1, index + 1)
        part = (inside - low) / (high - low).clamp_min(1e-9)
        logs = torch.lerp(self.logs.gather(1, index), self.logs.gather(1, index + 1), part)
        return logs + ((values - first).clamp_max(0.0) + (values - last).clamp_min(0.0)) / self.slope

    def _interval(self, values: Tensor) -> Tensor:
        """Return the interval (columns, n) that holds each value (columns, n) between first and last.

        Many values look it up in bins of equal width, none of which holds more than one knot since the slope is between
        its least and its largest.
        """
        if values.shape[1] < _MANY * _BINS:
            return (torch.searchsorted(self.values, values) - 1).clamp(0, _KNOTS - 2)
        first, last = self.values[:, :1], self.values[:, -1:]
        width = (last - first) / _BINS
        edges = first + width * torch.arange(_BINS, device=values.device, dtype=values.dtype)
        left = (torch.searchsorted(self.values, edges) - 1).clamp(0, _KNOTS - 2)
        bins = ((values - first) / width).long().clamp(0, _BINS - 1)
        index = left.gather(1, bins)
        next_knot = self.values[:, 1:].gather(1, index)
        return (index + (values > next_knot)).clamp_max(_KNOTS - 2)
