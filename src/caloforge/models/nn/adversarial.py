r"""Losses of adversarial training: Wasserstein and cross-entropy critics, each with its gradient penalty.

With a critic D, real showers x and generated ones :math:`\tilde x`:

- ``wasserstein``: D lowers :math:`\langle D(\tilde x) \rangle - \langle D(x) \rangle`, the generator
  :math:`-\langle D(\tilde x) \rangle`. The penalty acts on the line between a real and a generated shower,
  :math:`\hat x = x + \epsilon (\tilde x - x)`: :math:`\langle (|\nabla D(\hat x)|_2 - 1)^2 \rangle`, which is two-sided.
- ``bce``: binary cross entropies with D as a logit, the generator's with the label of real showers (non-saturating). The
  penalty is R1, half the squared gradient at x.

References:
    I. Goodfellow et al., Generative adversarial networks, arXiv:1406.2661.
    I. Gulrajani et al., Improved training of Wasserstein GANs, arXiv:1704.00028, equation 3.
    L. Mescheder et al., Which training methods for GANs do actually converge?, arXiv:1801.04406 (R1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["CRITIC_LOSSES", "CriticLoss", "gradient_penalty", "gradient_square"]

Critic = Callable[[Tensor], Tensor]


def gradient_square(outputs: Tensor, inputs: Tensor) -> Tensor:
    """Return the mean over showers of the squared gradient of outputs (B,) at inputs (B, ...)."""
    (gradient,) = torch.autograd.grad(outputs.float().sum(), inputs, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return the Wasserstein penalty, a scalar without its weight (10 in the paper), differentiable by the critic's weights.

    The critic maps (B, k) to (B, 1) or (B,), row by row; real and fake are (B, k), mix uniform numbers epsilon (B, 1) in [0, 1).
    """
    between = torch.lerp(real.detach(), fake.detach(), mix).requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (gradient.square().sum(1) + 1e-12).sqrt()
    return (norm - 1.0).square().mean()


def _r1(critic: Critic, real: Tensor, _fake: Tensor, _mix: Tensor) -> Tensor:
    """Return half the squared gradient at real showers."""
    real = real.detach().requires_grad_(True)
    return 0.5 * gradient_square(critic(real), real)


@dataclass(frozen=True)
class CriticLoss:
    """Losses of a critic and of its generator."""

    critic: Callable[
        [Tensor, Tensor], Tensor
    ]  # of the critic's values for real and for generated showers (B,)
    generator: Callable[[Tensor], Tensor]  # of the critic's values for generated showers (B,)
    penalty: Callable[
        [Critic, Tensor, Tensor, Tensor], Tensor
    ]  # of a critic, real and generated showers (B, n_cells) and uniform numbers (B, 1); a scalar


CRITIC_LOSSES: Mapping[str, CriticLoss] = {
    "wasserstein": CriticLoss(
        lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean(), gradient_penalty
    ),
    "bce": CriticLoss(
        lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        lambda fake: softplus(-fake).mean(),
        _r1,
    ),
}
"""Name to losses."""
