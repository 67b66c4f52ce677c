r"""Small networks of the cells for one core of a CPU, which draw showers in a few turns.

**Columns.** The cells of a grid behind one another along the shower are one token, with the layers as channels, so that a plane of nx times
ny tokens is what a two-dimensional convolution takes. A particle passes several layers, and hits behind one another are the strongest
correlation of a shower; within a token it costs a product with a small matrix. Blocks are those of ConvNeXt: a convolution of each
channel alone over the neighbouring columns, modulated by conditions and summary, and two layers across the channels. There is no norm,
which would cost as much as one of them, and no attention, whose cost rises with the square of the columns: the summary knows the shower as a
whole.

**Turns.** At times 0 = t_0 < t_1 < ... < 1 the value of each cell is drawn from its posterior, given the noisy values of all (see
:class:`~caloforge.models.flow.path.SpikeSlab`), and lies on its straight path with its noise until the next time,

.. math:: x_{k+1} = \frac{1 - t_{k+1}}{1 - t_k} x_k + \left(t_{k+1} - t_k \frac{1 - t_{k+1}}{1 - t_k}\right) y, \qquad y \sim p_k(y | x_k) .

At t_0 = 0 there is noise alone, and the first network sees conditions and summary. Cells are independent within one turn and not over
all: the next turn knows where its neighbours were drawn. Each turn has its own network, whose loss is the negative logarithm of the
posterior's density at training showers, so that it needs no teacher.

**Posterior.** That of a cell, with constants that are learned: :mod:`~caloforge.models.flow.fixed_time`.

References:
    Z. Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.base import in_chunks
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.fixed_time import (
    Faint,
    FixedTimePosterior,
    Layers,
    Numbers,
    Parting,
    drawn,
    each_cell,
    log_odds,
    shares,
)
from caloforge.models.flow.path import EMPTY, CellAverages
from caloforge.models.flow.sampling import repeated
from caloforge.models.nn.cell_networks import NOTHING, topk_ragged

__all__ = ["ColumnNetwork", "ColumnNetworks", "Context", "FaintCells", "is_columns"]

_CACHED = 500_000  # cells of a batch on a CPU, which fit into its cache
_MOST = 40.0  # largest log odds
_NEAR = 0.25  # added to squared distances, in cells
_WAVES = (1.0, 2.0)  # half waves across the detector
_LAYER_NUMBERS = 5  # of u and v a constant and a slope, of w a constant


class Context(NamedTuple):
    """What the networks know of showers beside their noisy values."""

    encoded: Tensor  # conditions (B, k)
    summary: Tensor  # (B, rows, kinds)
    x: Tensor  # centres of the layers along x (B, n_layers), in half widths of the layer
    y: Tensor  # the same along y

    @classmethod
    def of(cls, encoded: Tensor, summary: Tensor, targets: LayerTargets) -> Context:
        """Return the context of encoded conditions, summaries and what these say of the layers."""
        return cls(encoded, summary, targets.x, targets.y)


class FaintCells(NamedTuple):
    """Which filled cells are faint, and their values."""

    counts: Tensor  # faint cells of each layer (B, n_layers), whole numbers
    edge: Tensor  # value (n_cells,) below which a cell is faint
    value: Callable[[Tensor], Tensor]  # of quantiles of faint cells, of any shape


class _Block(nn.Module):
    """h + W_2 silu(W_1 modulated convolution of each channel)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return tokens (B, nx, ny, width) of tokens, shifts and scales (B, width)."""
        near = self.near(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        near = torch.addcmul(shift[:, None, None], near, 1.0 + scale[:, None, None])
        found: Tensor = h + self.down(functional.silu(self.up(near)))
        return found


class ColumnNetwork(nn.Module):
    """The network of one turn, see the module.

    Arguments:
        shape: Columns along x and y, and layers.
        time: When the turn begins; 0: the network sees no noisy values.
        rows: Rows of a summary.
        kinds: Its numbers a row.
        conditions: Encoded conditions.
        width: Channels of a column.
        blocks: Blocks.
        kernel: Columns along the side of a convolution.
    """

    smooth: Tensor  # (nx, ny, functions) of the columns' places

    def __init__(
        self,
        shape: Sequence[int],
        time: float,
        rows: int,
        kinds: int,
        conditions: int,
        width: int,
        blocks: int,
        kernel: int,
    ) -> None:
        super().__init__()
        nx, ny, layers = shape
        self.shape, self.time = (nx, ny, layers), time
        self.place = nn.Linear(layers, width)
        self.embed = nn.Linear(layers, width, bias=False) if time > 0 else None
        self.register_buffer("smooth", _smooth(nx, ny), persistent=False)
        self.position = nn.Linear(self.smooth.shape[2], width)
        self.own = nn.Parameter(torch.zeros(nx, ny, width))
        self.condition = nn.Sequential(
            nn.Linear(conditions + rows * kinds, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )
        self.modulation = nn.Linear(2 * width, (2 * blocks + 2) * width)
        self.by_layer = nn.Linear(2 * width, _LAYER_NUMBERS * layers)
        self.direct = nn.Linear(conditions + rows * kinds, _LAYER_NUMBERS * layers, bias=False)
        self.blocks = nn.ModuleList(_Block(width, kernel) for _ in range(blocks))
        self.occupied, self.valued = nn.Linear(width, layers), nn.Linear(width, 2 * layers)
        for head in (self.occupied, self.valued, self.by_layer, self.direct):
            nn.init.zeros_(head.weight)
            if head.bias is not None:
                nn.init.zeros_(head.bias)
        self.posterior = FixedTimePosterior(nx * ny, layers, kinds, time)

    def forward(
        self, x: Tensor, averages: CellAverages, context: Context, distance: Tensor, data: Tensor
    ) -> Tensor:
        """Return the loss, nats a cell, of noisy values x (B, n_cells) whose values are ``data`` (B, n_cells).

        ``distance`` is r (B, n_cells) of the module.
        """
        n = Numbers(*self.posterior.numbers(averages).unbind(0))
        u, bias, rest, layers = self.outputs(x, self.places(averages), context, distance)
        v, w = (part.flatten(1, 2) for part in rest.chunk(2, -1))
        v = v + layers.added(distance, self.posterior.weights(averages))
        u = (u.view(len(x), -1, self.shape[2]) + bias[:, None]).flatten(1)
        odds = self.posterior.odds(x, u, distance, n).clamp(-_MOST, _MOST)
        mean, log = self.posterior.value(x, v.flatten(1), (w + layers.width[:, None]).flatten(1), distance, n)
        filled = (data > EMPTY) | (averages.logit >= _MOST)
        occupied = functional.softplus(torch.where(filled, -odds, odds))
        value = 0.5 * ((data - mean).square() * torch.exp(-log) + log)
        return (occupied + torch.where(filled, value, 0.0)).mean()

    def places(self, averages: CellAverages) -> Tensor:
        """Return what the tokens know of their places (nx, ny, width)."""
        share = shares(averages).view(self.shape).amax(2, keepdim=True)
        found: Tensor = self.position(self.smooth) + share * self.own
        return found

    def outputs(
        self, x: Tensor, places: Tensor, context: Context, distance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Layers]:
        """Return the outputs.

        These are u (B, n_cells) but for the constant of the layers, that constant (B, n_layers), what the columns give of v and w
        (B, nx, ny, 2 x n_layers), and what the layers add to these.
        """
        condition = torch.cat([context.encoded, context.summary.flatten(1)], 1)
        hidden = functional.silu(self.condition(condition))
        by_layer = (self.by_layer(hidden) + self.direct(condition)).float()
        modulation = self.modulation(hidden)
        first, last, *parts = modulation.chunk(2 * len(self.blocks) + 2, 1)
        h = self.place(distance.view(-1, *self.shape)) + places
        if self.embed is not None:
            h = h + self.embed(x.view(-1, *self.shape))
        h = h + first[:, None, None]
        for block, shift, scale in zip(self.blocks, parts[::2], parts[1::2], strict=True):
            h = block(h, shift, scale)
        h = h + last[:, None, None]
        numbers = by_layer.view(len(h), _LAYER_NUMBERS, -1)
        bias, slope, constant, gradient, width = numbers.unbind(1)
        u = self.occupied(h).float().flatten(1, 2)
        u = torch.addcmul(u, slope[:, None], distance.view_as(u)).flatten(1)
        layers = Layers(constant, gradient, width, context.summary[:, : self.shape[2]])
        return u, bias, self.valued(h).float(), layers


class ColumnNetworks(nn.Module):
    """The networks of all turns; in training the rows of a batch take the turns one after the other.

    Arguments:
        detector: A detector whose layers are the same rows and columns of cells.
        times: When the turns begin, 0 first, all below 1.
        sizes: Arguments ``rows`` to ``kernel`` of :class:`ColumnNetwork`.
    """

    cell_x: Tensor  # (nx,) of the columns, in cells from the middle
    cell_y: Tensor  # (ny,)

    def __init__(self, detector: Detector, times: Sequence[float], *sizes: int) -> None:
        super().__init__()
        nx, ny, layers = detector.shape
        self.shape, self.times = (nx, ny, layers), (*times, 1.0)
        self.posterior = CellAverages(detector.n_cells)
        self.networks = nn.ModuleList(ColumnNetwork(detector.shape, time, *sizes) for time in times)
        self.register_buffer("cell_x", torch.arange(nx) - 0.5 * (nx - 1), persistent=False)
        self.register_buffer("cell_y", torch.arange(ny) - 0.5 * (ny - 1), persistent=False)
        self.layers = layers

    def by_cell(self) -> Iterator[tuple[str, int, Tensor]]:
        """Yield name, axis (of the cells, flattened) and parameter of all numbers that cells learn for themselves."""
        for number, network in enumerate(self._turns):
            for name, axis in network.posterior.BY_CELL.items():
                yield f"networks.{number}.posterior.{name}", axis, getattr(network.posterior, name)

    @property
    def _turns(self) -> list[ColumnNetwork]:
        return [network for network in self.networks if isinstance(network, ColumnNetwork)]

    def distance(self, context: Context) -> Tensor:
        """Return r (B, n_cells): ln of each cell's distance, in cells, from its layer's centre."""
        nx, ny, _ = self.shape
        x = (self.cell_x[:, None] - 0.5 * (nx - 1) * context.x[:, None]).square()
        y = (self.cell_y[:, None] - 0.5 * (ny - 1) * context.y[:, None]).square() + _NEAR
        return (x[:, :, None] + y[:, None]).log_().mul_(0.5).flatten(1)

    def forward(self, values: Tensor, noise: Tensor, context: Context) -> Tensor:
        """Return the mean loss over the turns of values and noise (B, n_cells)."""
        turns = len(self.networks)
        loss = values.new_zeros(())
        for number, (network, time) in enumerate(zip(self.networks, self.times[:-1], strict=True)):
            if number < len(values):
                own = Context(*(part[number::turns] for part in context))
                data = values[number::turns]
                x = torch.lerp(noise[number::turns], data, time)
                part = network(x, self.posterior, own, self.distance(own), data)
                loss = loss + part * len(data)
        return loss / len(values)

    def draw(
        self,
        noise: Tensor,
        context: Context,
        filled: Tensor | None = None,
        faint: FaintCells | None = None,
    ) -> Tensor:
        """Return values (B, n_cells) of noise (B, n_cells).

        Arguments:
            noise: Normal numbers.
            context: What is known of the showers.
            filled: Numbers of filled cells of each layer (B, n_layers), whole numbers: at the last turn exactly, before it on average; none: the
                network's.
            faint: Which of these are faint, at the last turn exactly; none: as the network has it.
        """
        known = [
            (
                network.posterior.numbers(self.posterior),
                network.posterior.weights(self.posterior),
                network.places(self.posterior),
            )
            for network in self._turns
        ]
        size = max(1, _CACHED // noise.shape[1]) if noise.device.type == "cpu" else noise.shape[0]
        counts = [] if filled is None else [filled] if faint is None else [filled, faint.counts]
        found = [
            self._draw(rows[0], Context(*rows[1:5]), known, rows[5:], faint)
            for rows in in_chunks(size, noise, *context, *counts)
        ]
        return torch.cat(found)

    def _draw(
        self,
        noise: Tensor,
        context: Context,
        known: Sequence[tuple[Tensor, ...]],
        counts: Sequence[Tensor],
        faint: FaintCells | None,
    ) -> Tensor:
        filled = counts[0] if counts else None
        turns = len(self.networks)
        distance = self.distance(context)
        x = repeated(noise, turns)
        for turn, (network, (own, weights, places), (start, end)) in enumerate(
            zip(self._turns, known, pairwise(self.times), strict=True)
        ):
            u, bias, rest, layers = network.outputs(x, places, context, distance)
            odds = network.posterior.odds(x, u, distance, Numbers(*own.unbind(0)))
            level = log_odds(repeated(noise, turn) if turn else noise)
            odds = self._balanced(odds, bias, filled)
            below = lift = None
            if turn + 1 == turns and filled is not None:
                parting = self._parting(odds - level, filled)
                odds, lift = (
                    odds + each_cell(parting.middle, self.shape[0] * self.shape[1]),
                    parting.above - parting.middle,
                )
                if faint is not None:
                    below = Faint(faint.edge, partial(self._parting, n=counts[1]), faint.value)
            data = drawn(x, odds, level, distance, rest, layers, own, weights, lift, below)
            if turn + 1 == turns:
                return data
            kept = (1.0 - end) / (1.0 - start)
            x = torch.add(data * (end - start * kept), x, alpha=kept)
        return x

    def _balanced(self, odds: Tensor, change: Tensor, filled: Tensor | None) -> Tensor:
        """Return log odds (B, n_cells) changed alike within each layer.

        Arguments:
            odds: (B, n_cells).
            change: What is added in each layer (B, n_layers), the beginning of Newton's method.
            filled: Numbers of cells (B, n_layers) that are expected to be filled after it; none: the change stays.
        """
        rows = odds.view(odds.shape[0], -1, self.layers)
        if filled is not None:
            for _ in range(_NEWTON):
                p = torch.sigmoid(rows + change[:, None])
                sums, squares = p.sum(1), p.square().sum(1)
                step = (filled - sums) / (sums - squares).clamp_min(_LEAST_SLOPE)
                change = change + step.clamp(-1.0, 1.0)
        return (rows + change[:, None]).flatten(1)

    def _parting(self, excess: Tensor, n: Tensor) -> Parting:
        """Return what is to be added in each layer so that n (B, n_layers), whole, of its numbers (B, n_cells) are positive."""
        table = excess.view(excess.shape[0], -1, self.layers).transpose(1, 2).contiguous()
        wanted, most = n.long(), table.shape[2]
        ordered, _ = topk_ragged(table, (wanted + 1).clamp_max(most), _LIKELY)
        beyond = functional.pad(ordered, (1, 1), value=NOTHING)  # ordered[k] lies at k + 1
        last, next_ = (
            beyond.gather(2, (wanted + k).clamp_max(beyond.shape[2] - 1)[:, :, None])[:, :, 0]
            for k in range(2)
        )
        some, more = (wanted > 0) & (last > 0.1 * NOTHING), (wanted < most) & (next_ > 0.1 * NOTHING)
        high = torch.where(some, last, torch.where(more, next_, 0.0) + 1.0)
        low = torch.where(more, next_, high - 1.0)
        return Parting(
            -0.5 * (high + low),
            torch.where(more, -low, -low + _MOST),
            torch.where(some, -high, -high - _MOST),
        )


_NEWTON = 2  # steps of Newton's method
_LIKELY = -1.0  # log odds above the level that about as many cells exceed as are filled
_LEAST_SLOPE = 0.3  # least variance of a layer's number of filled cells


def _smooth(nx: int, ny: int) -> Tensor:
    """Return functions of the columns' places (nx, ny, functions): polynomials, waves, and logarithms of the distance from the middle."""
    x = torch.linspace(-1.0, 1.0, nx)[:, None].expand(nx, ny)
    y = torch.linspace(-1.0, 1.0, ny)[None].expand(nx, ny)
    square = x.square() + y.square()
    waves = [
        wave(0.5 * math.pi * k * part) for k in _WAVES for part in (x, y) for wave in (torch.sin, torch.cos)
    ]
    return torch.stack(
        [x, y, x * x, y * y, x * y, square.sqrt(), *(torch.log(square + e) for e in (0.002, 0.02)), *waves], 2
    )


def is_columns(detector: Detector) -> bool:
    """Return whether a detector's cells are columns: a grid of flat layers of equal cells."""
    layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
    same = {(layer.pitch_x, layer.pitch_y) for layer in layers}
    return detector.is_flat and detector.is_grid and len(same) == 1
