"""Constants of materials against the Particle Data Group's tables, Geant4's own, and each other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from caloforge.errors import InputError, UnknownNameError
from caloforge.geometry import MATERIALS, get_material, make_material, nist_names

PDG = {  # radiation length, g/cm2, and least loss, MeV cm2/g: Atomic and nuclear properties of materials
    "G4_Be": (65.19, 1.595),
    "G4_Al": (24.01, 1.615),
    "G4_Si": (21.82, 1.664),
    "G4_Fe": (13.84, 1.451),
    "G4_Cu": (12.86, 1.403),
    "G4_Sn": (8.82, 1.263),
    "G4_W": (6.76, 1.145),
    "G4_Pb": (6.37, 1.122),
    "G4_U": (6.00, 1.081),
    "G4_lAr": (19.55, 1.508),
    "G4_lXe": (8.48, 1.255),
    "G4_WATER": (36.08, 1.992),
    "G4_POLYSTYRENE": (43.79, 1.936),
    "G4_PLASTIC_SC_VINYLTOLUENE": (43.90, 1.956),
    "G4_CESIUM_IODIDE": (8.39, 1.243),
    "G4_SODIUM_IODIDE": (9.49, 1.305),
    "G4_BGO": (7.97, 1.251),
    "G4_PbWO4": (7.39, 1.229),
    "G4_SILICON_DIOXIDE": (27.05, 1.699),
}


@pytest.mark.parametrize("name", PDG)
def test_published_constants(name: str) -> None:
    material = get_material(name)
    x0, loss = PDG[name]
    assert material.x0 * material.density / 10 == pytest.approx(x0, rel=3e-3)
    assert material.dedx == pytest.approx(loss, rel=0.02)


@pytest.mark.parametrize("name", [name for name in MATERIALS if name != "G4_Galactic"])
def test_computed_constants_are_the_tabulated_ones(name: str) -> None:
    from caloforge.geometry.materials import _nist_material

    table, computed = MATERIALS[name], _nist_material(name)
    assert computed.x0 == pytest.approx(table.x0, rel=3e-3)
    assert computed.dedx == pytest.approx(table.dedx, rel=0.02)
    assert computed.critical_energy == pytest.approx(table.critical_energy, rel=0.01)
    assert computed.density == pytest.approx(table.density, rel=1e-3)


def test_own_materials_are_geant4s_where_they_are_the_same() -> None:
    for name, density, fractions in (
        ("G4_POLYSTYRENE", 1.06, {"C": 0.92258, "H": 0.07742}),
        ("G4_PbWO4", 8.28, {"O": 0.140637, "W": 0.403998, "Pb": 0.455366}),
        ("G4_STAINLESS-STEEL", 8.0, {"Fe": 0.7462, "Cr": 0.169, "Ni": 0.0848}),
    ):
        own, known = make_material("mine", density, fractions), get_material(name)
        assert own.x0 == pytest.approx(known.x0, rel=1e-3)
        assert own.dedx == pytest.approx(known.dedx, rel=0.02)
        assert own.z == pytest.approx(known.z, rel=1e-3)
        assert sum(fraction for _, fraction in own.elements) == pytest.approx(1.0)


def test_an_argon_gas_loses_what_it_loses() -> None:
    gas = make_material("argon", 1.662e-3, {"Ar": 1.0})
    assert gas.dedx == pytest.approx(1.519, rel=0.01)  # as a liquid 1.508
    assert gas.x0 == pytest.approx(19.55 / 1.662e-3 * 10, rel=1e-3)


@pytest.mark.parametrize(
    ("density", "fractions", "message"),
    [
        (0.0, {"C": 1.0}, "density 0 g/cm3 of material 'mine'"),
        (-1.0, {"C": 1.0}, "density -1 g/cm3"),
        (float("nan"), {"C": 1.0}, "density nan"),
        (1.0, {}, "add up to 0; expected 1"),
        (1.0, {"C": 0.5, "H": 0.4}, "add up to 0.9; expected 1"),
        (1.0, {"C": 1.2, "H": -0.2}, "mass fraction 1.2 of C"),
        (1.0, {"Q": 1.0}, "unknown element 'Q'"),
    ],
)
def test_wrong_materials(density: float, fractions: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_material("mine", density, fractions)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Pb", "G4_Pb"), ("g4_air", "G4_AIR"), ("G4_Pbb", "G4_Pb"), ("steel", "G4_STAINLESS-STEEL")],
)
def test_close_names_are_offered(name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown material '{name}'; did you mean {meant}"):
        get_material(name)


SCRIPT = """
import json, os, sys
from caloforge.simulate.geant4 import export_data, find_data
export_data(find_data())
import geant4_pybind as g4
from caloforge.geometry import get_material, make_material, nist_names
from caloforge.geometry.materials import _nist_material
from caloforge.simulate.geant4.mesh import material_of
nist = g4.G4NistManager.Instance()
found = {name: (nist.FindOrBuildMaterial(name).GetRadlen(), _nist_material(name).x0) for name in nist_names()}
alloy = make_material("alloy", 17.8, {"W": 0.93, "Ni": 0.05, "Cu": 0.02})
made = material_of(alloy)
assert made is material_of(alloy)
found["alloy"] = (made.GetRadlen(), alloy.x0)
found["density"] = (made.GetDensity() / (g4.g / g4.cm3), alloy.density)
print(json.dumps([found, sorted(set(map(str, nist.GetNistMaterialNames())) ^ set(nist_names()))]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.geant4
def test_radiation_lengths_are_geant4s() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found, missing = json.loads(done.stdout.strip().splitlines()[-1])
    assert missing == []
    assert len(found) == len(nist_names()) + 2
    for name, (theirs, ours) in found.items():
        assert ours == pytest.approx(theirs, rel=1e-5), name
