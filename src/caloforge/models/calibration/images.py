r"""Calibration of images: cells' means and widths, then visible energy, peak and centre of gravity with their correlations.

Few constants, which hardly repeat the training images' fluctuations: two for each cell, then smooth tables and twelve numbers for the
dependences of four numbers of an image (:class:`ImageNumbers`). Where x and y are exchangeable (:class:`Exchange`) both have the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.calibration.base import Calibration, Sample, Step
from caloforge.models.calibration.chains import NormalChain
from caloforge.models.calibration.moments import EnergyMoments
from caloforge.models.calibration.spectrum import SpectrumMap
from caloforge.models.nn.conditions import BeamSymmetry

__all__ = ["CellWidths", "Exchange", "ImageCalibration", "ImageNumbers", "NumberMaps"]

_TINY = 1e-20
_EDGE = 0.01  # least part of an image that peak and rest each keep
_FLAT = 1e-6  # smallest determinant of V, over the product of its diagonal, of a rest that can be tilted


class ImageNumbers(nn.Module):
    r"""Four numbers of an image, and the image changed so that it has others.

    Of cells e_i at (x_i, y_i) from a shower of energy E, with the largest cell m:

    1. the response :math:`\sum_i e_i / (f E)`, f the detector's sampling fraction,
    2. the peak's share :math:`e_m / \sum_i e_i`,
    3. the centre of gravity :math:`\sum_i x_i e_i / \sum_i e_i`, and the same in y, in units of a cell's width.

    The change scales the whole image, then peak and rest against each other, and tilts the rest: with rest energies
    :math:`w_i` of unit sum, centre :math:`\bar x, \bar y` and second moments V,

    .. math:: w_i \to w_i \, (1 + \alpha (x_i - \bar x) + \beta (y_i - \bar y)), \qquad
              (\alpha, \beta) = V^{-1} (\Delta x, \Delta y),

    which keeps the sum and moves the centre by just :math:`(\Delta x, \Delta y)`. Empty cells stay empty. All four are met
    exactly, except where a tilt would make cells negative: these are emptied, and the centre falls a little short.
    """

    size = 4  # numbers an image
    x: Tensor
    y: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layer = detector.layers[0]
        assert isinstance(layer, ReadoutLayer)
        self.sampling_fraction = detector.sampling_fraction
        centres = torch.as_tensor(detector.cell_centres, dtype=torch.float32)
        self.register_buffer("x", centres[:, 0] / layer.pitch_x, persistent=False)
        self.register_buffer("y", centres[:, 1] / layer.pitch_y, persistent=False)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the numbers (B, 4) of cells (B, n_cells) and incident energies (B,), MeV."""
        total = cells.sum(1)
        parts = cells / total.clamp_min(_TINY)[:, None]
        response = total / (energy * self.sampling_fraction)
        return torch.stack([response, parts.amax(1), parts @ self.x, parts @ self.y], 1)

    def change(self, cells: Tensor, energy: Tensor, numbers: Tensor) -> Tensor:
        """Return the cells (B, n_cells), MeV, changed so that they have these numbers (B, 4).

        An image without cells, or with one cell only, has no such freedom: its total alone changes.
        """
        rest, left, peak = _parts(cells)
        response, share, x, y = numbers.unbind(1)
        share = torch.where(left > 0, share.clamp(_EDGE, 1.0 - _EDGE), torch.ones_like(share))
        others = (1.0 - share).clamp_min(_EDGE)
        wanted = ((x - share * (peak @ self.x)) / others, (y - share * (peak @ self.y)) / others)
        image = share[:, None] * peak + (1.0 - share)[:, None] * self._tilted(rest, *wanted)
        visible = response.clamp_min(0.0) * (energy * self.sampling_fraction)
        return image * torch.where(cells.sum(1) > 0, visible, 0.0)[:, None]

    def _tilted(self, rest: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return energies (B, n_cells) of unit sum with their centres moved to x and y (B,)."""
        middle_x, middle_y = rest @ self.x, rest @ self.y
        far_x, far_y = self.x - middle_x[:, None], self.y - middle_y[:, None]
        xx, xy, yy = ((rest * a * b).sum(1) for a, b in ((far_x, far_x), (far_x, far_y), (far_y, far_y)))
        determinant = xx * yy - xy.square()
        flat = determinant <= _FLAT * xx * yy
        inverse = torch.where(flat, 0.0, 1.0 / torch.where(flat, 1.0, determinant))
        along, across = x - middle_x, y - middle_y
        alpha = (yy * along - xy * across) * inverse
        beta = (xx * across - xy * along) * inverse
        tilted = rest * (1.0 + alpha[:, None] * far_x + beta[:, None] * far_y).clamp_min(0.0)
        return tilted / tilted.sum(1, keepdim=True).clamp_min(_TINY)


def _parts(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts (B, n_cells) and the sum (B,) of all cells but the largest, and where that one is (B, n_cells)."""
    peak = functional.one_hot(cells.argmax(1), cells.shape[1]).to(cells)
    rest = cells * (1.0 - peak)
    total = rest.sum(1)
    return rest / total.clamp_min(_TINY)[:, None], total, peak


_DIFFERENT = 4.0  # standard deviations by which x and y differ where they are not exchangeable


class Exchange(nn.Module):
    """The exchange of x and y, where it leaves the detector and the distribution of its training images as they are.

    It does for a beam at right angles on the diagonal of a square grid. Training images then count in both orders, and what is fitted
    to them has half the parameters. Whether it holds is tested: means and widths of the centres along x and y agree
    within four standard deviations of their difference.
    """

    order: Tensor  # (n_cells,) the cells with x and y exchanged

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        symmetry = BeamSymmetry(detector, {})
        self.possible = symmetry.possible[2]
        self.numbers = ImageNumbers(detector)
        self.register_buffer("order", symmetry.orders[2], persistent=False)

    def orders(self, images: Sample) -> list[Tensor]:
        """Return the cells (N, n_cells) of images, and with x and y exchanged where they are exchangeable."""
        cells = images.cells
        return [cells, cells[:, self.order]] if self.possible and self._holds(images) else [cells]

    def _holds(self, images: Sample) -> bool:
        centres = self.numbers(images.cells, images.energy)[:, 2:].double()
        squares = (centres - centres.mean(0)).square()
        for pair in (centres, squares):
            difference = pair[:, 0] - pair[:, 1]
            error = difference.std() / len(difference) ** 0.5
            if not bool(difference.mean().abs() <= _DIFFERENT * error):
                return False
        return True


_KNEE = 0.25  # part, over the mean one, below which a cell is changed by a factor
_LOWEST_GAIN = 0.05
_LEAST_PART = 1e-6  # smallest width of a part
_MOST = 4.0  # largest change of a width


class CellWidths(Step):
    r"""Give each cell's part of an image beside the peak its mean and width in the training images.

    With :math:`w_i = e_i / \sum_j e_j` over all cells but the largest, which keeps its energy, and mean m and standard
    deviation s of w_i in generated and in training images at that incident energy,

    .. math:: w_i \to m^{ref}_i + \frac{s^{ref}_i}{s^{gen}_i} (w_i - m^{gen}_i)

    for :math:`w_i \ge m^{gen}_i / 4`, by a factor below, so that faint cells stay faint and in their order, and scaled to unit sum
    again. The shape of a cell's distribution stays the model's, and the image's sum
    and peak are untouched.
    """

    def __init__(self, n_cells: int, exchange: Exchange | None = None) -> None:
        super().__init__()
        self.exchange = exchange
        self.generated = EnergyMoments(n_cells, floor=_LEAST_PART)
        self.reference = EnergyMoments(n_cells, floor=_LEAST_PART)

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set means and widths."""
        orders = [reference.cells] if self.exchange is None else self.exchange.orders(reference)
        self.reference.fit(_parts(torch.cat(orders))[0], reference.energy.repeat(len(orders)))
        self.generated.fit(_parts(generated.cells)[0], generated.energy)

    def forward(self, showers: Sample) -> Sample:
        """Return images with changed cells."""
        parts, total, peak = _parts(showers.cells)
        (mean, width), (wanted, wide) = self.generated(showers.energy), self.reference(showers.energy)
        knee, slope = _KNEE * mean, (wide / width).clamp(1.0 / _MOST, _MOST)
        line = wanted + (torch.maximum(parts, knee) - mean) * slope
        gain = torch.minimum(parts / knee.clamp_min(_TINY), torch.ones_like(parts))
        mapped = gain * torch.maximum(line, _LOWEST_GAIN * torch.maximum(parts, knee))
        sums = mapped.sum(1, keepdim=True)
        mapped = torch.where(sums > 0, mapped / sums.clamp_min(_TINY), parts)
        return showers._replace(cells=mapped * total[:, None] + showers.cells * peak)


_LEAST = 1e-3  # smallest width of a number: below it there is rounding
_FACTOR = 2.0  # most by which the energy of an image changes: no map is known at the far end of a tail


class NumberMaps(Step):
    r"""Give the four numbers of an image the distributions and dependences that they have in the training images.

    The numbers are standardised with mean and width at the incident energy, and mapped by the chain
    (:class:`~caloforge.models.calibration.chains.NormalChain`) of the generated images and the inverse of the chain of the training
    images. Each image is changed to have its new numbers; all else in it stays the model's.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange, self.numbers = exchange, exchange.numbers
        size = self.numbers.size
        self.generated, self.reference = EnergyMoments(size, floor=_LEAST), EnergyMoments(size, floor=_LEAST)
        self.made, self.true = NormalChain(size, few=False), NormalChain(size, few=True)

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set all constants."""
        orders = self.exchange.orders(reference)
        energy = reference.energy.repeat(len(orders))
        self.reference.fit(self.numbers(torch.cat(orders), energy), energy)
        numbers = self.numbers(generated.cells, generated.energy)
        self.generated.fit(numbers, generated.energy)
        own = self.numbers(reference.cells, reference.energy)
        self.true.fit(self._standardised(self.reference, own, reference.energy), len(orders) > 1)
        self.made.fit(self._standardised(self.generated, numbers, generated.energy))

    def forward(self, showers: Sample) -> Sample:
        """Return images with changed numbers."""
        own = self.numbers(showers.cells, showers.energy)
        t = self.true.inverse(self.made(self._standardised(self.generated, own, showers.energy)))
        mean, width = self.reference(showers.energy)
        response, *others = (mean + width * t).unbind(1)
        response = torch.minimum(torch.maximum(response, own[:, 0] / _FACTOR), own[:, 0] * _FACTOR)
        cells = self.numbers.change(showers.cells, showers.energy, torch.stack([response, *others], 1))
        return showers._replace(cells=cells)

    @staticmethod
    def _standardised(moments: EnergyMoments, numbers: Tensor, energy: Tensor) -> Tensor:
        """Return standardised numbers (B, 4); 0 where a number has no width but that of rounding."""
        mean, width = moments(energy)
        return torch.where(width > _LEAST, (numbers - mean) / width, torch.zeros_like(numbers))


_FADE = (10.0, 20.0)
"""MeV; brighter cells belong to the four numbers, which have few constants."""


class ImageCalibration(Calibration):
    """Cells, then numbers, then the spectrum of faint cells, of images that are not empty."""

    copies = 25
    fewest = 20_000

    def __init__(self, detector: Detector) -> None:
        exchange = Exchange(detector)
        last = SpectrumMap(detector, bright=_FADE, fade=_FADE)
        super().__init__(CellWidths(detector.n_cells, exchange), NumberMaps(exchange), last=last)

    @torch.no_grad()
    def fit(self, reference: Sample, generated: Sample) -> None:
        """Set all constants, see ``Calibration``; empty images are not looked at, unless all are."""
        samples = []
        for sample in (reference, generated):
            full = sample.cells.sum(1) > 0
            samples.append(Sample(*(x[full] for x in sample)) if bool(full.any()) else sample)
        super().fit(*samples)
