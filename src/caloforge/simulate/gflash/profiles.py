r"""Longitudinal and radial profiles that fluctuate from shower to shower.

Longitudinal: with y = E/Ec, L = ln y and t in radiation lengths from the start of the shower::

    f(t) = (b t)^(a-1) b exp(-b t) / Gamma(a),        b = (a-1)/T

    T_hom = L - 0.812                                 a_hom = 0.81 + (0.458 + 2.26/Z) L
    <ln T> = ln(T_hom - 0.55/F - 0.69 e)              <ln a> = ln(a_hom - 0.476/F)
    sigma(ln T) = 1/(-2.5 + 1.25 L)                   sigma(ln a) = 1/(-0.82 + 0.79 L)
    rho(ln T, ln a) = 0.784 - 0.023 L

and (ln T, ln a) are Gaussian with that correlation. The constants are the paper's; outside its range (below some 100 MeV) they lose
their meaning, so T is kept above 0.3 X0, a above 1.1 and both sigmas at 0.5 or less.

Radial: a core and a tail whose radii grow with depth. With E in GeV, tau the depth in units of the shower's maximum, and r in
Moliere radii::

    f(r) = p 2 r Rc^2/(r^2 + Rc^2)^2 + (1-p) 2 r Rt^2/(r^2 + Rt^2)^2

    Rc = z1 + z2 tau                z1 = 0.0251 + 0.00319 ln E      z2 = 0.1162 - 0.000381 Z
    Rt = k1 [exp(k3 (tau - k2)) + exp(k4 (tau - k2))]
         k1 = 0.659 - 0.00309 Z     k2 = 0.645     k3 = -2.59       k4 = 0.3585 + 0.0421 ln E
    p  = p1 exp[x - exp x], x = (p2 - tau)/p3
         p1 = 2.632 - 0.00094 Z     p2 = 0.401 + 0.00187 Z          p3 = 1.313 - 0.0686 ln E

and for sampling calorimeters Rc - 0.0203 e + 0.0397 exp(-tau)/F, Rt - 0.14 e - 0.495 exp(-tau)/F, p + e
[0.348 - 0.642 exp(-(tau-1)^2)/F]. The integral of a component is r^2/(r^2 + R^2), so r = R sqrt(v/(1-v)).
tau is kept at 10 or less, where the published range ends; radii at 0.01 or more; p within 0 and 1.

References:
    G. Grindhammer, S. Peters, arXiv:hep-ex/0001020, appendix (individual and radial profiles, homogeneous and sampling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from caloforge.simulate.gflash.column import Medium

__all__ = ["Profile", "ProfileLaw", "Radial", "profile_law", "radial_profile"]


Array = NDArray[np.float64]

_MIN_T, _MIN_ALPHA, _MAX_SIGMA, _MIN_LOG = 0.3, 1.1, 0.5, 0.5
_MAX_TAU, _MIN_RADIUS = 10.0, 0.01


@dataclass(frozen=True)
class Profile:
    """The profiles of n showers.

    Arguments:
        t_max: (n,) depth of the maximum, X0.
        alpha: (n,) shape.
        tau_scale: (n,) 1/X0; tau = tau_scale * t, in units of the maximum, is the depth of the radial profiles.
    """

    t_max: Array
    alpha: Array
    tau_scale: Array

    @property
    def beta(self) -> Array:
        """(n,) scale, 1/X0."""
        return (self.alpha - 1.0) / self.t_max

    def integral(self, t: Array) -> Array:
        """Return the share of the profile before depth ``t`` (n, k), X0 from the start of the shower."""
        return np.asarray(gammainc(self.alpha[:, None], self.beta[:, None] * np.clip(t, 0.0, None)))


@dataclass(frozen=True)
class ProfileLaw:
    """Means, widths and correlation of the Gaussian (ln T, ln a) of n showers; every field (n,)."""

    mean_log_t: Array
    mean_log_alpha: Array
    sigma_log_t: Array
    sigma_log_alpha: Array
    rho: Array

    def draw(self, normal: Array) -> Profile:
        """Return the profiles drawn with standard normal numbers (n, 2)."""
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


@dataclass(frozen=True)
class Radial:
    """Radial profiles; every field has one shape, radii in Moliere radii.

    Arguments:
        core: Radius of the core.
        tail: Radius of the tail.
        share: Share p of the core.
    """

    core: Array
    tail: Array
    share: Array

    def radius(self, u: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
        """Turn uniform numbers into radii, in the precision of ``u``.

        One number serves twice: it picks the component, and what is left of it is uniform again.

        Arguments:
            u: (m,) in [0, 1).
            index: (m,) the (flattened) profile of each number.

        Returns:
            (m,) radii in Moliere radii.
        """
        share = self.share.ravel().astype(u.dtype)[index]
        in_core = u < share
        v = np.where(in_core, u, u - share)
        rest = np.where(in_core, share, 1 - share) - v
        pair = np.stack([self.tail.ravel(), self.core.ravel()], axis=1).astype(u.dtype).ravel()
        scale = pair[2 * index + in_core]
        tiny = np.finfo(u.dtype).eps
        return np.asarray(scale * np.sqrt(v / np.maximum(rest, tiny)))


def radial_profile(energy: Array, tau: Array, medium: Medium) -> Radial:
    """Return the profiles of showers at some depths.

    Arguments:
        energy: (n, 1) MeV.
        tau: (n, k) depths in units of the shower's maximum.
        medium: Effective medium, its fields (n, 1).
    """
    tau = np.clip(tau, 0.0, _MAX_TAU)
    log_e = np.log(energy / 1e3)
    z, e, depth = medium.z, medium.e, medium.depth
    fading = depth * np.exp(-tau)
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau - 0.0203 * e + 0.0397 * fading
    growth = np.exp(-2.59 * (tau - 0.645)) + np.exp((0.3585 + 0.0421 * log_e) * (tau - 0.645))
    tail = (0.659 - 0.00309 * z) * growth - 0.14 * e - 0.495 * fading
    x = (0.401 + 0.00187 * z - tau) / np.maximum(1.313 - 0.0686 * log_e, 0.1)
    share = (2.632 - 0.00094 * z) * np.exp(x - np.exp(x))
    share = share + e * (0.348 - 0.642 * depth * np.exp(-((tau - 1.0) ** 2)))
    return Radial(np.maximum(core, _MIN_RADIUS), np.maximum(tail, _MIN_RADIUS), np.clip(share, 0.0, 1.0))
