r"""The parametrisation of Grindhammer and Peters: the effective medium of a stack, longitudinal and radial profiles.

The stack is a column of sampling units in radiation lengths. With the mass fractions :math:`w_i` of the materials (thickness times density)::

    Z = sum w_i Z_i        1/X0 = sum w_i/X0_i        Ec = X0 sum w_i Ec_i/X0_i        R_M = 21.2 MeV X0/Ec
    F = X0/(d_active + d_passive)        e = 1 - 1/(1 + 0.007 (Z_passive - Z_active))

X0 in g/cm2 above. 1/F is therefore the depth of one sampling unit in radiation lengths, whatever gaps there
are, and ``e`` is one minus the ratio e/mip, which the paper writes 1 - ê. Everything here is an array over
sampling units, so that a stack whose composition changes with depth keeps its local values.

A sampling unit is an active slab with the passive matter in front of it; gaps between slabs are filled with the
detector's medium. Depths run along z from z = 0; a shower at the angle theta crosses 1/sin(theta) as much.

What a unit makes visible is in :mod:`.response`. Matter behind the last active slab is not there: the slab lacks what would be scattered back from
it. In Geant4 the last slab of a stack that leaks shows less than the same slab of a deep stack, by 21 to 22 % behind tungsten or lead with silicon, 15 to 18 %
with scintillator, 10 % behind copper, 7 % behind iron; here 0.0025 (:data:`ALBEDO`) for each unit of the absorber's atomic number.

Longitudinal profiles fluctuate from shower to shower. With y = E/Ec, L = ln y and t in radiation lengths from the start of the shower::

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
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020; its appendix has the profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector, Material, Slab, active_over_passive, e_over_mip

__all__ = [
    "SCATTERING_ENERGY",
    "TRAIL",
    "Column",
    "Medium",
    "Profile",
    "ProfileLaw",
    "Radial",
    "column_of",
    "effective_medium",
    "profile_law",
    "radial_profile",
]

SCATTERING_ENERGY = 21.2  # MeV, the scale of multiple scattering in the definition of the Moliere radius
ALBEDO = (
    0.0025  # share of the last slab's energy that it lacks, for each unit of the absorber's atomic number
)
TRAIL = 3.0  # X0, how far back the matter still shapes the width of a shower

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Medium:
    """The parameters of the matter that the parametrisation uses; each field an array of one shape, or a number."""

    z: Array  # effective atomic number
    critical_energy: Array  # MeV
    depth: Array  # 1/F, radiation lengths of one sampling unit
    e: Array  # one minus e/mip

    @property
    def columns(self) -> Medium:
        """The same with each field (n,) as (n, 1)."""
        return Medium(self.z[:, None], self.critical_energy[:, None], self.depth[:, None], self.e[:, None])

    def mean(self, weights: Array) -> Medium:
        """Return the average over the last axis, with ``weights`` (..., units) that add up to one."""
        return Medium(
            weights @ self.z, weights @ self.critical_energy, weights @ self.depth, weights @ self.e
        )


def effective_medium(materials: Sequence[Material], thickness: Sequence[float]) -> tuple[float, float, float]:
    """Return Z, X0 (mm) and Ec (MeV) of plates of ``materials``, each ``thickness`` mm."""
    lengths = np.asarray(thickness, np.float64)
    mass = lengths * [material.density for material in materials]
    in_x0 = lengths / [material.x0 for material in materials]
    z = float(mass @ [material.z for material in materials] / mass.sum())
    energy = float(in_x0 @ [material.critical_energy for material in materials] / in_x0.sum())
    return z, float(lengths.sum() / in_x0.sum()), energy


@dataclass(frozen=True)
class Column:
    """Sampling units front to back; every array has one entry a unit (U,)."""

    medium: Medium  # effective medium of each unit
    enter: Array  # depth at which the active slab begins, X0
    leave: Array  # depth at which it ends, X0
    z: Array  # middle of the active slab, mm
    edges: Array  # (U + 1,) boundaries half way between active slabs, mm: the units' ranges in z
    loss_passive: Array  # dE/dx X0 of the matter in front of the active slab, MeV per X0
    loss_active: Array  # the same of the active slab
    response: Array  # r of the active slab, see :func:`caloforge.geometry.active_over_passive`
    moliere_radius: Array  # mm, of the matter over the last few X0 (see :data:`TRAIL`)
    layer: NDArray[np.int64]
    slabs: tuple[Slab, ...]

    def __len__(self) -> int:
        return len(self.z)


def column_of(detector: Detector) -> Column:
    """Return the column of a detector.

    Raises:
        IncompatibleError: When the detector has no stack with active slabs (a mesh of published data).
    """
    if not detector.simulable or not any(slab.active for slab in detector.stack):
        msg = f"detector '{detector.name}' has no stack of slabs, so no showers can be simulated in it"
        raise IncompatibleError(msg)
    return _column(detector.stack, detector.medium)


@lru_cache(maxsize=32)
def _column(stack: tuple[Slab, ...], medium: Material | None) -> Column:
    rows: list[tuple[float, ...]] = []
    z = depth = 0.0
    parts: list[tuple[Material, float]] = []
    for slab in stack:
        if slab.z > z and medium is not None:
            parts.append((medium, slab.z - z))
        z = slab.z + slab.thickness
        if not slab.active:
            parts.append((slab.material, slab.thickness))
            continue
        rows.append(_unit(slab, parts, depth))
        depth = rows[-1][5]
        parts = []
    table = np.array(rows).T
    z_eff, energy, unit_depth, e, enter, leave, loss_passive, loss_active, x0, response, last = table
    response[-1] *= last[-1]
    slabs = tuple(slab for slab in stack if slab.active)
    middle = np.array([slab.z + slab.thickness / 2 for slab in slabs])
    return Column(
        medium=Medium(z_eff, energy, unit_depth, e),
        enter=enter,
        leave=leave,
        z=middle,
        edges=_boundaries(middle),
        loss_passive=loss_passive,
        loss_active=loss_active,
        response=response,
        moliere_radius=_trailing_mean(x0 * SCATTERING_ENERGY / energy, leave, unit_depth),
        layer=np.array([slab.layer for slab in slabs], np.int64),
        slabs=slabs,
    )


def _unit(slab: Slab, parts: list[tuple[Material, float]], start: float) -> tuple[float, ...]:
    """Return one unit's numbers: Z, Ec, 1/F, e, enter, leave, loss before, loss within, X0."""
    active = (slab.material, slab.thickness)
    materials, lengths = zip(*parts, active, strict=True)
    z_eff, x0, energy = effective_medium(materials, lengths)
    before = sum(length / material.x0 for material, length in parts)
    within = slab.thickness / slab.material.x0
    loss_active = slab.material.mip_energy(slab.material.x0)
    loss_passive, e, response, last = loss_active, 0.0, 1.0, 1.0
    if parts:
        passive_z, _, _ = effective_medium(*zip(*parts, strict=True))
        e = 1.0 - e_over_mip(passive_z, slab.material.z)
        loss_passive = sum(material.mip_energy(length) for material, length in parts) / before
        response = active_over_passive(parts, slab.material, slab.thickness)
        last = 1.0 - ALBEDO * passive_z
    enter = start + before
    return (
        *(z_eff, energy, before + within, e, enter, enter + within),
        *(loss_passive, loss_active, x0, response, last),
    )


def _boundaries(z: Array) -> Array:
    """Return the boundaries (U + 1,) half way between active slabs; the outer ones mirror the inner."""
    if len(z) == 1:
        return np.array([z[0] - 1e3, z[0] + 1e3])
    inner = (z[1:] + z[:-1]) / 2
    return np.concatenate([[2 * z[0] - inner[0]], inner, [2 * z[-1] - inner[-1]]])


def _trailing_mean(values: Array, leave: Array, depth: Array) -> Array:
    """Average ``values`` over the matter before each unit's end, with weight exp(-distance / TRAIL)."""
    start = leave - depth
    far = np.clip(leave[:, None] - start[None, :], 0.0, None)
    near = np.clip(leave[:, None] - leave[None, :], 0.0, None)
    weight = np.tril(np.exp(-near / TRAIL) - np.exp(-far / TRAIL))
    return np.asarray(weight @ values / weight.sum(axis=1))


_MIN_T, _MIN_ALPHA, _MAX_SIGMA, _MIN_LOG = 0.3, 1.1, 0.5, 0.5
_MAX_TAU, _MIN_RADIUS = 10.0, 0.01


@dataclass(frozen=True)
class Profile:
    """The profiles of n showers."""

    t_max: Array  # (n,) depth of the maximum, X0
    alpha: Array  # (n,) shape
    # (n,) 1/X0; tau = tau_scale * t, in units of the maximum, is the depth of the radial profiles
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


def profile_law(energy: Array, medium: Medium, split: float = 0.0) -> ProfileLaw:
    """Return the law for showers of ``energy`` (n,) MeV in ``medium`` (fields (n,) or numbers).

    ``split`` is subtracted from ln y in the means of T and a, not in their fluctuations: see :mod:`.response`.
    """
    log_y = np.maximum(np.log(energy / medium.critical_energy), _MIN_LOG)
    t_max = log_y - split - 0.812 - 0.55 * medium.depth - 0.69 * medium.e
    alpha = 0.81 + (0.458 + 2.26 / medium.z) * (log_y - split) - 0.476 * medium.depth
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
    """Radial profiles; every field has one shape, radii in Moliere radii."""

    core: Array
    tail: Array
    share: Array  # share p of the core

    def radius(self, u: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
        """Turn uniform numbers (m,) into radii (m,) in Moliere radii, in their precision; ``index`` (m,) is the profile of each.

        One number serves twice: it picks the component, and what is left of it is uniform again.
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
