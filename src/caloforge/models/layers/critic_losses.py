r"""Losses of a critic D and of what it judges, with the penalty that belongs to each.

- ``wasserstein``: D lowers :math:`\langle D(\tilde x) \rangle - \langle D(x) \rangle`, the other side :math:`-\langle D(\tilde x) \rangle`; the
  penalty is that on the norm of the gradient between x and :math:`\tilde x` (:mod:`~caloforge.models.layers.penalty`);
- ``bce``: cross entropies with D as a logit; the penalty is half the squared gradient at x, R1 (arXiv:1801.04406).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from caloforge.models.layers.adversarial import gradient_square
from caloforge.models.layers.penalty import gradient_penalty

__all__ = ["CRITIC_LOSSES", "CriticLoss"]

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
