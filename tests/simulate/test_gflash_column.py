"""The stack as a shower sees it: sampling units, their effective medium, depths and losses."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.errors import IncompatibleError
from caloforge.geometry import e_over_mip, get_detector, get_material
from caloforge.simulate.gflash.column import Medium, column_of, effective_medium

SIMULABLE = ["ild-ecal", "ild-ecal-angled", "clic-ecal", "clic-ecal-wide", "atlas-em-barrel"]


@pytest.mark.parametrize("name", SIMULABLE)
def test_column_covers_the_active_slabs_in_order(name):
    detector = get_detector(name)
    column = column_of(detector)
    active = [slab for slab in detector.stack if slab.active]
    assert len(column) == len(active)
    assert column.layer.tolist() == [slab.layer for slab in active]
    np.testing.assert_allclose(column.leave - column.enter, [s.thickness / s.material.x0 for s in active])
    assert (np.diff(np.stack([column.enter, column.leave], 1).ravel()) > 0).all()
    assert ((column.edges[:-1] < column.z) & (column.z < column.edges[1:])).all()
    assert column.leave[-1] == pytest.approx(detector.depth_x0, rel=0.01)


def test_depth_is_the_sum_over_all_matter_in_front_gaps_included():
    detector = get_detector("atlas-em-barrel")
    column = column_of(detector)
    argon = detector.medium
    for unit in (0, 1, 5, 40):
        slab = column.slabs[unit]
        before = [other for other in detector.stack if other.z < slab.z]
        depth = sum(other.thickness / other.material.x0 for other in before)
        gap = slab.z - sum(other.thickness for other in before)
        assert column.enter[unit] == pytest.approx(depth + gap / argon.x0)


def test_losses_are_those_of_the_materials():
    column = column_of(get_detector("ild-ecal"))
    silicon = column.slabs[0].material
    np.testing.assert_allclose(column.loss_active, silicon.dedx * silicon.density * silicon.x0 / 10)
    np.testing.assert_allclose(column.loss_passive, 1.145 * 19.3 * 0.350418, rtol=1e-3)
    np.testing.assert_allclose(column.e_mip, 1 / (1 + 0.007 * 60), rtol=1e-3)


def test_matter_upstream_keeps_its_own_values():
    column = column_of(get_detector("atlas-em-barrel"))
    assert column.medium.depth[0] > 5 * column.medium.depth[1]
    assert column.medium.critical_energy[0] > 3 * column.medium.critical_energy[1]
    assert column.e_mip[0] > 1 > column.e_mip[1]  # aluminium is lighter than argon, lead heavier
    # the width follows the matter over some radiation lengths, not at once
    assert column.moliere_radius[1] == pytest.approx(column.moliere_radius[0], rel=0.06)
    assert column.moliere_radius[-1] < 0.9 * column.moliere_radius[0]


@pytest.mark.parametrize("name", ["calochallenge-2", "ild-ecal-10x10"])
def test_mesh_without_stack_is_refused(name):
    with pytest.raises(IncompatibleError, match="no stack"):
        column_of(get_detector(name))


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
    assert e_over_mip(18.0, 18.0) == 1.0
    assert e_over_mip(82.0, 18.0) == pytest.approx(1 / 1.448)


def test_mean_weights_every_field():
    medium = Medium(*(np.array([1.0, 3.0]) * scale for scale in (1, 2, 3, 4)))
    mean = medium.mean(np.array([[0.5, 0.5], [1.0, 0.0]]))
    np.testing.assert_allclose(mean.z, [2, 1])
    np.testing.assert_allclose(mean.critical_energy, [4, 2])
    np.testing.assert_allclose(mean.columns.e, [[8], [4]])
