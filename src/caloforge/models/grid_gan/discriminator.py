r"""The discriminator of the GANs on grids: a convolutional body with learned and analytic heads, and the scale of cell energies.

The networks work on values v of the cell energies; with u = energy / unit

- ``power``: v = sign(u) |u|^p; p = 1 is linear. The published Conv3D GAN takes u in units of 10 MeV (GeV x 100) with
  p = 1, its angle-conditioned form p = 0.85 (arXiv:2109.07388 and its predecessors);
- ``log``: v = sign(u) ln(1 + |u|), linear below the unit and logarithmic above, so that cells of 0.2 and of 400 MeV both
  count.

Both are odd and 0 at 0, so that a rectified network makes empty cells, and one without rectifier, as in the first epochs of the
Conv2D GAN, has finite gradients.

Two heads are learned, both linear in the body's features: real or generated (a logit), and incident energy. Two are analytic, with
gradients for the generator alone: the sum of the cells, and the measured angle. With the barycentre (y_l, z_l) of each layer and
(Y, Z) of the shower, the slope of layer l is m_l = (y_l - Y) / (z_l - Z), that of the shower their mean with the depths z_l as weights,

.. math:: m = \frac{\sum_l z_l m_l}{\sum_l z_l}, \qquad \theta = \mathrm{atan2}(1, m),

over layers with energy. Layers closer to Z than half the distance between layers are left out, since their slope is a small
number over a small number; the published text only leaves out z_l = Z.

As published the discriminator sees the values of the cells alone. ``informed`` adds each cell's share of the expected visible energy as
a second channel, the shower's profiles through a small network, and the encoded conditions c through a projection head: the
logit is w.f + f.V c / sqrt(len f).

References:
    G. Khattak et al., arXiv:2109.07388 (the Conv3D GAN with angles).
    T. Miyato, M. Koyama, cGANs with projection discriminator, arXiv:1802.05637.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.nn.cell_networks import mlp

__all__ = [
    "CELL_SCALES",
    "GridDiscriminator",
    "GridProfiles",
    "Heads",
    "LogScale",
    "MeasuredAngle",
    "PowerScale",
    "normalise_spectrum",
]

_TINY = 1e-9
_HIT = 0.1  # energy of a hit, MeV
_PROFILE_FEATURES = 64
_SHARE_SCALE = 30.0
"""Scale of the second channel: a cell of the core has about a thirtieth of the visible energy."""


class PowerScale(nn.Module):
    """v = sign(u) |u|^p with u = energy / unit (MeV) and p in (0, 1]."""

    def __init__(self, unit: float, power: float = 1.0) -> None:
        super().__init__()
        self.unit, self.power = unit, power

    def forward(self, energies: Tensor) -> Tensor:
        """Return values of energies (MeV), any shape."""
        u = energies / self.unit
        if self.power == 1.0:
            return u
        size = u.abs()
        # the inner clamp keeps the gradient of an empty cell at 0 where that of the power is infinite
        return torch.where(size > 1e-12, u.sign() * size.clamp_min(1e-12) ** self.power, torch.zeros_like(u))

    def inverse(self, values: Tensor) -> Tensor:
        """Return energies (MeV) of values, any shape."""
        if self.power == 1.0:
            return values * self.unit
        return values.sign() * values.abs() ** (1.0 / self.power) * self.unit


class LogScale(nn.Module):
    """v = sign(u) ln(1 + |u|) with u = energy / unit (MeV); the inverse takes |v| up to ``highest``, so that it cannot overflow."""

    def __init__(self, unit: float, highest: float = 14.0) -> None:
        super().__init__()
        self.unit, self.highest = unit, highest

    def forward(self, energies: Tensor) -> Tensor:
        """Return values of energies (MeV), any shape."""
        u = energies / self.unit
        return u.sign() * torch.log1p(u.abs())

    def inverse(self, values: Tensor) -> Tensor:
        """Return energies (MeV) of values, any shape."""
        return values.sign() * torch.expm1(values.abs().clamp_max(self.highest)) * self.unit


CELL_SCALES: Mapping[str, Callable[[float, float], PowerScale | LogScale]] = {
    "power": PowerScale,
    "log": lambda unit, _power: LogScale(unit),
}
"""Name of a scale to its constructor from unit (MeV) and power."""


class MeasuredAngle(nn.Module):
    """Polar angle from the layers' barycentres, see the module; differentiable.

    Raises:
        IncompatibleError: When the detector is no grid of two rectangular layers or more.
    """

    y: Tensor
    z: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        if not detector.is_grid or len(layers) < 2:
            msg = f"the angle is measured on a grid of two layers or more; '{detector.name}' is none"
            raise IncompatibleError(msg)
        z = torch.tensor([layer.z for layer in layers], dtype=torch.float32)
        self.register_buffer("y", torch.as_tensor(layers[0].y, dtype=torch.float32), persistent=False)
        self.register_buffer("z", z, persistent=False)
        self.nearest = 0.5 * float(z.diff().min())

    def slope(self, grid: Tensor) -> Tensor:
        """Return the slopes dy/dz (B,) of a grid (B, X, Y, L), MeV; 0 where nothing can be measured."""
        planes = grid.float().sum(1)
        energy = planes.sum(1)
        moment = (planes * self.y[:, None]).sum(1)  # no matrix product, which mixed precision would round
        filled = energy > _TINY
        centre = moment / torch.where(filled, energy, 1.0)
        total = energy.sum(1, keepdim=True).clamp_min(_TINY)
        distance = self.z - (energy * self.z).sum(1, keepdim=True) / total
        used = filled & (distance.abs() >= self.nearest)
        slopes = (centre - moment.sum(1, keepdim=True) / total) / torch.where(used, distance, 1.0)
        weights = used * self.z
        return (torch.where(used, slopes, 0.0) * weights).sum(1) / weights.sum(1).clamp_min(_TINY)

    def forward(self, grid: Tensor) -> Tensor:
        """Return theta (B,), radians."""
        m = self.slope(grid)
        return torch.atan2(torch.ones_like(m), m)


class GridProfiles(nn.Module):
    """Sums of a shower as inputs of the discriminator, ``width`` numbers.

    With the expected visible energy V = E x sampling fraction: sqrt of the layer energies, of the x and of the
    y profile over V, ln of the visible energy over V, and sqrt of each layer's share of hits, where a cell
    counts as a hit with the smooth weight e^3 / (e^3 + (0.1 MeV)^3).
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        nx, ny, n_layers = detector.shape
        self.response = detector.sampling_fraction
        self.width = nx + ny + 2 * n_layers + 1

    def forward(self, grid: Tensor, energy: Tensor) -> Tensor:
        """Return (B, width) of a grid (B, X, Y, L), MeV, and incident energies (B,), MeV."""
        grid = grid.float().clamp_min(0.0)
        expected = (energy * self.response)[:, None]
        planes = grid.sum(2)
        layers, profile_x, profile_y = planes.sum(1), planes.sum(2), grid.sum((1, 3))
        cubes = (grid / _HIT).clamp_max(100.0) ** 3
        hits = (cubes / (1.0 + cubes)).mean((1, 2))
        # a root with a finite slope at 0
        roots = [
            torch.sqrt(p + 1e-4) for p in (*(s / expected for s in (layers, profile_x, profile_y)), hits)
        ]
        total = torch.log(layers.sum(1, keepdim=True) / expected + 1e-3)
        return torch.cat([*roots[:3], total, roots[3]], 1)


class Heads(NamedTuple):
    """Outputs of a discriminator, each (B,)."""

    real: Tensor  # logit, large for real
    energy: Tensor  # incident energy in the units of its target
    total: Tensor  # sum of the cells, MeV; analytic
    theta: Tensor  # measured angle, radians; analytic


class GridDiscriminator(nn.Module):
    """Judge showers on a grid.

    The body turns values (B, channels, X, Y, L) into features; ``informed`` shows it more than the cells, see the module, as a second
    channel; ``angled`` says whether the angle is one of the conditions.
    """

    def __init__(
        self,
        detector: Detector,
        scale: PowerScale | LogScale,
        body: nn.Module,
        features: int,
        n_encoded: int,
        informed: bool,
        angled: bool,
    ) -> None:
        super().__init__()
        self.scale, self.body = scale, body
        self.informed, self.angled = informed, angled
        self.response = detector.sampling_fraction
        self.angle = MeasuredAngle(detector)
        if informed:
            self.profiles = GridProfiles(detector)
            self.summary = mlp(self.profiles.width + int(angled), (128,), _PROFILE_FEATURES)
            features += _PROFILE_FEATURES
            self.projection = nn.Linear(n_encoded, features, bias=False)
        self.real = nn.Linear(features, 1)
        self.energy = nn.Linear(features, 1)

    def forward(self, values: Tensor, energy: Tensor, theta: Tensor, encoded: Tensor) -> Heads:
        """Judge values (B, X, Y, L) of incident energies (B,), MeV, angles (B,), radians, and conditions (B, k)."""
        cells = self.scale.inverse(values.float())
        measured = self.angle(cells)
        images = [values]
        if self.informed:
            images.append(cells * (_SHARE_SCALE / (energy * self.response))[:, None, None, None])
        features = self.body(torch.stack(images, 1)).float()
        with torch.autocast(values.device.type, enabled=False):  # errors in per cent need more than 8 bits
            if self.informed:
                summary = [self.profiles(cells, energy)]
                if self.angled:
                    summary.append(10.0 * (measured - theta)[:, None])
                features = torch.cat([features, functional.silu(self.summary(torch.cat(summary, 1)))], 1)
            real = self.real(features)[:, 0]
            if self.informed:
                real = real + (features * self.projection(encoded)).sum(1) / features.shape[1] ** 0.5
            return Heads(real, self.energy(features)[:, 0], cells.sum((1, 2, 3)), measured)


class _ExactSpectralNorm(_SpectralNorm):
    """The norm of :func:`torch.nn.utils.parametrizations.spectral_norm`, not rounded under autocast."""

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            normalised: Tensor = super().forward(weight)
        return normalised


def normalise_spectrum(module: nn.Module) -> None:
    """Divide the weight of every linear and convolutional part by its largest singular value (arXiv:1802.05957)."""
    for part in list(module.modules()):
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            register_parametrization(part, "weight", _ExactSpectralNorm(part.weight))
