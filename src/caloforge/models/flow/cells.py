r"""Cell energies as values of a flow, and the inverse: cells with the layer energies of a summary.

An empty cell has the value -1; a filled one 2 + 0.6 x, with a table x(ln e) whose slope is that of the quantile transform to a normal
number, dz / d ln e with z = Phi^-1(F(ln e)), but above the median nowhere less than a least slope s:

.. math:: x(\ln e) = \int \max\!\left(\frac{dz}{d \ln e}, s\right) d \ln e, \qquad x(\mathrm{median}) = 0.

So the peak of minimum ionising particles, where most cells are, is stretched over a wide range of x, and the few cells in a shower's
core, orders of magnitude above it, are not squeezed together. Below the median the least slope is small: faint cells, over three decades down to
the cut, have the lower tail of a normal number, x > -4, and stay apart from the empty ones without a floor on which many would
have one value. On a grid the energies are absolute and share one table; with
``relative`` they are shares of their layer's energy, with one table for each layer.

Decoding: in each layer the n cells of largest value are filled, the others are empty. A monotone map
(:class:`~caloforge.models.calibration.monotone.MonotoneMap`) takes the values of filled cells to the quantiles of the training showers, faint cells
included; gains may multiply their energies. The difference to the layer's energy is then shared in proportion to the square of the energy, so
that small energies change little, and the energies of a layer are given to its filled cells in another order (:func:`reordered`), so that the layer gets its centre
and widths while each shower keeps its spectrum, the peak of minimum ionising particles included. Layer energies are exact, apart from cells that fall below the cut. The number of hits is not imposed:
it follows from the number of filled cells and the spectrum of their energies.

A layer has hundreds of cells of which a shower fills a few tens: ``topk_ragged`` gathers those into as few columns as the fullest layer needs.

Centres and widths (:func:`tilted`): of all energies with given moments those nearest to e_i (in relative entropy) are an exponential tilt,

.. math:: e_i' \propto e_i \exp(a\,x_i + b\,y_i + c\,x_i^2 + d\,y_i^2),

x and y from the target centre, with a to d such that the energy-weighted means of x and y are 0 and those of x^2 and y^2 the squares
of the widths. a to d are found by Newton's method, whose Jacobian is the covariance of the four under the tilted energies.
A target that a layer cannot reach (a centre beyond its filled cells, a width of one cell) is approached as far as the bound of the
tilt allows. :func:`reordered` sorts the cells by the tilted energies and gives them the energies as they were, the largest to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.monotone import MonotoneMap
from caloforge.models.flow.path import EMPTY
from caloforge.models.nn.cell_networks import NOTHING, LayerView, topk_ragged

__all__ = ["CellValues", "Gain", "LayerTargets", "reordered", "tilted"]


_STEPS = 4
_MOST = 0.3
_REORDERINGS = 2  # how often the energies of a layer are given out; a second time brings its moments nearer
_MOST_REORDERED = 1.0  # largest logarithm of a cell's factor before the energies are given out again
_DAMPING = 0.1
"""Added to the covariance, in units of that of all the layer's energy, against moments that little free energy cannot change."""
_LEAST = 1e-3
_PIVOT = 1e-3
_TINY = 1e-12


class LayerTargets(NamedTuple):
    """Targets for the cells of each layer."""

    sums: Tensor  # energies (B, n_layers), MeV
    hits: Tensor  # cells above the threshold (B, n_layers), whole numbers
    faint: Tensor  # cells with less energy (B, n_layers), whole numbers
    x: Tensor  # centres along x (B, n_layers), in units of the layer's half width
    y: Tensor  # the same along y
    width_x: Tensor  # root mean square distances to the centre along x (B, n_layers), in the same units
    width_y: Tensor  # the same along y


def tilted(
    free: Tensor, fixed: Tensor, x: Tensor, y: Tensor, targets: LayerTargets, most: float = _MOST
) -> Tensor:
    """Return ``free`` energies tilted, with unchanged sums, so that free and fixed ones together have the target moments.

    Arguments:
        free: Energies that may change (B, n_layers, width), MeV, not negative.
        fixed: Energies that stay (B, n_layers, width), MeV.
        x: Positions of the cells (n_layers, width) or (B, n_layers, width), in half widths of the layer.
        y: The same along the other axis.
        targets: Centres and widths; sums and counts are not used.
        most: Largest logarithm of a cell's factor, against the layer's mean.
    """
    away_x, away_y = x - targets.x[:, :, None], y - targets.y[:, :, None]
    square_x, square_y = away_x.square(), away_y.square()
    target_x, target_y = (
        w.clamp_min(_LEAST).square()[:, :, None] for w in (targets.width_x, targets.width_y)
    )
    moments = torch.stack([away_x, away_y, square_x - target_x, square_y - target_y], 2)
    whole = free.sum(2).clamp_min(_TINY)
    total = (free + fixed).sum(2).clamp_min(_TINY)
    settled = (moments * fixed[:, :, None]).sum(3)
    shares = ((free + fixed) / total[:, :, None])[:, :, None]
    scale = _spread(moments, shares)
    rates = torch.zeros_like(settled)
    found = free
    for _ in range(_STEPS):
        weights = (found / whole[:, :, None])[:, :, None]
        mean = (moments * weights).sum(3)
        covariance = ((moments - mean[..., None]) * weights) @ moments.transpose(2, 3)
        missing = -(settled + mean * whole[..., None]) / total[..., None]
        rates = rates + _solved(covariance * (whole / total)[..., None, None], missing, scale)
        found = _weighted(free, moments, rates, whole, most)
    return found


def _spread(features: Tensor, shares: Tensor) -> Tensor:
    """Return the widths (B, n_layers, 4) of features (B, n_layers, 4, width) under shares (B, n_layers, 1, width)."""
    mean = (features * shares).sum(3, keepdim=True)
    return ((features - mean).square() * shares).sum(3).clamp_min(_TINY).sqrt()


def _solved(matrix: Tensor, missing: Tensor, scale: Tensor) -> Tensor:
    """Return the damped solution (..., 4) of systems (..., 4, 4), in units of ``scale`` (..., 4), by elimination."""
    unit = matrix / (scale[..., None] * scale[..., None, :])
    size = unit.shape[-1]
    unit = unit + _DAMPING * torch.eye(size, device=matrix.device, dtype=matrix.dtype)
    lines = list(torch.cat([unit, (missing / scale)[..., None]], -1).unbind(-2))
    for k in range(size):
        pivot = lines[k][..., k : k + 1]
        lines[k] = lines[k] / torch.where(pivot.abs() < _PIVOT, _PIVOT, pivot)
        for other in range(size):
            if other != k:
                lines[other] = lines[other] - lines[other][..., k : k + 1] * lines[k]
    solution: Tensor = torch.stack([line[..., size] for line in lines], -1) / scale
    return solution


def _weighted(free: Tensor, moments: Tensor, rates: Tensor, whole: Tensor, most: float) -> Tensor:
    """Return energies (B, n_layers, width) times their factors, with the sums ``whole`` (B, n_layers)."""
    logs = (moments * rates[..., None]).sum(2)
    logs = logs - (free * logs).sum(2, keepdim=True) / whole[..., None]
    made: Tensor = free * torch.exp(most * torch.tanh(logs / most))
    found: Tensor = made * (whole / made.sum(2).clamp_min(_TINY))[..., None]
    return found


def reordered(energy: Tensor, x: Tensor, y: Tensor, targets: LayerTargets) -> Tensor:
    """Return each layer's energies (B, n_layers, width), MeV, in an order with which it comes near its centre and widths.

    Cells without energy keep none. Positions and targets are those of :func:`tilted`.
    """
    given = energy.sort(dim=2, descending=True).values
    for _ in range(_REORDERINGS):
        wanted = tilted(energy, torch.zeros_like(energy), x, y, targets, _MOST_REORDERED)
        energy = torch.zeros_like(energy).scatter(
            2, wanted.argsort(dim=2, descending=True, stable=True), given
        )
    return energy


Gain = Callable[[Tensor, Tensor], Tensor]
"""Factors for the energies of cells at positions x and y, each (B, n_layers, K)."""

_CENTRE = 2.0
_SCALE = 0.6
_FAINTEST = -4.0  # smallest x of a filled cell
_SLOPE = 0.8  # least slope s above the median
_FAINT_SLOPE = 0.1  # the same below it
_STEEPEST = 6.0
_KNOTS = 200
_TAIL = 3.5  # quantiles are followed from minus this normal number on
_TRUSTED = 2.5  # and up to this one; beyond, the slope is the least
_ABOVE = 1.02  # energy of the faintest cells after the map, in cuts; layers are scaled afterwards
_FEWEST = 100  # fewest values of a layer to which its map is fitted
_BETWEEN = -0.5  # cells with values above it are filled where their number is not imposed
_SAMPLE = 400_000


class CellValues(nn.Module):
    """Cells to values and back.

    Arguments:
        detector: The detector.
        cut: Energy below which a cell is empty, MeV.
        relative: Energies as shares of the layer's.
        moments: Whether centres and widths of the layers are imposed, too.
        radial: On a mesh the power of the distance from the axis in positions.
    """

    def __init__(
        self, detector: Detector, cut: float, relative: bool, moments: bool = True, radial: float = 1.0
    ) -> None:
        super().__init__()
        self.moments = moments
        self.view = LayerView(detector, radial)
        self.cut, self.relative = cut, relative
        self.table = MonotoneMap(detector.n_layers if relative else 1, _KNOTS, 10.0, even="x", beyond=_SLOPE)
        self.table.y.mul_(_SLOPE)
        self.calibrated, self.absolute = self._maps()

    def _maps(self) -> tuple[MonotoneMap, MonotoneMap | None]:
        """Return new maps of the calibration: of values, and of ln e where values are shares of the layer's energy."""
        n, where = self.view.n_layers, self.table.x.device
        absolute = MonotoneMap(n, 161, 12.0, even="x", beyond=1.0).to(where) if self.relative else None
        return MonotoneMap(n, 81, 4.0, beyond=1.0).to(where), absolute

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

    @torch.no_grad()
    def fit_energies(self, energies: Tensor, generator: torch.Generator) -> None:
        """Fit the table of a grid to energies (N,) of filled cells, in any unit."""
        self._fit(energies, 0, generator)

    def _fit(self, energies: Tensor, column: int, generator: torch.Generator) -> None:
        if len(energies) > _SAMPLE:
            energies = energies[torch.randperm(len(energies), generator=generator)[:_SAMPLE]]
        if len(energies) > 1:
            self.table.set_column(column, *_table(energies))

    def forward(self, cells: Tensor) -> Tensor:
        """Return the values (B, n_cells) of cells (B, n_cells)."""
        view = self.view(cells)
        filled = view > self.cut
        sums = view.sum(2, keepdim=True).clamp_min(_TINY)
        values = self._values(torch.log(torch.where(filled, view / sums if self.relative else view, 1.0)))
        values = values.clamp_min(_CENTRE + _SCALE * _FAINTEST)
        return self.view.cells(torch.where(filled, values, EMPTY))

    def _values(self, logs: Tensor) -> Tensor:
        """Return the values of logarithms (B, n_layers, k), faint cells included."""
        return _CENTRE + _SCALE * self._tabulated(logs, self.table)

    def edge(self, energy: float) -> Tensor:
        """Return the value (1,) of an energy, MeV, on a grid."""
        return self._values(self.table.x.new_tensor([[[energy]]]).log()).flatten()

    def faint(self, quantile: Tensor, below: float) -> Tensor:
        """Return the values of quantiles, above 0 and below 1, of all filled cells below an energy, MeV, on a grid."""
        share = torch.special.ndtr((self.edge(below) - _CENTRE) / _SCALE)
        normal: Tensor = torch.special.ndtri(quantile * share)
        return _CENTRE + _SCALE * normal

    def logarithms(self, values: Tensor) -> Tensor:
        """Return ln e of values (B, n_layers, k), e in MeV or as a share of the layer's energy, without calibration."""
        return self._tabulated((values - _CENTRE) / _SCALE, self.table.inverse)

    def _energies(self, values: Tensor, sums: Tensor, calibrated: bool = True) -> Tensor:
        """Return the energies of values (B, n_layers, k), MeV."""
        logs = self.logarithms(values)
        if self.absolute is None:
            return torch.exp(logs)
        logs = logs + torch.log(sums.clamp_min(_TINY))
        return torch.exp(self.absolute(logs) if calibrated else logs)

    def _tabulated(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a table's function to (B, n_layers, k): each layer's own, or the one of all."""
        return function(x) if self.relative else function(x.reshape(1, 1, -1)).view(x.shape)

    def decode(
        self,
        values: Tensor,
        targets: LayerTargets,
        gain: Gain | None = None,
        calibrated: bool = True,
        last: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return cells (B, n_cells), MeV.

        Arguments:
            values: (B, n_cells).
            targets: Layer energies, numbers of filled cells, centres and widths.
            gain: Factors for the cells, applied before the layers are scaled to their energies.
            calibrated: Whether the calibration of the values is applied.
            last: Map of the finished energies (B, n_layers, k), which may change the layers' energies a little.
        """
        table = self.view(values.float(), NOTHING)
        filled = self._number(table, targets)
        view, places = self._filled(table, filled)
        sums = targets.sums[:, :, None]
        rank, real = torch.arange(view.shape[2], device=view.device), view > 0.1 * NOTHING
        is_filled = (rank < filled[:, :, None]) & real
        x, y = self.view.positions(places)
        energy = self._energies(self.calibrated(view) if calibrated else view, sums, calibrated)
        energy = torch.where(is_filled, energy, 0.0)
        if gain is not None:
            energy = energy * gain(x, y)
        energy = self._scaled(energy, sums)
        if self.moments:
            energy = reordered(energy, x, y, targets)
        if last is not None:
            energy = last(energy)
        energy = torch.where(energy > self.cut, energy, 0.0)
        return self.view.placed(energy, places)

    def number(self, values: Tensor, targets: LayerTargets) -> Tensor:
        """Return how many cells of each layer are filled (B, n_layers), of values (B, n_cells), as whole numbers."""
        return self._number(self.view(values.float(), NOTHING), targets)

    def _number(self, table: Tensor, targets: LayerTargets) -> Tensor:
        """Return the same for values (B, n_layers, width)."""
        found = (table > _BETWEEN).sum(2).to(targets.sums)
        return torch.where(targets.sums > self.cut, found.clamp_min(1.0), 0.0)

    @torch.no_grad()
    def calibrate(self, pairs: Iterable[tuple[Tensor, Tensor]], cells: Tensor) -> None:
        """Map values of a model's filled cells, pairs of (B, n_cells) and counts (B, n_layers), to those of cells (N, n_cells), MeV."""
        self.calibrated, self.absolute = self._maps()
        generated: list[list[Tensor]] = [[] for _ in range(self.view.n_layers)]
        for values, filled in pairs:
            view, _ = self._filled(self.view(values.float(), NOTHING), filled)
            chosen = torch.arange(view.shape[2], device=view.device) < filled[:, :, None]
            for layer, parts in enumerate(generated):
                parts.append(view[:, layer][chosen[:, layer]].cpu())
        for layer, (parts, true) in enumerate(zip(generated, self._by_layer(cells), strict=True)):
            values = torch.cat(parts)
            if min(len(values), len(true)) >= _FEWEST:
                self.calibrated.fit_column(layer, values, true.to(values.device))

    @torch.no_grad()
    def refine(self, generated: Tensor, cells: Tensor) -> None:
        """Correct that map for what scaling and moments change, by decoded (M, n_cells) and training showers (N, n_cells), MeV.

        Where values are shares of the layer's energy, a second map, of the energies themselves, is corrected.
        """
        if self.absolute is None:
            least = float(self._values(cells.new_tensor([[[_ABOVE * self.cut]]]).log()))
            numbers, correct = self._by_layer, partial(self.calibrated.correct_column, least=least)
        else:
            numbers, correct = self._logs, partial(self.absolute.follow_column)
        for layer, (found, true) in enumerate(zip(numbers(generated), numbers(cells), strict=True)):
            if min(len(found), len(true)) >= _FEWEST:
                correct(layer, found, true)

    def _logs(self, cells: Tensor) -> list[Tensor]:
        """Return the logarithms of the filled cells of each layer, ln MeV."""
        view = self.view(cells)
        return [torch.log(part[part > self.cut]) for part in view.unbind(1)]

    def _by_layer(self, cells: Tensor) -> list[Tensor]:
        """Return the values of the filled cells of each layer, faint ones not clamped, for cells (N, n_cells)."""
        view = self.view(cells)
        filled = view > self.cut
        share = view / view.sum(2, keepdim=True).clamp_min(_TINY) if self.relative else view
        values = self._values(torch.log(torch.where(filled, share, 1.0)))
        return [values[:, layer][filled[:, layer]] for layer in range(self.view.n_layers)]

    def _filled(self, table: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the cells that are filled and their places, see :func:`topk_ragged`, of values (B, n_layers, width)."""
        return topk_ragged(table, filled.clamp(1.0, self.view.width), _BETWEEN)

    def _scaled(self, energy: Tensor, sums: Tensor) -> Tensor:
        """Return energies (B, n_layers, K) that add up to ``sums`` (B, n_layers, 1).

        The difference is shared in proportion to the square of the energy, so that small energies change little, as far
        as no cell changes by more than half; the rest scales all cells.
        """
        missing = sums - energy.sum(2, keepdim=True)
        squares = energy.square().sum(2, keepdim=True).clamp_min(_TINY)
        largest = energy.amax(2, keepdim=True).clamp_min(_TINY)
        rate = torch.maximum(torch.minimum(missing / squares, 1.0 / largest), -0.5 / largest)
        energy = energy * (1.0 + rate * energy)
        return energy * (sums / energy.sum(2, keepdim=True).clamp_min(_TINY))


def _table(energies: Tensor) -> tuple[Tensor, Tensor]:
    """Return equally spaced ln e (knots,) and x at them (knots,), see the module, for energies (N,), all above 0."""
    ordered = torch.log(energies.double()).sort().values
    knots = torch.linspace(float(ordered[0]), float(ordered[-1]) + 1e-3, _KNOTS, dtype=torch.float64)
    rank = torch.searchsorted(ordered, knots).double().clamp(0.5, len(ordered) - 0.5) / len(ordered)
    z = torch.special.ndtri(rank).clamp(-_TAIL, _TRUSTED)
    step = knots[1] - knots[0]
    least = torch.where(z[:-1] < 0.0, _FAINT_SLOPE, _SLOPE)
    slopes = (torch.diff(z) / step).clamp_max(_STEEPEST).maximum(least)
    x = torch.cat([torch.zeros(1, dtype=torch.float64), (slopes * step).cumsum(0)])
    place = ((ordered[len(ordered) // 2] - knots[0]) / step).clamp(0, _KNOTS - 1.001)
    index = int(place)
    return knots, x - torch.lerp(x[index], x[index + 1], place - index)
