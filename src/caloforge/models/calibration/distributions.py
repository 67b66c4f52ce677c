r"""Distributions of energies under conditions: of a shower's sums, drawn from normal numbers, and of the energies of its hits.

A number is drawn with conditional moments and a table of quantiles,

.. math:: q = m(c) + \sigma(c) \, t(z), \qquad z \sim N(0, 1),

t a monotone map (:class:`~caloforge.models.calibration.monotone.MonotoneMap`). So q rises with z, and unlike a flow's its
mean and width under the conditions are fitted alone.

Hits get the spectrum of true ones by a rising function of their energy (:class:`CellSpectrum`). A network's spectrum of hits is smooth
where the true one has an edge: particles that pass the silicon leave at least what a MIP leaves. With :math:`x = \ln e` of generated hits and F, G the distribution functions of generated and true ones,

.. math:: x' = x + w(e) \, (G^{-1}(F(x)) - x),

a monotone map at equal steps of x for groups of showers ordered by their angle, on which the path in the silicon depends,
interpolated between the groups. w falls from 1 at five MIPs to 0 at fifteen: above, a cell's energy depends on the shower and
not on the silicon.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.monotone import MonotoneMap, normal_levels, quantiles
from caloforge.models.calibration.regression import Polynomial, least_squares

__all__ = ["CellSpectrum", "ConditionalDistribution", "ShowerSums", "Sums"]


_KNOTS = 57
_REACH = 3.5
_ROUNDS = 12
_GROUPS = 5
_LEAST = 200  # fewest showers of a group
_STEP = 1e-4  # least rise of t between two knots


class ConditionalDistribution(nn.Module):
    r"""Distribution of one number with polynomials for the mean (third degree) and the logarithm of the variance (second),

    .. math:: m(c) = \sum_j w_j f_j(c), \qquad \ln \sigma^2(c) = \sum_j v_j g_j(c) .

    w follows from weighted least squares, v from the likelihood of a normal density (iteratively reweighted, the squared
    residual being a chi square), both in turn. The quantiles of t, stretched to its mean and width, are kept for groups of equal
    number ordered by one of the conditions, the column ``group``, and interpolated between them: leakage makes a tail that
    depends on the angle. Before the fit mean and width are the numbers of the constructor.
    """

    mean_weights: Tensor
    width_weights: Tensor

    def __init__(self, width: int, group: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.group = group
        self.terms = Polynomial(width, width, 3)
        self.square = sum(len(factors) < 3 for factors in self.terms.monomials) + 1
        mean_weights = torch.zeros(self.terms.size, dtype=torch.float64)
        width_weights = torch.zeros(self.square, dtype=torch.float64)
        mean_weights[0], width_weights[0] = mean, 2.0 * math.log(std)
        self.register_buffer("mean_weights", mean_weights)
        self.register_buffer("width_weights", width_weights)
        self.shape = MonotoneMap(1, _KNOTS, _REACH, even="x")

    @torch.no_grad()
    def fit(self, conditions: Tensor, values: Tensor) -> None:
        """Fit to conditions (N, width) and numbers (N,)."""
        self.terms.fit(conditions)
        cubic = self._phi(conditions)
        square = cubic[:, : self.square]
        q = values.double()
        floor = (1e-6 * q.abs().mean().clamp_min(1e-12)) ** 2
        variance = torch.ones_like(q)
        w, v = torch.zeros_like(cubic[0]), torch.zeros_like(square[0])
        for _ in range(_ROUNDS):
            root = variance.rsqrt()
            w = least_squares(cubic * root[:, None], q * root)
            squares = (q - cubic @ w).square()
            if not bool(v.any()):
                v[0] = torch.log(squares.mean().clamp_min(floor))
            log_variance = square @ v
            v = least_squares(square, log_variance + squares / log_variance.exp().clamp_min(floor) - 1.0)
            variance = (square @ v).clamp(math.log(float(floor)), 50.0).exp()
        self.mean_weights.copy_(w)
        self.width_weights.copy_(v)
        self._fit_shape(
            self.terms.inside(conditions)[:, self.group].double(), (q - cubic @ w) / variance.sqrt()
        )

    def _fit_shape(self, by: Tensor, t: Tensor) -> None:
        """Keep the quantiles of t (N,) in groups ordered by a condition (N,)."""
        count = max(1, min(_GROUPS, len(t) // _LEAST)) if by.amax() > by.amin() else 1
        least = _STEP * torch.arange(_KNOTS, dtype=torch.float64, device=t.device)
        centres, rows = [], []
        for part in torch.chunk(torch.argsort(by, stable=True), count):
            centres.append(by[part].mean())
            row = quantiles(t[part], normal_levels(_KNOTS, _REACH))
            rows.append(_matched(torch.cummax(row - least, 0).values + least, t[part]))
        self.shape.position = torch.stack(centres).to(self.shape.position)
        self.shape.y = torch.stack(rows)[:, None, None].to(self.shape.y)

    def mean(self, conditions: Tensor) -> Tensor:
        """Return m (B,), float64."""
        return (self._phi(conditions) * self.mean_weights).sum(1)

    def std(self, conditions: Tensor) -> Tensor:
        """Return sigma (B,), float64."""
        log = (self._phi(conditions)[:, : self.square] * self.width_weights).sum(1)
        return torch.exp(0.5 * log.clamp(-50.0, 50.0))

    def draw(self, normal: Tensor, conditions: Tensor) -> Tensor:
        """Return numbers q (B,) for normal numbers (B,), which are cut to +-3.5, and conditions (B, width)."""
        t: Tensor = self.shape(normal[:, None], self._by(conditions))[:, 0]
        return (self.mean(conditions) + self.std(conditions) * t).to(normal.dtype)

    def normal(self, values: Tensor, conditions: Tensor) -> Tensor:
        """Return the normal numbers (B,) of numbers q (B,): the inverse of ``draw``."""
        t = ((values.double() - self.mean(conditions)) / self.std(conditions)).to(self.shape.y.dtype)
        return self.shape.inverse(t[:, None], self._by(conditions))[:, 0].to(values.dtype)

    def _phi(self, conditions: Tensor) -> Tensor:
        phi: Tensor = self.terms(conditions.double())
        return phi

    def _by(self, conditions: Tensor) -> Tensor:
        return self.terms.inside(conditions)[:, self.group]


def _matched(row: Tensor, t: Tensor) -> Tensor:
    """Return quantiles (57,) shifted and stretched so that numbers drawn by them have mean and width of t (n,)."""
    grid = torch.linspace(-_REACH, _REACH, 16 * (_KNOTS - 1) + 1, dtype=row.dtype, device=row.device)
    weight = torch.softmax(-0.5 * grid.square(), 0)
    index = torch.arange(len(grid), device=row.device)
    left = (index // 16).clamp_max(_KNOTS - 2)
    drawn = torch.lerp(row[left], row[left + 1], (index - 16 * left).to(row) / 16.0)
    mean = (weight * drawn).sum()
    width = (weight * (drawn - mean).square()).sum().sqrt()
    return t.mean() + (row - mean) * (t.std(unbiased=False) / width.clamp_min(1e-6))


_NEWTON = 7
_STEEPEST = 2.0
_TINY = 1e-9


class Sums(NamedTuple):
    """Energies (B,), MeV."""

    visible: Tensor
    weighted: Tensor


class ShowerSums(nn.Module):
    r"""Distribution of two sums of a shower, and layer factors that scale a shower to chosen sums,

    .. math:: V = \sum_l E_l, \qquad W = \sum_l \rho_l E_l

    with layer energies :math:`E_l` and absorber ratios :math:`\rho_l` (``Detector.absorber_ratios``). V is the visible energy,
    W what a reconstruction calibrates: W / E is drawn under the conditions, then V / W under the conditions and W. In this order,
    since W varies least: V is smaller in late showers, of which more is sampled half as often, and W is not. Layer l is multiplied
    with :math:`e^{\alpha + \beta \zeta_l}`, :math:`\zeta` the depth in [-1, 1]: the smoothest change, close to 1 when the shower is
    nearly right. Its slope :math:`\beta` follows from Newton's method, cut to [-2, 2].
    """

    ratios: Tensor
    depths: Tensor
    size = 2  # normal numbers a shower

    def __init__(self, detector: Detector, width: int, group: int) -> None:
        super().__init__()
        self.fraction = detector.sampling_fraction
        ratios = torch.as_tensor(detector.absorber_ratios, dtype=torch.float32)
        depths = torch.as_tensor(detector.relative_depth, dtype=torch.float32)
        self.register_buffer("ratios", ratios, persistent=False)
        self.register_buffer("depths", depths, persistent=False)
        self.tilted = bool((self.ratios.amax(0) - self.ratios.amin(0)) > 1e-3)
        middle = float(self.ratios.mean())
        self.response = ConditionalDistribution(width, group, middle, 0.1 * middle)
        self.share = ConditionalDistribution(width + 1, group, 1.0 / middle, 0.05 / middle)

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
        share = self.share.normal(sums.visible / sums.weighted, torch.cat([conditions, first[:, None]], 1))
        return torch.stack([first, share], 1)

    def draw(self, normals: Tensor, energy: Tensor, conditions: Tensor) -> Sums:
        """Return V and W of normal numbers (B, 2): the inverse of ``normals``."""
        weighted = self.response.draw(normals[:, 0], conditions).clamp_min(0.02) * self.fraction * energy
        if not self.tilted:
            return Sums(weighted / self.ratios[0], weighted)
        share = self.share.draw(normals[:, 1], torch.cat([conditions, normals[:, :1]], 1))
        low, high = 1.0005 / self.ratios.amax(0), 0.9995 / self.ratios.amin(0)
        return Sums(weighted * torch.minimum(torch.maximum(share, low), high), weighted)

    def factors(self, layers: Tensor, target: Sums) -> Tensor:
        """Return the factor of each layer (B, L) with which layer energies (B, L) have the sums V and W."""
        layers = layers.float().clamp_min(0.0)
        shares = layers + 1e-6 * layers.sum(1, keepdim=True) + 1e-9 * target.visible[:, None]
        slope = torch.zeros_like(target.visible)
        if self.tilted:
            ratio = target.weighted / target.visible
            with torch.no_grad():
                for _ in range(_NEWTON):
                    slope = self._newton(slope, shares, ratio)
            slope = self._newton(slope, shares, ratio)  # a step from the solution has its gradient
        tilt = torch.exp(slope[:, None] * self.depths)
        return tilt * (target.visible / (shares * tilt).sum(1).clamp_min(_TINY))[:, None]

    def _newton(self, slope: Tensor, shares: Tensor, target: Tensor) -> Tensor:
        """Return a better slope (B,) for energies of layers (B, L) and W / V (B,)."""
        p = torch.softmax(torch.log(shares) + slope[:, None] * self.depths, 1)
        mean = (p * self.ratios).sum(1)
        rise = (p * self.ratios * self.depths).sum(1) - mean * (p * self.depths).sum(1)
        return (slope + (target - mean) / rise.clamp_min(1e-3)).clamp(-_STEEPEST, _STEEPEST)


_SILICON = (1e-3, 3.0)
"""Energies of the first and last knot by default, MeV."""
_FADE = (1.0, 3.0)
_WIDTH = 1.0 / 30.0  # distance of two knots in ln e
_ANGLES = 6
_FEWEST = 20_000  # hits of a group
_TAIL = 50  # hits below which the distribution functions are not followed


class CellSpectrum(nn.Module):
    """Rising map of the energies of hits; it changes nothing before the fit.

    The showers are grouped by one number of theirs: the angle, or ln E.

    Arguments:
        ends: Energies of the first and last knot, MeV.
        fade: Energies, MeV, between which the map turns into the identity, so that brighter cells stay as they are; none if missing.
        groups: Most groups of showers.
        fewest: Fewest generated hits of a group.
        step: Distance of two knots in ln e.
    """

    known: Tensor

    def __init__(
        self,
        ends: tuple[float, float] = _SILICON,
        fade: tuple[float, float] | None = _FADE,
        groups: int = _ANGLES,
        fewest: int = _FEWEST,
        step: float = _WIDTH,
    ) -> None:
        super().__init__()
        self.low, self.high = math.log(ends[0]), math.log(ends[1])
        self.fade, self.groups, self.fewest = fade, groups, fewest
        self.steps = 1 + round((self.high - self.low) / step)
        self.register_buffer("known", torch.zeros(1))
        self.map = MonotoneMap(1, self.steps, 1.0, even="x", beyond=1.0)
        for table in (self.map.x, self.map.y):
            table.copy_(torch.linspace(self.low, self.high, self.steps))

    @property
    def fitted(self) -> bool:
        """Whether the map follows from showers."""
        return bool(self.known > 0)

    @torch.no_grad()
    def fit(self, reference: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor]) -> None:
        """Fit to energies of hits (n,), MeV, with the numbers of their showers (n,), of training and of as many generated showers."""
        by = generated[1].double()
        count = min(self.groups, len(by) // self.fewest) if bool(by.amax() > by.amin()) else 1
        levels = torch.linspace(0.0, 1.0, max(1, count) + 1, dtype=torch.float64)[1:-1].to(by.device)
        edges = by.sort().values[(levels * len(by)).long()]
        knots = torch.linspace(self.low, self.high, self.steps, dtype=torch.float64, device=by.device)
        groups = [torch.bucketize(numbers.double(), edges) for _, numbers in (reference, generated)]
        centres, rows = [], []
        for group in range(len(edges) + 1):
            true, made = (
                torch.log(energy[place == group].double()).sort().values
                for (energy, _), place in zip((reference, generated), groups, strict=True)
            )
            if min(len(true), len(made)) > 2 * _TAIL:
                centres.append(by[groups[1] == group].mean())
                shifts = self._weight(knots) * _shifts(true, made, knots)
                rows.append(knots + (shifts if self.fade else _matching(true, made, knots, shifts)))
        if rows:
            self.map.position = torch.stack(centres).to(self.map.position)
            self.map.y = torch.stack(rows)[:, None, None].to(self.map.y)
            self.known.fill_(1.0)

    def _weight(self, knots: Tensor) -> Tensor:
        """Return w of knots ln e (k,)."""
        if self.fade is None:
            return torch.ones_like(knots)
        first, last = (math.log(energy) for energy in self.fade)
        return ((last - knots) / (last - first)).clamp(0.0, 1.0)

    def forward(self, cells: Tensor, by: Tensor) -> Tensor:
        """Return cells (B, ...), MeV, with mapped energies of hits, for the numbers of the showers (B,).

        The gradient is that of a constant factor.
        """
        if not self.fitted:
            return cells
        hits = cells > 0
        moved = cells.clone()
        moved[hits] = self.of_hits(cells[hits], hits.nonzero()[:, 0], by)
        return moved

    def of_hits(self, energy: Tensor, shower: Tensor, by: Tensor) -> Tensor:
        """Return the mapped energies, MeV, of hits with energies (n,) in showers (n,), for the numbers of the showers (B,)."""
        left, part = self._places(torch.log(energy.detach()))
        shifts = self._table(by)
        shift = torch.lerp(shifts[shower, left], shifts[shower, left + 1], part)
        return energy * torch.exp(shift)

    def dense(self, cells: Tensor, by: Tensor) -> Tensor:
        """Return the same for cells (B, ...) most of which are hits, without shapes that depend on the cells."""
        hits = cells > 0
        left, part = self._places(torch.log(torch.where(hits, cells, 1.0)).flatten(1))
        shifts = self._table(by)
        shift = torch.lerp(shifts.gather(1, left), shifts.gather(1, left + 1), part)
        return cells * torch.exp(shift).view_as(cells)

    def _places(self, logs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the knots below logarithms ln e and how far beyond these they are, 0 to 1."""
        place = (logs - self.low) * ((self.steps - 1) / (self.high - self.low))
        place = place.clamp(0.0, self.steps - 1.0)
        left = place.long().clamp_max(self.steps - 2)
        return left, place - left

    def _table(self, by: Tensor) -> Tensor:
        """Return the shifts of the knots (B, steps)."""
        x, y = self.map.tables(by, torch.float32)
        return (y - x).expand(by.shape[0], -1)


def _shifts(true: Tensor, made: Tensor, knots: Tensor) -> Tensor:
    """Return how far each knot (k,) must move, from sorted ln e of true hits (n,) and of generated ones (m,).

    Where less than ``_TAIL`` hits lie beyond a knot it moves as the nearest other.
    """
    inside = torch.minimum(torch.maximum(knots, made[_TAIL]), made[-1 - _TAIL])
    below = torch.searchsorted(made, inside).double() / len(made)
    place = (below * (len(true) - 1)).clamp(0, len(true) - 1)
    left = place.long().clamp_max(len(true) - 2)
    return torch.lerp(true[left], true[left + 1], place - left) - inside


_RISE = (0.2, 0.8)  # shares of the energy in fainter hits between which the correction sets in
_ROOTS = 8  # steps of Newton's method


def _matching(true: Tensor, made: Tensor, knots: Tensor, shifts: Tensor) -> Tensor:
    """Return the shifts of knots (k,) with which generated hits, sorted ln e (m,), have the energy of the true ones (n,) in all.

    Few hits say how the brightest ones move, which have most of the energy: these move by a number more or less.
    """
    energy = torch.exp(made)
    below = energy.cumsum(0) / energy.sum()
    rise = ((below - _RISE[0]) / (_RISE[1] - _RISE[0])).clamp(0.0, 1.0)
    place = (torch.searchsorted(made, knots) - 1).clamp_min(0)
    at_knots = torch.where(knots < made[0], 0.0, rise[place])
    left = (torch.searchsorted(knots, made) - 1).clamp(0, len(knots) - 2)
    part = ((made - knots[left]) / (knots[left + 1] - knots[left])).clamp(0.0, 1.0)
    number = torch.zeros((), dtype=made.dtype, device=made.device)
    for _ in range(_ROOTS):
        moved = shifts + number * at_knots
        after = energy * torch.exp(torch.lerp(moved[left], moved[left + 1], part))
        slope = (after * torch.lerp(at_knots[left], at_knots[left + 1], part)).sum()
        number = number + (torch.exp(true).sum() - after.sum()) / slope.clamp_min(1e-12)
    return shifts + number * at_knots
