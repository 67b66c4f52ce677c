"""What turns latent codes into showers: a decoder, a post-processor, and how energies enter.

How much absorber a layer stands for, relative to the thinnest: 1 or 2 in calorimeters with two thicknesses.

A layer behind twice the absorber samples a shower half as often, so that its energy counts twice. The published BIB-AE
multiplies its cells by the ratio (2.03 there, from the visible energies).

What turns latents into showers in a BIB-AE: a decoder, a post-processor, and how energies are told.

Two makers share one training: :class:`PublishedMaker` here and :class:`~caloforge.models.bib_ae.axis_maker.AxisMaker`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.bib_ae.networks import BibDecoder, PostProcessor
from caloforge.models.bib_ae.settings import BibAeConfig
from caloforge.models.calibration.energy_maps import CellSpectrum
from caloforge.models.nn.conditions import ConditionEncoder

__all__ = ["Decoded", "PublishedMaker", "ShowerMaker"]


_HUNDRED_GEV = 1e5
_TEN_GEV = 1e4
_RIGHT_ANGLE = 90.0


class Decoded(NamedTuple):
    """What the decoder says of showers."""

    cells: Tensor
    """(B, X, Y, L), MeV."""
    maps: Tensor
    """(B, features, X, Y, L)."""
    sums: Tensor
    """(B, n_sums), the energies in the maker's numbers."""


class ShowerMaker(nn.Module, ABC):
    """Base of the two.

    Arguments:
        detector: A grid.
        config: Settings.
        encoder: Encoder of the conditions.
        energy: Column of the incident energy in the condition matrix.
        theta: Column of the angle, or None.

    Attributes:
        joint: Whether the energies are part of the code whose density is learnt, or given to it.
        n_sums: Numbers that tell the energies of a shower.
        n_images: Images of a shower that the encoder sees.
        n_conditions: Numbers a shower that encoder, decoder and critics are given.
        n_cell_noise: Normal numbers for the cells.
        small, logarithmic: Whether the encoder begins with a stride of 2, and the critics see logarithms.
        spectrum: What gives hits the true spectrum, if anything does.
        decoder, post_processor: The networks.
    """

    joint: bool
    n_sums: int
    n_images: int
    n_conditions: int
    n_cell_noise: int
    small: bool
    logarithmic: bool
    decoder: nn.Module
    post_processor: nn.Module
    ratios: Tensor

    def __init__(
        self,
        detector: Detector,
        config: BibAeConfig,
        encoder: ConditionEncoder,
        energy: int,
        theta: int | None,
    ) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = detector.shape
        self.config, self.encoder, self.columns = config, encoder, (energy, theta)
        self.spectrum: CellSpectrum | None = None
        ratios = torch.as_tensor(detector.absorber_ratios, dtype=torch.float32)
        self.register_buffer("ratios", ratios, persistent=False)

    def energy(self, matrix: Tensor) -> Tensor:
        """Return the incident energies (B,), MeV, of a condition matrix (B, C)."""
        return matrix[:, self.columns[0]]

    def theta(self, matrix: Tensor) -> Tensor:
        """Return the angles (B,), degrees; right ones where the model is not conditioned on them."""
        column = self.columns[1]
        return torch.full_like(self.energy(matrix), _RIGHT_ANGLE) if column is None else matrix[:, column]

    def grid(self, cells: Tensor) -> Tensor:
        """Return cells (B, n_cells) as (B, X, Y, L)."""
        return cells.view(-1, *self.shape)

    def weighted(self, cells: Tensor) -> Tensor:
        """Return cells (B, n_cells) times the absorber ratio of their layer."""
        return (self.grid(cells) * self.ratios).flatten(1)

    def view(self, cells: Tensor) -> Tensor:
        """Return what the critics see (B, n_cells) of cells (B, n_cells)."""
        return self.weighted(cells)

    @abstractmethod
    def fit(self, layers: Tensor, matrix: Tensor, most: int) -> None:
        """Set constants from layer energies (N, L), conditions (N, C) and the most hits of a shower."""

    @abstractmethod
    def context(self, matrix: Tensor) -> Tensor:
        """Return the encoded conditions (B, k)."""

    @abstractmethod
    def sums(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return the numbers (B, n_sums) that tell the energies of true showers (B, n_cells)."""

    @abstractmethod
    def given(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return what encoder, decoder and critics are given (B, n_conditions)."""

    @abstractmethod
    def expected(self, matrix: Tensor) -> Tensor:
        """Return typical sums (B, n_sums) of conditions, for latents that are drawn without energies."""

    @abstractmethod
    def images(self, cells: Tensor) -> Tensor:
        """Return what the encoder sees (B, n_images, X, Y, L) of true showers (B, n_cells)."""

    @abstractmethod
    def decode(self, z: Tensor, noise: Tensor, sums: Tensor, matrix: Tensor) -> Decoded:
        """Return the decoded showers of latents (B, latent), noise (B, noise), sums and conditions (B, C)."""

    @abstractmethod
    def judged(self, decoded: Decoded, noise: Tensor, matrix: Tensor) -> Tensor:
        """Return the cells (B, n_cells), MeV, that the critics judge."""

    @abstractmethod
    def finish(self, decoded: Decoded, noise: Tensor, matrix: Tensor) -> Tensor:
        """Return the finished cells (B, n_cells), MeV, with normal numbers (B, n_cell_noise) for them."""

    @abstractmethod
    def likelihoods(self, decoded: Decoded, cells: Tensor, matrix: Tensor) -> dict[str, Tensor]:
        """Return losses of the decoder beside the critics' for true showers (B, n_cells)."""

    @abstractmethod
    def fidelity(
        self, decoded: Decoded, made: Tensor, cells: Tensor, matrix: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the cell-by-cell losses of the post-processor.

        Arguments:
            decoded: Decoded showers.
            made: The same, finished (B, n_cells), MeV.
            cells: True showers (B, n_cells), MeV.
            matrix: Conditions (B, C).
            normal: Normal numbers (B, n_quantiles).
        """

    @property
    def first(self) -> tuple[nn.Module, ...]:
        """What the first stage trains beside the encoder."""
        return (self.decoder,)

    @property
    def n_quantiles(self) -> int:
        """Normal numbers a shower that ``fidelity`` takes; 0 for none."""
        return 0


class PublishedMaker(ShowerMaker):
    """The published decoder and post-processor.

    The sum of the energy is part of the code, in units of 10 GeV, and goes to the post-processor alone; conditions are E / 100 GeV and
    theta / 90 degrees. The decoder makes cells times the absorber ratio; the post-processor takes them without it.
    """

    joint = True
    n_sums = 1
    n_images = 1
    n_cell_noise = 0
    small = False
    logarithmic = False
    response: Tensor

    def __init__(
        self,
        detector: Detector,
        config: BibAeConfig,
        encoder: ConditionEncoder,
        energy: int,
        theta: int | None,
    ) -> None:
        super().__init__(detector, config, encoder, energy, theta)
        self.n_conditions = 1 if theta is None else 2
        self.decoder = BibDecoder(detector.shape, config.latent_size + config.noise + self.n_conditions)
        self.post_processor = PostProcessor(self.n_conditions + 1, config.width)
        self.register_buffer("response", torch.tensor(detector.sampling_fraction))

    def fit(self, layers: Tensor, matrix: Tensor, most: int) -> None:
        """Set the mean response."""
        self.response.copy_((layers.sum(1) / self.energy(matrix)).mean())

    def context(self, matrix: Tensor) -> Tensor:
        """Return E / 100 GeV and theta / 90 degrees."""
        parts = [self.energy(matrix) / _HUNDRED_GEV]
        if self.columns[1] is not None:
            parts.append(self.theta(matrix) / _RIGHT_ANGLE)
        return torch.stack(parts, 1)

    def sums(self, cells: Tensor, matrix: Tensor) -> Tensor:
        """Return the sum of the cells above 0.1 MeV over 10 GeV."""
        return torch.where(cells > 0.1, cells, 0.0).sum(1, keepdim=True) / _TEN_GEV

    def given(self, sums: Tensor, matrix: Tensor) -> Tensor:
        """Return the conditions; the energies are not given."""
        return self.context(matrix)

    def expected(self, matrix: Tensor) -> Tensor:
        """Return the mean response times E."""
        return (self.response * self.energy(matrix) / _TEN_GEV)[:, None]

    def images(self, cells: Tensor) -> Tensor:
        """Return the weighted cells."""
        return self.grid(self.weighted(cells))[:, None]

    def decode(self, z: Tensor, noise: Tensor, sums: Tensor, matrix: Tensor) -> Decoded:
        """Return the decoder's cells without the absorber ratio."""
        made: Tensor = self.decoder(torch.cat([z, noise, self.context(matrix)], 1))
        return Decoded(made / self.ratios, made[:, None, :, :, :0], sums)

    def judged(self, decoded: Decoded, noise: Tensor, matrix: Tensor) -> Tensor:
        """Return the decoder's cells."""
        return decoded.cells.flatten(1)

    def finish(self, decoded: Decoded, noise: Tensor, matrix: Tensor) -> Tensor:
        """Return the post-processor's cells."""
        made: Tensor = self.post_processor(decoded.cells, torch.cat([self.context(matrix), decoded.sums], 1))
        return made.flatten(1)

    def likelihoods(self, decoded: Decoded, cells: Tensor, matrix: Tensor) -> dict[str, Tensor]:
        """Return nothing: the critics' are the only losses of the reconstruction."""
        return {}

    def fidelity(
        self, decoded: Decoded, made: Tensor, cells: Tensor, matrix: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean squared error."""
        return {"mse": (made - cells).square().mean()}
