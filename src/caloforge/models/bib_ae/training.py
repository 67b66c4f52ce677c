"""The stages of a BIB-AE's training and the figures that choose their epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caloforge.models.base import counted_noise
from caloforge.models.bib_ae.critic import ShowerCritic, mmd, sorted_cells, window_mmd
from caloforge.models.bib_ae.latent import LatentStages
from caloforge.models.bib_ae.selection import bib_figures
from caloforge.models.nn.adversarial import CRITIC_LOSSES
from caloforge.models.nn.mlp import reinitialise
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater

if TYPE_CHECKING:
    from caloforge.models.bib_ae.model import BibAe

__all__ = ["BibStages", "bib_stages"]


_LATENT_ALPHAS = (1.0, 0.01)
_SORTED_ALPHAS = (40.0, 4.0)
_MOST_CELLS = 40_000_000
_ROWS = 64
_CALIBRATION_ROWS = 16
_CALIBRATED = 1000
"""Training showers to which the energies of hits are fitted."""


def bib_stages(model: BibAe) -> tuple[Stage, ...]:
    """Return all stages of a model."""
    own, latents = BibStages(model), LatentStages(model)
    calibration = () if model.maker.spectrum is None else (own.calibration(),)
    return (own.first(), own.second(), *calibration, latents.kernels(), latents.flow())


class BibStages:
    """The stages that make showers of codes.

    Arguments:
        model: The model.
    """

    def __init__(self, model: BibAe) -> None:
        self.model, self.maker, self.config = model, model.maker, model.config
        self.losses = CRITIC_LOSSES[model.config.adversarial]

    def first(self) -> Stage:
        """Return the stage of encoder, decoder and critics."""
        m, c = self.model, self.config
        return Stage(
            "bib-ae",
            c.epochs,
            c.batch_size,
            {
                "generator": OptimizerSpec.of(c.generator, m.encoder, *self.maker.first),
                "critic": OptimizerSpec.of(c.critic, m.critic),
                "fresh": OptimizerSpec.of(c.critic, m.fresh),
                "latent_critic": OptimizerSpec.of(c.latent_critic, m.latent_critic),
            },
            self.first_step,
            validate=self.validate,
            metric="selection",
            on_epoch_start=self.refresh,
            compiled=(m.encoder, self.maker.decoder, m.critic, m.fresh),
        )

    def second(self) -> Stage:
        """Return the stage of the post-processor."""
        c = self.config
        return Stage(
            "post-processor",
            c.post_epochs,
            c.batch_size,
            {"post": OptimizerSpec.of(c.post, self.maker.post_processor)},
            self.second_step,
            validate=self.validate,
            metric="selection",
            frozen=(self.model.encoder, self.maker.decoder),
        )

    def calibration(self) -> Stage:
        """Return the stage that fits the energies of hits."""
        return Stage("cell-spectrum", fit=self.fit_cells)

    # the first stage

    def refresh(self, updater: Updater) -> None:
        """Initialise the second critic again every ``fresh_every`` epochs."""
        if updater.epoch % self.config.fresh_every == 0:
            reinitialise(self.model.fresh)
            updater.reset("fresh")

    def first_step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Move the critics, and each ``critic_steps``-th time encoder and decoder; return the losses."""
        m, c = self.model, self.config
        cells, matrix, n = m.clean(batch.cells), batch.conditions, len(batch)
        turn = updater.every(c.critic_steps)
        with torch.set_grad_enabled(turn):
            sums, mean, log_variance = m.encode(cells, matrix)
            z = mean + torch.exp(0.5 * log_variance) * updater.normal(n, c.latent_size)
            decoded = self.maker.decode(z, updater.normal(n, c.noise), sums, matrix)
            made = self.maker.judged(decoded, updater.normal(n, self.maker.n_cell_noise), matrix)
            views = self.maker.view(cells), self.maker.view(made)
        given = self.maker.given(sums, matrix).detach()
        logs = {}
        for name, critic in (("critic", m.critic), ("fresh", m.fresh)):
            logs[name] = self._move_critic(name, critic, views, given, updater)
        logs["latent_critic"] = self._move_latent_critic(z.detach(), updater)
        if not turn:
            return logs
        w, ramp = c.weights, min(1.0, (updater.progress + 1e-3) / max(c.critics_ramp, 1e-3))
        terms: dict[str, tuple[float, Tensor]] = {}
        for name, critic, weight in (("critic", m.critic, w.critic), ("fresh", m.fresh, w.fresh)):
            value = self.losses.maker(critic(views[1], views[0], given))
            terms[f"{name}_made"] = (ramp * weight, value)
        terms["latent_made"] = (w.latent_critic, self.losses.maker(m.latent_critic(z)))
        normal = updater.normal(n, c.latent_size)
        terms["latent_mmd"] = (w.latent_mmd, torch.stack([mmd(z, normal, a) for a in _LATENT_ALPHAS]).sum())
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1).mean()
        terms["kl"] = (w.kl, divergence)
        if w.likelihood:
            found = self.maker.likelihoods(decoded, cells, matrix)
            quantiles = updater.normal(n, self.maker.n_quantiles)
            found |= self.maker.fidelity(decoded, made, cells, matrix, quantiles)
            terms |= {name: (w.likelihood, value) for name, value in found.items()}
        updater.update("generator", torch.stack([weight * value for weight, value in terms.values()]).sum())
        return logs | {name: value.detach() for name, (_, value) in terms.items()}

    def _move_critic(
        self, name: str, critic: ShowerCritic, views: tuple[Tensor, Tensor], given: Tensor, updater: Updater
    ) -> Tensor:
        """Move one critic of showers by true and made ones (B, n_cells); return its loss."""
        c, (real, made) = self.config, (view.detach() for view in views)

        def judge(cells: Tensor) -> Tensor:
            value: Tensor = critic(cells, real, given)
            return value

        both = critic(torch.cat([real, made]), torch.cat([real, real]), torch.cat([given, given]), groups=2)
        loss = self.losses.critic(both[: len(real)], both[len(real) :])
        found = loss.detach()
        if c.penalty and updater.every(c.penalty_every):
            penalty = self.losses.penalty(judge, real, made, updater.uniform(len(real), 1))
            loss = loss + c.penalty * c.penalty_every * penalty
        updater.update(name, loss)
        return found

    def _move_latent_critic(self, z: Tensor, updater: Updater) -> Tensor:
        """Move the critic of latents (B, latent); normal numbers are its true ones."""
        c, judge = self.config, self.model.latent_critic
        real = updater.normal(*z.shape)
        loss = self.losses.critic(judge(real), judge(z))
        found = loss.detach()
        if c.penalty and updater.every(c.penalty_every):
            penalty = self.losses.penalty(judge, real, z, updater.uniform(len(z), 1))
            loss = loss + c.penalty * c.penalty_every * penalty
        updater.update("latent_critic", loss)
        return found

    # the second stage

    def second_step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Move the post-processor; return the losses."""
        m, c, w = self.model, self.config, self.config.sorted
        cells, matrix, n = m.clean(batch.cells), batch.conditions, len(batch)
        with torch.no_grad():
            decoded = m.reconstruct(cells, matrix, updater.normal(n, c.latent_size + c.noise))
        made = self.maker.finish(decoded, updater.normal(n, self.maker.n_cell_noise), matrix)
        quantiles = updater.normal(n, self.maker.n_quantiles)
        found = self.maker.fidelity(decoded, made, cells, matrix, quantiles)
        terms = {name: (w.fidelity, value) for name, value in found.items()}
        if updater.progress >= c.post_first:
            terms |= self._sorted_losses(made, cells)
        updater.update("post", torch.stack([weight * value for weight, value in terms.values()]).sum())
        return {name: value.detach() for name, (_, value) in terms.items()}

    def _sorted_losses(self, made: Tensor, cells: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return weights and losses of the sorted cells of made and true showers (B, n_cells)."""
        w = self.config.sorted
        x, y = sorted_cells(made), sorted_cells(cells)
        discrepancy = torch.stack([window_mmd(x, y, a, stride=w.stride) for a in _SORTED_ALPHAS]).sum()
        return {
            "sorted_mmd": (w.mmd, discrepancy),
            "sorted_mse": (w.mse, (x - y).square().mean()),
            "sorted_mae": (w.mae, (x - y).abs().mean()),
            "total": (w.total, (made.sum(1) - cells.sum(1)).square().mean()),
        }

    # the calibration

    @torch.no_grad()
    def fit_cells(self, data: TrainingData, generator: torch.Generator) -> None:
        """Fit the energies of hits of showers that are encoded, decoded and finished."""
        m, c, spectrum = self.model, self.config, self.maker.spectrum
        assert spectrum is not None
        m.eval()
        size = c.latent_size + c.noise + self.maker.n_cell_noise
        true: list[tuple[Tensor, Tensor]] = []
        made: list[tuple[Tensor, Tensor]] = []
        for batch in data.batches(_CALIBRATION_ROWS):
            cells, matrix = m.clean(batch.cells), batch.conditions
            noise = torch.randn(len(batch), size, generator=generator, device=generator.device).to(
                cells.device
            )
            first, last = torch.split(noise, [c.latent_size + c.noise, self.maker.n_cell_noise], 1)
            finished = m.clean(self.maker.finish(m.reconstruct(cells, matrix, first), last, matrix))
            theta = self.maker.theta(matrix)[:, None].expand_as(cells)
            for store, some in ((true, cells), (made, finished.float())):
                store.append((some[some > 0], theta[some > 0]))
            if len(true) * _CALIBRATION_ROWS >= _CALIBRATED:
                break
        joined = [(torch.cat([e for e, _ in part]), torch.cat([t for _, t in part])) for part in (true, made)]
        spectrum.fit(joined[0], joined[1])

    # figures

    def validate(self, data: TrainingData) -> dict[str, float]:
        """Return figures of encoded and decoded held-out showers, finished ones, with the same noise each time."""
        m, c = self.model, self.config
        n_max = max(1, min(len(data), _MOST_CELLS // m.detector.n_cells))
        size = c.latent_size + c.noise + self.maker.n_cell_noise
        truth, fake, matrix = [], [], []
        for start in range(0, n_max, _ROWS):
            batch = data.take(torch.arange(start, min(start + _ROWS, n_max), device=data.device))
            noise = counted_noise(2, start, len(batch), size, data.device)
            first, last = torch.split(noise, [c.latent_size + c.noise, self.maker.n_cell_noise], 1)
            cells = m.clean(batch.cells)
            decoded = m.reconstruct(cells, batch.conditions, first)
            fake.append(m.clean(self.maker.finish(decoded, last, batch.conditions)))
            truth.append(cells)
            matrix.append(batch.conditions)
        layer = torch.as_tensor(m.detector.cell_layer, device=data.device)
        energy = self.maker.energy(torch.cat(matrix))
        return bib_figures(torch.cat(truth), torch.cat(fake).float(), energy, layer)
