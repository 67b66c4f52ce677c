r"""Networks of the VAE-GAN for small images: encoder, generator and discriminator after LAGAN.

LAGAN's are for 25 x 25 pixels; here they are scaled to 10 x 10, and the widths are our choice where the text says so.

References:
    L. de Oliveira, M. Paganini, B. Nachman, Learning particle physics by example (LAGAN), arXiv:1701.05927.
    T. Miyato et al., Spectral normalization for generative adversarial networks, arXiv:1802.05957.
    T. Salimans et al., Improved techniques for training GANs, arXiv:1606.03498, section 3.2 (minibatch discrimination).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from caloforge.models.nn.cell_networks import mlp

__all__ = [
    "ImageDiscriminator", "ImageEncoder", "ImageGenerator", "LocallyConnected2d", "MinibatchDiscrimination",
    "spectral_norm",
]  # fmt: skip

M = TypeVar("M", bound=nn.Module)
_WARM_UP = 15
_SLOPE = 0.2
_LOG_VARIANCE = 10.0


class LocallyConnected2d(nn.Module):
    r"""Locally connected layer: a convolution of images with separate weights at each position.

    With patches :math:`p_{bi}` of the padded input at each of P output positions i, flattened to in x k x k numbers,

    .. math:: y_{boi} = \sum_c W_{ioc} \, p_{bic} + \beta_{io}

    Arguments:
        size: Height and width of the input.
        stride: Step between positions.
        padding: Zeros around the input.
    """

    bias: nn.Parameter | None

    def __init__(
        self, size: tuple[int, int], inputs: int, outputs: int, kernel: int,
        stride: int = 1, padding: int = 0, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size)
        self.out_size = (height, width)
        # (P, outputs, inputs x kernel x kernel) with P = height x width of the output; the bias is (P, outputs)
        self.weight = nn.Parameter(torch.empty(height * width, outputs, inputs * kernel * kernel))
        self.bias = nn.Parameter(torch.empty(height * width, outputs)) if bias else None
        bound = 1.0 / math.sqrt(self.weight.shape[2])  # as torch's convolutions
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, outputs, *out_size) for images (B, inputs, *size)."""
        padded = functional.pad(images, (self.padding,) * 4)
        windows = padded.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        patches = windows.permute(2, 3, 0, 1, 4, 5).reshape(len(self.weight), images.shape[0], -1)
        values = torch.bmm(patches, self.weight.transpose(1, 2))  # (P, B, outputs)
        if self.bias is not None:
            values = values + self.bias[:, None, :]
        return values.permute(1, 2, 0).reshape(images.shape[0], -1, *self.out_size)


class _SpectralNorm(nn.Module):
    r"""Divide each matrix W of a weight by its largest singular value :math:`\sigma = u^T W v`.

    One power iteration, :math:`v \leftarrow W^T u / |W^T u|, \; u \leftarrow W v / |W v|`, in each forward pass in training.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, separate: bool) -> None:
        super().__init__()
        self.separate = separate
        matrices = self._matrices(weight.detach())
        positions, rows, columns = matrices.shape
        self.register_buffer("u", functional.normalize(torch.randn(positions, rows, 1), dim=1))
        self.register_buffer("v", functional.normalize(torch.randn(positions, columns, 1), dim=1))
        self._iterate(matrices, _WARM_UP)

    def _matrices(self, weight: Tensor) -> Tensor:
        """Return a weight as (positions, rows, columns)."""
        return weight if self.separate else weight.flatten(1)[None]

    @torch.no_grad()
    def _iterate(self, matrices: Tensor, times: int) -> None:
        for _ in range(times):
            self.v.copy_(functional.normalize(matrices.transpose(1, 2) @ self.u, dim=1))
            self.u.copy_(functional.normalize(matrices @ self.v, dim=1))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalised weight, in its own shape and precision, under autocast too."""
        matrices = self._matrices(weight)
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self._iterate(matrices.detach(), 1)
            u, v = self.u.clone(), self.v.clone()  # a later pass moves the buffers before this one's backward
            sigma = (u * (matrices @ v)).sum((1, 2), keepdim=True)
            return (matrices / sigma).reshape(weight.shape)


def spectral_norm(module: M) -> M:
    """Normalise the weight of a linear, convolutional or locally connected module, and return the module.

    Each position of a locally connected module is normalised by itself; torch's function would take them for one matrix.
    """
    weight = module.get_parameter("weight")
    separate = isinstance(module, LocallyConnected2d)
    parametrize.register_parametrization(module, "weight", _SpectralNorm(weight, separate))
    return module


class MinibatchDiscrimination(nn.Module):
    r"""Closeness of a shower to the others of its batch, against mode collapse.

    With :math:`M_{bfd} = \sum_a x_{ba} T_{afd}`,

    .. math:: o_{bf} = \sum_{b'} \exp\Big(-\sum_d |M_{bfd} - M_{b'fd}|\Big)

    The sum includes b' = b, which adds 1.

    Arguments:
        inputs: Input features of a shower.
        features: Output features of a shower.
        dims: Dimensions in which the distance of one feature is taken.
    """

    def __init__(self, inputs: int, features: int = 20, dims: int = 10) -> None:
        super().__init__()
        self.features, self.dims = features, dims
        self.kernel = nn.Parameter(torch.empty(inputs, features * dims))
        nn.init.xavier_uniform_(self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, features) for (B, inputs)."""
        m = (x @ self.kernel).view(len(x), self.features, self.dims).transpose(0, 1)  # (F, B, D)
        return torch.exp(-torch.cdist(m, m, p=1.0)).sum(2).transpose(0, 1)


class ImageEncoder(nn.Module):
    """Three convolutions (LeakyReLU, LeakyReLU, ReLU), then two linear heads; widths and strides are ours.

    conv32 3x3 s1 p1, conv64 3x3 s2 p1, conv128 3x3 s2 p1: 10 x 10 becomes 3 x 3 x 128.

    Arguments:
        extras: Further features of a shower, inputs of the heads.
    """

    def __init__(self, size: tuple[int, int], maps: int, extras: int, latent: int) -> None:
        super().__init__()
        self.size, self.maps, self.extras = size, maps, extras
        self.body = nn.Sequential(
            nn.Conv2d(maps, 32, 3, padding=1), nn.LeakyReLU(_SLOPE),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE),
            nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        height, width = ((side + 3) // 4 for side in size)
        self.mean = nn.Linear(128 * height * width + extras, latent)
        self.log_variance = nn.Linear(128 * height * width + extras, latent)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, each (B, latent), of a view (B, extras + maps x cells)."""
        images = view[:, self.extras :].view(len(view), self.maps, *self.size)
        features = torch.cat([self.body(images), view[:, : self.extras]], dim=1)
        return self.mean(features), self.log_variance(features).clamp(-_LOG_VARIANCE, _LOG_VARIANCE)


class ImageGenerator(nn.Module):
    """LAGAN's generator, scaled.

    dense 3x3x128 -> conv64 5x5, LeakyReLU, BN, up x2 -> LC6 5x5 p2, LeakyReLU, BN, up x2 -> LC6 2x2, LeakyReLU ->
    LC1 2x2 without bias: 12 x 12, then 11 x 11, then 10 x 10. LAGAN has 3x3 in the last but one; 2x2 lets 10 x 10
    come out. The ReLU of the output is the caller's. ``extras`` further numbers come from a small network beside it.

    Arguments:
        size: Height and width of the images; 2 more must be a multiple of 4.
        channels: Of the dense layer, the convolution and the two locally connected layers.
        extras: Numbers of a shower before the pixels.
    """

    def __init__(self, size: tuple[int, int], latent: int, channels: Sequence[int], extras: int) -> None:
        super().__init__()
        first, second, third, fourth = channels
        start = ((size[0] + 2) // 4, (size[1] + 2) // 4)
        twice, large = (2 * start[0], 2 * start[1]), (size[0] + 2, size[1] + 2)
        self.body = nn.Sequential(
            nn.Linear(latent, first * start[0] * start[1]), nn.Unflatten(1, (first, *start)),
            nn.Conv2d(first, second, 5, padding=2), nn.LeakyReLU(_SLOPE), nn.BatchNorm2d(second),
            nn.Upsample(scale_factor=2),
            LocallyConnected2d(twice, second, third, 5, padding=2), nn.LeakyReLU(_SLOPE), nn.BatchNorm2d(third),
            nn.Upsample(scale_factor=2),
            LocallyConnected2d(large, third, fourth, 2), nn.LeakyReLU(_SLOPE),
            LocallyConnected2d((size[0] + 1, size[1] + 1), fourth, 1, 2, bias=False),
            nn.Flatten(),
        )  # fmt: skip
        self.side = mlp(latent, (64, 64), extras) if extras else None

    def forward(self, z: Tensor) -> Tensor:
        """Return (B, extras + cells), of any sign, for latent numbers (B, latent)."""
        image: Tensor = self.body(z)
        return image if self.side is None else torch.cat([self.side(z), image], dim=1)


class ImageDiscriminator(nn.Module):
    """LAGAN's discriminator, scaled, with spectral norm in place of batch norm, seeing the reconstruction difference.

    conv32 5x5, LeakyReLU, dropout -> three [LC8, LeakyReLU, dropout] 5x5 s2, 5x5 s1, 3x3 s1 -> average pool 2 ->
    flatten, with minibatch discrimination, extras and the difference, to one dense layer. LAGAN halves twice; from
    10 x 10 once is enough.

    Arguments:
        extras: Further features of a shower, inputs of the last layer.
        channels: Of the convolution and of the locally connected layers.
    """

    def __init__(
        self, size: tuple[int, int], maps: int, extras: int, channels: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.size, self.maps, self.extras = size, maps, extras
        first, second = channels
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        layers: list[nn.Module] = []
        for layer in (
            nn.Conv2d(maps, first, 5, padding=2),
            LocallyConnected2d(size, first, second, 5, stride=2, padding=2),
            LocallyConnected2d(half, second, second, 5, padding=2),
            LocallyConnected2d(half, second, second, 3, padding=1),
        ):
            layers += [spectral_norm(layer), nn.LeakyReLU(_SLOPE), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())
        features = second * (half[0] // 2) * (half[1] // 2)
        self.minibatch = MinibatchDiscrimination(features)
        difference = extras + maps * size[0] * size[1]
        self.last = spectral_norm(nn.Linear(features + self.minibatch.features + extras + difference, 1))

    def forward(self, view: Tensor, difference: Tensor) -> Tensor:
        """Return logits (B, 1), large for real showers.

        Arguments:
            view: (B, extras + maps x cells).
            difference: (B, extras + maps x cells), reconstruction minus input, zero for images without one.
        """
        images = view[:, self.extras :].view(len(view), self.maps, *self.size)
        features = self.body(images)
        together = [features, self.minibatch(features), view[:, : self.extras], difference]
        logits: Tensor = self.last(torch.cat(together, dim=1))
        return logits
