r"""The cells of a shower's core, freed from what the shower's summary explains of them.

Cells that are filled in most showers hold most of the energy, and their values vary little once the energy of their
layer is known: less than the noise of a flow by far. For each of them

.. math:: y = \frac{x - a \cdot \phi}{\sigma},

with features phi of the conditions (first and second order), of the row of the cell's layer (first and second) and of the row of the
whole shower, a from least squares over the training showers, sigma the standard deviation of the rest. So the flow sees numbers of
variance 1. Cells that are often empty stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CoreTrend"]

_RIDGE = 1e-4
_REACH = 6.0
_LEAST = 0.02


class CoreTrend(nn.Module):
    """Trend of the core cells; which they are is decided by the fit.

    Arguments:
        layer: Layer of each cell (n_cells,).
        occupancy: Least part of showers in which a core cell is filled.

    Attributes:
        cells: (n_core,) flat indices of the core cells.
        weights: (n_core, F).
        spread: (n_core,).
    """

    cells: Tensor
    weights: Tensor
    spread: Tensor
    layer: Tensor

    def __init__(self, layer: Tensor, occupancy: float) -> None:
        super().__init__()
        self.occupancy = occupancy
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("cells", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(0, 1))
        self.register_buffer("spread", torch.ones(0))

    @torch.no_grad()
    def fit(self, values: Tensor, empty: float, summary: Tensor, encoded: Tensor) -> None:
        """Find the core cells and fit them.

        Arguments:
            values: (N, n_cells).
            empty: Value of an empty cell.
            summary: (N, rows, kinds).
            encoded: (N, k).
        """
        self.cells = torch.nonzero((values > empty).float().mean(0) > self.occupancy)[:, 0]
        weights, spread = [], []
        for cell in self.cells.tolist():
            phi = self._features(summary, encoded, self.layer[cell : cell + 1])[:, 0].double()
            x = values[:, cell].double()
            gram = phi.T @ phi + _RIDGE * len(phi) * torch.eye(phi.shape[1], dtype=phi.dtype)
            a = torch.linalg.solve(gram, phi.T @ x)
            rest = (x - phi @ a).clamp(-2.0, 2.0)
            weights.append(a.float())
            spread.append(rest.std().clamp_min(_LEAST).float())
        if weights:
            self.weights, self.spread = torch.stack(weights), torch.stack(spread)

    def forward(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with y at the core cells."""
        if not len(self.cells):
            return values
        y = (values[:, self.cells] - self._expected(summary, encoded)) / self.spread
        return values.index_copy(1, self.cells, y.clamp(-_REACH, _REACH))

    def inverse(self, values: Tensor, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return values (B, n_cells) with x at the core cells."""
        if not len(self.cells):
            return values
        y = values[:, self.cells].clamp(-_REACH, _REACH)
        x = y * self.spread + self._expected(summary, encoded)
        return values.index_copy(1, self.cells, x.to(values))

    def _expected(self, summary: Tensor, encoded: Tensor) -> Tensor:
        """Return a . phi (B, n_core)."""
        return (self._features(summary, encoded, self.layer[self.cells]) * self.weights).sum(2)

    @staticmethod
    def _features(summary: Tensor, encoded: Tensor, layers: Tensor) -> Tensor:
        """Return phi (B, n, F) for the layers (n,)."""
        own = summary[:, layers]
        shared = torch.cat([torch.ones_like(encoded[:, :1]), encoded, encoded.square(), summary[:, -1]], 1)
        return torch.cat([own, own.square(), shared[:, None].expand(-1, len(layers), -1)], 2)
