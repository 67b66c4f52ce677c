r"""Latent codes drawn from a kernel density of the training showers' codes, conditional on energy and angle.

With codes :math:`z_i`, contexts :math:`c_i` and normal kernels of covariance :math:`h^2 \Sigma`, :math:`\Sigma` that of the joint vectors
(c, z) and h Scott's factor :math:`N^{-1/(d+4)}` times ``bandwidth``, the joint density is a mixture whose conditional is known:

.. math:: w_i(c) \propto e^{-\frac{1}{2 h^2} (c - c_i)^T \Sigma_{cc}^{-1} (c - c_i)}, \qquad
          z = z_i + \Sigma_{zc} \Sigma_{cc}^{-1} (c - c_i) + h L \epsilon, \quad
          L L^T = \Sigma_{zz} - \Sigma_{zc} \Sigma_{cc}^{-1} \Sigma_{cz} .

One normal number n chooses the component, the first whose cumulated weight exceeds :math:`\Phi(n)`, and the others are
:math:`\epsilon`: a pure function of the noise. Components are sorted by context, so that neighbouring n give neighbouring components.

References:
    E. Buhmann et al., Decoding photons: physics in the latent space of a BIB-AE generative network, arXiv:2102.12491.
    D. W. Scott, Multivariate Density Estimation (1992).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LatentKde"]

_TINY = 1e-6


class LatentKde(nn.Module):
    """Kernel density of codes under a context.

    Arguments:
        size: Numbers of a code.
        context: Numbers of the context.
        most: Most components; a part of the showers is taken where there are more.
        bandwidth: Factor on Scott's bandwidth.
    """

    whole = True
    """Whether a code is drawn with all that belongs to it."""
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
        centred = joint - joint.mean(0)
        covariance = centred.T @ centred / max(1, len(joint) - 1)
        covariance += _TINY * torch.eye(len(covariance)).to(covariance)
        cc, zc = covariance[:k, :k], covariance[k:, :k]
        slope = torch.linalg.solve(cc, zc.T).T
        rest = covariance[k:, k:] - slope @ zc.T
        step = -(-len(joint) // self.most)
        h = self.bandwidth * len(joint[::step]) ** (-1.0 / (joint.shape[1] + 4))
        rows = torch.arange(0, len(joint), step, device=joint.device)
        rows = rows[torch.argsort(contexts[rows, 0], stable=True)]
        self.codes, self.contexts = codes[rows].to(self.codes), contexts[rows].to(self.contexts)
        self.slope.copy_(slope)
        self.kernel.copy_(h * torch.linalg.cholesky(rest + _TINY * torch.eye(self.size).to(rest)))
        self.whiten.copy_(torch.linalg.inv(torch.linalg.cholesky(cc)) / h)

    def weights(self, contexts: Tensor) -> Tensor:
        """Return the weights (B, N) of the components under contexts (B, k)."""
        square = torch.cdist(contexts @ self.whiten.T, self.contexts @ self.whiten.T).square()
        return torch.softmax(-0.5 * square, 1)

    def draw(self, noise: Tensor, choice: Tensor, contexts: Tensor) -> Tensor:
        """Return codes (B, size).

        Arguments:
            noise: Normal numbers (B, size) of the kernel.
            choice: Normal numbers (B,) that choose the component.
            contexts: (B, k).
        """
        cumulated = self.weights(contexts).double().cumsum(1)
        level = 0.5 * torch.erfc(-choice.double() / math.sqrt(2.0))
        index = (cumulated < (level * cumulated[:, -1])[:, None]).sum(1).clamp_max(len(self.codes) - 1)
        shift = (contexts - self.contexts[index]) @ self.slope.T
        return self.codes[index] + shift + noise @ self.kernel.T
