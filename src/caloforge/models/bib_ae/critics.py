r"""Critics of the BIB-AE, maximum mean discrepancy, and losses on the sorted cells of showers.

As published a critic of showers has a stream of 64 features for each of

- the cells x 0.001,
- ln(cells + exp(-5)) + 5,
- both differences to the encoded shower, zero for the real one,
- the batch statistics (:class:`BatchStatistics`),
- the conditions,

joined -> 256 -> 256 -> 1. The convolutions of the streams are not published; ours have kernels 4^3, stride 2, and 16, 32 and 32
channels. Without ``differences`` the critic judges showers alone. With ``logarithmic`` its input is u = ln(1 + e / 0.2 MeV) and its
streams take e / 50 MeV and u: the gradient of the published logarithm is large at empty cells, and a gradient penalty on it
leaves a critic without discrimination. The critic of latents is a separate network for each latent number, 1-50-100-50-1, with the
outputs summed.

With the kernel :math:`k(x, y) = e^{-\alpha |x - y|^2}` and samples x and y of size n,

.. math:: \mathrm{MMD}^2 = \frac{1}{n^2} \sum_{ij} \big( k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j) \big)

For cells, a shower's energies are sorted, the largest first, and the first 1,000 of them are cut into windows of 150 that begin
every 25; in each window of each shower x and y are the 150 energies (MeV) of the generated and of the true shower. So alpha 40 and 4
resolve differences of 0.16 and 0.5 MeV, the size of a MIP's energy. That a window of one shower is one pair of samples is our reading.

References:
    E. Buhmann et al., Getting high, arXiv:2005.05334, section 3.3.
    E. Buhmann et al., Hadrons, better, faster, stronger, arXiv:2112.09709 (batch statistics).
    A. Gretton et al., A kernel two-sample test, J. Mach. Learn. Res. 13 (2012) 723.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from caloforge.models.nn.cell_networks import mlp

__all__ = ["BatchStatistics", "LatentCritic", "ShowerCritic", "mmd", "sorted_cells", "window_mmd"]

_STATISTICS = 16
_FEATURES = 64
_SCALE = 1e-3
_OFFSET = math.exp(-5.0)
_UNIT = 0.2
_LARGE = 50.0
_SLOPE = 0.2
SORTED_CELLS = 1000
WINDOW = 150
STRIDE = 25


class BatchStatistics(nn.Module):
    r"""Pairwise differences of the showers of a batch, against mode collapse.

    With the standard deviation and the sum of the cells of shower b, :math:`s_b = (\sigma_b, \Sigma_b)`, and dense layers h,

    .. math:: o_b = \Big( \langle h(s_b - s_{b'}) \rangle_{b'}, \; \mathrm{std}_{b'} \, h(s_b - s_{b'}) \Big)

    with mean and deviation over the whole batch, b itself included.
    """

    width = 2 * _STATISTICS  # output features of a shower

    def __init__(self) -> None:
        super().__init__()
        self.pairs = mlp(2, (64, 64), _STATISTICS, partial(nn.LeakyReLU, 0.01))

    def forward(self, cells: Tensor) -> Tensor:
        """Return (B, 32) of cells (B, n_cells)."""
        numbers = torch.stack([(cells.var(1, unbiased=False) + 1e-12).sqrt(), cells.sum(1)], 1)
        features = self.pairs(numbers[:, None] - numbers[None])
        spread = (features.var(1, unbiased=False) + 1e-8).sqrt()
        return torch.cat([features.mean(1), spread], 1)


class ShowerCritic(nn.Module):
    """Critic of showers, see the module; ``shape`` counts cells along x, y and the layers, ``widths`` are channels of the streams."""

    def __init__(
        self, shape: Sequence[int], conditions: int, differences: bool = True, logarithmic: bool = False,
        widths: Sequence[int] = (16, 32, 32),
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.differences, self.logarithmic = tuple(shape), differences, logarithmic
        n_streams = 4 if differences else 2
        self.streams = nn.ModuleList([_stream(shape, widths) for _ in range(n_streams)])
        self.statistics = BatchStatistics()
        self.batch = nn.Sequential(nn.Linear(self.statistics.width, _FEATURES), nn.LeakyReLU(_SLOPE))
        self.condition = nn.Sequential(nn.Linear(conditions, _FEATURES), nn.LeakyReLU(_SLOPE))
        self.dense = nn.Sequential(
            nn.Linear((n_streams + 2) * _FEATURES, 256), nn.LeakyReLU(_SLOPE),
            nn.Linear(256, 256), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        self.last = nn.Linear(256, 1, bias=False)  # an offset cancels in the loss

    def forward(self, cells: Tensor, encoded: Tensor, conditions: Tensor, groups: int = 1) -> Tensor:
        """Return values (B,).

        Arguments:
            cells: (B, n_cells), MeV, or logarithms.
            encoded: (B, n_cells), the encoded showers, in the same unit.
            conditions: (B, k).
            groups: Batches of equal size that follow each other, each with its own batch statistics.
        """
        images = self._images(cells)
        if self.differences:
            images += [image - true for image, true in zip(images, self._images(encoded), strict=True)]
        pairs = zip(self.streams, images, strict=True)
        features = [stream(image.view(-1, 1, *self.shape)) for stream, image in pairs]
        statistics = torch.cat([self.statistics(part) for part in images[0].chunk(groups)])
        features += [self.batch(statistics), self.condition(conditions)]
        joined = self.dense(torch.cat(features, 1))
        with torch.autocast(cells.device.type, enabled=False):
            value: Tensor = self.last(joined.float())
        return value[:, 0]

    def _images(self, cells: Tensor) -> list[Tensor]:
        """Return the energies and their logarithms, each (B, n_cells)."""
        if self.logarithmic:
            return [_UNIT / _LARGE * torch.expm1(cells), cells]
        return [_SCALE * cells, torch.log(cells + _OFFSET) + 5.0]


def _stream(shape: Sequence[int], widths: Sequence[int]) -> nn.Module:
    """Return convolutions and a dense layer that map images (B, 1, X, Y, L) to (B, 64)."""
    parts: list[nn.Module] = []
    for before, after in pairwise((1, *widths)):
        parts += [nn.Conv3d(before, after, 4, 2, 1), nn.LeakyReLU(_SLOPE)]
    body = nn.Sequential(*parts, nn.Flatten())
    with torch.no_grad():
        features = body(torch.zeros(1, 1, *shape)).shape[1]
    return nn.Sequential(body, nn.Linear(features, _FEATURES), nn.LeakyReLU(_SLOPE))


class LatentCritic(nn.Module):
    """Critic of each latent number by itself."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        widths = (1, 50, 100, 50)
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv1d(latent * before, latent * after, 1, groups=latent), nn.LeakyReLU(_SLOPE)]
        last = nn.Conv1d(latent * widths[-1], latent, 1, groups=latent, bias=False)  # an offset cancels
        self.net = nn.Sequential(*parts, last)

    def forward(self, z: Tensor) -> Tensor:
        """Return values (B,) of latents (B, latent)."""
        value: Tensor = self.net(z[:, :, None])
        return value.sum((1, 2))


def mmd(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Return MMD^2 (...,) of samples x and y (..., n, d)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = (a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]) - 2.0 * a @ b.mT
        return torch.exp(-alpha * square.clamp_min(0.0)).mean((-2, -1))

    return kernel(x, x) + kernel(y, y) - 2.0 * kernel(x, y)


def sorted_cells(cells: Tensor, first: int = SORTED_CELLS) -> Tensor:
    """Return the largest cells (B, first) of showers (B, n_cells), in falling order; fewer on small grids."""
    return torch.topk(cells, min(first, cells.shape[1]), dim=1).values


def window_mmd(
    fake: Tensor, true: Tensor, alpha: float, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """Return the mean over showers and windows of MMD^2 between sorted cells.

    Arguments:
        fake, true: (B, n) sorted energies, MeV.
        alpha: Of the kernel, 1/MeV^2.
        window: Energies of a window; all of them when there are fewer.
        stride: Energies between two windows.
    """
    window = min(window, fake.shape[1])
    x, y = fake.unfold(1, window, stride), true.unfold(1, window, stride)  # (B, windows, window)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-alpha * (a[..., :, None] - b[..., None, :]).square()).mean((-2, -1))

    return (kernel(x, x) + kernel(y, y) - 2.0 * kernel(x, y)).mean()
