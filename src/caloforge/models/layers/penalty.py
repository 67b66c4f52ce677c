r"""Gradient penalty of a Wasserstein critic.

On the line between a real and a generated shower, :math:`\hat x = x + \epsilon (\tilde x - x)`,

.. math:: P = \langle (|\nabla_{\hat x} D(\hat x)|_2 - 1)^2 \rangle

It is two-sided: gradients below 1 are punished too.

References:
    I. Gulrajani et al., Improved training of Wasserstein GANs, arXiv:1704.00028, equation 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradient_penalty"]


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return the penalty, differentiable with respect to the critic's weights.

    Arguments:
        critic: Turns (B, k) into (B, 1) or (B,), each row by itself.
        real: (B, k).
        fake: (B, k).
        mix: (B, 1) uniform numbers in [0, 1), the part of ``fake``.

    Returns:
        A scalar, to be multiplied by its weight (10 in the paper).
    """
    between = torch.lerp(real.detach(), fake.detach(), mix).requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (gradient.square().sum(1) + 1e-12).sqrt()
    return (norm - 1.0).square().mean()
