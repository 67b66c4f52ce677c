"""Stages of a BIB-AE's training, and the figures of merit that choose their epochs.

Figures are those of :mod:`caloforge.models.selection`, for encoded and decoded showers in the first two stages and for generated
ones in the last, and

- ``spectrum``: half the sum over bins of |n_g - n_r| over the sum of n_r, for the numbers of cells per 0.1 of the decimal
  logarithm of the energy, from 0.01 MeV to 1 GeV;
- ``selection``: ``physics`` + ``spectrum`` / 0.02.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caloforge.models.base import counted_noise
from caloforge.models.bib_ae.critics import LatentCritic, ShowerCritic, mmd, sorted_cells, window_mmd
from caloforge.models.bib_ae.generators import Decoded, ShowerGenerator, apply_threshold
from caloforge.models.bib_ae.latents import LatentFlow, LatentKde
from caloforge.models.bib_ae.networks import BibEncoder
from caloforge.models.bib_ae.settings import BibAeConfig
from caloforge.models.calibration.base import STAGE
from caloforge.models.nn.adversarial import CRITIC_LOSSES, Critic
from caloforge.models.nn.cell_networks import reinitialise
from caloforge.models.nn.conditions import BeamSymmetry
from caloforge.models.selection import compare
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater

__all__ = ["BibTraining", "bib_figures", "spectrum_distance"]

_LATENT_ALPHAS = (1.0, 0.01)
_SORTED_ALPHAS = (40.0, 4.0)
_MOST_CELLS = 40_000_000
_ROWS = 64
_CALIBRATION_ROWS = 16
_CALIBRATED = 1000  # training showers to which the energies of hits are fitted
_LOWEST, _HIGHEST, _BINS = -2.0, 3.0, 50
_SPECTRUM_SCALE = 0.02


def spectrum_distance(truth: Tensor, fake: Tensor) -> float:
    """Return ``spectrum`` of the module for cells (N, n_cells), MeV, of as many showers each."""
    logs = (torch.log10(cells.float().clamp_min(1e-6)).flatten() for cells in (truth, fake))
    true, other = (torch.histc(x, _BINS, _LOWEST, _HIGHEST) for x in logs)
    return float(0.5 * (other - true).abs().sum() / true.sum().clamp_min(1.0))


def bib_figures(truth: Tensor, fake: Tensor, energy: Tensor, layer: Tensor) -> dict[str, float]:
    """Return the module's figures of merit for true and generated cells (N, n_cells) of the same incident energies (N,), MeV.

    ``layer`` is that of each cell (n_cells,).
    """
    figures = compare(truth, fake, energy, layer.to(truth.device))
    figures["spectrum"] = spectrum_distance(truth, fake)
    figures["selection"] = figures["physics"] + figures["spectrum"] / _SPECTRUM_SCALE
    return figures


@dataclass(eq=False)
class BibTraining:
    """The stages, made of the parts of a model."""

    config: BibAeConfig  # its settings
    layer: Tensor  # layer of each cell (n_cells,)
    encoder: BibEncoder  # the encoder
    generator: ShowerGenerator  # decoder and post-processor
    # critics of showers: ``critic``, and ``fresh``, which is initialised again
    critics: Mapping[str, ShowerCritic]
    latent_critic: LatentCritic  # critic of latents
    flow: LatentFlow  # normalising flow of codes
    kde: LatentKde  # kernel density of codes
    symmetry: BeamSymmetry | None  # the symmetry of the beam whose mirror in x doubles the codes, or None
    # held-out and generated cells and incident energies, ``ShowerModel.imitate``
    imitate: Callable[[TrainingData], tuple[Tensor, Tensor, Tensor]]
    _codes: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        self.losses = CRITIC_LOSSES[self.config.adversarial]

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages in order; the fit of the energies of hits only where the generator has a table of them."""
        c, generator = self.config, self.generator
        decoder, post = generator.decoder, generator.post_processor
        trained = (decoder, post) if generator.joint else (decoder,)
        optimizers = {
            "generator": OptimizerSpec.of(c.generator, self.encoder, *trained),
            **{name: OptimizerSpec.of(c.critic, critic) for name, critic in self.critics.items()},
            "latent_critic": OptimizerSpec.of(c.latent_critic, self.latent_critic),
        }
        first = Stage(
            "bib-ae", c.epochs, c.batch_size, optimizers, self.first_step,
            validate=self.validate_showers, metric="selection", on_epoch_start=self.refresh,
            compiled=(self.encoder, decoder, *self.critics.values()),
        )  # fmt: skip
        second = Stage(
            "post-processor", c.post_epochs, c.batch_size, {"post": OptimizerSpec.of(c.post, post)}, self.second_step,
            validate=self.validate_showers, metric="selection", frozen=(self.encoder, decoder),
        )  # fmt: skip
        spectrum = (Stage(STAGE, fit=self.fit_spectrum),) if generator.spectrum else ()
        optimizers = {"flow": OptimizerSpec.of(c.flow_optimizer, self.flow)}
        flow = Stage(
            "latent-flow", c.flow_epochs, c.flow_batch_size, optimizers, self.flow_step,
            validate=self.validate_flow, metric="nll", on_start=self.prepare_flow, frozen=(self.encoder, generator),
        )  # fmt: skip
        return first, second, *spectrum, Stage("latent-kde", fit=self.fit_kde), flow

    # encoding

    def encode(self, cells: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return conditions (B, n_conditions), sums (B, n_sums), means and log variances (B, latent) of true showers."""
        sums = self.generator.sums(cells, matrix)
        conditions = self.generator.conditioning(sums, matrix)
        mean, log_variance = self.encoder(self.generator.images(cells), conditions)
        return conditions, sums, mean, log_variance

    def reconstruct(self, cells: Tensor, matrix: Tensor, z_noise: Tensor, noise: Tensor) -> Decoded:
        """Return decoded showers of encoded ones; normal numbers (B, latent) sample z, (B, noise) are the decoder's."""
        _, sums, mean, log_variance = self.encode(cells, matrix)
        return self.generator.decode(mean + torch.exp(0.5 * log_variance) * z_noise, noise, sums, matrix)

    def reconstructed(
        self, data: TrainingData, n: int, rows: int, normal: Callable[[int, int, int], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over true cells, the same after encoder, decoder and post-processor, and conditions.

        Of ``n`` showers at most, ``rows`` at a time; ``normal`` returns normal numbers (B, k) of ``start``, B and k.
        """
        sizes = [self.config.latent_size, self.config.noise, self.generator.n_cell_noise]
        n = min(n, len(data))
        for start in range(0, n, rows):
            batch = data.take(torch.arange(start, min(start + rows, n), device=data.device))
            cells, matrix = apply_threshold(batch.cells), batch.conditions
            noise = normal(start, len(batch), sum(sizes)).to(cells.device)
            z_noise, decoder_noise, cell_noise = torch.split(noise, sizes, 1)
            decoded = self.reconstruct(cells, matrix, z_noise, decoder_noise)
            yield cells, apply_threshold(self.generator.finish(decoded, cell_noise, matrix)).float(), matrix

    @torch.no_grad()
    def encoded(self, data: TrainingData) -> Tensor:
        """Return (1 or 2, N, k): conditions, sums in the code, means and standard deviations of all codes.

        The second row, where there is one, is of the mirrored showers.
        """
        codes = torch.zeros(0)
        for batch in data.batches(_ROWS):
            images = [apply_threshold(batch.cells)]
            if self.symmetry is not None:
                mirror_x = images[0].new_tensor([1.0, -1.0, -1.0]).expand(len(batch), -1)
                images.append(self.symmetry.cells(images[0], self.symmetry.flags(mirror_x)))
            for side, cells in enumerate(images):
                conditions, sums, mean, log_variance = self.encode(cells, batch.conditions)
                sums = sums[:, : self.generator.n_code_sums]
                row = torch.cat([conditions, sums, mean, torch.exp(0.5 * log_variance)], 1)
                if not len(codes):
                    codes = row.new_zeros(len(images), len(data), row.shape[1])
                codes[side, batch.indices] = row
        return codes

    def sample_code(self, rows: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes and contexts of rows (B, k) of ``encoded`` and normal numbers (B, latent)."""
        size = self.config.latent_size
        sizes = [self.generator.n_conditions, self.generator.n_code_sums, size, size]
        context, sums, mean, std = torch.split(rows, sizes, 1)
        return torch.cat([sums, mean + std * normal], 1), context

    # the first stage

    def refresh(self, updater: Updater) -> None:
        """Initialise the second critic again every ``fresh_every`` epochs."""
        if updater.epoch % self.config.fresh_every == 0:
            reinitialise(self.critics["fresh"])
            updater.reset("fresh")

    def first_step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Update the critics, and each ``critic_steps``-th time encoder and decoder; return the losses."""
        c, generator = self.config, self.generator
        cells, matrix, n = apply_threshold(batch.cells), batch.conditions, len(batch)
        turn = updater.every(c.critic_steps)
        with torch.set_grad_enabled(turn):
            conditions, sums, mean, log_variance = self.encode(cells, matrix)
            z = mean + torch.exp(0.5 * log_variance) * updater.normal(n, c.latent_size)
            decoded = generator.decode(z, updater.normal(n, c.noise), sums, matrix)
            fake = decoded.cells.flatten(1)
            if generator.joint:
                fake = generator.finish(decoded, updater.normal(n, generator.n_cell_noise), matrix)
            views = generator.view(cells), generator.view(fake)
        conditions = conditions.detach()
        logs = {key: self._update_critic(key, views, conditions, updater) for key in self.critics}
        real, latent = updater.normal(*z.shape), z.detach()
        loss = self.losses.critic(self.latent_critic(real), self.latent_critic(latent))
        pair = real, latent
        logs["latent_critic"] = self._penalised("latent_critic", loss, self.latent_critic, *pair, updater)
        if not turn:
            return logs
        w, ramp = c.weights, min(1.0, (updater.progress + 1e-3) / max(c.critics_ramp, 1e-3))
        terms: dict[str, tuple[float, Tensor]] = {}
        for (name, critic), weight in zip(self.critics.items(), (w.critic, w.fresh), strict=True):
            value = self.losses.generator(critic(views[1], views[0], conditions))
            terms[f"{name}_generator"] = (ramp * weight, value)
        terms["latent_generator"] = (w.latent_critic, self.losses.generator(self.latent_critic(z)))
        normal = updater.normal(n, c.latent_size)
        terms["latent_mmd"] = (w.latent_mmd, torch.stack([mmd(z, normal, a) for a in _LATENT_ALPHAS]).sum())
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1).mean()
        terms["kl"] = (w.kl, divergence)
        if w.likelihood:
            found = generator.decoder_losses(decoded, cells, matrix)
            quantiles = updater.normal(n, generator.n_quantiles)
            found |= generator.cell_losses(decoded, fake, cells, matrix, quantiles)
            terms |= {name: (w.likelihood, value) for name, value in found.items()}
        return logs | _update("generator", terms, updater)

    def _update_critic(
        self, name: str, views: tuple[Tensor, Tensor], conditions: Tensor, updater: Updater
    ) -> Tensor:
        """Update a critic by the views of true and generated showers (B, n_cells); return its loss."""
        critic = self.critics[name]
        real, fake = (view.detach() for view in views)
        twice = torch.cat([conditions, conditions])
        both = critic(torch.cat([real, fake]), torch.cat([real, real]), twice, groups=2)
        loss = self.losses.critic(*both.chunk(2))
        return self._penalised(name, loss, lambda x: critic(x, real, conditions), real, fake, updater)

    def _penalised(
        self, name: str, loss: Tensor, critic: Critic, real: Tensor, fake: Tensor, updater: Updater
    ) -> Tensor:
        """Add the gradient penalty every ``penalty_every`` steps and update; return the loss without it."""
        c, total = self.config, loss
        if c.penalty and updater.every(c.penalty_every):
            penalty = self.losses.penalty(critic, real, fake, updater.uniform(len(real), 1))
            total = loss + c.penalty * c.penalty_every * penalty
        updater.update(name, total)
        return loss.detach()

    # the post-processor

    def second_step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Update the post-processor; return the losses."""
        c, generator = self.config, self.generator
        cells, matrix, n = apply_threshold(batch.cells), batch.conditions, len(batch)
        with torch.no_grad():
            normal = updater.normal(n, c.latent_size + c.noise)
            noise = torch.split(normal, [c.latent_size, c.noise], 1)
            decoded = self.reconstruct(cells, matrix, *noise)
        finished = generator.finish(decoded, updater.normal(n, generator.n_cell_noise), matrix)
        quantiles = updater.normal(n, generator.n_quantiles)
        found = generator.cell_losses(decoded, finished, cells, matrix, quantiles)
        terms = {name: (c.sorted.fidelity, value) for name, value in found.items()}
        if updater.progress >= c.post_first:
            terms |= self.sorted_losses(finished, cells)
        return _update("post", terms, updater)

    def sorted_losses(self, fake: Tensor, cells: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return weights and losses of the sorted cells of generated and true showers (B, n_cells)."""
        w = self.config.sorted
        x, y = sorted_cells(fake), sorted_cells(cells)
        discrepancy = torch.stack([window_mmd(x, y, a, stride=w.stride) for a in _SORTED_ALPHAS]).sum()
        return {
            "sorted_mmd": (w.mmd, discrepancy),
            "sorted_mse": (w.mse, (x - y).square().mean()),
            "sorted_mae": (w.mae, (x - y).abs().mean()),
            "total": (w.total, (fake.sum(1) - cells.sum(1)).square().mean()),
        }

    @torch.no_grad()
    def fit_spectrum(self, data: TrainingData, generator: torch.Generator) -> None:
        """Fit the table of the energies of hits to showers that are encoded, decoded and finished."""
        assert self.generator.spectrum is not None
        self.encoder.eval()
        self.generator.eval()

        def normal(_start: int, n: int, k: int) -> Tensor:
            return torch.randn(n, k, generator=generator, device=generator.device)

        hits = []
        for *pair, matrix in self.reconstructed(data, _CALIBRATED, _CALIBRATION_ROWS, normal):
            theta = self.generator.theta(matrix)[:, None].expand(-1, len(self.layer))
            hits.append([torch.stack([cells[cells > 0], theta[cells > 0]]) for cells in pair])
        true, fake = (torch.cat(part, 1) for part in zip(*hits, strict=True))
        self.generator.spectrum.fit((true[0], true[1]), (fake[0], fake[1]))

    def validate_showers(self, data: TrainingData) -> dict[str, float]:
        """Return figures of held-out showers, encoded, decoded and finished with the same noise each time."""

        def normal(start: int, n: int, k: int) -> Tensor:
            return counted_noise(0, start, n, k, data.device, "selection")

        n = max(1, _MOST_CELLS // len(self.layer))
        rows = zip(*self.reconstructed(data, n, _ROWS, normal), strict=True)
        truth, fake, matrix = (torch.cat(part) for part in rows)
        return bib_figures(truth, fake, self.generator.energy(matrix), self.layer)

    # densities of codes

    @torch.no_grad()
    def fit_kde(self, data: TrainingData, generator: torch.Generator) -> None:
        """Set the kernels from one code of each training shower."""
        self.encoder.eval()
        self.generator.eval()
        rows = self.encoded(data)[0]
        noise = torch.randn(len(rows), self.config.latent_size, generator=generator, device=generator.device)
        self.kde.fit(*self.sample_code(rows, noise.to(rows.device)))

    def prepare_flow(self, data: TrainingData, updater: Updater) -> None:
        """Encode all training showers, and set the scales of the flow."""
        self._codes = self.encoded(data)
        self.flow.fit(*self.sample_code(self._codes[0], self._normal(self._codes[0], 4)))

    def flow_step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        """Raise the likelihood of newly sampled codes; return minus its logarithm."""
        side = (updater.uniform(len(batch)) * len(self._codes)).long()
        rows = self._codes[side, batch.indices]
        loss = self.flow.loss(*self.sample_code(rows, updater.normal(len(batch), self.config.latent_size)))
        updater.update("flow", loss)
        return {"nll": loss.detach()}

    def validate_flow(self, data: TrainingData) -> dict[str, float]:
        """Return ``nll`` of held-out codes, and figures of generated showers."""
        rows = self.encoded(data)[0]
        nll = self.flow.loss(*self.sample_code(rows, self._normal(rows, 3)))
        truth, fake, energy = self.imitate(data)
        return {"nll": float(nll)} | bib_figures(apply_threshold(truth), fake, energy, self.layer)

    def _normal(self, rows: Tensor, seed: int) -> Tensor:
        """Return normal numbers (n, latent) for rows (n, k), the same at each call."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(len(rows), self.config.latent_size, generator=generator).to(rows.device)


def _update(name: str, terms: dict[str, tuple[float, Tensor]], updater: Updater) -> dict[str, Tensor]:
    """Minimise the weighted sum of losses; return them without gradients."""
    updater.update(name, torch.stack([weight * value for weight, value in terms.values()]).sum())
    return {name: value.detach() for name, (_, value) in terms.items()}
