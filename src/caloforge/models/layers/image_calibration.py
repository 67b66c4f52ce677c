r"""Images of a trained model given the widths, shapes and correlations of a few numbers that the training images have.

After training many images are generated and compared with the training images. First each cell's part of the energy
beside the peak gets its mean and width (:class:`~caloforge.models.layers.cell_widths.CellWidths`). Then response, peak
share and centres of gravity (:class:`~caloforge.models.layers.image_numbers.ImageNumbers`) are standardised with mean
and width at the incident energy, z_k for the generated and t_k for the training images, and carried one after the other,
each given those before it:

.. math:: r_k = \frac{z_k - \mu_k(z_1, \dots, z_{k-1})}{\sigma_k(z_1, \dots, z_{k-1})}, \qquad
          t_k = \sum_{j<k} s_{kj} t_j + f_k(r_k)

with :math:`\mu_k, \ln \sigma_k` the generator's own trends, cubics that many images tell well
(:class:`~caloforge.models.layers.condition_trend.ConditionTrend`), and :math:`s_{kj}` and the four numbers of
:math:`f_k` (:class:`~caloforge.models.layers.sinh_arcsinh.SinhArcsinh`) from the training images: 22 numbers, and two a
cell, which repeat none of their fluctuations. Tables of quantiles would, and so cost the model what it says beyond
them. Each image is changed to have its new numbers; all else in it stays the model's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.layers.cell_widths import CellWidths
from caloforge.models.layers.condition_trend import ConditionTrend
from caloforge.models.layers.energy_scale import EnergyScale
from caloforge.models.layers.image_numbers import ImageNumbers
from caloforge.models.layers.sinh_arcsinh import SinhArcsinh
from caloforge.models.stage import TrainingData
from caloforge.random import normals

__all__ = ["ImageCalibration"]

_MADE = 20_000
"""Images that are generated."""
_EACH = 25
"""Most of them for each training image."""
_CHUNK = 1024
_LEAST = 1e-3
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
        self.made, self.truth = EnergyScale(size, floor=_LEAST), EnergyScale(size, floor=_LEAST)
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
    return torch.where(width > _LEAST, (numbers - mean) / width, torch.zeros_like(numbers))


def _filled(cells: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images that are not empty, or all if there are none."""
    full = cells.sum(1) > 0
    return (cells[full], energy[full]) if bool(full.any()) else (cells, energy)
