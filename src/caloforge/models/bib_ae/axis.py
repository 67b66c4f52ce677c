r"""Networks of the improved BIB-AE: a decoder along the shower axis and a sampler of cells.

The axis starts at the beam's entry point and points along theta, so it passes layer l at :math:`y_l = y_0 + z_l / \tan \theta`. With
the distances of a cell to it, (dx, dy sin theta) and r, and the pitch p, a small network maps

.. math:: \ln(1 + r^2 / r_0^2) \; (r_0 = 2, 10, 40 \text{ mm}), \quad dx / r, \; dy / r, \quad
          \tanh(dx / p), \; \tanh(dy / p), \quad \tanh(dy / 4p), \; \text{depth}

to features. The latents scale and shift the features of each layer, and make a small grid that transposed convolutions enlarge and
add, as in the published decoder. Convolutions 3^3 at full size follow, and a softmax over all cells:

.. math:: m_i = V \frac{\exp(a_i)}{\sum_j \exp(a_j)} .

m is the mean energy of a cell for these latents: trained with the cross entropy :math:`-\sum_i x_i \ln(m_i / V)`,
the deviance of Poisson numbers of a fixed total, its layer energies and profiles have no bias. Beside m the decoder makes
further feature maps for the sampler.

The sampler draws each cell with a normal number n from a distribution that depends on m. Like the published post-processor it is a
stack of six 1 x 1 x 1 convolutions. From ln m, the feature maps and the conditions, three convolutions predict the probability p that
the cell is hit. With :math:`\tau = \Phi(n)` it is where :math:`\tau > 1 - p`, and then

.. math:: \tau' = \frac{\tau - (1 - p)}{p}, \qquad \ln e = q(\tau')

with q from three more convolutions. p is trained by the cross entropy and q, the quantile function of the energy, by the
pinball loss :math:`\langle (v - q) (\tau' - [v < q]) \rangle` at random :math:`\tau'`, both from pairs of true cells and decoded
means. So the spectrum of the cells, the MIP peak and the number of hits follow from likelihoods. Gradients pass the step at
:math:`\tau = 1 - p` through a sigmoid of temperature 0.3.

References:
    R. Liu et al., An intriguing failing of convolutional neural networks and the CoordConv solution, arXiv:1807.03247.
    W. Dabney et al., Implicit quantile networks for distributional reinforcement learning, arXiv:1806.06923.
    C. Maddison et al., The concrete distribution, arXiv:1611.00712.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.bib_ae.networks import Pointwise
from caloforge.models.nn.cell_networks import mlp

__all__ = ["AxisDecoder", "AxisMaps", "CellSampler"]

_RADII = (2.0, 10.0, 40.0)
_SEED_CHANNELS = 16
_TINY = 1e-3
_UNIT = 0.2  # MeV; about the energy of a MIP in half a millimetre of silicon
_LOWEST = 1e-6
_TEMPERATURE = 0.3
_EDGE = 1e-6
_REACH = 10.0  # largest |ln(e / 0.2 MeV)| of a cell


class AxisMaps(nn.Module):
    """The ``size`` maps of the position of each cell of a grid relative to the axis of the shower."""

    x: Tensor
    y: Tensor
    z: Tensor
    depth: Tensor
    size = len(_RADII) + 6

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        first, beam = layers[0], detector.beam
        self.pitch = first.pitch_x
        for name, values in (
            ("x", (first.x - beam.x)[:, None, None]),
            ("y", (first.y - beam.y)[:, None]),
            ("z", [layer.z for layer in layers]),
            ("depth", detector.relative_depth),
        ):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)

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
    """Latents to the share of each cell in the visible energy, see the module.

    ``inputs``: latents, noise and conditions together; ``features``: maps beside the shares.
    """

    def __init__(
        self, detector: Detector, inputs: int, features: int, width: int = 256, channels: int = 24
    ) -> None:
        super().__init__()
        nx, ny, n_layers = self.shape = detector.shape
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
        """Return logarithms of the shares (B, X, Y, L) and further maps (B, features, X, Y, L).

        Of latents, noise and conditions (B, inputs) and angles (B,), degrees.
        """
        n, (nx, ny, n_layers) = len(inputs), self.shape
        hidden = functional.silu(self.trunk(inputs))
        factor, offset = self.along(hidden).view(n, -1, 1, 1, n_layers).chunk(2, 1)
        small = self.enlarge(self.grid(hidden).view(n, *self.seed))
        large = functional.interpolate(small, scale_factor=2.0, mode="nearest")[:, :, :nx, :ny, :n_layers]
        mixed = self.basis(self.maps(theta)) * (1.0 + factor) + offset + large
        features = self.body(mixed)
        with torch.autocast(inputs.device.type, enabled=False):
            out = self.last(features.float())
            logits = out[:, :1] + self.skip(mixed.float())
        shares = torch.log_softmax(logits.flatten(1), 1).view(n, nx, ny, n_layers)
        return shares, out[:, 1:]


class CellSampler(nn.Module):
    """Sampler of cells, see the module; ``features``: maps beside the mean; ``conditions``: conditions of a shower."""

    def __init__(self, features: int, conditions: int, width: int = 32) -> None:
        super().__init__()
        self.local = Pointwise(1 + features, width)
        self.condition = nn.Linear(conditions, width)
        self.common = nn.Sequential(nn.SiLU(), Pointwise(width, width), nn.SiLU())
        self.hit = Pointwise(width, 1)
        self.noise = Pointwise(1, width, bias=False)
        self.energy = nn.Sequential(Pointwise(width, width), nn.SiLU(), Pointwise(width, 1))
        self.mixed = Pointwise(width, width)

    def describe(self, mean: Tensor, maps: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden features (B, width, X, Y, L) and the logit of p (B, X, Y, L).

        Of decoded mean energies (B, X, Y, L), MeV, further maps (B, features, X, Y, L) and conditions (B, k).
        """
        log = torch.log(mean.clamp_min(_LOWEST) / _UNIT)[:, None]
        local = self.local(torch.cat([log / 4.0, maps], 1))
        features = self.common(local + self.condition(conditions)[:, :, None, None, None])
        with torch.autocast(mean.device.type, enabled=False):
            logit = self.hit(features.float())[:, 0] + log[:, 0]
        return features, logit

    def quantile(self, features: Tensor, normal: Tensor) -> Tensor:
        """Return ln(e / 0.2 MeV) of hits: features (B, width, ...) and normal numbers (B, ...)."""
        mixed = functional.silu(self.mixed(features) + self.noise(normal[:, None]))
        with torch.autocast(features.device.type, enabled=False):
            value: Tensor = self.energy(mixed.float())
        return value[:, 0].clamp(-_REACH, _REACH)

    def forward(self, mean: Tensor, maps: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, for normal numbers of the cells (B, X, Y, L)."""
        features, logit = self.describe(mean, maps, conditions)
        tau = (0.5 * torch.erfc(-noise / math.sqrt(2.0))).clamp(_EDGE, 1.0 - _EDGE)
        over = logit + torch.logit(tau)
        hit = (over > 0).float()
        soft = torch.sigmoid(over / _TEMPERATURE)
        gate = hit + soft - soft.detach()
        empty = torch.sigmoid(-logit.detach())
        inside = ((tau - empty) / (1.0 - empty).clamp_min(_EDGE)).clamp(_EDGE, 1.0 - _EDGE)
        normal = math.sqrt(2.0) * torch.erfinv(2.0 * inside - 1.0)
        return gate * _UNIT * torch.exp(self.quantile(features, normal))

    def losses(
        self, mean: Tensor, maps: Tensor, conditions: Tensor, cells: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of p and of q, sums over cells and means over showers.

        Arguments:
            mean, maps, conditions: See :meth:`describe`.
            cells: True cells (B, X, Y, L), MeV.
            normal: Normal numbers (B, k) of the quantiles, which are trained at the k largest cells of each shower.
        """
        features, logit = self.describe(mean, maps, conditions)
        n = len(cells)
        hits = functional.binary_cross_entropy_with_logits(logit, (cells > 0).float(), reduction="sum") / n
        top, where = torch.topk(cells.flatten(1), normal.shape[1], dim=1)
        chosen = features.flatten(2).gather(2, where[:, None].expand(-1, features.shape[1], -1))
        q = self.quantile(chosen[..., None, None], normal[..., None, None])[..., 0, 0]
        true = torch.log(top.clamp_min(_UNIT * math.exp(-_REACH)) / _UNIT)
        tau = 0.5 * torch.erfc(-normal / math.sqrt(2.0))
        off = true - q
        pinball = torch.where(top > 0, off * (tau - (off < 0).float()), torch.zeros_like(off))
        return {"hits": hits, "energies": pinball.sum() / n}
