"""How a condition enters the latent vector of a generator on a grid, and what the energy head is to find.

Published (arXiv:1912.06794 and 2109.07388): with the energy alone, all latent numbers are multiplied by E / 100 GeV; with an
angle the vector is [E / 100 GeV, theta in radians, normal numbers]. The energy head finds E / 100 GeV with
the error in per cent.

Standardised: the vector is [encoded conditions, normal numbers] for one condition and for two. At 2 GeV the
published factor leaves 2 % of the noise, so that all showers of low energy are alike, and an error in per cent is decided by
the few showers of lowest energy; here the noise is the same at all energies and the head finds the standardised ln E with the
absolute error.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from caloforge.models.layers.adversarial import percentage_error
from caloforge.models.layers.conditions import ConditionEncoder

__all__ = ["CONDITIONINGS", "PublishedLatent", "StandardisedLatent"]

_HUNDRED_GEV = 1e5


class PublishedLatent(nn.Module):
    """Latent vectors as published.

    Arguments:
        size: Length of the latent vector.
        encoder: Encoder of the conditions, unused here.
        energy: Column of the incident energy in the condition matrix.
        theta: Column of the angle, or None.
    """

    def __init__(self, size: int, encoder: ConditionEncoder, energy: int, theta: int | None) -> None:
        super().__init__()
        self.energy, self.theta = energy, theta
        self.n_normals = size if theta is None else size - 2

    def forward(self, normals: Tensor, conditions: Tensor) -> Tensor:
        """Return latent vectors (B, size) of normals (B, n_normals) and conditions (B, C) in raw units."""
        energy = conditions[:, self.energy, None] / _HUNDRED_GEV
        if self.theta is None:
            return normals * energy
        return torch.cat([energy, torch.deg2rad(conditions[:, self.theta, None]), normals], 1)

    def energy_error(self, found: Tensor, conditions: Tensor) -> Tensor:
        """Return the error of the energy head (B,), per cent."""
        return percentage_error(found, conditions[:, self.energy] / _HUNDRED_GEV)


class StandardisedLatent(nn.Module):
    """Latent vectors that begin with the standardised conditions; arguments as above."""

    def __init__(self, size: int, encoder: ConditionEncoder, energy: int, theta: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.index = encoder.continuous.index(energy)
        self.n_normals = size - encoder.width

    def forward(self, normals: Tensor, conditions: Tensor) -> Tensor:
        """Return latent vectors (B, size) of normals (B, n_normals) and conditions (B, C) in raw units."""
        return torch.cat([self.encoder(conditions), normals], 1)

    def energy_error(self, found: Tensor, conditions: Tensor) -> Tensor:
        """Return the mean absolute error of the energy head (B,), standard deviations of ln E."""
        target: Tensor = self.encoder(conditions)[:, self.index]
        return (found - target).abs().mean()


CONDITIONINGS: Mapping[str, type[PublishedLatent] | type[StandardisedLatent]] = {
    "published": PublishedLatent,
    "standardised": StandardisedLatent,
}
"""Name to the module that makes latent vectors."""
