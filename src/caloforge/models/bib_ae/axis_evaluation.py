r"""The decoder along the axis on one processor core, without gradients: the same numbers in half of the time.

:class:`~caloforge.models.bib_ae.axis.AxisDecoder` is written for training. Here

- showers are made one after another, so that the maps of a shower stay in the processor's cache, with the channels of a cell beside each other
  and the layers slowest;
- maps of the position that depend on x and the layer, or on y and the layer, alone are made for these;
- the factor of a layer is part of the weights of its matrix product;
- the two convolutions have fewer multiplications (:mod:`~caloforge.models.bib_ae.minimal_filtering`);
- of the last matrix product there is the logit alone. The further maps are linear functions of the 16 features, of which the
  sampler needs those of few cells.

Additions are in another order, so that logits differ by rounding, some 1e-6.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.models.bib_ae.axis import RADII, TINY, AxisDecoder
from caloforge.models.bib_ae.minimal_filtering import MinimalFilter, padded_layers, scratch_size
from caloforge.models.bib_ae.networks import Pointwise

__all__ = ["AxisEvaluation", "Evaluated"]

_N_RADII = len(RADII)
_ROUND = _N_RADII + 2  # maps that depend on x, y and the layer


class Evaluated(NamedTuple):
    """Output of the decoder for one shower, layers first, in memory that the next shower overwrites."""

    logits: Tensor  # (L, X, Y), logarithms of the shares but for a constant of the shower
    features: Tensor  # (L * X * Y, channels), of which ``AxisDecoder.last`` makes further maps


class _Memory(NamedTuple):
    """Memory of an evaluation. There is little, so that it stays in the processor's cache from shower to shower."""

    mixed: Tensor  # (P, X, Y, channels), the input of the first convolution, 0 in the padding
    between: Tensor  # (P, X, Y, width), that of the second, 0 in the padding
    scratch: Tensor  # features of the position, then images, then the last features
    products: Tensor  # maps of the position, then products
    logits: Tensor  # (L, X, Y)


_KEPT = threading.local()


def _kept(shape: tuple[int, int, int], channels: int, width: int, dtype: torch.dtype) -> _Memory:
    """Return the memory of this thread: new memory takes a tenth of the time of one shower."""
    key = shape, channels, width, dtype
    if getattr(_KEPT, "key", None) != key:
        nx, ny, n_layers = shape
        plane = padded_layers(n_layers), nx, ny
        with torch.inference_mode(False):
            _KEPT.memory = _Memory(
                torch.zeros(*plane, channels, dtype=dtype),
                torch.zeros(*plane, width, dtype=dtype),
                torch.zeros(scratch_size(shape, max(channels, width)), dtype=dtype),
                torch.zeros(scratch_size(shape, width), dtype=dtype),
                torch.zeros(n_layers, nx, ny, dtype=dtype),
            )
        _KEPT.key = key
    memory: _Memory = _KEPT.memory
    return memory


class AxisEvaluation:
    """Evaluation of a decoder whose weights do not change while it is in use; a thread uses one at a time.

    Arguments:
        decoder: The decoder, in single precision on the CPU.
    """

    def __init__(self, decoder: AxisDecoder) -> None:
        self.decoder = decoder
        nx, ny, n_layers = self.shape = decoder.shape
        first, second = (part for part in decoder.basis if isinstance(part, Pointwise))
        convolutions = [part for part in decoder.body if isinstance(part, nn.Conv3d)]
        self.first, self.second, weight = first, second, first.weight
        channels, width = len(weight), convolutions[0].out_channels
        self.round = weight[:, :_ROUND].T.clone()
        self.round[:_N_RADII] /= 4.0
        self.half, self.half_layers = -(-nx // 2), -(-n_layers // 2)
        self.doubled = (torch.arange(n_layers)[:, None] * self.half + torch.arange(nx) // 2).flatten()
        memory = _kept(self.shape, channels, width, weight.dtype)
        self.mixed, self.logits = memory.mixed, memory.logits
        self.hidden = memory.scratch[: n_layers * nx * ny * channels].view(n_layers, nx, ny, channels)
        self.maps = memory.products[: _ROUND * n_layers * nx * ny].view(_ROUND, n_layers, nx, ny)
        last = memory.scratch[: memory.between.numel()].view_as(memory.between)
        self.filters = [
            MinimalFilter(layer, self.shape, memory.scratch, memory.products, result)
            for layer, result in zip(convolutions, (memory.between, last), strict=True)
        ]

    @staticmethod
    def possible(inputs: Tensor) -> bool:
        """Return whether inputs are evaluated so: on a CPU in single precision, without gradients and not for a graph."""
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        plain = inputs.device.type == "cpu" and inputs.dtype == torch.float32
        return plain and not (traced or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))

    def __call__(self, inputs: Tensor, theta: Tensor, moved: Tensor | None = None) -> Iterator[Evaluated]:
        """Yield the showers of latents, noise and conditions (B, inputs), angles (B,), degrees, and displacements (2, B, L), mm."""
        decoder, n = self.decoder, len(inputs)
        n_layers = self.shape[2]
        dx, dy = decoder.maps.from_axis(theta, moved)
        hidden = functional.silu(decoder.trunk(inputs))
        factor, offset = decoder.along(hidden).view(n, -1, n_layers).transpose(1, 2).chunk(2, 2)
        seed = decoder.grid(hidden).view(n, *decoder.seed)
        small = decoder.enlarge(seed.contiguous(memory_format=torch.channels_last_3d)).permute(0, 4, 2, 3, 1)
        for b in range(n):
            self._mix(dx[b, :, 0].T, dy[b, 0].T, 1.0 + factor[b], offset[b], small[b])
            yield Evaluated(self.logits, self._convolve())

    def _mix(self, dx: Tensor, dy: Tensor, factor: Tensor, offset: Tensor, small: Tensor) -> None:
        """Set the input of the convolutions.

        Of distances dx (L, X or 1) and dy (L, Y), mm, factors and offsets (L, channels) and the small grid (L / 2, X / 2, Y / 2, channels).
        """
        nx, ny, n_layers = self.shape
        mixed, channels = self.mixed[1 : n_layers + 1], offset.shape[1]
        constant = offset if self.second.bias is None else offset + self.second.bias[:, 0] * factor
        constant = functional.pad(constant, (0, 0, 0, n_layers % 2)).view(-1, 2, 1, 1, channels)
        rows = small[: self.half_layers, None, : self.half] + constant
        rows = torch.cat([rows, rows], -1).view(2 * self.half_layers * self.half, -1)[:, : ny * channels]
        torch.index_select(rows, 0, self.doubled, out=mixed.view(n_layers * nx, ny * channels))
        self._position(dx.expand(n_layers, nx), dy)
        weights = self.second.weight.T * factor[:, None, :]
        mixed.view(n_layers, nx * ny, channels).baddbmm_(self.hidden.flatten(1, 2), weights)

    def _position(self, dx: Tensor, dy: Tensor) -> None:
        """Set the hidden features (L, X, Y, channels) of distances dx (L, X) and dy (L, Y), mm."""
        maps, weight, pitch = self.maps, self.first.weight, self.decoder.maps.pitch
        near = torch.tanh(dx / pitch)[..., None] * weight[:, _ROUND]
        along = torch.tanh(dy / pitch)[..., None] * weight[:, _ROUND + 1]
        along += torch.tanh(dy / (4.0 * pitch))[..., None] * weight[:, _ROUND + 2]
        along += (self.decoder.maps.depth[:, None] * weight[:, _ROUND + 3])[:, None]
        if self.first.bias is not None:
            along += self.first.bias[:, 0]
        square = dx.square()[:, :, None] + dy.square()[:, None]
        for number, radius in enumerate(RADII):
            torch.log1p(square * (1.0 / radius**2), out=maps[number])
        inverse = (square + TINY).rsqrt_()
        torch.mul(dx[:, :, None], inverse, out=maps[_N_RADII])
        torch.mul(dy[:, None], inverse, out=maps[_N_RADII + 1])
        torch.add(near[:, :, None], along[:, None], out=self.hidden)
        self.hidden.flatten(0, 2).addmm_(maps.flatten(1).T, self.round)
        functional.silu(self.hidden, inplace=True)

    def _convolve(self) -> Tensor:
        """Set the logits and return the features (L * X * Y, width) of a shower from the input of the convolutions."""
        decoder, inner = self.decoder, slice(1, self.shape[2] + 1)
        logits, grid = self.logits.view(-1), self.mixed
        torch.mv(grid[inner].flatten(0, 2), decoder.skip.weight[0], out=logits)
        for convolution in self.filters:
            functional.silu(grid[inner], inplace=True)
            grid = convolution(grid)
        features = functional.silu(grid[inner].flatten(0, 2), inplace=True)
        logits.addmv_(features, decoder.last.weight[0])
        return features
