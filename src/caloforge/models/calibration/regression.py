"""Linear regression on functions of the conditions: least squares, with a fixed penalty, and shrunk as far as few values call for.

A polynomial of the conditions has tens of terms, and few hundred showers fix few of them. Least squares then follow the showers' fluctuations: with
38 terms and 240 showers means are wrong by 0.4 standard deviations. :func:`shrunk_fit` draws what the showers do not fix towards
0, or towards coefficients of an earlier training.

References:
    G. Golub, M. Heath, G. Wahba, Generalized cross-validation as a method for choosing a good ridge parameter, Technometrics 21 (1979) 215.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

__all__ = ["Polynomial", "least_squares", "ridge_fit", "shrunk_fit"]


def least_squares(design: Tensor, values: Tensor) -> Tensor:
    """Return the least-squares solution (n,) of a design (N, n) for values (N,), the shortest where it is not unique."""
    solution: Tensor = torch.linalg.lstsq(design.cpu(), values[:, None].cpu(), driver="gelsd").solution
    return solution[:, 0].to(values)


def ridge_fit(design: Tensor, values: Tensor, ridge: float) -> Tensor:
    """Return least-squares coefficients (F, ...) of a design (N, F) with a penalty ``ridge`` times N on their squares."""
    eye = torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    solution: Tensor = torch.linalg.solve(design.T @ design + ridge * len(design) * eye, design.T @ values)
    return solution


_LEAST_SPREAD = 1e-9  # of a feature, below which it is constant
_TINIEST = 1e-30
_PENALTIES = 10.0 ** torch.arange(-7.0, 3.1, 0.5, dtype=torch.float64)


def shrunk_fit(
    design: Tensor, values: Tensor, free: Tensor | Sequence[Tensor], prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return coefficients (F, k) of a design (N, F) for values (N, k), drawn towards ``prior``, and their effective number (k,).

    Minimises :math:`|y - X a|^2 + \lambda N |s (a - a_0)|^2` over all a, with s the root mean squares of what the ``free`` features (F,), on whose
    coefficients there is no penalty, leave of the others. :math:`\lambda` is that of the least generalised cross-validation
    :math:`|y - X a|^2 / (1 - h)^2`, h the effective number of coefficients over N, for each column alone: coefficients that few
    values cannot fix stay at the prior a_0 (F, k), by default 0. Of several sets of free features the one of the least score is taken, too.
    """
    start = design.new_zeros(design.shape[1], values.shape[1]) if prior is None else prior.to(design)
    rest = values - design @ start
    fits = [_ridge(design, rest, one) for one in ([free] if isinstance(free, Tensor) else free)]
    chosen = torch.stack([score for _, _, score in fits]).argmin(0)
    columns = torch.arange(values.shape[1], device=values.device)
    found, number = (torch.stack([fit[k] for fit in fits]) for k in range(2))
    return start + found[chosen, :, columns].T, number[chosen, columns]


def _ridge(design: Tensor, rest: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return coefficients (F, k), their effective number (k,) and the score (k,) of the best penalty."""
    n = len(design)
    kept, others = design[:, free], design[:, ~free]
    inverse = torch.linalg.pinv(kept, rtol=_LEAST_SPREAD)
    first, along = inverse @ rest, inverse @ others
    rest, others = rest - kept @ first, others - kept @ along
    scale = others.square().mean(0).sqrt()
    usable = scale > _LEAST_SPREAD * design[:, ~free].abs().amax(0)
    scale = torch.where(usable, scale, 1.0)
    left, size, right = torch.linalg.svd(torch.where(usable, others / scale, 0.0), full_matrices=False)
    seen = left.T @ rest
    part = size.square() / (size.square() + n * _PENALTIES.to(size)[:, None])
    number = part.sum(1) + kept.shape[1]
    missed = rest.square().sum(0) - ((2.0 * part - part.square())[:, :, None] * seen.square()).sum(1)
    scores = missed.clamp_min(0.0) / (1.0 - number[:, None] / n).clamp_min(1e-3).square()
    chosen = scores.argmin(0)
    found = right.T @ (part[chosen].T * seen / size.clamp_min(_TINIEST)[:, None])
    found = torch.where(usable, 1.0 / scale, 0.0)[:, None] * found
    out = design.new_zeros(design.shape[1], rest.shape[1])
    out[~free] = found
    out[free] = first - along @ found
    return out, number[chosen], scores.gather(0, chosen[None])[0]


class Polynomial(nn.Module):
    """Monomials of continuous conditions, the constant one first, then discrete conditions as they are.

    Beyond the range of the training showers continuous conditions stop at its edge. The continuous conditions are the first columns
    of c; ``cross`` says whether products of different ones are among the monomials.
    """

    low: Tensor
    high: Tensor
    constant: Tensor  # (size,) bool, the constant one
    leading: (
        Tensor  # (size,) bool, it and the powers of the first continuous condition alone, which is the energy
    )

    def __init__(self, continuous: int, width: int, degree: int, cross: bool = True) -> None:
        super().__init__()
        self.continuous = continuous
        columns = range(continuous)
        self.monomials = [
            factors
            for power in range(1, degree + 1)
            for factors in combinations_with_replacement(columns, power)
            if cross or len(set(factors)) == 1
        ]
        self.size = 1 + len(self.monomials) + width - continuous
        first = [set(factors) == {0} for factors in self.monomials]
        alone = torch.tensor([True, *first, *[False] * (width - continuous)])
        self.register_buffer("leading", alone, persistent=False)
        self.register_buffer("constant", torch.arange(self.size) == 0, persistent=False)
        self.register_buffer("low", torch.full((continuous,), -3.0))
        self.register_buffer("high", torch.full((continuous,), 3.0))

    def fit(self, encoded: Tensor) -> None:
        """Set the range from encoded conditions (N, width)."""
        self.low.copy_(encoded[:, : self.continuous].amin(0))
        self.high.copy_(encoded[:, : self.continuous].amax(0))

    def widen(self, encoded: Tensor) -> None:
        """Let the range contain encoded conditions (N, width), too."""
        self.low.copy_(torch.minimum(self.low, encoded[:, : self.continuous].amin(0)))
        self.high.copy_(torch.maximum(self.high, encoded[:, : self.continuous].amax(0)))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return phi (B, size) of encoded conditions (B, width)."""
        inside = self.inside(encoded)
        columns = [torch.ones_like(encoded[:, :1])]
        for first, *others in self.monomials:
            column = inside[:, first]
            for factor in others:
                column = column * inside[:, factor]
            columns.append(column[:, None])
        return torch.cat([*columns, encoded[:, self.continuous :]], 1)

    def inside(self, encoded: Tensor) -> Tensor:
        """Return the continuous conditions (B, continuous) within their range."""
        return torch.maximum(torch.minimum(encoded[:, : self.continuous], self.high), self.low)
