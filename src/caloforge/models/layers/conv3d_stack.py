"""3-D convolutional networks described by a few numbers a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caloforge.models.layers.banded_conv import BandedConv3d
from caloforge.models.layers.padding import same_padding

__all__ = ["Conv", "GridStack", "SeededStack", "Size", "output_size"]

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Conv:
    """One layer: repeat cells, pad, convolve, then activation and perhaps batch norm and dropout.

    Arguments:
        channels: Channels that come out.
        kernel: Cells of the kernel along x, y and the layers.
        pad: Zeros on each side; None for as many as keep the size.
        up: How often each cell is repeated along each axis, before all else.
        norm: Whether a batch norm follows the activation.
        bias: Whether the convolution has one.
    """

    channels: int
    kernel: Size
    pad: Size | None = (0, 0, 0)
    up: Size = (1, 1, 1)
    norm: bool = True
    bias: bool = True


def output_size(size: Size, layer: Conv) -> Size:
    """Return the size of the grid behind a layer."""
    x, y, z = (
        n * up if layer.pad is None else n * up + 2 * pad - k + 1
        for n, up, pad, k in zip(size, layer.up, layer.pad or (0, 0, 0), layer.kernel, strict=True)
    )
    return x, y, z


def _convolve(channels: int, size: Size, layer: Conv) -> list[nn.Module]:
    """Return the modules of a layer up to its convolution, for a grid of that size.

    The convolution repeats and pads by itself. In its place among the modules, which names its weights in files, it
    still comes after one part that pads and, in some layers, one that repeats.
    """
    pads = [same_padding(k) for k in layer.kernel] if layer.pad is None else [(n, n) for n in layer.pad]
    places = [nn.Identity() for _ in range(1 + (layer.up != (1, 1, 1)))]
    return [
        *places,
        BandedConv3d(channels, layer.channels, layer.kernel, size, layer.up, pads, layer.bias),
    ]


class SeededStack(nn.Module):
    """A generator: a dense layer makes a small grid, convolutions make it large.

    Arguments:
        latent: Length of the input.
        channels: Channels of the small grid.
        seed: Its size.
        layers: Layers; the last makes one channel and neither it nor its output is activated here.
        slope: Of the leaky rectifiers; 0 for plain ones.
        momentum: Of the batch norms.
    """

    def __init__(
        self, latent: int, channels: int, seed: Size, layers: Sequence[Conv], slope: float, momentum: float
    ) -> None:
        super().__init__()
        self.seed = (channels, *seed)
        self.dense = nn.Linear(latent, channels * seed[0] * seed[1] * seed[2])
        blocks, size = [], seed
        for layer in layers[:-1]:
            parts = [*_convolve(channels, size, layer), nn.LeakyReLU(slope)]
            if layer.norm:
                parts.append(nn.BatchNorm3d(layer.channels, momentum=momentum))
            blocks.append(nn.Sequential(*parts))
            channels, size = layer.channels, output_size(size, layer)
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_convolve(channels, size, layers[-1]))

    def forward(self, latent: Tensor) -> Tensor:
        """Return values (B, X, Y, L) of latent vectors (B, latent), not rectified."""
        with torch.autocast(latent.device.type, enabled=False):  # 8 bits are too few for energies
            seed = self.dense(latent.float()).view(len(latent), *self.seed)
        grid = self.blocks(seed)
        with torch.autocast(latent.device.type, enabled=False):
            values: Tensor = self.last(grid.float())
        return values[:, 0]


class GridStack(nn.Module):
    """The body of a discriminator: convolutions, average pool of 2 along each axis, flattened.

    Arguments:
        channels: Channels that come in.
        size: Size of the grid.
        layers: Layers.
        norm: Whether batch norms follow the layers that ask for one.
        dropout: After each layer.
        momentum: Of the batch norms.

    Attributes:
        features: Numbers a shower that come out.
    """

    def __init__(
        self, channels: int, size: Size, layers: Sequence[Conv], norm: bool, dropout: float, momentum: float
    ) -> None:
        super().__init__()
        blocks = []
        for layer in layers:
            parts = [*_convolve(channels, size, layer), nn.LeakyReLU(0.3)]
            if norm and layer.norm:
                parts.append(nn.BatchNorm3d(layer.channels, momentum=momentum))
            if dropout:
                parts.append(nn.Dropout(dropout))
            blocks.append(nn.Sequential(*parts))
            channels, size = layer.channels, output_size(size, layer)
        self.blocks = nn.Sequential(*blocks)
        self.features = channels * (size[0] // 2) * (size[1] // 2) * (size[2] // 2)

    def forward(self, grid: Tensor) -> Tensor:
        """Return features (B, features) of a grid (B, channels, X, Y, L)."""
        return F.avg_pool3d(self.blocks(grid), 2).flatten(1)
