r"""Linear maps of layer and ring energies to given means, widths and correlations, and moments of layers.

Energies of the layers and rings of showers carried to the means, widths and correlations of training showers.

With the roots :math:`v = \sqrt f` of the parts f of a shower that its layers hold, and that rings of cells around the beam
hold, each freed from its mean and width under the conditions (:class:`~caloforge.models.calibration.conditional_moments.ConditionTrend`),
z for generated and t for training showers,

.. math:: z \to M z, \qquad M = G^{-1/2} (G^{1/2} T G^{1/2})^{1/2} G^{-1/2},

G and T the covariances of z and t: of all straight maps that give z the covariance T the one that moves showers least. Roots
have no long tails where parts fluctuate as much as those of a few GeV do, unlike logarithms. A shower is then multiplied by
a factor for each layer and one for each ring, found in turn and bounded, so that layers hold what they should and rings
nearly so. Its sum stays.

Cells of a layer weighted so that their centre and widths are those asked for.

Of all energies with given moments those nearest to e_i (in relative entropy) are an exponential tilt,

.. math:: e_i' \propto e_i \exp(a\,x_i + b\,y_i + c\,x_i^2 + d\,y_i^2),

x and y from the centre asked for, with a to d such that the energy-weighted means of x and y are 0 and those of x^2 and y^2 the squares
of the widths. a to d are found by Newton's method, whose Jacobian is the covariance of the four under the tilted energies.
What a layer cannot reach (a centre beyond its filled cells, a width of one cell) it approaches as far as the tilt's bound
lets it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.models.calibration.conditional_moments import ConditionTrend

__all__ = ["LayerTargets", "ShapeMap", "tilted"]


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


_STEPS = 4
_MOST_layer_moments = 0.3
"""Largest logarithm of a cell's factor, against the layer's mean."""
_DAMPING = 0.1
"""Added to the covariance, in units of that of all the layer's energy; so moments which little free energy cannot change do no harm."""
_LEAST = 1e-3
_PIVOT = 1e-3
_TINY_layer_moments = 1e-12


class LayerTargets(NamedTuple):
    """What the cells of each layer are to hold.

    Attributes:
        sums: Energies (B, n_layers), MeV.
        hits: Cells above the threshold (B, n_layers), whole numbers.
        faint: Cells with less energy (B, n_layers), whole numbers.
        x: Centres along x (B, n_layers), in units of the layer's half width.
        y: The same along y.
        width_x: Root mean square distances to the centre along x (B, n_layers), in the same units.
        width_y: The same along y.
    """

    sums: Tensor
    hits: Tensor
    faint: Tensor
    x: Tensor
    y: Tensor
    width_x: Tensor
    width_y: Tensor


def tilted(free: Tensor, fixed: Tensor, x: Tensor, y: Tensor, targets: LayerTargets) -> Tensor:
    """Return ``free`` energies tilted, with unchanged sums, so that free and fixed ones together have the asked moments.

    Arguments:
        free: Energies that may change (B, n_layers, width), MeV, not negative.
        fixed: Energies that stay (B, n_layers, width), MeV.
        x: Positions of the cells (n_layers, width).
        y: The same along the other axis.
        targets: Centres and widths; their sums and counts are not looked at.
    """
    away_x, away_y = x - targets.x[:, :, None], y - targets.y[:, :, None]
    square_x, square_y = away_x.square(), away_y.square()
    asked_x, asked_y = (w.clamp_min(_LEAST).square()[:, :, None] for w in (targets.width_x, targets.width_y))
    moments = torch.stack([away_x, away_y, square_x - asked_x, square_y - asked_y], 2)
    whole = free.sum(2).clamp_min(_TINY_layer_moments)
    total = (free + fixed).sum(2).clamp_min(_TINY_layer_moments)
    settled = (moments * fixed[:, :, None]).sum(3)
    shares = ((free + fixed) / total[:, :, None])[:, :, None]
    scale = _spread(moments, shares)
    rates = torch.zeros_like(settled)
    found = free
    for _ in range(_STEPS):
        weights = (found / whole[:, :, None])[:, :, None]
        mean = (moments * weights).sum(3)
        covariance = ((moments - mean[..., None]) * weights) @ moments.transpose(2, 3)
        missing = -(settled + mean * whole[..., None]) / total[..., None]
        rates = rates + _solved(covariance * (whole / total)[..., None, None], missing, scale)
        found = _weighted(free, moments, rates, whole)
    return found


def _spread(features: Tensor, shares: Tensor) -> Tensor:
    """Return the widths (B, n_layers, 4) of features (B, n_layers, 4, width) under shares (B, n_layers, 1, width)."""
    mean = (features * shares).sum(3, keepdim=True)
    return ((features - mean).square() * shares).sum(3).clamp_min(_TINY_layer_moments).sqrt()


def _solved(matrix: Tensor, missing: Tensor, scale: Tensor) -> Tensor:
    """Return the damped solution (..., 4) of systems (..., 4, 4), in units of ``scale`` (..., 4), by elimination."""
    unit = matrix / (scale[..., None] * scale[..., None, :])
    size = unit.shape[-1]
    unit = unit + _DAMPING * torch.eye(size, device=matrix.device, dtype=matrix.dtype)
    lines = list(torch.cat([unit, (missing / scale)[..., None]], -1).unbind(-2))
    for k in range(size):
        pivot = lines[k][..., k : k + 1]
        lines[k] = lines[k] / torch.where(pivot.abs() < _PIVOT, _PIVOT, pivot)
        for other in range(size):
            if other != k:
                lines[other] = lines[other] - lines[other][..., k : k + 1] * lines[k]
    solution: Tensor = torch.stack([line[..., size] for line in lines], -1) / scale
    return solution


def _weighted(free: Tensor, moments: Tensor, rates: Tensor, whole: Tensor) -> Tensor:
    """Return energies (B, n_layers, width) times their factors, with the sums ``whole`` (B, n_layers)."""
    logs = (moments * rates[..., None]).sum(2)
    logs = logs - (free * logs).sum(2, keepdim=True) / whole[..., None]
    made: Tensor = free * torch.exp(_MOST_layer_moments * torch.tanh(logs / _MOST_layer_moments))
    found: Tensor = made * (whole / made.sum(2).clamp_min(_TINY_layer_moments))[..., None]
    return found
