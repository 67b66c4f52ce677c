"""Encoder and decoder of the published BIB-AE, with sizes scaled from the grid.

For 30 x 60 x 30 cells, in the order (layers, x, y) of the paper:

- encoder: conv8 (2,2,3) stride (1,1,2), conv16 2^3 stride 2, conv32 4^3 stride 2, conv32 4^3, LeakyReLU after each; with the
  864 numbers and the conditions -> 800 -> 512 -> mean and log variance of the latents;
- decoder: latents, noise, conditions -> 512 -> 800 -> 8 x 7 x 7 x 15 -> convT 5^3 (4 along y) stride 2 -> convT 4^3 stride 2 ->
  seven convolutions 3^3 of 8, 8, 8, 16, 32, 16, 1 channels, layer norm, ReLU at the end.

Our readings: 7 x 7 x 15 becomes 17 x 17 x 32 and 36 x 36 x 66, so the first three convolutions are unpadded and the rest padded, which
gives 30 x 30 x 60. Another grid of n cells takes the smallest seed that reaches n + 6, with a first kernel of 5 or 4, and is cut to
n. The encoder halves y first where it has half as many cells again as x. Its ``small`` form, padded and with a stride of 2 from the start, is ours. Layer norms are over all channels and cells with one
factor a channel: one a cell would be most of the weights.

References:
    E. Buhmann et al., arXiv:2005.05334 and arXiv:2303.18150.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["BibDecoder", "BibEncoder", "seed_size"]

_SLOPE = 0.01
_CHANNELS = (8, 8, 8, 16, 32, 16)
_UNPADDED = 3
_UNPADDED_FROM = 22
"""Cells from which on the encoder can do without padding."""
_SEED = 8
_HIDDEN = (512, 800)


def seed_size(n: int) -> tuple[int, int]:
    """Return cells of the seed and the first kernel for an axis of n cells."""
    middle = -(-(n + 2 * _UNPADDED - 2) // 2)
    kernel = 5 if middle % 2 else 4
    return max(2, -(-(middle - kernel) // 2) + 1), kernel


class BibEncoder(nn.Module):
    """Turn a shower into mean and log variance of its latents.

    Arguments:
        shape: Cells along x, y and the layers.
        channels: Images of a shower that come in.
        conditions: Number of conditions.
        latent: Number of latents.
        widths: Channels of the four convolutions.
        hidden: Widths of the two dense layers.
        small: Begin with a stride of 2 along all axes: a quarter of the work.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        conditions: int,
        latent: int,
        widths: Sequence[int] = (8, 16, 32, 32),
        hidden: Sequence[int] = (800, 512),
        small: bool = False,
    ) -> None:
        super().__init__()
        long = shape[1] >= 1.5 * shape[0]
        first = (2, 2, 2) if small else (1, 2, 1) if long else (1, 1, 1)
        kernel = (4, 4, 4) if small else (2, 3, 2) if long else (2, 2, 2)
        a, b, c, d = widths
        last = 3 if small else 4
        pad = int(small or min(shape) < _UNPADDED_FROM)
        self.body = nn.Sequential(
            nn.Conv3d(channels, a, kernel, first, int(small)), nn.LeakyReLU(_SLOPE),
            nn.Conv3d(a, b, 2, 2), nn.LeakyReLU(_SLOPE),
            nn.Conv3d(b, c, 4, 2, pad), nn.LeakyReLU(_SLOPE),
            nn.Conv3d(c, d, last, 1, pad), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        with torch.no_grad():
            features = self.body(torch.zeros(1, channels, *shape)).numel()
        self.dense = nn.Sequential(
            nn.Linear(features + conditions, hidden[0]), nn.LeakyReLU(_SLOPE),
            nn.Linear(hidden[0], hidden[1]), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        self.mean = nn.Linear(hidden[1], latent)
        self.log_variance = nn.Linear(hidden[1], latent)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -2.0)

    def forward(self, images: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, latent) of images (B, channels, X, Y, L) and conditions (B, k)."""
        found = self.dense(torch.cat([self.body(images).flatten(1), conditions], 1))
        with torch.autocast(images.device.type, enabled=False):
            return self.mean(found.float()), self.log_variance(found.float()).clamp(-12.0, 6.0)


class BibDecoder(nn.Module):
    """The published decoder.

    Arguments:
        shape: Cells along x, y and the layers.
        inputs: Latents, noise and conditions together.
        hidden: Widths of the dense layers.
    """

    def __init__(self, shape: Sequence[int], inputs: int, hidden: Sequence[int] = _HIDDEN) -> None:
        super().__init__()
        self.shape = tuple(shape)
        sizes, kernels = zip(*(seed_size(n) for n in shape), strict=True)
        self.seed = (_SEED, *sizes)
        cells = _SEED * sizes[0] * sizes[1] * sizes[2]
        self.dense = nn.Sequential(
            nn.Linear(inputs, hidden[0]), nn.LayerNorm(hidden[0]), nn.LeakyReLU(_SLOPE),
            nn.Linear(hidden[0], hidden[1]), nn.LayerNorm(hidden[1]), nn.LeakyReLU(_SLOPE),
            nn.Linear(hidden[1], cells), nn.LayerNorm(cells), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        parts: list[nn.Module] = []
        for kernel in (kernels, (4, 4, 4)):
            parts += [
                nn.ConvTranspose3d(_SEED, _SEED, kernel, 2),
                nn.GroupNorm(1, _SEED),
                nn.LeakyReLU(_SLOPE),
            ]
        width = _SEED
        for number, channels in enumerate(_CHANNELS):
            padding = 0 if number < _UNPADDED else 1
            parts += [
                nn.Conv3d(width, channels, 3, padding=padding),
                nn.GroupNorm(1, channels),
                nn.LeakyReLU(_SLOPE),
            ]
            width = channels
        self.body = nn.Sequential(*parts)
        self.last = nn.Conv3d(width, 1, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), not negative, of latents, noise and conditions (B, inputs)."""
        grid = self.body(self.dense(inputs).view(len(inputs), *self.seed))
        x, y, layers = self.shape
        with torch.autocast(inputs.device.type, enabled=False):
            made: Tensor = self.last(grid[:, :, :x, :y, :layers].float())
        return torch.relu(made)[:, 0]
