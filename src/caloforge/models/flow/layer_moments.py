r"""Weights of the cells of a layer that give it the centre and the widths of the shower's summary.

Of all energies with given moments those nearest to e_i (in relative entropy) are an exponential tilt,

.. math:: e_i' \propto e_i \exp(a\,x_i + b\,y_i + c\,x_i^2 + d\,y_i^2),

x and y from the target centre, with a to d such that the energy-weighted means of x and y are 0 and those of x^2 and y^2 the squares
of the widths. a to d are found by Newton's method, whose Jacobian is the covariance of the four under the tilted energies.
A target that a layer cannot reach (a centre beyond its filled cells, a width of one cell) is approached as far as the bound of the
tilt allows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LayerTargets", "tilted"]

_STEPS = 4
_MOST = 0.3
"""Largest logarithm of a cell's factor, against the layer's mean."""
_DAMPING = 0.1
"""Added to the covariance, in units of that of all the layer's energy, against moments that little free energy cannot change."""
_LEAST = 1e-3
_PIVOT = 1e-3
_TINY = 1e-12


class LayerTargets(NamedTuple):
    """Targets for the cells of each layer.

    Attributes:
        sums: Energies (B, n_layers), MeV.
        hits: Cells above the threshold (B, n_layers), whole numbers.
        faint: Cells with less energy (B, n_layers), whole numbers.
        x: Centres along x (B, n_layers), in units of the layer's half width.
        y: The same along y.
        width_x: Root mean square distances to the centre along x (B, n_layers), in the same units.
        width_y: The same along y.
    """

    sums: Tensor
    hits: Tensor
    faint: Tensor
    x: Tensor
    y: Tensor
    width_x: Tensor
    width_y: Tensor


def tilted(free: Tensor, fixed: Tensor, x: Tensor, y: Tensor, targets: LayerTargets) -> Tensor:
    """Return ``free`` energies tilted, with unchanged sums, so that free and fixed ones together have the target moments.

    Arguments:
        free: Energies that may change (B, n_layers, width), MeV, not negative.
        fixed: Energies that stay (B, n_layers, width), MeV.
        x: Positions of the cells (n_layers, width).
        y: The same along the other axis.
        targets: Centres and widths; sums and counts are not used.
    """
    away_x, away_y = x - targets.x[:, :, None], y - targets.y[:, :, None]
    square_x, square_y = away_x.square(), away_y.square()
    target_x, target_y = (
        w.clamp_min(_LEAST).square()[:, :, None] for w in (targets.width_x, targets.width_y)
    )
    moments = torch.stack([away_x, away_y, square_x - target_x, square_y - target_y], 2)
    whole = free.sum(2).clamp_min(_TINY)
    total = (free + fixed).sum(2).clamp_min(_TINY)
    settled = (moments * fixed[:, :, None]).sum(3)
    shares = ((free + fixed) / total[:, :, None])[:, :, None]
    scale = _spread(moments, shares)
    rates = torch.zeros_like(settled)
    found = free
    for _ in range(_STEPS):
        weights = (found / whole[:, :, None])[:, :, None]
        mean = (moments * weights).sum(3)
        covariance = ((moments - mean[..., None]) * weights) @ moments.transpose(2, 3)
        missing = -(settled + mean * whole[..., None]) / total[..., None]
        rates = rates + _solved(covariance * (whole / total)[..., None, None], missing, scale)
        found = _weighted(free, moments, rates, whole)
    return found


def _spread(features: Tensor, shares: Tensor) -> Tensor:
    """Return the widths (B, n_layers, 4) of features (B, n_layers, 4, width) under shares (B, n_layers, 1, width)."""
    mean = (features * shares).sum(3, keepdim=True)
    return ((features - mean).square() * shares).sum(3).clamp_min(_TINY).sqrt()


def _solved(matrix: Tensor, missing: Tensor, scale: Tensor) -> Tensor:
    """Return the damped solution (..., 4) of systems (..., 4, 4), in units of ``scale`` (..., 4), by elimination."""
    unit = matrix / (scale[..., None] * scale[..., None, :])
    size = unit.shape[-1]
    unit = unit + _DAMPING * torch.eye(size, device=matrix.device, dtype=matrix.dtype)
    lines = list(torch.cat([unit, (missing / scale)[..., None]], -1).unbind(-2))
    for k in range(size):
        pivot = lines[k][..., k : k + 1]
        lines[k] = lines[k] / torch.where(pivot.abs() < _PIVOT, _PIVOT, pivot)
        for other in range(size):
            if other != k:
                lines[other] = lines[other] - lines[other][..., k : k + 1] * lines[k]
    solution: Tensor = torch.stack([line[..., size] for line in lines], -1) / scale
    return solution


def _weighted(free: Tensor, moments: Tensor, rates: Tensor, whole: Tensor) -> Tensor:
    """Return energies (B, n_layers, width) times their factors, with the sums ``whole`` (B, n_layers)."""
    logs = (moments * rates[..., None]).sum(2)
    logs = logs - (free * logs).sum(2, keepdim=True) / whole[..., None]
    made: Tensor = free * torch.exp(_MOST * torch.tanh(logs / _MOST))
    found: Tensor = made * (whole / made.sum(2).clamp_min(_TINY))[..., None]
    return found
