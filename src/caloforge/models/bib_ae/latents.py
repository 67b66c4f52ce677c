r"""Densities of the latent codes of training showers: kernel density and normalising flow, conditional on energy and angle.

Both are pure functions of normal numbers, so that generation needs no further random numbers.

**Flow** (transformations from zuko). As published: 8 blocks of three affine couplings, a rational-quadratic spline coupling of 8
bins and three affine couplings, a permutation before each; hidden layers 250 x 2, of the spline 100 x 2. Codes and context are
standardised. A code is the inverse of the flow at normal numbers.

**Kernel density.** With codes :math:`z_i`, contexts :math:`c_i` and normal kernels of covariance :math:`h^2 \Sigma`, :math:`\Sigma`
that of the joint vectors (c, z) and h Scott's factor :math:`N^{-1/(d+4)}` times ``bandwidth``, the joint density is a mixture
with the conditional density

.. math:: w_i(c) \propto e^{-\frac{1}{2 h^2} (c - c_i)^T \Sigma_{cc}^{-1} (c - c_i)}, \qquad
          z = z_i + \Sigma_{zc} \Sigma_{cc}^{-1} (c - c_i) + h L \epsilon, \quad
          L L^T = \Sigma_{zz} - \Sigma_{zc} \Sigma_{cc}^{-1} \Sigma_{cz} .

One normal number n chooses the component, the first whose cumulative weight exceeds :math:`\Phi(n)`, and the others are
:math:`\epsilon`. Components are sorted by context, so that neighbouring n lead to neighbouring components.

References:
    L. Dinh et al., Density estimation using Real NVP, arXiv:1605.08803.
    C. Durkan et al., Neural spline flows, arXiv:1906.04032.
    S. Diefenbacher et al., New angles on fast calorimeter shower simulation, arXiv:2303.18150.
    E. Buhmann et al., Decoding photons: physics in the latent space of a BIB-AE generative network, arXiv:2102.12491.
    D. W. Scott, Multivariate Density Estimation (1992).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from zuko.distributions import DiagNormal
from zuko.flows import Flow, GeneralCouplingTransform
from zuko.lazy import UnconditionalDistribution, UnconditionalTransform
from zuko.transforms import MonotonicRQSTransform, PermutationTransform

from caloforge.models.bib_ae.settings import FlowSettings

__all__ = ["Density", "LatentFlow", "LatentKde"]

_BOUND = 10.0
_LEAST = 1e-4
_TINY = 1e-6


class LatentFlow(nn.Module):
    """Normalising flow of codes for a context."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int, context: int, settings: FlowSettings) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.zeros(size + context))
        self.register_buffer("scale", torch.ones(size + context))
        affine: dict[str, Any] = {"hidden_features": settings.hidden}
        spline: dict[str, Any] = {
            "hidden_features": settings.spline_hidden,
            "univariate": MonotonicRQSTransform,
            "shapes": [(settings.bins,), (settings.bins,), (settings.bins - 1,)],
        }
        generator = torch.Generator().manual_seed(0)
        parts: list[nn.Module] = []
        for _ in range(settings.blocks):
            for coupling in (*settings.couplings * (affine,), spline, *settings.couplings * (affine,)):
                order = torch.randperm(size, generator=generator)
                parts.append(UnconditionalTransform(PermutationTransform, order, buffer=True))
                parts.append(GeneralCouplingTransform(size, context, **coupling))
        base = UnconditionalDistribution(DiagNormal, torch.zeros(size), torch.ones(size), buffer=True)
        self.flow = Flow(parts, base)

    def fit(self, codes: Tensor, context: Tensor) -> None:
        """Set the scales from codes (N, size) and their context (N, k)."""
        both = torch.cat([codes, context], 1)
        self.mean.copy_(both.mean(0))
        self.scale.copy_(both.std(0, unbiased=False).clamp_min(_LEAST))

    def loss(self, codes: Tensor, context: Tensor) -> Tensor:
        """Return the mean negative log density of standardised codes (B, size) for contexts (B, k)."""
        codes = ((codes - self.mean[: self.size]) / self.scale[: self.size]).float()
        with torch.autocast(codes.device.type, enabled=False):
            density: Tensor = self.flow(self._context(context)).log_prob(codes)
        return -density.mean()

    def draw(self, noise: Tensor, choice: Tensor, context: Tensor) -> Tensor:
        """Return codes (B, size) of normal numbers (B, size) for contexts (B, k); ``choice`` has no use."""
        with torch.autocast(noise.device.type, enabled=False):
            codes: Tensor = self.flow(self._context(context)).transform.inv(noise.float())
        return codes.clamp(-_BOUND, _BOUND) * self.scale[: self.size] + self.mean[: self.size]

    def _context(self, context: Tensor) -> Tensor:
        scaled = (context - self.mean[self.size :]) / self.scale[self.size :]
        return scaled.clamp(-_BOUND, _BOUND).float()


class LatentKde(nn.Module):
    """Kernel density of codes for a context.

    ``most``: most components; a part of the showers is taken where there are more; ``bandwidth``: factor on Scott's bandwidth.
    """

    codes: Tensor
    contexts: Tensor
    whiten: Tensor
    slope: Tensor
    kernel: Tensor

    def __init__(self, size: int, context: int, most: int = 2000, bandwidth: float = 1.0) -> None:
        super().__init__()
        self.size, self.most, self.bandwidth = size, most, bandwidth
        self.register_buffer("codes", torch.zeros(1, size))
        self.register_buffer("contexts", torch.zeros(1, context))
        self.register_buffer("whiten", torch.eye(context))
        self.register_buffer("slope", torch.zeros(size, context))
        self.register_buffer("kernel", torch.eye(size))

    @torch.no_grad()
    def fit(self, codes: Tensor, contexts: Tensor) -> None:
        """Set the components from codes (N, size) and contexts (N, k)."""
        k = contexts.shape[1]
        joint = torch.cat([contexts, codes], 1).double()
        covariance = torch.cov(joint.T, correction=int(len(joint) > 1))
        covariance += _TINY * torch.eye(len(covariance)).to(covariance)
        cc, zc = covariance[:k, :k], covariance[k:, :k]
        slope = torch.linalg.solve(cc, zc.T).T
        rest = covariance[k:, k:] - slope @ zc.T
        rows = torch.arange(0, len(joint), -(-len(joint) // self.most), device=joint.device)
        h = self.bandwidth * len(rows) ** (-1.0 / (joint.shape[1] + 4))
        rows = rows[torch.argsort(contexts[rows, 0], stable=True)]
        self.codes, self.contexts = codes[rows].to(self.codes), contexts[rows].to(self.contexts)
        self.slope.copy_(slope)
        self.kernel.copy_(h * torch.linalg.cholesky(rest + _TINY * torch.eye(self.size).to(rest)))
        self.whiten.copy_(torch.linalg.inv(torch.linalg.cholesky(cc)) / h)

    def weights(self, contexts: Tensor) -> Tensor:
        """Return the weights (B, N) of the components for contexts (B, k)."""
        square = torch.cdist(contexts @ self.whiten.T, self.contexts @ self.whiten.T).square()
        return torch.softmax(-0.5 * square, 1)

    def draw(self, noise: Tensor, choice: Tensor, context: Tensor) -> Tensor:
        """Return codes (B, size) of normal numbers for the kernel (B, size) and for the component (B,)."""
        cumulated = self.weights(context).double().cumsum(1)
        level = 0.5 * torch.erfc(-choice.double() / math.sqrt(2.0))
        index = (cumulated < (level * cumulated[:, -1])[:, None]).sum(1).clamp_max(len(self.codes) - 1)
        shift = (context - self.contexts[index]) @ self.slope.T
        return self.codes[index] + shift + noise @ self.kernel.T


Density: TypeAlias = "LatentFlow | LatentKde | None"
"""Of codes; None for latents from N(0, 1)."""
