"""Losses of generative adversarial networks.

With the discriminator's output s (a logit) and a label y, 1 for real and 0 for generated:

- ``bce``: -y ln sigmoid(s) - (1 - y) ln(1 - sigmoid(s)); the generator lowers it with the label of real showers (the
  non-saturating loss of Goodfellow et al., arXiv:1406.2661);
- ``hinge``: max(0, 1 - (2 y - 1) s); the generator lowers -s (Lim and Ye, arXiv:1705.02894).

``gradient_square`` is the penalty R1 of Mescheder et al., arXiv:1801.04406.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ADVERSARIAL", "AdversarialLoss", "gradient_square", "labels", "percentage_error"]

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
