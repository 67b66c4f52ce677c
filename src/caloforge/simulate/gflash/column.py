r"""The detector's stack as a shower sees it: a column of sampling units in radiation lengths, and their effective medium.

With the mass fractions :math:`w_i` of the materials (thickness times density)::

    Z = sum w_i Z_i        1/X0 = sum w_i/X0_i        Ec = X0 sum w_i Ec_i/X0_i        R_M = 21.2 MeV X0/Ec
    F = X0/(d_active + d_passive)        e = 1 - 1/(1 + 0.007 (Z_passive - Z_active))

X0 in g/cm2 above. 1/F is therefore the depth of one sampling unit in radiation lengths, whatever gaps there
are, and ``e`` is one minus the ratio e/mip, which the paper writes 1 - ê. Everything here is an array over
sampling units, so that a stack whose composition changes with depth keeps its local values.

A sampling unit is an active slab with the passive matter in front of it; gaps between slabs are filled with the
detector's medium. Depths run along z from z = 0; a shower at the angle theta crosses 1/sin(theta) as much.

What a unit makes visible follows from one quantity, the number of charged particles N at depth t (in X0).
Each loses ``loss = dE/dx X0`` per radiation length, a property of the material. So in a stack of many
materials::

    N(t) = E f(t) / integral(f loss dt)        E_visible = k (e/mip) loss_active integral_active(N dt)

with the profile f of the parametrisation. In a uniform sampling calorimeter this is the paper's E (e/mip)
times the mip's share; behind a change of absorber, or behind light matter upstream, it is the local
sampling fraction that the paper leaves open. The factor k (of order one) is :func:`caloforge.simulate.gflash.calibration`.

References:
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector, Material, Slab, e_over_mip

__all__ = [
    "SCATTERING_ENERGY",
    "TRAIL",
    "Column",
    "Medium",
    "column_of",
    "effective_medium",
]


SCATTERING_ENERGY = 21.2  # MeV, the scale of multiple scattering in the definition of the Moliere radius
TRAIL = 3.0  # X0, how far back the matter still shapes the width of a shower

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Medium:
    """The parameters of the matter that the parametrisation uses; each field an array of one shape, or a number.

    Arguments:
        z: Effective atomic number.
        critical_energy: MeV.
        depth: 1/F, radiation lengths of one sampling unit.
        e: One minus e/mip.
    """

    z: Array
    critical_energy: Array
    depth: Array
    e: Array

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
    """Sampling units front to back; every array has one entry a unit (U,).

    Arguments:
        medium: Effective medium of each unit.
        enter: Depth at which the active slab begins, X0.
        leave: Depth at which it ends, X0.
        z: Middle of the active slab, mm.
        edges: (U + 1,) boundaries half way between active slabs, mm: the units' ranges in z.
        loss_passive: dE/dx X0 of the matter in front of the active slab, MeV per X0.
        loss_active: The same of the active slab.
        e_mip: e/mip of the unit.
        moliere_radius: mm, of the matter over the last few X0 (see :data:`TRAIL`).
        layer: Readout layer.
        slabs: The active slabs.
    """

    medium: Medium
    enter: Array
    leave: Array
    z: Array
    edges: Array
    loss_passive: Array
    loss_active: Array
    e_mip: Array
    moliere_radius: Array
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
    z_eff, energy, unit_depth, e, enter, leave, loss_passive, loss_active, x0 = table
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
        e_mip=1.0 - e,
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
    loss_passive, e = loss_active, 0.0
    if parts:
        passive_z, _, _ = effective_medium(*zip(*parts, strict=True))
        e = 1.0 - e_over_mip(passive_z, slab.material.z)
        loss_passive = sum(material.mip_energy(length) for material, length in parts) / before
    enter = start + before
    return z_eff, energy, before + within, e, enter, enter + within, loss_passive, loss_active, x0


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
