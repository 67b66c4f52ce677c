r"""The summary of a shower as standard normal numbers, and its inverse: energy, counts, centre and widths of each layer.

A summary has one row for each layer and one for the whole shower:

- layer l: ln(E_l / E_vis), filled cells, how many of them are faint, below the threshold of hits, centre x_l, y_l and widths of the energy along
  both axes (in units of the layer's half width);
- the shower: ln(E_vis / E), its filled and its faint cells, its mean layer, its centre, and its spread over the layers. Mean layer and spread
  are functions of the layer energies and count as undefined.

Counts n are dequantised over [n, n + 1) by a uniform number; 0, and all cells of a layer, over three times as much, away from the other
counts, so that a network finds their edge. Few cells can lie in one row or column, so that centres and widths are blurred by a fraction of a
cell divided by the hits. Every number then has a density, and no rounding matters. Layers of one cell have no width and empty ones neither
energy nor centre: an undefined number is replaced by an independent normal number, and the counts alone say
that a layer is empty. Defined numbers are standardised with condition-dependent mean and width
(:mod:`~caloforge.models.calibration.moments`), and mapped to normal numbers
(:mod:`~caloforge.models.calibration.monotone`). The inverse gives layer energies whose sum is exactly E_vis, counts
whose sums are exactly the shower's, and centres whose mean is the shower's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.moments import ConditionalMoments
from caloforge.models.calibration.monotone import MonotoneMap
from caloforge.models.calibration.regression import ridge_fit, shrunk_fit
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.path import EMPTY
from caloforge.models.nn.cell_networks import LayerView

__all__ = ["CoreMoments", "ShowerSummary"]

_FLOOR = 1e-6  # added to layer energies before the logarithm, MeV: less than any cell has
_EDGE = 3.0  # interval over which the counts of empty and full layers are dequantised, in cells
WORTH = 100.0  # showers of which quantiles of an earlier training count as many
_FEWEST = 2  # fewest values of a number to which its table is fitted
_KINDS = 7
_DEPTH = [3, 6]  # mean layer and spread over the layers in the shower's row
_BLUR = 0.3  # interval over which centres and widths are blurred, in cells over hits
_TINY = 1e-9
_REACH = 5.0  # largest normal number of a summary


class ShowerSummary(nn.Module):
    """Summaries of showers; cells above ``threshold`` (MeV) are hits."""

    kinds = _KINDS
    pitch: Tensor
    most: Tensor
    fewest: Tensor  # (n_layers,) least filled cells of the training showers, and of decoded ones

    def __init__(
        self, detector: Detector, continuous: int, width: int, threshold: float, radial: float = 1.0
    ) -> None:
        super().__init__()
        self.view = LayerView(detector, radial)
        self.threshold = threshold
        self.rows = detector.n_layers + 1
        self.register_buffer("pitch", torch.from_numpy(_pitches(detector)), persistent=False)
        most = torch.tensor([float(len(cells)) for cells in detector.layer_cells])
        self.register_buffer("most", most, persistent=False)
        self.register_buffer("fewest", torch.zeros(detector.n_layers))
        self.trend = ConditionalMoments(continuous, width, self.rows * _KINDS)
        self.table = MonotoneMap(self.rows * _KINDS, 161, 4.0, even="y", beyond=None)

    @torch.no_grad()
    def fit(
        self, cells: Tensor, energy: Tensor, encoded: Tensor, generator: torch.Generator, adapt: bool = False
    ) -> None:
        """Fit trend and tables to cells (N, n_cells) and energies (N,), MeV, and encoded conditions (N, width).

        With ``adapt`` those that there are, of other showers, count as many showers' worth: see the trend's and the table's methods.
        """
        rest, known, fewest = self.fit_trend(cells, energy, encoded, generator, adapt)
        self.fewest.copy_(torch.minimum(self.fewest, fewest) if adapt else fewest)
        self.fit_tables([(rest, known)], adapt)

    @torch.no_grad()
    def fit_trend(
        self, cells: Tensor, energy: Tensor, encoded: Tensor, generator: torch.Generator, adapt: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fit the trend alone; return the standardised numbers (N, columns), which are defined, and the fewest filled cells (n_layers,)."""
        measured = self._measured(cells, energy)
        known = self._known(measured).flatten(1)
        raw = self._spread(measured, torch.rand(measured.shape, generator=generator)).flatten(1)
        (self.trend.adapt if adapt else self.trend.fit)(encoded, raw, known)
        return self.trend(raw, encoded) * self.trend.optimism, known, measured[:, :-1, 1].amin(0)

    @torch.no_grad()
    def fit_tables(self, parts: Sequence[tuple[Tensor, Tensor]], adapt: bool = False) -> None:
        """Fit the tables to parts of standardised numbers (N, columns) and which of them are defined (N, columns)."""
        rest, known = (torch.cat(some) for some in zip(*parts, strict=True))
        for column, rows in enumerate(known.T):
            if rows.sum() >= _FEWEST:
                self.table.fit_normal(rest[rows, column], column, WORTH if adapt else 0.0)

    def _measured(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the summaries of many showers."""
        parts = zip(torch.split(cells, 500), torch.split(energy, 500), strict=True)
        return torch.cat([self.measure(c, e) for c, e in parts])

    def measure(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the summary (B, rows, kinds) of cells (B, n_cells), counts as whole numbers."""
        view = self.view(cells)
        sums = view.sum(2)
        safe = torch.where(sums > _TINY, sums, 1.0)
        x, y = ((view * place).sum(2) / safe for place in (self.view.x, self.view.y))
        widths = [
            torch.sqrt((view * (place - middle[:, :, None]).square()).sum(2) / safe)
            for place, middle in ((self.view.x, x), (self.view.y, y))
        ]
        total = sums.sum(1, keepdim=True).clamp_min(_TINY)
        filled = (view > 0).sum(2).to(cells)
        faint = filled - (view > self.threshold).sum(2)
        share = torch.log((sums + _FLOOR) / total)
        layers = torch.stack([share, filled, faint, x, y, *widths], 2)
        number = torch.arange(sums.shape[1], device=cells.device, dtype=cells.dtype)
        parts = sums / total
        depth = (parts * number).sum(1)
        whole = torch.stack(
            [
                torch.log(total[:, 0] / energy.to(cells)),
                filled.sum(1),
                faint.sum(1),
                depth,
                (parts * x).sum(1),
                (parts * y).sum(1),
                (parts * (number - depth[:, None]).square()).sum(1).sqrt(),
            ],
            1,
        )
        return torch.cat([layers, whole[:, None]], 1)

    def forward(self, cells: Tensor, energy: Tensor, encoded: Tensor, uniform: Tensor) -> Tensor:
        """Return normal numbers (B, rows, kinds) of showers; ``uniform`` has the same shape."""
        raw = self.measure(cells, energy)
        rest = self.trend(self._spread(raw, uniform).flatten(1), encoded)
        z = self.table(rest, uniform=uniform.flatten(1)).view_as(raw)
        return torch.where(self._known(raw), z, torch.special.ndtri(uniform)).clamp(-_REACH, _REACH)

    def decode(self, z: Tensor, energy: Tensor, encoded: Tensor) -> LayerTargets:
        """Return the targets of the layers for normal numbers (B, rows, kinds)."""
        raw = self.trend.inverse(self.table.inverse(z.flatten(1)), encoded).view(-1, self.rows, _KINDS)
        visible = torch.exp(raw[:, -1, 0]) * energy
        filled = self._counts(raw[:, :-1, 1], raw[:, -1, 1], self.fewest, self.most)
        faint = self._counts(raw[:, :-1, 2], raw[:, -1, 2], torch.zeros_like(filled), filled)
        some = (filled > 0) | (filled.sum(1, keepdim=True) == 0)
        sums = torch.where(some, torch.exp(raw[:, :-1, 0].clamp_max(0.0)), 0.0)
        sums = sums * (visible / sums.sum(1).clamp_min(_TINY))[:, None]
        parts = sums / visible.clamp_min(_TINY)[:, None]
        x, y = (self._shifted(raw[:, :-1, 3 + k], raw[:, -1, 4 + k], parts) for k in range(2))
        widths = torch.where(filled[:, :, None] > 1, raw[:, :-1, 5:7].clamp_min(0.0), 0.0)
        return LayerTargets(sums, filled - faint, faint, x, y, widths[:, :, 0], widths[:, :, 1])

    @staticmethod
    def _counts(layers: Tensor, whole: Tensor, fewest: Tensor, most: Tensor) -> Tensor:
        """Return whole numbers (B, n_layers) from ``fewest`` to ``most``, near those of the layers, with the shower's sum (B,).

        A difference of the sums is shared by layers that are neither empty nor full; where it is more than half of what they can
        take, all are scaled.
        """
        own = layers.floor().clamp(fewest, most)
        total = whole.floor().clamp_min(0.0)
        change = (total - own.sum(1))[:, None]
        room = own * (1.0 - own / most.clamp_min(1.0))
        some = room.sum(1, keepdim=True)
        scaled = own * (total / own.sum(1).clamp_min(_TINY))[:, None]
        shared = own + change * room / some.clamp_min(_TINY)
        running = torch.where(change.abs() <= 0.5 * some, shared, scaled).cumsum(1).round()
        found = torch.diff(running, dim=1, prepend=torch.zeros_like(running[:, :1]))
        return found.clamp(fewest, most)

    @staticmethod
    def _shifted(centres: Tensor, whole: Tensor, parts: Tensor) -> Tensor:
        """Return the centres (B, n_layers) of layers, moved together so that the shower's is ``whole`` (B,)."""
        return centres + (whole - (parts * centres).sum(1))[:, None]

    def _known(self, raw: Tensor) -> Tensor:
        """Return which numbers (B, rows, kinds) are defined, of a summary with counts as whole numbers."""
        filled = raw[:, :-1, 1:2]
        always = torch.ones_like(filled, dtype=torch.bool)
        some, several = filled > 0, filled > 1
        layers = torch.cat([some, always, some, some, some, several, several], 2)
        whole = torch.ones_like(layers[:, :1])
        whole[:, :, _DEPTH] = False
        return torch.cat([layers, whole], 1)

    def _spread(self, raw: Tensor, uniform: Tensor) -> Tensor:
        """Return the summary dequantised, see the module."""
        layers, u = raw[:, :-1], uniform[:, :-1]
        filled, faint = layers[:, :, 1:2], layers[:, :, 2:3]
        counts = layers[:, :, 1:3] + u[:, :, 1:3]
        counts = torch.where(layers[:, :, 1:3] == 0, 1.0 - _EDGE * (1.0 - u[:, :, 1:3]), counts)
        number = torch.where(filled == self.most[:, None], filled + _EDGE * u[:, :, 1:2], counts[:, :, :1])
        blur = _BLUR * self.pitch / (filled - faint).clamp_min(1.0)
        centres = layers[:, :, 3:5] + blur * (u[:, :, 3:5] - 0.5)
        widths = layers[:, :, 5:7] + blur * u[:, :, 5:7]
        spread = torch.cat([layers[:, :, :1], number, counts[:, :, 1:], centres, widths], 2)
        last = raw[:, -1:]
        whole = torch.cat([last[:, :, :1], last[:, :, 1:3] + uniform[:, -1:, 1:3], last[:, :, 3:]], 2)
        return torch.cat([spread, whole], 1)


def _pitches(detector: Detector) -> NDArray[np.float32]:
    """Return the size of a cell along x and y in units of the layer's half width, (n_layers, 2)."""
    out = np.zeros((detector.n_layers, 2), np.float32)
    for layer, cells in enumerate(detector.layer_cells):
        for axis in range(2):
            places = np.unique(np.round(detector.cell_centres[cells, axis], 3))
            out[layer, axis] = 2.0 / (len(places) - 1) if len(places) > 1 else 0.0
    return out


_CORE_RIDGE = 1e-4
_CORE_REACH = 6.0  # largest standardised value of a core cell
_CORE_LEAST = 0.02  # smallest width of a core cell


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
    """

    edge: Tensor  # (n_core,) x below which a generated core cell is empty
    cells: Tensor  # (n_core,) flat indices of the core cells
    weights: Tensor  # a, (n_core, F)
    spread: Tensor  # sigma, (n_core,)
    layer: Tensor

    def __init__(self, layer: Tensor, occupancy: float) -> None:
        super().__init__()
        self.occupancy = occupancy
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("cells", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(0, 1))
        self.register_buffer("spread", torch.ones(0))
        self.register_buffer("edge", torch.zeros(0))

    @torch.no_grad()
    def fit(
        self, values: Tensor, empty: float, summary: Tensor, encoded: Tensor, adapt: bool = False
    ) -> None:
        """Find and fit the core cells: values (N, n_cells), that of an empty one, summaries (N, rows, kinds), conditions (N, k).

        With ``adapt`` the weights are drawn to those that there are.
        """
        before = dict(zip(self.cells.tolist(), self.weights.double(), strict=True)) if adapt else {}
        self.cells = torch.nonzero((values > empty).float().mean(0) > self.occupancy)[:, 0]
        weights, spread = [], []
        free: Tensor | None = None
        for cell in self.cells.tolist():
            phi = self._features(summary, encoded, self.layer[cell : cell + 1])[:, 0].double()
            x = values[:, cell : cell + 1].double()
            if free is None:  # the row of the layer, first and second order, and the constant
                free = torch.arange(phi.shape[1]) <= 2 * summary.shape[2]
            if cell in before:
                found, _ = shrunk_fit(phi, x, free, before[cell][:, None])
            else:
                found = ridge_fit(phi, x, _CORE_RIDGE)
            weights.append(found[:, 0])
            residual = (x - phi @ found).clamp(-2.0, 2.0)
            spread.append(residual.std().clamp_min(_CORE_LEAST))
        if weights:
            self.weights = torch.stack(weights).to(self.weights)
            self.spread = torch.stack(spread).to(self.spread)
        else:
            self.weights, self.spread = self.weights[:0], self.spread[:0]
        self.edge = torch.full_like(self.spread, -torch.inf)

    @torch.no_grad()
    def fit_edge(self, generated: Tensor, empty: Tensor) -> None:
        """Set the edges so that core cells are empty as often as ``empty`` (n_core,) says, by generated values x (N, n_core).

        The value of an empty cell is far below all others, so that the smallest generated ones are such cells.
        """
        place = (empty.double() * len(generated)).round().long()
        ordered = generated.sort(0).values
        chosen = ordered.gather(0, place.clamp_max(len(ordered) - 1)[None])[0]
        self.edge = torch.where(place > 0, chosen, -torch.inf).to(self.edge)

    def forward(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with y at the core cells."""
        if not len(self.cells):
            return values
        y = (values[:, self.cells] - self._mean(summary, encoded)) / self.spread
        return values.index_copy(1, self.cells, y.clamp(-_CORE_REACH, _CORE_REACH))

    def inverse(self, values: Tensor, summary: Tensor, encoded: Tensor, edges: bool = True) -> Tensor:
        """Return values (B, n_cells) with x at the core cells; those below their ``edges`` are empty."""
        if not len(self.cells):
            return values
        y = values[:, self.cells].clamp(-_CORE_REACH, _CORE_REACH)
        x = y * self.spread + self._mean(summary, encoded)
        if edges:
            x = torch.where(x < self.edge, EMPTY, x)
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
