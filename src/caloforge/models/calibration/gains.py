r"""Gains of cells by layer and by distance from the shower axis.

Gains that give the parts of showers the means of the training showers, smooth functions of the conditions.

A part (a cell, a ring of cells, a layer) holds the shares :math:`t_n` of training shower n and :math:`g_n` of the showers
that are generated under the same conditions, on average. With features :math:`\phi(c)` of the conditions its gain is
:math:`\exp(a \cdot \phi(c))`, and a solves

.. math:: \sum_n \phi(c_n) \left(t_n - g_n \exp(a \cdot \phi(c_n))\right) = 0 ,

so that the means, and the means weighted with each feature, agree. The residuals :math:`t_n - g_n \exp(\dots)` also tell the
covariance V of a. What fluctuates is then taken back: with the spread T of the true a over all parts, :math:`T = \langle
a^2 - V \rangle` (a weighted mean, in which parts that are known badly count little), the best guess is
:math:`T (T + V)^{-1} a`.

Gains for cells in rows and columns by their distance from the shower's axis, so that the mean shower is that of the training showers.

The axis begins where the beam enters and points along theta, so it passes layer l at :math:`x_0` and
:math:`y_0 + z_l / \tan \theta`. The distance of a cell's centre from it, in cells, says to which ring it belongs. Each ring of each layer
has a gain, smooth in the conditions (:class:`~caloforge.models.calibration.gains.ShareGains`); layers are given the energies
asked for after it, so it changes only how a layer's energy is shared.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.nn.layer_sums import LayerView

__all__ = ["Features", "GridRings", "RingGains", "ShareGains", "fit_gains"]


_STEPS = 6
_FAR = 3.0
"""Largest coefficient."""
_TINY = 1e-12
_RIDGE = 1e-8
"""Added to matrices of unit size, which few showers leave singular."""


class Features(nn.Module):
    """1, encoded conditions and their powers; conditions stop at the edge of the training showers'.

    Arguments:
        width: Encoded conditions.
        degree: Highest power of each.
    """

    low: Tensor
    high: Tensor

    def __init__(self, width: int, degree: int) -> None:
        super().__init__()
        self.degree, self.size = degree, 1 + width * degree
        self.register_buffer("low", torch.full((width,), -3.0))
        self.register_buffer("high", torch.full((width,), 3.0))

    def fit(self, encoded: Tensor) -> None:
        """Set the edges from encoded conditions (N, width)."""
        self.low.copy_(encoded.amin(0))
        self.high.copy_(encoded.amax(0))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return phi (B, size)."""
        inside = torch.minimum(torch.maximum(encoded, self.low), self.high)
        powers = [inside**power for power in range(1, self.degree + 1)]
        return torch.cat([torch.ones_like(inside[:, :1]), *powers], 1)


class ShareGains(nn.Module):
    """Gains of some parts; 1 before the fit.

    Arguments:
        width: Encoded conditions.
        parts: How many parts.
        degree: Of the features.
        most: Largest gain, and the inverse of the smallest.
    """

    weights: Tensor

    def __init__(self, width: int, parts: int, degree: int, most: float = 4.0) -> None:
        super().__init__()
        self.most = math.log(most)
        self.features = Features(width, degree)
        self.register_buffer("weights", torch.zeros(self.features.size, parts))

    def logarithm(self, encoded: Tensor) -> Tensor:
        """Return logarithms of the gains (B, parts) for encoded conditions (B, width)."""
        logarithm: Tensor = self.features(encoded) @ self.weights
        return logarithm.clamp(-self.most, self.most)

    def forward(self, encoded: Tensor) -> Tensor:
        """Return gains (B, parts) for encoded conditions (B, width)."""
        return self.logarithm(encoded).exp()

    @torch.no_grad()
    def fit(self, true: Tensor, made: Tensor, encoded: Tensor) -> None:
        """Fit to shares that had the present gains when they were made, so that it can be called again and again.

        Arguments:
            true: Shares of training showers (N, parts).
            made: Mean shares of generated ones under the same conditions (N, parts), with the present gains.
            encoded: Encoded conditions (N, width).
        """
        bare = made.double() / self(encoded).double()
        self.features.fit(encoded)
        self.weights = fit_gains(true.double(), bare, self.features(encoded).double()).to(self.weights)


def fit_gains(true: Tensor, made: Tensor, features: Tensor, shrink: bool = True) -> Tensor:
    """Return the coefficients a (F, parts) of gains, see the module.

    Arguments:
        true: (N, parts).
        made: (N, parts).
        features: (N, F).
        shrink: Whether to take back what fluctuates.
    """
    n, size = features.shape
    pairs = (features[:, :, None] * features[:, None, :]).reshape(n, -1)
    eye = torch.eye(size, dtype=features.dtype, device=features.device)
    there = (made.mean(0) > _TINY)[:, None]
    a = features.new_zeros(size, true.shape[1])

    def state() -> tuple[Tensor, Tensor, Tensor]:
        """Return residuals (N, parts), their moments (parts, F), and the inverse slopes (parts, F, F)."""
        now = made * (features @ a).exp()
        slope = (pairs.T @ now / n).T.view(-1, size, size)
        scale = slope.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)
        inverse = torch.linalg.inv(slope / scale[:, None, None] + 1e-6 * eye) / scale[:, None, None]
        rest = true - now
        return rest, (features.T @ rest / n).T, inverse

    for _ in range(_STEPS):
        _, moments, inverse = state()
        step = (inverse @ moments[:, :, None])[:, :, 0].clamp(-1.0, 1.0) * there
        a = (a + step.T).clamp(-_FAR, _FAR)
    if not shrink:
        return a
    rest, _, inverse = state()
    noise = (pairs.T @ rest.square() / n**2).T.view(-1, size, size)
    covariance = inverse @ noise @ inverse.transpose(1, 2)
    variance = covariance.diagonal(dim1=1, dim2=2)
    middle = variance.median(0).values if len(variance) else variance.sum(0)
    weight = there / (variance + middle + _TINY).square()
    spread = (weight * (a.T.square() - variance)).sum(0) / weight.sum(0).clamp_min(_TINY)
    prior = torch.diag(spread.clamp_min(0.0))
    whole = prior + covariance
    unit = whole.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)[:, None, None]
    kept = prior @ (torch.linalg.inv(whole / unit + _RIDGE * eye) / unit)
    best: Tensor = ((kept @ a.T[:, :, None])[:, :, 0] * there).T
    return best


_EDGES = (0.6, 1.2, 1.8, 2.4, 3.2, 4.2, 5.5, 7.5, 10.5)
"""Distances between rings, in cells; none is that of a cell from an axis through a cell's centre or corner."""


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


_EDGES_grid_rings = (0.5, 1.2, 1.6, 2.5, 3.7, 6.1)
"""Distances from the beam between rings, in cells."""


class GridRings(nn.Module):
    """Sums over rings and layers, and factors for them.

    Arguments:
        detector: A grid.
        upright: Whether showers are round about the beam; otherwise there is one ring, of all cells.
    """

    ring: Tensor
    member: Tensor

    def __init__(self, detector: Detector, upright: bool) -> None:
        super().__init__()
        self.shape = detector.shape
        nx, ny, self.layers = detector.shape
        centres = detector.cell_centres.reshape(nx, ny, self.layers, 3)[:, :, 0, :2]
        pitch = float(np.diff(centres[:, 0, 0]).min()) if nx > 1 else 1.0
        away = np.hypot(centres[..., 0] - detector.beam.x, centres[..., 1] - detector.beam.y) / pitch
        ring = np.digitize(away, _EDGES_grid_rings) if upright else np.zeros((nx, ny), np.int64)
        self.rings = int(ring.max()) + 1
        flat = torch.from_numpy(ring.reshape(-1).astype(np.int64))
        self.register_buffer("ring", flat, persistent=False)
        self.register_buffer(
            "member", nn.functional.one_hot(flat, self.rings).float().T.contiguous(), persistent=False
        )

    def table(self, cells: Tensor) -> Tensor:
        """Return energies (B, rings, layers) of cells (B, n_cells)."""
        return self.member @ cells.view(len(cells), -1, self.layers)

    def table_of(self, values: Tensor, cells: Tensor) -> Tensor:
        """Return the same of some cells alone: values (B, k) of cells (k,), flat indices."""
        where = self.ring[cells // self.layers] * self.layers + cells % self.layers
        table = values.new_zeros(len(values), self.rings * self.layers).index_add_(1, where, values)
        return table.view(-1, self.rings, self.layers)

    def spread(self, factors: Tensor) -> Tensor:
        """Return factors (B, rings, layers) as one for each cell (B, n_cells)."""
        return factors[:, self.ring].flatten(1)
