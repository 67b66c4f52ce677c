r"""Gains of groups of cells that give them the mean energies of the training showers, smooth functions of the conditions.

A group (a cell, a ring of cells, a layer) has the share :math:`t_n` of the energy of training shower n, and on average the share
:math:`g_n` of showers generated under the same conditions. With :math:`\phi(c)` the conditions and their powers its gain is
:math:`\exp(a \cdot \phi(c))`, and a solves

.. math:: \sum_n \phi(c_n) \left(t_n - g_n \exp(a \cdot \phi(c_n))\right) = 0 ,

so that the means, and the means weighted with each feature, agree. The residuals :math:`t_n - g_n \exp(\dots)` also give the
covariance V of a. The coefficients are then shrunk (empirical Bayes): with the covariance T of the true a over all groups,
:math:`T = \langle a^2 - V \rangle` (a weighted mean, in which groups of large V count little), the best estimate is
:math:`T (T + V)^{-1} a`.

References:
    B. Efron, C. Morris, Stein's estimation rule and its competitors - an empirical Bayes approach, JASA 68 (1973) 117.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.calibration.moments import Polynomial
from caloforge.models.nn.layer_sums import LayerView

__all__ = ["Gains", "RingGains", "fit_gains"]

_STEPS = 6
_FAR = 3.0
"""Largest coefficient."""
_TINY = 1e-12
_RIDGE = 1e-8
"""Added to matrices of unit size, which few showers leave singular."""


class Gains(nn.Module):
    """Gains of some groups of cells; 1 before the fit.

    Arguments:
        width: Encoded conditions.
        groups: How many groups.
        degree: Highest power of each condition.
        most: Largest gain, and the inverse of the smallest.

    Attributes:
        weights: a, (features, groups).
    """

    weights: Tensor

    def __init__(self, width: int, groups: int, degree: int = 1, most: float = 4.0) -> None:
        super().__init__()
        self.most = math.log(most)
        self.terms = Polynomial(width, width, degree, cross=False)
        self.register_buffer("weights", torch.zeros(self.terms.size, groups))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return gains (B, groups) for encoded conditions (B, width)."""
        logarithms: Tensor = self.terms(encoded) @ self.weights
        return logarithms.clamp(-self.most, self.most).exp()

    @torch.no_grad()
    def fit(self, reference: Tensor, generated: Tensor, encoded: Tensor) -> None:
        """Fit to showers that were generated with the present gains, so that it can be repeated after other steps.

        Arguments:
            reference: Shares of training showers (N, groups).
            generated: Mean shares of generated ones under the same conditions (N, groups), with the present gains.
            encoded: Encoded conditions (N, width).
        """
        bare = generated.double() / self(encoded).double()
        self.terms.fit(encoded)
        self.weights = fit_gains(reference.double(), bare, self.terms(encoded).double()).to(self.weights)


def fit_gains(reference: Tensor, generated: Tensor, features: Tensor, shrink: bool = True) -> Tensor:
    """Return the coefficients a (F, groups) of gains, see the module.

    Arguments:
        reference: (N, groups).
        generated: (N, groups).
        features: (N, F).
        shrink: Whether coefficients are shrunk.
    """
    n, size = features.shape
    pairs = (features[:, :, None] * features[:, None, :]).reshape(n, -1)
    eye = torch.eye(size, dtype=features.dtype, device=features.device)
    there = (generated.mean(0) > _TINY)[:, None]
    a = features.new_zeros(size, reference.shape[1])

    def state() -> tuple[Tensor, Tensor]:
        """Return residuals (N, groups) and the inverse slopes (groups, F, F) of their moments."""
        now = generated * (features @ a).exp()
        slope = (pairs.T @ now / n).T.view(-1, size, size)
        scale = slope.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)[:, None, None]
        return reference - now, torch.linalg.inv(slope / scale + 1e-6 * eye) / scale

    for _ in range(_STEPS):
        residual, inverse = state()
        step = (inverse @ (features.T @ residual / n).T[:, :, None])[:, :, 0].clamp(-1.0, 1.0) * there
        a = (a + step.T).clamp(-_FAR, _FAR)
    if not shrink:
        return a
    residual, inverse = state()
    noise = (pairs.T @ residual.square() / n**2).T.view(-1, size, size)
    covariance = inverse @ noise @ inverse.transpose(1, 2)
    variance = covariance.diagonal(dim1=1, dim2=2)
    middle = variance.median(0).values if len(variance) else variance.sum(0)
    weight = there / (variance + middle + _TINY).square()
    spread = (weight * (a.T.square() - variance)).sum(0) / weight.sum(0).clamp_min(_TINY)
    prior = torch.diag(spread.clamp_min(0.0))
    whole = prior + covariance
    unit = whole.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)[:, None, None]
    shrinkage = prior @ (torch.linalg.inv(whole / unit + _RIDGE * eye) / unit)
    best: Tensor = ((shrinkage @ a.T[:, :, None])[:, :, 0] * there).T
    return best


_EDGES = (0.6, 1.2, 1.8, 2.4, 3.2, 4.2, 5.5, 7.5, 10.5)
"""Distances between rings, in cells; none is that of a cell from an axis through a cell's centre or corner."""


class RingGains(nn.Module):
    r"""Gains of cells by layer and by distance from the shower axis, so that the mean lateral profile is that of the training showers.

    The axis begins where the beam enters and points along theta, so it passes layer l at :math:`x_0` and
    :math:`y_0 + z_l / \tan \theta`.

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
        self.gains = Gains(width, self.n_layers * self.rings)

    def reset(self) -> None:
        """Set all gains to 1."""
        self.gains.weights.zero_()

    def ring(self, x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        """Return the rings (B, n_layers, K) of positions (B, n_layers, K) in half widths of the layer, for theta (B,), degrees."""
        angle = torch.deg2rad(theta.clamp(5.0, 175.0))[:, None]
        axis = (self.depth * torch.cos(angle) / torch.sin(angle))[:, :, None]
        dx = x * self.slope[0, :, None] + self.origin[0, :, None]
        dy = y * self.slope[1, :, None] + self.origin[1, :, None] - axis
        return torch.bucketize(dx.square() + dy.square(), self.edges)

    def forward(self, x: Tensor, y: Tensor, theta: Tensor, encoded: Tensor) -> Tensor:
        """Return the gains (B, n_layers, K) of cells.

        Arguments:
            x: Positions (B, n_layers, K), in half widths of the layer.
            y: The same along the other axis.
            theta: Angles (B,), degrees.
            encoded: Encoded continuous conditions (B, width).
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

    def fit(self, reference: Tensor, generated: Tensor, encoded: Tensor) -> None:
        """Fit to shares (N, n_layers * rings) of training showers and of generated ones with the present gains, see ``Gains.fit``."""
        self.gains.fit(reference, generated, encoded)
