r"""Flow matching: the path from noise to data, its loss, and its integration.

On the straight path x_t = (1 - t) x_0 + t x_1 from noise x_0 ~ N(0, 1) to data x_1 a network estimates the data, D(x_t, t), which
gives the velocity v = (D - x_t) / (1 - t). Its loss is that of the velocity,

.. math:: \frac{|D(x_t, t) - x_1|^2}{\max(1 - t, \epsilon)^2},

averaged over t = sigmoid(m + s g), g normal. Generation integrates dx/dt = v from 0 to 1 with Heun's method; the last step
is Euler's, whose result is D itself.

For numbers of mean 0 and width 1 the best linear estimate of x_1 and the error that it leaves are

.. math:: L = \frac{t x_t}{t^2 + (1 - t)^2}, \qquad c = \frac{1 - t}{\sqrt{t^2 + (1 - t)^2}},

and the estimate is D = L + c F with the network's output F, as in EDM, which is of order one at all times.

References:
    Y. Lipman et al., "Flow matching for generative modeling", arXiv:2210.02747.
    P. Esser et al., arXiv:2403.03206 (logit-normal times).
    T. Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv:2206.00364 (EDM).
    T. Li, K. He, "Back to basics: let denoising generative models denoise", arXiv:2511.13720 (data prediction, velocity loss).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Denoiser", "flow_loss", "integrate", "jump", "preconditioned", "rowwise_heun", "time_grid"]

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, ...), t (B,)) -> the estimate of the data (B, ...)."""

_LEAST = 0.05


def flow_loss(denoise: Denoiser, data: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return the loss of the velocity, a mean over everything.

    Arguments:
        denoise: The network.
        data: x_1 (B, ...).
        noise: x_0 (B, ...).
        times: t (B,).
    """
    t = times.view(-1, *[1] * (data.dim() - 1))
    found = denoise((1 - t) * noise + t * data, times).float()
    return ((found - data) / (1 - t).clamp_min(_LEAST)).square().mean()


def preconditioned(x: Tensor, time: Tensor, output: Tensor) -> Tensor:
    """Return the estimate D (B, ...) of standardised data from x_t (B, ...) at times (B,) and a network's output F (B, ...)."""
    t = time.view(-1, *[1] * (x.dim() - 1))
    norm = t.square() + (1.0 - t).square()
    return t / norm * x + (1.0 - t) * norm.rsqrt() * output


def time_grid(steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Return steps + 1 times from 0 to 1; ``shift`` below 1 puts more of them near 0, above 1 near 1."""
    line = [k / steps for k in range(steps + 1)]
    return tuple(u * shift / (1.0 + (shift - 1.0) * u) for u in line)


def jump(denoise: Denoiser, x: Tensor, start: float, end: float) -> Tensor:
    """Return x at time ``end`` from x at ``start`` by one Euler step."""
    found = denoise(x, x.new_full((len(x),), start)).to(x.dtype)
    return torch.lerp(x, found, (end - start) / (1.0 - start))


def integrate(denoise: Denoiser, x: Tensor, times: Sequence[float]) -> Tensor:
    """Integrate x over rising times up to 1 with Heun's method: two evaluations a step, one in a step that ends at 1."""
    for start, end in pairwise(times):
        ahead = jump(denoise, x, start, end)
        if end < 1.0:
            found = denoise(ahead, x.new_full((len(x),), end)).to(x.dtype)
            velocity = (found - ahead) / (1.0 - end)
            ahead = 0.5 * (x + ahead + (end - start) * velocity)
        x = ahead
    return x


def rowwise_heun(denoise: Denoiser, x: Tensor, start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Integrate each row over its own interval with the same number of Heun steps.

    Arguments:
        denoise: The network.
        x: (B, ...) at the times ``start``.
        start: (B,).
        end: (B,), at most 1; a step that ends at 1 is Euler's.
        steps: Steps.
    """
    shape = (-1, *[1] * (x.dim() - 1))
    width = (end - start) / steps
    step = width.view(shape)
    for number in range(steps):
        now, later = start + number * width, start + (number + 1) * width
        velocity = (denoise(x, now).to(x.dtype) - x) / (1.0 - now).view(shape)
        ahead = x + step * velocity
        inside = (later < 1.0 - 1e-4).view(shape)
        rest = (1.0 - later).clamp_min(1e-3).view(shape)
        second = (denoise(ahead, later.clamp_max(1.0)).to(x.dtype) - ahead) / rest
        x = torch.where(inside, x + 0.5 * step * (velocity + second), ahead)
    return x
