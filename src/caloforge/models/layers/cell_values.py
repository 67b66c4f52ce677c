"""Cell energies as values for a flow, and values as cells that obey a shower's layer energies and hits.

An empty cell has the value -1; a filled one 1.2 + 0.6 x, x from the table of the energies of filled cells
(:mod:`~caloforge.models.layers.energy_table`). On a grid the energies are absolute and share one table; with ``relative``
they are shares of their layer's energy, with one table for each layer.

Back: in each layer the n cells of largest value become hits (at least the threshold), as many after them as are asked for are
faint, below it, and the others are empty. A table (:mod:`~caloforge.models.layers.value_table`) first carries their values from the
distribution that the model gives them to that of filled cells; their energies may get gains. What is missing from the layer's energy, or too much, is then given to the cells in proportion to the square of
their energy, so that small energies keep theirs, as far as that changes no cell by more than half; what is left scales what hits
have above the threshold. So layer energies are exactly those asked for, and so are hits, unless the energy is too small for them
(then there are as many as it allows) or too large for cells without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.layers.energy_table import EnergyTable
from caloforge.models.layers.largest import NOTHING, largest
from caloforge.models.layers.layer_moments import LayerTargets, tilted
from caloforge.models.layers.layer_view import LayerView
from caloforge.models.layers.value_table import ValueTable

__all__ = ["EMPTY", "CellValues", "Gain"]

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
_EQUAL = 1e-6
"""Part of the threshold by which all hits count, so that equal ones share what is missing."""
_SAMPLE = 400_000


class CellValues(nn.Module):
    """Cells to values and back.

    Arguments:
        detector: The detector.
        cut: Energy below which a cell is empty, MeV.
        threshold: Energy above which it is a hit, MeV.
        relative: Energies as shares of the layer's.
        moments: Whether layers get the centres and widths asked for, too.
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
        """Return the values of logarithms (B, n_layers, k)."""
        return _CENTRE + _SCALE * self._tabulated(logs, self.table.forward).clamp_min(_LEAST)

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
            targets: What the layers are to hold.
            gain: Of the cells, before layers get their energies.
        """
        least, most = self.threshold * 1.0001, self.threshold * 0.9999
        hits = torch.maximum(targets.hits, (targets.sums > most * targets.faint).to(targets.hits))
        hits = torch.minimum(hits, (targets.sums / least).floor())
        filled = torch.maximum(hits + targets.faint, (targets.sums > self.cut).to(hits))
        view, places = self._largest(values, filled)
        sums, hits = targets.sums[:, :, None], hits[:, :, None]
        rank, real = torch.arange(view.shape[2], device=view.device), view > 0.1 * NOTHING
        is_filled, is_hit = (rank < filled[:, :, None]) & real, (rank < hits) & real
        view = self.carried(view)
        x, y = self.view.positions(places)
        share = (
            self.threshold / sums.clamp_min(_TINY) if self.relative else torch.full_like(sums, self.threshold)
        )
        border = self._values(torch.log(share))
        chosen = torch.where(is_hit, torch.maximum(view, border), torch.minimum(view, border))
        energy = torch.where(is_filled, self._energies(chosen, sums), 0.0)
        if gain is not None:
            energy = energy * gain(x, y)
        energy = torch.where(is_hit, energy.clamp_min(least), energy.clamp_max(most))
        energy = torch.where(is_filled, energy, 0.0)
        energy = self._balanced(energy, sums, is_hit)
        if self.moments:
            fixed = torch.where(is_hit, least, energy)
            free = (energy - fixed).clamp_min(0.0)
            energy = fixed + tilted(free, fixed, x, y, targets)
        return self.view.placed(energy, places)

    @torch.no_grad()
    def carry(self, pairs: Iterable[tuple[Tensor, Tensor]], cells: Tensor) -> None:
        """Fit the map of the values of filled cells.

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
        true = self.view(self(cells), EMPTY)
        for layer, parts in enumerate(made):
            own = true[:, layer]
            self.carried.fit(layer, torch.cat(parts), own[own > EMPTY])

    def _largest(self, values: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the cells that are filled and their places, see :func:`~caloforge.models.layers.largest.largest`."""
        return largest(self.view(values.float(), NOTHING), filled.clamp(1.0, self.view.width), _LIKELY)

    def _balanced(self, energy: Tensor, sums: Tensor, is_hit: Tensor) -> Tensor:
        """Return energies (B, n_layers, width) whose sums are the asked ones; hits stay hits, and others none."""
        missing = sums - energy.sum(2, keepdim=True)
        squares = energy.square().sum(2, keepdim=True).clamp_min(_TINY)
        largest = energy.amax(2, keepdim=True).clamp_min(_TINY)
        rate = torch.maximum(torch.minimum(missing / squares, 1.0 / largest), -0.5 / largest)
        energy = energy * (1.0 + rate * energy)
        least = self.threshold * 1.0001
        small = torch.where(is_hit, 0.0, energy.clamp_max(self.threshold * 0.9999))
        above = torch.where(is_hit, (energy - least).clamp_min(0.0) + _EQUAL * least, 0.0)
        room = sums - least * is_hit.sum(2, keepdim=True)
        small = small * (room / small.sum(2, keepdim=True).clamp_min(_TINY)).clamp(0.0, 1.0)
        room = (room - small.sum(2, keepdim=True)).clamp_min(0.0)
        energy = small + above * (room / above.sum(2, keepdim=True).clamp_min(_TINY))
        energy = torch.where(is_hit, energy + least, energy)
        return energy * (sums / energy.sum(2, keepdim=True).clamp_min(_TINY))
