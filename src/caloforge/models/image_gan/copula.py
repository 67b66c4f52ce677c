r"""A Gaussian copula for images: the simplest generator of whole images, fitted in seconds, without a network.

Of an image with cells e_i, with visible energy V, from a shower of energy E, the response, the peak's share and the centres of gravity
(:class:`~caloforge.models.calibration.images.ImageNumbers`) are made of four independent normal numbers u by a chain of few constants
(:mod:`~caloforge.models.calibration.chains`). Beside them

.. math:: y_i = \ln\left(\frac{e_i}{V} + 10^{-7}\right), \qquad z_i = g_i\left(\frac{y_i - m_i(E)}{s_i(E)}\right),
          \qquad (u, z) \sim N(0, C)

with g smooth tables that make every z_i normal (:func:`~caloforge.models.calibration.monotone.smooth_quantiles`), and C the
correlations, none among u, shrunk towards none by what few images cannot settle,

.. math:: C_{ij} = (1 - \lambda) r_{ij}, \qquad
          \lambda = \frac{\sum_{i \ne j} \mathrm{Var}(r_{ij})}{\sum_{i \ne j} r_{ij}^2}, \qquad
          \mathrm{Var}(r) = \frac{(1 - r^2)^2}{n} .

The image of the cells is then changed to have the four numbers, and a calibration gives the cells their means and widths. Where x and
y are exchangeable each image counts in both orders.

It has no weight to train and few numbers that follow the training images' fluctuations, so that it says what a network has to beat.

References:
    J. Schäfer, K. Strimmer, A shrinkage approach to large-scale covariance matrix estimation, Stat. Appl. Genet. Mol. Biol. 4
    (2005) 32.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.calibration.base import CalibratedModel, Calibration, Sample
from caloforge.models.calibration.chains import NormalChain
from caloforge.models.calibration.images import CellWidths, Exchange
from caloforge.models.calibration.moments import EnergyMoments
from caloforge.models.calibration.monotone import MonotoneMap
from caloforge.models.stage import Stage, TrainingData
from caloforge.settings import ModelConfig

__all__ = ["ImageCopula", "ImageCopulaConfig"]

_FLOOR = 1e-7  # added to a cell's part of the image before the logarithm
_KNOTS = 161
_REACH = 4.0
_MOST_CELLS = 1024  # of an image whose correlations are looked at
_TINY = 1e-20
_LEAST_VALUE = 1e-6  # smallest eigenvalue of the correlations


class ImageCopulaConfig(ModelConfig):
    """Settings of the copula."""

    calibrate: bool = True  # calibration of the cells' means and widths


class ImageCopula(CalibratedModel):
    """Gaussian copula of the numbers and cells of images such as ild-ecal-10x10."""

    papers: ClassVar[tuple[str, ...]] = ("calomplification",)
    Config = ImageCopulaConfig
    config: ImageCopulaConfig
    root: Tensor  # (4 + n_cells, 4 + n_cells), R with R R^T = C

    def __init__(self, detector: Detector, config: ImageCopulaConfig) -> None:
        super().__init__(detector, config)
        self.exchange = Exchange(detector)
        self.numbers = self.exchange.numbers
        size = self.numbers.size
        self.chain = NormalChain(size, few=True)
        self.number_moments, self.cell_moments = EnergyMoments(size), EnergyMoments(detector.n_cells)
        self.table = MonotoneMap(detector.n_cells, _KNOTS, _REACH, even="y", beyond=None)
        self.register_buffer("root", torch.eye(size + detector.n_cells))
        self.calibration = CellCalibration(self.exchange) if config.calibrate else None

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Accept grids of one layer of at most 1,024 cells.

        Raises:
            IncompatibleError: For any other detector.
        """
        if not detector.is_grid or detector.n_layers != 1 or detector.n_cells > _MOST_CELLS:
            msg = (
                f"image-copula makes images of one layer of at most {_MOST_CELLS} cells, such as ild-ecal-10x10, not showers of "
                f"'{detector.name}' {detector.shape}; project them first (caloforge project)"
            )
            raise IncompatibleError(msg)

    @property
    def noise_size(self) -> int:
        """Normal numbers that one shower takes."""
        return len(self.root)

    def make(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, of normal numbers (B, 4 + n_cells)."""
        energy = self.condition(conditions, "incident_energy")[:, 0]
        z = noise @ self.root.T
        size = self.numbers.size
        mean, std = self.number_moments(energy)
        numbers = mean + std * self.chain.inverse(z[:, :size])
        mean, std = self.cell_moments(energy)
        parts = torch.exp((mean + std * self.table.inverse(z[:, size:])).clamp_max(0.0)) - _FLOOR
        return self.numbers.change(torch.where(parts > _FLOOR, parts, 0.0), energy, numbers)

    def stages(self) -> tuple[Stage, ...]:
        """Return the fit of the copula, then the calibration."""
        return Stage("copula", fit=self.fit_copula), *self.calibration_stages()

    @torch.no_grad()
    def fit_copula(self, data: TrainingData, generator: torch.Generator) -> None:
        """Set moments, tables and correlations."""
        batches = list(data.batches(1024))
        cells, conditions = (torch.cat([getattr(b, k) for b in batches]) for k in ("cells", "conditions"))
        energy = self.condition(conditions, "incident_energy")[:, 0]
        orders = self.exchange.orders(Sample(cells, conditions, energy, conditions))
        u = self._fit_numbers(orders, energy)
        z = self._fit_cells(orders, energy, generator)
        self.root.copy_(
            _root(torch.cat([torch.cat(pair, 1) for pair in zip(u, z, strict=True)]), u[0].shape[1])
        )

    def _fit_numbers(self, orders: list[Tensor], energy: Tensor) -> list[Tensor]:
        """Fit the chain; return the normal numbers (N, 4) of the images (N, n_cells) in each order."""
        numbers = [self.numbers(cells, energy) for cells in orders]
        self.number_moments.fit(torch.cat(numbers), energy.repeat(len(orders)))
        mean, std = self.number_moments(energy)
        t = [(values - mean) / std for values in numbers]
        self.chain.fit(t[0], len(orders) > 1)
        return [self.chain(values) for values in t]

    def _fit_cells(self, orders: list[Tensor], energy: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Fit the cells' tables; return the normal numbers (N, n_cells) of the images in each order."""
        y = [torch.log(c / c.sum(1, keepdim=True).clamp_min(_TINY) + _FLOOR) for c in orders]
        self.cell_moments.fit(torch.cat(y), energy.repeat(len(y)))
        mean, std = self.cell_moments(energy)
        t = [(values - mean) / std for values in y]
        partner = self.exchange.order if len(orders) > 1 else torch.arange(len(self.table.x[0, 0]))
        for cell, other in enumerate(partner.tolist()):
            if other < cell:
                self.table.x[0, 0, cell] = self.table.x[0, 0, other]
            else:  # a cell on the diagonal is its own partner
                self.table.fit_normal(torch.cat([v[:, cell] for v in t[: 1 + (other > cell)]]), cell)
        uniform = torch.rand(t[0].shape, generator=generator, device=generator.device).to(t[0])
        return [self.table(values, uniform=uniform) for values in t]


class CellCalibration(Calibration):
    """Means and widths of cells alone: the numbers are right already."""

    copies = 25
    fewest = 20_000

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(CellWidths(len(exchange.order), exchange))


def _root(z: Tensor, free: int) -> Tensor:
    """Return R (n, n), R R^T the shrunk correlations of normal numbers z (N, n), of which the first ``free`` are independent."""
    r = torch.corrcoef(z.double().T).nan_to_num(0.0)
    r.fill_diagonal_(0.0)
    r[:free, :free] = 0.0
    noise = (1.0 - r.square()).square().sum() - len(r)
    part = (noise / len(z) / r.square().sum().clamp_min(_LEAST_VALUE)).clamp(0.0, 1.0)
    matrix = (1.0 - part) * r
    matrix.fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(matrix)
    matrix = (vectors * values.clamp_min(_LEAST_VALUE)) @ vectors.T
    width = matrix.diagonal().sqrt()
    root: Tensor = torch.linalg.cholesky(matrix / width / width[:, None])
    root[:free, :free] = torch.eye(free, dtype=root.dtype)
    return root
