r"""A 2-D convolution whose gradients have gradients that are convolutions too.

Convolution y = x * w, gradient of the input and gradient of the weight are one trilinear form

.. math:: \langle g, x * w \rangle = \langle I(g, w), x \rangle = \langle W(x, g), w \rangle

so the derivative of each is made of the other two. torch writes the second derivative as a convolution with a kernel as
large as the image, for which there are no fast programs; a penalty on gradients (R1) then takes several times as
long as it needs. Here all orders of derivatives use the three programs that each training step uses.

References:
    T. Karras et al., Alias-free generative adversarial networks, arXiv:2106.12423, for the same remedy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

__all__ = ["convolve"]

Stride = tuple[int, int]


class _Convolution(Function):
    """(x, w) -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, stride=stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, weight, ctx.stride, x.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient, ctx.stride, weight.shape)
        return of_x, of_weight, None


class _InputGradient(Function):
    """(g, w) -> I."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, stride: Stride, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.stride = stride
        found: Tensor = conv2d_input(shape, weight, gradient, stride)  # type: ignore[no-untyped-call]
        return found

    @staticmethod
    def backward(ctx: Any, other: Tensor) -> Any:
        gradient, weight = ctx.saved_tensors
        of_gradient = of_weight = None
        if ctx.needs_input_grad[0]:
            of_gradient = _convolution(other, weight, ctx.stride)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(other, gradient, ctx.stride, weight.shape)
        return of_gradient, of_weight, None, None


class _WeightGradient(Function):
    """(x, g) -> W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor, stride: Stride, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.stride = stride
        found: Tensor = conv2d_weight(x, shape, gradient, stride)  # type: ignore[no-untyped-call]
        return found

    @staticmethod
    def backward(ctx: Any, other: Tensor) -> Any:
        x, gradient = ctx.saved_tensors
        of_x = of_gradient = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, other, ctx.stride, x.shape)
        if ctx.needs_input_grad[1]:
            of_gradient = _convolution(x, other, ctx.stride)
        return of_x, of_gradient, None, None


def _convolution(x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    found: Tensor = _Convolution.apply(x, weight, stride)  # type: ignore[no-untyped-call]
    return found


def _input_gradient(gradient: Tensor, weight: Tensor, stride: Stride, shape: torch.Size) -> Tensor:
    found: Tensor = _InputGradient.apply(gradient, weight, stride, shape)  # type: ignore[no-untyped-call]
    return found


def _weight_gradient(x: Tensor, gradient: Tensor, stride: Stride, shape: torch.Size) -> Tensor:
    found: Tensor = _WeightGradient.apply(x, gradient, stride, shape)  # type: ignore[no-untyped-call]
    return found


def convolve(x: Tensor, weight: Tensor, stride: Stride) -> Tensor:
    """Return the convolution (B, O, X', Y') of images (B, I, X, Y) with a weight (O, I, kx, ky), without padding.

    Under autocast both are rounded to its type first, so that all derivatives are computed in that type.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        x, weight = x.to(kind), weight.to(kind)
    return _convolution(x, weight, stride)
