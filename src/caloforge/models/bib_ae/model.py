r"""BIB-AE with post-processor for showers on a grid, conditioned on energy and angle.

Stages, one after another:

1. ``bib-ae``: an encoder turns a shower x into latents z, a decoder turns z, noise and conditions into :math:`\tilde x`. Both
   lower the losses of two critics of showers, one of which is initialised again after ``fresh_every`` epochs, of a critic of each
   latent number, of the discrepancy (MMD) of z from N(0, 1), and the Kullback-Leibler divergence;
2. ``post-processor``: with the decoder frozen it learns to set the cells' energies, first cell by cell alone, then with losses on
   the sorted cells (:mod:`~caloforge.models.bib_ae.critic`);
3. ``cell-spectrum`` (``improved`` only): the energies of hits are brought to the true spectrum;
4. ``latent-kde`` and ``latent-flow``: the density of the codes of the training showers under the conditions.

Latents come from N(0, 1), from the kernel density or from the flow: setting ``latent``, or at generation
``caloforge generate RUN --set latent=kde``, ``load(RUN, options={"latent": "kde"})``. All are functions of counted noise.

As published (preset ``paper``): networks, losses, weights, optimisers, batches and epochs of the two papers; see
:mod:`~caloforge.models.bib_ae.networks`, :mod:`~caloforge.models.bib_ae.critic`,
:mod:`~caloforge.models.bib_ae.networks` and :mod:`~caloforge.models.bib_ae.latent` for what was not given there and is ours. Cells
below 1e-4 MeV are 0; energies behind thicker absorber count by the ratio of the radiation lengths (2 here, 2.03 in the paper, from
visible energies). Not found, so ours: the epochs of the post-processor (20, half of them cell by cell alone), its optimiser, the
bandwidth of the kernels (half of Scott's, which smooths two dozen dimensions too much). With latents from N(0, 1) the post-processor is given the mean visible energy.

What ``improved`` changes, and why:

- visible and absorber-weighted energy are drawn from fitted distributions, and showers brought to them: response and
  width, before and after reconstruction, do not depend on a network (:mod:`~caloforge.models.bib_ae.axis_maker`);
- the decoder works along the shower's axis and makes mean energies, learnt by their deviance; the critics, whose weights are
  small, see what is drawn from them. With thousands of showers and not half a million the critics alone do not teach the profile;
- the post-processor draws each cell: the mean says where, likelihoods give number and spectrum of the hits, a fitted table the edge
  of the MIP (:mod:`~caloforge.models.calibration.energy_maps`). Losses of the sorted
  cells follow as published, with small weights;
- critics with cross entropy and R1 each eighth step in place of five critic steps with a gradient penalty each; they see
  logarithms of cells, and not the difference to the encoded shower, which would tell every drawn one;
- the showers are mirrored in x; moving averages; rates that fall to zero;
- the flow learns the latents given energies and conditions, with fewer blocks, and stops at its best held-out likelihood.

References:
    E. Buhmann et al., Getting high: high fidelity simulation of high granularity calorimeters with high speed, arXiv:2005.05334.
    E. Buhmann et al., Decoding photons: physics in the latent space of a BIB-AE generative network, arXiv:2102.12491.
    S. Diefenbacher et al., New angles on fast calorimeter shower simulation, arXiv:2303.18150.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel
from caloforge.models.bib_ae.axis_maker import AxisMaker
from caloforge.models.bib_ae.critic import LatentCritic, ShowerCritic
from caloforge.models.bib_ae.latent import LatentFlow, LatentKde, LatentNormal
from caloforge.models.bib_ae.maker import Decoded, PublishedMaker, ShowerMaker
from caloforge.models.bib_ae.networks import BibEncoder
from caloforge.models.bib_ae.settings import PAPER, BibAeConfig, BibSampling
from caloforge.models.bib_ae.training import bib_stages
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.models.nn.symmetry import BeamMirror
from caloforge.models.stage import Batch, Stage
from caloforge.showers import Showers

__all__ = ["MAKERS", "BibAe"]

MAKERS: Mapping[str, type[ShowerMaker]] = {"published": PublishedMaker, "axis": AxisMaker}
"""Name of a maker to its class."""
THRESHOLD = 1e-4
"""Cells below it are empty, MeV."""
_LEAST = 12
_ROWS = 256
_CPU_ROWS = 4
"""Showers that pass the network at a time on a CPU: their maps stay in its caches, which halves the time."""


class BibAe(ShowerModel):
    """The BIB-AE; see the module."""

    Config = BibAeConfig
    Sampling = BibSampling
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"improved": {}, "paper": PAPER}
    training_only = ("encoder", "critic", "fresh", "latent_critic")
    config: BibAeConfig
    sampling: BibSampling

    def __init__(self, detector: Detector, config: BibAeConfig) -> None:
        super().__init__(detector, config)
        other = [name for name in self.conditions if name not in ("incident_energy", "incident_theta")]
        if other or "incident_energy" not in self.columns:
            msg = f"bib-ae: key 'conditions': got {', '.join(self.conditions)}; expected incident_energy, or with incident_theta"
            raise ConfigError(msg)
        theta = self.columns["incident_theta"].start if "incident_theta" in self.columns else None
        encoder = ConditionEncoder(detector, self.columns)
        self.maker = MAKERS[config.maker](
            detector, config, encoder, self.columns["incident_energy"].start, theta
        )
        given, size = self.maker.n_conditions, config.latent_size
        self.encoder = BibEncoder(detector.shape, self.maker.n_images, given, size, small=self.maker.small)
        logarithmic = self.maker.logarithmic
        self.critic = ShowerCritic(detector.shape, given, config.differences, logarithmic)
        self.fresh = ShowerCritic(detector.shape, given, config.differences, logarithmic)
        self.latent_critic = LatentCritic(size)
        self.mirror = BeamMirror(detector)
        self.code_size = size + (self.maker.n_sums if self.maker.joint else 0)
        context = given if not self.maker.joint else encoder.width
        flow = config.flow
        self.latents = nn.ModuleDict(
            {
                "normal": LatentNormal(),
                "kde": LatentKde(self.code_size, context, config.kde_most, config.kde_bandwidth),
                "flow": LatentFlow(
                    self.code_size,
                    context,
                    flow.blocks,
                    flow.couplings,
                    flow.hidden,
                    flow.spline_hidden,
                    flow.bins,
                ),
            }
        )

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Accept grids with twelve cells or more along x and y, and as many layers.

        Raises:
            IncompatibleError: For any other detector.
        """
        if not detector.is_grid or not detector.is_flat or min(detector.shape) < _LEAST:
            msg = (
                f"bib-ae makes showers on a grid of {_LEAST} cells or more along each axis, such as ild-ecal; "
                f"'{detector.name}' has {detector.shape}"
            )
            raise IncompatibleError(msg)

    # constants

    def fit_transforms(self, showers: Showers) -> None:
        """Set scales and energies."""
        super().fit_transforms(showers)
        matrix = self.condition_matrix(showers)
        self.maker.encoder.fit(matrix)
        layers, most = [], 0
        for start in range(0, len(showers), _ROWS):
            cells = torch.from_numpy(showers.cells[start : start + _ROWS])
            layers.append(self.maker.grid(cells).sum((1, 2)))
            most = max(most, int((cells > THRESHOLD).sum(1).max()))
        self.maker.fit(torch.cat(layers), matrix, most)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with half of the showers mirrored in x, where that holds."""
        if not (self.config.symmetries and self.mirror.holds):
            return batch
        flags = torch.rand(len(batch), generator=generator, device=batch.cells.device) < 0.5
        grid = self.maker.grid(batch.cells)
        cells = torch.where(flags[:, None, None, None], self.mirror(grid), grid).flatten(1)
        return Batch(cells, batch.conditions, batch.indices)

    # generation

    @property
    def noise_size(self) -> int:
        """Normal numbers: energies, latents, one that chooses a kernel, the decoder's noise, the cells'."""
        return sum(self._parts)

    @property
    def _parts(self) -> list[int]:
        config = self.config
        return [self.maker.n_sums, config.latent_size, 1, config.noise, self.maker.n_cell_noise]

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, none between 0 and 1e-4."""
        if noise.device.type != "cpu" or torch.is_grad_enabled() or len(noise) <= _CPU_ROWS:
            return self._sample(noise, conditions)
        parts = zip(torch.split(noise, _CPU_ROWS), torch.split(conditions, _CPU_ROWS), strict=True)
        return torch.cat([self._sample(*part) for part in parts])

    def _sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells of showers that pass the network together."""
        energies, z, choice, free, cell_noise = torch.split(noise, self._parts, 1)
        sums, z = self.codes(energies, z, choice[:, 0], conditions)
        decoded = self.maker.decode(z, free, sums, conditions)
        return self.clean(self.maker.finish(decoded, cell_noise, conditions))

    def codes(self, energies: Tensor, z: Tensor, choice: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return sums (B, n_sums) and latents (B, latent) of normal numbers, by the chosen source."""
        source = self.latents[self.sampling.latent or self.config.latent]
        assert isinstance(source, LatentNormal | LatentKde | LatentFlow)
        if not self.maker.joint:
            return energies, source.draw(z, choice, self.maker.given(energies, conditions))
        if not source.whole:
            return self.maker.expected(conditions), source.draw(z, choice, self.maker.context(conditions))
        code = source.draw(torch.cat([energies, z], 1), choice, self.maker.context(conditions))
        return code[:, : self.maker.n_sums], code[:, self.maker.n_sums :]

    @staticmethod
    def clean(cells: Tensor) -> Tensor:
        """Return cells with those below the threshold at 0."""
        return torch.where(cells < THRESHOLD, torch.zeros_like(cells), cells)

    # encoding

    def encode(self, cells: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums (B, n_sums), means and log variances (B, latent) of true showers (B, n_cells)."""
        sums = self.maker.sums(cells, conditions)
        mean, log_variance = self.encoder(self.maker.images(cells), self.maker.given(sums, conditions))
        return sums, mean, log_variance

    def reconstruct(self, cells: Tensor, conditions: Tensor, noise: Tensor) -> Decoded:
        """Return decoded showers of encoded ones; noise (B, latent + noise) draws the latents."""
        sums, mean, log_variance = self.encode(cells, conditions)
        first, free = torch.split(noise, [self.config.latent_size, self.config.noise], 1)
        return self.maker.decode(mean + torch.exp(0.5 * log_variance) * first, free, sums, conditions)

    # training

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the module."""
        return bib_stages(self)
