r"""Calibration of showers in cells of any layout: layer energies, then cells, by quantile mapping at each incident energy.

A generator's total, layer fractions and cells each deviate a little from their distributions, and more where few showers have energy
at all. Two steps map them to the quantiles of the training showers (:class:`~caloforge.models.calibration.monotone.MonotoneMap`);
correlations within a shower are the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.models.calibration.base import Sample, Step
from caloforge.models.calibration.monotone import Labelled, MonotoneMap, energy_groups
from caloforge.models.calibration.regression import least_squares
from caloforge.models.nn.cell_networks import LayerSums
from caloforge.models.nn.conditions import BeamSymmetry

__all__ = ["CellMaps", "LayerMaps"]

_ROUNDS = 3
_TINY = 1e-20


def _groups(reference: Sample, generated: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """Return ln E of the groups (G,), and the group of each reference (N,) and generated (M,) shower."""
    group, position = energy_groups(reference.energy)
    edges = (position[1:] + position[:-1]) / 2
    if len(torch.unique(reference.energy)) > len(position):
        group = torch.searchsorted(edges, torch.log(reference.energy).contiguous())
    return position, group, torch.searchsorted(edges, torch.log(generated.energy).contiguous())


_DEGREE = 3
_ENERGIES = 6  # fewest energies for a cubic


class LayerMaps(Step):
    r"""Quantile maps of the response and of the fractions of all layers but the largest one, which takes what is left.

    The response is :math:`\sum_l E_l / E`, a fraction :math:`E_l / \sum_l E_l`. After the maps the means are matched (not the
    widths, which a few leaking showers decide); where there are six energies or more the logarithms of the mean fractions are
    those of a cubic in ln E through the training showers', which is known better than each of them.
    """

    remainder: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.sums = LayerSums(detector)
        self.register_buffer("remainder", torch.zeros(1, dtype=torch.int64))
        self.map = MonotoneMap(detector.n_layers + 1, 41, 3.0, ends=True)

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set the maps."""
        position, group, own_group = _groups(reference, generated)
        layers = self.sums(reference.cells)
        self.remainder.copy_(layers.mean(0).argmax())
        truth = self._numbers(layers, reference.energy)
        ours = self._numbers(self.sums(generated.cells), generated.energy)
        self.map.fit_groups(
            position,
            Labelled(ours, own_group, torch.zeros_like(own_group)),
            Labelled(truth, group, torch.zeros_like(group)),
        )
        mean, error = _moments(truth, group, len(position))
        mean[:, 1:] = _smooth(position, mean[:, 1:], error[:, 1:])
        for _ in range(_ROUNDS):
            mapped = self._numbers(self._layers(ours, generated.energy), generated.energy)
            now, _ = _moments(mapped, own_group, len(position))
            table = self.map.y
            table.add_((mean - now)[:, None, :, None])
            table[:, :, 1:].clamp_(0.0, 1.0)
            table[:, :, :1].clamp_(min=0.0)

    def forward(self, showers: Sample) -> Sample:
        """Return showers whose layers are scaled to the mapped energies; empty layers stay empty."""
        layers = self._layers(self._numbers(self.sums(showers.cells), showers.energy), showers.energy)
        return showers._replace(cells=self.sums.normalise(showers.cells, layers))

    @staticmethod
    def _numbers(layers: Tensor, energy: Tensor) -> Tensor:
        """Return response and fractions (B, 1 + n_layers) of layer energies (B, n_layers)."""
        total = layers.sum(1, keepdim=True)
        return torch.cat([total / energy[:, None], layers / total.clamp_min(_TINY)], 1)

    def _layers(self, numbers: Tensor, energy: Tensor) -> Tensor:
        """Return mapped layer energies (B, n_layers), MeV, of response and fractions."""
        mapped: Tensor = self.map(numbers, torch.log(energy)).clamp_min(0.0)
        last = torch.arange(self.sums.n_layers, device=numbers.device) == self.remainder
        others = torch.where(last, 0.0, mapped[:, 1:])
        taken = others.sum(1, keepdim=True)
        fractions = torch.where(last, (1.0 - taken).clamp_min(0.0), others / taken.clamp_min(1.0))
        return fractions * (mapped[:, :1] * energy[:, None])


_MOST = 4.0  # largest factor on a cell in one round
_CHUNK = 1024


class CellMaps(Step):
    """Quantile maps of the root of each cell's part of its layer, for each class of alignments of the cells.

    A factor a cell matches the mean. Generated showers come with small energies in cells that would be empty, in the order in which
    they are likely to have some, so that cells become empty as often as in truth. Showers whose alignments are mirrored are
    mirrored to one class before. Layers keep their energy.
    """

    def __init__(self, detector: Detector, columns: Mapping[str, slice], symmetry: BeamSymmetry) -> None:
        super().__init__()
        self.sums = LayerSums(detector)
        self._symmetry = (symmetry,)  # in a tuple: it is the model's submodule, not this one's
        self.alignments = [
            (columns[name].start, count) for name, count in detector.beam.alignments if name in columns
        ]
        self.mirrors = [  # axis of the mirror that changes an alignment, its column and count
            (axis, *alignment)
            for axis in range(2)
            for alignment in self.alignments
            if bool(symmetry.factors[axis, alignment[0]] < 0)
        ]
        self.map = MonotoneMap(detector.n_cells, 21, 2.6, ends=True, dtype=torch.float16)

    @property
    def classes(self) -> int:
        """Classes of alignments, mirrored ones being one; where there is no mirror symmetry, the last takes the upper half."""
        return math.prod((count + 1) // 2 for _, count in self.alignments)

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set the maps."""
        position, group, own_group = _groups(reference, generated)
        cells, _, kind = self._mirrored(reference)
        ours, _, own_kind = self._mirrored(generated)
        truth, parts = self._parts(cells), self._parts(ours)
        self.map.fit_groups(
            position,
            Labelled(parts.sqrt(), own_group, own_kind),
            Labelled(truth.sqrt(), group, kind),
            self.classes,
        )
        size = (len(position), self.classes)
        wanted = _shares(cells, self.sums(cells), group * self.classes + kind, math.prod(size))
        layers, at = self.sums(ours), torch.log(generated.energy)
        for _ in range(_ROUNDS):
            rows = torch.split(torch.arange(len(parts), device=parts.device), _CHUNK)
            shares = torch.cat([self._mapped(parts[row], at[row], own_kind[row]) for row in rows])
            cells = self.sums.normalise(shares, layers)
            found = _shares(cells, layers, own_group * self.classes + own_kind, math.prod(size))
            factor = torch.where(found > 0, wanted / found.clamp_min(_TINY), torch.ones_like(found))
            factor = torch.where(wanted > 0, factor.clamp(1.0 / _MOST, _MOST), torch.zeros_like(factor))
            table = self.map.y
            table.copy_((table.float() * factor.view(*size, -1, 1).sqrt()).clamp_max(6e4).to(table))

    def forward(self, showers: Sample) -> Sample:
        """Return showers with mapped cells."""
        cells, flips, kind = self._mirrored(showers)
        shares = self._mapped(self._parts(cells), torch.log(showers.energy), kind)
        mapped = self.sums.normalise(shares, self.sums(cells))
        return showers._replace(cells=self._symmetry[0](mapped, showers.conditions, flips)[0])

    def _mapped(self, parts: Tensor, at: Tensor, kind: Tensor) -> Tensor:
        """Return mapped parts (B, n_cells); in a layer where none is left, the largest of the parts (B, n_cells) alone."""
        shares: Tensor = self.map(parts.sqrt(), at, kind).square()
        highest = (parts > 0) & (parts >= self.sums.spread(self._largest(parts)))
        return torch.where(self.sums.spread(self.sums(shares)) > 0, shares, highest.to(parts.dtype))

    def _largest(self, parts: Tensor) -> Tensor:
        """Return the largest part of each layer (B, n_layers)."""
        if self.sums.interleaved:
            return parts.view(parts.shape[0], -1, self.sums.n_layers).amax(1)
        return torch.stack([part.amax(1) for part in torch.split(parts, self.sums.counts, dim=1)], 1)

    def _parts(self, cells: Tensor) -> Tensor:
        """Return each cell's part of its layer (B, n_cells)."""
        return cells / self.sums.spread(self.sums(cells).clamp_min(_TINY))

    def _mirrored(self, showers: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """Return cells with alignments mirrored to the lower half, the signs (B, operations) that do it, and their class (B,)."""
        symmetry, cells = self._symmetry[0], showers.cells
        flips = -torch.ones(cells.shape[0], len(symmetry.possible), device=cells.device)
        for axis, column, count in self.mirrors:
            flips[:, axis] = showers.conditions[:, column] - (count - 1) / 2
        mirrored, conditions = symmetry(cells, showers.conditions, flips)
        kind = torch.zeros(cells.shape[0], dtype=torch.int64, device=cells.device)
        for column, count in self.alignments:
            half = (count + 1) // 2
            kind = kind * half + conditions[:, column].round().long().clamp(0, half - 1)
        return mirrored, flips, kind


def _shares(cells: Tensor, layers: Tensor, index: Tensor, count: int) -> Tensor:
    """Return the sum of cells over the sum of all layers in each group and class (count, n_cells)."""
    sums = cells.new_zeros(count, cells.shape[1]).index_add_(0, index, cells)
    total = cells.new_zeros(count).index_add_(0, index, layers.sum(1))
    return sums / total.clamp_min(_TINY)[:, None]


def _moments(values: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return the mean and its error (groups, size)."""
    rows = [values[group == g].double() for g in range(groups)]
    mean = torch.stack([row.mean(0) for row in rows])
    error = torch.stack([row.std(0, unbiased=False) / math.sqrt(len(row)) for row in rows])
    return mean.to(values), error.to(values)


def _smooth(position: Tensor, mean: Tensor, error: Tensor) -> Tensor:
    """Return means (G, k) whose logarithms lie on weighted cubics in ln E, where there are enough energies."""
    if len(position) < _ENERGIES:
        return mean
    x = position.double() - position.double().mean()
    design = torch.stack([(x / x.abs().max()) ** power for power in range(_DEGREE + 1)], 1)
    columns = []
    for value, spread in zip(mean.double().T, error.double().T, strict=True):
        if bool((value <= 0).any()):
            columns.append(value)
            continue
        weight = value / torch.maximum(spread, 1e-4 * value)
        columns.append(torch.exp(design @ least_squares(design * weight[:, None], torch.log(value) * weight)))
    return torch.stack(columns, 1).clamp(0.0, 1.0).to(mean)
