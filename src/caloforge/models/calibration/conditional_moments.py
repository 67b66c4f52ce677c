r"""Mean and width of quantities as functions of the conditions.

Mean and width of quantities as functions of the incident energy, from training showers.

Showers are ordered by ln E and cut into groups of equal numbers; each group gives, at its mean ln E, the mean and
the standard deviation of each quantity; between groups both are interpolated linearly in ln E, beyond the ends
they are constant. Energies of a beam with few values fall into a group each. So a quantity whose width falls
like 1/sqrt(E) has unit width at every energy once it is standardised.

Columns freed from what the conditions explain of their mean and spread.

With features phi(c) of the encoded conditions c (all monomials of the continuous ones, up to the third degree if not said
otherwise, the discrete ones as they are) and least squares for m and s,

.. math:: t = \frac{x - m \cdot \phi(c)}{\exp(s \cdot \phi(c))},

s fitted to ln|x - m phi| + 0.635, which is ln sigma for a normal x. What is left varies little with
the conditions, so that a network has only the shape of the distribution to learn.

The cells of a shower's core, freed from what the shower's summary explains of them.

Cells that are filled in most showers hold most of the energy, and their values vary little once the energy of their
layer is known: less than the noise of a flow by far. For each of them

.. math:: y = \frac{x - a \cdot \phi}{\sigma},

with features phi of the conditions (first and second order), of the row of the cell's layer (first and second) and of the row of the
whole shower, a from least squares over the training showers, sigma the standard deviation of the rest. So the flow sees numbers of
variance 1. Cells that are often empty stay as they are.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

__all__ = ["ConditionTrend", "CoreTrend", "EnergyScale"]


class EnergyScale(nn.Module):
    """Conditional mean and standard deviation.

    Arguments:
        size: Number of quantities.
        knots: Most groups.
        floor: Smallest standard deviation.
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
        x = torch.log(energy.double())
        levels, index = torch.unique(x, return_inverse=True)
        if len(levels) > self.knots:
            rank = torch.empty_like(index)
            rank[torch.argsort(x, stable=True)] = torch.arange(len(x), device=x.device)
            groups = max(1, min(self.knots, len(x) // 50))
            index = rank * groups // len(x)
        rows = [torch.nonzero(index == group)[:, 0] for group in range(int(index.max()) + 1)]
        values = values.double()
        means, stds = [], []
        for row in rows:
            means.append(values[row].mean(0))
            stds.append(values[row].std(0, unbiased=False))
        self.position = torch.stack([x[row].mean() for row in rows]).to(self.mean)
        self.std = torch.stack(stds).clamp_min(self.floor).to(self.mean)
        self.mean = torch.stack(means).to(self.mean)

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (B, size), at incident energies (B,), MeV."""
        if len(self.position) == 1:
            return self.mean.expand(len(energy), -1), self.std.expand(len(energy), -1)
        x = torch.log(energy).contiguous()
        above = torch.searchsorted(self.position, x).clamp(1, len(self.position) - 1)
        low, high = self.position[above - 1], self.position[above]
        part = ((x - low) / (high - low)).clamp(0.0, 1.0)[:, None]
        mean = torch.lerp(self.mean[above - 1], self.mean[above], part)
        return mean, torch.lerp(self.std[above - 1], self.std[above], part)


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


_RIDGE_core_trend = 1e-4
_REACH = 6.0
_LEAST = 0.02


class CoreTrend(nn.Module):
    """Trend of the core cells; which they are is decided by the fit.

    Arguments:
        layer: Layer of each cell (n_cells,).
        occupancy: Least part of showers in which a core cell is filled.

    Attributes:
        cells: (n_core,) flat indices of the core cells.
        weights: (n_core, F).
        spread: (n_core,).
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
            gram = phi.T @ phi + _RIDGE_core_trend * len(phi) * torch.eye(phi.shape[1], dtype=phi.dtype)
            a = torch.linalg.solve(gram, phi.T @ x)
            rest = (x - phi @ a).clamp(-2.0, 2.0)
            weights.append(a.float())
            spread.append(rest.std().clamp_min(_LEAST).float())
        if weights:
            self.weights, self.spread = torch.stack(weights), torch.stack(spread)

    def forward(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with y at the core cells."""
        if not len(self.cells):
            return values
        y = (values[:, self.cells] - self._expected(summary, encoded)) / self.spread
        return values.index_copy(1, self.cells, y.clamp(-_REACH, _REACH))

    def inverse(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with x at the core cells."""
        if not len(self.cells):
            return values
        y = values[:, self.cells].clamp(-_REACH, _REACH)
        x = y * self.spread + self._expected(summary, encoded)
        return values.index_copy(1, self.cells, x.to(values))

    def _expected(self, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return a . phi (B, n_core)."""
        return (self._features(summary, encoded, self.layer[self.cells]) * self.weights).sum(2)

    @staticmethod
    def _features(summary: Tensor, encoded: Tensor, layers: Tensor) -> Tensor:
        """Return phi (B, n, F) for the layers (n,)."""
        own = summary[:, layers]
        shared = torch.cat([torch.ones_like(encoded[:, :1]), encoded, encoded.square(), summary[:, -1]], 1)
        return torch.cat([own, own.square(), shared[:, None].expand(-1, len(layers), -1)], 2)
