"""Monotone maps of few parameters: the sinh-arcsinh family."""

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
    r"""Rising maps of four numbers each, one for each column: shift, width, skewness and tails.

    .. math:: f(x) = a + b \sinh(\delta \, \mathrm{arsinh}\, x + \epsilon), \qquad b, \delta > 0

    So few numbers repeat none of the fluctuations of single showers. The fit compares quantiles at equally spaced probabilities p by
    least squares, with the covariance that quantiles of independent numbers have,

    .. math:: \mathrm{Cov}(q_i, q_j) \propto \frac{dq}{dp}\Big|_i \frac{dq}{dp}\Big|_j \, (\min(p_i, p_j) - p_i p_j),

    the slopes those of the generated numbers; then a and b are set so that mean and standard deviation are the reference's.

    References:
        M. C. Jones, A. Pewsey, Sinh-arcsinh distributions, Biometrika 96 (2009) 761.

    Arguments:
        columns: Numbers a shower.

    Attributes:
        terms: (columns, 4): a, b, epsilon, delta.
    """

    terms: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("terms", torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(columns, 1))

    @torch.no_grad()
    def fit(self, generated: Tensor, reference: Tensor) -> None:
        """Set the maps from generated numbers (M, columns), of about unit width, to reference ones (N, columns)."""
        columns = zip(generated.T.double().cpu().numpy(), reference.T.double().cpu().numpy(), strict=True)
        self.terms.copy_(torch.tensor(np.array([_fit_terms(*pair) for pair in columns])))

    def forward(self, values: Tensor) -> Tensor:
        """Return the mapped numbers (B, columns) of values (B, columns)."""
        shift, width, lean, tails = self.terms.unbind(1)
        mapped: Tensor = shift + width * torch.sinh(tails * torch.asinh(values) + lean)
        return mapped


def _fit_terms(generated: Array, reference: Array) -> Array:
    """Return the four numbers (4,) of the map from generated (M,) to reference numbers (N,)."""
    from scipy.optimize import least_squares

    count = int(np.clip(len(reference) // _EACH, 2 * _EACH, _LEVELS))
    levels = (np.arange(count) + 0.5) / count
    x, y = np.quantile(generated, levels), np.quantile(reference, levels)
    slope = np.maximum(np.gradient(x, levels), _SLOPE)
    covariance = (np.minimum.outer(levels, levels) - np.outer(levels, levels)) * np.outer(slope, slope)
    white = np.linalg.inv(np.linalg.cholesky(covariance + _RIDGE * np.eye(count)))
    unit = max(float(reference.std()), _RIDGE)

    def mapped(terms: Array, x: Array) -> Array:
        shift, width, lean, tails = terms
        return np.asarray(shift + width * np.sinh(tails * np.arcsinh(x) + lean))

    def misfit(terms: Array) -> Array:
        return np.asarray(white @ (mapped(terms, x) - y) / unit)

    start = (float(reference.mean()), unit, 0.0, 1.0)
    terms = np.asarray(least_squares(misfit, start, bounds=(_LOW, _HIGH), x_scale="jac").x)
    found = mapped(terms, generated)
    factor = reference.std() / found.std() if found.std() > 0 else 1.0
    terms[:2] = reference.mean() + factor * (terms[0] - found.mean()), factor * terms[1]
    return terms
