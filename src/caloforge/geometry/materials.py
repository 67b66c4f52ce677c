r"""Materials of calorimeters and their constants in shower theory.

A material is one of Geant4's NIST materials, by its name, or one made of elements and a density (:func:`make_material`). Constants of the
usual ones are those of the Geant4 NIST database and of the Particle Data Group's tables (:data:`MATERIALS`); of all others they are computed
from density, composition and mean excitation energy in ``nist.csv``. Radiation length, with a = Z/137.036 and w the mass fractions::

    1/X0 = sum w_i/X0_i        1/X0_i = {Z^2 [L - f(Z)] + Z L'} / (716.408 g/cm2 A)
    L = ln(184.15 Z^-1/3)      L' = ln(1194 Z^-2/3)        for Z > 4, a table below
    f = a^2 [1/(1+a^2) + 0.20206 - 0.0369 a^2 + 0.0083 a^4 - 0.002 a^6]

Loss of a minimum-ionising particle: the least value of Bethe's formula for muons, with the density effect in the form of Sternheimer and
Peierls. That is up to 2 % above the tables, which have measured parameters of the density effect.

The critical energy and the ratio e/mip follow the parametrisation of Grindhammer and Peters::

    Ec = 2.66 MeV (X0 Z / A)^1.1        e/mip = 1 / (1 + 0.007 (Z_passive - Z_active))        (X0 in g/cm2)

How a contained shower shares its energy among active and passive matter follows Geant4. With the energies m that a minimum-ionising
particle loses in each, the sampling fraction is r m_active/(r m_active + m_passive), and::

    r = exp{-[0.0089 (Z_passive - Z_active) + 0.0036 (rho_passive - rho_active)] (1 - 0.31 s)}        (rho in g/cm3)
    s = (1 - exp(-x/R)) R/x        R = 0.17 g/cm2        x the slab's thickness, g/cm2

Soft photons are absorbed in matter of high Z (first term); secondaries below the production cut stop where they are made, in dense matter the
more (second); and soft electrons from the surfaces of the absorber stop in the first R of the slab (s). The constants are fitted to Geant4
with a production cut of 1 mm, in 46 deep stacks of aluminium to lead with scintillator, silicon and argon; sampling fractions agree to 1.7 % rms,
5.5 % at worst (``python benchmarks/gflash_response.py -o FOLDER --only contained --fit``). The paper's e/mip is up to 20 % above.

References:
    Particle Data Group, Review of Particle Physics, Atomic and nuclear properties of materials (2024); Passage of particles through
    matter, eqs. 34.5 (Bethe), 34.7 (density effect), 34.25 to 34.27 (radiation length).
    Y.-S. Tsai, Pair production and bremsstrahlung of charged leptons, Rev. Mod. Phys. 46, 815 (1974).
    R. M. Sternheimer, R. F. Peierls, General expression for the density effect, Phys. Rev. B 3, 3681 (1971).
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020, section 2.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np

from caloforge.errors import InputError, UnknownNameError

__all__ = [
    "MATERIALS",
    "Element",
    "Material",
    "active_over_passive",
    "e_over_mip",
    "elements",
    "get_material",
    "make_material",
    "nist_names",
]


@dataclass(frozen=True)
class Material:
    """One material."""

    name: str  # Geant4's NIST name, or a name of the user's
    z: float  # atomic number; weighted by mass fraction for compounds
    a: float  # atomic mass, g/mol; weighted by mass fraction for compounds
    density: float  # g/cm3
    x0: float  # radiation length, mm
    dedx: float  # energy loss of a minimum-ionising particle, MeV cm2/g
    # symbols and mass fractions of a material of the user's; empty for those that Geant4 knows by name
    elements: tuple[tuple[str, float], ...] = ()

    @property
    def critical_energy(self) -> float:
        """Critical energy, MeV."""
        return float(2.66 * (self.x0 / 10.0 * self.density * self.z / self.a) ** 1.1)

    def mip_energy(self, thickness: float) -> float:
        """Return the mean loss, MeV, of a minimum-ionising particle over ``thickness`` mm."""
        return self.dedx * self.density * thickness / 10.0


_TABLE = (
    Material("G4_Galactic", 1.0, 1.008, 1e-25, 6.3e27, 4.103),
    Material("G4_AIR", 7.262, 14.55, 1.20479e-3, 303921.0, 1.815),
    Material("G4_Al", 13.0, 26.9815, 2.699, 88.9633, 1.615),
    Material("G4_Si", 14.0, 28.0855, 2.33, 93.6607, 1.664),
    Material("G4_lAr", 18.0, 39.948, 1.396, 140.036, 1.508),
    Material("G4_Fe", 26.0, 55.845, 7.874, 17.5749, 1.451),
    Material("G4_Cu", 29.0, 63.546, 8.96, 14.3558, 1.403),
    Material("G4_W", 74.0, 183.84, 19.3, 3.50418, 1.145),
    Material("G4_Pb", 82.0, 207.2, 11.35, 5.61253, 1.122),
    Material("G4_POLYSTYRENE", 5.613, 11.16, 1.06, 413.1, 1.936),
    Material("G4_PLASTIC_SC_VINYLTOLUENE", 5.575, 11.08, 1.032, 424.5, 1.956),
    Material("G4_PbWO4", 68.36, 170.9, 8.28, 8.924, 1.229),
)

_PER_Z, _PER_DENSITY, _SURFACE, _SURFACE_RANGE = 0.0089, 0.0036, 0.31, 0.17  # 1, cm3/g, 1, g/cm2

MATERIALS: dict[str, Material] = {material.name: material for material in _TABLE}
"""Materials with tabulated constants."""


def e_over_mip(z_passive: float, z_active: float) -> float:
    """Return e/mip of a sampling unit from the atomic numbers of its passive and active matter."""
    return 1.0 / (1.0 + 0.007 * (z_passive - z_active))


def active_over_passive(
    passive: Sequence[tuple[Material, float]], active: Material, thickness: float
) -> float:
    """Return r: a shower's energy in an active slab over that in the passive matter beside it, both in units of a mip's.

    Arguments:
        passive: Its materials, each with its length in mm; without any, r is 1.
        active: Material of the slab.
        thickness: Thickness of the slab, mm.
    """
    mass = sum(material.density * length for material, length in passive)
    if mass == 0.0:
        return 1.0
    mean = sum(material.density * length * _absorption(material) for material, length in passive) / mass
    depth = active.density * thickness / 10.0 / _SURFACE_RANGE
    surface = _SURFACE * -math.expm1(-depth) / depth
    return math.exp((_absorption(active) - mean) * (1.0 - surface))


def _absorption(material: Material) -> float:
    return _PER_Z * material.z + _PER_DENSITY * material.density


@dataclass(frozen=True)
class Element:
    """A chemical element."""

    symbol: str
    z: int  # atomic number
    a: float  # atomic mass, g/mol
    excitation: float  # mean excitation energy, eV

    @property
    def x0(self) -> float:
        """Radiation length, g/cm2."""
        z2 = (self.z / 137.035999) ** 2
        coulomb = z2 * (1.0 / (1.0 + z2) + 0.20206 - 0.0369 * z2 + 0.0083 * z2**2 - 0.002 * z2**3)
        light = {1: (5.31, 6.144), 2: (4.79, 5.621), 3: (4.74, 5.805), 4: (4.71, 5.924)}
        nuclear, electronic = light.get(
            self.z, (math.log(184.15 * self.z ** (-1 / 3)), math.log(1194.0 * self.z ** (-2 / 3)))
        )
        return 716.408 * self.a / (self.z**2 * (nuclear - coulomb) + self.z * electronic)


@cache
def _nist() -> dict[str, tuple[str, float, float, str]]:
    """Return state, density (g/cm3), mean excitation energy (eV) and composition of each NIST material."""
    text = files("caloforge.geometry").joinpath("nist.csv").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    rows = csv.DictReader(lines, delimiter=";")
    return {
        row["name"]: (
            row["state"],
            float(row["density_g_cm3"]),
            float(row["excitation_ev"]),
            row["composition"],
        )
        for row in rows
    }


@cache
def elements() -> dict[str, Element]:
    """Return the elements by their symbols."""
    found = {}
    for name, (_, _, excitation, composition) in _nist().items():
        if ":" not in composition:
            z, a = composition.split()
            symbol = name.removeprefix("G4_")
            found[symbol] = Element(symbol, int(z), float(a), excitation)
    return found


def nist_names() -> tuple[str, ...]:
    """Return the names of Geant4's NIST materials."""
    return tuple(_nist())


def make_material(name: str, density: float, fractions: Mapping[str, float]) -> Material:
    """Return a material of elements.

    Arguments:
        name: Its name.
        density: g/cm3; below 0.01 it is a gas, as in Geant4.
        fractions: Mass fractions by the symbols of the elements, which add up to one.

    Raises:
        UnknownNameError: When there is no such element.
        InputError: When density or fractions are out of range.
    """
    if not 0.0 < density < math.inf:
        raise InputError(
            f"density {density:g} g/cm3 of material '{name}' is out of range: expected more than 0"
        )
    for symbol, fraction in fractions.items():
        if symbol not in elements():
            raise UnknownNameError("element", symbol, list(elements()))
        if not 0.0 < fraction <= 1.0:
            msg = f"mass fraction {fraction:g} of {symbol} in material '{name}' is out of range: expected 0 to 1"
            raise InputError(msg)
    total = sum(fractions.values())
    if abs(total - 1.0) > _SUM:
        msg = f"mass fractions of material '{name}' add up to {total:.6g}; expected 1"
        raise InputError(msg)
    shares = {symbol: fraction / total for symbol, fraction in fractions.items()}
    electrons = {
        symbol: share * elements()[symbol].z / elements()[symbol].a for symbol, share in shares.items()
    }
    logarithm = sum(share * math.log(elements()[symbol].excitation) for symbol, share in electrons.items())
    excitation = math.exp(logarithm / sum(electrons.values()))
    made = _computed(name, "gas" if density < _GAS else "solid", density, excitation, shares)
    return replace(made, elements=tuple(shares.items()))


_SUM = 1e-3  # by which mass fractions may miss one
_GAS = 0.01  # g/cm3, the density below which Geant4 takes matter for a gas


def _computed(
    name: str, state: str, density: float, excitation: float, fractions: Mapping[str, float]
) -> Material:
    parts = [(elements()[symbol], fraction) for symbol, fraction in fractions.items()]
    z = sum(fraction * element.z for element, fraction in parts)
    a = sum(fraction * element.a for element, fraction in parts)
    ratio = sum(fraction * element.z / element.a for element, fraction in parts)
    x0 = 10.0 / density / sum(fraction / element.x0 for element, fraction in parts)
    return Material(name, z, a, density, x0, _least_loss(density, ratio, excitation, state == "gas"))


def _least_loss(density: float, ratio: float, excitation: float, gas: bool) -> float:
    """Return the least loss of a muon, MeV cm2/g, in matter of a density (g/cm3), mean Z/A and mean excitation energy (eV)."""
    electron, muon = 0.51099895, 105.6583755  # MeV
    momentum = np.logspace(0.2, 2.0, 500)  # beta gamma
    beta2, gamma = momentum**2 / (1.0 + momentum**2), np.sqrt(1.0 + momentum**2)
    most = 2.0 * electron * momentum**2 / (1.0 + 2.0 * gamma * electron / muon + (electron / muon) ** 2)
    c = 2.0 * math.log(excitation / (28.816 * math.sqrt(density * ratio))) + 1.0
    start, end = _density_effect(c, excitation, gas)
    x = np.log10(momentum)
    slope = (c - 4.606 * start) / (end - start) ** 3
    effect = np.where(x < start, 0.0, 4.606 * x - c + slope * np.clip(end - x, 0.0, None) ** 3)
    logarithm = np.log(2.0 * electron * momentum**2 * most / (excitation * 1e-6) ** 2)
    loss = 0.307075 * ratio / beta2 * (0.5 * logarithm - beta2 - 0.5 * effect)
    return float(loss.min())


def _density_effect(c: float, excitation: float, gas: bool) -> tuple[float, float]:
    """Return where the density effect starts and where it is complete, log10 of beta gamma."""
    if gas:
        limits = ((10.0, 1.6), (10.5, 1.7), (11.0, 1.8), (11.5, 1.9), (13.804, 2.0))
        start = next((value for limit, value in limits if c < limit), 0.326 * c - 2.5)
        return start, 4.0 if c < 12.25 else 5.0
    if excitation < 100.0:
        return (0.2 if c < 3.681 else 0.326 * c - 1.0), 2.0
    return (0.2 if c < 5.215 else 0.326 * c - 1.5), 3.0


@cache
def _nist_material(name: str) -> Material:
    state, density, excitation, composition = _nist()[name]
    if ":" in composition:
        pairs = (part.split(":") for part in composition.split())
        fractions = {symbol: float(fraction) for symbol, fraction in pairs}
    else:
        fractions = {name.removeprefix("G4_"): 1.0}
    return _computed(name, state, density, excitation, fractions)


def get_material(name: str, own: Mapping[str, Material] | None = None) -> Material:
    """Return a material by its Geant4 name, or one of the user's ``own`` by theirs.

    Raises:
        UnknownNameError: When there is none of that name; names close ones.
    """
    if own and name in own:
        return own[name]
    if name in MATERIALS:
        return MATERIALS[name]
    if name in _nist():
        return _nist_material(name)
    known = ["Geant4's NIST names such as G4_Pb", *(own or ())]
    raise UnknownNameError("material", name, known, _close(name, [*_nist(), *(own or ())]))


def _close(name: str, known: Sequence[str]) -> list[str]:
    """Return up to three names like ``name``, or the one that differs in the prefix and capitals alone."""
    short = {one.removeprefix("G4_").lower(): one for one in known}
    word = name.removeprefix("G4_").lower()[:60]
    if word in short:
        return [short[word]]
    within = [one for one in short if len(word) > 3 and word in one]
    return [short[one] for one in (within + difflib.get_close_matches(word, list(short)))[:3]]
