"""The critics of the BIB-AE: of showers, and of each latent number by itself.

As published a critic of showers has a stream of 64 features for each of

- the cells x 0.001,
- ln(cells + exp(-5)) + 5,
- both differences to the shower that was encoded, zero for the real one,
- the batch statistics (:mod:`~caloforge.models.layers.batch_statistics`),
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

from caloforge.models.layers.batch_statistics import BatchStatistics

__all__ = ["LatentCritic", "ShowerCritic"]

_FEATURES = 64
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
    return nn.Sequential(body, nn.Linear(features, _FEATURES), nn.LeakyReLU(_SLOPE))


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
        self.batch = nn.Sequential(nn.Linear(self.statistics.width, _FEATURES), nn.LeakyReLU(_SLOPE))
        self.given = nn.Sequential(nn.Linear(conditions, _FEATURES), nn.LeakyReLU(_SLOPE))
        self.dense = nn.Sequential(
            nn.Linear((n_streams + 2) * _FEATURES, 256), nn.LeakyReLU(_SLOPE),
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
