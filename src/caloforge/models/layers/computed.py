r"""Quantities of a shower that are computed and not learnt: the discriminators' analytic heads.

- the sum of the cells;
- the measured angle: with the barycentre (y_l, z_l) of each layer and (Y, Z) of the shower, the slope of layer l is
  m_l = (y_l - Y) / (z_l - Z), the slope of the shower their mean with the depths z_l as weights,

  .. math:: m = \frac{\sum_l z_l m_l}{\sum_l z_l}, \qquad \theta = \mathrm{atan2}(1, m),

  over layers that hold energy. Layers closer to Z than half the distance between layers are left out, since their slope is
  a small number over a small number; the published text only leaves out z_l = Z;
- the profiles: layer energies, x and y profiles and hits a layer, see :class:`GridProfiles`.

References:
    G. Khattak et al., arXiv:2109.07388 (the Conv3D GAN with angles).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector, ReadoutLayer

__all__ = ["GridProfiles", "MeasuredAngle", "cell_sum"]

_TINY = 1e-9
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
        filled = energy > _TINY
        safe = torch.where(filled, energy, torch.ones_like(energy))
        centre = moment / safe
        total = energy.sum(1, keepdim=True).clamp_min(_TINY)
        middle_y = moment.sum(1, keepdim=True) / total
        distance = self.z - (energy * self.z).sum(1, keepdim=True) / total
        used = filled & (distance.abs() >= self.nearest)
        slopes = (centre - middle_y) / torch.where(used, distance, torch.ones_like(distance))
        weights = used * self.z
        weighted = torch.where(used, slopes, torch.zeros_like(slopes)) * weights
        return weighted.sum(1) / weights.sum(1).clamp_min(_TINY)

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
