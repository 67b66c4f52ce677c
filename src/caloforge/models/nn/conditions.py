"""Conditions as inputs of a network, and the symmetries of showers and their conditions.

:class:`ConditionEncoder`: ln E, and angles and other continuous conditions as they are, each standardised with the training
showers' mean and standard deviation (a constant condition becomes 0); alignments one-hot, with as many values as the detector's
beam has. For the impact point, optionally, sin and cos(2 pi 2^k x / s) of its offset x on top, s the beam's spread.

:class:`BeamSymmetry`: mirror x, mirror y, swap x and y about the point where the beam enters. On a grid a mirror maps cell i
to 2c - i, with c the beam's position in cells; it counts as a symmetry if the beam lies on the centre or border of a cell and
at most one row of cells has no partner inside the grid. That row stays where it is (a beam on cell 15 of 30 leaves cell 0), which neglects the little energy at the edge. In a detector of separate layers each layer is
mirrored, and with it the alignments of the layers (k of K becomes K - 1 - k) and the impact point. Beams are inclined in the
y-z plane: the mirror in y maps theta to 180 - theta, which is used only where theta is a condition.

On a regular mesh of n angles around the beam it is rotations by 1, 2, 4, ... steps of 2 pi / n, and the mirror alpha -> -alpha. With each of them
applied or not, all 2 n images of a shower are reached; if n is a power of two, all are equally frequent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.stage import Batch

__all__ = ["BeamSymmetry", "ConditionEncoder"]


class ConditionEncoder(nn.Module):
    """Encode a condition matrix, ``columns`` of :class:`~caloforge.models.base.ShowerModel`, as (B, width) numbers."""

    mean: Tensor
    scale: Tensor

    def __init__(self, detector: Detector, columns: dict[str, slice], harmonics: int = 0) -> None:
        super().__init__()
        beam = detector.beam
        levels = dict(beam.alignments)
        self.continuous: list[int] = []
        self.logarithmic: list[int] = []
        self.discrete: list[tuple[int, int]] = []
        for name, where in columns.items():
            if name in levels:
                self.discrete.append((where.start, levels[name]))
                continue
            self.continuous.extend(range(where.start, where.stop))
            if name == "incident_energy":
                self.logarithmic.append(where.start)
        self.periodic: list[tuple[int, float]] = []
        if beam.impact in columns and harmonics > 0:
            x = columns[beam.impact].start
            self.periodic = [(x + axis, s) for axis, s in enumerate((beam.spread_x, beam.spread_y)) if s > 0]
        self.harmonics = harmonics
        one_hot = sum(count for _, count in self.discrete)
        self.width = len(self.continuous) + 2 * harmonics * len(self.periodic) + one_hot
        self.register_buffer("mean", torch.zeros(len(self.continuous)))
        self.register_buffer("scale", torch.ones(len(self.continuous)))

    def fit(self, conditions: Tensor) -> None:
        """Set mean and scale from a condition matrix (N, C)."""
        values = self._values(conditions.double())
        self.mean.copy_(values.mean(0))
        spread = values.std(0, unbiased=False)
        self.scale.copy_(torch.where(spread > 1e-6 * values.abs().mean(0).clamp_min(1e-6), spread, 1.0))

    def forward(self, conditions: Tensor) -> Tensor:
        """Return (B, width) for a condition matrix (B, C)."""
        parts = [self.standardised(conditions)]
        for column, spread in self.periodic:
            powers = 2.0 ** torch.arange(self.harmonics, device=conditions.device)
            angle = conditions[:, column : column + 1] * powers * (2.0 * math.pi / spread)
            parts += [torch.sin(angle), torch.cos(angle)]
        for column, count in self.discrete:
            levels = torch.arange(count, device=conditions.device, dtype=conditions.dtype)
            parts.append((conditions[:, column : column + 1] == levels).to(conditions.dtype))
        return torch.cat(parts, dim=1)

    def standardised(self, conditions: Tensor) -> Tensor:
        """Return the continuous conditions alone (B, len(continuous)), in the order of the columns."""
        return (self._values(conditions) - self.mean) / self.scale

    def _values(self, conditions: Tensor) -> Tensor:
        """Return the continuous conditions (B, k), energies as logarithms."""
        columns = [
            torch.log(conditions[:, c]) if c in self.logarithmic else conditions[:, c]
            for c in self.continuous
        ]
        return torch.stack(columns, dim=1) if columns else conditions[:, :0]


_ON_CENTRE = 1e-3  # tolerance of the beam's position, in cells, and of a right angle, in degrees
_OPERATIONS = 3
_ORDER = (2, 0, 1)  # in which the operations of a grid are applied
_MOST_UNPAIRED = 1  # rows of a grid that may have no mirror image


class BeamSymmetry(nn.Module):
    """Mirror, swap and turn each shower as its flags say, with its conditions.

    ``possible`` says which operations leave detector and beam as they are: mirror x, mirror y and swap; on a regular mesh the
    rotations by 1, 2, 4, ... angular bins, then the mirror.
    """

    allowed: (
        Tensor  # (operations,) 1 or 0, those that hold for the training showers, too; none before ``allow``
    )
    orders: Tensor
    factors: Tensor
    offsets: Tensor

    def __init__(self, detector: Detector, columns: Mapping[str, slice]) -> None:
        super().__init__()
        beam = detector.beam
        orders = np.tile(np.arange(detector.n_cells), (_OPERATIONS, 1))
        self.possible: list[bool] = [False] * _OPERATIONS
        self.order: tuple[int, ...] = _ORDER
        self.is_mesh = detector.is_mesh and detector.shape[1] > 1
        if detector.is_flat and detector.is_grid:
            for axis, position in enumerate((beam.x, beam.y)):
                orders[axis], self.possible[axis] = _grid_mirror(detector, axis, position)
            orders[2], self.possible[2] = _grid_swap(detector)
        elif detector.is_flat and detector.readout is not None:
            for axis, position in enumerate((beam.x, beam.y)):
                orders[axis], self.possible[axis] = _layer_mirror(detector, axis, position)
        elif self.is_mesh:
            orders = _turns_and_mirror(detector.shape)
            self.possible, self.order = [True] * len(orders), tuple(range(len(orders)))
        n = len(orders)
        width = max((part.stop for part in columns.values()), default=0)
        factors, offsets = np.ones((n, width)), np.zeros((n, width))
        for axis, name in enumerate(_alignments(detector)):
            if name in columns:
                factors[axis, columns[name]] = -1.0
                offsets[axis, columns[name]] = dict(beam.alignments)[name] - 1
            if beam.impact in columns:
                factors[axis, columns[beam.impact].start + axis] = -1.0
        self.angled = "incident_theta" in columns
        if self.angled:
            factors[1, columns["incident_theta"]] = -1.0
            offsets[1, columns["incident_theta"]] = 180.0
        self.register_buffer("orders", torch.from_numpy(orders), persistent=False)
        self.register_buffer("factors", torch.from_numpy(factors).float(), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(offsets).float(), persistent=False)
        self.register_buffer("allowed", torch.zeros(n))

    def allow(self, theta: NDArray[np.float64]) -> None:
        """Allow the symmetries of showers of the polar angles (N,), degrees."""
        upright = bool((abs(theta - 90.0) < _ON_CENTRE).all())
        if self.is_mesh:
            self.allowed.fill_(float(upright))
            return
        x, y, swap = self.possible
        allowed = [x, y and (upright or self.angled), swap and upright]
        self.allowed.copy_(torch.tensor(allowed, dtype=torch.float32))

    def flags(self, numbers: Tensor) -> Tensor:
        """Return flags (B, operations), bool, of numbers of that shape: set where positive and allowed."""
        return (numbers > 0) & (self.allowed > 0.5)

    def cells(self, cells: Tensor, flags: Tensor) -> Tensor:
        """Return cells (B, n_cells) transformed as the flags (B, operations) say, first swapped or turned, then mirrored."""
        for operation in self.order:
            if self.possible[operation]:
                moved = cells.index_select(1, self.orders[operation])
                cells = torch.where(flags[:, operation, None], moved, cells)
        return cells

    def conditions(self, conditions: Tensor, flags: Tensor) -> Tensor:
        """Return conditions (B, C) transformed as the flags (B, operations) say."""
        for operation in self.order:
            if self.possible[operation]:
                moved = conditions * self.factors[operation] + self.offsets[operation]
                conditions = torch.where(flags[:, operation, None], moved, conditions)
        return conditions

    def forward(self, cells: Tensor, conditions: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return cells (B, n_cells) and conditions (B, C), transformed as the signs of the numbers (B, operations) say."""
        flags = self.flags(numbers)
        return self.cells(cells, flags), self.conditions(conditions, flags)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with a random allowed symmetry applied to each shower."""
        size = len(batch), len(self.possible)
        numbers = torch.rand(size, generator=generator, device=batch.cells.device) - 0.5
        cells, conditions = self(batch.cells, batch.conditions, numbers)
        return Batch(cells, conditions, batch.indices)


def _turns_and_mirror(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the cells' orders (operations, n_cells) of a mesh (layers, alpha, r): turned by 1, 2, 4, ... bins; mirrored."""
    cells = np.arange(int(np.prod(shape))).reshape(shape)
    steps = [1 << k for k in range((shape[1] - 1).bit_length())]
    turned = [np.roll(cells, step, axis=1) for step in steps]
    return np.stack([*turned, np.flip(cells, axis=1)]).reshape(len(steps) + 1, -1)


def _grid_mirror(detector: Detector, axis: int, position: float) -> tuple[NDArray[np.int64], bool]:
    """Return the cells' order after a mirror at a position, and whether that is a symmetry of the grid."""
    image, possible = _mirrored(np.unique(np.round(detector.cell_centres[:, axis], 6)), position)
    cells = np.arange(detector.n_cells).reshape(detector.shape)
    return np.take(cells, image, axis=axis).ravel(), possible


def _mirrored(centres: NDArray[np.float64], position: float) -> tuple[NDArray[np.int64], bool]:
    """Return the image (n,) of each row with these centres after a mirror at a position, and whether that is a symmetry."""
    n = len(centres)
    pitch = centres[1] - centres[0] if n > 1 else 1.0
    twice = 2.0 * (position - centres[0]) / pitch
    image = round(twice) - np.arange(n)
    unpaired = (image < 0) | (image >= n)
    possible = abs(twice - round(twice)) < _ON_CENTRE and unpaired.sum() <= _MOST_UNPAIRED
    return np.where(unpaired, np.arange(n), image), bool(possible)


def _grid_swap(detector: Detector) -> tuple[NDArray[np.int64], bool]:
    """Return the cells' order with x and y exchanged, and whether that leaves beam and grid as they are."""
    cells, beam = np.arange(detector.n_cells), detector.beam
    reach = detector.cell_centres[:, :2].max(0)
    square = detector.shape[0] == detector.shape[1] and abs(reach[0] - reach[1]) < _ON_CENTRE
    if not square or abs(beam.x - beam.y) > _ON_CENTRE:
        return cells, False
    return cells.reshape(detector.shape).swapaxes(0, 1).ravel(), True


def _layer_mirror(detector: Detector, axis: int, position: float) -> tuple[NDArray[np.int64], bool]:
    """Return the cells' order with each layer mirrored at a position, and whether that is a symmetry of all layers."""
    parts, possible = [], True
    for layer, cells in zip(detector.layers, detector.layer_cells, strict=True):
        assert isinstance(layer, ReadoutLayer)
        image, fits = _mirrored((layer.x, layer.y)[axis], position)
        parts.append(np.take(cells.reshape(layer.nx, layer.ny), image, axis=axis).ravel())
        possible &= fits
    return np.concatenate(parts), possible


def _alignments(detector: Detector) -> tuple[str, str]:
    """Return the conditions that say how layers are aligned in x and in y; empty where there are none."""
    found = ["", ""]
    readout = detector.readout
    for layer in readout.layers if readout is not None else ():
        for axis, alignment in enumerate((layer.align_x, layer.align_y)):
            found[axis] = alignment.condition if alignment is not None else found[axis]
    return found[0], found[1]
