r"""Longitudinal profiles that fluctuate from shower to shower.

With y = E/Ec, L = ln y and t in radiation lengths from the start of the shower::

    f(t) = (b t)^(a-1) b exp(-b t) / Gamma(a),        b = (a-1)/T

    T_hom = L - 0.812                                 a_hom = 0.81 + (0.458 + 2.26/Z) L
    <ln T> = ln(T_hom - 0.55/F - 0.69 e)              <ln a> = ln(a_hom - 0.476/F)
    sigma(ln T) = 1/(-2.5 + 1.25 L)                   sigma(ln a) = 1/(-0.82 + 0.79 L)
    rho(ln T, ln a) = 0.784 - 0.023 L

and (ln T, ln a) are Gaussian with that correlation. Electrons start at the surface, photons after an
exponential of mean 9/7 X0. The constants are the paper's; outside its range (below some 100 MeV) they lose
their meaning, so T is kept above 0.3 X0, a above 1.1 and both sigmas at 0.5 or less.

References:
    G. Grindhammer, S. Peters, arXiv:hep-ex/0001020, appendix (individual profiles, homogeneous and sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from caloforge.simulate.gflash.medium import Medium

__all__ = ["Profile", "ProfileLaw", "profile_law"]

Array = NDArray[np.float64]

_MIN_T, _MIN_ALPHA, _MAX_SIGMA, _MIN_LOG = 0.3, 1.1, 0.5, 0.5


@dataclass(frozen=True)
class Profile:
    """The profiles of n showers.

    Arguments:
        t_max: (n,) depth of the maximum, X0.
        alpha: (n,) shape.
        tau_scale: (n,) 1/X0; tau = tau_scale * t, in units of the maximum, is the depth in :mod:`.radial`.
    """

    t_max: Array
    alpha: Array
    tau_scale: Array

    @property
    def beta(self) -> Array:
        """(n,) scale, 1/X0."""
        return (self.alpha - 1.0) / self.t_max

    @property
    def mean_depth(self) -> Array:
        """(n,) mean depth <t> = a/b, X0."""
        return self.alpha / self.beta

    def integral(self, t: Array) -> Array:
        """Return the share of the profile before depth ``t`` (n, k), X0 from the start of the shower."""
        return np.asarray(gammainc(self.alpha[:, None], self.beta[:, None] * np.clip(t, 0.0, None)))


@dataclass(frozen=True)
class ProfileLaw:
    """The law that (ln T, ln a) follow, for n showers; every field (n,)."""

    mean_log_t: Array
    mean_log_alpha: Array
    sigma_log_t: Array
    sigma_log_alpha: Array
    rho: Array

    def draw(self, normal: Array) -> Profile:
        """Return the profiles that standard normal numbers (n, 2) stand for."""
        common = np.sqrt((1.0 + self.rho) / 2.0) * normal[:, 0]
        opposite = np.sqrt((1.0 - self.rho) / 2.0) * normal[:, 1]
        t_max = np.exp(self.mean_log_t + self.sigma_log_t * (common + opposite))
        alpha = np.exp(self.mean_log_alpha + self.sigma_log_alpha * (common - opposite))
        t_max, alpha = np.maximum(t_max, _MIN_T), np.maximum(alpha, _MIN_ALPHA)
        # tau_i = (t / <t>_i) exp<ln a> / (exp<ln a> - 1)
        typical = np.exp(self.mean_log_alpha)
        tau_scale = (alpha - 1.0) / (alpha * t_max) * typical / (typical - 1.0)
        return Profile(t_max, alpha, tau_scale)


def profile_law(energy: Array, medium: Medium) -> ProfileLaw:
    """Return the law for showers of ``energy`` (n,) MeV in ``medium`` (fields (n,) or numbers)."""
    log_y = np.maximum(np.log(energy / medium.critical_energy), _MIN_LOG)
    t_max = log_y - 0.812 - 0.55 * medium.depth - 0.69 * medium.e
    alpha = 0.81 + (0.458 + 2.26 / medium.z) * log_y - 0.476 * medium.depth
    return ProfileLaw(
        mean_log_t=np.log(np.maximum(t_max, _MIN_T)),
        mean_log_alpha=np.log(np.maximum(alpha, _MIN_ALPHA)),
        sigma_log_t=_inverse(-2.5 + 1.25 * log_y),
        sigma_log_alpha=_inverse(-0.82 + 0.79 * log_y),
        rho=0.784 - 0.023 * log_y,
    )


def _inverse(x: Array) -> Array:
    """Return 1/x, at most the largest sigma, also where x is not positive."""
    return 1.0 / np.maximum(x, 1.0 / _MAX_SIGMA)
