r"""Monotone maps between distributions by their quantiles.

Numbers carried from the distribution that a model gives them to the one that they have in truth.

For each group g of incident energies, each class c of showers and each number x, two tables of quantiles
:math:`F^{-1}` at the same probabilities, of generated and of true showers, give the rising map

.. math:: x \mapsto F_{true}^{-1}\left(F_{made}(x)\right),

linear between the knots; x stops at the smallest and largest generated value. Between the groups the tables are
interpolated linearly in ln E. The probabilities are those of equally spaced normal numbers, with 0 and 1 at the ends.
The order of showers in each number, and so what belongs together in a shower, stays the model's.

Columns turned into standard normal numbers by their quantiles, and back.

Each column keeps its quantiles at the probabilities of equally spaced normal numbers z_0 < ... < z_K,

.. math:: q_k = F^{-1}(\Phi(z_k)), \qquad z(x) = z_k + (z_{k+1} - z_k) \frac{x - q_k}{q_{k+1} - q_k},

so that the inverse is an interpolation between equally spaced knots. Where a value is so frequent that several
quantiles are equal (an empty layer), its z is drawn uniformly from the range of probability that it covers, by a
number from outside. Values beyond the first and last quantile go on along the line of the outer knots.

Values of filled cells carried from the distribution that a model gives them to that of the training showers.

Few evaluations leave the values of cells between those of empty and filled ones too often: the estimate is a mean of both. Which
cells of a layer are filled is decided by rank, so a rising map repairs their values and changes nothing else. For each layer two
tables of quantiles at the same probabilities, those of equally spaced normal numbers, give

.. math:: v \mapsto F_{true}^{-1}\left(F_{made}(v)\right),

linear between the knots; beyond the ends the end's change is added.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Gaussianise", "QuantileTables", "ValueTable", "energy_groups", "quantiles"]


def quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return the quantiles (k, ...) of values (n, ...) along the first axis, linear between the ordered values, in float64.

    Arguments:
        values: At least one.
        levels: (k,) in [0, 1], float64.
    """
    ordered = values.double().sort(0).values
    place = levels * (len(ordered) - 1)
    below = place.floor().long()
    above = (below + 1).clamp_max(len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], (place - below).view(-1, *[1] * (values.dim() - 1)))


_GROUPS = 9
_LEAST = 50
"""Fewest true showers of a group, where energies are continuous."""


def energy_groups(energy: Tensor, most: int = _GROUPS) -> tuple[Tensor, Tensor]:
    """Return the group (N,) of each shower and the mean ln E (G,) of each group.

    One group at each energy where there are few, else groups of equal numbers.

    Arguments:
        energy: (N,) MeV.
        most: Most groups.
    """
    x = torch.log(energy.double())
    levels, index = torch.unique(x, return_inverse=True)
    if len(levels) > most:
        rank = torch.empty_like(index)
        rank[torch.argsort(x, stable=True)] = torch.arange(len(x), device=x.device)
        groups = max(1, min(most, len(x) // _LEAST))
        index = rank * groups // len(x)
    count = int(index.max()) + 1
    centres = torch.stack([x[index == group].mean() for group in range(count)])
    return index, centres.to(energy.dtype)


class QuantileTables(nn.Module):
    """Tables of some numbers; before the fit they leave numbers between 0 and 1 as they are.

    Arguments:
        size: Numbers a shower.
        knots: Knots of a table.
        reach: Normal number of the last knot but one.
        dtype: Of the tables.

    Attributes:
        position: (G,) ln E of the groups.
        made: (G, classes, size, knots), rising.
        truth: The same.
    """

    position: Tensor
    made: Tensor
    truth: Tensor

    def __init__(
        self, size: int, knots: int = 41, reach: float = 3.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.size, self.knots, self.reach = size, knots, reach
        line = torch.linspace(0.0, 1.0, 2, dtype=dtype).expand(1, 1, size, 2)
        self.register_buffer("position", torch.zeros(1))
        self.register_buffer("made", line.clone())
        self.register_buffer("truth", line.clone())

    @property
    def fitted(self) -> bool:
        """Whether the tables follow from showers."""
        return self.made.shape[-1] > 2

    def levels(self) -> Tensor:
        """Return the probabilities of the knots (knots,), float64."""
        z = torch.linspace(-self.reach, self.reach, self.knots - 2, dtype=torch.float64)
        inner = 0.5 * (1.0 + torch.erf(z / math.sqrt(2.0)))
        return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])

    @torch.no_grad()
    def fit(
        self,
        position: Tensor,
        true: tuple[Tensor, Tensor, Tensor],
        made: tuple[Tensor, Tensor, Tensor],
        classes: int = 1,
    ) -> None:
        """Set the tables.

        Arguments:
            position: (G,) ln E of the groups.
            true: Numbers of true showers (N, size), their groups (N,) and classes (N,).
            made: The same of generated ones (M, ...).
            classes: Number of classes; one without showers takes the tables of its whole group.
        """
        self.position = position.to(self.position)
        self.truth = self._quantiles(*true, len(position), classes).to(self.truth)
        self.made = self._quantiles(*made, len(position), classes).to(self.made)

    def _quantiles(self, values: Tensor, group: Tensor, kind: Tensor, groups: int, classes: int) -> Tensor:
        levels = self.levels().to(values.device)
        rows = []
        for g in range(groups):
            for c in range(classes):
                mine = values[(group == g) & (kind == c)]
                if len(mine) < 2:
                    mine = values[group == g]
                rows.append(quantiles(mine, levels).T)
        return torch.stack(rows).reshape(groups, classes, self.size, self.knots)

    def forward(self, values: Tensor, energy: Tensor, kind: Tensor | None = None) -> Tensor:
        """Return the carried numbers (B, size).

        Arguments:
            values: (B, size).
            energy: Incident energies (B,), MeV.
            kind: Classes (B,), int64; all 0 when missing.
        """
        made, truth = self._at(energy, kind)
        right = (made < values[..., None]).sum(-1).clamp(1, made.shape[-1] - 1)[..., None]
        low, high = made.gather(-1, right - 1), made.gather(-1, right)
        step = high - low
        part = (values[..., None] - low) / torch.where(step > 0, step, torch.ones_like(step))
        first, last = truth.gather(-1, right - 1), truth.gather(-1, right)
        carried: Tensor = (first + part.clamp(0.0, 1.0) * (last - first))[..., 0]
        return carried

    def _at(self, energy: Tensor, kind: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both tables (B, size, knots) at incident energies (B,)."""
        kind = torch.zeros_like(energy, dtype=torch.int64) if kind is None else kind
        kind = kind.clamp_max(self.made.shape[1] - 1)  # one class before the fit
        x = torch.log(energy).contiguous()
        last = len(self.position) - 1
        above = torch.searchsorted(self.position, x).clamp(min(1, last), last)
        below = (above - 1).clamp_min(0)
        low, high = self.position[below], self.position[above]
        gap = torch.where(high > low, high - low, torch.ones_like(low))
        part = ((x - low) / gap).clamp(0.0, 1.0)[:, None, None]
        made, truth = (
            torch.lerp(table[below, kind].to(energy.dtype), table[above, kind].to(energy.dtype), part)
            for table in (self.made, self.truth)
        )
        return made, truth


_REACH = 4.0
_INTERVALS = 160
_OUTER = 10
"""Intervals whose mean slope continues beyond the ends."""


class Gaussianise(nn.Module):
    """Quantile tables of some columns.

    Arguments:
        columns: Number of columns.

    Attributes:
        quantiles: (columns, K + 1), rising.
    """

    quantiles: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        line = torch.linspace(-_REACH, _REACH, _INTERVALS + 1)
        self.register_buffer("quantiles", line.repeat(columns, 1))

    @torch.no_grad()
    def fit(self, values: Tensor, column: int | None = None) -> None:
        """Set the tables of all columns from values (N, columns), or of one column from values (N,)."""
        if column is None:
            for index in range(self.quantiles.shape[0]):
                self.fit(values[:, index], index)
            return
        z = torch.linspace(-_REACH, _REACH, _INTERVALS + 1, dtype=torch.float64, device=values.device)
        levels = 0.5 * (1.0 + torch.erf(z / math.sqrt(2.0)))
        found = quantiles(values, levels)
        self.quantiles[column] = found.to(self.quantiles)

    def forward(self, values: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return z of values (..., columns).

        Arguments:
            values: The values.
            uniform: Numbers in [0, 1) of the same shape, which decide the z of frequent values; 0.5 when missing.
        """
        shape, columns = values.shape, self.quantiles.shape[0]
        rows = values.reshape(-1, columns).T.contiguous()
        right = torch.searchsorted(self.quantiles, rows, right=True).clamp(1, _INTERVALS)
        left = torch.searchsorted(self.quantiles, rows).clamp(0, _INTERVALS)
        low, high = self.quantiles.gather(1, right - 1), self.quantiles.gather(1, right)
        step = high - low
        inside = torch.where(step > 0, (rows - low) / torch.where(step > 0, step, 1.0), 0.0)
        between = right - 1 + inside.clamp(0.0, 1.0)
        first, last = self._slopes()
        outer = torch.where(
            rows < self.quantiles[:, :1],
            (rows - self.quantiles[:, :1]) / first,
            torch.where(rows > self.quantiles[:, -1:], (rows - self.quantiles[:, -1:]) / last, 0.0),
        )
        last_equal = torch.searchsorted(self.quantiles, rows, right=True) - 1
        tied = last_equal > left
        part = torch.full_like(rows, 0.5) if uniform is None else uniform.reshape(-1, columns).T
        spread = self._tied(left, last_equal, part)
        index = torch.where(tied, spread, between) + outer
        z = index * (2.0 * _REACH / _INTERVALS) - _REACH
        return z.T.reshape(shape)

    def inverse(self, z: Tensor) -> Tensor:
        """Return values of z (..., columns)."""
        shape, columns = z.shape, self.quantiles.shape[0]
        rows = z.reshape(-1, columns).T
        position = (rows + _REACH) * (_INTERVALS / (2.0 * _REACH))
        inside = position.clamp(0.0, float(_INTERVALS))
        index = inside.floor().clamp_max(_INTERVALS - 1)
        low = self.quantiles.gather(1, index.long())
        high = self.quantiles.gather(1, index.long() + 1)
        first, last = self._slopes()
        outer = (position - inside) * torch.where(position < 0, first, last)
        return (torch.lerp(low, high, inside - index) + outer).T.reshape(shape)

    def _slopes(self) -> tuple[Tensor, Tensor]:
        """Return the mean step of the outer intervals (columns, 1) at both ends."""
        q = self.quantiles
        first = (q[:, _OUTER] - q[:, 0]) / _OUTER
        last = (q[:, -1] - q[:, -1 - _OUTER]) / _OUTER
        return first.clamp_min(1e-6)[:, None], last.clamp_min(1e-6)[:, None]

    @staticmethod
    def _tied(left: Tensor, right: Tensor, part: Tensor) -> Tensor:
        """Return the knot position between two knots that is uniform in probability."""
        scale = 2.0 * _REACH / _INTERVALS
        a = 0.5 * (1.0 + torch.erf((left * scale - _REACH) / math.sqrt(2.0)))
        b = 0.5 * (1.0 + torch.erf((right * scale - _REACH) / math.sqrt(2.0)))
        level = torch.lerp(a, b, part).clamp(1e-6, 1.0 - 1e-6)
        found: Tensor = (torch.erfinv(2.0 * level - 1.0) * math.sqrt(2.0) + _REACH) / scale
        return found


_KNOTS = 65
_REACH_value_table = 3.5
_LEAST_value_table = 100
"""Fewest values of a layer that make a table."""
_APART = 1e-5
"""Least distance of neighbouring knots."""


class ValueTable(nn.Module):
    """A rising map for each layer; before the fit it leaves values as they are.

    Arguments:
        n_layers: Layers.

    Attributes:
        made: (n_layers, knots), rising: quantiles of the model's values.
        truth: The same of the training showers.
    """

    made: Tensor
    truth: Tensor

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        line = torch.linspace(-4.0, 4.0, _KNOTS)
        self.register_buffer("made", line.repeat(n_layers, 1))
        self.register_buffer("truth", line.repeat(n_layers, 1))

    @torch.no_grad()
    def fit(self, layer: int, made: Tensor, truth: Tensor) -> None:
        """Set the tables of a layer from values (n,) of the model and (m,) of the training showers, if there are enough."""
        if min(len(made), len(truth)) < _LEAST_value_table:
            return
        for table, values in ((self.made, made), (self.truth, truth)):
            table[layer] = _rising(_knots(values)).to(table)

    @torch.no_grad()
    def refine(self, layer: int, found: Tensor, truth: Tensor) -> None:
        """Shift a layer's table by what its values still lack after later steps have changed them.

        Arguments:
            layer: The layer.
            found: Values (n,) of cells at the end, with the present table.
            truth: Values (m,) of the training showers.
        """
        if min(len(found), len(truth)) < _LEAST_value_table:
            return
        missing = (_knots(truth) - _knots(found)).to(self.truth)
        self.truth[layer] = _rising(self.truth[layer] + missing)

    def forward(self, values: Tensor) -> Tensor:
        """Return values (B, n_layers, K) carried."""
        rows = values.transpose(0, 1).flatten(1)
        right = torch.searchsorted(self.made, rows.contiguous()).clamp(1, _KNOTS - 1)
        x, y = ([table.gather(1, right - 1), table.gather(1, right)] for table in (self.made, self.truth))
        part = (rows - x[0]) / (x[1] - x[0])
        inside = y[0] + part * (y[1] - y[0])
        first, last = (self.truth[:, k, None] - self.made[:, k, None] for k in (0, -1))
        found = torch.where(part < 0.0, rows + first, torch.where(part > 1.0, rows + last, inside))
        return found.view(values.shape[1], values.shape[0], -1).transpose(0, 1)


def _knots(values: Tensor) -> Tensor:
    """Return the quantiles (K,) of values (n,) at the probabilities of equally spaced normal numbers."""
    levels = torch.special.ndtr(
        torch.linspace(-_REACH_value_table, _REACH_value_table, _KNOTS, dtype=torch.float64)
    )
    return quantiles(values.cpu(), levels).float()


def _rising(knots: Tensor) -> Tensor:
    """Return knots (K,) made to rise by a least distance."""
    steps = _APART * torch.arange(_KNOTS, device=knots.device)
    rising: Tensor = (knots - steps).cummax(0).values + steps
    return rising
