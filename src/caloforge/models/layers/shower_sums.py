r"""Two sums of a shower that are drawn from fitted distributions, and showers brought to them.

With layer energies :math:`E_l` and absorber ratios :math:`\rho_l`
(:mod:`~caloforge.models.layers.absorber`),

.. math:: V = \sum_l E_l, \qquad W = \sum_l \rho_l E_l .

V is the visible energy, W what a reconstruction calibrates: W / E is drawn under the conditions, then V / W under the
conditions and W (:mod:`~caloforge.models.layers.conditional_quantiles`). In this order, since W varies least: V is smaller in late
showers, of which more is sampled half as often, and W is not. Both are told as normal numbers. A shower is brought to V and W by
multiplying layer l with :math:`e^{\alpha + \beta \zeta_l}`, :math:`\zeta` the depth in [-1, 1]: the smoothest change that does it,
and close to 1 when the shower is nearly right. Its slope :math:`\beta` follows from Newton's method, cut to [-2, 2].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.layers.absorber import absorber_ratios, layer_depths
from caloforge.models.layers.conditional_quantiles import ConditionalQuantiles

__all__ = ["ShowerSums", "Sums"]

_NEWTON = 7
_STEEPEST = 2.0
_TINY = 1e-9


class Sums(NamedTuple):
    """Energies (B,), MeV."""

    visible: Tensor
    weighted: Tensor


class ShowerSums(nn.Module):
    """Distribution of V and W, and the change of layers that brings a shower to them.

    Arguments:
        detector: The detector.
        width: Number of encoded conditions.
        group: Column of the conditions on which the shapes depend.

    Attributes:
        size: Normal numbers a shower: 2.
    """

    ratios: Tensor
    depths: Tensor
    size = 2

    def __init__(self, detector: Detector, width: int, group: int) -> None:
        super().__init__()
        self.fraction = detector.sampling_fraction
        self.register_buffer("ratios", absorber_ratios(detector), persistent=False)
        self.register_buffer("depths", layer_depths(detector), persistent=False)
        self.tilted = bool((self.ratios.amax() - self.ratios.amin()) > 1e-3)
        middle = float(self.ratios.mean())
        self.response = ConditionalQuantiles(width, group, middle, 0.1 * middle)
        self.share = ConditionalQuantiles(width + 1, group, 1.0 / middle, 0.05 / middle)

    def fit(self, layers: Tensor, energy: Tensor, conditions: Tensor) -> None:
        """Fit to layer energies (N, L), incident energies (N,), MeV, and encoded conditions (N, width)."""
        sums = self.of(layers)
        self.response.fit(conditions, sums.weighted / (self.fraction * energy))
        if self.tilted:
            first = self.response.normal(sums.weighted / (self.fraction * energy), conditions)
            self.share.fit(torch.cat([conditions, first[:, None]], 1), sums.visible / sums.weighted)

    def of(self, layers: Tensor) -> Sums:
        """Return V and W of layer energies (B, L)."""
        visible = layers.sum(1)
        return Sums(visible.clamp_min(_TINY), (layers * self.ratios).sum(1).clamp_min(_TINY))

    def normals(self, sums: Sums, energy: Tensor, conditions: Tensor) -> Tensor:
        """Return W and V as normal numbers (B, 2)."""
        first = self.response.normal(sums.weighted / (self.fraction * energy), conditions)
        if not self.tilted:
            return torch.stack([first, torch.zeros_like(first)], 1)
        given = torch.cat([conditions, first[:, None]], 1)
        return torch.stack([first, self.share.normal(sums.visible / sums.weighted, given)], 1)

    def draw(self, normals: Tensor, energy: Tensor, conditions: Tensor) -> Sums:
        """Return V and W of normal numbers (B, 2): the inverse of ``normals``."""
        weighted = self.response.draw(normals[:, 0], conditions).clamp_min(0.02) * self.fraction * energy
        if not self.tilted:
            return Sums(weighted / self.ratios[0], weighted)
        share = self.share.draw(normals[:, 1], torch.cat([conditions, normals[:, :1]], 1))
        low, high = 1.0005 / self.ratios.amax(), 0.9995 / self.ratios.amin()
        return Sums(weighted * torch.minimum(torch.maximum(share, low), high), weighted)

    def factors(self, layers: Tensor, wanted: Sums) -> Tensor:
        """Return the factor of each layer (B, L) that brings layer energies (B, L) to V and W."""
        layers = layers.float().clamp_min(0.0)
        shares = layers + 1e-6 * layers.sum(1, keepdim=True) + 1e-9 * wanted.visible[:, None]
        slope = torch.zeros_like(wanted.visible)
        if self.tilted:
            target = wanted.weighted / wanted.visible
            with torch.no_grad():
                for _ in range(_NEWTON):
                    slope = self._newton(slope, shares, target)
            slope = self._newton(
                slope, shares, target
            )  # a step from the solution has the solution's gradient
        tilt = torch.exp(slope[:, None] * self.depths)
        return tilt * (wanted.visible / (shares * tilt).sum(1).clamp_min(_TINY))[:, None]

    def _newton(self, slope: Tensor, shares: Tensor, target: Tensor) -> Tensor:
        """Return a better slope (B,) for energies of layers (B, L) and W / V (B,)."""
        p = torch.softmax(torch.log(shares) + slope[:, None] * self.depths, 1)
        mean = (p * self.ratios).sum(1)
        rise = (p * self.ratios * self.depths).sum(1) - mean * (p * self.depths).sum(1)
        return (slope + (target - mean) / rise.clamp_min(1e-3)).clamp(-_STEEPEST, _STEEPEST)
