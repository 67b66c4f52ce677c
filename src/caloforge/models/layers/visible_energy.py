r"""The visible energy of a shower as a random number of its conditions, without a network.

With the response r = E_vis / E and the encoded conditions e (standardised ln E, angle):

.. math::
    \langle r \rangle = w_0 + \sum_k w_k e_k + w'_k e_k^2, \qquad
    \sigma^2(E) = a^2 / E + b^2, \qquad t = (r - \langle r \rangle) / \sigma .

w is a least-squares fit, a and b follow from the squared residuals (the stochastic and the constant term of a
calorimeter's resolution), and the distribution of t is kept as its quantiles at the probabilities of 57 normal numbers.
Outside the range of the training showers the conditions in the fit of r stop at its edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["VisibleEnergy"]

_KNOTS = 57
_REACH = 3.5
_GEV = 1000.0


class VisibleEnergy(nn.Module):
    """Mean and distribution of the visible energy.

    Arguments:
        width: Number of encoded conditions.
        response: Response before the fit, the detector's sampling fraction.
    """

    weights: Tensor
    low: Tensor
    high: Tensor
    terms: Tensor
    quantiles: Tensor

    def __init__(self, width: int, response: float) -> None:
        super().__init__()
        weights = torch.zeros(1 + 2 * width)
        weights[0] = response
        self.register_buffer("weights", weights)
        self.register_buffer("low", torch.full((width,), -3.0))
        self.register_buffer("high", torch.full((width,), 3.0))
        self.register_buffer("terms", torch.tensor([0.0, (0.1 * response) ** 2]))
        self.register_buffer("quantiles", torch.linspace(-_REACH, _REACH, _KNOTS))

    def fit(self, encoded: Tensor, energy: Tensor, visible: Tensor) -> None:
        """Fit to showers.

        Arguments:
            encoded: Encoded conditions (N, width).
            energy: Incident energy (N,), MeV.
            visible: Visible energy (N,), MeV.
        """
        self.low.copy_(encoded.amin(0))
        self.high.copy_(encoded.amax(0))
        features = self._features(encoded).double()
        energy, response = energy.double(), (visible / energy).double()
        weights = torch.linalg.lstsq(features, response[:, None], driver="gelsd").solution[:, 0]
        residual = response - features @ weights
        design = torch.stack([_GEV / energy, torch.ones_like(energy)], 1)
        floor = 1e-12 + 1e-6 * float(response.mean()) ** 2
        variance = residual.square().mean().clamp_min(floor).expand_as(energy)
        terms = torch.zeros(2, dtype=torch.float64)
        for _ in range(5):  # weighted least squares of the squares; their own variance is 2 sigma^4
            terms = _positive_fit(design / variance[:, None], residual.square() / variance)
            variance = (design @ terms).clamp_min(floor)
        self.weights.copy_(weights)
        self.terms.copy_(terms)
        normal = torch.linspace(-_REACH, _REACH, _KNOTS, dtype=torch.float64)
        levels = 0.5 * (1.0 + torch.erf(normal / math.sqrt(2.0)))
        self.quantiles.copy_(torch.quantile(residual / variance.sqrt(), levels))

    def mean(self, encoded: Tensor, energy: Tensor) -> Tensor:
        """Return the mean visible energy (B,), MeV."""
        response = (self._features(encoded) * self.weights).sum(
            1
        )  # no matrix product: mixed precision would round it
        return response.clamp_min(1e-6) * energy

    def spread(self, energy: Tensor) -> Tensor:
        """Return the standard deviation of the visible energy (B,), MeV."""
        variance = self.terms[0] * _GEV / energy + self.terms[1]
        return variance.clamp_min(1e-12).sqrt() * energy

    def draw(self, normal: Tensor, encoded: Tensor, energy: Tensor) -> Tensor:
        """Return visible energies (B,), MeV: a pure, rising function of normal numbers (B,).

        They are kept above a twentieth of the mean.
        """
        mean = self.mean(encoded, energy)
        position = (normal.clamp(-_REACH, _REACH) + _REACH) * ((_KNOTS - 1) / (2 * _REACH))
        left = position.floor().clamp_max(_KNOTS - 2)
        index = left.long()
        part = position - left
        t = self.quantiles[index] * (1.0 - part) + self.quantiles[index + 1] * part
        return torch.maximum(mean + t * self.spread(energy), 0.05 * mean)

    def _features(self, encoded: Tensor) -> Tensor:
        """Return (B, 1 + 2 width): 1, the conditions within the fitted range, their squares."""
        inside = torch.minimum(torch.maximum(encoded, self.low), self.high)
        return torch.cat([torch.ones_like(inside[:, :1]), inside, inside.square()], 1)


def _positive_fit(design: Tensor, wanted: Tensor) -> Tensor:
    """Return the two terms (2,), none negative, that fit ``wanted`` (N,) best by a design (N, 2)."""
    best: Tensor = torch.linalg.lstsq(design, wanted[:, None], driver="gelsd").solution[:, 0]
    if bool((best >= 0).all()):
        return best
    alone = (design * wanted[:, None]).sum(0) / design.square().sum(0)
    each = torch.diag(alone.clamp_min(0.0))
    chosen: Tensor = each[(design @ each.T - wanted[:, None]).square().sum(0).argmin()]
    return chosen
