r"""3-D convolutions of few channels, computed as 2-D convolutions whose channels are (layer, channel).

Networks on showers have 6 to 16 channels, too few for the matrix units of a GPU. With the layers among the channels there
are enough: with the kernel w of (O, I, kx, ky, kz) cells, G layers of the output follow from a window of W = G + kz - 1
layers of the input by a 2-D convolution with the banded weight

.. math:: V_{(g, o), (v, i), a, b} = w_{o, i, a, b, v - g} \quad (0 \le v - g < k_z), \qquad 0 \text{ otherwise.}

The same weight serves all blocks of G layers, which are further images of the batch. A fraction kz / W of the products is not
with zeros, so G is chosen by a count of products and of numbers moved: small enough for few zeros, large enough for full tiles.
The band is along the layers since the kernels of these networks are longest there.

Repeating each cell u times before the convolution is folded into the weight: the u outputs between two cells are u channels, and taps that
read the same cell are added. Along an axis of u = 6 and a kernel of 6, 2 taps remain of 6 and the grid that is read is 6
times smaller. This is exact, for x, y and the layers, and zero padding is the padding of the coarse grid.

The weight keeps its 3-D form and name, so that weights and their spectral norms hold for both forms.

What it buys, by ``benchmarks/banded_conv.py`` on one CPU core, 16 showers of 25 x 25 x 25 cells: the generator's forward and backward pass
take 0.23 s instead of 0.68 s, a ratio of 2.9 (3.4 with the form that is chosen by default). Without repeated cells the plain
form is faster on a CPU (0.78), and is used there.

The 2-D convolution y = x * w and its gradients by x and by w are one trilinear form,

.. math:: \langle g, x * w \rangle = \langle I(g, w), x \rangle = \langle W(x, g), w \rangle

so the derivative of each is made of the other two. torch writes the second derivative as a convolution with a kernel as
large as the image, for which there are no fast programs; a penalty on gradients (R1) then takes several times as long. Here all
orders of derivatives use the three operations of a training step (T. Karras et al., arXiv:2106.12423, does the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

__all__ = ["Axis", "BandedConv3d", "choose_block", "convolve"]

Stride = tuple[int, int]
_INPUT, _WEIGHT, _OUTPUT = range(3)


class _Trilinear(Function):
    """The derivative of <g, x * w> by one of (x, w, g), from the two others."""

    @staticmethod
    def forward(ctx: Any, wanted: int, a: Tensor, b: Tensor, stride: Stride, shape: Sequence[int]) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.wanted, ctx.stride = wanted, stride
        if wanted == _OUTPUT:
            return F.conv2d(a, b, stride=stride)
        if wanted == _INPUT:
            found: Tensor = conv2d_input(shape, a, b, stride)  # type: ignore[no-untyped-call]
        else:
            found = conv2d_weight(a, shape, b, stride)  # type: ignore[no-untyped-call]
        return found

    @staticmethod
    def backward(ctx: Any, other: Tensor) -> Any:
        parts = list(ctx.saved_tensors)
        parts.insert(ctx.wanted, other)
        roles = [role for role in range(3) if role != ctx.wanted]
        gradients = [
            _derivative(role, parts, ctx.stride) if needed else None
            for role, needed in zip(roles, ctx.needs_input_grad[1:3], strict=True)
        ]
        return None, *gradients, None, None


def _derivative(wanted: int, parts: Sequence[Tensor], stride: Stride) -> Tensor:
    """Return the derivative by one of the parts (x, w, g), which gives the shape alone."""
    a, b = (part for role, part in enumerate(parts) if role != wanted)
    found: Tensor = _Trilinear.apply(wanted, a, b, stride, parts[wanted].shape)  # type: ignore[no-untyped-call]
    return found


def convolve(x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """Return the convolution (B, O, X', Y') of images (B, I, X, Y) with a weight (O, I, kx, ky), without padding.

    Under autocast both are rounded to its type first, so that all derivatives are computed in that type.
    """
    if torch.compiler.is_exporting():
        return F.conv2d(x, weight, stride=stride)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        x, weight = x.to(kind), weight.to(kind)
    found: Tensor = _Trilinear.apply(_OUTPUT, x, weight, stride, ())  # type: ignore[no-untyped-call]
    return found


_TILE = 64  # channels in a tile of a matrix unit
_ALIGNED = 8  # channels are padded to multiples of it
_MOVED = 500.0  # products in the time that one number takes from and to memory


class Axis:
    """One axis of a convolution with cells repeated before it, computed in blocks of outputs.

    Arguments:
        size: Cells of the input.
        kernel: Cells of the kernel.
        up: How often each is repeated.
        before: Zeros before the repeated cells.
        after: Zeros behind them.
        block: Outputs computed together, a multiple of ``up``.
        multiple: The window is made a multiple of it.
    """

    def __init__(
        self,
        size: int,
        kernel: int,
        up: int = 1,
        before: int = 0,
        after: int = 0,
        block: int = 1,
        multiple: int = 1,
    ) -> None:
        self.size, self.kernel, self.up, self.before, self.after = size, kernel, up, before, after
        self.block, self.multiple = block, multiple
        self.out = size * up + before + after - kernel + 1  # cells of the output
        self.blocks = ceil(self.out / block)  # number of blocks; the last may reach beyond the output
        self.stride = block // up  # cells from one block's window to the next one's
        self.left = ceil(before / up)  # zeros before the cells
        # repeated cells from the start of a window, the cells that a block reads, to the first that it needs
        self.shift = self.left * up - before
        self.window = ceil(ceil((self.shift + block + kernel - 1) / up) / multiple) * multiple
        # zeros behind the cells; negative when the last ones are not read
        self.right = (self.blocks - 1) * self.stride + self.window - self.left - size

    def band(self, weight: Tensor) -> Tensor:
        """Return weights (..., block, window) of weights (..., kernel).

        Row g is the kernel, moved by g: rows of a period one longer than the window, read in a row, do that.
        """
        fine = self.window * self.up
        before = weight.shape[:-1]
        padded = F.pad(weight, (self.shift, fine + 1 - self.shift - self.kernel))
        rows = padded[..., None, :].expand(*before, self.block, fine + 1).flatten(-2)
        return rows[..., : self.block * fine].reshape(*before, self.block, self.window, self.up).sum(-1)


def choose_block(axis: Axis, inputs: int, outputs: int, taps: int, tile: int = _TILE) -> Axis:
    """Return the axis of the layers with the block that costs least, for input and output channels and taps along x, y."""
    multiple = _ALIGNED // gcd(inputs, _ALIGNED)

    def cost(candidate: Axis) -> float:
        read, written = inputs * candidate.window, outputs * candidate.block
        return candidate.blocks * (ceil(written / tile) * tile * read * taps + _MOVED * (read + written))

    candidates = [
        Axis(axis.size, axis.kernel, axis.up, axis.before, axis.after, block, multiple)
        for block in range(axis.up, axis.out + _ALIGNED * axis.up, axis.up)
        if outputs * block % _ALIGNED == 0
    ]
    return min(candidates, key=cost)


class BandedConv3d(nn.Conv3d):
    """Repeat cells, pad with zeros, convolve: as ``nn.Upsample``, ``F.pad`` and ``nn.Conv3d``, or banded.

    Arguments beside those of ``nn.Conv3d``: the size of the input grid, how often each cell is repeated along each axis, and the
    zeros before and behind for each axis.

    Attributes:
        banded: Which form; None for the banded one on CUDA devices, and on others where cells are repeated.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int, int],
        size: tuple[int, int, int],
        up: tuple[int, int, int] = (1, 1, 1),
        pads: Sequence[tuple[int, int]] = ((0, 0), (0, 0), (0, 0)),
        bias: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel, bias=bias)
        self.up = up
        self.banded: bool | None = None
        self.amounts = [n for pad in reversed(pads) for n in pad]
        x, y, z = (Axis(n, k, u, *pad, block=u) for n, k, u, pad in zip(size, kernel, up, pads, strict=True))
        z = choose_block(z, inputs, outputs * x.block * y.block, x.window * y.window)
        self.axes = (x, y, z)  # how the three axes are computed in the banded form
        self.size = x.out, y.out, z.out  # size of the output grid

    def forward(self, grid: Tensor) -> Tensor:
        """Return (B, outputs, X', Y', L') of a grid (B, inputs, X, Y, L)."""
        banded = self.banded
        if banded is None:
            banded = grid.is_cuda or self.up != (1, 1, 1)
        return self._banded(grid) if banded else self._plain(grid)

    def _plain(self, grid: Tensor) -> Tensor:
        if self.up != (1, 1, 1):
            grid = F.interpolate(grid, scale_factor=[float(n) for n in self.up])
        if any(self.amounts):
            grid = F.pad(grid, self.amounts)
        return F.conv3d(grid, self.weight, self.bias)

    def _banded(self, grid: Tensor) -> Tensor:
        x, y, z = self.axes
        n = grid.shape[0]
        zeros = (0, 0, z.left, z.right, y.left, y.right, x.left, x.right)
        cells = grid.permute(0, 2, 3, 4, 1)  # channels last: blocks are then moved as a whole
        if any(zeros):
            cells = F.pad(cells, zeros)
        if z.blocks > 1:
            cells = cells.unfold(3, z.window, z.stride).permute(0, 3, 1, 2, 5, 4)
        images = cells.reshape(n * z.blocks, *cells.shape[-4:-2], -1).permute(0, 3, 1, 2)
        found = convolve(images, self._band(), (x.stride, y.stride))
        if self.bias is not None:
            found = found + self.bias.to(found.dtype).repeat(x.block * y.block * z.block)[:, None, None]
        parts = found.permute(0, 2, 3, 1).reshape(
            n, z.blocks, x.blocks, y.blocks, x.block, y.block, z.block, -1
        )
        joined = parts.permute(0, 2, 4, 3, 5, 1, 6, 7).reshape(
            n, x.blocks * x.block, y.blocks * y.block, z.blocks * z.block, -1
        )
        return joined[:, : x.out, : y.out, : z.out].permute(0, 4, 1, 2, 3)

    def _band(self) -> Tensor:
        """Return the weight of the 2-D convolution: (block x, y, layer, output), (window, input), taps x, y."""
        x, y, z = self.axes
        weight = z.band(self.weight)  # o i kx ky gz wz
        weight = y.band(weight.movedim(3, -1))  # o i kx gz wz gy wy
        weight = x.band(weight.movedim(2, -1))  # o i gz wz gy wy gx wx
        flat = weight.permute(6, 4, 2, 0, 3, 1, 7, 5).reshape(
            self.out_channels * x.block * y.block * z.block, -1, x.window, y.window
        )
        return flat.contiguous(memory_format=torch.channels_last)
