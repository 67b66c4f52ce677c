"""Gains of cells by layer and by distance from the shower axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.calibration.moments import Gains
from caloforge.models.nn.cell_networks import LayerView

__all__ = ["RingGains"]

_TINY = 1e-12
_EDGES = (0.6, 1.2, 1.8, 2.4, 3.2, 4.2, 5.5, 7.5, 10.5)
"""Distances between rings, in cells; none is that of a cell from an axis through a cell's centre or corner."""


class RingGains(nn.Module):
    r"""Gains of cells by layer and by distance from the shower axis, so that the mean lateral profile is that of the training showers.

    The axis begins where the beam enters and points along theta, so it passes layer l at :math:`x_0` and
    :math:`y_0 + z_l / \tan \theta`.

    Arguments:
        detector: A detector whose layers are rows and columns of equal cells.
        width: Continuous encoded conditions.
    """

    edges: Tensor
    slope: Tensor  # (2, n_layers) cells, along x and y, to one unit of a layer's positions (half its width)
    origin: Tensor  # (2, n_layers) of the layer's middle, in cells from where the beam enters
    depth: Tensor  # (n_layers,) of the layers, in cells along y
    rings = len(_EDGES) + 1  # rings of a layer

    def __init__(self, detector: Detector, width: int) -> None:
        super().__init__()
        self.n_layers, beam = detector.n_layers, detector.beam
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        slope, origin = [], []
        for layer in layers:
            ends = [
                (layer.x.min(), layer.x.max(), beam.x, layer.pitch_x),
                (layer.y.min(), layer.y.max(), beam.y, layer.pitch_y),
            ]
            slope.append([max(0.5 * (high - low), 1e-6) / pitch for low, high, _, pitch in ends])
            origin.append([(0.5 * (high + low) - start) / pitch for low, high, start, pitch in ends])
        tables = {
            "edges": torch.tensor(_EDGES).square(),
            "slope": torch.tensor(slope, dtype=torch.float32).T.contiguous(),
            "origin": torch.tensor(origin, dtype=torch.float32).T.contiguous(),
            "depth": torch.tensor([layer.z / layer.pitch_y for layer in layers], dtype=torch.float32),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.gains = Gains(width, self.n_layers * self.rings)

    def ring(self, x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        """Return the rings (B, n_layers, K) of positions (B, n_layers, K) in half widths of the layer, for theta (B,), degrees."""
        angle = torch.deg2rad(theta.clamp(5.0, 175.0))[:, None]
        axis = (self.depth * torch.cos(angle) / torch.sin(angle))[:, :, None]
        dx = x * self.slope[0, :, None] + self.origin[0, :, None]
        dy = y * self.slope[1, :, None] + self.origin[1, :, None] - axis
        return torch.bucketize(dx.square() + dy.square(), self.edges)

    def forward(self, x: Tensor, y: Tensor, theta: Tensor, encoded: Tensor) -> Tensor:
        """Return the gains (B, n_layers, K) of cells at x and y (B, n_layers, K), in half widths of the layer.

        The angles theta (B,) are in degrees; encoded are continuous conditions (B, width).
        """
        gains: Tensor = self.gains(encoded).view(-1, self.n_layers, self.rings)
        return gains.gather(2, self.ring(x, y, theta))

    def shares(self, cells: Tensor, view: LayerView, theta: Tensor) -> Tensor:
        """Return the shares (B, n_layers * rings) of the showers' energies in each ring, of cells (B, n_cells), MeV."""
        energy = view(cells)
        x, y = (table.expand_as(energy) for table in (view.x, view.y))
        sums = energy.new_zeros(len(energy), self.n_layers, self.rings)
        sums.scatter_add_(2, self.ring(x, y, theta), energy)
        shares: Tensor = sums.flatten(1) / energy.sum((1, 2))[:, None].clamp_min(_TINY)
        return shares
