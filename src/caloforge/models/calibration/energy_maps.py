r"""Monotone maps of cell energies: tables, spectra and sinh-arcsinh.

Logarithms of cell energies as numbers of a convenient density, and back.

A table x(ln e) whose slope is that of the quantile transform to a normal number, dz / d ln e with z = Phi^-1(F(ln e)), but
nowhere less than a least slope:

.. math:: x(\ln e) = \int \max\!\left(\frac{dz}{d \ln e}, s\right) d \ln e, \qquad x(\mathrm{median}) = 0.

So the peak of minimum ionising particles, where most cells are, is stretched over a wide range of x, and the few cells in
a shower's core, orders of magnitude above it, are not squeezed together. Both directions interpolate linearly.

A rising function of the energy of a cell that gives hits the spectrum of true ones.

A network's spectrum of hits is smooth where the true one has an edge: particles that pass the silicon leave at least what a MIP
leaves. With :math:`x = \ln e` of drawn hits and F, G the distribution functions of drawn and true ones,

.. math:: x' = x + w(e) \, (G^{-1}(F(x)) - x),

a table of the difference at equal steps of x for groups of showers ordered by their angle, on which the path in the silicon
depends, interpolated between the groups. w falls from 1 at five MIPs to 0 at fifteen: above, a cell's energy tells of the shower and
not of the silicon. Fitted, not learnt.

A rising map of four numbers from one distribution to another: shift, width, skewness and tails.

.. math:: f(x) = a + b \sinh(\delta \, \mathrm{arsinh}\, x + \epsilon), \qquad b, \delta > 0

:math:`\epsilon` leans the distribution, :math:`\delta` sets the weight of its tails; (0, 1, 0, 1) leaves it as it is.
With so few numbers f has no structure of its own: what it is fitted to leaves its mean features and none of the
fluctuations of single showers.

The fit compares quantiles at equally spaced probabilities p by least squares, with the covariance that quantiles of
independent numbers have,

.. math:: \mathrm{Cov}(q_i, q_j) \propto \frac{dq}{dp}\Big|_i \frac{dq}{dp}\Big|_j \,
          (\min(p_i, p_j) - p_i p_j),

the slopes those of the generated numbers, so that each part of the distribution counts as far as it is known. Then a and
b are set so that mean and standard deviation are the true numbers' own.

References:
    M. C. Jones, A. Pewsey, Sinh-arcsinh distributions, Biometrika 96 (2009) 761.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["CellSpectrum", "EnergyTable", "SinhArcsinh"]


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


_LOWEST, _HIGHEST, _KNOTS = math.log(1e-3), math.log(3.0), 241
"""ln(e / MeV) of the first and last knot; steps of 0.033."""
_FADE = (math.log(1.0), math.log(3.0))
_GROUPS = 6
_FEWEST = 20_000
"""Hits of a group."""
_TAIL = 50
"""Hits below which the distribution functions are not followed."""


class CellSpectrum(nn.Module):
    """See the module; it changes nothing before the fit."""

    centres: Tensor
    shifts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(0))
        self.register_buffer("shifts", torch.zeros(0, _KNOTS))

    @property
    def fitted(self) -> bool:
        """Whether there is a table."""
        return len(self.centres) > 0

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Fit the table.

        Arguments:
            true: Energies of hits (n,), MeV, and the angles of their showers (n,), degrees.
            made: The same of drawn showers of the same angles.
        """
        angles = made[1].double()
        count = min(_GROUPS, len(angles) // _FEWEST) if bool(angles.amax() > angles.amin()) else 1
        levels = torch.linspace(0.0, 1.0, max(1, count) + 1, dtype=torch.float64)[1:-1].to(angles.device)
        order = angles.sort().values
        edges = order[(levels * len(order)).long()]
        knots = torch.linspace(_LOWEST, _HIGHEST, _KNOTS, dtype=torch.float64, device=angles.device)
        weight = ((_FADE[1] - knots) / (_FADE[1] - _FADE[0])).clamp(0.0, 1.0)
        groups = [torch.bucketize(by.double(), edges) for _, by in (true, made)]
        centres, rows = [], []
        for group in range(len(edges) + 1):
            a, b = (
                torch.log(energy[place == group].double()).sort().values
                for (energy, _), place in zip((true, made), groups, strict=True)
            )
            if min(len(a), len(b)) <= 2 * _TAIL:
                continue
            centres.append(angles[groups[1] == group].mean())
            rows.append(weight * _difference(a, b, knots))
        if rows:
            self.centres = torch.stack(centres).to(self.centres)
            self.shifts = torch.stack(rows).to(self.shifts)

    def forward(self, cells: Tensor, theta: Tensor) -> Tensor:
        """Return cells (B, ...), MeV, with the energies of hits moved, for angles (B,), degrees."""
        if not self.fitted:
            return cells
        hits = cells > 0
        energy = cells[hits]
        step = (_HIGHEST - _LOWEST) / (_KNOTS - 1)
        x = torch.log(energy)
        position = ((x.detach() - _LOWEST) / step).clamp(0.0, _KNOTS - 1.0)
        left = position.long().clamp_max(_KNOTS - 2)
        shower = hits.nonzero()[:, 0]
        table = self._table(theta)
        low, high = table[shower, left], table[shower, left + 1]
        moved = cells.clone()
        moved[hits] = energy * torch.exp(torch.lerp(low, high, position - left))
        return moved

    def _table(self, theta: Tensor) -> Tensor:
        """Return the differences (B, knots) between the groups."""
        if len(self.centres) == 1:
            return self.shifts.expand(len(theta), -1)
        by = theta.to(self.centres).contiguous()
        above = torch.searchsorted(self.centres, by).clamp(1, len(self.centres) - 1)
        low, high = self.centres[above - 1], self.centres[above]
        part = ((by - low) / (high - low)).clamp(0.0, 1.0)[:, None]
        return torch.lerp(self.shifts[above - 1], self.shifts[above], part)


def _difference(true: Tensor, made: Tensor, knots: Tensor) -> Tensor:
    """Return how far each knot (k,) must move, from sorted ln e of true hits (n,) and of drawn ones (m,).

    Where less than ``_TAIL`` hits lie beyond a knot it moves as the nearest other.
    """
    ends = made[_TAIL], made[-1 - _TAIL]
    inside = torch.minimum(torch.maximum(knots, ends[0]), ends[1])
    below = torch.searchsorted(made, inside).double() / len(made)
    place = (below * (len(true) - 1)).clamp(0, len(true) - 1)
    left = place.long().clamp_max(len(true) - 2)
    return torch.lerp(true[left], true[left + 1], place - left) - inside


_LEVELS = 40
"""Most quantiles that are compared."""
_EACH = 5
"""Fewest numbers for one of them."""
_SLOPE = 1e-3
_RIDGE = 1e-6
_LOW = (-np.inf, 0.0, -2.0, 0.3)
_HIGH = (np.inf, np.inf, 2.0, 3.0)

Array = NDArray[np.float64]


class SinhArcsinh(nn.Module):
    """One such map for each of some numbers; before the fit there is none.

    Arguments:
        size: How many numbers.

    Attributes:
        terms: (size, 4): a, b, epsilon, delta; (0, 4) before the fit.
    """

    terms: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("terms", torch.zeros(0, 4))

    @property
    def fitted(self) -> bool:
        """Whether the maps follow from showers."""
        return len(self.terms) == self.size

    @torch.no_grad()
    def fit(self, made: Tensor, true: Tensor) -> None:
        """Set the maps from generated numbers (M, size), of about unit width, to true ones (N, size)."""
        columns = zip(made.T.double().cpu().numpy(), true.T.double().cpu().numpy(), strict=True)
        self.terms = torch.tensor(np.array([_fit(*pair) for pair in columns])).to(self.terms)

    def forward(self, values: Tensor, column: int) -> Tensor:
        """Return the carried numbers (B,) of one column's values (B,)."""
        shift, width, lean, tails = self.terms[column]
        carried: Tensor = shift + width * torch.sinh(tails * torch.asinh(values) + lean)
        return carried


def _fit(made: Array, true: Array) -> Array:
    """Return the four numbers (4,) of the map from ``made`` (M,) to ``true`` (N,)."""
    from scipy.optimize import least_squares

    count = int(np.clip(len(true) // _EACH, 2 * _EACH, _LEVELS))
    levels = (np.arange(count) + 0.5) / count
    x, y = np.quantile(made, levels), np.quantile(true, levels)
    slope = np.maximum(np.gradient(x, levels), _SLOPE)
    covariance = (np.minimum.outer(levels, levels) - np.outer(levels, levels)) * np.outer(slope, slope)
    white = np.linalg.inv(np.linalg.cholesky(covariance + _RIDGE * np.eye(count)))
    unit = max(float(true.std()), _RIDGE)

    def misfit(terms: Array) -> Array:
        return np.asarray(white @ (_carried(terms, x) - y) / unit)

    start = (float(true.mean()), unit, 0.0, 1.0)
    terms = np.asarray(least_squares(misfit, start, bounds=(_LOW, _HIGH), x_scale="jac").x)
    carried = _carried(terms, made)
    factor = true.std() / carried.std() if carried.std() > 0 else 1.0
    terms[:2] = true.mean() + factor * (terms[0] - carried.mean()), factor * terms[1]
    return terms


def _carried(terms: Array, x: Array) -> Array:
    shift, width, lean, tails = terms
    return np.asarray(shift + width * np.sinh(tails * np.arcsinh(x) + lean))
