r"""A decoder that works along the axis of the shower and says how the visible energy is shared among the cells.

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
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.layers.absorber import layer_depths
from caloforge.models.layers.mlp import mlp
from caloforge.models.layers.pointwise import Pointwise

__all__ = ["AxisDecoder", "AxisMaps"]

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
        self.register_buffer("depth", layer_depths(detector), persistent=False)

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
