r"""Densities of latent codes (normal, kernel density, normalising flow) and the stages that fit them.

A normalising flow over latent codes, conditional on energy and angle; the transformations are zuko's.

As published: 8 blocks of three affine couplings, a rational-quadratic spline coupling of 8 bins and three affine
couplings, a permutation before each; hidden layers 250 x 2, of the spline 100 x 2. Codes and context are standardised. A code is the
inverse of the flow at normal numbers, a pure function of them.

References:
    L. Dinh et al., Density estimation using Real NVP, arXiv:1605.08803.
    C. Durkan et al., Neural spline flows, arXiv:1906.04032.
    E. Buhmann et al., arXiv:2303.18150.

Latent codes drawn from a kernel density of the training showers' codes, conditional on energy and angle.

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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from zuko.distributions import DiagNormal
from zuko.flows import Flow, GeneralCouplingTransform
from zuko.lazy import UnconditionalDistribution, UnconditionalTransform
from zuko.transforms import MonotonicRQSTransform, PermutationTransform

from caloforge.models.bib_ae.selection import bib_figures
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater

if TYPE_CHECKING:
    from caloforge.models.bib_ae.model import BibAe

__all__ = ["LatentFlow", "LatentKde", "LatentNormal", "LatentStages"]


class LatentNormal(nn.Module):
    """The noise itself.

    Attributes:
        whole: False: energies that are part of a code are not drawn with it.
    """

    whole = False

    def draw(self, noise: Tensor, choice: Tensor, context: Tensor) -> Tensor:
        """Return the normal numbers (B, size) as they are."""
        return noise


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


_ROWS = 64
_MOST_CELLS = 40_000_000


class LatentStages:
    """The last stages.

    Arguments:
        model: The model.
    """

    def __init__(self, model: BibAe) -> None:
        self.model, self.maker, self.config = model, model.maker, model.config
        self._found = torch.zeros(0)

    def kernels(self) -> Stage:
        """Return the stage that sets the components of the kernel density."""
        return Stage("latent-kde", fit=self.fit_kernels)

    def flow(self) -> Stage:
        """Return the stage of the flow."""
        c = self.config
        return Stage(
            "latent-flow",
            c.flow_epochs,
            c.flow_batch_size,
            {"flow": OptimizerSpec.of(c.flow_optimizer, self._flow)},
            self.step,
            validate=self.validate,
            metric="nll",
            on_start=self.prepare,
            frozen=(self.model.encoder, self.maker),
        )

    @property
    def _flow(self) -> LatentFlow:
        flow = self.model.latents["flow"]
        assert isinstance(flow, LatentFlow)
        return flow

    # codes

    @torch.no_grad()
    def encoded(self, data: TrainingData) -> Tensor:
        """Return (symmetries, N, k): context, sums, means and standard deviations of all codes.

        The first row is of the showers as they are, a second one, where mirrors are used, of their images.
        """
        m = self.model
        mirrors = (False, True) if self.config.symmetries and m.mirror.holds else (False,)
        rows: list[list[Tensor]] = [[] for _ in mirrors]
        for batch in data.batches(_ROWS):
            for row, mirrored in zip(rows, mirrors, strict=True):
                cells = m.clean(batch.cells)
                if mirrored:
                    cells = m.mirror(self.maker.grid(cells)).flatten(1)
                sums, mean, log_variance = m.encode(cells, batch.conditions)
                parts = [self._context(sums, batch.conditions), sums, mean, torch.exp(0.5 * log_variance)]
                row.append(torch.cat(parts, 1))
        return torch.stack([torch.cat(row) for row in rows])

    def _context(self, sums: Tensor, matrix: Tensor) -> Tensor:
        return self.maker.context(matrix) if self.maker.joint else self.maker.given(sums, matrix)

    def draw(self, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes and contexts of rows (B, k) of ``encoded`` and normal numbers (B, latent)."""
        size = self.config.latent_size
        n_sums = self.maker.n_sums
        sizes = [rows.shape[1] - n_sums - 2 * size, n_sums, size, size]
        context, sums, mean, std = torch.split(rows, sizes, 1)
        z = mean + std * noise
        return (torch.cat([sums, z], 1) if self.maker.joint else z), context

    def _noise(self, n: int, seed: int) -> Tensor:
        """Return the same normal numbers (n, latent) at each call."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, self.config.latent_size, generator=generator).to(
            self.model.condition_low.device
        )

    # the kernel density

    @torch.no_grad()
    def fit_kernels(self, data: TrainingData, generator: torch.Generator) -> None:
        """Set the components from one code of each training shower."""
        kernels = self.model.latents["kde"]
        assert isinstance(kernels, LatentKde)
        self.model.eval()
        rows = self.encoded(data)[0]
        noise = torch.randn(len(rows), self.config.latent_size, generator=generator, device=generator.device)
        kernels.fit(*self.draw(rows, noise.to(rows.device)))

    # the flow

    def prepare(self, data: TrainingData, updater: Updater) -> None:
        """Encode all training showers, and set the scales of the flow."""
        self._found = self.encoded(data)
        self._flow.fit(*self.draw(self._found[0], self._noise(len(self._found[0]), 4)))

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Raise the likelihood of codes drawn anew; return minus its logarithm."""
        side = (updater.uniform(len(batch)) * len(self._found)).long()
        rows = self._found[side, batch.indices]
        loss = self._flow.loss(*self.draw(rows, updater.normal(len(batch), self.config.latent_size)))
        updater.update("flow", loss)
        return {"nll": loss.detach()}

    def validate(self, data: TrainingData) -> dict[str, float]:
        """Return ``nll`` of held-out codes, and figures of generated showers."""
        m = self.model
        rows = self.encoded(data)[0]
        figures = {"nll": float(self._flow.loss(*self.draw(rows, self._noise(len(rows), 3))))}
        n_max = max(1, min(len(data), _MOST_CELLS // m.detector.n_cells))
        first = data.take(torch.arange(n_max, device=data.device))
        fake = m.draw(first.conditions, batch_size=_ROWS)
        layer = torch.as_tensor(m.detector.cell_layer, device=data.device)
        energy = self.maker.energy(first.conditions)
        return figures | bib_figures(m.clean(first.cells), fake.float(), energy, layer)
