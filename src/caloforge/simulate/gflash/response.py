r"""The response to a shower: what each sampling unit shows in the mean, spots that fluctuate about it, and cells.

Of what a shower deposits, each unit shows its share of active matter. With the number of charged particles N proportional to
the profile f at depth t (in X0), and their ``loss = dE/dx X0`` per radiation length, a property of the material::

    E_inside = E integral_stack(f dt)
    N = E_inside f / integral_stack(f loss dt)          E_visible = k r loss_active integral_active(N dt)

where loss is r loss_active in active slabs, and r is :func:`caloforge.geometry.active_over_passive`. So what leaks behind the stack
is lost to it, and what is inside is shared among its materials, also behind a change of absorber or behind light matter upstream,
which the paper leaves open. In a uniform calorimeter that contains the shower the response is the sampling fraction
E r m_active/(r m_active + m_passive), with the energies m that a minimum-ionising particle loses. The factor k is
:func:`caloforge.simulate.gflash.containment.calibration`.

Depths. The published mean of T falls by 0.55/F, for most part because the paper puts the energy of a unit at the unit's middle,
while its active slab stands at the end. Here slabs stand where they are, so that the profile is read half a unit in front of them; at an
angle, units are 1/sin(theta) as deep for it (the radial profiles keep the depth at right angles, with which Geant4's hits agree better). The mean depths of Geant4's electron showers, in units of 0.1 to 2 X0 of aluminium to lead, then
are those of the published profile to 0.1 X0 rms, 0.34 X0 at most, without a constant of ours (``benchmarks/gflash_response.py --only contained``).

First interaction. The paper's profiles are those of electrons. A photon first travels an exponential of mean 9/7 X0, then it is a pair that shares
its energy as x and 1-x. The mean depth grows with ln E, so that the pair's showers lie less deep by ``-<x ln x + (1-x) ln(1-x)> = 1/2``
for uniform x. An electron radiates its first hard photon after an exponential of mean 0.3 X0, and the showers that follow lie less
deep by the same 0.3 X0: the paper's mean, but with the fluctuation of the start, which the spread of the mean depths above 20 GeV and of the response of
thin calorimeters in Geant4 calls for. This 0.3 is a choice of ours.

Spots. The visible energy of a unit is a Poisson number of spots. Their spectrum sets
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

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from caloforge.errors import UnknownNameError
from caloforge.geometry import Detector, Material, Primaries
from caloforge.simulate.gflash.parametrisation import Column, Medium, Profile, profile_law, radial_profile

__all__ = [
    "SOFT_ENERGY",
    "SOFT_SHARE",
    "SPLIT",
    "START_DEPTH",
    "Response",
    "SpotSpectrum",
    "Spots",
    "develop",
    "draw_spots",
    "landau",
    "spot_spectrum",
    "to_cells",
]

Array = NDArray[np.float64]
Float = NDArray[np.float32]
Index = NDArray[np.int64]

START_DEPTH = {"gamma": 9.0 / 7.0, "e-": 0.3, "e+": 0.3}  # mean depth, X0, of the first interaction
SPLIT = {"gamma": 0.5, "e-": 0.3, "e+": 0.3}  # ln of its energy over that of the showers that follow
SOFT_SHARE = 0.8  # of the spots
SOFT_ENERGY = 0.30  # MeV, mean
_MAX_SECANT = 3.0
_SIZE = 1 << 16  # entries of the table: a spot's energy is one of them, drawn uniformly
_MOST_SPOTS = 1 << 22  # at once; some 110 bytes each
_ELECTRON_MASS = 0.510999  # MeV
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Response:
    """Showers before their spots are drawn."""

    visible: Array  # (n, U) mean visible energy of each unit, MeV, before calibration
    inside: Array  # (n,) share of the energy that does not leak behind the stack
    tau: Array  # (n, U) depth of each active slab in units of the shower's maximum
    medium: Medium  # the shower's, fields (n,); its units are as deep as at right angles
    profile: Profile
    start: Array  # (n,) depth of the first interaction, X0 along the axis


def develop(
    column: Column, particle: str, energy: Array, theta: Array, normal: Array, exponential: Array
) -> Response:
    """Return the mean response of showers drawn with these random numbers.

    Arguments:
        particle: "gamma", "e-" or "e+".
        energy: (n,) MeV.
        theta: (n,) degrees.
        normal: (n, 2) standard normal numbers.
        exponential: (n,) exponential numbers of mean one.

    Raises:
        UnknownNameError: For another particle.
    """
    if particle not in START_DEPTH:
        kind = "particle of an electromagnetic shower"
        raise UnknownNameError(kind, particle, list(START_DEPTH))
    slant = 1.0 / np.sin(np.radians(theta))
    medium = _medium_along(column, energy)
    unit = slant * medium.depth
    profile = profile_law(energy, replace(medium, depth=unit), SPLIT[particle]).draw(normal)
    start = START_DEPTH[particle] * exponential
    depth = np.stack([column.enter, column.leave], axis=1).ravel()  # alternating, (2 U,)
    t = slant[:, None] * depth - (start + unit / 2)[:, None]
    reached = profile.integral(t)
    share = np.diff(reached, axis=1, prepend=0.0)
    before, within = share[:, 0::2], share[:, 1::2]
    inside = reached[:, -1]
    loss_active = column.response * column.loss_active
    loss = before @ column.loss_passive + within @ loss_active
    visible = (energy * inside / np.where(loss > 0, loss, 1.0))[:, None] * loss_active * within
    middle = np.maximum((t[:, 0::2] + t[:, 1::2]) / 2, 0.0)
    return Response(visible, inside, profile.tau_scale[:, None] * middle, medium, profile, start)


def _medium_along(column: Column, energy: Array) -> Medium:
    """Return the medium of each shower: the column's, weighted by the typical profile at its energy."""
    weights = np.broadcast_to(column.medium.depth / column.medium.depth.sum(), (len(energy), len(column)))
    whole = column.medium.mean(weights)
    typical = profile_law(energy, whole).draw(np.zeros((len(energy), 2)))
    edges = np.concatenate([[0.0], column.leave])
    share = np.diff(typical.integral(np.broadcast_to(edges, (len(energy), len(edges)))), axis=1)
    share = share + 1e-9 * weights  # for a stack that ends before the shower has begun
    return column.medium.mean(share / share.sum(axis=1, keepdims=True))


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
) -> Iterator[Spots]:
    """Draw the spots of showers: their response, calibrated by ``factor``, from primaries with their angles and energies.

    They come in one part, or, where there are more than 4 million, as many as 16 showers of some TeV have, in several, so that memory does not
    grow with the energy. The random numbers of a part follow those of the part before.
    """
    spectra = [spot_spectrum(slab.material, slab.thickness) for slab in column.slabs]
    count = random.poisson(factor * response.visible / [spectrum.mean for spectrum in spectra])
    ends = np.concatenate([[0], np.cumsum(count.ravel())])
    for start in range(0, max(1, int(ends[-1])), _MOST_SPOTS):
        some = np.diff(np.clip(ends, start, start + _MOST_SPOTS))
        yield _spots(column, response, primaries, np.repeat(np.arange(count.size), some), random, spectra)


def _spots(
    column: Column,
    response: Response,
    primaries: Primaries,
    index: Index,
    random: np.random.Generator,
    spectra: list[SpotSpectrum],
) -> Spots:
    """Draw spots of the sampling units ``index`` (m,), counted through all showers."""
    units, m = response.visible.shape[1], len(index)
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
    """Sum some spots of ``n`` showers in the detector's cells (n, n_cells), MeV as they are stored."""
    assert detector.readout is not None
    names = detector.readout.alignment_names
    each = {name: conditions[name][:, 0][spots.shower] for name in names}
    cell = detector.readout.digitise(spots.x, spots.y, column.layer[spots.unit], each)
    inside = (cell >= 0) & (spots.unit >= 0)
    flat = spots.shower[inside] * detector.n_cells + cell[inside]
    sums = np.bincount(flat, spots.energy[inside], n * detector.n_cells)
    stored = detector.readout.energy_scale * sums
    cells: Float = stored.reshape(n, detector.n_cells).astype(np.float32)
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
