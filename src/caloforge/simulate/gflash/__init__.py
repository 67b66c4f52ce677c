r"""Parametrised electromagnetic showers after Grindhammer and Peters: an effective-medium shower for each Geant4 one.

From the stack and the profiles of :mod:`.parametrisation` follow the mean response of each sampling unit, spots that fluctuate about it,
and cells. Showers are made in blocks at fixed places, each with its own stream of random numbers: shower i is the
same whatever the chunks, workers or restarts.

This is the one place where a detector's sampling fraction enters: the response follows from energy losses and e/mip, and a factor k
of order one scales the mean visible over the mean incident energy, in the detector's default beam and with its leakage, to the
detector's ``sampling_fraction``; it is the same for all energies, angles and particles. Longitudinal leakage is averaged over
antithetic random profiles, lateral leakage over spots.

Where a shower starts: a photon converts after an exponential of mean 9/7 X0. An electron radiates its first
hard photon after an exponential of mean 1/2 X0; the paper starts it at the surface, and Geant4's electron
showers in tungsten and silicon then lie a third of a radiation length deeper than the parametrisation's.
This is the one number here that is not the paper's; its profile constants stay as published. The medium of a shower is the
stack's, averaged over the typical profile at its energy, so that matter upstream and a change of absorber count by the
part of the shower in them.

The visible energy of a unit is a Poisson number of spots, the deposits of single charged particles. Their spectrum sets
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

from caloforge.errors import UnknownNameError
from caloforge.geometry import Beam, Detector, Material, Primaries
from caloforge.random import generator
from caloforge.showers import Showers
from caloforge.simulate.gflash.parametrisation import (
    Column,
    Medium,
    Profile,
    column_of,
    profile_law,
    radial_profile,
)

__all__ = [
    "BLOCK",
    "SOFT_ENERGY",
    "SOFT_SHARE",
    "START_DEPTH",
    "GFlashEngine",
    "Response",
    "SpotSpectrum",
    "Spots",
    "calibration",
    "develop",
    "draw_spots",
    "landau",
    "spot_spectrum",
    "to_cells",
]


Array = NDArray[np.float64]
Float = NDArray[np.float32]
Index = NDArray[np.int64]

START_DEPTH = {"gamma": 9.0 / 7.0, "e-": 0.5, "e+": 0.5}  # mean depth, X0, at which a shower starts
SOFT_SHARE = 0.8  # of the spots
SOFT_ENERGY = 0.30  # MeV, mean
_MAX_SECANT = 3.0
_SIZE = 1 << 16  # entries of the table: a spot's energy is one of them, drawn uniformly
_ELECTRON_MASS = 0.510999  # MeV
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Response:
    """Showers before their spots are drawn."""

    visible: Array  # (n, U) mean visible energy of each unit, MeV, before calibration
    tau: Array  # (n, U) depth of each active slab in units of the shower's maximum
    medium: Medium  # what the profiles were drawn for, fields (n,)
    profile: Profile
    start: Array  # (n,) depth at which the showers start, X0 along the axis


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
    medium = _medium_along(column, energy)
    profile = profile_law(energy, medium).draw(normal)
    start = START_DEPTH[particle] * exponential
    slant = 1.0 / np.sin(np.radians(theta))
    depth = np.stack([column.enter, column.leave], axis=1).ravel()  # alternating, (2 U,)
    t = slant[:, None] * depth - start[:, None]
    reached = profile.integral(t)
    share = np.diff(reached, axis=1, prepend=0.0)
    before, within = share[:, 0::2], share[:, 1::2]
    beyond = 1.0 - reached[:, -1]
    loss = before @ column.loss_passive + within @ column.loss_active + beyond * column.loss_passive[-1]
    visible = (energy / loss)[:, None] * (column.e_mip * column.loss_active) * within
    middle = np.maximum((t[:, 0::2] + t[:, 1::2]) / 2, 0.0)
    return Response(visible, profile.tau_scale[:, None] * middle, medium, profile, start)


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


BLOCK = 16  # showers that share a stream of random numbers
_CHUNK_BYTES = 64 << 20
_PROFILES = 2048  # showers for the longitudinal average
_LATERAL = 64  # of which spots are drawn


@lru_cache(maxsize=32)
def _calibration(key: tuple[object, ...], detector: Detector) -> float:
    column, beam = column_of(detector), detector.beam
    random = generator(0, "gflash calibration")
    primaries = beam.sample(0, 0, _PROFILES)
    half = random.standard_normal((_PROFILES // 2, 2))
    depth = random.random(_PROFILES // 2)
    normal = np.concatenate([half, -half])
    exponential = -np.log1p(-np.concatenate([depth, np.nextafter(1.0 - depth, 0.0)]))
    energy = primaries.energy
    response = develop(column, beam.particle, energy, primaries.theta, normal, exponential)
    factor = float(detector.sampling_fraction * energy.sum() / response.visible.sum())
    some = beam.sample(0, 0, _LATERAL)
    few = develop(column, beam.particle, some.energy, some.theta, normal[:_LATERAL], exponential[:_LATERAL])
    spots = draw_spots(column, few, some, factor, random)
    contained = to_cells(detector, column, spots, _LATERAL, some.conditions).sum(dtype=np.float64)
    return factor * float(spots.energy.sum(dtype=np.float64) / contained)


def calibration(detector: Detector) -> float:
    """Return the factor k of a detector."""
    key = (detector.stack, detector.readout, detector.beam, detector.sampling_fraction)
    return _calibration(key, detector)


class GFlashEngine:
    """Grindhammer-Peters showers for photons, electrons and positrons at any angle."""

    name = "gflash"

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return the number of showers of a chunk: whole blocks, at most 64 MiB of cells."""
        return max(1, min(64, _CHUNK_BYTES // (4 * detector.n_cells * BLOCK))) * BLOCK

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` of the ``seed``.

        Raises:
            IncompatibleError: When the detector has no stack.
            UnknownNameError: When the beam's particle makes no electromagnetic shower.
        """
        primaries = beam.sample(seed, start, n)
        first, last = start // BLOCK, -(-(start + n) // BLOCK)
        blocks = [_block(detector, beam, seed, number) for number in range(first, last)]
        cells = np.concatenate(blocks) if blocks else np.zeros((0, detector.n_cells), np.float32)
        skip = start - first * BLOCK
        return Showers(
            detector=detector,
            cells=cells[skip : skip + n],
            incident_energy=primaries.energy,
            incident_theta=primaries.theta,
            conditions=primaries.conditions,
            particle=beam.particle,
            source=self.name,
            seed=seed,
            attributes=self.attributes(),
        )

    def attributes(self) -> dict[str, str]:
        """Return what a file records about how its showers were made."""
        return {"parametrisation": "Grindhammer-Peters, arXiv:hep-ex/0001020"}


def _block(detector: Detector, beam: Beam, seed: int, number: int) -> NDArray[np.float32]:
    """Return the cells (BLOCK, n_cells) of one block."""
    column, factor = column_of(detector), calibration(detector)
    primaries = beam.sample(seed, number * BLOCK, BLOCK)
    random = generator(seed, "gflash", number)
    normal, exponential = random.standard_normal((BLOCK, 2)), random.standard_exponential(BLOCK)
    response = develop(column, beam.particle, primaries.energy, primaries.theta, normal, exponential)
    spots = draw_spots(column, response, primaries, factor, random)
    return to_cells(detector, column, spots, BLOCK, primaries.conditions)
