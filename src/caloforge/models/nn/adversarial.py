r"""Losses of adversarial networks: generator, discriminator, Wasserstein critic and gradient penalty.

Losses of generative adversarial networks.

With the discriminator's output s (a logit) and a label y, 1 for real and 0 for generated:

- ``bce``: -y ln sigmoid(s) - (1 - y) ln(1 - sigmoid(s)); the generator lowers it with the label of real showers (the
  non-saturating loss of Goodfellow et al., arXiv:1406.2661);
- ``hinge``: max(0, 1 - (2 y - 1) s); the generator lowers -s (Lim and Ye, arXiv:1705.02894).

``gradient_square`` is the penalty R1 of Mescheder et al., arXiv:1801.04406.

Gradient penalty of a Wasserstein critic.

On the line between a real and a generated shower, :math:`\hat x = x + \epsilon (\tilde x - x)`,

.. math:: P = \langle (|\nabla_{\hat x} D(\hat x)|_2 - 1)^2 \rangle

It is two-sided: gradients below 1 are punished too.

References:
    I. Gulrajani et al., Improved training of Wasserstein GANs, arXiv:1704.00028, equation 3.

Losses of a critic D and of what it judges, with the penalty that belongs to each.

- ``wasserstein``: D lowers :math:`\langle D(\tilde x) \rangle - \langle D(x) \rangle`, the other side :math:`-\langle D(\tilde x) \rangle`; the
  penalty is that on the norm of the gradient between x and :math:`\tilde x` (:mod:`~caloforge.models.nn.adversarial`);
- ``bce``: cross entropies with D as a logit; the penalty is half the squared gradient at x, R1 (arXiv:1801.04406).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn import functional as F

__all__ = [
    "ADVERSARIAL",
    "CRITIC_LOSSES",
    "AdversarialLoss",
    "CriticLoss",
    "gradient_penalty",
    "gradient_square",
    "labels",
    "percentage_error",
]


_Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """What discriminator and generator lower, each a function of outputs (B,) and labels (B,)."""

    discriminator: _Loss
    generator: _Loss


def _hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.relu(1.0 - (2.0 * targets - 1.0) * outputs).mean()


def _raise(outputs: Tensor, _targets: Tensor) -> Tensor:
    return -outputs.mean()


ADVERSARIAL: Mapping[str, AdversarialLoss] = {
    "bce": AdversarialLoss(F.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    "hinge": AdversarialLoss(_hinge, _raise),
}
"""Name to losses."""


def labels(uniform: Tensor, value: float, other: float, flips: float) -> Tensor:
    """Return labels (B,): ``value``, but ``other`` for the part ``flips`` of them.

    Arguments:
        uniform: Uniform numbers (B,) in [0, 1), which decide.
        value: The right label.
        other: The wrong label.
        flips: Probability of the wrong one.
    """
    return torch.where(uniform < flips, other, value).to(uniform.dtype)


def percentage_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error in per cent of the target, the unit of the published weights."""
    return 100.0 * ((prediction - target).abs() / target.abs().clamp_min(1e-7)).mean()


def gradient_square(outputs: Tensor, inputs: Tensor) -> Tensor:
    """Return the mean over showers of the squared gradient of outputs (B,) at inputs (B, ...)."""
    (gradient,) = torch.autograd.grad(outputs.float().sum(), inputs, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()


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


_Judge = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CriticLoss:
    """What the two sides lower.

    Arguments:
        critic: Of values of real and of made showers (B,).
        maker: Of values of made showers (B,).
        penalty: Of a critic, real and made showers (B, n_cells) and uniform numbers (B, 1); a scalar.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    maker: Callable[[Tensor], Tensor]
    penalty: Callable[[_Judge, Tensor, Tensor, Tensor], Tensor]


def _r1(judge: _Judge, real: Tensor, _made: Tensor, _mix: Tensor) -> Tensor:
    """Return half the squared gradient at real showers."""
    real = real.detach().requires_grad_(True)
    return 0.5 * gradient_square(judge(real), real)


CRITIC_LOSSES: Mapping[str, CriticLoss] = {
    "wasserstein": CriticLoss(
        lambda real, made: made.mean() - real.mean(), lambda made: -made.mean(), gradient_penalty
    ),
    "bce": CriticLoss(
        lambda real, made: functional.softplus(-real).mean() + functional.softplus(made).mean(),
        lambda made: functional.softplus(-made).mean(),
        _r1,
    ),
}
"""Name to losses."""
