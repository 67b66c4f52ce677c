r"""Locally connected layers: convolutions whose weights are not shared between positions.

With patches :math:`p_{bi}` of the padded input at each of P output positions i, flattened to in x k x k numbers,

.. math:: y_{boi} = \sum_c W_{ioc} \, p_{bic} + \beta_{io}

References:
    L. de Oliveira, M. Paganini, B. Nachman, Learning particle physics by example (LAGAN), arXiv:1701.05927.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LocallyConnected2d"]


class LocallyConnected2d(nn.Module):
    """Unshared convolution of images.

    Arguments:
        size: Height and width of the input.
        inputs: Input channels.
        outputs: Output channels.
        kernel: Side of the square kernel.
        stride: Step between positions.
        padding: Zeros around the input.
        bias: Add an offset for each position and output channel.

    Attributes:
        weight: (P, outputs, inputs x kernel x kernel).
        bias: (P, outputs), or None.
        out_size: Height and width of the output, P = height x width.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        size: tuple[int, int],
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size)
        self.out_size = (height, width)
        self.weight = nn.Parameter(torch.empty(height * width, outputs, inputs * kernel * kernel))
        self.bias = nn.Parameter(torch.empty(height * width, outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as torch draws those of a convolution: uniform within 1 / sqrt(inputs x kernel^2)."""
        bound = 1.0 / math.sqrt(self.weight.shape[2])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, outputs, *out_size) for images (B, inputs, *size)."""
        padded = functional.pad(images, (self.padding,) * 4)
        windows = padded.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        patches = windows.permute(2, 3, 0, 1, 4, 5).reshape(len(self.weight), len(images), -1)
        values = torch.bmm(patches, self.weight.transpose(1, 2))  # (P, B, outputs)
        if self.bias is not None:
            values = values + self.bias[:, None, :]
        return values.permute(1, 2, 0).reshape(len(images), -1, *self.out_size)
