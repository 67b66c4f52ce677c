r"""Functions of the conditions fitted to training showers: moments of quantities, and gains of groups of cells.

Quantities are standardised and restored with their mean m(c) and width s(c),

.. math:: t = \frac{x - m(c)}{s(c)}, \qquad x = m(c) + s(c) \, t ,

linear between groups in ln E (:class:`EnergyMoments`) or polynomials of the conditions (:class:`ConditionalMoments`).

Gains (:class:`Gains`) give groups of cells the mean energies of the training showers. A group (a cell, a ring of cells, a
layer) has the share :math:`t_n` of the energy of training shower n, and on average the share :math:`g_n` of showers generated under the same conditions. With :math:`\phi(c)` the conditions and their powers its gain is
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

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer
from caloforge.models.calibration.monotone import energy_groups, neighbours
from caloforge.models.calibration.regression import Polynomial, shrunk_fit

__all__ = [
    "ConditionalMoments",
    "EnergyMoments",
    "Gains",
    "RingGains",
    "fit_gains",
]


class EnergyMoments(nn.Module):
    """Mean and standard deviation of groups of showers of like energy, interpolated linearly in ln E, constant beyond the ends.

    Arguments:
        size: Number of quantities.
        knots: Most groups.
        floor: Smallest standard deviation.
    """

    position: Tensor  # (groups,) ln E, ascending
    mean: Tensor  # (groups, size)
    std: Tensor  # (groups, size)

    def __init__(self, size: int, knots: int = 9, floor: float = 1e-6) -> None:
        super().__init__()
        self.knots, self.floor = knots, floor
        self.register_buffer("position", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1, size))
        self.register_buffer("std", torch.ones(1, size))

    @torch.no_grad()
    def fit(self, values: Tensor, energy: Tensor) -> None:
        """Set the constants from quantities (N, size) at incident energies (N,), MeV."""
        group, position = energy_groups(energy.double(), self.knots)
        rows = [values[group == g].double() for g in range(len(position))]
        std = torch.stack([row.std(0, unbiased=False) for row in rows])
        self.position, self.std = position.to(self.mean), std.clamp_min(self.floor).to(self.mean)
        self.mean = torch.stack([row.mean(0) for row in rows]).to(self.mean)

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (B, size), at incident energies (B,), MeV."""
        if len(self.position) == 1:
            return self.mean.expand(energy.shape[0], -1), self.std.expand(energy.shape[0], -1)
        below, above, part = neighbours(self.position, torch.log(energy))
        mean, std = (torch.lerp(t[below], t[above], part[:, None]) for t in (self.mean, self.std))
        return mean, std


_LEAST_FREE = 0.1  # least 1 - h of the correction of residuals
_FEWEST_A_TERM = 2  # values for each term of a polynomial; with fewer there is no trend
_FEWEST = 5  # values for each free coefficient of a polynomial; with fewer the constant alone is free
_LOG_NORMAL = 0.635  # -<ln|g|> of a standard normal g


class ConditionalMoments(nn.Module):
    r"""Mean and width as polynomials of the conditions, :math:`m = a \cdot \phi(c)` and :math:`\ln s = b \cdot \phi(c)`.

    Both follow from least squares, shrunk as far as few values call for (:func:`shrunk_fit`), b from :math:`\ln|x - m| + 0.635`, which is
    :math:`\ln s` on average for a normal x and which outliers hardly move; m's coefficients make the residuals smaller than those of
    other values, by :math:`\sqrt{1 - h}` on average, which is corrected.
    """

    mean: Tensor  # a, (terms, columns)
    spread: Tensor  # b, (terms, columns)
    optimism: Tensor  # (columns,) after a fit: width of new standardised values over that of those fitted

    def __init__(self, continuous: int, width: int, columns: int, degree: int = 3) -> None:
        super().__init__()
        self.terms = Polynomial(continuous, width, degree)
        self.register_buffer("mean", torch.zeros(self.terms.size, columns))
        self.register_buffer("spread", torch.zeros(self.terms.size, columns))
        self.register_buffer("optimism", torch.ones(columns), persistent=False)

    @torch.no_grad()
    def fit(self, encoded: Tensor, values: Tensor, known: Tensor | None = None) -> None:
        """Fit to encoded conditions (N, width) and values (N, columns).

        ``known`` says which values there are (N, columns), all if missing. A column of few gets their mean and width alone; one of none
        is left as it is.
        """
        self.terms.fit(encoded)
        self._fit(encoded, values, known, None)

    @torch.no_grad()
    def adapt(self, encoded: Tensor, values: Tensor, known: Tensor | None = None) -> None:
        """Fit to few values, the coefficients drawn to those that there are; see :meth:`fit`."""
        self.terms.widen(encoded)
        self._fit(encoded, values, known, (self.mean.double(), self.spread.double()))

    def _fit(
        self, encoded: Tensor, values: Tensor, known: Tensor | None, prior: tuple[Tensor, Tensor] | None
    ) -> None:
        design, x = self.terms(encoded).double(), values.double()
        if known is None or bool(known.all()):
            self._set(slice(None), design, x, prior)
            return
        for column, rows in enumerate(known.T):
            if int(rows.sum()) >= (1 if prior is None else _FEWEST):
                self._set(slice(column, column + 1), design[rows], x[rows, column : column + 1], prior)

    def _set(self, columns: slice, design: Tensor, x: Tensor, prior: tuple[Tensor, Tensor] | None) -> None:
        """Fit columns x (N, k) to terms (N, terms)."""
        a, b = (None, None) if prior is None else (prior[0][:, columns], prior[1][:, columns])
        terms, leading = design, self.terms.leading
        if prior is None and len(x) < _FEWEST_A_TERM * design.shape[1]:  # a few values: mean and width alone
            terms = torch.where(self.terms.constant, design, 0.0)
        free = [leading if len(x) >= _FEWEST * int(leading.sum()) else self.terms.constant]
        if prior is not None:  # the powers of the energy may be the earlier ones, too
            free.append(self.terms.constant)
        mean, number = shrunk_fit(terms, x, free, a)
        residual = (x - design @ mean).abs() / (1.0 - number / len(x)).clamp_min(_LEAST_FREE).sqrt()
        logs = torch.log(residual + 1e-4 * residual.mean(0).clamp_min(1e-9)) + _LOG_NORMAL
        spread, _ = shrunk_fit(terms, logs, free, b)
        self.mean[:, columns], self.spread[:, columns] = mean.to(self.mean), spread.to(self.spread)
        part = (number / len(x)).clamp_max(1.0 - _LEAST_FREE)
        self.optimism[columns] = ((1.0 + part) / (1.0 - part)).sqrt().to(self.mean)

    def forward(self, values: Tensor, encoded: Tensor) -> Tensor:
        """Return standardised values t (B, columns) of values x (B, columns)."""
        phi: Tensor = self.terms(encoded)
        return (values - phi @ self.mean) * torch.exp(-(phi @ self.spread))

    def inverse(self, standardised: Tensor, encoded: Tensor) -> Tensor:
        """Return values x (B, columns) of standardised values t (B, columns)."""
        phi: Tensor = self.terms(encoded)
        return standardised * torch.exp(phi @ self.spread) + phi @ self.mean


_STEPS = 6
_FAR = 3.0  # largest coefficient
_TINY = 1e-12
_UNIT_RIDGE = 1e-8  # added to matrices of unit size, which few showers leave singular


class Gains(nn.Module):
    """Gains of some groups of cells, from 1 / ``most`` to ``most``; 1 before the fit."""

    weights: Tensor  # a, (features, groups)

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

        The shares of training showers and the mean shares of generated ones under the same conditions are (N, groups).
        """
        bare = generated.double() / self(encoded).double()
        self.terms.fit(encoded)
        self.weights = fit_gains(reference.double(), bare, self.terms(encoded).double()).to(self.weights)


def fit_gains(reference: Tensor, generated: Tensor, features: Tensor, shrink: bool = True) -> Tensor:
    """Return the coefficients a (F, groups), see the module, for shares (N, groups) and features (N, F), shrunk by default."""
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
    shrinkage = prior @ (torch.linalg.inv(whole / unit + _UNIT_RIDGE * eye) / unit)
    best: Tensor = ((shrinkage @ a.T[:, :, None])[:, :, 0] * there).T
    return best


_EDGES = (0.6, 1.2, 1.8, 2.4, 3.2, 4.2, 5.5, 7.5, 10.5)
"""Distances between rings, in cells; none is that of a cell from an axis through a cell's centre or corner."""


class RingGains(nn.Module):
    r"""Gains of cells by layer and by distance from the shower axis, so that the mean lateral profile is that of the training showers.

    The axis begins where the beam enters and points along theta, so it passes layer l at :math:`x_0` and
    :math:`y_0 + z_l / \tan \theta`.

    Arguments:
        detector: A detector whose layers are rows and columns of equal cells, or a regular mesh, whose rings are its own.
        width: Continuous encoded conditions.
        radial: On a mesh the power of the distance from the axis in positions, see ``LayerView``.
    """

    edges: Tensor  # squares of the distances between rings, in cells; of a mesh in mm, as the others
    slope: Tensor  # (2, n_layers) cells, along x and y, to one unit of a layer's positions (half its width)
    origin: Tensor  # (2, n_layers) of the layer's middle, in cells from where the beam enters
    depth: Tensor  # (n_layers,) of the layers, in cells along y

    def __init__(self, detector: Detector, width: int, radial: float = 1.0) -> None:
        super().__init__()
        self.n_layers, beam = detector.n_layers, detector.beam
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        slope, origin, edges = [], [], _EDGES
        if isinstance(mesh := detector.layers[0], CylindricalLayer):
            largest = float(mesh.r[-1])
            edges = tuple(largest * (edge / largest) ** radial for edge in mesh.r_edges[1:-1])
            on_axis = (mesh.r / largest) ** (radial - 1.0)
            ends = np.ptp(mesh.centres()[:, :2] * np.tile(on_axis, mesh.n_alpha)[:, None], axis=0)
            slope, origin = [(0.5 * ends).tolist()] * self.n_layers, [[0.0, 0.0]] * self.n_layers
        for layer in layers:
            ends = [
                (layer.x.min(), layer.x.max(), beam.x, layer.pitch_x),
                (layer.y.min(), layer.y.max(), beam.y, layer.pitch_y),
            ]
            slope.append([max(0.5 * (high - low), 1e-6) / pitch for low, high, _, pitch in ends])
            origin.append([(0.5 * (high + low) - start) / pitch for low, high, start, pitch in ends])
        tables = {
            "edges": torch.tensor(edges).square(),
            "slope": torch.tensor(slope, dtype=torch.float32).T.contiguous(),
            "origin": torch.tensor(origin, dtype=torch.float32).T.contiguous(),
            "depth": torch.tensor(
                [layer.z / layer.pitch_y for layer in layers] or [0.0], dtype=torch.float32
            ),
        }
        self.rings = len(edges) + 1  # of a layer
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

    def shares(self, energy: Tensor, x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        """Return the shares (B, n_layers * rings) of the showers' energies in each ring.

        Energies of cells are (B, n_layers, K), MeV, their positions x and y (n_layers, K), in half widths of the layer.
        """
        sums = energy.new_zeros(len(energy), self.n_layers, self.rings)
        ring = self.ring(x.expand_as(energy), y.expand_as(energy), theta)
        sums.scatter_add_(2, ring, energy)
        shares: Tensor = sums.flatten(1) / energy.sum((1, 2))[:, None].clamp_min(_TINY)
        return shares
