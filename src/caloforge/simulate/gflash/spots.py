r"""What one spot leaves in an active slab: the deposits of single charged particles.

The visible energy of a unit is a Poisson number of such deposits, so their spectrum sets both the hits that
a detector sees and its sampling fluctuations: the relative variance is <d^2>/(<d> E_visible), which is the
paper's sampling noise Gamma(E/c^2, 1/c^2) with c^2 = <d^2>/(<d> S), S the sampling fraction. The paper
takes c from the detector; here it follows from the slab. Two kinds of particle make spots:

- Electrons that cross the slab. Their loss is Landau's, in Moyal's form, with xi and the most probable value
  from the slab's thickness x, Z/A and plasma energy w (density effect complete)::

      xi = 0.1536 MeV (Z/A) x[g/cm2]      d = xi [ln(2 m_e xi / w^2) + 0.2]      w = 28.8 eV sqrt(rho Z/A)

  times 1/cos of an angle that is isotropic in flux (cos^2 uniform) up to 1/cos = 3.
- Soft electrons that stop, mostly from Compton scattering and the photoelectric effect: exponential, with a
  mean of 0.3 MeV.

That four spots in five are soft, their mean and the largest 1/cos are choices: they describe the cell
spectra of Geant4 in half a millimetre of silicon, and serve for every slab and detector.

References:
    G. Grindhammer, S. Peters, arXiv:hep-ex/0001020 (sampling noise, number of spots).
    H. Bichsel, Straggling in thin silicon detectors, Rev. Mod. Phys. 60, 663 (1988).
    J. E. Moyal, Theory of ionization fluctuations, Phil. Mag. 46, 263 (1955).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from caloforge.geometry import Material

__all__ = ["SOFT_ENERGY", "SOFT_SHARE", "SpotSpectrum", "landau", "spot_spectrum"]

SOFT_SHARE = 0.8  # of the spots
SOFT_ENERGY = 0.30  # MeV, mean
_MAX_SECANT = 3.0
_SIZE = 1 << 16  # entries of the table: a spot's energy is one of them, drawn uniformly
_ELECTRON_MASS = 0.510999  # MeV
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class SpotSpectrum:
    """Energies of spots in one slab.

    Arguments:
        table: (65536,) MeV, equally probable values.
        mean: MeV.
        mean_square: MeV^2.
    """

    table: NDArray[np.float32]
    mean: float
    mean_square: float

    @property
    def noise(self) -> float:
        """<d^2>/<d>, MeV: the variance of the visible energy over its mean."""
        return self.mean_square / self.mean


def landau(material: Material, thickness: float) -> tuple[float, float]:
    """Return the most probable loss and xi, MeV, of a relativistic electron in ``thickness`` mm."""
    ratio = material.z / material.a
    xi = 0.1536 * ratio * material.density * thickness / 10.0
    plasma = 28.816e-6 * np.sqrt(material.density * ratio)
    return float(max(xi * (np.log(2.0 * _ELECTRON_MASS * xi / plasma**2) + 0.2), xi)), float(xi)


@lru_cache(maxsize=64)
def spot_spectrum(material: Material, thickness: float) -> SpotSpectrum:
    """Return the spectrum of spots in a slab of ``thickness`` mm."""
    peak, xi = landau(material, thickness)
    n_soft = round(SOFT_SHARE * _SIZE)
    soft = -SOFT_ENERGY * np.log1p(-(np.arange(n_soft) + 0.5) / n_soft)
    n_through = _SIZE - n_soft
    u = (np.arange(n_through) + 0.5) / n_through
    v = (np.arange(n_through) * _GOLDEN + 0.5) % 1.0  # evenly spread in the square together with u
    lowest = 1.0 / _MAX_SECANT**2
    secant = 1.0 / np.sqrt(lowest + (1.0 - lowest) * u)
    moyal = -2.0 * np.log(np.abs(ndtri(0.5 * v + 1e-12)))  # -ln g^2 with g Gaussian
    through = secant * np.maximum(peak + xi * moyal, 0.0)
    table = np.concatenate([soft, through])
    return SpotSpectrum(table.astype(np.float32), float(table.mean()), float((table**2).mean()))
