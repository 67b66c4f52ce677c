import numpy as np
import pytest

from caloforge.geometry import get_material
from caloforge.simulate.gflash.column import Medium, effective_medium, one_minus_e_mip


def test_one_material_is_its_own_effective_medium():
    lead = get_material("G4_Pb")
    z, x0, energy = effective_medium([lead, lead], [1.0, 3.0])
    assert (z, x0, energy) == pytest.approx((lead.z, lead.x0, lead.critical_energy))


def test_effective_medium_follows_the_mass_fractions_of_the_paper():
    parts = [(get_material("G4_W"), 2.1), (get_material("G4_Si"), 0.525)]
    mass = sum(material.density * length for material, length in parts)
    z = inverse_x0 = energy = 0.0
    for material, length in parts:
        share = material.density * length / mass
        x0 = material.x0 / 10 * material.density  # g/cm2
        z += share * material.z
        inverse_x0 += share / x0
        energy += share * material.critical_energy / x0
    density = mass / sum(length for _, length in parts)
    expected = (z, 10 / (inverse_x0 * density), energy / inverse_x0)
    assert effective_medium(*zip(*parts, strict=True)) == pytest.approx(expected)


def test_gaps_dilute_the_medium_but_hardly_change_its_composition():
    tungsten, air = get_material("G4_W"), get_material("G4_AIR")
    z, x0, energy = effective_medium([tungsten, air], [2.0, 2.0])
    assert z == pytest.approx(tungsten.z, rel=1e-3)
    assert energy == pytest.approx(tungsten.critical_energy, rel=1e-3)
    assert x0 == pytest.approx(2 * tungsten.x0, rel=1e-3)


def test_e_mip_is_one_for_equal_materials_and_below_for_heavy_absorbers():
    assert one_minus_e_mip(18.0, 18.0) == 0.0
    assert one_minus_e_mip(82.0, 18.0) == pytest.approx(1 - 1 / 1.448)


def test_mean_weights_every_field():
    medium = Medium(*(np.array([1.0, 3.0]) * scale for scale in (1, 2, 3, 4)))
    mean = medium.mean(np.array([[0.5, 0.5], [1.0, 0.0]]))
    np.testing.assert_allclose(mean.z, [2, 1])
    np.testing.assert_allclose(mean.critical_energy, [4, 2])
    np.testing.assert_allclose(mean.columns.e, [[8], [4]])
