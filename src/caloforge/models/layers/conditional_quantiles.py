r"""A number of a shower as a random number of its conditions, without a network.

With conditions a (standardised, cut to their range in training) and a number q,

.. math::
    m(a) = \sum_j w_j f_j(a), \qquad \ln \sigma^2(a) = \sum_j v_j g_j(a), \qquad t = (q - m) / \sigma

where f are all monomials of a up to the third degree and g up to the second. w follows from weighted least squares, v
from the likelihood of a normal density (iteratively reweighted, the squared residual being a chi square), both in turn. The distribution
of t is kept as quantiles at the probabilities of 57 normal numbers, stretched to the mean and width of t, for groups of showers of
equal number ordered by one of the conditions, and interpolated between the groups: leakage makes a tail that depends on the angle.

So q is a rising function of a normal number, and back. Unlike a flow's, its mean and width at given conditions are fitted alone.
"""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

__all__ = ["ConditionalQuantiles"]

_KNOTS = 57
_REACH = 3.5
_ROUNDS = 12
_GROUPS = 5
_LEAST = 200
"""Fewest showers of a group."""
_STEP = 1e-4
"""Least rise of t between two knots."""


class ConditionalQuantiles(nn.Module):
    """Distribution of one number under conditions.

    Arguments:
        width: Number of conditions.
        group: Column of the conditions by which the groups are made.
        mean: Value before the fit.
        std: Width before the fit.
    """

    low: Tensor
    high: Tensor
    mean_weights: Tensor
    width_weights: Tensor
    centres: Tensor
    quantiles: Tensor

    def __init__(self, width: int, group: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.group = group
        self.cubic = _monomials(width, 3)
        self.square = _monomials(width, 2)
        mean_weights = torch.zeros(len(self.cubic), dtype=torch.float64)
        width_weights = torch.zeros(len(self.square), dtype=torch.float64)
        mean_weights[0], width_weights[0] = mean, 2.0 * math.log(std)
        self.register_buffer("low", torch.full((width,), -3.0))
        self.register_buffer("high", torch.full((width,), 3.0))
        self.register_buffer("mean_weights", mean_weights)
        self.register_buffer("width_weights", width_weights)
        self.register_buffer("centres", torch.zeros(1))
        self.register_buffer("quantiles", torch.linspace(-_REACH, _REACH, _KNOTS)[None])

    @torch.no_grad()
    def fit(self, conditions: Tensor, values: Tensor) -> None:
        """Fit to conditions (N, width) and numbers (N,)."""
        self.low.copy_(conditions.amin(0))
        self.high.copy_(conditions.amax(0))
        inside = self._inside(conditions).double()
        cubic, square = _features(inside, self.cubic), _features(inside, self.square)
        q = values.double()
        floor = (1e-6 * q.abs().mean().clamp_min(1e-12)) ** 2
        variance = torch.ones_like(q)
        w, v = torch.zeros(len(self.cubic)).double(), torch.zeros(len(self.square)).double()
        for _ in range(_ROUNDS):
            root = variance.rsqrt()
            w = _least_squares(cubic * root[:, None], q * root)
            squares = (q - cubic @ w).square()
            if not bool(v.any()):
                v[0] = torch.log(squares.mean().clamp_min(floor))
            log_variance = square @ v
            v = _least_squares(square, log_variance + squares / log_variance.exp().clamp_min(floor) - 1.0)
            variance = (square @ v).clamp(math.log(float(floor)), 50.0).exp()
        self.mean_weights.copy_(w)
        self.width_weights.copy_(v)
        self._fit_shape(inside[:, self.group], (q - cubic @ w) / variance.sqrt())

    def _fit_shape(self, by: Tensor, t: Tensor) -> None:
        """Keep the quantiles of t (N,) in groups ordered by a condition (N,)."""
        order = torch.argsort(by, stable=True)
        count = max(1, min(_GROUPS, len(t) // _LEAST)) if by.amax() > by.amin() else 1
        normal = torch.linspace(-_REACH, _REACH, _KNOTS, dtype=torch.float64)
        levels = 0.5 * (1.0 + torch.erf(normal / math.sqrt(2.0)))
        least = _STEP * torch.arange(_KNOTS, dtype=torch.float64)
        centres, rows = [], []
        for part in torch.chunk(order, count):
            centres.append(by[part].mean())
            row = torch.cummax(torch.quantile(t[part], levels) - least, 0).values + least
            rows.append(_matched(row, t[part]))
        self.centres = torch.stack(centres).to(self.centres)
        self.quantiles = torch.stack(rows).to(self.quantiles)

    def mean(self, conditions: Tensor) -> Tensor:
        """Return m (B,), float64."""
        return (_features(self._inside(conditions).double(), self.cubic) * self.mean_weights).sum(1)

    def std(self, conditions: Tensor) -> Tensor:
        """Return sigma (B,), float64."""
        log = (_features(self._inside(conditions).double(), self.square) * self.width_weights).sum(1)
        return torch.exp(0.5 * log.clamp(-50.0, 50.0))

    def draw(self, normal: Tensor, conditions: Tensor) -> Tensor:
        """Return numbers q (B,) for normal numbers (B,), which are cut to +-3.5, and conditions (B, width)."""
        table = self._table(conditions)
        position = (normal.clamp(-_REACH, _REACH) + _REACH) * ((_KNOTS - 1) / (2.0 * _REACH))
        left = position.floor().clamp(0, _KNOTS - 2)
        low = table.gather(1, left.long()[:, None])[:, 0]
        high = table.gather(1, left.long()[:, None] + 1)[:, 0]
        t = low + (position - left) * (high - low)
        return (self.mean(conditions) + self.std(conditions) * t).to(normal.dtype)

    def normal(self, values: Tensor, conditions: Tensor) -> Tensor:
        """Return the normal numbers (B,) of numbers q (B,): the inverse of ``draw``."""
        table = self._table(conditions)
        t = ((values.double() - self.mean(conditions)) / self.std(conditions)).to(table.dtype)
        right = (table < t[:, None]).sum(1).clamp(1, _KNOTS - 1)
        low, high = table.gather(1, right[:, None] - 1)[:, 0], table.gather(1, right[:, None])[:, 0]
        part = ((t - low) / (high - low)).clamp(0.0, 1.0)
        return ((right - 1 + part) * (2.0 * _REACH / (_KNOTS - 1)) - _REACH).to(values.dtype)

    def _table(self, conditions: Tensor) -> Tensor:
        """Return the quantiles (B, 57) of t between the groups."""
        if len(self.centres) == 1:
            return self.quantiles.expand(len(conditions), -1)
        by = self._inside(conditions)[:, self.group].contiguous()
        above = torch.searchsorted(self.centres, by).clamp(1, len(self.centres) - 1)
        low, high = self.centres[above - 1], self.centres[above]
        part = ((by - low) / (high - low)).clamp(0.0, 1.0)[:, None]
        return torch.lerp(self.quantiles[above - 1], self.quantiles[above], part)

    def _inside(self, conditions: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(conditions, self.low), self.high)


def _matched(row: Tensor, t: Tensor) -> Tensor:
    """Return quantiles (57,) shifted and stretched so that numbers drawn by them have mean and width of t (n,)."""
    grid = torch.linspace(-_REACH, _REACH, 16 * (_KNOTS - 1) + 1, dtype=row.dtype)
    weight = torch.softmax(-0.5 * grid.square(), 0)
    position = (grid + _REACH) * ((_KNOTS - 1) / (2.0 * _REACH))
    left = position.floor().clamp_max(_KNOTS - 2)
    index = left.long()
    drawn = torch.lerp(row[index], row[index + 1], position - left)
    mean = (weight * drawn).sum()
    width = (weight * (drawn - mean).square()).sum().sqrt()
    return t.mean() + (row - mean) * (t.std(unbiased=False) / width.clamp_min(1e-6))


def _monomials(width: int, degree: int) -> list[tuple[int, ...]]:
    """Return the factors of each monomial, the constant one first."""
    return [m for d in range(degree + 1) for m in combinations_with_replacement(range(width), d)]


def _features(conditions: Tensor, monomials: list[tuple[int, ...]]) -> Tensor:
    """Return the monomials (N, n) of conditions (N, width)."""
    columns = [torch.ones_like(conditions[:, 0])]
    for factors in monomials[1:]:
        column = conditions[:, factors[0]]
        for factor in factors[1:]:
            column = column * conditions[:, factor]
        columns.append(column)
    return torch.stack(columns, 1)


def _least_squares(design: Tensor, wanted: Tensor) -> Tensor:
    """Return the least-squares solution (n,), the shortest where it is not unique."""
    solution: Tensor = torch.linalg.lstsq(design, wanted[:, None], driver="gelsd").solution[:, 0]
    return solution
