r"""Encoder, decoder and post-processors of the BIB-AE.

Encoder and decoder of the published BIB-AE, with sizes scaled from the grid.

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

The published post-processor: it changes each cell by itself, so that the spectrum of the cells comes out.

Six 1 x 1 x 1 convolutions of 128 channels take the decoded cell and, the same for all cells of a shower, the sum of the decoded cells,
the conditions and the sum of the energy that was drawn, and give the cell, not negative. Ours: the cell enters as itself and as ln(cell +
0.001 MeV), the sums as logarithms, and the output is added to the decoded cell before the ReLU.

References:
    E. Buhmann et al., arXiv:2005.05334, section 3.3, and arXiv:2303.18150.

The improved post-processor: draws each cell from the distribution that it has given the decoder's mean.

It is a stack of six 1 x 1 x 1 convolutions as the published one, but takes a normal number n of each cell too and does not average over
what the decoder cannot know. From ln m, the decoder's maps and the conditions, three convolutions give the probability p that
the cell holds energy. With :math:`\tau = \Phi(n)` it does where :math:`\tau > 1 - p`, and then

.. math:: \tau' = \frac{\tau - (1 - p)}{p}, \qquad \ln e = q(\tau')

with q from three more convolutions. p is learnt by the cross entropy and q, the quantile function of the energy, by the
pinball loss :math:`\langle (v - q) (\tau' - [v < q]) \rangle` at random :math:`\tau'` (W. Dabney et al., implicit quantile networks,
arXiv:1806.06923), both from pairs of true cells and decoded means. So the spectrum of the cells, the MIP peak and the number of hits follow from
likelihoods. Gradients pass the step at :math:`\tau = 1 - p` through a sigmoid of temperature 0.3 (C. Maddison et al.,
arXiv:1611.00712).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BibDecoder", "BibEncoder", "CellSampler", "Pointwise", "PostProcessor", "seed_size"]


class Pointwise(nn.Module):
    """Mix the channels of each cell.

    Arguments:
        inputs: Channels that come in.
        outputs: Channels that come out.
        bias: Whether each channel has an offset.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs, 1)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and offsets uniformly within the square root of 1 / inputs, as torch's convolutions."""
        bound = 1.0 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, ...) of (B, inputs, ...)."""
        n = len(x)
        out = torch.bmm(self.weight.expand(n, -1, -1), x.flatten(2))
        if self.bias is not None:
            out.add_(self.bias)
        return out.view(n, -1, *x.shape[2:])


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


_LAYERS = 6


class PostProcessor(nn.Module):
    """Correct decoded cells.

    Arguments:
        conditions: Number of conditions beside the sum of the decoded cells.
        width: Channels.
    """

    def __init__(self, conditions: int, width: int = 128) -> None:
        super().__init__()
        self.cell = Pointwise(2, width)
        self.given = nn.Linear(1 + conditions, width)
        parts: list[nn.Module] = [nn.LeakyReLU(0.01)]
        for _ in range(_LAYERS - 2):
            parts += [Pointwise(width, width), nn.LeakyReLU(0.01)]
        self.body = nn.Sequential(*parts)
        self.last = Pointwise(width, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, cells: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, of decoded ones (B, X, Y, L) and conditions (B, k)."""
        total = torch.log(cells.sum((1, 2, 3)).clamp_min(1e-3) / 1e3)[:, None]
        local = self.cell(torch.stack([cells, torch.log(cells + 1e-3)], 1))
        given = self.given(torch.cat([total, conditions], 1))
        found = self.body(local + given[:, :, None, None, None])
        with torch.autocast(cells.device.type, enabled=False):
            change: Tensor = self.last(found.float())
        return torch.relu(cells + change[:, 0])


_UNIT = 0.2
"""MeV; about the energy of a MIP in half a millimetre of silicon."""
_LOWEST = 1e-6
_TEMPERATURE = 0.3
_EDGE = 1e-6
_REACH = 10.0
"""Largest |ln(e / 0.2 MeV)| of a cell."""


class CellSampler(nn.Module):
    """Draw cells.

    Arguments:
        features: Maps beside the mean.
        conditions: Numbers a shower that condition it.
        width: Channels.
    """

    def __init__(self, features: int, conditions: int, width: int = 32) -> None:
        super().__init__()
        self.local = Pointwise(1 + features, width)
        self.given = nn.Linear(conditions, width)
        self.common = nn.Sequential(nn.SiLU(), Pointwise(width, width), nn.SiLU())
        self.hit = Pointwise(width, 1)
        self.noise = Pointwise(1, width, bias=False)
        self.energy = nn.Sequential(Pointwise(width, width), nn.SiLU(), Pointwise(width, 1))
        self.mixed = Pointwise(width, width)

    def describe(self, mean: Tensor, maps: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden features (B, width, X, Y, L) and the logit of p (B, X, Y, L).

        Arguments:
            mean: Decoded mean energies (B, X, Y, L), MeV.
            maps: (B, features, X, Y, L).
            conditions: (B, k).
        """
        log = torch.log(mean.clamp_min(_LOWEST) / _UNIT)[:, None]
        local = self.local(torch.cat([log / 4.0, maps], 1))
        found = self.common(local + self.given(conditions)[:, :, None, None, None])
        with torch.autocast(mean.device.type, enabled=False):
            logit = self.hit(found.float())[:, 0] + log[:, 0]
        return found, logit

    def quantile(self, found: Tensor, normal: Tensor) -> Tensor:
        """Return ln(e / 0.2 MeV) of hits: features (B, width, ...) and normal numbers (B, ...)."""
        mixed = functional.silu(self.mixed(found) + self.noise(normal[:, None]))
        with torch.autocast(found.device.type, enabled=False):
            value: Tensor = self.energy(mixed.float())
        return value[:, 0].clamp(-_REACH, _REACH)

    def forward(self, mean: Tensor, maps: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, for normal numbers of the cells (B, X, Y, L)."""
        found, logit = self.describe(mean, maps, conditions)
        tau = (0.5 * torch.erfc(-noise / math.sqrt(2.0))).clamp(_EDGE, 1.0 - _EDGE)
        over = logit + torch.logit(tau)
        hit = (over > 0).float()
        soft = torch.sigmoid(over / _TEMPERATURE)
        gate = hit + soft - soft.detach()
        empty = torch.sigmoid(-logit.detach())
        inside = ((tau - empty) / (1.0 - empty).clamp_min(_EDGE)).clamp(_EDGE, 1.0 - _EDGE)
        normal = math.sqrt(2.0) * torch.erfinv(2.0 * inside - 1.0)
        return gate * _UNIT * torch.exp(self.quantile(found, normal))

    def losses(
        self, mean: Tensor, maps: Tensor, conditions: Tensor, cells: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of p and of q, sums over cells and means over showers.

        Arguments:
            mean: Decoded mean energies (B, X, Y, L), MeV.
            maps: (B, features, X, Y, L).
            conditions: (B, k).
            cells: True cells (B, X, Y, L), MeV.
            normal: Normal numbers (B, k) of the quantiles; they are learnt at the k largest cells of each shower.
        """
        found, logit = self.describe(mean, maps, conditions)
        n = len(cells)
        hits = functional.binary_cross_entropy_with_logits(logit, (cells > 0).float(), reduction="sum") / n
        top, where = torch.topk(cells.flatten(1), normal.shape[1], dim=1)
        there = found.flatten(2).gather(2, where[:, None].expand(-1, found.shape[1], -1))
        q = self.quantile(there[..., None, None], normal[..., None, None])[..., 0, 0]
        true = torch.log(top.clamp_min(_UNIT * math.exp(-_REACH)) / _UNIT)
        tau = 0.5 * torch.erfc(-normal / math.sqrt(2.0))
        off = true - q
        pinball = torch.where(top > 0, off * (tau - (off < 0).float()), torch.zeros_like(off))
        return {"hits": hits, "energies": pinball.sum() / n}
