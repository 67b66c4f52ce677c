r"""Conditional mean and width of some quantities: m(c) and s(c), with which they are standardised and restored,

.. math:: t = \frac{x - m(c)}{s(c)}, \qquad x = m(c) + s(c) \, t .

Three forms of m and s: linear between groups in ln E (:class:`EnergyMoments`), polynomials of the conditions
(:class:`ConditionalMoments`), and, for the cells of a shower's core, of the summary of their layer as well (:class:`CoreMoments`).
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from caloforge.models.calibration.monotone import energy_groups, neighbours

__all__ = ["ConditionalMoments", "CoreMoments", "EnergyMoments", "Polynomial", "least_squares"]


def least_squares(design: Tensor, values: Tensor) -> Tensor:
    """Return the least-squares solution (n,) of a design (N, n) for values (N,), the shortest where it is not unique."""
    solution: Tensor = torch.linalg.lstsq(design.cpu(), values[:, None].cpu(), driver="gelsd").solution
    return solution[:, 0].to(values)


def _ridge(design: Tensor, values: Tensor, ridge: float) -> Tensor:
    """Return least-squares coefficients (F, ...) of a design (N, F) with a penalty ``ridge`` times N on their squares."""
    eye = torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    solution: Tensor = torch.linalg.solve(design.T @ design + ridge * len(design) * eye, design.T @ values)
    return solution


class EnergyMoments(nn.Module):
    """Mean and standard deviation of groups of showers of like energy, interpolated linearly in ln E, constant beyond the ends.

    Arguments:
        size: Number of quantities.
        knots: Most groups.
        floor: Smallest standard deviation.

    Attributes:
        position: (groups,) ln E, ascending.
        mean: (groups, size).
        std: (groups, size).
    """

    position: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, size: int, knots: int = 9, floor: float = 1e-6) -> None:
        super().__init__()
        self.knots, self.floor = knots, floor
        self.register_buffer("position", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1, size))
        self.register_buffer("std", torch.ones(1, size))

    @torch.no_grad()
    def fit(self, values: Tensor, energy: Tensor) -> None:
        """Set the constants from quantities (N, size) at incident energies (N,), MeV."""
        group, position = energy_groups(energy.double(), self.knots)
        rows = [values[group == g].double() for g in range(len(position))]
        std = torch.stack([row.std(0, unbiased=False) for row in rows])
        self.position, self.std = position.to(self.mean), std.clamp_min(self.floor).to(self.mean)
        self.mean = torch.stack([row.mean(0) for row in rows]).to(self.mean)

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (B, size), at incident energies (B,), MeV."""
        if len(self.position) == 1:
            return self.mean.expand(len(energy), -1), self.std.expand(len(energy), -1)
        below, above, part = neighbours(self.position, torch.log(energy))
        mean, std = (torch.lerp(t[below], t[above], part[:, None]) for t in (self.mean, self.std))
        return mean, std


class Polynomial(nn.Module):
    """Monomials of continuous conditions, the constant one first, then discrete conditions as they are.

    Beyond the range of the training showers continuous conditions stop at its edge.

    Arguments:
        continuous: Continuous encoded conditions, the first columns of c.
        width: All encoded conditions.
        degree: Highest degree.
        cross: Whether products of different conditions are among the monomials.

    Attributes:
        size: Monomials.
    """

    low: Tensor
    high: Tensor

    def __init__(self, continuous: int, width: int, degree: int, cross: bool = True) -> None:
        super().__init__()
        self.continuous = continuous
        columns = range(continuous)
        self.monomials = [
            factors
            for power in range(1, degree + 1)
            for factors in combinations_with_replacement(columns, power)
            if cross or len(set(factors)) == 1
        ]
        self.size = 1 + len(self.monomials) + width - continuous
        self.register_buffer("low", torch.full((continuous,), -3.0))
        self.register_buffer("high", torch.full((continuous,), 3.0))

    def fit(self, encoded: Tensor) -> None:
        """Set the range from encoded conditions (N, width)."""
        self.low.copy_(encoded[:, : self.continuous].amin(0))
        self.high.copy_(encoded[:, : self.continuous].amax(0))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return phi (B, size) of encoded conditions (B, width)."""
        inside = self.inside(encoded)
        columns = [torch.ones_like(encoded[:, :1])]
        for first, *others in self.monomials:
            column = inside[:, first]
            for factor in others:
                column = column * inside[:, factor]
            columns.append(column[:, None])
        return torch.cat([*columns, encoded[:, self.continuous :]], 1)

    def inside(self, encoded: Tensor) -> Tensor:
        """Return the continuous conditions (B, continuous) within their range."""
        return torch.maximum(torch.minimum(encoded[:, : self.continuous], self.high), self.low)


_RIDGE = 1e-6
_FEWEST = 10
"""Known values for each term of a polynomial."""
_LOG_NORMAL = 0.635
"""-<ln|g|> of a standard normal g."""


class ConditionalMoments(nn.Module):
    r"""Mean and width as polynomials of the conditions, :math:`m = a \cdot \phi(c)` and :math:`\ln s = b \cdot \phi(c)`.

    Both follow from least squares, b from :math:`\ln|x - m| + 0.635`, which is :math:`\ln s` on average for a normal x and
    which outliers hardly move.

    Arguments:
        continuous: Continuous encoded conditions, the first columns of c.
        width: All encoded conditions.
        columns: Quantities.
        degree: Highest degree of the monomials.

    Attributes:
        mean: a, (terms, columns).
        spread: b, (terms, columns).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, continuous: int, width: int, columns: int, degree: int = 3) -> None:
        super().__init__()
        self.terms = Polynomial(continuous, width, degree)
        self.register_buffer("mean", torch.zeros(self.terms.size, columns))
        self.register_buffer("spread", torch.zeros(self.terms.size, columns))

    @torch.no_grad()
    def fit(self, encoded: Tensor, values: Tensor, known: Tensor | None = None) -> None:
        """Fit to encoded conditions (N, width) and values (N, columns).

        Arguments:
            encoded: Encoded conditions.
            values: Quantities.
            known: Which values there are (N, columns), all if missing. A column of few gets their mean and width alone; one of none
                is left as it is.
        """
        self.terms.fit(encoded)
        design, x = self.terms(encoded).double(), values.double()
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
        mean = _ridge(design, x, _RIDGE)
        residual = (x - design @ mean).abs()
        floor = 1e-4 * residual.mean(0).clamp_min(1e-9)
        spread = _ridge(design, torch.log(residual + floor) + _LOG_NORMAL, _RIDGE)
        self.mean[: len(mean), columns] = mean.to(self.mean)
        self.spread[: len(spread), columns] = spread.to(self.spread)

    def forward(self, values: Tensor, encoded: Tensor) -> Tensor:
        """Return standardised values t (B, columns) of values x (B, columns)."""
        phi: Tensor = self.terms(encoded)
        return (values - phi @ self.mean) * torch.exp(-(phi @ self.spread))

    def inverse(self, standardised: Tensor, encoded: Tensor) -> Tensor:
        """Return values x (B, columns) of standardised values t (B, columns)."""
        phi: Tensor = self.terms(encoded)
        return standardised * torch.exp(phi @ self.spread) + phi @ self.mean


_CORE_RIDGE = 1e-4
_REACH = 6.0
"""Largest standardised value of a core cell."""
_LEAST = 0.02
"""Smallest width of a core cell."""


class CoreMoments(nn.Module):
    r"""Mean and width of the cells that most showers fill, under conditions and the summary of their layer.

    Most of the energy is in such cells, and their values vary little once the energy of their layer is known: less than the
    noise of a flow by far. For each of them

    .. math:: y = \frac{x - a \cdot \phi}{\sigma},

    with phi the conditions (first and second order), the row of the cell's layer (first and second) and the row of the whole
    shower, a from least squares over the training showers, sigma the standard deviation of the residual. Other cells stay as they are.

    Arguments:
        layer: Layer of each cell (n_cells,).
        occupancy: Least part of the showers in which a core cell is filled.

    Attributes:
        cells: (n_core,) flat indices of the core cells.
        weights: a, (n_core, F).
        spread: sigma, (n_core,).
    """

    cells: Tensor
    weights: Tensor
    spread: Tensor
    layer: Tensor

    def __init__(self, layer: Tensor, occupancy: float) -> None:
        super().__init__()
        self.occupancy = occupancy
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("cells", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(0, 1))
        self.register_buffer("spread", torch.ones(0))

    @torch.no_grad()
    def fit(self, values: Tensor, empty: float, summary: Tensor, encoded: Tensor) -> None:
        """Find the core cells and fit them.

        Arguments:
            values: (N, n_cells).
            empty: Value of an empty cell.
            summary: (N, rows, kinds).
            encoded: (N, k).
        """
        self.cells = torch.nonzero((values > empty).float().mean(0) > self.occupancy)[:, 0]
        weights, spread = [], []
        for cell in self.cells.tolist():
            phi = self._features(summary, encoded, self.layer[cell : cell + 1])[:, 0].double()
            x = values[:, cell].double()
            weights.append(_ridge(phi, x, _CORE_RIDGE))
            residual = (x - phi @ weights[-1]).clamp(-2.0, 2.0)
            spread.append(residual.std().clamp_min(_LEAST))
        if weights:
            self.weights = torch.stack(weights).to(self.weights)
            self.spread = torch.stack(spread).to(self.spread)

    def forward(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with y at the core cells."""
        if not len(self.cells):
            return values
        y = (values[:, self.cells] - self._mean(summary, encoded)) / self.spread
        return values.index_copy(1, self.cells, y.clamp(-_REACH, _REACH))

    def inverse(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with x at the core cells."""
        if not len(self.cells):
            return values
        x = values[:, self.cells].clamp(-_REACH, _REACH) * self.spread + self._mean(summary, encoded)
        return values.index_copy(1, self.cells, x.to(values))

    def _mean(self, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return a . phi (B, n_core)."""
        return (self._features(summary, encoded, self.layer[self.cells]) * self.weights).sum(2)

    @staticmethod
    def _features(summary: Tensor, encoded: Tensor, layers: Tensor) -> Tensor:
        """Return phi (B, n, F) for the layers (n,)."""
        own = summary[:, layers]
        shared = torch.cat([torch.ones_like(encoded[:, :1]), encoded, encoded.square(), summary[:, -1]], 1)
        return torch.cat([own, own.square(), shared[:, None].expand(-1, len(layers), -1)], 2)
