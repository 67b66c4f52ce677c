r"""Calibration of images: cells' means and widths, then visible energy, peak and centre of gravity with their correlations.

Few constants, which repeat none of the training images' fluctuations: two for each cell, then four numbers of an image
(:class:`ImageNumbers`) with 22 in all.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.calibration.base import Calibration, Sample, Step
from caloforge.models.calibration.moments import ConditionalMoments, EnergyMoments, least_squares
from caloforge.models.calibration.spectrum import SpectrumMap

__all__ = ["CellWidths", "ImageCalibration", "ImageNumbers", "NumberMaps", "SinhArcsinh"]

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

    def __init__(self, n_cells: int) -> None:
        super().__init__()
        self.generated = EnergyMoments(n_cells, floor=_LEAST_PART)
        self.reference = EnergyMoments(n_cells, floor=_LEAST_PART)

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set means and widths."""
        self.reference.fit(_parts(reference.cells)[0], reference.energy)
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


_LEVELS = 40  # most quantiles that are compared
_EACH = 5  # fewest numbers for one of them
_LEAST_SLOPE = 1e-3
_RIDGE = 1e-6
_LOW = (-np.inf, 0.0, -2.0, 0.3)
_HIGH = (np.inf, np.inf, 2.0, 3.0)

Array = NDArray[np.float64]


class SinhArcsinh(nn.Module):
    r"""Rising maps of four numbers each, one for each column: shift, width, skewness and tails.

    .. math:: f(x) = a + b \sinh(\delta \, \mathrm{arsinh}\, x + \epsilon), \qquad b, \delta > 0

    So few numbers repeat none of the fluctuations of single showers. The fit compares quantiles at equally spaced probabilities p by
    least squares, with the covariance that quantiles of independent numbers have,

    .. math:: \mathrm{Cov}(q_i, q_j) \propto \frac{dq}{dp}\Big|_i \frac{dq}{dp}\Big|_j \, (\min(p_i, p_j) - p_i p_j),

    the slopes those of the generated numbers; then a and b are set so that mean and standard deviation are the reference's.

    References:
        M. C. Jones, A. Pewsey, Sinh-arcsinh distributions, Biometrika 96 (2009) 761.
    """

    terms: Tensor  # (columns, 4): a, b, epsilon, delta

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("terms", torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(columns, 1))

    @torch.no_grad()
    def fit(self, generated: Tensor, reference: Tensor) -> None:
        """Set the maps from generated numbers (M, columns), of about unit width, to reference ones (N, columns)."""
        columns = zip(generated.T.double().cpu().numpy(), reference.T.double().cpu().numpy(), strict=True)
        self.terms.copy_(torch.tensor(np.array([_fit_terms(*pair) for pair in columns])))

    def forward(self, values: Tensor) -> Tensor:
        """Return the mapped numbers (B, columns) of values (B, columns)."""
        shift, width, lean, tails = self.terms.unbind(1)
        mapped: Tensor = shift + width * torch.sinh(tails * torch.asinh(values) + lean)
        return mapped


def _fit_terms(generated: Array, reference: Array) -> Array:
    """Return the four numbers (4,) of the map from generated (M,) to reference numbers (N,)."""
    from scipy.optimize import least_squares

    count = int(np.clip(len(reference) // _EACH, 2 * _EACH, _LEVELS))
    levels = (np.arange(count) + 0.5) / count
    x, y = np.quantile(generated, levels), np.quantile(reference, levels)
    slope = np.maximum(np.gradient(x, levels), _LEAST_SLOPE)
    covariance = (np.minimum.outer(levels, levels) - np.outer(levels, levels)) * np.outer(slope, slope)
    white = np.linalg.inv(np.linalg.cholesky(covariance + _RIDGE * np.eye(count)))
    unit = max(float(reference.std()), _RIDGE)

    def mapped(terms: Array, x: Array) -> Array:
        shift, width, lean, tails = terms
        return np.asarray(shift + width * np.sinh(tails * np.arcsinh(x) + lean))

    def misfit(terms: Array) -> Array:
        return np.asarray(white @ (mapped(terms, x) - y) / unit)

    start = (float(reference.mean()), unit, 0.0, 1.0)
    terms = np.asarray(least_squares(misfit, start, bounds=(_LOW, _HIGH), x_scale="jac").x)
    found = mapped(terms, generated)
    factor = reference.std() / found.std() if found.std() > 0 else 1.0
    terms[:2] = reference.mean() + factor * (terms[0] - found.mean()), factor * terms[1]
    return terms


_LEAST = 1e-3  # smallest width of a number: below it there is rounding
_FACTOR = 2.0  # most by which the energy of an image changes: no map is known at the far end of a tail
_REACH = 2.5  # standard deviations beyond which the generator's trends are constant


class NumberMaps(Step):
    r"""Give the four numbers of an image the widths, shapes and correlations that they have in the training images.

    The numbers are standardised with mean and width at the incident energy, z_k for the generated and t_k for the training images, and
    mapped one after the other, each conditional on those before it:

    .. math:: r_k = \frac{z_k - \mu_k(z_1, \dots, z_{k-1})}{\sigma_k(z_1, \dots, z_{k-1})}, \qquad
              t_k = \sum_{j<k} s_{kj} t_j + f_k(r_k)

    with :math:`\mu_k, \ln \sigma_k` the generator's own trends, cubics that many images determine well, and :math:`s_{kj}` and the
    sinh-arcsinh maps :math:`f_k` from the training images. Each image is changed to have its new numbers; all else in it stays the
    model's.
    """

    slopes: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.numbers = ImageNumbers(detector)
        size = self.numbers.size
        self.generated, self.reference = EnergyMoments(size, floor=_LEAST), EnergyMoments(size, floor=_LEAST)
        self.trends = nn.ModuleList(ConditionalMoments(before, before, 1) for before in range(1, size))
        self.maps = SinhArcsinh(size)
        self.register_buffer("slopes", torch.zeros(size, size))

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        """Set all constants."""
        t, z = (
            self._standardised(moments, self.numbers(x.cells, x.energy), x.energy, fit=True)
            for moments, x in ((self.reference, reference), (self.generated, generated))
        )
        residuals = [t[:, 0]]
        for k, trend in enumerate(self.trends, 1):
            assert isinstance(trend, ConditionalMoments)
            trend.fit(z[:, :k].clamp(-_REACH, _REACH), z[:, k : k + 1])
            slopes = least_squares(t[:, :k].double(), t[:, k].double())
            self.slopes[k, :k] = slopes.to(self.slopes)
            residuals.append((t[:, k] - t[:, :k].double() @ slopes).to(t))
        self.maps.fit(self._residuals(z), torch.stack(residuals, 1))

    def forward(self, showers: Sample) -> Sample:
        """Return images with changed numbers."""
        own = self.numbers(showers.cells, showers.energy)
        found = self.maps(self._residuals(self._standardised(self.generated, own, showers.energy)))
        t: list[Tensor] = []
        for k in range(self.numbers.size):
            t.append(found[:, k] + sum(self.slopes[k, j] * t[j] for j in range(k)))
        mean, width = self.reference(showers.energy)
        response, *others = (mean + width * torch.stack(t, 1)).unbind(1)
        response = torch.minimum(torch.maximum(response, own[:, 0] / _FACTOR), own[:, 0] * _FACTOR)
        cells = self.numbers.change(showers.cells, showers.energy, torch.stack([response, *others], 1))
        return showers._replace(cells=cells)

    def _residuals(self, z: Tensor) -> Tensor:
        """Return r (B, 4) of standardised numbers (B, 4) of generated images."""
        rest = [trend(z[:, k : k + 1], z[:, :k]) for k, trend in enumerate(self.trends, 1)]
        return torch.cat([z[:, :1], *rest], 1)

    @staticmethod
    def _standardised(moments: EnergyMoments, numbers: Tensor, energy: Tensor, fit: bool = False) -> Tensor:
        """Return standardised numbers (B, 4); 0 where a number has no width but that of rounding."""
        if fit:
            moments.fit(numbers, energy)
        mean, width = moments(energy)
        return torch.where(width > _LEAST, (numbers - mean) / width, torch.zeros_like(numbers))


_FADE = (10.0, 20.0)
"""MeV; brighter cells belong to the four numbers, which have few constants."""


class ImageCalibration(Calibration):
    """Cells, then numbers, then the spectrum of faint cells, of images that are not empty."""

    copies = 25
    fewest = 20_000

    def __init__(self, detector: Detector) -> None:
        last = SpectrumMap(detector, bright=_FADE, fade=_FADE)
        super().__init__(CellWidths(detector.n_cells), NumberMaps(detector), last=last)

    @torch.no_grad()
    def fit(self, reference: Sample, generated: Sample) -> None:
        """Set all constants, see ``Calibration``; empty images are not looked at, unless all are."""
        samples = []
        for sample in (reference, generated):
            full = sample.cells.sum(1) > 0
            samples.append(Sample(*(x[full] for x in sample)) if bool(full.any()) else sample)
        super().fit(*samples)
