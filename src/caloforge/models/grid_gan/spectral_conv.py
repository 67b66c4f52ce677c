r"""Convolutions of images by Fourier transforms, for wide kernels and many images on a CPU, without gradients.

A layer's outputs are correlations, :math:`y_i = \sum_a w_a x_{i - p + a}` along both axes, with p zeros before the image. With N at least
the image's cells and the zeros on either side they are circular, and

.. math:: \hat x_f = \sum_j x_j e^{-2 \pi i f j / N}, \qquad \hat w_f = \sum_a w_a e^{2 \pi i f (a - p) / N}, \qquad
          y_j = \frac{1}{N} \sum_f \hat x_f \hat w_f e^{2 \pi i f j / N} .

Channels are mixed frequency by frequency: for 64 channels of 30 x 30 cells and kernels of 8 x 8 with 30 times fewer multiplications. The
transforms are matrix products, which are faster than a fast transform at these sizes. Of a real image half of the frequencies of one
axis suffice. A complex product takes three real ones (Gauss),

.. math:: t_1 = (a + b) c, \quad t_2 = a (d - c), \quad t_3 = b (c + d): \qquad (a + ib)(c + id) = (t_1 - t_3) + i (t_1 + t_2),

where the transforms make a + b and take :math:`t_1, t_2, t_3` themselves. In all the layer takes a seventh of the time, and it differs from
the direct convolution by rounding (1e-6 of the values' spread). The transform of the weights takes as long as the layer for some ten
images, so that few images are convolved directly.

References:
    M. Mathieu, M. Henaff, Y. LeCun, Fast training of convolutional networks through FFTs, arXiv:1312.5851.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SpectralConv", "evaluate", "transform_size"]

_PARTS = 3  # real products of a complex one


def transform_size(cells: int, before: int, behind: int) -> int:
    """Return N, even, for an image of that many cells along an axis and zeros before and behind it."""
    n = cells + max(before, behind)
    return n + n % 2


class SpectralConv:
    """A convolution of square images with stride 1 and no bias.

    Images are (W, H, B, channels), contiguous.

    Arguments:
        weight: (outputs, inputs, k, k), the last axis along W, on the CPU.
        cells: W = H.
        before, behind: Zeros on either side of the images, along both axes.
    """

    def __init__(self, weight: Tensor, cells: int, before: int = 0, behind: int = 0) -> None:
        kernel = weight.shape[-1]
        self.cells, self.found = cells, cells + before + behind - kernel + 1
        n = transform_size(cells, before, behind)
        self.half = n // 2 + 1
        inside, made = (torch.arange(size, dtype=torch.float64) for size in (cells, self.found))
        places = torch.arange(kernel, dtype=torch.float64) - before
        half, whole = (torch.arange(size, dtype=torch.float64) for size in (self.half, n))

        def waves(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            phase = 2.0 * math.pi / n * torch.outer(frequencies, positions)
            return torch.cos(phase), torch.sin(phase)

        cos, sin = waves(half, inside)
        self.first = torch.stack([cos, -sin], 1).flatten(0, 1).to(weight)  # (half, re im) x W
        cos, sin = waves(whole, inside)
        real, imaginary = torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)
        self.second = torch.cat([real, imaginary, real + imaginary]).to(weight)  # (a b a+b, N) x (re im, H)
        cos, sin = (wave.T / n for wave in waves(whole, made))
        real, imaginary = torch.cat([-sin, -cos, cos - sin], 1), torch.cat([cos, -sin, sin + cos], 1)
        self.third = torch.cat([real, imaginary]).to(weight)  # (re im, H) x (t2 t3 t1, N)
        cos, sin = waves(half, made)
        twice = torch.full_like(half, 2.0 / n)
        twice[0] = twice[-1] = 1.0 / n
        self.fourth = (torch.stack([cos, -sin], 1) * twice[:, None, None]).flatten(0, 1).T.to(weight)

        along, across = waves(half, places), waves(whole, places)
        rows = torch.stack(along, 1).flatten(0, 1).to(weight)  # (half, re im) x k
        real, imaginary = torch.cat([across[0], -across[1]], 1), torch.cat([across[1], across[0]], 1)
        mixed = torch.cat([imaginary - real, real + imaginary, real]).to(
            weight
        )  # (d-c c+d c, N) x (re im, k)
        image = weight.permute(3, 2, 1, 0).reshape(kernel, -1)
        spectrum = torch.mm(rows, image).view(self.half, 2 * kernel, -1)
        self.weights = torch.matmul(mixed, spectrum).view(self.half, -1, *weight.shape[1::-1])

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (W', H', B, outputs) of images (W, H, B, inputs)."""
        n_images, n_inputs = images.shape[2:]
        columns = n_images * self.weights.shape[3]
        x = torch.mm(self.first, images.view(self.cells, -1)).view(self.half, 2 * self.cells, -1)
        y = images.new_empty(self.half, 2 * self.found, columns)
        for part, weight, result in zip(x, self.weights, y, strict=True):
            mixed = torch.bmm(torch.mm(self.second, part).view(-1, n_images, n_inputs), weight)
            torch.mm(self.third, mixed.view(-1, columns), out=result)
        found = torch.mm(self.fourth, y.view(2 * self.half, -1))
        return found.view(self.found, self.found, n_images, -1)


_FEWEST_IMAGES = 32
_SLOWER = 1.5  # time of a multiplication of the transforms over that of a direct convolution
_IMAGES = 50
"""Images of a pass, which stay in the cache."""


def evaluate(layers: nn.Sequential, images: Tensor) -> Tensor:
    """Return what convolutions, rectifiers, batch norms and dropouts make of images (B, channels, H, W), wide convolutions by transforms.

    As the layers themselves do where gradients, training, a graph, a GPU or few images ask for it.
    """
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    plain = images.device.type == "cpu" and images.dtype == torch.float32
    learning = layers.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    if traced or learning or not plain or len(images) < _FEWEST_IMAGES:
        made: Tensor = layers(images)
        return made
    spectra: dict[nn.Module, SpectralConv] = {}
    return torch.cat([_evaluated(layers, part, spectra) for part in torch.split(images, _IMAGES)])


def _evaluated(layers: nn.Sequential, images: Tensor, spectra: dict[nn.Module, SpectralConv]) -> Tensor:
    """Return what ``evaluate`` does for some images; ``spectra`` of convolutions are added where they are missing."""
    x, pad = images.contiguous(memory_format=torch.channels_last), (0, 0, 0, 0)
    for layer in layers:
        if isinstance(layer, nn.ZeroPad2d):
            pad = layer.padding
        elif isinstance(layer, nn.Conv2d) and is_faster(layer, x.shape[-1], *pad[:2]):
            if layer not in spectra:
                spectra[layer] = SpectralConv(layer.weight, x.shape[-1], *pad[:2])
            x, pad = spectra[layer](x.permute(3, 2, 0, 1).contiguous()).permute(2, 3, 1, 0), (0, 0, 0, 0)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            x = functional.pad(x, pad) if any(pad) else x
            x, pad = layer(x.contiguous(memory_format=torch.channels_last)), (0, 0, 0, 0)
        elif isinstance(layer, nn.LeakyReLU):
            x = functional.leaky_relu(x, layer.negative_slope, inplace=True)
        elif isinstance(layer, nn.BatchNorm2d):
            factor, offset = (value[:, None, None] for value in _affine(layer))
            torch.addcmul(offset, x, factor, out=x)
        else:
            x = layer(x)
    return x


def is_faster(layer: nn.Conv2d, cells: int, before: int, behind: int) -> bool:
    """Return whether a convolution takes less time by transforms, by the number of multiplications an image."""
    kernel, inputs, outputs = layer.kernel_size[0], layer.in_channels, layer.out_channels
    found, n = cells + before + behind - kernel + 1, transform_size(cells, before, behind)
    half = n // 2 + 1
    forward, back = (2 * half * size * size + 2 * _PARTS * n * half * size for size in (cells, found))
    products = _PARTS * n * half * inputs * outputs + forward * inputs + back * outputs
    return _SLOWER * products < kernel**2 * found**2 * inputs * outputs


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return factor and offset (channels,) of a batch norm in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return factor, norm.bias - norm.running_mean * factor
