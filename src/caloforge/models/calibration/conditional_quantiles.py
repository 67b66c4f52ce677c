r"""Sums of a shower drawn from distributions conditional on energy and angle.

A number of a shower as a random number of its conditions, without a network.

With conditions a (standardised, cut to their range in training) and a number q,

.. math::
    m(a) = \sum_j w_j f_j(a), \qquad \ln \sigma^2(a) = \sum_j v_j g_j(a), \qquad t = (q - m) / \sigma

where f are all monomials of a up to the third degree and g up to the second. w follows from weighted least squares, v
from the likelihood of a normal density (iteratively reweighted, the squared residual being a chi square), both in turn. The distribution
of t is kept as quantiles at the probabilities of 57 normal numbers, stretched to the mean and width of t, for groups of showers of
equal number ordered by one of the conditions, and interpolated between the groups: leakage makes a tail that depends on the angle.

So q is a rising function of a normal number, and back. Unlike a flow's, its mean and width at given conditions are fitted alone.

The visible energy of a shower as a random number of its conditions, without a network.

With the response r = E_vis / E and the encoded conditions e (standardised ln E, angle):

.. math::
    \langle r \rangle = w_0 + \sum_k w_k e_k + w'_k e_k^2, \qquad
    \sigma^2(E) = a^2 / E + b^2, \qquad t = (r - \langle r \rangle) / \sigma .

w is a least-squares fit, a and b follow from the squared residuals (the stochastic and the constant term of a
calorimeter's resolution), and the distribution of t is kept as its quantiles at the probabilities of 57 normal numbers.
Outside the range of the training showers the conditions in the fit of r stop at its edge.

Two sums of a shower that are drawn from fitted distributions, and showers brought to them.

With layer energies :math:`E_l` and absorber ratios :math:`\rho_l` (``Detector.absorber_ratios``),

.. math:: V = \sum_l E_l, \qquad W = \sum_l \rho_l E_l .

V is the visible energy, W what a reconstruction calibrates: W / E is drawn under the conditions, then V / W under the
conditions and W (:mod:`~caloforge.models.calibration.conditional_quantiles`). In this order, since W varies least: V is smaller in late
showers, of which more is sampled half as often, and W is not. Both are told as normal numbers. A shower is brought to V and W by
multiplying layer l with :math:`e^{\alpha + \beta \zeta_l}`, :math:`\zeta` the depth in [-1, 1]: the smoothest change that does it,
and close to 1 when the shower is nearly right. Its slope :math:`\beta` follows from Newton's method, cut to [-2, 2].
"""

from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["ConditionalQuantiles", "ShowerSums", "Sums", "VisibleEnergy"]


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


_GEV = 1000.0


class VisibleEnergy(nn.Module):
    """Mean and distribution of the visible energy.

    Arguments:
        width: Number of encoded conditions.
        response: Response before the fit, the detector's sampling fraction.
    """

    weights: Tensor
    low: Tensor
    high: Tensor
    terms: Tensor
    quantiles: Tensor

    def __init__(self, width: int, response: float) -> None:
        super().__init__()
        weights = torch.zeros(1 + 2 * width)
        weights[0] = response
        self.register_buffer("weights", weights)
        self.register_buffer("low", torch.full((width,), -3.0))
        self.register_buffer("high", torch.full((width,), 3.0))
        self.register_buffer("terms", torch.tensor([0.0, (0.1 * response) ** 2]))
        self.register_buffer("quantiles", torch.linspace(-_REACH, _REACH, _KNOTS))

    def fit(self, encoded: Tensor, energy: Tensor, visible: Tensor) -> None:
        """Fit to showers.

        Arguments:
            encoded: Encoded conditions (N, width).
            energy: Incident energy (N,), MeV.
            visible: Visible energy (N,), MeV.
        """
        self.low.copy_(encoded.amin(0))
        self.high.copy_(encoded.amax(0))
        features = self._features(encoded).double()
        energy, response = energy.double(), (visible / energy).double()
        weights = torch.linalg.lstsq(features, response[:, None], driver="gelsd").solution[:, 0]
        residual = response - features @ weights
        design = torch.stack([_GEV / energy, torch.ones_like(energy)], 1)
        floor = 1e-12 + 1e-6 * float(response.mean()) ** 2
        variance = residual.square().mean().clamp_min(floor).expand_as(energy)
        terms = torch.zeros(2, dtype=torch.float64)
        for _ in range(5):  # weighted least squares of the squares; their own variance is 2 sigma^4
            terms = _positive_fit(design / variance[:, None], residual.square() / variance)
            variance = (design @ terms).clamp_min(floor)
        self.weights.copy_(weights)
        self.terms.copy_(terms)
        normal = torch.linspace(-_REACH, _REACH, _KNOTS, dtype=torch.float64)
        levels = 0.5 * (1.0 + torch.erf(normal / math.sqrt(2.0)))
        self.quantiles.copy_(torch.quantile(residual / variance.sqrt(), levels))

    def mean(self, encoded: Tensor, energy: Tensor) -> Tensor:
        """Return the mean visible energy (B,), MeV."""
        response = (self._features(encoded) * self.weights).sum(
            1
        )  # no matrix product: mixed precision would round it
        return response.clamp_min(1e-6) * energy

    def spread(self, energy: Tensor) -> Tensor:
        """Return the standard deviation of the visible energy (B,), MeV."""
        variance = self.terms[0] * _GEV / energy + self.terms[1]
        return variance.clamp_min(1e-12).sqrt() * energy

    def draw(self, normal: Tensor, encoded: Tensor, energy: Tensor) -> Tensor:
        """Return visible energies (B,), MeV: a pure, rising function of normal numbers (B,).

        They are kept above a twentieth of the mean.
        """
        mean = self.mean(encoded, energy)
        position = (normal.clamp(-_REACH, _REACH) + _REACH) * ((_KNOTS - 1) / (2 * _REACH))
        left = position.floor().clamp_max(_KNOTS - 2)
        index = left.long()
        part = position - left
        t = self.quantiles[index] * (1.0 - part) + self.quantiles[index + 1] * part
        return torch.maximum(mean + t * self.spread(energy), 0.05 * mean)

    def _features(self, encoded: Tensor) -> Tensor:
        """Return (B, 1 + 2 width): 1, the conditions within the fitted range, their squares."""
        inside = torch.minimum(torch.maximum(encoded, self.low), self.high)
        return torch.cat([torch.ones_like(inside[:, :1]), inside, inside.square()], 1)


def _positive_fit(design: Tensor, wanted: Tensor) -> Tensor:
    """Return the two terms (2,), none negative, that fit ``wanted`` (N,) best by a design (N, 2)."""
    best: Tensor = torch.linalg.lstsq(design, wanted[:, None], driver="gelsd").solution[:, 0]
    if bool((best >= 0).all()):
        return best
    alone = (design * wanted[:, None]).sum(0) / design.square().sum(0)
    each = torch.diag(alone.clamp_min(0.0))
    chosen: Tensor = each[(design @ each.T - wanted[:, None]).square().sum(0).argmin()]
    return chosen


_NEWTON = 7
_STEEPEST = 2.0
_TINY = 1e-9


class Sums(NamedTuple):
    """Energies (B,), MeV."""

    visible: Tensor
    weighted: Tensor


class ShowerSums(nn.Module):
    """Distribution of V and W, and the change of layers that brings a shower to them.

    Arguments:
        detector: The detector.
        width: Number of encoded conditions.
        group: Column of the conditions on which the shapes depend.

    Attributes:
        size: Normal numbers a shower: 2.
    """

    ratios: Tensor
    depths: Tensor
    size = 2

    def __init__(self, detector: Detector, width: int, group: int) -> None:
        super().__init__()
        self.fraction = detector.sampling_fraction
        ratios = torch.as_tensor(detector.absorber_ratios, dtype=torch.float32)
        depths = torch.as_tensor(detector.relative_depth, dtype=torch.float32)
        self.register_buffer("ratios", ratios, persistent=False)
        self.register_buffer("depths", depths, persistent=False)
        self.tilted = bool((self.ratios.amax() - self.ratios.amin()) > 1e-3)
        middle = float(self.ratios.mean())
        self.response = ConditionalQuantiles(width, group, middle, 0.1 * middle)
        self.share = ConditionalQuantiles(width + 1, group, 1.0 / middle, 0.05 / middle)

    def fit(self, layers: Tensor, energy: Tensor, conditions: Tensor) -> None:
        """Fit to layer energies (N, L), incident energies (N,), MeV, and encoded conditions (N, width)."""
        sums = self.of(layers)
        self.response.fit(conditions, sums.weighted / (self.fraction * energy))
        if self.tilted:
            first = self.response.normal(sums.weighted / (self.fraction * energy), conditions)
            self.share.fit(torch.cat([conditions, first[:, None]], 1), sums.visible / sums.weighted)

    def of(self, layers: Tensor) -> Sums:
        """Return V and W of layer energies (B, L)."""
        visible = layers.sum(1)
        return Sums(visible.clamp_min(_TINY), (layers * self.ratios).sum(1).clamp_min(_TINY))

    def normals(self, sums: Sums, energy: Tensor, conditions: Tensor) -> Tensor:
        """Return W and V as normal numbers (B, 2)."""
        first = self.response.normal(sums.weighted / (self.fraction * energy), conditions)
        if not self.tilted:
            return torch.stack([first, torch.zeros_like(first)], 1)
        given = torch.cat([conditions, first[:, None]], 1)
        return torch.stack([first, self.share.normal(sums.visible / sums.weighted, given)], 1)

    def draw(self, normals: Tensor, energy: Tensor, conditions: Tensor) -> Sums:
        """Return V and W of normal numbers (B, 2): the inverse of ``normals``."""
        weighted = self.response.draw(normals[:, 0], conditions).clamp_min(0.02) * self.fraction * energy
        if not self.tilted:
            return Sums(weighted / self.ratios[0], weighted)
        share = self.share.draw(normals[:, 1], torch.cat([conditions, normals[:, :1]], 1))
        low, high = 1.0005 / self.ratios.amax(), 0.9995 / self.ratios.amin()
        return Sums(weighted * torch.minimum(torch.maximum(share, low), high), weighted)

    def factors(self, layers: Tensor, wanted: Sums) -> Tensor:
        """Return the factor of each layer (B, L) that brings layer energies (B, L) to V and W."""
        layers = layers.float().clamp_min(0.0)
        shares = layers + 1e-6 * layers.sum(1, keepdim=True) + 1e-9 * wanted.visible[:, None]
        slope = torch.zeros_like(wanted.visible)
        if self.tilted:
            target = wanted.weighted / wanted.visible
            with torch.no_grad():
                for _ in range(_NEWTON):
                    slope = self._newton(slope, shares, target)
            slope = self._newton(
                slope, shares, target
            )  # a step from the solution has the solution's gradient
        tilt = torch.exp(slope[:, None] * self.depths)
        return tilt * (wanted.visible / (shares * tilt).sum(1).clamp_min(_TINY))[:, None]

    def _newton(self, slope: Tensor, shares: Tensor, target: Tensor) -> Tensor:
        """Return a better slope (B,) for energies of layers (B, L) and W / V (B,)."""
        p = torch.softmax(torch.log(shares) + slope[:, None] * self.depths, 1)
        mean = (p * self.ratios).sum(1)
        rise = (p * self.ratios * self.depths).sum(1) - mean * (p * self.depths).sum(1)
        return (slope + (target - mean) / rise.clamp_min(1e-3)).clamp(-_STEEPEST, _STEEPEST)
