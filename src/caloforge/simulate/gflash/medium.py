r"""The effective medium of a sampling calorimeter.

With the mass fractions :math:`w_i` of the materials (thickness times density)::

    Z = sum w_i Z_i        1/X0 = sum w_i/X0_i        Ec = X0 sum w_i Ec_i/X0_i        R_M = 21.2 MeV X0/Ec
    F = X0/(d_active + d_passive)        e = 1 - 1/(1 + 0.007 (Z_passive - Z_active))

X0 in g/cm2 above. 1/F is therefore the depth of one sampling unit in radiation lengths, whatever gaps there
are, and ``e`` is one minus the ratio e/mip, which the paper writes 1 - ê. Everything here is an array over
sampling units, so that a stack whose composition changes with depth keeps its local values.

References:
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Material

__all__ = ["SCATTERING_ENERGY", "Medium", "effective_medium", "one_minus_e_mip"]

SCATTERING_ENERGY = 21.2  # MeV, the scale of multiple scattering in the definition of the Moliere radius

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Medium:
    """What the parametrisation needs to know of the matter; each field an array of one shape, or a number.

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


def one_minus_e_mip(z_passive: float, z_active: float) -> float:
    """Return 1 - e/mip of one sampling unit from its mean atomic numbers."""
    return 1.0 - 1.0 / (1.0 + 0.007 * (z_passive - z_active))


def effective_medium(materials: Sequence[Material], thickness: Sequence[float]) -> tuple[float, float, float]:
    """Return Z, X0 (mm) and Ec (MeV) of plates of ``materials``, each ``thickness`` mm."""
    lengths = np.asarray(thickness, np.float64)
    mass = lengths * [material.density for material in materials]
    in_x0 = lengths / [material.x0 for material in materials]
    z = float(mass @ [material.z for material in materials] / mass.sum())
    energy = float(in_x0 @ [material.critical_energy for material in materials] / in_x0.sum())
    return z, float(lengths.sum() / in_x0.sum()), energy
