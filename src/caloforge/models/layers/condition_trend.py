r"""Columns freed from what the conditions explain of their mean and spread.

With features phi(c) of the encoded conditions c (all monomials of the continuous ones, up to the third degree if not said
otherwise, the discrete ones as they are) and least squares for m and s,

.. math:: t = \frac{x - m \cdot \phi(c)}{\exp(s \cdot \phi(c))},

s fitted to ln|x - m phi| + 0.635, which is ln sigma for a normal x. What is left varies little with
the conditions, so that a network has only the shape of the distribution to learn.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

__all__ = ["ConditionTrend"]

_DEGREE = 3
_RIDGE = 1e-6
_FEWEST = 10
"""Known values for each term of a polynomial."""
_LOG_NORMAL = 0.635
"""-<ln|g|> of a standard normal g."""


class ConditionTrend(nn.Module):
    """Mean and spread of some columns as polynomials of conditions.

    Arguments:
        continuous: Continuous encoded conditions, the first columns of c.
        width: All encoded conditions.
        columns: Columns to be freed.
        degree: Highest degree of the monomials.
    """

    mean: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, continuous: int, width: int, columns: int, degree: int = _DEGREE) -> None:
        super().__init__()
        self.continuous = continuous
        self.powers = [
            combination
            for power in range(1, degree + 1)
            for combination in combinations_with_replacement(range(continuous), power)
        ]
        size = 1 + len(self.powers) + width - continuous
        self.register_buffer("mean", torch.zeros(size, columns))
        self.register_buffer("spread", torch.zeros(size, columns))
        self.register_buffer("low", torch.full((continuous,), -3.0))
        self.register_buffer("high", torch.full((continuous,), 3.0))

    @torch.no_grad()
    def fit(self, encoded: Tensor, values: Tensor, known: Tensor | None = None) -> None:
        """Fit to encoded conditions (N, width) and values (N, columns).

        Arguments:
            encoded: Encoded conditions.
            values: Columns.
            known: Which values there are (N, columns), all if missing. A column of few gets their mean and spread alone; one of none
                is left as it is.
        """
        self.low.copy_(encoded[:, : self.continuous].amin(0))
        self.high.copy_(encoded[:, : self.continuous].amax(0))
        design, x = self._features(encoded).double(), values.double()
        if known is None or bool(known.all()):
            self._set(slice(None), design, x)
            return
        for column, rows in enumerate(known.T):
            if bool(rows.any()):
                few = int(rows.sum()) < _FEWEST * design.shape[1]
                terms = design[rows, :1] if few else design[rows]
                self._set(slice(column, column + 1), terms, x[rows, column : column + 1])

    def _set(self, columns: slice, design: Tensor, x: Tensor) -> None:
        """Fit columns x (N, k) to the first terms (N, terms); the others stay 0."""
        gram = design.T @ design
        gram = gram + _RIDGE * len(design) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        mean = torch.linalg.solve(gram, design.T @ x)
        rest = (x - design @ mean).abs()
        floor = 1e-4 * rest.mean(0).clamp_min(1e-9)
        spread = torch.linalg.solve(gram, design.T @ (torch.log(rest + floor) + _LOG_NORMAL))
        self.mean[: len(mean), columns] = mean.to(self.mean)
        self.spread[: len(spread), columns] = spread.to(self.spread)

    def forward(self, values: Tensor, encoded: Tensor) -> Tensor:
        """Return what is left (B, columns) of values (B, columns)."""
        design = self._features(encoded)
        return (values - design @ self.mean) * torch.exp(-(design @ self.spread))

    def inverse(self, rest: Tensor, encoded: Tensor) -> Tensor:
        """Return the values (B, columns)."""
        design = self._features(encoded)
        return rest * torch.exp(design @ self.spread) + design @ self.mean

    def _features(self, encoded: Tensor) -> Tensor:
        """Return phi (B, size); continuous conditions stop at the edge of the training's."""
        c = torch.maximum(torch.minimum(encoded[:, : self.continuous], self.high), self.low)
        columns = [torch.ones_like(encoded[:, :1])]
        for combination in self.powers:
            column = c[:, combination[0]]
            for index in combination[1:]:
                column = column * c[:, index]
            columns.append(column[:, None])
        columns.append(encoded[:, self.continuous :])
        return torch.cat(columns, 1)
