"""Cell energies as values for a flow, and values as cells of given layer energies.

The largest values of each row, without sorting the rest.

A layer has hundreds of cells of which a shower fills a few tens. Those are brought together in as few columns as the fullest
row needs, so that all that follows works on these alone. On a CPU the values above a border are found first, which are nearly
always enough; only rows that need more are searched whole.

Cell energies as values for a flow, and values as cells of given layer energies.

An empty cell has the value -1; a filled one 1.2 + 0.6 x, x from the table of the energies of filled cells
(:mod:`~caloforge.models.calibration.energy_maps`). On a grid the energies are absolute and share one table; with ``relative``
they are shares of their layer's energy, with one table for each layer. For training x is at least -2.6, which keeps faint cells
apart from empty ones.

Decoding: in each layer the n cells of largest value are filled, the others are empty. A monotone map
(:mod:`~caloforge.models.calibration.quantile_maps`) takes the values of filled cells to the quantiles of the training showers, faint cells
included; gains may multiply their energies. The difference to the layer's energy is then shared in proportion to the square of the energy, so
that small energies keep theirs, and what part of a cell is above the hit threshold is weighted so that the layer gets its centre and
widths. Layer energies are exact, apart from cells that fall below the cut. The number of hits is not imposed: it follows from the number of
filled cells and the spectrum of their energies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.covariance import LayerTargets, tilted
from caloforge.models.calibration.energy_maps import EnergyTable
from caloforge.models.calibration.quantile_maps import ValueTable
from caloforge.models.nn.layer_sums import LayerView

__all__ = ["EMPTY", "NOTHING", "CellValues", "Gain", "largest"]


NOTHING = -1e4
"""Value of a column without a cell."""
_DENSE = 3
"""Rows are searched whole when more than one of this many values is needed."""


def largest(values: Tensor, needed: Tensor, likely: float) -> tuple[Tensor, Tensor]:
    """Return values (B, L, K), falling in each row, and their places (B, L, K) in the row, K the most needed in any.

    In each row the first are the ``needed`` largest; further columns hold the next ones, or ``NOTHING`` at the place W.

    Arguments:
        values: (B, L, W), all above ``NOTHING`` or equal to it.
        needed: Values needed in each row (B, L), at most W.
        likely: A value that about as many exceed as are needed; decides nothing but the time.
    """
    rows = values.flatten(0, 1)
    size = max(1, int(needed.max())) if needed.numel() else 1
    if values.device.type != "cpu" or not len(rows) or _DENSE * size > rows.shape[1]:
        found, places = rows.topk(size, 1)
    else:
        found, places = _gathered(rows, needed.flatten(), likely, size)
    shape = (*values.shape[:2], size)
    return found.view(shape), places.view(shape)


def _gathered(rows: Tensor, needed: Tensor, likely: float, size: int) -> tuple[Tensor, Tensor]:
    """Return the ``size`` largest values (R, size), or fewer where fewer are needed, and their places.

    Arguments:
        rows: (R, W).
        needed: How many are needed (R,).
        likely: See :func:`largest`.
        size: The most that are needed.
    """
    width = rows.shape[1]
    taken = rows > likely
    counts = taken.sum(1, dtype=torch.int32)
    short = torch.nonzero(counts < needed)[:, 0]
    if len(short):
        best = rows[short].topk(size, 1).indices
        taken[short] = torch.zeros_like(taken[short]).scatter_(1, best, True)
        counts[short] = size
    most = max(size, int(counts.max()))
    flat = torch.nonzero(taken.flatten())[:, 0]
    row = flat.div(width, rounding_mode="floor")
    slot = torch.arange(len(flat)) - (counts.cumsum(0) - counts).index_select(0, row) + row * most
    found = rows.new_full((len(rows) * most,), NOTHING)
    places = torch.full((len(rows) * most,), width)
    found[slot] = rows.flatten().index_select(0, flat)
    places[slot] = flat - row * width
    found, order = found.view(-1, most).topk(size, 1)
    return found, places.view(-1, most).gather(1, order)


Gain = Callable[[Tensor, Tensor], Tensor]
"""Factors for the energies of cells at positions x and y, each (B, n_layers, K)."""

EMPTY = -1.0
_CENTRE = 1.2
_SCALE = 0.6
_LEAST = -2.6
"""Smallest x of a filled cell, which keeps it away from the empty ones."""
_SLOPE = 0.8
_LIKELY = -0.9
"""About as many cells have values above it as are filled."""
_TINY = 1e-12
_SAMPLE = 400_000


class CellValues(nn.Module):
    """Cells to values and back.

    Arguments:
        detector: The detector.
        cut: Energy below which a cell is empty, MeV.
        threshold: Energy above which it is a hit, MeV.
        relative: Energies as shares of the layer's.
        moments: Whether layers get given centres and widths, too.
    """

    def __init__(
        self, detector: Detector, cut: float, threshold: float, relative: bool, moments: bool = True
    ) -> None:
        super().__init__()
        self.moments = moments
        self.view = LayerView(detector)
        self.cut, self.threshold, self.relative = cut, threshold, relative
        self.table = EnergyTable(detector.n_layers if relative else 1, _SLOPE)
        self.carried = ValueTable(detector.n_layers)

    @torch.no_grad()
    def fit(self, cells: Tensor, generator: torch.Generator) -> None:
        """Fit the tables to cells (N, n_cells)."""
        if self.relative:
            for layer in range(self.view.n_layers):
                rows = cells[:, self.view.back // self.view.width == layer]
                share = rows / rows.sum(1, keepdim=True).clamp_min(_TINY)
                self._fit(share[rows > self.cut], layer, generator)
            return
        self._fit(cells[cells > self.cut], 0, generator)

    def _fit(self, energies: Tensor, column: int, generator: torch.Generator) -> None:
        if len(energies) > _SAMPLE:
            energies = energies[torch.randperm(len(energies), generator=generator)[:_SAMPLE]]
        if len(energies) > 1:
            self.table.fit(energies, column)

    def forward(self, cells: Tensor) -> Tensor:
        """Return the values (B, n_cells) of cells (B, n_cells)."""
        view = self.view(cells)
        filled = view > self.cut
        sums = view.sum(2, keepdim=True).clamp_min(_TINY)
        values = self._values(torch.log(torch.where(filled, view / sums if self.relative else view, 1.0)))
        return self.view.cells(torch.where(filled, values, EMPTY))

    def _values(self, logs: Tensor) -> Tensor:
        """Return the values of logarithms (B, n_layers, k), kept apart from those of empty cells."""
        return self._unclamped(logs).clamp_min(_CENTRE + _SCALE * _LEAST)

    def _unclamped(self, logs: Tensor) -> Tensor:
        """Return the values of logarithms (B, n_layers, k), faint cells included."""
        return _CENTRE + _SCALE * self._tabulated(logs, self.table.forward)

    def _energies(self, values: Tensor, sums: Tensor) -> Tensor:
        """Return the energies of values (B, n_layers, k), MeV."""
        logs = self._tabulated((values - _CENTRE) / _SCALE, self.table.inverse)
        return torch.exp(logs) * (sums if self.relative else 1.0)

    def _tabulated(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a table's function to (B, n_layers, k): each layer's own, or the one of all."""
        if not self.relative:
            return function(x.reshape(1, -1)).view(x.shape)
        rows = x.transpose(0, 1)
        return function(rows.reshape(len(rows), -1)).view(rows.shape).transpose(0, 1)

    def decode(self, values: Tensor, targets: LayerTargets, gain: Gain | None = None) -> Tensor:
        """Return cells (B, n_cells), MeV.

        Arguments:
            values: (B, n_cells).
            targets: Layer energies, numbers of filled cells, centres and widths.
            gain: Factors for the cells, applied before the layers are scaled to their energies.
        """
        filled = torch.maximum(targets.hits + targets.faint, (targets.sums > self.cut).to(targets.hits))
        view, places = self._largest(values, filled)
        sums = targets.sums[:, :, None]
        rank, real = torch.arange(view.shape[2], device=view.device), view > 0.1 * NOTHING
        is_filled = (rank < filled[:, :, None]) & real
        x, y = self.view.positions(places)
        energy = torch.where(is_filled, self._energies(self.carried(view), sums), 0.0)
        if gain is not None:
            energy = energy * gain(x, y)
        energy = self._scaled(energy, sums)
        if self.moments:
            fixed = energy.clamp_max(self.threshold)
            energy = fixed + tilted(energy - fixed, fixed, x, y, targets)
        energy = torch.where(energy > self.cut, energy, 0.0)
        return self.view.placed(energy, places)

    @torch.no_grad()
    def carry(self, pairs: Iterable[tuple[Tensor, Tensor]], cells: Tensor) -> None:
        """Fit the map of the values of filled cells to those of training showers.

        Arguments:
            pairs: Values of a model (B, n_cells) with the filled cells of each layer (B, n_layers).
            cells: Training showers (N, n_cells), MeV.
        """
        made: list[list[Tensor]] = [[] for _ in range(self.view.n_layers)]
        for values, filled in pairs:
            view, _ = self._largest(values, filled)
            chosen = torch.arange(view.shape[2], device=view.device) < filled[:, :, None]
            for layer, parts in enumerate(made):
                parts.append(view[:, layer][chosen[:, layer]].cpu())
        for layer, (parts, true) in enumerate(zip(made, self._by_layer(cells), strict=True)):
            self.carried.fit(layer, torch.cat(parts), true)

    @torch.no_grad()
    def refine(self, made: Tensor, cells: Tensor) -> None:
        """Correct that map for what scaling and moments change.

        Arguments:
            made: Decoded showers (M, n_cells), MeV, with the present map.
            cells: Training showers (N, n_cells), MeV.
        """
        for layer, (found, true) in enumerate(zip(self._by_layer(made), self._by_layer(cells), strict=True)):
            self.carried.refine(layer, found, true)

    def _by_layer(self, cells: Tensor) -> list[Tensor]:
        """Return the values of the filled cells of each layer, faint ones not clamped, for cells (N, n_cells)."""
        view = self.view(cells)
        filled = view > self.cut
        share = view / view.sum(2, keepdim=True).clamp_min(_TINY) if self.relative else view
        values = self._unclamped(torch.log(torch.where(filled, share, 1.0)))
        return [values[:, layer][filled[:, layer]] for layer in range(self.view.n_layers)]

    def _largest(self, values: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the cells that are filled and their places, see :func:`~caloforge.models.flow.cells.largest`."""
        return largest(self.view(values.float(), NOTHING), filled.clamp(1.0, self.view.width), _LIKELY)

    def _scaled(self, energy: Tensor, sums: Tensor) -> Tensor:
        """Return energies (B, n_layers, K) that add up to ``sums`` (B, n_layers, 1).

        The difference is shared in proportion to the square of the energy, so that small energies keep theirs, as far
        as no cell changes by more than half; the rest scales all cells alike.
        """
        missing = sums - energy.sum(2, keepdim=True)
        squares = energy.square().sum(2, keepdim=True).clamp_min(_TINY)
        largest = energy.amax(2, keepdim=True).clamp_min(_TINY)
        rate = torch.maximum(torch.minimum(missing / squares, 1.0 / largest), -0.5 / largest)
        energy = energy * (1.0 + rate * energy)
        return energy * (sums / energy.sum(2, keepdim=True).clamp_min(_TINY))
