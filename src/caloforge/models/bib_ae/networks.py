r"""Published encoder, decoder and post-processor of the BIB-AE, with sizes scaled from the grid.

For 30 x 60 x 30 cells, in the order (layers, x, y) of the paper:

- encoder: conv8 (2,2,3) stride (1,1,2), conv16 2^3 stride 2, conv32 4^3 stride 2, conv32 4^3, LeakyReLU after each; with the
  864 numbers and the conditions -> 800 -> 512 -> mean and log variance of the latents;
- decoder: latents, noise, conditions -> 512 -> 800 -> 8 x 7 x 7 x 15 -> convT 5^3 (4 along y) stride 2 -> convT 4^3 stride 2 ->
  seven convolutions 3^3 of 8, 8, 8, 16, 32, 16, 1 channels, layer norm, ReLU at the end;
- post-processor: six 1 x 1 x 1 convolutions of 128 channels take the decoded cell and, the same for all cells of a shower, the sum
  of the decoded cells, the conditions and the energy sum of the code, and return the cell, not negative.

Our readings: 7 x 7 x 15 becomes 17 x 17 x 32 and 36 x 36 x 66, so the first three convolutions are unpadded and the rest padded, which
results in 30 x 30 x 60. Another grid of n cells takes the smallest seed that reaches n + 6, with a first kernel of 5 or 4, and is cut to
n. The encoder halves y first where it has half as many cells again as x; its ``small`` form, padded and with a stride of 2 from the
start, is ours. Layer norms are over all channels and cells with one factor a channel: one a cell would be most of the weights. In the
post-processor the cell enters as itself and as ln(cell + 0.001 MeV), the sums as logarithms, and the output is added to the
decoded cell before the ReLU.

References:
    E. Buhmann et al., Getting high, arXiv:2005.05334, section 3.3.
    S. Diefenbacher et al., New angles on fast calorimeter shower simulation, arXiv:2303.18150.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["BibDecoder", "BibEncoder", "Pointwise", "PostProcessor", "seed_size"]

_SLOPE = 0.01
_CHANNELS = (8, 8, 8, 16, 32, 16)
_UNPADDED = 3
_UNPADDED_FROM = 22  # cells from which on the encoder can do without padding
_SEED = 8
_HIDDEN = (512, 800)
_LAYERS = 6


class Pointwise(nn.Module):
    """1 x 1 x 1 convolution as a batched matrix product, whose gradient takes half the time of Conv3d's on a CPU."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs, 1)) if bias else None
        bound = 1.0 / math.sqrt(inputs)  # as torch's convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, ...) of (B, inputs, ...)."""
        n = x.shape[0]
        out = torch.bmm(self.weight.expand(n, -1, -1), x.flatten(2))
        if self.bias is not None:
            out.add_(self.bias)
        return out.view(n, len(self.weight), *x.shape[2:])


def seed_size(n: int) -> tuple[int, int]:
    """Return cells of the seed and the first kernel for an axis of n cells."""
    middle = -(-(n + 2 * _UNPADDED - 2) // 2)
    kernel = 5 if middle % 2 else 4
    return max(2, -(-(middle - kernel) // 2) + 1), kernel


class BibEncoder(nn.Module):
    """Encoder: mean and log variance of the latents of a shower.

    Arguments:
        shape: Cells along x, y and the layers.
        channels: Images of a shower.
        small: Begin with a stride of 2 along all axes: a quarter of the work.
    """

    def __init__(
        self, shape: Sequence[int], channels: int, conditions: int, latent: int, small: bool = False
    ) -> None:
        super().__init__()
        long = shape[1] >= 1.5 * shape[0]
        first = (2, 2, 2) if small else (1, 2, 1) if long else (1, 1, 1)
        kernel = (4, 4, 4) if small else (2, 3, 2) if long else (2, 2, 2)
        last = 3 if small else 4
        pad = int(small or min(shape) < _UNPADDED_FROM)
        self.body = nn.Sequential(
            nn.Conv3d(channels, 8, kernel, first, int(small)), nn.LeakyReLU(_SLOPE),
            nn.Conv3d(8, 16, 2, 2), nn.LeakyReLU(_SLOPE),
            nn.Conv3d(16, 32, 4, 2, pad), nn.LeakyReLU(_SLOPE),
            nn.Conv3d(32, 32, last, 1, pad), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        with torch.no_grad():
            features = self.body(torch.zeros(1, channels, *shape)).numel()
        self.dense = nn.Sequential(
            nn.Linear(features + conditions, 800), nn.LeakyReLU(_SLOPE),
            nn.Linear(800, 512), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        self.mean = nn.Linear(512, latent)
        self.log_variance = nn.Linear(512, latent)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -2.0)

    def forward(self, images: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, latent) of images (B, channels, X, Y, L) and conditions (B, k)."""
        features = self.dense(torch.cat([self.body(images).flatten(1), conditions], 1))
        with torch.autocast(images.device.type, enabled=False):
            return self.mean(features.float()), self.log_variance(features.float()).clamp(-12.0, 6.0)


class BibDecoder(nn.Module):
    """The published decoder of latents, noise and conditions (``inputs``) to cells along x, y and the layers (``shape``)."""

    def __init__(self, shape: Sequence[int], inputs: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        sizes, kernels = zip(*(seed_size(n) for n in shape), strict=True)
        self.seed = (_SEED, *sizes)
        cells = _SEED * sizes[0] * sizes[1] * sizes[2]
        self.dense = nn.Sequential(
            nn.Linear(inputs, _HIDDEN[0]), nn.LayerNorm(_HIDDEN[0]), nn.LeakyReLU(_SLOPE),
            nn.Linear(_HIDDEN[0], _HIDDEN[1]), nn.LayerNorm(_HIDDEN[1]), nn.LeakyReLU(_SLOPE),
            nn.Linear(_HIDDEN[1], cells), nn.LayerNorm(cells), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        parts: list[nn.Module] = []
        for kernel in (kernels, (4, 4, 4)):
            transposed = nn.ConvTranspose3d(_SEED, _SEED, kernel, 2)
            parts += [transposed, nn.GroupNorm(1, _SEED), nn.LeakyReLU(_SLOPE)]
        for number, (before, after) in enumerate(pairwise((_SEED, *_CHANNELS))):
            convolution = nn.Conv3d(before, after, 3, padding=int(number >= _UNPADDED))
            parts += [convolution, nn.GroupNorm(1, after), nn.LeakyReLU(_SLOPE)]
        self.body = nn.Sequential(*parts)
        self.last = nn.Conv3d(_CHANNELS[-1], 1, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), not negative, of latents, noise and conditions (B, inputs)."""
        grid = self.body(self.dense(inputs).view(len(inputs), *self.seed))
        x, y, layers = self.shape
        with torch.autocast(inputs.device.type, enabled=False):
            cells: Tensor = self.last(grid[:, :, :x, :y, :layers].float())
        return torch.relu(cells)[:, 0]


class PostProcessor(nn.Module):
    """The published post-processor, which corrects each decoded cell by itself.

    ``conditions``: number of conditions beside the sum of the decoded cells.
    """

    def __init__(self, conditions: int, width: int = 128) -> None:
        super().__init__()
        self.cell = Pointwise(2, width)
        self.condition = nn.Linear(1 + conditions, width)
        parts: list[nn.Module] = [nn.LeakyReLU(_SLOPE)]
        for _ in range(_LAYERS - 2):
            parts += [Pointwise(width, width), nn.LeakyReLU(_SLOPE)]
        self.body = nn.Sequential(*parts)
        self.last = Pointwise(width, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, cells: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, of decoded ones (B, X, Y, L) and conditions (B, k)."""
        total = torch.log(cells.sum((1, 2, 3)).clamp_min(1e-3) / 1e3)[:, None]
        local = self.cell(torch.stack([cells, torch.log(cells + 1e-3)], 1))
        common = self.condition(torch.cat([total, conditions], 1))
        features = self.body(local + common[:, :, None, None, None])
        with torch.autocast(cells.device.type, enabled=False):
            change: Tensor = self.last(features.float())
        return torch.relu(cells + change[:, 0])
