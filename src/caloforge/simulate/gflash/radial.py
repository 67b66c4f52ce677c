r"""Radial profiles: a core and a tail whose radii grow with depth.

With E in GeV, tau the depth in units of the shower's maximum, and r in Moliere radii::

    f(r) = p 2 r Rc^2/(r^2 + Rc^2)^2 + (1-p) 2 r Rt^2/(r^2 + Rt^2)^2

    Rc = z1 + z2 tau                z1 = 0.0251 + 0.00319 ln E      z2 = 0.1162 - 0.000381 Z
    Rt = k1 [exp(k3 (tau - k2)) + exp(k4 (tau - k2))]
         k1 = 0.659 - 0.00309 Z     k2 = 0.645     k3 = -2.59       k4 = 0.3585 + 0.0421 ln E
    p  = p1 exp[x - exp x], x = (p2 - tau)/p3
         p1 = 2.632 - 0.00094 Z     p2 = 0.401 + 0.00187 Z          p3 = 1.313 - 0.0686 ln E

and for sampling calorimeters Rc - 0.0203 e + 0.0397 exp(-tau)/F, Rt - 0.14 e - 0.495 exp(-tau)/F, p + e
[0.348 - 0.642 exp(-(tau-1)^2)/F]. The integral of a component is r^2/(r^2 + R^2), so r = R sqrt(v/(1-v)).
tau is held at 10 or less, where the published range ends; radii at 0.01 or more; p within 0 and 1.

References:
    G. Grindhammer, S. Peters, arXiv:hep-ex/0001020, appendix (radial profiles, homogeneous and sampling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.simulate.gflash.medium import Medium

__all__ = ["Radial", "radial_profile"]

Array = NDArray[np.float64]

_MAX_TAU, _MIN_RADIUS = 10.0, 0.01


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

    def density(self, r: Array) -> Array:
        """Return f(r)."""
        core, tail = self.core**2, self.tail**2
        inner, outer = core / (r * r + core) ** 2, tail / (r * r + tail) ** 2
        return np.asarray(2.0 * r * (self.share * inner + (1 - self.share) * outer))

    def integral(self, r: Array) -> Array:
        """Return the share of the energy within ``r``."""
        square = r * r
        inner, outer = square / (square + self.core**2), square / (square + self.tail**2)
        return np.asarray(self.share * inner + (1 - self.share) * outer)

    def radius(self, u: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
        """Turn uniform numbers into radii, in the precision of ``u``.

        One number serves twice: it picks the component, and what is left of it is uniform again.

        Arguments:
            u: (m,) in [0, 1).
            index: (m,) which (flattened) profile each number is for.

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
