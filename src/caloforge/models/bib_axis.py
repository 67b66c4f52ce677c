"""The improved maker of a BIB-AE: mean energies along the shower's axis, drawn cells, fitted energies.

- the visible energy and the absorber-weighted one are drawn from fitted distributions
  (:mod:`~caloforge.models.layers.shower_sums`) and given to encoder, decoder and the latents' density;
- the decoder shares them among the cells (:mod:`~caloforge.models.layers.axis_decoder`);
- the post-processor draws each cell (:mod:`~caloforge.models.layers.cell_sampler`) with a normal number that cells far from each
  other share;
- the finished shower is brought to the two energies by a smooth factor of depth, a few per cent; in between hits are given the
  spectrum of true ones (:mod:`~caloforge.models.layers.cell_spectrum`), which has the edge of the MIP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.bib_ae_config import BibAeConfig
from caloforge.models.bib_maker import Decoded, ShowerMaker
from caloforge.models.layers.axis_decoder import AxisDecoder
from caloforge.models.layers.cell_sampler import CellSampler
from caloforge.models.layers.cell_spectrum import CellSpectrum
from caloforge.models.layers.conditions import ConditionEncoder
from caloforge.models.layers.shower_sums import ShowerSums, Sums

__all__ = ["AxisMaker"]

_HIT = 0.8
"""MeV; variance over mean of a cell's energy, which makes the cross entropy a likelihood."""
_LOG_UNIT = 0.2
_LARGE = 50.0


class AxisMaker(ShowerMaker):
    """See the module."""

    joint = False
    n_sums = ShowerSums.size
    n_images = 2
    small = True
    logarithmic = True

    decoder: AxisDecoder
    post_processor: CellSampler
    spectrum: CellSpectrum
    shared: Tensor

    def __init__(
        self,
        detector: Detector,
        config: BibAeConfig,
        encoder: ConditionEncoder,
        energy: int,
        theta: int | None,
    ) -> None:
        super().__init__(detector, config, encoder, energy, theta)
        self.n_conditions = encoder.width + self.n_sums
        self.n_cell_noise = min(config.cell_noise, detector.n_cells)
        group = encoder.continuous.index(energy if theta is None else theta)
        self.energies = ShowerSums(detector, encoder.width, group)
        inputs = config.latent_size + config.noise + self.n_conditions
        self.decoder = AxisDecoder(detector, inputs, config.features)
        self.post_processor = CellSampler(config.features, self.n_conditions, config.width)
        self.spectrum = CellSpectrum()
        self.most_hits = min(1000, detector.n_cells)
        shared = torch.arange(detector.n_cells) % self.n_cell_noise
        self.register_buffer("shared", shared, persistent=False)

    def fit(self, layers: Tensor, matrix: Tensor, most: int) -> None:
        """Fit the energies."""
        self.energies.fit(layers, self.energy(matrix), self.context(matrix))
        self.most_hits = max(1, most)

    def context(self, matrix: Tensor) -> Tensor:
        """Return the standardised ln E and angle."""
        encoded: Tensor = self.encoder(matrix)
        return encoded

    def sums(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return both energies as normal numbers."""
        found = self.energies.of(self.grid(cells).sum((1, 2)))
        return self.energies.normals(found, self.energy(matrix), self.context(matrix))

    def given(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return conditions and energies."""
        return torch.cat([self.context(matrix), sums], 1)

    def expected(self, matrix: Tensor) -> Tensor:
        """Return the middle of the energies."""
        return torch.zeros(len(matrix), self.n_sums, device=matrix.device)

    def view(self, cells: Tensor) -> Tensor:
        """Return ln(1 + e / 0.2 MeV) of the weighted cells."""
        return torch.log1p(self.weighted(cells) / _LOG_UNIT)

    def images(self, cells: Tensor) -> Tensor:
        """Return the weighted cells and their logarithms."""
        grid = self.grid(self.weighted(cells))
        return torch.stack([grid / _LARGE, torch.log1p(grid / _LOG_UNIT) / 4.0], 1)

    def decode(self, z: Tensor, noise: Tensor, sums: Tensor, matrix: Tensor) -> Decoded:
        """Return mean energies, whose sums are those wanted."""
        inputs = torch.cat([z, noise, self.given(sums, matrix)], 1)
        shares, maps = self.decoder(inputs, self.theta(matrix))
        wanted = self.energies.draw(sums, self.energy(matrix), self.context(matrix))
        cells = torch.exp(shares) * wanted.visible[:, None, None, None]
        return Decoded(self._brought(cells, wanted), maps, sums)

    def judged(self, decoded: Decoded, noise: Tensor, matrix: Tensor) -> Tensor:
        """Return the finished cells."""
        return self.finish(decoded, noise, matrix)

    def finish(self, decoded: Decoded, noise: Tensor, matrix: Tensor) -> Tensor:
        """Return the drawn cells, brought to the energies."""
        normal = self.grid(noise[:, self.shared])
        given = self.given(decoded.sums, matrix)
        made: Tensor = self.post_processor(decoded.cells, decoded.maps, given, normal)
        wanted = self.energies.draw(decoded.sums, self.energy(matrix), self.context(matrix))
        made = self._brought(made, wanted)
        if self.spectrum.fitted:
            made = self._brought(self.spectrum(made, self.theta(matrix)), wanted)
        return made.flatten(1)

    def _brought(self, cells: Tensor, wanted: Sums) -> Tensor:
        """Return cells (B, X, Y, L) whose two energies are those wanted."""
        return cells * self.energies.factors(cells.sum((1, 2)), wanted)[:, None, None, :]

    def likelihoods(self, decoded: Decoded, cells: Tensor, matrix: Tensor) -> dict[str, Tensor]:
        """Return the deviance of the mean energies, a sum over cells and mean over showers."""
        mean = decoded.cells.flatten(1).clamp_min(1e-12)
        surprise = torch.where(cells > 0, cells * torch.log(cells.clamp_min(1e-12) / mean), 0.0)
        return {"deviance": surprise.sum(1).mean() / _HIT}

    @property
    def first(self) -> tuple[nn.Module, ...]:
        """Decoder and post-processor, whose likelihoods belong together."""
        return (self.decoder, self.post_processor)

    @property
    def n_quantiles(self) -> int:
        """Quantiles are learnt at as many cells as the training shower with the most hits has."""
        return self.most_hits

    def fidelity(
        self, decoded: Decoded, made: Tensor, cells: Tensor, matrix: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the cells' distribution; they do not move the means."""
        given = self.given(decoded.sums, matrix)
        return self.post_processor.losses(
            decoded.cells.detach(), decoded.maps, given, self.grid(cells), normal
        )
