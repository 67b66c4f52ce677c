r"""Energies of the layers and rings of showers carried to the means, widths and correlations of training showers.

With the roots :math:`v = \sqrt f` of the parts f of a shower that its layers hold, and that rings of cells around the beam
hold, each freed from its mean and width under the conditions (:class:`~caloforge.models.layers.condition_trend.ConditionTrend`),
z for generated and t for training showers,

.. math:: z \to M z, \qquad M = G^{-1/2} (G^{1/2} T G^{1/2})^{1/2} G^{-1/2},

G and T the covariances of z and t: of all straight maps that give z the covariance T the one that moves showers least. Roots
have no long tails where parts fluctuate as much as those of a few GeV do, unlike logarithms. A shower is then multiplied by
a factor for each layer and one for each ring, found in turn and bounded, so that layers hold what they should and rings
nearly so. Its sum stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.models.layers.condition_trend import ConditionTrend

__all__ = ["ShapeMap"]

_MADE, _TRUE = 6, 3
"""Degrees of the trends: generated showers are many and told in detail, since what is left of their trends is widened with
their deviations; training showers are few, and change smoothly."""
_REACH = 8.0
"""Most standard deviations: a number of rare late showers is far out, and belongs to its width."""
_MOST = 2.0
"""Largest factor in one turn."""
_TURNS = 3
_FLOOR = 0.01
"""Least variance of generated showers along any direction, in units of that of one number."""
_TINY = 1e-9


class ShapeMap(nn.Module):
    """Change tables of a shower's energies by rings and layers.

    Arguments:
        rings: Number of rings; with one the layers alone are changed.
        layers: Number of layers.
        width: Encoded conditions, all continuous.
    """

    matrix: Tensor

    def __init__(self, rings: int, layers: int, width: int) -> None:
        super().__init__()
        self.rings, self.layers = rings, layers
        size = layers + (rings if rings > 1 else 0)
        self.made, self.truth = (ConditionTrend(width, width, size, degree) for degree in (_MADE, _TRUE))
        self.register_buffer("matrix", torch.eye(size))

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Set all constants.

        Arguments:
            true: Tables (N, rings, layers), MeV, and encoded conditions (N, width) of training showers.
            made: The same of generated ones (M, ...).
        """
        covariances = []
        for trend, (table, encoded), floor in ((self.truth, true, 0.0), (self.made, made, _FLOOR)):
            values = self._numbers(table)
            trend.fit(encoded, values)
            rest = trend(values, encoded).clamp(-_REACH, _REACH).double()
            covariance = rest.T.cov().reshape(len(self.matrix), -1)
            covariances.append(covariance + floor * torch.eye(len(covariance)).to(covariance))
        truth, ours = covariances
        root, back = _power(ours, 0.5), _power(ours, -0.5)
        self.matrix.copy_(back @ _power(root @ truth @ root, 0.5) @ back)

    def forward(self, table: Tensor, encoded: Tensor) -> Tensor:
        """Return the factors (B, rings, layers) of a table (B, rings, layers), MeV, under encoded conditions (B, width)."""
        rest = self.made(self._numbers(table), encoded).clamp(-_REACH, _REACH)
        numbers = self.truth.inverse(rest @ self.matrix.T, encoded)
        parts = numbers.clamp(0.0, 1.0).square()
        total = table.sum((1, 2), keepdim=True)
        layers = _unit(parts[:, None, : self.layers]) * total
        factors = torch.ones_like(table)
        if self.rings == 1:
            return _kept(factors * _factor(layers, table), table)
        rings = _unit(parts[:, self.layers :, None]) * total
        for _ in range(_TURNS):
            factors = factors * _factor(rings, (table * factors).sum(2, keepdim=True))
            factors = factors * _factor(layers, (table * factors).sum(1, keepdim=True))
        return _kept(factors, table)

    def _numbers(self, table: Tensor) -> Tensor:
        """Return v (B, size)."""
        layers, rings = table.sum(1), table.sum(2)
        sums = torch.cat([layers, rings], 1) if self.rings > 1 else layers
        total = table.sum((1, 2))[:, None].clamp_min(_TINY)
        return (sums / total).clamp_min(0.0).sqrt()


def _kept(factors: Tensor, table: Tensor) -> Tensor:
    """Return factors (B, rings, layers) scaled so that they keep the sums of tables (B, rings, layers)."""
    return factors * _factor(table.sum((1, 2), keepdim=True), (table * factors).sum((1, 2), keepdim=True))


def _unit(parts: Tensor) -> Tensor:
    """Return parts (B, rings, layers) over their sum."""
    return parts / parts.sum((1, 2), keepdim=True).clamp_min(_TINY)


def _factor(wanted: Tensor, there: Tensor) -> Tensor:
    factor = torch.where(there > _TINY, wanted / there.clamp_min(_TINY), torch.ones_like(there))
    return factor.clamp(1.0 / _MOST, _MOST)


def _power(matrix: Tensor, power: float) -> Tensor:
    """Return a power of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    result: Tensor = (vectors * values.clamp_min(1e-6) ** power) @ vectors.T
    return result
