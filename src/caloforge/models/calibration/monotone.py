r"""Monotone maps between distributions, as tables of quantiles.

A table interpolates linearly between knots x_k and values y_k. With the quantiles of generated numbers as x and those of reference
numbers at the same probabilities as y it is quantile mapping,

.. math:: x \mapsto F_{ref}^{-1}(F_{gen}(x)) ,

which keeps the order of showers, and so the correlations that the model has learnt. With y the normal numbers of these probabilities
it turns a distribution into the standard normal one. The probabilities are those of equally spaced normal numbers.

Quantiles of n training numbers fluctuate about the true ones with variance :math:`p_k (1 - p_k) / (n f(q_k)^2)`, which a table of
many knots repeats. :func:`smooth_quantiles` therefore fits a curve that is as smooth as two halves of the sample allow
(Whittaker-Henderson smoothing, its strength by cross-validation), with straight tails.

References:
    H. A. David, H. N. Nagaraja, Order Statistics (2003), section 2.5 (variance of quantiles).
    P. H. C. Eilers, A perfect smoother, Anal. Chem. 75 (2003) 3631.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.statistics.moments import levels

__all__ = [
    "Labelled", "MonotoneMap", "energy_groups", "neighbours", "normal_levels", "quantiles", "smooth_quantiles",
]  # fmt: skip

_GROUPS = 9
_LEAST = 50  # fewest showers of a group, where energies are continuous
_OUTER = 10  # intervals whose mean slope continues beyond the ends
_FOLLOWED = 3.5  # normal number of the outer knots of a map that follows another
_FLAT = 1e-6  # least distance of two knots along which a line continues


def quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return the quantiles (k, ...) of values (n, ...) at levels (k,) in [0, 1], linear between the ordered values, in float64."""
    ordered = values.double().sort(0).values
    place = levels.to(values.device) * (len(ordered) - 1)
    below = place.floor().long()
    above = (below + 1).clamp_max(len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], (place - below).view(-1, *[1] * (values.dim() - 1)))


def normal_levels(knots: int, reach: float, ends: bool = False) -> Tensor:
    """Return the probabilities (knots,) of equally spaced normal numbers up to +-reach; the outer ones are 0 and 1 with ``ends``."""
    if ends:
        inner = normal_levels(knots - 2, reach)
        return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])
    levels: Tensor = torch.special.ndtr(torch.linspace(-reach, reach, knots, dtype=torch.float64))
    return levels


_PENALTIES = (0.0, *10.0 ** np.arange(-2.0, 8.0))
_SPLITS = 4
_FEWEST = 40  # values from which on quantiles are smoothed
_SEARCHED = 16  # showers from which on knots are interpolated one by one
_BEYOND = 0.5  # expected values beyond the last knot that is fitted; further out the curve is straight


def smooth_quantiles(values: Tensor, knots: int, reach: float) -> Tensor:
    r"""Return quantiles (knots,) of values (n,) at equally spaced normal numbers up to ``reach``, without the sample's fluctuations.

    They minimise :math:`\sum_k w_k (q_k - s_k)^2 + \lambda \sum_k (s_{k-1} - 2 s_k + s_{k+1})^2`, w the inverse variances of
    the quantiles of a normal distribution; :math:`\lambda` is the one with which each half of the sample best predicts the other.
    A sample with frequent values, or of few, keeps its own quantiles.
    """
    levels, n = normal_levels(knots, reach), len(values)
    values = values.double().cpu()
    raw = quantiles(values, levels)
    weights, smoothers = _smoothers(_rounded(n // 2), knots, reach)
    if n < _FEWEST or bool((raw.diff() <= 0)[(weights[1:] > 0) & (weights[:-1] > 0)].any()):
        return raw
    generator = torch.Generator().manual_seed(n)
    score = torch.zeros(len(_PENALTIES), dtype=torch.float64)
    for _ in range(_SPLITS):
        one, other = (quantiles(values[p], levels) for p in torch.randperm(n, generator=generator).chunk(2))
        score += (weights * ((smoothers @ one - other).square() + (smoothers @ other - one).square())).sum(1)
    chosen = int(score.argmin())
    if _PENALTIES[chosen] == 0:
        return raw
    weights, smoothers = _smoothers(_rounded(n), knots, reach)
    best, fitted = smoothers[chosen] @ raw, torch.nonzero(weights)[:, 0]
    first, last = int(fitted[0]), int(fitted[-1])
    outer, index = min(_OUTER, last - first), torch.arange(knots)
    low, high = (best[first + outer] - best[first]) / outer, (best[last] - best[last - outer]) / outer
    best = (
        best[index.clamp(first, last)]
        + (index - first).clamp_max(0) * low
        + (index - last).clamp_min(0) * high
    )
    return best.cummax(0).values


def _rounded(n: int) -> int:
    """Return the power of 2 at or below n, so that few matrices are computed."""
    return 1 << max(0, n.bit_length() - 1)


@lru_cache(maxsize=16)
def _smoothers(n: int, knots: int, reach: float) -> tuple[Tensor, Tensor]:
    """Return the weights (knots,) of n values' quantiles, 0 in the tails, and the matrices (penalties, knots, knots)."""
    levels = normal_levels(knots, reach)
    tail = torch.minimum(levels, 1.0 - levels)
    density = torch.exp(-0.5 * torch.linspace(-reach, reach, knots, dtype=torch.float64).square())
    weights = density.square() / (tail * (1.0 - tail)) / (2.0 * math.pi) * (n * tail >= min(_BEYOND, 0.1 * n))
    eye = torch.eye(knots, dtype=torch.float64)
    bends = eye.diff(n=2, dim=0)
    matrices = [
        torch.linalg.solve(torch.diag(weights) + penalty * bends.T @ bends, torch.diag(weights))
        if penalty
        else eye
        for penalty in _PENALTIES
    ]
    return weights, torch.stack(matrices)


def energy_groups(energy: Tensor, most: int = _GROUPS) -> tuple[Tensor, Tensor]:
    """Return the group (N,) of each shower and the mean ln E (G,) of each group, ascending, for energies (N,), MeV.

    One group at each energy where there are few, else at most ``most`` groups of equal numbers.
    """
    x = torch.log(energy.double())
    found = levels(energy.double().cpu().numpy(), most)
    if found is not None:
        first = torch.from_numpy(found).to(x.device)
        index = torch.searchsorted(first, energy.double().contiguous(), right=True) - 1
    else:
        index = torch.unique(x, return_inverse=True)[1]
        rank = torch.empty_like(index)
        rank[torch.argsort(x, stable=True)] = torch.arange(len(x), device=x.device)
        groups = max(1, min(most, len(x) // _LEAST))
        index = rank * groups // len(x)
    count = int(index.max()) + 1
    centres = torch.stack([x[index == group].mean() for group in range(count)])
    return index, centres.to(energy.dtype)


def neighbours(position: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the groups below and above (B,) and how far between them (B,), 0 to 1, of ``at`` (B,) among positions (G,)."""
    last = len(position) - 1
    above = torch.searchsorted(position, at.to(position).contiguous()).clamp(min(1, last), last)
    below = (above - 1).clamp_min(0)
    low, high = position[below], position[above]
    gap = torch.where(high > low, high - low, torch.ones_like(low))
    return below, above, ((at - low) / gap).clamp(0.0, 1.0)


class Labelled(NamedTuple):
    """Numbers of showers (N, columns), the group (N,) and the class (N,) of each shower."""

    values: Tensor
    group: Tensor
    kind: Tensor


class MonotoneMap(nn.Module):
    """Piecewise linear rising maps, one for each column, class of showers and group along a condition.

    Between groups, such as incident energies, both tables are interpolated linearly. Before the fit it is the identity.

    Arguments:
        columns: Numbers a shower.
        knots: Knots of a table.
        reach: Normal number of the last knot, or of the last but one where there are ``ends``.
        ends: Whether the first and last knot are the smallest and largest value.
        even: ``x`` or ``y`` where that table is of equally spaced numbers, which are found without a search.
        beyond: Slope dy/dx beyond the ends, 0 for none; missing: the mean slope of the outer ten intervals.
        dtype: Of the tables.
    """

    position: Tensor  # (G,) where the groups lie, ascending
    x: Tensor  # (G, classes, columns, knots), rising; dimensions of size 1 are for all
    y: Tensor  # the same

    def __init__(
        self,
        columns: int,
        knots: int,
        reach: float,
        *,
        ends: bool = False,
        even: str = "",
        beyond: float | None = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.columns, self.knots, self.reach = columns, knots, reach
        self.ends, self.even, self.beyond = ends, even, beyond
        line = torch.linspace(-reach, reach, knots, dtype=dtype).view(1, 1, 1, knots)
        self.register_buffer("position", torch.zeros(1))
        for name in ("x", "y"):
            self.register_buffer(name, line.repeat(1, 1, 1 if name == even else columns, 1))

    @torch.no_grad()
    def fit_normal(self, values: Tensor, column: int, worth: float = 0.0) -> None:
        """Let a column (``even="y"``) make values (N,) standard normal; its quantiles so far count as those of ``worth`` values."""
        found = smooth_quantiles(values, self.knots, self.reach).to(self.x)
        self.x[0, 0, column].lerp_(found, len(values) / (len(values) + worth))

    @torch.no_grad()
    def fit_column(self, column: int, generated: Tensor, reference: Tensor) -> None:
        """Let a column map generated values (M,) to reference values (N,)."""
        levels = normal_levels(self.knots, self.reach, self.ends)
        self.set_column(column, quantiles(generated, levels), quantiles(reference, levels))

    @torch.no_grad()
    def set_column(self, column: int, x: Tensor, y: Tensor) -> None:
        """Set both tables (knots,) of a column; columns may have different equally spaced numbers."""
        for name, knots in (("x", x), ("y", y)):
            table = getattr(self, name)
            if table.shape[2] < self.columns:
                table = table.repeat(1, 1, self.columns, 1)
                setattr(self, name, table)
            table[0, 0, column] = knots.to(table)

    @torch.no_grad()
    def correct_column(self, column: int, found: Tensor, reference: Tensor, least: float = -math.inf) -> None:
        """Shift a column's values by the difference of the quantiles of reference (N,) and finished values (M,) of later steps.

        None becomes smaller than ``least``, such as a value below which later steps drop it, and its quantile with it.
        """
        levels = normal_levels(self.knots, self.reach, self.ends)
        missing = quantiles(reference, levels) - quantiles(found, levels)
        self.y[0, 0, column] = (self.y[0, 0, column] + missing.to(self.y)).clamp_min(least).cummax(0).values

    @torch.no_grad()
    def follow_column(self, column: int, found: Tensor, reference: Tensor) -> None:
        """Let a column be followed by the quantile map of finished values (M,) to reference (N,); beyond it, by the shift of its ends."""
        levels = normal_levels(self.knots, _FOLLOWED, self.ends)
        x, y = quantiles(found, levels).to(self.y), quantiles(reference, levels).to(self.y)
        rows = self.y[0, 0, column][None]
        self.y[0, 0, column] = _interpolated(x[None], y[None], rows, False, 1.0, 1.0)[0].cummax(0).values

    @torch.no_grad()
    def fit_groups(
        self, position: Tensor, generated: Labelled, reference: Labelled, classes: int = 1
    ) -> None:
        """Map generated to reference numbers in each class and group, at (G,); a class without showers takes its group's."""
        levels = normal_levels(self.knots, self.reach, self.ends)
        self.position = position.to(self.position)
        for name, (values, group, kind) in (("x", generated), ("y", reference)):
            rows = []
            for g in range(len(position)):
                for c in range(classes):
                    mine = values[(group == g) & (kind == c)]
                    rows.append(quantiles(mine if len(mine) > 1 else values[group == g], levels).T)
            table = torch.stack(rows).view(len(position), classes, -1, self.knots)
            setattr(self, name, table.to(getattr(self, name)))

    def forward(
        self,
        values: Tensor,
        at: Tensor | None = None,
        kind: Tensor | None = None,
        uniform: Tensor | None = None,
    ) -> Tensor:
        """Return y of values (B, columns) or (B, columns, n).

        Arguments:
            values: Values x.
            at: Place of each shower (B,) among the groups; needed where there are several.
            kind: Class of each shower (B,), int64; all 0 when missing.
            uniform: Numbers in [0, 1) of the shape of values: a value so frequent that several knots are equal (an empty layer) is
                then spread over the probability that it covers, of normal numbers y without groups.
        """
        if uniform is None and at is not None and self._searchable(values):
            return self._searched(values, at, kind)
        x, y = self.tables(at, values.dtype, kind)
        rows = self._rows(values)
        found = _interpolated(x, y, rows, self.even == "x", *self._slopes(x, y))
        if uniform is not None:
            knots = x.expand(len(rows), -1).contiguous()
            first = torch.searchsorted(knots, rows)
            last = torch.searchsorted(knots, rows, right=True) - 1
            ends = torch.special.ndtr(y.expand_as(knots))
            low, high = (ends.gather(1, place.clamp(0, self.knots - 1)) for place in (first, last))
            level = torch.lerp(low, high, self._rows(uniform)).clamp(1e-6, 1.0 - 1e-6)
            found = torch.where(last > first, torch.special.ndtri(level), found)
        return self._back(found, values)

    def inverse(self, values: Tensor, at: Tensor | None = None, kind: Tensor | None = None) -> Tensor:
        """Return x of values y, see ``forward``."""
        x, y = self.tables(at, values.dtype, kind)
        slopes = (None if s is None else 1.0 / s for s in self._slopes(x, y))
        return self._back(_interpolated(y, x, self._rows(values), self.even == "y", *slopes), values)

    @property
    def _grouped(self) -> bool:
        return len(self.position) > 1 or self.x.shape[1] > 1

    def tables(
        self, at: Tensor | None, dtype: torch.dtype, kind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both tables (rows, knots), of the rows of ``_rows`` or one for all."""
        if not self._grouped:
            x, y = (table[0, 0].to(dtype) for table in (self.x, self.y))
            return x, y
        assert at is not None
        below, above, part = neighbours(self.position, at)
        kind = torch.zeros_like(below) if kind is None else kind

        def between(table: Tensor) -> Tensor:
            if table.shape[:2] == (1, 1):  # the same everywhere
                return table[0, 0].to(dtype)
            own = kind.clamp_max(table.shape[1] - 1)
            low, high = table[below, own].to(dtype), table[above, own].to(dtype)
            return torch.lerp(low, high, part[:, None, None].to(dtype)).flatten(0, 1)

        return between(self.x), between(self.y)

    def _searchable(self, values: Tensor) -> bool:
        """Return whether ``_searched`` makes the same of values: each has separate tables, and on a CPU these take most of the time."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return False
        many = values.dim() == 2 and values.shape[0] >= _SEARCHED and values.device.type == "cpu"
        return (
            many and self._grouped and not self.even and self.beyond == 0.0 and self.x.shape == self.y.shape
        )

    def _searched(self, values: Tensor, at: Tensor, kind: Tensor | None) -> Tensor:
        """Return y of values (B, columns), of which the tables are interpolated at the knots alone that a bisection looks at."""
        below, above, part = neighbours(self.position, at)
        own = 0 if kind is None else kind.clamp_max(self.x.shape[1] - 1)
        columns = torch.arange(values.shape[1])
        first, other = (
            (((group * self.x.shape[1] + own) * self.columns)[:, None] + columns) * self.knots
            for group in (below, above)
        )

        def knot(table: Tensor, place: Tensor) -> Tensor:
            low, high = (
                table.view(-1).index_select(0, (base + place).view(-1)).view_as(values).to(values.dtype)
                for base in (first, other)
            )
            return torch.lerp(low, high, part[:, None].to(values.dtype))

        left, last = torch.zeros_like(first), self.knots - 2
        for power in reversed(range(last.bit_length())):  # the last knot below the value, but for both ends
            further = left + (1 << power)
            less = (knot(self.x, further.clamp_max(last)) < values) & (further <= last)
            left = torch.where(less, further, left)
        start = knot(self.x, left)
        step = knot(self.x, left + 1) - start
        inside = ((values - start) / torch.where(step > 0, step, 1.0)).clamp(0.0, 1.0)
        return torch.lerp(knot(self.y, left), knot(self.y, left + 1), inside)

    def _rows(self, values: Tensor) -> Tensor:
        """Return values (rows, n): those that share a table in one row."""
        if self._grouped:
            return values.reshape(-1, values.shape[2] if values.dim() > 2 else 1).contiguous()
        return values.transpose(0, 1).reshape(values.shape[1], -1).contiguous()

    def _back(self, rows: Tensor, values: Tensor) -> Tensor:
        """Return rows in the shape of values."""
        if self._grouped:
            return rows.view(values.shape)
        return rows.view(values.shape[1], values.shape[0], *values.shape[2:]).transpose(0, 1)

    def _slopes(self, x: Tensor, y: Tensor) -> tuple[Tensor | float | None, Tensor | float | None]:
        """Return the slopes beyond both ends, None for none."""
        if self.beyond is not None:
            return (self.beyond or None,) * 2
        ends = ((0, _OUTER), (-1 - _OUTER, -1))
        low, high = (
            ((y[:, b] - y[:, a]) / (x[:, b] - x[:, a]).clamp_min(_OUTER * _FLAT))[:, None] for a, b in ends
        )
        return low, high


def _interpolated(
    x: Tensor, y: Tensor, values: Tensor, even: bool, low: Tensor | float | None, high: Tensor | float | None
) -> Tensor:
    """Return values (rows, n) between tables (rows or 1, knots), with these slopes beyond the ends."""
    last = x.shape[1] - 1
    first_x, last_x = x[:, :1], x[:, -1:]
    if even:
        place = ((values - first_x) * (last / (last_x - first_x))).clamp(0.0, float(last))
        left = place.long().clamp_max(last - 1)
        part = place - left
    else:
        x = x.expand(values.shape[0], -1).contiguous()
        left = torch.searchsorted(x, values).clamp_(1, last).sub_(1)
        start = x.gather(1, left)
        step = x.gather(1, left + 1) - start
        part = ((values - start) / torch.where(step > 0, step, 1.0)).clamp(0.0, 1.0)
    y = y.expand(values.shape[0], -1)
    found = torch.lerp(y.gather(1, left), y.gather(1, left + 1), part)
    if low is not None:
        found = found + (values - first_x).clamp_max(0.0) * low
    if high is not None:
        found = found + (values - last_x).clamp_min(0.0) * high
    return found
