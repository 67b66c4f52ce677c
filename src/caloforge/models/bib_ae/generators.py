"""Generators of a BIB-AE: decoder and post-processor, and how the energies of a shower enter them.

:class:`PublishedGenerator` is that of the papers. :class:`AxisGenerator`, the improved one:

- the visible and the absorber-weighted energy are drawn from fitted distributions
  (:mod:`~caloforge.models.calibration.distributions`) and condition encoder, decoder and the latents' density;
- the decoder shares them among the cells (:mod:`~caloforge.models.bib_ae.axis`);
- the post-processor samples each cell with a normal number that cells far from each other share;
- the finished shower is scaled to the two energies by a smooth factor of depth, a few per cent; in between a fitted table maps
  the energies of hits to the true spectrum (:mod:`~caloforge.models.calibration.distributions`), which has the edge of the MIP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.base import in_chunks
from caloforge.models.bib_ae.axis import AxisDecoder, AxisSpread, CellSampler
from caloforge.models.bib_ae.axis_evaluation import AxisEvaluation
from caloforge.models.bib_ae.cell_lists import CellLists
from caloforge.models.bib_ae.latents import Density
from caloforge.models.bib_ae.networks import BibDecoder, PostProcessor
from caloforge.models.bib_ae.settings import BibAeConfig
from caloforge.models.calibration.distributions import CellSpectrum, ShowerSums, Sums
from caloforge.models.nn.conditions import ConditionEncoder

__all__ = [
    "GENERATORS", "AxisGenerator", "Decoded", "PublishedGenerator", "ShowerGenerator", "apply_threshold",
]  # fmt: skip

THRESHOLD = 1e-4
"""Cells below it are empty, MeV."""
_HUNDRED_GEV = 1e5
_TEN_GEV = 1e4
_RIGHT_ANGLE = 90.0
_DEVIANCE_UNIT = 0.8
"""MeV; variance over mean of a cell's energy, with which the cross entropy is a likelihood."""
_LOG_UNIT = 0.2
_LARGE = 50.0
_CPU_ROWS = 4
"""Showers in one pass of the network on a CPU: their maps stay in its caches, which halves the time."""
_CPU_HITS = 16
"""Showers whose cells are sampled together on a CPU."""


def apply_threshold(cells: Tensor) -> Tensor:
    """Return cells with those below 1e-4 MeV at 0."""
    return torch.where(cells < THRESHOLD, torch.zeros_like(cells), cells)


class Decoded(NamedTuple):
    """Output of the decoder."""

    cells: Tensor  # (B, X, Y, L), MeV
    maps: Tensor  # (B, features, X, Y, L)
    sums: Tensor  # (B, n_sums), the energy sums of the showers, in the units of the generator


class ShowerGenerator(nn.Module, ABC):
    """Base of the two generators of a grid; ``columns`` are those of each condition in the condition matrix."""

    n_sums: int  # numbers that describe the energy sums of a shower
    n_images: int  # images of a shower for the encoder
    n_conditions: int  # conditions of encoder, decoder, critics and codes
    n_cell_noise: int  # normal numbers for the cells
    n_axis = 0  # normal numbers that move the axis of the shower
    n_quantiles = 0  # normal numbers a shower that ``cell_losses`` takes
    n_code_sums: int  # sums that are part of the code, beside the latents; the others condition its density
    logarithmic: bool  # whether critics see logarithms, and the encoder begins with a stride of 2
    joint: bool  # whether the first stage trains the post-processor too, and its critics judge finished cells
    decoder: nn.Module
    post_processor: nn.Module
    ratios: Tensor

    def __init__(self, detector: Detector, config: BibAeConfig, columns: Mapping[str, slice]) -> None:
        super().__init__()
        self.shape = detector.shape
        self.spectrum: CellSpectrum | None = None  # table of the energies of hits, if there is one
        self.energy_column = columns["incident_energy"].start
        self.theta_column = columns["incident_theta"].start if "incident_theta" in columns else None
        ratios = torch.as_tensor(detector.absorber_ratios, dtype=torch.float32)
        self.register_buffer("ratios", ratios, persistent=False)

    def energy(self, matrix: Tensor) -> Tensor:
        """Return the incident energies (B,), MeV, of a condition matrix (B, C)."""
        return matrix[:, self.energy_column]

    def theta(self, matrix: Tensor) -> Tensor:
        """Return the angles (B,), degrees; right angles where the model is not conditioned on them."""
        if self.theta_column is None:
            return torch.full_like(self.energy(matrix), _RIGHT_ANGLE)
        return matrix[:, self.theta_column]

    def grid(self, cells: Tensor) -> Tensor:
        """Return cells (B, n_cells) as (B, X, Y, L)."""
        return cells.view(-1, *self.shape)

    def weighted(self, cells: Tensor) -> Tensor:
        """Return cells (B, n_cells) times the absorber ratio of their layer."""
        return (self.grid(cells) * self.ratios).flatten(1)

    def view(self, cells: Tensor) -> Tensor:
        """Return the critics' input (B, n_cells) for cells (B, n_cells)."""
        return self.weighted(cells)

    @abstractmethod
    def fit(self, layers: Tensor, matrix: Tensor, most: int) -> None:
        """Set constants from layer energies (N, L), conditions (N, C) and the most hits of a shower."""

    @abstractmethod
    def context(self, matrix: Tensor) -> Tensor:
        """Return the encoded conditions (B, k)."""

    @abstractmethod
    def sums(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return the numbers (B, n_sums) that describe the energy sums of true showers (B, n_cells)."""

    def conditioning(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return the conditions of encoder, decoder, critics and codes (B, n_conditions); by default the context alone."""
        return self.context(matrix)

    def draw_code(
        self, density: Density, sums: Tensor, z: Tensor, choice: Tensor, matrix: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sums (B, n_sums) and latents (B, latent) of normal numbers of the same shapes and of a choice (B,)."""
        if density is None:
            return self.default_sums(sums, matrix), z
        n = self.n_code_sums
        code = density.draw(torch.cat([sums[:, :n], z], 1), choice, self.conditioning(sums, matrix))
        return code[:, :n] if n else sums, code[:, n:]

    def default_sums(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return the sums (B, n_sums) for latents from N(0, 1): by default the normal numbers (B, n_sums) themselves."""
        return sums

    @abstractmethod
    def images(self, cells: Tensor) -> Tensor:
        """Return the encoder's input (B, n_images, X, Y, L) for true showers (B, n_cells)."""

    @abstractmethod
    def decode(
        self, z: Tensor, noise: Tensor, sums: Tensor, matrix: Tensor, axis: Tensor | None = None
    ) -> Decoded:
        """Return the decoded showers of latents (B, latent), noise (B, noise), sums, conditions (B, C) and normal numbers (B, n_axis)."""

    @abstractmethod
    def finish(self, decoded: Decoded, noise: Tensor, matrix: Tensor, calibrated: bool = True) -> Tensor:
        """Return the post-processed cells (B, n_cells), MeV, of noise (B, n_cell_noise) and conditions (B, C).

        ``calibrated`` maps the energies of hits by the table, where there is a fitted one.
        """

    def make(
        self, z: Tensor, noise: Tensor, sums: Tensor, cell_noise: Tensor, axis: Tensor, matrix: Tensor,
        calibrated: bool = True,
    ) -> Tensor:  # fmt: skip
        """Return cells (B, n_cells), MeV: ``decode``, then ``finish``; the axis is moved where the showers are ``calibrated``."""
        parts: Iterable[tuple[Tensor, ...]] = ((z, noise, sums, cell_noise, axis, matrix),)
        if z.device.type == "cpu" and not torch.is_grad_enabled():
            parts = in_chunks(_CPU_ROWS, z, noise, sums, cell_noise, axis, matrix)
        finished = []
        for some, free, energies, local, line, conditions in parts:
            moved = line if calibrated and self.n_axis else None
            decoded = self.decode(some, free, energies, conditions, moved)
            finished.append(self.finish(decoded, local, conditions, calibrated))
        return torch.cat(finished)

    @abstractmethod
    def cell_losses(
        self, decoded: Decoded, finished: Tensor, cells: Tensor, matrix: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the cell-by-cell losses of the post-processor.

        Of showers that are decoded, finished (B, n_cells), MeV, and true, with conditions (B, C) and normal numbers (B, n_quantiles).
        """

    def decoder_losses(self, decoded: Decoded, cells: Tensor, matrix: Tensor) -> dict[str, Tensor]:
        """Return losses of the decoder beside the critics' for true showers (B, n_cells)."""
        return {}


class PublishedGenerator(ShowerGenerator):
    """The published decoder and post-processor.

    The energy sum is part of the code, in units of 10 GeV, and an input of the post-processor alone; conditions are E / 100 GeV and
    theta / 90 degrees. The decoder makes cells times the absorber ratio; the post-processor takes them without it.
    """

    n_sums = n_code_sums = n_images = 1
    n_cell_noise = 0
    logarithmic = joint = False
    response: Tensor

    def __init__(self, detector: Detector, config: BibAeConfig, columns: Mapping[str, slice]) -> None:
        super().__init__(detector, config, columns)
        self.n_conditions = 1 if self.theta_column is None else 2
        self.decoder = BibDecoder(detector.shape, config.latent_size + config.noise + self.n_conditions)
        self.post_processor = PostProcessor(self.n_conditions + 1, config.width)
        self.register_buffer("response", torch.tensor(detector.sampling_fraction))

    def fit(self, layers: Tensor, matrix: Tensor, most: int) -> None:
        """Set the mean response."""
        self.response.copy_((layers.sum(1) / self.energy(matrix)).mean())

    def context(self, matrix: Tensor) -> Tensor:
        """Return E / 100 GeV and theta / 90 degrees."""
        parts = [self.energy(matrix) / _HUNDRED_GEV]
        if self.theta_column is not None:
            parts.append(self.theta(matrix) / _RIGHT_ANGLE)
        return torch.stack(parts, 1)

    def sums(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return the sum of the cells above 0.1 MeV over 10 GeV."""
        return torch.where(cells > 0.1, cells, 0.0).sum(1, keepdim=True) / _TEN_GEV

    def default_sums(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return the mean response times E."""
        return (self.response * self.energy(matrix) / _TEN_GEV)[:, None]

    def images(self, cells: Tensor) -> Tensor:
        """Return the weighted cells."""
        return self.grid(self.weighted(cells))[:, None]

    def decode(
        self, z: Tensor, noise: Tensor, sums: Tensor, matrix: Tensor, axis: Tensor | None = None
    ) -> Decoded:
        """Return the decoder's cells without the absorber ratio; there is no axis to move."""
        cells: Tensor = self.decoder(torch.cat([z, noise, self.context(matrix)], 1))
        return Decoded(cells / self.ratios, cells[:, None, :, :, :0], sums)

    def finish(self, decoded: Decoded, noise: Tensor, matrix: Tensor, calibrated: bool = True) -> Tensor:
        """Return the post-processor's cells."""
        conditions = torch.cat([self.context(matrix), decoded.sums], 1)
        cells: Tensor = self.post_processor(decoded.cells, conditions)
        return cells.flatten(1)

    def cell_losses(
        self, decoded: Decoded, finished: Tensor, cells: Tensor, matrix: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean squared error."""
        return {"mse": (finished - cells).square().mean()}


class AxisGenerator(ShowerGenerator):
    """The improved one, see the module."""

    n_sums = ShowerSums.size
    n_images, n_code_sums = 2, 0
    n_axis = AxisSpread.size
    decoder: AxisDecoder
    logarithmic = joint = True
    post_processor: CellSampler
    spectrum: CellSpectrum
    shared: Tensor

    def __init__(self, detector: Detector, config: BibAeConfig, columns: Mapping[str, slice]) -> None:
        super().__init__(detector, config, columns)
        self.conditions = ConditionEncoder(detector, dict(columns))
        self.n_conditions = self.conditions.width + self.n_sums
        self.n_cell_noise = min(config.cell_noise, detector.n_cells)
        self.n_quantiles = min(1000, detector.n_cells)
        column = self.energy_column if self.theta_column is None else self.theta_column
        group = self.conditions.continuous.index(column)
        self.energies = ShowerSums(detector, self.conditions.width, group)
        inputs = config.latent_size + config.noise + self.n_conditions
        self.decoder = AxisDecoder(detector, inputs, config.features)
        self.post_processor = CellSampler(config.features, self.n_conditions, config.width)
        self.spectrum = CellSpectrum()
        self.axis = AxisSpread()
        shared = torch.arange(detector.n_cells) % self.n_cell_noise
        self.register_buffer("shared", shared, persistent=False)

    def fit(self, layers: Tensor, matrix: Tensor, most: int) -> None:
        """Fit the energies; quantiles are trained at as many cells as the shower with the most hits has."""
        self.conditions.fit(matrix)
        self.energies.fit(layers, self.energy(matrix), self.context(matrix))
        self.n_quantiles = max(1, most)

    def context(self, matrix: Tensor) -> Tensor:
        """Return the standardised ln E and angle."""
        encoded: Tensor = self.conditions(matrix)
        return encoded

    def sums(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return both energies as normal numbers."""
        sums = self.energies.of(self.grid(cells).sum((1, 2)))
        return self.energies.normals(sums, self.energy(matrix), self.context(matrix))

    def conditioning(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return context and energies."""
        return torch.cat([self.context(matrix), sums], 1)

    def view(self, cells: Tensor) -> Tensor:
        """Return ln(1 + e / 0.2 MeV) of the weighted cells."""
        return torch.log1p(self.weighted(cells) / _LOG_UNIT)

    def images(self, cells: Tensor) -> Tensor:
        """Return the weighted cells and their logarithms."""
        grid = self.grid(self.weighted(cells))
        return torch.stack([grid / _LARGE, torch.log1p(grid / _LOG_UNIT) / 4.0], 1)

    def decode(
        self, z: Tensor, noise: Tensor, sums: Tensor, matrix: Tensor, axis: Tensor | None = None
    ) -> Decoded:
        """Return mean energies with the two sums; normal numbers (B, 4) move the axis as fitted."""
        inputs = torch.cat([z, noise, self.conditioning(sums, matrix)], 1)
        moved = None if axis is None else self.axis(axis, self.energy(matrix), self.decoder.maps.z)
        shares, maps = self.decoder(inputs, self.theta(matrix), moved)
        target = self.energies.draw(sums, self.energy(matrix), self.context(matrix))
        cells = torch.exp(shares) * target.visible[:, None, None, None]
        return Decoded(self._scaled(cells, target), maps, sums)

    def finish(self, decoded: Decoded, noise: Tensor, matrix: Tensor, calibrated: bool = True) -> Tensor:
        """Return the sampled cells, scaled to the energies."""
        normal = self.grid(noise[:, self.shared])
        conditions = self.conditioning(decoded.sums, matrix)
        cells: Tensor = self.post_processor(decoded.cells, decoded.maps, conditions, normal)
        target = self.energies.draw(decoded.sums, self.energy(matrix), self.context(matrix))
        cells = self._scaled(cells, target)
        if calibrated and self.spectrum.fitted:
            cells = self._scaled(self.spectrum(cells, self.theta(matrix)), target)
        return cells.flatten(1)

    def make(
        self, z: Tensor, noise: Tensor, sums: Tensor, cell_noise: Tensor, axis: Tensor, matrix: Tensor,
        calibrated: bool = True,
    ) -> Tensor:  # fmt: skip
        """Return the same; on a CPU without gradients by the fast evaluation of the decoder and by lists of cells."""
        if not AxisEvaluation.possible(z):
            return super().make(z, noise, sums, cell_noise, axis, matrix, calibrated)
        evaluation = AxisEvaluation(self.decoder)
        lists = CellLists(self.post_processor, self.decoder.last, self.energies, self.spectrum)
        shared, made = self.shared.view(self.shape).permute(2, 0, 1).contiguous(), []
        for some, free, energies, local, line, rows in in_chunks(
            _CPU_HITS, z, noise, sums, cell_noise, axis, matrix
        ):
            energy, theta, conditions = self.energy(rows), self.theta(rows), self.conditioning(energies, rows)
            moved = self.axis(line, energy, self.decoder.maps.z) if calibrated else None
            showers = evaluation(torch.cat([some, free, conditions], 1), theta, moved)
            target = self.energies.draw(energies, energy, self.context(rows))
            made.append(lists(showers, target, conditions, local, shared, theta if calibrated else None))
        return torch.cat(made)

    def lines(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return the lines (B, 4) through the layers of cells (B, n_cells), against the axis of their conditions (B, C)."""
        maps = self.decoder.maps
        return self.axis.lines(self.grid(cells), maps.distances(self.theta(matrix)), maps.z)

    def _scaled(self, cells: Tensor, target: Sums) -> Tensor:
        """Return cells (B, X, Y, L) scaled to the two energies."""
        return cells * self.energies.factors(cells.sum((1, 2)), target)[:, None, None, :]

    def decoder_losses(self, decoded: Decoded, cells: Tensor, matrix: Tensor) -> dict[str, Tensor]:
        """Return the deviance of the mean energies, a sum over cells and mean over showers."""
        mean = decoded.cells.flatten(1).clamp_min(1e-12)
        entropy = torch.where(cells > 0, cells * torch.log(cells.clamp_min(1e-12) / mean), 0.0)
        return {"deviance": entropy.sum(1).mean() / _DEVIANCE_UNIT}

    def cell_losses(
        self, decoded: Decoded, finished: Tensor, cells: Tensor, matrix: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the cells' distribution; they do not move the means."""
        conditions = self.conditioning(decoded.sums, matrix)
        inputs = decoded.cells.detach(), decoded.maps, conditions
        return self.post_processor.losses(*inputs, self.grid(cells), normal)


GENERATORS: Mapping[str, type[ShowerGenerator]] = {"published": PublishedGenerator, "axis": AxisGenerator}
"""Setting ``decoder`` to class."""
