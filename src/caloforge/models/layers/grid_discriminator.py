"""The discriminator of the generators on grids: a convolutional body and four heads.

Real or generated (a logit) and incident energy are learnt, both linear in the body's features; the sum of the cells and the
measured angle are computed, see :mod:`caloforge.models.layers.computed`, and carry gradients to the generator alone.

As published it sees the values of the cells and nothing else. With ``informed`` it also sees each cell's
share of the expected visible energy as a second channel, the shower's profiles through a small network, and
the encoded conditions c through the projection head of Miyato and Koyama (arXiv:1802.05637): the logit is
w.f + f.V c / sqrt(len f).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from caloforge.geometry import Detector
from caloforge.models.layers.cell_scale import LogScale, PowerScale
from caloforge.models.layers.computed import GridProfiles, MeasuredAngle, cell_sum
from caloforge.models.layers.mlp import mlp

__all__ = ["GridDiscriminator", "Heads", "normalise_spectrum"]

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
