r"""The discriminator of the GANs on grids: a convolutional body, learned heads, and analytic heads.

Cell energies in MeV turned into the values v that a network works on, and back.

With u = energy / unit:

- ``power``: v = sign(u) |u|^p; p = 1 is linear. The published Conv3D GAN takes u in units of 10 MeV (GeV x 100) with
  p = 1, its angle-conditioned form p = 0.85 (arXiv:2109.07388 and its predecessors);
- ``log``: v = sign(u) ln(1 + |u|), linear below the unit and logarithmic above, so that cells of 0.2 and of 400 MeV both
  count.

Both are odd and exactly 0 at 0, so a rectified network makes empty cells, and one without rectifier, as in
the first epochs of the Conv2D GAN, still has finite gradients.

Quantities of a shower that are computed and not learnt: the discriminators' analytic heads.

- the sum of the cells;
- the measured angle: with the barycentre (y_l, z_l) of each layer and (Y, Z) of the shower, the slope of layer l is
  m_l = (y_l - Y) / (z_l - Z), the slope of the shower their mean with the depths z_l as weights,

  .. math:: m = \frac{\sum_l z_l m_l}{\sum_l z_l}, \qquad \theta = \mathrm{atan2}(1, m),

  over layers that hold energy. Layers closer to Z than half the distance between layers are left out, since their slope is
  a small number over a small number; the published text only leaves out z_l = Z;
- the profiles: layer energies, x and y profiles and hits a layer, see :class:`GridProfiles`.

References:
    G. Khattak et al., arXiv:2109.07388 (the Conv3D GAN with angles).

The discriminator of the generators on grids: a convolutional body and four heads.

Real or generated (a logit) and incident energy are learnt, both linear in the body's features; the sum of the cells and the
measured angle are computed, see :mod:`caloforge.models.grid_gan.discriminator`, and carry gradients to the generator alone.

As published it sees the values of the cells and nothing else. With ``informed`` it also sees each cell's
share of the expected visible energy as a second channel, the shower's profiles through a small network, and
the encoded conditions c through the projection head of Miyato and Koyama (arXiv:1802.05637): the logit is
w.f + f.V c / sqrt(len f).
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
from caloforge.models.nn.mlp import mlp

__all__ = [
    "CELL_SCALES",
    "GridDiscriminator",
    "GridProfiles",
    "Heads",
    "LogScale",
    "MeasuredAngle",
    "PowerScale",
    "cell_scale",
    "cell_sum",
    "normalise_spectrum",
]


_TINY = 1e-12


class PowerScale(nn.Module):
    """v = sign(u) |u|^p.

    Arguments:
        unit: MeV.
        power: p, in (0, 1].
    """

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
        return torch.where(size > _TINY, u.sign() * size.clamp_min(_TINY) ** self.power, torch.zeros_like(u))

    def inverse(self, values: Tensor) -> Tensor:
        """Return energies (MeV) of values, any shape."""
        if self.power == 1.0:
            return values * self.unit
        return values.sign() * values.abs() ** (1.0 / self.power) * self.unit


class LogScale(nn.Module):
    """v = sign(u) ln(1 + |u|).

    Arguments:
        unit: MeV.
        highest: Largest |v| that is turned back, so that an untrained network cannot overflow.
    """

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
"""Name of a scale to what makes it from unit (MeV) and power."""


def cell_scale(kind: str, unit: float, power: float) -> PowerScale | LogScale:
    """Return the scale of that name; the settings have checked the name."""
    return CELL_SCALES[kind](unit, power)


_TINY_computed = 1e-9
_HIT_MEV = 0.1


def cell_sum(grid: Tensor) -> Tensor:
    """Return the visible energy (B,) of a grid (B, X, Y, L), both MeV."""
    return grid.sum((1, 2, 3))


class MeasuredAngle(nn.Module):
    """Polar angle from the layers' barycentres, see the module; differentiable.

    Arguments:
        detector: A grid.

    Raises:
        IncompatibleError: When its layers are not rectangular.
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
        grid = grid.float()
        planes = grid.sum(1)
        energy = planes.sum(1)
        moment = (planes * self.y[:, None]).sum(1)  # no matrix product, which mixed precision would round
        filled = energy > _TINY_computed
        safe = torch.where(filled, energy, torch.ones_like(energy))
        centre = moment / safe
        total = energy.sum(1, keepdim=True).clamp_min(_TINY_computed)
        middle_y = moment.sum(1, keepdim=True) / total
        distance = self.z - (energy * self.z).sum(1, keepdim=True) / total
        used = filled & (distance.abs() >= self.nearest)
        slopes = (centre - middle_y) / torch.where(used, distance, torch.ones_like(distance))
        weights = used * self.z
        weighted = torch.where(used, slopes, torch.zeros_like(slopes)) * weights
        return weighted.sum(1) / weights.sum(1).clamp_min(_TINY_computed)

    def forward(self, grid: Tensor) -> Tensor:
        """Return theta (B,), radians."""
        m = self.slope(grid)
        return torch.atan2(torch.ones_like(m), m)


class GridProfiles(nn.Module):
    """Sums of a shower that a discriminator should not have to find by itself.

    With the expected visible energy V = E x sampling fraction: sqrt of the layer energies, of the x and of the
    y profile over V, ln of the visible energy over V, and sqrt of each layer's share of hits, where a cell
    counts as a hit with the smooth weight e^3 / (e^3 + (0.1 MeV)^3).

    Attributes:
        width: Numbers a shower.
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
        cubes = (grid / _HIT_MEV).clamp_max(100.0) ** 3
        hits = (cubes / (1.0 + cubes)).mean((1, 2))
        total = layers.sum(1, keepdim=True)
        parts = [_root(p / expected) for p in (layers, profile_x, profile_y)]
        return torch.cat([*parts, torch.log(total / expected + 1e-3), _root(hits)], 1)


def _root(x: Tensor) -> Tensor:
    """Return the square root, with a finite slope at 0."""
    return torch.sqrt(x + 1e-4)


_PROFILE_FEATURES = 64
_PER_SHARE = 30.0  # a cell's share of the visible energy is about a thirtieth at the core


class Heads(NamedTuple):
    """What a discriminator says of showers, each (B,)."""

    real: Tensor
    """Logit, large for real."""
    energy: Tensor
    """Incident energy in the units of its target."""
    total: Tensor
    """Sum of the cells, MeV; computed."""
    theta: Tensor
    """Measured angle, radians; computed."""


class GridDiscriminator(nn.Module):
    """Judge showers on a grid.

    Arguments:
        detector: The grid.
        scale: Values to energies.
        body: Turns values (B, channels, X, Y, L) into features (B, features).
        features: Their number.
        n_encoded: Number of encoded conditions.
        informed: Show it more than the cells, see the module; the body then takes two channels.
        angled: Whether the angle is one of the conditions.
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
            self.summary = mlp(self.profiles.width + int(angled), (128,), _PROFILE_FEATURES, nn.SiLU)
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
            images.append(cells * (_PER_SHARE / (energy * self.response))[:, None, None, None])
        found = self.body(torch.stack(images, 1)).float()
        with torch.autocast(values.device.type, enabled=False):  # errors in per cent need more than 8 bits
            if self.informed:
                summary = [self.profiles(cells, energy)]
                if self.angled:
                    summary.append(10.0 * (measured - theta)[:, None])
                found = torch.cat([found, functional.silu(self.summary(torch.cat(summary, 1)))], 1)
            real = self.real(found)[:, 0]
            if self.informed:
                real = real + (found * self.projection(encoded)).sum(1) / found.shape[1] ** 0.5
            return Heads(real, self.energy(found)[:, 0], cell_sum(cells), measured)


class _ExactSpectralNorm(_SpectralNorm):
    """The norm of :func:`torch.nn.utils.parametrizations.spectral_norm`, not rounded under autocast."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight over its largest singular value."""
        with torch.autocast(weight.device.type, enabled=False):
            normalised: Tensor = super().forward(weight)
        return normalised


def normalise_spectrum(module: nn.Module) -> None:
    """Divide the weight of every linear and convolutional part by its largest singular value (arXiv:1802.05957)."""
    for part in list(module.modules()):
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            register_parametrization(part, "weight", _ExactSpectralNorm(part.weight))
