r"""Spectrum of cell energies and number of filled cells: the last step of a calibration.

Within a group of cells g, those of a layer that have about the same mean energy, and showers of like incident energy, let
:math:`N_{gen}(> x)` and :math:`N_{ref}(> y)` be the mean numbers of cells a shower above an energy. The map

.. math:: x \mapsto y(x), \qquad N_{ref}(> y) = N_{gen}(> x),

counts from the largest cell downwards. It is the quantile map of the filled cells, and it says how many of them there are: where
more cells are filled than in the training showers, the faintest fall below the cut of the data, 1e-4 MeV, and are empty; where
fewer are, faint reserves that the generator left in its empty cells rise above it. The table has equal steps of :math:`\ln x` and
holds :math:`t(y) = \mathrm{arsinh}(y / 0.01 \text{ MeV})`, negative where cells become empty, since spectra are flat in y near 0 and
wide in :math:`\ln y` above. There is one for each of some groups of showers in ln E, and it is interpolated between them.

The map changes the layer energies, which the steps before have set. They are given back by a factor on the bright cells of each layer,

.. math:: \ln e \to \ln e + \lambda_l \, w(e), \qquad w(e) = \mathrm{clamp}\left(\frac{\ln (e / a)}{\ln (b / a)}, 0, 1\right),

so that the edge of the MIP and the threshold of a hit stay where they are; :math:`\lambda_l` is bounded, and where a layer has no
bright cells its energy is the sum of its hits; a last factor on all bright cells, and where these do not suffice on all cells,
keeps the visible energy. What this does to the spectrum is corrected in further turns of the fit: the map is
followed by the one from finished to training showers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.models.calibration.base import Sample, Step
from caloforge.models.calibration.monotone import energy_groups, neighbours
from caloforge.models.nn.cell_networks import LayerSums

__all__ = ["CUT", "RESERVE", "SpectrumMap"]

CUT = 1e-4
"""Cells of the data are 0 or above it, MeV."""
RESERVE = 1e-5
"""Largest energy, MeV, that a generator leaves in cells that would be empty, see :class:`SpectrumMap`."""

_LOWEST, _STEP = math.log(1e-8), 0.1
_LINEAR = 1e-2  # MeV, below which t is linear
_BOTTOM = math.asinh(CUT / _LINEAR)
_EMPTY = -3.0  # least t of an empty cell
_SHARES = tuple(
    10.0 ** (0.5 * k) for k in range(-11, 0)
)  # edges between classes of cells: mean share of the layer
_FEWEST = 1500  # filled cells of training showers in a class, below which it joins the next
_GROUPS = 6  # groups of showers, where energies are continuous
_TAIL = 5  # cells beyond which the counts are not followed
_TURNS = 4
_FAR = math.log(2.0)  # largest |lambda|
_NEWTON, _NEWTON_SUM = 4, 2
_LEAST_SLOPE, _TINY = 1e-3, 1e-9
_ROWS = 4_000_000  # cells that are looked at in one go


class _Hits(NamedTuple):
    """Cells of showers; shapes (B, 1), (n_cells,) and (B, n_cells) for all of them, or (n,) each for some."""

    shower: Tensor
    cell: Tensor
    log: Tensor  # ln(e / MeV)


class SpectrumMap(Step):
    """Maps of the cells' energies for classes of cells and groups of incident energies; nothing before the fit.

    Cells that the generator left between 1e-8 MeV and ``RESERVE`` count as empty unless the map needs them.

    Arguments:
        detector: The detector.
        bright: Energies a and b, MeV, between which cells begin to take part in keeping the layer energies.
        fade: Energies, MeV, between which the map turns into the identity, so that brighter cells stay the model's; none if missing.
    """

    layer: Tensor  # (n_cells,) layer of each cell
    group: Tensor  # (n_cells,) class of each cell
    position: Tensor  # (G,) ln E
    table: Tensor  # (G, classes, knots) t(y) - ln x
    known: Tensor

    def __init__(
        self,
        detector: Detector,
        bright: tuple[float, float] = (0.3, 1.0),
        fade: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.fade = fade
        self.sums = LayerSums(detector)
        self.bright = math.log(bright[0]), math.log(bright[1])
        layer = torch.as_tensor(detector.cell_layer, dtype=torch.int64)
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("group", layer.clone())
        self.register_buffer("position", torch.zeros(1))
        self.register_buffer("table", torch.zeros(1, detector.n_layers, 2, dtype=torch.float16))
        self.register_buffer("known", torch.zeros(1))

    # the map

    def forward(self, showers: Sample) -> Sample:
        """Return showers with mapped cells, none between 0 and the cut; layers keep their energy where they have bright cells.

        Before the fit the cells below the cut are emptied, and nothing else.
        """
        cells = showers.cells
        if bool(self.known > 0):
            rows = torch.arange(cells.shape[0], device=cells.device)[:, None]
            all_cells = torch.arange(cells.shape[1], device=cells.device)
            t = self._mapped(_Hits(rows, all_cells, cells.clamp_min(_TINY).log()), showers.energy)
            energy = torch.where(cells < math.exp(_LOWEST), torch.zeros_like(t), _LINEAR * t.sinh())
            cells = self._kept(energy, self.sums(cells), self.sums, self.sums.spread)
        return showers._replace(cells=torch.where(cells < CUT, torch.zeros_like(cells), cells))

    def _mapped(self, hits: _Hits, energy: Tensor) -> Tensor:
        """Return t(y) of hits, of the shape of ln x."""
        below, above, part = neighbours(self.position, torch.log(energy))
        knots = self.table.shape[2]
        place = ((hits.log - _LOWEST) / _STEP).clamp(0.0, knots - 1.0)
        left = place.long().clamp_max(knots - 2)
        inside, flat = place - left, self.table.flatten()
        first = self.group[hits.cell] * knots + left
        stride = self.table.shape[1] * knots

        def looked_up(index: Tensor) -> Tensor:  # three times as fast as flat[index] on a CPU
            return flat.index_select(0, index.flatten()).view(index.shape).float()

        low, high = (
            torch.lerp(looked_up(first + base), looked_up(first + base + 1), inside)
            for base in ((rows * stride)[hits.shower] for rows in (below, above))
        )
        return hits.log + torch.lerp(low, high, part[hits.shower].float())

    def _kept(
        self,
        energy: Tensor,
        wanted: Tensor,
        summed: Callable[[Tensor], Tensor],
        spread: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return energies of cells, MeV, the bright ones changed so that the layers have the energies (B, n_layers) that are wanted.

        ``summed`` sums over the cells of layers, ``spread`` gives each cell its layer's value.
        """
        first, last = self.bright
        weight = ((energy.clamp_min(_TINY).log() - first) / (last - first)).clamp(0.0, 1.0)
        full = torch.where(energy >= CUT, energy, torch.zeros_like(energy))
        factor = torch.zeros_like(wanted)
        for turn in range(_NEWTON + _NEWTON_SUM):
            now = full * (spread(factor) * weight).exp()
            total, slope, aim = summed(now), summed(now * weight), wanted
            if turn >= _NEWTON:  # what layers without bright cells lack
                total, slope, aim = (x.sum(1, keepdim=True) for x in (total, slope, wanted))
            change = (aim - total) / slope.clamp_min(_TINY)
            change = torch.where(slope > _LEAST_SLOPE * total, change, torch.zeros_like(change))
            factor = (factor + change.clamp(-0.5, 0.5)).clamp(-_FAR, _FAR)
        changed = (spread(factor) * weight).exp()
        total = summed(full * changed).sum(1, keepdim=True)
        whole = torch.where(
            total > _TINY, wanted.sum(1, keepdim=True) / total.clamp_min(_TINY), torch.ones_like(total)
        )
        return energy * changed * spread(whole.expand_as(wanted))

    # the fit

    @torch.no_grad()
    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set classes of cells and tables."""
        self._choose(reference.cells)
        of_reference, position = energy_groups(reference.energy)
        if len(torch.unique(reference.energy)) > len(position):
            of_reference, position = energy_groups(reference.energy, _GROUPS)
        edges = (position[1:] + position[:-1]) / 2
        of_reference, of_generated = (
            torch.searchsorted(edges, torch.log(x.energy).contiguous()) for x in (reference, generated)
        )
        self.position = position.to(self.position)
        size = len(position), int(self.group.max()) + 1
        counts = [torch.bincount(x, minlength=size[0]) for x in (of_reference, of_generated)]
        ratios = (counts[0].double() / counts[1].clamp_min(1)).tolist()
        hits, wanted = _hits(generated.cells), self.sums(generated.cells)
        true = _hits(reference.cells, CUT)
        ordered = self._ordered(true, (true.log.exp() / _LINEAR).asinh(), of_reference, size)
        knots = math.ceil((float(hits.log.amax()) - _LOWEST) / _STEP) + 2 if len(hits.log) else 2
        line = _LOWEST + _STEP * torch.arange(knots, dtype=torch.float64, device=self.layer.device)
        table, values = line.expand(size[0] * size[1], -1), hits.log
        for number in range(_TURNS):
            if number:
                values = self._finished(hits, generated.energy, wanted)
            made = self._ordered(hits, values, of_generated, size)
            rows = [
                _matched(t, m, ratios[k // size[1]], row, logarithms=number == 0)
                for k, (t, m, row) in enumerate(zip(ordered, made, table, strict=True))
            ]
            table = self._faded(torch.stack(rows), line).cummax(1).values
            self.table = (table - line).view(*size, -1).half()
        self.known.fill_(1.0)

    def _faded(self, table: Tensor, line: Tensor) -> Tensor:
        """Return a table of t (..., knots) that is the identity at bright knots ln x (knots,)."""
        if self.fade is None:
            return table
        first, last = (math.log(energy) for energy in self.fade)
        return torch.lerp(
            (line.exp() / _LINEAR).asinh(), table, ((last - line) / (last - first)).clamp(0.0, 1.0)
        )

    def _finished(self, hits: _Hits, energy: Tensor, wanted: Tensor) -> Tensor:
        """Return t (n,) of finished hits, from incident energies (B,) and layer energies (B, n_layers)."""
        where = hits.shower * self.sums.n_layers + self.layer[hits.cell]

        def summed(values: Tensor) -> Tensor:
            return torch.zeros_like(wanted.flatten()).index_add_(0, where, values).view_as(wanted)

        t = self._mapped(hits, energy)
        kept = self._kept(_LINEAR * t.sinh(), wanted, summed, lambda values: values.flatten()[where])
        return (kept / _LINEAR).asinh()

    def _choose(self, cells: Tensor) -> None:
        """Set the classes of cells of training showers (N, n_cells)."""
        filled, mean = (cells > 0).sum(0).double(), cells.double().mean(0)
        layers = mean.new_zeros(self.sums.n_layers).index_add_(0, self.layer, mean)
        share = mean / layers.clamp_min(_TINY)[self.layer]
        kind = torch.bucketize(share, share.new_tensor(_SHARES))
        group, first = torch.zeros_like(self.layer), 0
        for layer in range(self.sums.n_layers):
            mine, joined = self.layer == layer, 0.0
            for k in range(len(_SHARES), -1, -1):
                some = mine & (kind == k)
                group[some] = first
                joined += float(filled[some].sum())
                if joined >= _FEWEST and float(filled[mine & (kind < k)].sum()) >= _FEWEST:
                    first, joined = first + 1, 0.0
            first += 1
        self.group = group

    def _ordered(
        self, hits: _Hits, values: Tensor, of_shower: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Return values (n,) by group of showers and class of cells, ascending in each."""
        key = of_shower[hits.shower] * size[1] + self.group[hits.cell]
        both = (key.double() * _SPAN + values.double().clamp(-0.4 * _SPAN, 0.4 * _SPAN)).sort().values
        where = torch.div(both, _SPAN).round().long()
        lengths = torch.bincount(where, minlength=size[0] * size[1]).tolist()
        return torch.split(both - where * _SPAN, lengths)


_SPAN = 128.0  # more than the range of ln x and of t


def _hits(cells: Tensor, lowest: float = math.exp(_LOWEST)) -> _Hits:
    """Return the cells (N, n_cells), MeV, above an energy, shower by shower."""
    parts = []
    rows = max(1, _ROWS // cells.shape[1])
    for first in range(0, len(cells), rows):
        some = cells[first : first + rows]
        shower, cell = torch.nonzero(some >= lowest, as_tuple=True)
        parts.append((shower + first, cell, some[shower, cell].log()))
    return _Hits(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _matched(true: Tensor, made: Tensor, ratio: float, knots: Tensor, logarithms: bool) -> Tensor:
    """Return t (k,) that the knots (k,) of made values become, so that as many true ones lie above it.

    Arguments:
        true: t of true cells, ascending (n,).
        made: Values of made cells, ascending (m,).
        ratio: Number of true over that of made showers.
        knots: Where, ascending.
        logarithms: Whether made values and knots are ln x, and not t.
    """
    if not len(made):
        return knots
    if not len(true):
        return torch.full_like(knots, _EMPTY)
    n, m = len(true), len(made)
    beyond = min(m - 1, math.ceil(min(_TAIL, n - 1) / ratio))
    x = knots.clamp_max(made[m - 1 - beyond])
    place = n - 0.5 - (m - torch.searchsorted(made, x.contiguous(), right=True)).double() * ratio
    left = place.floor().clamp(0, n - 1).long()
    y = torch.lerp(true[left], true[(left + 1).clamp_max(n - 1)], (place - left).clamp(0.0, 1.0))
    y = y + (knots - x)
    number = round(n / ratio)  # of made cells that are filled
    edge = made[max(0, m - number)]
    if number >= m:  # all of them: fainter ones than were seen become fainter than were seen
        part = (knots - edge).exp() if logarithms else knots / edge.clamp_min(_TINY)
        below = (true[0].sinh() * part.clamp(0.0, 1.0)).asinh()
        return torch.where(knots < edge, below, y).clamp_min(_EMPTY)
    first = int(torch.searchsorted(knots, edge))
    if first < len(knots) - 1:
        slope = (y[first + 1] - _BOTTOM) / (knots[first + 1] - edge).clamp_min(_TINY)
        line = _BOTTOM - slope.clamp_min(1.0) * (edge - knots)
        y = torch.where(knots < edge, torch.minimum(line, y), y)
    return y.clamp_min(_EMPTY)
