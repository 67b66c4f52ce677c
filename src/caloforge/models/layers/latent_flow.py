"""A normalising flow over latent codes, conditional on energy and angle; the transformations are zuko's.

As published: 8 blocks of three affine couplings, a rational-quadratic spline coupling of 8 bins and three affine
couplings, a permutation before each; hidden layers 250 x 2, of the spline 100 x 2. Codes and context are standardised. A code is the
inverse of the flow at normal numbers, a pure function of them.

References:
    L. Dinh et al., Density estimation using Real NVP, arXiv:1605.08803.
    C. Durkan et al., Neural spline flows, arXiv:1906.04032.
    E. Buhmann et al., arXiv:2303.18150.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from zuko.distributions import DiagNormal
from zuko.flows import Flow, GeneralCouplingTransform
from zuko.lazy import UnconditionalDistribution, UnconditionalTransform
from zuko.transforms import MonotonicRQSTransform, PermutationTransform

__all__ = ["LatentFlow"]

_BOUND = 5.0


class LatentFlow(nn.Module):
    """Density of codes under a context.

    Arguments:
        size: Numbers of a code.
        context: Numbers of the context.
        blocks: Blocks.
        couplings: Affine couplings before and after the spline of a block.
        hidden: Hidden layers of an affine coupling.
        spline_hidden: Hidden layers of a spline coupling.
        bins: Bins of a spline.
        seed: Of the permutations.
    """

    whole = True
    """Whether a code is drawn with all that belongs to it."""
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        size: int,
        context: int,
        blocks: int = 8,
        couplings: int = 3,
        hidden: Sequence[int] = (250, 250),
        spline_hidden: Sequence[int] = (100, 100),
        bins: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.zeros(size + context))
        self.register_buffer("scale", torch.ones(size + context))
        generator = torch.Generator().manual_seed(seed)
        affine: dict[str, Any] = {"hidden_features": tuple(hidden)}
        spline: dict[str, Any] = {
            "hidden_features": tuple(spline_hidden),
            "univariate": MonotonicRQSTransform,
            "shapes": [(bins,), (bins,), (bins - 1,)],
        }
        parts: list[nn.Module] = []
        for _ in range(blocks):
            for settings in (*couplings * (affine,), spline, *couplings * (affine,)):
                order = torch.randperm(size, generator=generator)
                parts.append(UnconditionalTransform(PermutationTransform, order, buffer=True))
                parts.append(GeneralCouplingTransform(size, context, **settings))
        base = UnconditionalDistribution(DiagNormal, torch.zeros(size), torch.ones(size), buffer=True)
        self.flow = Flow(parts, base)

    def fit(self, codes: Tensor, context: Tensor) -> None:
        """Set the scales from codes (N, size) and their context (N, k)."""
        both = torch.cat([codes, context], 1)
        self.mean.copy_(both.mean(0))
        self.scale.copy_(both.std(0, unbiased=False).clamp_min(1e-4))

    def loss(self, codes: Tensor, context: Tensor) -> Tensor:
        """Return the mean negative log density of standardised codes (B, size) under contexts (B, k)."""
        codes = ((codes - self.mean[: self.size]) / self.scale[: self.size]).float()
        with torch.autocast(codes.device.type, enabled=False):
            density: Tensor = self.flow(self._context(context)).log_prob(codes)
        return -density.mean()

    def draw(self, noise: Tensor, choice: Tensor, context: Tensor) -> Tensor:
        """Return codes (B, size) of normal numbers (B, size) under contexts (B, k); ``choice`` is not used."""
        with torch.autocast(noise.device.type, enabled=False):
            codes: Tensor = self.flow(self._context(context)).transform.inv(noise.float())
        return codes.clamp(-2.0 * _BOUND, 2.0 * _BOUND) * self.scale[: self.size] + self.mean[: self.size]

    def _context(self, context: Tensor) -> Tensor:
        scaled = (context - self.mean[self.size :]) / self.scale[self.size :]
        return scaled.clamp(-2.0 * _BOUND, 2.0 * _BOUND).float()
