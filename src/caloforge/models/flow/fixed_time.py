r"""The posterior of a cell that is seen with noise at a fixed time, with constants that are learned.

With the noisy value x, the outputs u, v, w of the network and r the logarithm of the distance from the layer's centre,

.. math:: o = a + u + b x + c x^2 + g r + k r^2, \qquad \mu = e + f x + h v + m r, \qquad \ln \sigma^2 = d + w,

the cell is filled with probability sigmoid(o), and its value then normal. All but x, u, v, w, r are constants of the cell: a to f, h and d begin as
those of cells with their average occupancy, mean and width. Learned are changes for each layer and, in proportion to

.. math:: \max\left(0, \frac{s - s_0}{1 - s_0}\right), \qquad s = \frac{p}{p + p_0}, \quad p_0 = 0.05, \; s_0 = 0.1,

with the occupancy p, for each cell: the hits of rare cells are too few to learn from one by one. Likewise a column has smooth functions of
its place, and learned numbers in proportion to the occupancy of its most filled cell. u, v and w are the outputs of the cell's column plus, for
each layer, numbers that conditions and summary give: of u and v a constant and a slope in r, of w a constant; and v has a term linear in
the layer's row of the summary, with learned weights for each cell, shrunk like its constants. So counts, centres and
widths of a layer, which are those of the summary, need not pass the few channels of a column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from caloforge.models.flow.path import EMPTY, NOISE, CellAverages
from caloforge.models.nn.cell_networks import NOTHING

__all__ = [
    "Faint",
    "FixedTimePosterior",
    "Layers",
    "Numbers",
    "drawn",
    "each_cell",
    "learns",
    "log_odds",
    "shares",
]

_WIDEST = 3.0  # largest change of ln sigma^2
_LEAST = 1e-6
_FARTHEST = 6.0  # of an edge, in standard deviations
_RARE = 0.05  # p_0
_NONE = 0.1  # s_0
_POWERS = (1.59118008, 7.65705983e-2, -1.08767981e-3, 1.40108186e-5, -8.06120603e-8)
"""Of z, z^3, ... z^9 in the logarithm of the odds of Phi(z), least squares for |z| < 6: 0.002 at most."""


def log_odds(normal: Tensor) -> Tensor:
    """Return ln(p / (1 - p)) with p = Phi(z) of normal numbers z, to 0.002 up to 6 standard deviations."""
    square = normal * normal
    found = square * _POWERS[-1]
    for factor in _POWERS[-2:0:-1]:
        found.add_(factor).mul_(square)
    return found.add_(_POWERS[0]).mul_(normal)


def shares(averages: CellAverages) -> Tensor:
    """Return the share (n_cells,) of what each cell learned for itself, which is 0 for rare cells, see the module."""
    share = torch.sigmoid(averages.logit - math.log(_RARE))
    return (share - _NONE).clamp_min(0.0) / (1.0 - _NONE)


def learns(averages: CellAverages) -> Tensor:
    """Return whether a cell's share is above 0 (n_cells,), decided alike on every machine."""
    return averages.logit > math.log(_RARE) + math.log(_NONE / (1.0 - _NONE))


def each_cell(numbers: Tensor, columns: int) -> Tensor:
    """Return numbers of layers (B, n_layers) for each cell of so many columns (B, columns x n_layers)."""
    return numbers[:, None].expand(-1, columns, -1).flatten(1)


class Numbers(NamedTuple):
    """Constants of the cells at one time, see the module, (n_cells,) each."""

    a: Tensor
    b: Tensor
    c: Tensor
    e: Tensor
    f: Tensor
    h: Tensor
    d: Tensor
    g: Tensor
    k: Tensor
    m: Tensor


class FixedTimePosterior(nn.Module):
    """Constants of the cells at one time t below 1.

    Attributes:
        by_layer: (8, 1, n_layers) learned changes: of a, b, the mean, ln width, f, and of g, k and m.
        by_cell: (8, columns, n_layers) the same for each cell, before they are shrunk.
        linear: (columns, n_layers, kinds) weights of the layer's row of the summary in v, before they are shrunk.
    """

    def __init__(self, columns: int, layers: int, kinds: int, time: float) -> None:
        super().__init__()
        self.time = time
        self.by_layer = nn.Parameter(torch.zeros(8, 1, layers))
        self.by_cell = nn.Parameter(torch.zeros(8, columns, layers))
        self.linear = nn.Parameter(torch.zeros(columns, layers, kinds))

    BY_CELL: ClassVar[Mapping[str, int]] = {"by_cell": 1, "linear": 0}
    """Names of the parameters with numbers for each cell, and the first of the two axes that are column and layer."""

    def numbers(self, averages: CellAverages) -> Tensor:
        """Return the constants (10, n_cells) of cells with these averages, in the order of :class:`Numbers`."""
        t = self.time
        own = shares(averages).view_as(self.by_cell[0]) * self.by_cell
        a, b, shift, stretch, f, g, k, m = (self.by_layer + own).flatten(1).float()
        spread = averages.spread * torch.exp(_WIDEST * torch.tanh(stretch / _WIDEST))
        centre = averages.centre + averages.spread * shift
        noise = (1.0 - t) ** 2 + NOISE**2
        variance = t**2 * spread.square() + noise
        a = a + averages.logit + 0.5 * t**2 * (1.0 / noise - centre.square() / variance)
        a = a - 0.5 * torch.log(variance / noise)
        b = b + t * (1.0 / noise + centre / variance)
        c = 0.5 * (1.0 / noise - 1.0 / variance)
        weight = t * spread.square() / variance
        rest = 1.0 - t * weight
        width = torch.log(spread.square() * noise / variance)
        return torch.stack([a, b, c, centre * rest, weight + f, spread * rest, width, g, k, m])

    def weights(self, averages: CellAverages) -> Tensor:
        """Return the weights (n_cells, kinds) of the layer's row of the summary in v."""
        return (shares(averages).view_as(self.linear[..., :1]) * self.linear).flatten(0, 1).float()

    @staticmethod
    def odds(x: Tensor, u: Tensor, distance: Tensor, n: Numbers) -> Tensor:
        """Return o (B, n_cells)."""
        radial = torch.addcmul(n.g, n.k, distance).mul(distance)
        return torch.addcmul(n.b, n.c, x).mul(x) + radial + (n.a + u)

    @staticmethod
    def value(x: Tensor, v: Tensor, w: Tensor, distance: Tensor, n: Numbers) -> tuple[Tensor, Tensor]:
        """Return mean and ln sigma^2 of the value if the cell is filled, of the shape of x: (B, n_cells), or of some cells."""
        mean = n.e + n.f * x + n.h * v + n.m * distance
        return mean, n.d + _WIDEST * torch.tanh(w / _WIDEST)


class Parting(NamedTuple):
    """What is added to log odds of independent cells, alike within a layer (B, n_layers), so that a given number n of them is chosen.

    Given the (n + 1)th largest of the numbers, the n larger ones are distributed like independent ones above it: quantiles of the
    chosen cells follow from the change with which that one is just not chosen. Likewise the others are below the nth.
    """

    middle: Tensor  # chooses them
    above: Tensor  # the largest that does, for quantiles of the chosen
    below: Tensor  # the smallest, for quantiles of the others


class Faint(NamedTuple):
    """Which part of the filled cells is faint, below the threshold of a hit, and their values.

    The energies of faint cells hardly depend on the rest of the shower. A normal posterior of all filled cells would change them with their
    number, so that they are drawn from their distribution over all showers.
    """

    edge: Tensor  # value of the threshold (n_cells,); minus infinity for cells that are never faint
    parting: Callable[
        [Tensor], Parting
    ]  # for log odds (B, n_cells) of being faint, less those of the cells' quantiles
    value: Callable[[Tensor], Tensor]  # of quantiles of faint cells


class Layers(NamedTuple):
    """What conditions and summary give the cells of each layer directly."""

    bias: Tensor  # added to v (B, n_layers)
    slope: Tensor  # the same, times r
    width: Tensor  # added to w
    rows: Tensor  # of the summary (B, n_layers, kinds)

    def added(self, distance: Tensor, weights: Tensor) -> Tensor:
        """Return what is added to v (B, columns, n_layers) for r (B, n_cells) and weights (n_cells, kinds)."""
        layers = self.bias.shape[1]
        table = weights.view(-1, layers, weights.shape[1])
        linear = torch.einsum("blk,clk->bcl", self.rows, table)
        rows = distance.view(len(distance), -1, layers)
        return linear + torch.addcmul(self.bias[:, None], self.slope[:, None], rows)


def drawn(
    x: Tensor,
    odds: Tensor,
    level: Tensor,
    distance: Tensor,
    rest: Tensor,
    layers: Layers,
    numbers: Tensor,
    weights: Tensor,
    lift: Tensor | None = None,
    faint: Faint | None = None,
) -> Tensor:
    """Return values (B, n_cells) drawn for noisy ones.

    Arguments:
        x: Noisy values (B, n_cells).
        odds: o of the module (B, n_cells).
        level: Log odds of a uniform number of each cell (B, n_cells).
        distance: r (B, n_cells).
        rest: What the columns give of v and w (B, nx, ny, 2 x n_layers).
        layers: What is added to them.
        numbers: Constants (10, n_cells).
        weights: Those of the layer's row of the summary in v (n_cells, kinds).
        lift: Added to the odds for the quantiles of filled cells (B, n_layers), where numbers of cells are given; see :class:`Parting`.
        faint: How many of a layer's filled cells are faint, exactly; none: as the posterior has it.
    """
    chosen, count, n_cells = odds > level, layers.bias.shape[1], x.shape[1]
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        v, w = (part.flatten(1, 2) for part in rest.chunk(2, -1))
        v, w = (v + layers.added(distance, weights)).flatten(1), (w + layers.width[:, None]).flatten(1)
        mean, log = FixedTimePosterior.value(x, v, w, distance, Numbers(*numbers.unbind(0)))
        columns = n_cells // count
        inside, width = (
            _inside(odds if lift is None else odds + each_cell(lift, columns), level),
            torch.exp(0.5 * log),
        )
        if faint is not None:
            edge, at = _edge(faint.edge, mean, width), _odds(inside)
            parting = faint.parting(torch.where(chosen, edge - at, NOTHING))
            change = Parting(*(each_cell(part, columns) for part in parting))
            return torch.where(chosen, _parted(inside, at, edge, change, mean, width, faint), EMPTY)
        return torch.where(chosen, mean + width * _normal(inside), EMPTY)
    place = torch.nonzero(chosen.flatten())[:, 0]  # few cells: only their values are made
    cell = place % n_cells
    own = Numbers(*numbers.index_select(1, cell).unbind(0))
    x_, odds_, level_, r = (part.flatten().index_select(0, place) for part in (x, odds, level, distance))
    first = place + place.div(count, rounding_mode="floor") * count  # of v in ``rest``
    v, w = (rest.flatten().index_select(0, first + k * count) for k in range(2))
    row = place.div(n_cells, rounding_mode="floor") * count + place % count
    bias, slope, width = (part.flatten().index_select(0, row) for part in layers[:3])
    linear = (layers.rows.flatten(0, 1).index_select(0, row) * weights.index_select(0, cell)).sum(1)
    mean, log = FixedTimePosterior.value(x_, v + linear + torch.addcmul(bias, slope, r), w + width, r, own)
    if lift is not None:
        odds_ = odds_ + lift.flatten().index_select(0, row)
    inside, width = _inside(odds_, level_), torch.exp(0.5 * log)
    if faint is not None:
        edge, at = _edge(faint.edge.index_select(0, cell), mean, width), _odds(inside)
        table = torch.full_like(x, NOTHING).view(-1).index_copy_(0, place, edge - at).view_as(x)
        change = Parting(*(part.flatten().index_select(0, row) for part in faint.parting(table)))
        value = _parted(inside, at, edge, change, mean, width, faint)
    else:
        value = mean + width * _normal(inside)
    return torch.full_like(x, EMPTY).view(-1).index_copy_(0, place, value).view_as(x)


def _inside(odds: Tensor, level: Tensor) -> Tensor:
    """Return where the uniform number of a filled cell lies among those that fill it: the quantile of the cell's value."""
    return (torch.sigmoid(level) / torch.sigmoid(odds).clamp_min(_LEAST)).clamp(_LEAST, 1.0 - _LEAST)


def _odds(p: Tensor) -> Tensor:
    return torch.log(p / (1.0 - p))


def _normal(quantile: Tensor) -> Tensor:
    found: Tensor = torch.special.ndtri(quantile.clamp(_LEAST, 1.0 - _LEAST))
    return found


def _edge(edge: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    """Return the log odds that values are below the edge (those of 6 standard deviations at most)."""
    return log_odds(((edge - mean) / width).clamp(-_FARTHEST, _FARTHEST))


def _parted(
    inside: Tensor, at: Tensor, edge: Tensor, change: Parting, mean: Tensor, width: Tensor, faint: Faint
) -> Tensor:
    """Return the values: those of faint cells, where edge + change exceeds the odds of the quantile, and of others, above the edge."""
    below = torch.sigmoid(edge)
    first, last = (torch.sigmoid(edge + part) for part in (change.above, change.below))
    quantile = (inside / first.clamp_min(_LEAST)).clamp(_LEAST, 1.0 - _LEAST)
    rest = (1.0 - inside) / (1.0 - last).clamp_min(_LEAST)
    hit = mean + width * _normal(torch.maximum(1.0 - rest * (1.0 - below), below))
    return torch.where(edge + change.middle > at, faint.value(quantile), hit)
