r"""A rising map of four numbers from one distribution to another: shift, width, skewness and tails.

.. math:: f(x) = a + b \sinh(\delta \, \mathrm{arsinh}\, x + \epsilon), \qquad b, \delta > 0

:math:`\epsilon` leans the distribution, :math:`\delta` sets the weight of its tails; (0, 1, 0, 1) leaves it as it is.
With so few numbers f has no structure of its own: what it is fitted to leaves its mean features and none of the
fluctuations of single showers.

The fit compares quantiles at equally spaced probabilities p by least squares, with the covariance that quantiles of
independent numbers have,

.. math:: \mathrm{Cov}(q_i, q_j) \propto \frac{dq}{dp}\Big|_i \frac{dq}{dp}\Big|_j \,
          (\min(p_i, p_j) - p_i p_j),

the slopes those of the generated numbers, so that each part of the distribution counts as far as it is known. Then a and
b are set so that mean and standard deviation are the true numbers' own.

References:
    M. C. Jones, A. Pewsey, Sinh-arcsinh distributions, Biometrika 96 (2009) 761.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["SinhArcsinh"]

_LEVELS = 40
"""Most quantiles that are compared."""
_EACH = 5
"""Fewest numbers for one of them."""
_SLOPE = 1e-3
_RIDGE = 1e-6
_LOW = (-np.inf, 0.0, -2.0, 0.3)
_HIGH = (np.inf, np.inf, 2.0, 3.0)

Array = NDArray[np.float64]


class SinhArcsinh(nn.Module):
    """One such map for each of some numbers; before the fit there is none.

    Arguments:
        size: How many numbers.

    Attributes:
        terms: (size, 4): a, b, epsilon, delta; (0, 4) before the fit.
    """

    terms: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("terms", torch.zeros(0, 4))

    @property
    def fitted(self) -> bool:
        """Whether the maps follow from showers."""
        return len(self.terms) == self.size

    @torch.no_grad()
    def fit(self, made: Tensor, true: Tensor) -> None:
        """Set the maps from generated numbers (M, size), of about unit width, to true ones (N, size)."""
        columns = zip(made.T.double().cpu().numpy(), true.T.double().cpu().numpy(), strict=True)
        self.terms = torch.tensor(np.array([_fit(*pair) for pair in columns])).to(self.terms)

    def forward(self, values: Tensor, column: int) -> Tensor:
        """Return the carried numbers (B,) of one column's values (B,)."""
        shift, width, lean, tails = self.terms[column]
        carried: Tensor = shift + width * torch.sinh(tails * torch.asinh(values) + lean)
        return carried


def _fit(made: Array, true: Array) -> Array:
    """Return the four numbers (4,) of the map from ``made`` (M,) to ``true`` (N,)."""
    from scipy.optimize import least_squares

    count = int(np.clip(len(true) // _EACH, 2 * _EACH, _LEVELS))
    levels = (np.arange(count) + 0.5) / count
    x, y = np.quantile(made, levels), np.quantile(true, levels)
    slope = np.maximum(np.gradient(x, levels), _SLOPE)
    covariance = (np.minimum.outer(levels, levels) - np.outer(levels, levels)) * np.outer(slope, slope)
    white = np.linalg.inv(np.linalg.cholesky(covariance + _RIDGE * np.eye(count)))
    unit = max(float(true.std()), _RIDGE)

    def misfit(terms: Array) -> Array:
        return np.asarray(white @ (_carried(terms, x) - y) / unit)

    start = (float(true.mean()), unit, 0.0, 1.0)
    terms = np.asarray(least_squares(misfit, start, bounds=(_LOW, _HIGH), x_scale="jac").x)
    carried = _carried(terms, made)
    factor = true.std() / carried.std() if carried.std() > 0 else 1.0
    terms[:2] = true.mean() + factor * (terms[0] - carried.mean()), factor * terms[1]
    return terms


def _carried(terms: Array, x: Array) -> Array:
    shift, width, lean, tails = terms
    return np.asarray(shift + width * np.sinh(tails * np.arcsinh(x) + lean))
