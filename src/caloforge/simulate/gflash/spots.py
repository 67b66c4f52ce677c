r"""Spots: the deposits of single charged particles that make up a shower, their spectrum, places and cells.

The visible energy of a unit is a Poisson number of spots. Their spectrum sets
both the hits that a detector sees and its sampling fluctuations: the relative variance is <d^2>/(<d> E_visible), which is the
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

Spots lie at the radii of :mod:`.parametrisation` around the shower axis. The radius is perpendicular to the axis, so a spot of an inclined
shower at an offset b in the plane of inclination lies b/sin(theta) further in y, and b cos(theta)
nearer in z: it may belong to another unit than the point of the axis that it comes from.

References:
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020 (sampling noise, number of spots).
    H. Bichsel, Straggling in thin silicon detectors, Rev. Mod. Phys. 60, 663 (1988).
    J. E. Moyal, Theory of ionization fluctuations, Phil. Mag. 46, 263 (1955).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from caloforge.geometry import Detector, Material, Primaries
from caloforge.simulate.gflash.parametrisation import Column, radial_profile
from caloforge.simulate.gflash.response import Response

__all__ = [
    "SOFT_ENERGY",
    "SOFT_SHARE",
    "SpotSpectrum",
    "Spots",
    "draw_spots",
    "landau",
    "spot_spectrum",
    "to_cells",
]

Float = NDArray[np.float32]
Index = NDArray[np.int64]

SOFT_SHARE = 0.8  # of the spots
SOFT_ENERGY = 0.30  # MeV, mean
_MAX_SECANT = 3.0
_SIZE = 1 << 16  # entries of the table: a spot's energy is one of them, drawn uniformly
_ELECTRON_MASS = 0.510999  # MeV
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class SpotSpectrum:
    """Energies of spots in one slab."""

    table: NDArray[np.float32]  # (65536,) MeV, equally probable values
    mean: float  # MeV
    mean_square: float  # MeV^2

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


@dataclass(frozen=True)
class Spots:
    """Deposits of n showers, one after the other; every field (m,)."""

    shower: Index  # index of the shower, 0 to n
    unit: Index  # sampling unit of the spot, -1 before the first and behind the last
    x: Float  # mm
    y: Float  # mm
    energy: Float  # MeV

    def __len__(self) -> int:
        return len(self.x)


def draw_spots(
    column: Column, response: Response, primaries: Primaries, factor: float, random: np.random.Generator
) -> Spots:
    """Draw the spots of showers: their response, calibrated by ``factor``, from primaries with their angles and energies."""
    n, units = response.visible.shape
    spectra = [spot_spectrum(slab.material, slab.thickness) for slab in column.slabs]
    count = random.poisson(factor * response.visible / [spectrum.mean for spectrum in spectra])
    index = np.repeat(np.arange(n * units), count.ravel())
    m = len(index)
    shower, unit = index // units, index % units
    radial = radial_profile(primaries.energy[:, None], response.tau, response.medium.columns)
    radius = radial.radius(random.random(m, dtype=np.float32), index)
    radius *= column.moliere_radius.astype(np.float32)[unit]
    angle = random.random(m, dtype=np.float32) * np.float32(2 * np.pi)
    across, along = radius * np.cos(angle), radius * np.sin(angle)
    energy = _energies(spectra, unit, random.integers(0, 1 << 16, m, dtype=np.uint16))
    x = primaries.x.astype(np.float32)[shower] + across
    sine, cosine = np.sin(np.radians(primaries.theta)), np.cos(np.radians(primaries.theta))
    cosine[np.abs(cosine) < 1e-12] = 0.0
    if not cosine.any():
        return Spots(shower, unit, x, primaries.y.astype(np.float32)[shower] + along, energy)
    low, high = column.edges[:-1], column.edges[1:]
    z = low[unit] + (high - low)[unit] * random.random(m, dtype=np.float32) - along * cosine[shower]
    unit = np.searchsorted(column.edges, z) - 1
    unit[unit >= units] = -1
    lean = (cosine / sine)[shower]
    y = primaries.y[shower] + column.z[unit] * lean + along / sine[shower]
    return Spots(shower, unit, x, y.astype(np.float32), energy)


def to_cells(
    detector: Detector, column: Column, spots: Spots, n: int, conditions: dict[str, NDArray[Any]]
) -> Float:
    """Sum the spots of ``n`` showers in the detector's cells (n, n_cells), MeV."""
    assert detector.readout is not None
    names = detector.readout.alignment_names
    each = {name: conditions[name][:, 0][spots.shower] for name in names}
    cell = detector.readout.digitise(spots.x, spots.y, column.layer[spots.unit], each)
    inside = (cell >= 0) & (spots.unit >= 0)
    flat = spots.shower[inside] * detector.n_cells + cell[inside]
    sums = np.bincount(flat, spots.energy[inside], n * detector.n_cells)
    cells: Float = sums.reshape(n, detector.n_cells).astype(np.float32)
    return cells


def _energies(spectra: list[SpotSpectrum], unit: Index, pick: NDArray[np.uint16]) -> Float:
    """Return the energies of spots in ``unit`` (m,) from the entries ``pick`` (m,) of their slabs' tables."""
    different = list(dict.fromkeys(spectra))
    if len(different) == 1:
        return different[0].table[pick]
    which = np.array([different.index(spectrum) for spectrum in spectra])
    tables = np.concatenate([spectrum.table for spectrum in different])
    energy: Float = tables[(which[unit] << 16) + pick]
    return energy
