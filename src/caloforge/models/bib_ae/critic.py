r"""The critics of the BIB-AE and its losses on sorted cells.

What a critic sees of a batch as a whole: how unlike its showers are, against showers that are all alike.

With the standard deviation and the sum of the cells of shower b, :math:`s_b = (\sigma_b, \Sigma_b)`,

.. math:: o_b = \Big( \langle h(s_b - s_{b'}) \rangle_{b'}, \; \mathrm{std}_{b'} \, h(s_b - s_{b'}) \Big)

where h is a stack of 1 x 1 convolutions (the same dense layers for every pair) of 64, 64 and 16 features. The mean and the deviation
run over the whole batch, b itself included.

References:
    E. Buhmann et al., Hadrons, better, faster, stronger, arXiv:2112.09709; arXiv:2303.18150.

Maximum mean discrepancy, and losses on the sorted cells of showers.

With the kernel :math:`k(x, y) = e^{-\alpha |x - y|^2}` and samples x and y of n,

.. math:: \mathrm{MMD}^2 = \frac{1}{n^2} \sum_{ij} \big( k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j) \big)

For the latents x and y are rows of numbers. For cells a shower's energies are sorted, the largest first, the first 1,000 of
them cut into windows of 150 that begin every 25, and in each window of each shower x and y are the 150 energies (MeV) of the generated
and of the true one. So alpha 40 and 4 look at differences of 0.16 and 0.5 MeV, the size of a MIP's energy. That
a window of one shower is one pair of samples is our reading.

References:
    A. Gretton et al., A kernel two-sample test, J. Mach. Learn. Res. 13 (2012) 723.
    E. Buhmann et al., arXiv:2005.05334, section 3.3.

The critics of the BIB-AE: of showers, and of each latent number by itself.

As published a critic of showers has a stream of 64 features for each of

- the cells x 0.001,
- ln(cells + exp(-5)) + 5,
- both differences to the shower that was encoded, zero for the real one,
- the batch statistics (:mod:`~caloforge.models.bib_ae.critic`),
- the conditions,

joined -> 256 -> 256 -> 1. The streams' convolutions are not given; ours have kernels 4^3, stride 2, and 16, 32 and 32 channels. Without
``differences`` the critic judges showers that were not encoded. With ``logarithmic`` it is given u = ln(1 + e / 0.2 MeV) in place of the
energies e, and its streams take e / 50 MeV and u: the gradient of the published logarithm is large at empty cells, and a penalty
on it leaves a critic that sees nothing.

The latent critic is a small network of its own for each latent number, 1-50-100-50-1, and the outputs are added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["BatchStatistics", "LatentCritic", "ShowerCritic", "mmd", "sorted_cells", "window_mmd"]


_FEATURES = 16


class BatchStatistics(nn.Module):
    """Pairwise differences within a batch.

    Attributes:
        width: Numbers a shower that come out.
    """

    width = 2 * _FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.pairs = nn.Sequential(
            nn.Linear(2, 64),
            nn.LeakyReLU(0.01),
            nn.Linear(64, 64),
            nn.LeakyReLU(0.01),
            nn.Linear(64, _FEATURES),
        )

    def forward(self, cells: Tensor) -> Tensor:
        """Return (B, 32) of cells (B, n_cells)."""
        numbers = torch.stack([(cells.var(1, unbiased=False) + 1e-12).sqrt(), cells.sum(1)], 1)
        found = self.pairs(numbers[:, None] - numbers[None])
        spread = (found.var(1, unbiased=False) + 1e-8).sqrt()
        return torch.cat([found.mean(1), spread], 1)


FIRST = 1000
WINDOW = 150
STRIDE = 25


def mmd(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Return MMD^2 (...,) of samples x and y (..., n, d)."""
    return _kernel(x, x, alpha) + _kernel(y, y, alpha) - 2.0 * _kernel(x, y, alpha)


def _kernel(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Return the mean of the kernel over all pairs (...,)."""
    square = (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]) - 2.0 * x @ y.mT
    return torch.exp(-alpha * square.clamp_min(0.0)).mean((-2, -1))


def sorted_cells(cells: Tensor, first: int = FIRST) -> Tensor:
    """Return the largest cells (B, first) of showers (B, n_cells), in falling order; fewer on small grids."""
    return torch.topk(cells, min(first, cells.shape[1]), dim=1).values


def window_mmd(
    made: Tensor, true: Tensor, alpha: float, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """Return the mean over showers and windows of MMD^2 between sorted cells.

    Arguments:
        made: (B, n) sorted energies, MeV.
        true: (B, n) sorted energies, MeV.
        alpha: Of the kernel, 1/MeV^2.
        window: Energies of a window; all of them when there are fewer.
        stride: Energies between two windows.
    """
    window = min(window, made.shape[1])
    x, y = made.unfold(1, window, stride), true.unfold(1, window, stride)  # (B, windows, window)

    def pairs(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-alpha * (a[..., :, None] - b[..., None, :]).square()).mean((-2, -1))

    return (pairs(x, x) + pairs(y, y) - 2.0 * pairs(x, y)).mean()


_FEATURES_bib_critic = 64
_SCALE = 1e-3
_OFFSET = math.exp(-5.0)
_UNIT = 0.2
_LARGE = 50.0
_SLOPE = 0.2


def _stream(shape: Sequence[int], channels: int, widths: Sequence[int]) -> nn.Module:
    """Return convolutions and a dense layer that turn images (B, channels, X, Y, L) into (B, 64)."""
    parts: list[nn.Module] = []
    width = channels
    for size in widths:
        parts += [nn.Conv3d(width, size, 4, 2, 1), nn.LeakyReLU(_SLOPE)]
        width = size
    body = nn.Sequential(*parts, nn.Flatten())
    with torch.no_grad():
        features = body(torch.zeros(1, channels, *shape)).shape[1]
    return nn.Sequential(body, nn.Linear(features, _FEATURES_bib_critic), nn.LeakyReLU(_SLOPE))


class ShowerCritic(nn.Module):
    """Judge showers.

    Arguments:
        shape: Cells along x, y and the layers.
        conditions: Number of conditions.
        differences: Whether it sees the difference to the encoded shower.
        logarithmic: Whether it is given logarithms.
        widths: Channels of the streams.
    """

    def __init__(
        self,
        shape: Sequence[int],
        conditions: int,
        differences: bool = True,
        logarithmic: bool = False,
        widths: Sequence[int] = (16, 32, 32),
    ) -> None:
        super().__init__()
        self.shape, self.differences, self.logarithmic = tuple(shape), differences, logarithmic
        n_streams = 4 if differences else 2
        self.streams = nn.ModuleList([_stream(shape, 1, widths) for _ in range(n_streams)])
        self.statistics = BatchStatistics()
        self.batch = nn.Sequential(
            nn.Linear(self.statistics.width, _FEATURES_bib_critic), nn.LeakyReLU(_SLOPE)
        )
        self.given = nn.Sequential(nn.Linear(conditions, _FEATURES_bib_critic), nn.LeakyReLU(_SLOPE))
        self.dense = nn.Sequential(
            nn.Linear((n_streams + 2) * _FEATURES_bib_critic, 256), nn.LeakyReLU(_SLOPE),
            nn.Linear(256, 256), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        self.last = nn.Linear(256, 1, bias=False)  # an offset cancels in the loss

    def forward(self, cells: Tensor, encoded: Tensor, conditions: Tensor, groups: int = 1) -> Tensor:
        """Return values (B,).

        Arguments:
            cells: (B, n_cells), MeV, or logarithms.
            encoded: (B, n_cells), the showers that were encoded, in the same unit.
            conditions: (B, k).
            groups: Batches of equal size that follow each other, for the statistics of each.
        """
        images = self._images(cells)
        if self.differences:
            other = self._images(encoded)
            images += [image - true for image, true in zip(images, other, strict=True)]
        found = [
            stream(image.view(-1, 1, *self.shape)) for stream, image in zip(self.streams, images, strict=True)
        ]
        statistics = torch.cat([self.statistics(part) for part in images[0].chunk(groups)])
        found += [self.batch(statistics), self.given(conditions)]
        joined = self.dense(torch.cat(found, 1))
        with torch.autocast(cells.device.type, enabled=False):
            value: Tensor = self.last(joined.float())
        return value[:, 0]

    def _images(self, cells: Tensor) -> list[Tensor]:
        """Return the energies and their logarithms, each (B, n_cells)."""
        if self.logarithmic:
            return [_UNIT / _LARGE * torch.expm1(cells), cells]
        return [_SCALE * cells, torch.log(cells + _OFFSET) + 5.0]


class LatentCritic(nn.Module):
    """Judge each latent number on its own.

    Arguments:
        latent: Number of latents.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        widths = (1, 50, 100, 50, 1)
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv1d(latent * before, latent * after, 1, groups=latent), nn.LeakyReLU(_SLOPE)]
        last = nn.Conv1d(latent * widths[-2], latent, 1, groups=latent, bias=False)  # an offset cancels
        self.net = nn.Sequential(*parts[:-2], last)

    def forward(self, z: Tensor) -> Tensor:
        """Return values (B,) of latents (B, latent)."""
        value: Tensor = self.net(z[:, :, None])
        return value.sum((1, 2))
