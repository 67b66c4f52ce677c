r"""The improved maker: mean energies along the shower axis, sampled cells, fitted sums.

A decoder that works along the axis of the shower and says how the visible energy is shared among the cells.

The axis starts at the beam's entry point and points along theta, so it passes layer l at :math:`y_l = y_0 + z_l / \tan \theta`. With
the distances of a cell to it, (dx, dy sin theta) and r, a small network turns

.. math:: \ln(1 + r^2 / r_0^2) \; (r_0 = 2, 10, 40 \text{ mm}), \quad dx / r, \; dy / r, \quad
          \tanh(dx / p), \; \tanh(dy / p), \quad \tanh(dy / 4p), \; \text{depth}

(p the pitch) into maps. The latents make a factor and an offset for each layer and map, and a small grid that transposed convolutions
enlarge and add, as in the published decoder. Convolutions 3^3 at full size follow, and a softmax over all cells:

.. math:: m_i = V \frac{\exp(a_i)}{\sum_j \exp(a_j)} .

m is the mean energy of a cell given the latents: with the cross entropy :math:`-\sum_i x_i \ln(m_i / V)` as loss,
the deviance of Poisson numbers of a fixed total, its layer energies and profiles have no bias. Beside m come ``features`` maps
for the sampler of the cells. Coordinates beside a convolution's input are those of R. Liu et al., CoordConv,
arXiv:1807.03247.

The improved maker of a BIB-AE: mean energies along the shower's axis, drawn cells, fitted energies.

- the visible energy and the absorber-weighted one are drawn from fitted distributions
  (:mod:`~caloforge.models.calibration.conditional_quantiles`) and given to encoder, decoder and the latents' density;
- the decoder shares them among the cells (:mod:`~caloforge.models.bib_ae.axis_maker`);
- the post-processor draws each cell (:mod:`~caloforge.models.bib_ae.networks`) with a normal number that cells far from each
  other share;
- the finished shower is brought to the two energies by a smooth factor of depth, a few per cent; in between hits are given the
  spectrum of true ones (:mod:`~caloforge.models.calibration.energy_maps`), which has the edge of the MIP.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.bib_ae.maker import Decoded, ShowerMaker
from caloforge.models.bib_ae.networks import CellSampler, Pointwise
from caloforge.models.bib_ae.settings import BibAeConfig
from caloforge.models.calibration.conditional_quantiles import ShowerSums, Sums
from caloforge.models.calibration.energy_maps import CellSpectrum
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.models.nn.mlp import mlp

__all__ = ["AxisDecoder", "AxisMaker", "AxisMaps"]


_RADII = (2.0, 10.0, 40.0)
_SEED_CHANNELS = 16
_TINY = 1e-3


class AxisMaps(nn.Module):
    """Where each cell lies from the axis of the shower.

    Arguments:
        detector: A grid.

    Attributes:
        size: Maps that come out.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    depth: Tensor
    size = len(_RADII) + 6

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        beam = detector.beam
        self.pitch = layers[0].pitch_x
        x = torch.as_tensor(layers[0].x - beam.x, dtype=torch.float32)
        y = torch.as_tensor(layers[0].y - beam.y, dtype=torch.float32)
        z = torch.tensor([layer.z for layer in layers], dtype=torch.float32)
        self.register_buffer("x", x[:, None, None], persistent=False)
        self.register_buffer("y", y[:, None], persistent=False)
        self.register_buffer("z", z, persistent=False)
        depth = torch.as_tensor(detector.relative_depth, dtype=torch.float32)
        self.register_buffer("depth", depth, persistent=False)

    def forward(self, theta: Tensor) -> Tensor:
        """Return the maps (B, 9, X, Y, L) for angles (B,), degrees."""
        angle = torch.deg2rad(theta.clamp(5.0, 175.0))[:, None, None, None]
        dy = (self.y - self.z * torch.cos(angle) / torch.sin(angle)) * torch.sin(angle)
        shape = (len(theta), self.x.shape[0], self.y.shape[0], len(self.z))
        dx, dy = self.x.expand(shape), dy.expand(shape)
        square = dx.square() + dy.square()
        r = torch.sqrt(square + _TINY)
        maps = [torch.log1p(square / radius**2) / 4.0 for radius in _RADII]
        maps += [dx / r, dy / r, torch.tanh(dx / self.pitch), torch.tanh(dy / self.pitch)]
        maps += [torch.tanh(dy / (4.0 * self.pitch)), self.depth.expand(shape)]
        return torch.stack(maps, 1)


class AxisDecoder(nn.Module):
    """Latents to the share of each cell, see the module.

    Arguments:
        detector: A grid.
        inputs: Latents, noise and conditions together.
        features: Maps beside the shares.
        width: Width of the dense layers.
        channels: Maps at full size.
    """

    def __init__(
        self, detector: Detector, inputs: int, features: int, width: int = 256, channels: int = 24
    ) -> None:
        super().__init__()
        nx, ny, n_layers = detector.shape
        self.shape = (nx, ny, n_layers)
        self.seed = (_SEED_CHANNELS, -(-nx // 8), -(-ny // 8), -(-n_layers // 8))
        self.maps = AxisMaps(detector)
        self.trunk = mlp(inputs, (width, width), width)
        self.along = nn.Linear(width, 2 * channels * n_layers)
        self.grid = nn.Linear(width, math.prod(self.seed))
        self.enlarge = nn.Sequential(
            nn.SiLU(), nn.ConvTranspose3d(_SEED_CHANNELS, _SEED_CHANNELS, 4, 2, 1),
            nn.SiLU(), nn.ConvTranspose3d(_SEED_CHANNELS, channels, 4, 2, 1),
        )  # fmt: skip
        self.basis = nn.Sequential(
            Pointwise(self.maps.size, channels), nn.SiLU(), Pointwise(channels, channels)
        )
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv3d(channels, 16, 3, padding=1),
            nn.SiLU(), nn.Conv3d(16, 16, 3, padding=1),
            nn.SiLU(),
        )  # fmt: skip
        self.skip = Pointwise(channels, 1)
        self.last = Pointwise(16, 1 + features)

    def forward(self, inputs: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        Arguments:
            inputs: Latents, noise and conditions (B, inputs).
            theta: Angles (B,), degrees.

        Returns:
            Logarithms of the shares (B, X, Y, L), and further maps (B, features, X, Y, L).
        """
        n, (nx, ny, n_layers) = len(inputs), self.shape
        hidden = functional.silu(self.trunk(inputs))
        factor, offset = self.along(hidden).view(n, -1, 1, 1, n_layers).chunk(2, 1)
        small = self.enlarge(self.grid(hidden).view(n, *self.seed))
        large = functional.interpolate(small, scale_factor=2.0, mode="nearest")[:, :, :nx, :ny, :n_layers]
        mixed = self.basis(self.maps(theta)) * (1.0 + factor) + offset + large
        found = self.body(mixed)
        with torch.autocast(inputs.device.type, enabled=False):
            out = self.last(found.float())
            logits = out[:, :1] + self.skip(mixed.float())
        shares = torch.log_softmax(logits.flatten(1), 1).view(n, nx, ny, n_layers)
        return shares, out[:, 1:]


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
