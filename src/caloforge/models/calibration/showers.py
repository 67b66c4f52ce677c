r"""Layer energies and cells of a trained model carried to the distributions of the training showers.

A generator's total, layer fractions and cells each miss their distribution by a little, and by more where few showers
have energy at all. After training, many showers are generated and compared with the training showers, number by number
(:class:`~caloforge.models.calibration.quantile_maps.QuantileTables`), at each incident energy:

1. the response sum E_l / E and the fractions E_l / sum E_l of all layers but the largest one, which takes what is left.
   The mean is then matched (not the width, which a few leaking showers decide); where there are six energies or
   more the logarithms of the mean fractions are those of a cubic in ln E through the training showers', which is
   known better than each of them;
2. the root of each cell's part of its layer, for each class of alignments of the cells; a factor a cell matches the
   mean. Generated showers come with small energies in cells that would be empty, in the order in which they are
   likely to have some, so that cells become empty as often as in truth. Showers whose alignments are mirrored are
   turned to one class before.

Cells are scaled to the layer energies in the end. What belongs together within a shower is the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.quantile_maps import QuantileTables, energy_groups
from caloforge.models.nn.layer_sums import LayerSums
from caloforge.models.nn.symmetry import BeamSymmetry
from caloforge.models.stage import TrainingData
from caloforge.random import normals

__all__ = ["ShowerCalibration"]

_ROUNDS = 3
_MOST = 4.0
"""Largest factor on a cell in one round."""
_TINY = 1e-20
_CHUNK = 1024
_COPIES = 4
_DEGREE = 3
_ENERGIES = 6
"""Fewest energies for a cubic."""


class ShowerCalibration(nn.Module):
    """Carry generated cells to the training showers' distributions; of no use before the fit.

    Arguments:
        detector: The detector.
        columns: Name of each condition to its columns, ``incident_energy`` among them.
        symmetry: The symmetries of the model.
    """

    remainder: Tensor

    def __init__(self, detector: Detector, columns: Mapping[str, slice], symmetry: BeamSymmetry) -> None:
        super().__init__()
        self.sums = LayerSums(detector)
        self.energy_column = columns["incident_energy"].start
        self.symmetry = [symmetry]  # in a list: it is the model's part, not this one's
        self.alignments = [
            (columns[name].start, count) for name, count in detector.beam.alignments if name in columns
        ]
        self.register_buffer("remainder", torch.zeros(1, dtype=torch.int64))
        self.numbers = QuantileTables(detector.n_layers + 1)
        self.cells = QuantileTables(detector.n_cells, knots=21, reach=2.6, dtype=torch.float16)

    @property
    def fitted(self) -> bool:
        """Whether the tables follow from showers."""
        return self.cells.fitted

    @property
    def classes(self) -> int:
        """Classes of alignments, mirrored ones being one; where no mirror holds, the last takes the upper half."""
        return math.prod((count + 1) // 2 for _, count in self.alignments)

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Set the tables.

        Arguments:
            true: Cells (N, n_cells), MeV, and conditions (N, C) of training showers.
            made: The same of generated ones (M, ...), of the same energies.
        """
        energy = true[1][:, self.energy_column]
        group, position = energy_groups(energy)
        made_energy = made[1][:, self.energy_column]
        edges = (position[1:] + position[:-1]) / 2
        made_group = torch.searchsorted(edges, torch.log(made_energy).contiguous())
        if len(torch.unique(energy)) > len(position):
            group = torch.searchsorted(edges, torch.log(energy).contiguous())
        self.remainder.copy_(self.sums(true[0]).mean(0).argmax())
        self._fit_numbers(position, (true[0], energy, group), (made[0], made_energy, made_group))
        self._fit_cells(position, (*true, group), (*made, made_group))

    @torch.no_grad()
    def fit_to(self, data: TrainingData, make: Callable[[Tensor, Tensor], Tensor], noise: int) -> None:
        """Generate four showers for each training shower, under its conditions, and set the tables.

        Arguments:
            data: Training showers.
            make: The generator before this step: noise (B, noise) and conditions (B, C) to cells (B, n_cells), MeV.
            noise: Normal numbers a shower.
        """
        batches = list(data.batches(_CHUNK))
        cells, conditions = (torch.cat([getattr(b, k) for b in batches]) for k in ("cells", "conditions"))
        many = conditions.repeat(_COPIES, 1)
        made = []
        for first in range(0, len(many), _CHUNK):
            rows = many[first : first + _CHUNK]
            numbers = normals(0, "calibration", first, len(rows), noise).astype(np.float32)
            made.append(make(torch.from_numpy(numbers).to(rows.device), rows))
        self.fit((cells, conditions), (torch.cat(made), many))

    def _fit_numbers(
        self,
        position: Tensor,
        true: tuple[Tensor, Tensor, Tensor],
        made: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        truth, group = self._plain(*true[:2]), true[2]
        ours, made_group = self._plain(*made[:2]), made[2]
        self.numbers.fit(
            position,
            (truth, group, torch.zeros_like(group)),
            (ours, made_group, torch.zeros_like(made_group)),
        )
        mean, error = _moments(truth, group, len(position))
        mean[:, 1:] = _smooth(position, mean[:, 1:], error[:, 1:])
        for _ in range(_ROUNDS):
            carried = self._plain(*self._carried_layers(ours, made[1]))
            now, _ = _moments(carried, made_group, len(position))
            table = self.numbers.truth
            table.add_((mean - now)[:, None, :, None])
            table[:, :, 1:].clamp_(0.0, 1.0)
            table[:, :, :1].clamp_(min=0.0)

    def _fit_cells(
        self,
        position: Tensor,
        true: tuple[Tensor, Tensor, Tensor],
        made: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        cells, _, kind = self._turned(*true[:2])
        ours, _, made_kind = self._turned(*made[:2])
        truth, parts = self._parts(cells), self._parts(ours)
        energy = made[1][:, self.energy_column]
        classes = self.classes
        self.cells.fit(position, (truth.sqrt(), true[2], kind), (parts.sqrt(), made[2], made_kind), classes)
        wanted = self._means(cells, self.sums(cells), true[2] * classes + kind, len(position) * classes)
        layers = self._layers(self.numbers(self._plain(ours, energy), energy), energy)
        for _ in range(_ROUNDS):
            rows = [slice(first, first + _CHUNK) for first in range(0, len(parts), _CHUNK)]
            carried = [self._carried_parts(parts[row], energy[row], made_kind[row]) for row in rows]
            shares = _shared(torch.cat(carried), parts, self.sums)
            found = self._means(
                self.sums.normalise(shares, layers),
                layers,
                made[2] * classes + made_kind,
                len(position) * classes,
            )
            factor = torch.where(found > 0, wanted / found.clamp_min(_TINY), torch.ones_like(found))
            factor = torch.where(wanted > 0, factor.clamp(1.0 / _MOST, _MOST), torch.zeros_like(factor))
            factor = factor.view(len(position), classes, -1, 1)
            table = self.cells.truth
            table.copy_((table.float() * factor.sqrt()).clamp_max(6e4).to(table))

    def forward(self, cells: Tensor, conditions: Tensor) -> Tensor:
        """Return carried cells (B, n_cells), MeV, of generated ones under conditions (B, C)."""
        energy = conditions[:, self.energy_column]
        turned, flips, kind = self._turned(cells, conditions)
        parts = self._parts(turned)
        shares = _shared(self._carried_parts(parts, energy, kind), parts, self.sums)
        layers = self._layers(self.numbers(self._plain(cells, energy), energy), energy)
        carried = self.sums.normalise(shares, layers)
        back: Tensor = self.symmetry[0](carried, conditions, flips)[0]
        return back

    def _carried_parts(self, parts: Tensor, energy: Tensor, kind: Tensor) -> Tensor:
        roots: Tensor = self.cells(parts.sqrt(), energy, kind)
        return roots.square()

    def _carried_layers(self, plain: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        return self._layers(self.numbers(plain, energy), energy), energy

    def _plain(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return response and fractions (B, 1 + n_layers) of cells, or of layer energies (B, n_layers)."""
        layers = cells if cells.shape[1] == self.numbers.size - 1 else self.sums(cells)
        total = layers.sum(1, keepdim=True)
        return torch.cat([total / energy[:, None], layers / total.clamp_min(_TINY)], 1)

    def _layers(self, numbers: Tensor, energy: Tensor) -> Tensor:
        """Return layer energies (B, n_layers), MeV, of response and fractions; the largest layer takes the rest."""
        last = torch.arange(self.numbers.size - 1, device=numbers.device) == self.remainder
        others = torch.where(last, torch.zeros_like(numbers[:, 1:]), numbers[:, 1:].clamp_min(0.0))
        taken = others.sum(1, keepdim=True)
        others = others / taken.clamp_min(1.0)
        fractions = torch.where(last, (1.0 - taken).clamp_min(0.0), others)
        return fractions * (numbers[:, :1].clamp_min(0.0) * energy[:, None])

    def _parts(self, cells: Tensor) -> Tensor:
        """Return each cell's part of its layer (B, n_cells)."""
        return cells / self.sums.spread(self.sums(cells).clamp_min(_TINY))

    def _turned(self, cells: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return cells with alignments turned to the lower half, the signs that turn them, and their class."""
        symmetry = self.symmetry[0]
        flips = -torch.ones(len(cells), 3, device=cells.device)
        for axis in range(2):
            for column, count in self.alignments:
                if bool(symmetry.factors[axis, column] < 0):
                    flips[:, axis] = conditions[:, column] - (count - 1) / 2
        turned, conditions = symmetry(cells, conditions, flips)
        kind = torch.zeros(len(cells), dtype=torch.int64, device=cells.device)
        for column, count in self.alignments:
            half = (count + 1) // 2
            kind = kind * half + conditions[:, column].round().long().clamp(0, half - 1)
        return turned, flips, kind

    @staticmethod
    def _means(cells: Tensor, layers: Tensor, index: Tensor, count: int) -> Tensor:
        """Return sum of cells over sum of all layers in each group and class (count, n_cells)."""
        sums = cells.new_zeros(count, cells.shape[1]).index_add_(0, index, cells)
        total = cells.new_zeros(count).index_add_(0, index, layers.sum(1))
        return sums / total.clamp_min(_TINY)[:, None]


def _shared(shares: Tensor, parts: Tensor, sums: LayerSums) -> Tensor:
    """Return shares (B, n_cells); in a layer where none is left, the largest of the parts (B, n_cells) alone."""
    highest = (parts > 0) & (parts >= sums.spread(_layer_maximum(parts, sums)))
    return torch.where(sums.spread(sums(shares)) > 0, shares, highest.to(parts.dtype))


def _layer_maximum(parts: Tensor, sums: LayerSums) -> Tensor:
    """Return the largest part of each layer (B, n_layers)."""
    if sums.interleaved:
        return parts.view(len(parts), -1, sums.n_layers).amax(1)
    return torch.stack([part.amax(1) for part in torch.split(parts, sums.counts, dim=1)], 1)


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
        wanted = torch.log(value) * weight
        found = torch.linalg.lstsq(design * weight[:, None], wanted[:, None], driver="gelsd")
        columns.append(torch.exp(design @ found.solution[:, 0]))
    return torch.stack(columns, 1).clamp(0.0, 1.0).to(mean)
