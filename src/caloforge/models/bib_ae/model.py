r"""BIB-AE with post-processor for showers on a grid, conditional on energy and angle.

Stages, one after another:

1. ``bib-ae``: an encoder turns a shower x into latents z, a decoder turns z, noise and conditions into :math:`\tilde x`. Both
   minimise the losses of two critics of showers, one of which is initialised again after ``fresh_every`` epochs, of a critic of each
   latent number, of the discrepancy (MMD) of z from N(0, 1), and the Kullback-Leibler divergence;
2. ``post-processor``: with the decoder frozen it is trained on the cells' energies, first cell by cell alone, then with losses on
   the sorted cells (:mod:`~caloforge.models.bib_ae.critics`);
3. ``calibrate`` (``improved`` only): a map of the energies of hits to the true spectrum;
4. ``latent-kde`` and ``latent-flow``: the conditional density of the codes of the training showers;
5. ``axis`` (``improved`` only): random displacements of the axis, with which generated showers scatter as the training showers do
   (:mod:`~caloforge.models.bib_ae.axis`).

Latents come from N(0, 1), from the kernel density or from the flow: setting ``latent``, or at generation
``caloforge generate RUN --set latent=kde``, ``load(RUN, options={"latent": "kde"})``. All are functions of counted noise.

As published (preset ``paper``): networks, losses, weights, optimisers, batches and epochs of the two papers; see
:mod:`~caloforge.models.bib_ae.networks`, :mod:`~caloforge.models.bib_ae.critics` and :mod:`~caloforge.models.bib_ae.latents` for
what is not published and ours. Cells below 1e-4 MeV are 0; energies behind thicker absorber count by the ratio of the radiation
lengths (2 here, 2.03 in the paper, from visible energies). Also ours: the epochs of the post-processor (20, half of them cell by
cell alone), its optimiser, the bandwidth of the kernels (half of Scott's, which smooths two dozen dimensions too much). With latents
from N(0, 1) the post-processor takes the mean visible energy.

What ``improved`` changes, and why:

- visible and absorber-weighted energy are drawn from fitted distributions, and showers scaled to them: response and
  width, before and after reconstruction, do not depend on a network (:mod:`~caloforge.models.bib_ae.generators`);
- the decoder works along the shower's axis and makes mean energies, trained by their deviance; the critics, whose weights are
  small, see sampled showers. With thousands of showers and not half a million the critics alone do not teach the profile;
- the post-processor samples each cell: the mean says where, likelihoods determine number and spectrum of the hits, a fitted table
  the edge of the MIP (:mod:`~caloforge.models.calibration.distributions`). Losses of the sorted cells follow as published, with small
  weights;
- critics with cross entropy and R1 each eighth step in place of five critic steps with a gradient penalty each; they see
  logarithms of cells, and not the difference to the encoded shower, which would reveal every sampled one;
- the showers are mirrored in x; moving averages; rates that fall to zero;
- the flow learns the latents conditional on energies and conditions, with fewer blocks, and stops at its best held-out likelihood.

References:
    E. Buhmann et al., Getting high: high fidelity simulation of high granularity calorimeters with high speed, arXiv:2005.05334.
    E. Buhmann et al., Decoding photons: physics in the latent space of a BIB-AE generative network, arXiv:2102.12491.
    S. Diefenbacher et al., New angles on fast calorimeter shower simulation, arXiv:2303.18150.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel
from caloforge.models.bib_ae.critics import LatentCritic, ShowerCritic
from caloforge.models.bib_ae.generators import GENERATORS, THRESHOLD, AxisGenerator, apply_threshold
from caloforge.models.bib_ae.latents import LatentFlow, LatentKde
from caloforge.models.bib_ae.networks import BibEncoder
from caloforge.models.bib_ae.settings import PAPER, BibAeConfig, BibSampling
from caloforge.models.bib_ae.training import BibTraining
from caloforge.models.nn.conditions import BeamSymmetry
from caloforge.models.stage import Batch, Stage, TrainingData
from caloforge.showers import Showers

__all__ = ["BibAe"]

_LEAST = 12
_ROWS = 256
_LINES, _FEWEST_LINES = 1500, 100  # most and fewest showers to fit the displacements of the axis to


class BibAe(ShowerModel):
    """The BIB-AE; see the module."""

    papers: ClassVar[tuple[str, ...]] = ("getting-high", "decoding-photons", "new-angles")
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
        self.generator = generator = GENERATORS[config.decoder](detector, config, self.columns)
        conditions, small = generator.n_conditions, generator.logarithmic
        sizes = generator.n_images, conditions, config.latent_size
        self.encoder = BibEncoder(detector.shape, *sizes, small=small)
        self.critic, self.fresh = (
            ShowerCritic(detector.shape, conditions, config.differences, generator.logarithmic)
            for _ in range(2)
        )
        self.latent_critic = LatentCritic(config.latent_size)
        self.symmetry = BeamSymmetry(detector, self.columns)
        code = config.latent_size + generator.n_code_sums, conditions
        self.flow = LatentFlow(*code, config.flow)
        self.kde = LatentKde(*code, config.kde_most, config.kde_bandwidth)

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

    def fit_transforms(self, showers: Showers) -> None:
        """Set scales and energies."""
        super().fit_transforms(showers)
        self.symmetry.allow(showers.incident_theta)
        layers, most = [], 0
        for start in range(0, len(showers), _ROWS):
            cells = torch.from_numpy(showers.cells[start : start + _ROWS])
            layers.append(self.generator.grid(cells).sum((1, 2)))
            most = max(most, int((cells > THRESHOLD).sum(1).max()))
        self.generator.fit(torch.cat(layers), self.condition_matrix(showers), most)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with half of the showers mirrored in x, where that is a symmetry."""
        if not self.config.symmetries:
            return batch
        numbers = -torch.ones(len(batch), 3, device=batch.cells.device)
        numbers[:, 0] = 0.5 - torch.rand(len(batch), generator=generator, device=batch.cells.device)
        cells = self.symmetry.cells(batch.cells, self.symmetry.flags(numbers))
        return Batch(cells, batch.conditions, batch.indices)

    @property
    def noise_size(self) -> int:
        """Normal numbers: energies, latents, one that chooses a kernel, the decoder's noise, the cells', those that move the axis."""
        return sum(self._parts)

    @property
    def _parts(self) -> list[int]:
        c, g = self.config, self.generator
        return [g.n_sums, c.latent_size, 1, c.noise, g.n_cell_noise, g.n_axis]

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, none between 0 and 1e-4."""
        energies, z, choice, free, cell_noise, axis = torch.split(noise, self._parts, 1)
        kind = self.sampling.latent or self.config.latent
        density = {"normal": None, "kde": self.kde, "flow": self.flow}[kind]
        sums, z = self.generator.draw_code(density, energies, z, choice[:, 0], conditions)
        parts = z, free, sums, cell_noise, axis
        return apply_threshold(self.generator.make(*parts, conditions, self.sampling.calibrated))

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the module."""
        layer, critics = (
            torch.from_numpy(self.detector.cell_layer),
            {"critic": self.critic, "fresh": self.fresh},
        )
        mirrored = self.symmetry if self.config.symmetries and self.symmetry.possible[0] else None
        networks = self.encoder, self.generator, critics, self.latent_critic, self.flow, self.kde
        trained = BibTraining(self.config, layer, *networks, mirrored, self.imitate).stages()
        return (*trained, Stage("axis", fit=self._fit_axis)) if self.generator.n_axis else trained

    @torch.no_grad()
    def _fit_axis(self, data: TrainingData, generator: torch.Generator) -> None:
        """Fit the displacements of the axis to training showers and generated ones under their conditions."""
        parts = self.generator
        assert isinstance(parts, AxisGenerator)
        if len(data) < _FEWEST_LINES:
            return
        batch = data.take(torch.arange(min(_LINES, len(data)), device=data.device))
        energy, angle = parts.energy(batch.conditions), parts.theta(batch.conditions)
        depths = parts.decoder.maps.z
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))

        def covariance(cells: Tensor) -> Tensor:
            rows = zip(torch.split(cells, _ROWS), torch.split(batch.conditions, _ROWS), strict=True)
            lines = torch.cat([parts.lines(*part) for part in rows])
            return parts.axis.covariance(lines, energy, angle)

        def made() -> Tensor:
            return covariance(self.draw(batch.conditions, seed=seed, batch_size=_ROWS))

        parts.axis.root.zero_()
        wanted, before = covariance(batch.cells), made()
        layers = batch.cells.view(len(batch), -1, len(depths)).sum(1)
        parts.axis.fit(wanted - before, (layers.sum(0) * depths).sum() / layers.sum())
        parts.axis.correct(wanted, before, made())
