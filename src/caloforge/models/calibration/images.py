r"""Post-training calibration of images.

Four numbers of an image, and the image changed so that it has others.

Of cells e_i at (x_i, y_i) from a shower of energy E, with the largest cell m:

1. the response :math:`\sum_i e_i / (f E)`, f the detector's sampling fraction,
2. the peak's share :math:`e_m / \sum_i e_i`,
3. the centre of gravity :math:`\sum_i x_i e_i / \sum_i e_i`, and the same in y, in cells' widths.

The way back scales the whole image, then peak and rest against each other, and tilts the rest: with rest energies
:math:`w_i` of unit sum, centre :math:`\bar x, \bar y` and second moments V,

.. math:: w_i \to w_i \, (1 + \alpha (x_i - \bar x) + \beta (y_i - \bar y)), \qquad
          (\alpha, \beta) = V^{-1} (\Delta x, \Delta y),

which keeps the sum and moves the centre by just :math:`(\Delta x, \Delta y)`. Empty cells stay empty. All four are met
exactly, except where a tilt would make cells negative: these are emptied, and the centre falls a little short.

Each cell's part of an image beside the peak given the mean and width that it has in the training images.

With :math:`w_i = e_i / \sum_j e_j` over all cells but the largest, which keeps its energy, and mean m and standard
deviation s of w_i in generated and in training images at that incident energy,

.. math:: w_i \to \max\left(0, \; m^{true}_i + \frac{s^{true}_i}{s^{made}_i} (w_i - m^{made}_i)\right)

where :math:`w_i > 0`, and scaled to unit sum again. Two numbers a cell, straight lines: the shape of a cell's distribution
stays the model's, and the image's sum and peak are untouched.

Images of a trained model given the widths, shapes and correlations of a few numbers that the training images have.

After training many images are generated and compared with the training images. First each cell's part of the energy
beside the peak gets its mean and width (:class:`~caloforge.models.calibration.images.CellWidths`). Then response, peak
share and centres of gravity (:class:`~caloforge.models.calibration.images.ImageNumbers`) are standardised with mean
and width at the incident energy, z_k for the generated and t_k for the training images, and carried one after the other,
each given those before it:

.. math:: r_k = \frac{z_k - \mu_k(z_1, \dots, z_{k-1})}{\sigma_k(z_1, \dots, z_{k-1})}, \qquad
          t_k = \sum_{j<k} s_{kj} t_j + f_k(r_k)

with :math:`\mu_k, \ln \sigma_k` the generator's own trends, cubics that many images tell well
(:class:`~caloforge.models.calibration.conditional_moments.ConditionTrend`), and :math:`s_{kj}` and the four numbers of
:math:`f_k` (:class:`~caloforge.models.calibration.energy_maps.SinhArcsinh`) from the training images: 22 numbers, and two a
cell, which repeat none of their fluctuations. Tables of quantiles would, and so cost the model what it says beyond
them. Each image is changed to have its new numbers; all else in it stays the model's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.calibration.conditional_moments import ConditionTrend, EnergyScale
from caloforge.models.calibration.energy_maps import SinhArcsinh
from caloforge.models.stage import TrainingData
from caloforge.random import normals

__all__ = ["CellWidths", "ImageCalibration", "ImageNumbers"]


_TINY = 1e-20
_EDGE = 0.01
"""Least part of an image that peak and rest each keep."""
_FLAT = 1e-6
"""Smallest determinant of V, over the product of its diagonal, of a rest that can be tilted."""


class ImageNumbers(nn.Module):
    """Response, peak share and centres of gravity, and back.

    Arguments:
        detector: A detector of images.

    Attributes:
        size: Numbers an image: 4.
    """

    size = 4
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
        return torch.stack([total / self._expected(energy), parts.amax(1), parts @ self.x, parts @ self.y], 1)

    def change(self, cells: Tensor, energy: Tensor, numbers: Tensor) -> Tensor:
        """Return the cells (B, n_cells), MeV, changed so that they have these numbers (B, 4).

        An image without cells, or with one cell only, has no such freedom: its total alone changes.
        """
        peak = functional.one_hot(cells.argmax(1), cells.shape[1]).to(cells)
        rest = cells * (1.0 - peak)
        left = rest.sum(1)
        response, share, x, y = numbers.unbind(1)
        share = torch.where(left > 0, share.clamp(_EDGE, 1.0 - _EDGE), torch.ones_like(share))
        others = (1.0 - share).clamp_min(_EDGE)
        wanted = ((x - share * (peak @ self.x)) / others, (y - share * (peak @ self.y)) / others)
        rest = self._tilted(rest / left.clamp_min(_TINY)[:, None], *wanted)
        image = share[:, None] * peak + (1.0 - share)[:, None] * rest
        total = torch.where(cells.sum(1) > 0, response.clamp_min(0.0) * self._expected(energy), 0.0)
        return image * total[:, None]

    def _expected(self, energy: Tensor) -> Tensor:
        """Return the visible energy (B,) that a calorimeter without fluctuations has, MeV."""
        return energy * self.sampling_fraction

    def _tilted(self, rest: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return energies (B, n_cells) of unit sum with their centres moved to x and y (B,)."""
        middle_x, middle_y = rest @ self.x, rest @ self.y
        far_x, far_y = self.x - middle_x[:, None], self.y - middle_y[:, None]
        xx, xy, yy = ((rest * a * b).sum(1) for a, b in ((far_x, far_x), (far_x, far_y), (far_y, far_y)))
        determinant = xx * yy - xy.square()
        flat = determinant <= _FLAT * xx * yy
        inverse = torch.where(
            flat, torch.zeros_like(xx), 1.0 / torch.where(flat, torch.ones_like(xx), determinant)
        )
        along, across = x - middle_x, y - middle_y
        alpha = (yy * along - xy * across) * inverse
        beta = (xx * across - xy * along) * inverse
        tilted = rest * (1.0 + alpha[:, None] * far_x + beta[:, None] * far_y).clamp_min(0.0)
        return tilted / tilted.sum(1, keepdim=True).clamp_min(_TINY)


_LEAST = 1e-6
"""Smallest width of a part."""
_MOST = 4.0
"""Largest change of a width."""


class CellWidths(nn.Module):
    """Straight lines for the cells of images; before the fit they leave images as they are.

    Arguments:
        n_cells: Cells of an image.
    """

    def __init__(self, n_cells: int) -> None:
        super().__init__()
        self.made, self.truth = EnergyScale(n_cells, floor=_LEAST), EnergyScale(n_cells, floor=_LEAST)

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Set means and widths.

        Arguments:
            true: Cells (N, n_cells) and incident energies (N,) of training images, MeV.
            made: The same of generated ones (M, ...), at the same energies.
        """
        for scale, (cells, energy) in ((self.truth, true), (self.made, made)):
            scale.fit(_parts(cells)[0], energy)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return carried cells (B, n_cells), MeV, of generated ones at incident energies (B,)."""
        parts, total, peak = _parts(cells)
        (mean, width), (wanted, wide) = self.made(energy), self.truth(energy)
        line = wanted + (parts - mean) * (wide / width).clamp(1.0 / _MOST, _MOST)
        carried = torch.where(parts > 0, line.clamp_min(0.0), torch.zeros_like(parts))
        sums = carried.sum(1, keepdim=True)
        carried = torch.where(sums > 0, carried / sums.clamp_min(_TINY), parts)
        return carried * total[:, None] + cells * peak


def _parts(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts (B, n_cells), the sum (B,) of all cells but the largest, and where that one is."""
    peak = functional.one_hot(cells.argmax(1), cells.shape[1]).to(cells)
    rest = cells * (1.0 - peak)
    total = rest.sum(1)
    return rest / total.clamp_min(_TINY)[:, None], total, peak


_MADE = 20_000
"""Images that are generated."""
_EACH = 25
"""Most of them for each training image."""
_CHUNK = 1024
_LEAST_image_calibration = 1e-3
"""Smallest width of a number: below it there is rounding."""
_FACTOR = 2.0
"""Most by which the energy of an image changes: no map is known at the far end of a tail."""
_REACH = 2.5
"""Standard deviations beyond which the generator's trends are constant."""


class ImageCalibration(nn.Module):
    """Carry generated images to the training images' numbers; of no use before the fit.

    Arguments:
        detector: A detector of images.
    """

    slopes: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.cells = CellWidths(detector.n_cells)
        self.numbers = ImageNumbers(detector)
        size = self.numbers.size
        self.made, self.truth = (
            EnergyScale(size, floor=_LEAST_image_calibration),
            EnergyScale(size, floor=_LEAST_image_calibration),
        )
        self.trends = nn.ModuleList(ConditionTrend(before, before, 1) for before in range(1, size))
        self.maps = SinhArcsinh(size)
        self.register_buffer("slopes", torch.zeros(size, size))

    @property
    def fitted(self) -> bool:
        """Whether it follows from showers."""
        return self.maps.fitted

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Set all constants.

        Arguments:
            true: Cells (N, n_cells) and incident energies (N,) of training images, MeV.
            made: The same of generated ones (M, ...), at the same energies.
        """
        true, made = _filled(*true), _filled(*made)
        self.cells.fit(true, made)
        wanted = self._fitted(self.truth, *true)
        found = self._fitted(self.made, self.cells(*made), made[1])
        shapes = [wanted[:, 0]]
        for k, trend in enumerate(self.trends, 1):
            trend.fit(found[:, :k].clamp(-_REACH, _REACH), found[:, k : k + 1])  # type: ignore[operator]
            known = wanted[:, : k + 1].double().cpu()
            slopes = torch.linalg.lstsq(known[:, :k], known[:, k:], driver="gelsd").solution[:, 0]
            self.slopes[k, :k] = slopes.to(self.slopes)
            shapes.append((known[:, k] - known[:, :k] @ slopes).to(wanted))
        self.maps.fit(self._freed(found), torch.stack(shapes, 1))

    @torch.no_grad()
    def fit_to(self, data: TrainingData, make: Callable[[Tensor, Tensor], Tensor], noise: int) -> None:
        """Generate images under the conditions of the training images in turn, and set all constants.

        Arguments:
            data: Training images, their incident energy the only condition.
            make: The generator: noise (B, noise) and conditions (B, 1) to cells (B, n_cells), MeV.
            noise: Normal numbers an image.
        """
        batches = list(data.batches(_CHUNK))
        cells, conditions = (torch.cat([getattr(b, k) for b in batches]) for k in ("cells", "conditions"))
        count = min(_MADE, _EACH * len(cells))
        many = conditions[torch.arange(count, device=conditions.device) % len(conditions)]
        made = []
        for first in range(0, count, _CHUNK):
            rows = many[first : first + _CHUNK]
            numbers = normals(0, "calibration", first, len(rows), noise).astype(np.float32)
            made.append(make(torch.from_numpy(numbers).to(rows.device), rows))
        self.fit((cells, conditions[:, 0]), (torch.cat(made), many[:, 0]))

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return carried cells (B, n_cells), MeV, of generated ones at incident energies (B,)."""
        cells = self.cells(cells, energy)
        own = self.numbers(cells, energy)
        freed = self._freed(_standardised(self.made, own, energy))
        carried: list[Tensor] = []
        for k in range(self.numbers.size):
            number: Tensor = self.maps(freed[:, k], k)
            carried.append(number + sum(self.slopes[k, j] * carried[j] for j in range(k)))
        mean, width = self.truth(energy)
        response, *others = (mean + width * torch.stack(carried, 1)).unbind(1)
        response = torch.minimum(torch.maximum(response, own[:, 0] / _FACTOR), own[:, 0] * _FACTOR)
        return self.numbers.change(cells, energy, torch.stack([response, *others], 1))

    def _freed(self, numbers: Tensor) -> Tensor:
        """Return generated standardised numbers (B, 4) without their trends in those before them."""
        rest = [trend(numbers[:, k : k + 1], numbers[:, :k]) for k, trend in enumerate(self.trends, 1)]
        return torch.cat([numbers[:, :1], *rest], 1)

    def _fitted(self, scale: EnergyScale, cells: Tensor, energy: Tensor) -> Tensor:
        """Fit means and widths to cells (N, n_cells) and return the standardised numbers (N, 4)."""
        numbers = self.numbers(cells, energy)
        scale.fit(numbers, energy)
        return _standardised(scale, numbers, energy)


def _standardised(scale: EnergyScale, numbers: Tensor, energy: Tensor) -> Tensor:
    """Return standardised numbers (B, 4); 0 where a number has no width but that of rounding."""
    mean, width = scale(energy)
    return torch.where(width > _LEAST_image_calibration, (numbers - mean) / width, torch.zeros_like(numbers))


def _filled(cells: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images that are not empty, or all if there are none."""
    full = cells.sum(1) > 0
    return (cells[full], energy[full]) if bool(full.any()) else (cells, energy)
