r"""Gains for cells in rows and columns by their distance from the shower's axis, so that the mean shower is that of the training showers.

The axis begins where the beam enters and points along theta, so it passes layer l at :math:`x_0` and
:math:`y_0 + z_l / \tan \theta`. The distance of a cell's centre from it, in cells, says to which ring it belongs. Each ring of each layer
has a gain, smooth in the conditions (:class:`~caloforge.models.layers.share_gains.ShareGains`); layers are given the energies
asked for after it, so it changes only how a layer's energy is shared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.layers.layer_view import LayerView
from caloforge.models.layers.share_gains import ShareGains

__all__ = ["RingGains"]

_EDGES = (0.6, 1.2, 1.8, 2.4, 3.2, 4.2, 5.5, 7.5, 10.5)
"""Distances between rings, in cells; none is that of a cell from an axis through a cell's centre or corner."""
_TINY = 1e-12


class RingGains(nn.Module):
    """Factors for cells, 1 before the fit.

    Arguments:
        detector: A detector whose layers are rows and columns of equal cells.
        width: Continuous encoded conditions.

    Attributes:
        rings: Rings of a layer.
        slope: (2, n_layers) cells, along x and y, to one unit of a layer's positions (half its width).
        origin: (2, n_layers) of the layer's middle, in cells from where the beam enters.
        depth: (n_layers,) of the layers, in cells along y.
    """

    edges: Tensor
    slope: Tensor
    origin: Tensor
    depth: Tensor
    rings = len(_EDGES) + 1

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
        self.gains = ShareGains(width, self.n_layers * self.rings, 1)

    def reset(self) -> None:
        """Set all factors to 1."""
        self.gains.weights.zero_()

    def ring(self, x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        """Return the rings (B, n_layers, K) of positions (B, n_layers, K) in half widths of the layer, for theta (B,), degrees."""
        angle = torch.deg2rad(theta.clamp(5.0, 175.0))[:, None]
        axis = (self.depth * torch.cos(angle) / torch.sin(angle))[:, :, None]
        dx = x * self.slope[0, :, None] + self.origin[0, :, None]
        dy = y * self.slope[1, :, None] + self.origin[1, :, None] - axis
        return torch.bucketize(dx.square() + dy.square(), self.edges)

    def forward(self, x: Tensor, y: Tensor, theta: Tensor, encoded: Tensor) -> Tensor:
        """Return the factors (B, n_layers, K) of cells.

        Arguments:
            x: Positions (B, n_layers, K), in half widths of the layer.
            y: The same along the other axis.
            theta: Angles (B,), degrees.
            encoded: Encoded continuous conditions (B, width).
        """
        gains: Tensor = self.gains(encoded).view(-1, self.n_layers, self.rings)
        return gains.gather(2, self.ring(x, y, theta))

    def shares(self, cells: Tensor, view: LayerView, theta: Tensor) -> Tensor:
        """Return the parts (B, n_layers * rings) of the showers' energies that rings hold, of cells (B, n_cells), MeV."""
        energy = view(cells)
        x, y = (table.expand_as(energy) for table in (view.x, view.y))
        sums = energy.new_zeros(len(energy), self.n_layers, self.rings)
        sums.scatter_add_(2, self.ring(x, y, theta), energy)
        shares: Tensor = sums.flatten(1) / energy.sum((1, 2))[:, None].clamp_min(_TINY)
        return shares

    @torch.no_grad()
    def fit(self, true: Tensor, made: Tensor, encoded: Tensor) -> None:
        """Fit to the shares (N, n_layers * rings) of training showers and of those made under the same conditions with the present gains."""
        self.gains.fit(true, made, encoded)
