"""The stages of a BIB-AE in which the density of the latent codes is learnt, with everything else at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caloforge.models.bib_figures import bib_figures
from caloforge.models.layers.latent_flow import LatentFlow
from caloforge.models.layers.latent_kde import LatentKde
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater

if TYPE_CHECKING:
    from caloforge.models.bib_ae import BibAe

__all__ = ["LatentStages"]

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
