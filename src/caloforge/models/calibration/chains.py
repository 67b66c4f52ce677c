r"""A few dependent numbers of a shower as independent normal ones.

The numbers t_k are mapped to normal ones each by itself, and then one after the other, each conditional on those before it:

.. math:: z_k = g_k(t_k), \qquad
          u_k = h_k\left(\frac{z_k - \mu_k(z_1, \dots, z_{k-1})}{\sigma_k(z_1, \dots, z_{k-1})}\right)

g and h are smooth tables (:func:`~caloforge.models.calibration.monotone.smooth_quantiles`), which follow about four numbers of the
sample each, not its fluctuations. For few training showers the trends are few numbers, too: :math:`\sigma = 1` and
:math:`\mu_k = a_k \cdot (1, z_1, \dots, z_{k-1}, z_1^2)` from least squares (:class:`FewTerms`). Many generated showers determine cubics for
:math:`\mu` and :math:`\ln \sigma` (:class:`~caloforge.models.calibration.moments.ConditionalMoments`).

The inverse makes numbers with these distributions and dependences from independent normal ones (Rosenblatt's transformation). The chain
of generated numbers followed by the inverse of the chain of the training showers' gives generated showers the distributions and
dependences of the training showers; what is finer stays the generator's.

The last two numbers may be exchangeable: the distribution is the same when they are exchanged, as for the centres of gravity along x
and y where the beam does not tell x from y. Then each training shower counts in both orders.

References:
    M. Rosenblatt, Remarks on a multivariate transformation, Ann. Math. Stat. 23 (1952) 470.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.models.calibration.moments import ConditionalMoments
from caloforge.models.calibration.monotone import MonotoneMap
from caloforge.models.calibration.regression import ridge_fit

__all__ = ["FewTerms", "NormalChain"]

_KNOTS = 161
_REACH = 4.0
_INSIDE = 2.5  # normal numbers beyond which the trends are constant
_FAR = 6.0  # largest normal number
_RIDGE = 1e-6
_LEAST_WIDTH = 1e-3  # a number that varies less is rounding
_LEAST_STEP = 1e-7  # between two knots


class FewTerms(nn.Module):
    """A trend of k + 2 numbers: linear in the k numbers before and quadratic in the first of them, of constant width.

    Arguments:
        before: k, at least 1.
    """

    weights: Tensor  # a, (k + 2,)

    def __init__(self, before: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(before + 2))

    @torch.no_grad()
    def fit(self, before: Tensor, values: Tensor) -> None:
        """Fit to values (N, 1) under the numbers before (N, k)."""
        found = ridge_fit(self._terms(before).double(), values[:, 0].double(), _RIDGE)
        self.weights.copy_(found.to(self.weights))

    def forward(self, values: Tensor, before: Tensor) -> Tensor:
        """Return values (B, 1) without the trend."""
        return values - (self._terms(before) @ self.weights)[:, None]

    def inverse(self, values: Tensor, before: Tensor) -> Tensor:
        """Return values (B, 1) with the trend."""
        return values + (self._terms(before) @ self.weights)[:, None]

    @staticmethod
    def _terms(before: Tensor) -> Tensor:
        """Return the terms (B, k + 2) of the k numbers before (B, k)."""
        return torch.cat([torch.ones_like(before[:, :1]), before, before[:, :1].square()], 1)


class NormalChain(nn.Module):
    """Numbers (B, size) to independent normal ones and back; before the fit it is the identity within its tables.

    Arguments:
        size: Numbers of a shower.
        few: Whether the trends have few terms, see the module.
    """

    def __init__(self, size: int, few: bool) -> None:
        super().__init__()
        self.size = size
        tables = (MonotoneMap(size, _KNOTS, _REACH, even="y", beyond=None) for _ in range(2))
        self.single, self.rest = tables
        before = range(1, size)
        self.trends = nn.ModuleList(
            [FewTerms(k) for k in before] if few else [ConditionalMoments(k, k, 1) for k in before]
        )

    @torch.no_grad()
    def fit(self, values: Tensor, exchangeable: bool = False) -> None:
        """Fit to numbers (N, size) of about unit width, the last two ``exchangeable``; one without any width stays as it is."""
        last = self.size - 1
        both = [values]
        if exchangeable:
            both.append(values[:, [*range(last - 1), last, last - 1]])
        for k in range(self.size):
            if exchangeable and k == last:
                self.single.x[0, 0, k] = self.single.x[0, 0, k - 1]
            else:
                _fit_table(self.single, k, torch.cat([v[:, k] for v in self._orders(both, k)]))
        z = [self.single(v) for v in both]
        for k in range(self.size):
            rows = torch.cat(self._orders(z, k))
            if k:
                trend = self.trends[k - 1]
                assert isinstance(trend, FewTerms | ConditionalMoments)
                trend.fit(_inside(rows[:, :k]), rows[:, k : k + 1])
            _fit_table(self.rest, k, self._without_trend(rows, k)[:, 0])

    def _orders(self, both: list[Tensor], k: int) -> list[Tensor]:
        """Return the values in the orders that differ for number k."""
        return both if k >= self.size - 2 else both[:1]

    def forward(self, values: Tensor) -> Tensor:
        """Return independent normal numbers (B, size) of numbers (B, size)."""
        z = self.single(values)
        rest = torch.cat([self._without_trend(z, k) for k in range(self.size)], 1)
        normal: Tensor = self.rest(rest)
        return normal.clamp(-_FAR, _FAR)

    def inverse(self, normal: Tensor) -> Tensor:
        """Return numbers (B, size) of independent normal numbers (B, size)."""
        rest = self.rest.inverse(normal)
        z = rest[:, :1]
        for k, trend in enumerate(self.trends, 1):
            assert isinstance(trend, FewTerms | ConditionalMoments)
            z = torch.cat([z, trend.inverse(rest[:, k : k + 1], _inside(z))], 1)
        found: Tensor = self.single.inverse(z)
        return found

    def _without_trend(self, z: Tensor, k: int) -> Tensor:
        """Return number k (B, 1) of normal numbers (B, size), without its trend."""
        return z[:, :1] if k == 0 else self.trends[k - 1](z[:, k : k + 1], _inside(z[:, :k]))


def _fit_table(table: MonotoneMap, column: int, values: Tensor) -> None:
    if float(values.std()) < _LEAST_WIDTH:
        return
    table.fit_normal(values, column)
    steps = _LEAST_STEP * torch.arange(table.knots, device=values.device)
    table.x[0, 0, column] += steps.to(table.x)


def _inside(before: Tensor) -> Tensor:
    return before.clamp(-_INSIDE, _INSIDE)
