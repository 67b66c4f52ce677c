r"""Gains that give the parts of showers the means of the training showers, smooth functions of the conditions.

A part (a cell, a ring of cells, a layer) holds the shares :math:`t_n` of training shower n and :math:`g_n` of the showers
that are generated under the same conditions, on average. With features :math:`\phi(c)` of the conditions its gain is
:math:`\exp(a \cdot \phi(c))`, and a solves

.. math:: \sum_n \phi(c_n) \left(t_n - g_n \exp(a \cdot \phi(c_n))\right) = 0 ,

so that the means, and the means weighted with each feature, agree. The residuals :math:`t_n - g_n \exp(\dots)` also tell the
covariance V of a. What fluctuates is then taken back: with the spread T of the true a over all parts, :math:`T = \langle
a^2 - V \rangle` (a weighted mean, in which parts that are known badly count little), the best guess is
:math:`T (T + V)^{-1} a`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Features", "ShareGains", "fit_gains"]

_STEPS = 6
_FAR = 3.0
"""Largest coefficient."""
_TINY = 1e-12
_RIDGE = 1e-8
"""Added to matrices of unit size, which few showers leave singular."""


class Features(nn.Module):
    """1, encoded conditions and their powers; conditions stop at the edge of the training showers'.

    Arguments:
        width: Encoded conditions.
        degree: Highest power of each.
    """

    low: Tensor
    high: Tensor

    def __init__(self, width: int, degree: int) -> None:
        super().__init__()
        self.degree, self.size = degree, 1 + width * degree
        self.register_buffer("low", torch.full((width,), -3.0))
        self.register_buffer("high", torch.full((width,), 3.0))

    def fit(self, encoded: Tensor) -> None:
        """Set the edges from encoded conditions (N, width)."""
        self.low.copy_(encoded.amin(0))
        self.high.copy_(encoded.amax(0))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return phi (B, size)."""
        inside = torch.minimum(torch.maximum(encoded, self.low), self.high)
        powers = [inside**power for power in range(1, self.degree + 1)]
        return torch.cat([torch.ones_like(inside[:, :1]), *powers], 1)


class ShareGains(nn.Module):
    """Gains of some parts; 1 before the fit.

    Arguments:
        width: Encoded conditions.
        parts: How many parts.
        degree: Of the features.
        most: Largest gain, and the inverse of the smallest.
    """

    weights: Tensor

    def __init__(self, width: int, parts: int, degree: int, most: float = 4.0) -> None:
        super().__init__()
        self.most = math.log(most)
        self.features = Features(width, degree)
        self.register_buffer("weights", torch.zeros(self.features.size, parts))

    def logarithm(self, encoded: Tensor) -> Tensor:
        """Return logarithms of the gains (B, parts) for encoded conditions (B, width)."""
        logarithm: Tensor = self.features(encoded) @ self.weights
        return logarithm.clamp(-self.most, self.most)

    def forward(self, encoded: Tensor) -> Tensor:
        """Return gains (B, parts) for encoded conditions (B, width)."""
        return self.logarithm(encoded).exp()

    @torch.no_grad()
    def fit(self, true: Tensor, made: Tensor, encoded: Tensor) -> None:
        """Fit to shares that had the present gains when they were made, so that it can be called again and again.

        Arguments:
            true: Shares of training showers (N, parts).
            made: Mean shares of generated ones under the same conditions (N, parts), with the present gains.
            encoded: Encoded conditions (N, width).
        """
        bare = made.double() / self(encoded).double()
        self.features.fit(encoded)
        self.weights = fit_gains(true.double(), bare, self.features(encoded).double()).to(self.weights)


def fit_gains(true: Tensor, made: Tensor, features: Tensor, shrink: bool = True) -> Tensor:
    """Return the coefficients a (F, parts) of gains, see the module.

    Arguments:
        true: (N, parts).
        made: (N, parts).
        features: (N, F).
        shrink: Whether to take back what fluctuates.
    """
    n, size = features.shape
    pairs = (features[:, :, None] * features[:, None, :]).reshape(n, -1)
    eye = torch.eye(size, dtype=features.dtype, device=features.device)
    there = (made.mean(0) > _TINY)[:, None]
    a = features.new_zeros(size, true.shape[1])

    def state() -> tuple[Tensor, Tensor, Tensor]:
        """Return residuals (N, parts), their moments (parts, F), and the inverse slopes (parts, F, F)."""
        now = made * (features @ a).exp()
        slope = (pairs.T @ now / n).T.view(-1, size, size)
        scale = slope.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)
        inverse = torch.linalg.inv(slope / scale[:, None, None] + 1e-6 * eye) / scale[:, None, None]
        rest = true - now
        return rest, (features.T @ rest / n).T, inverse

    for _ in range(_STEPS):
        _, moments, inverse = state()
        step = (inverse @ moments[:, :, None])[:, :, 0].clamp(-1.0, 1.0) * there
        a = (a + step.T).clamp(-_FAR, _FAR)
    if not shrink:
        return a
    rest, _, inverse = state()
    noise = (pairs.T @ rest.square() / n**2).T.view(-1, size, size)
    covariance = inverse @ noise @ inverse.transpose(1, 2)
    variance = covariance.diagonal(dim1=1, dim2=2)
    middle = variance.median(0).values if len(variance) else variance.sum(0)
    weight = there / (variance + middle + _TINY).square()
    spread = (weight * (a.T.square() - variance)).sum(0) / weight.sum(0).clamp_min(_TINY)
    prior = torch.diag(spread.clamp_min(0.0))
    whole = prior + covariance
    unit = whole.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)[:, None, None]
    kept = prior @ (torch.linalg.inv(whole / unit + _RIDGE * eye) / unit)
    best: Tensor = ((kept @ a.T[:, :, None])[:, :, 0] * there).T
    return best
