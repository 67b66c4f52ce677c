import numpy as np
import pytest

from caloforge.errors import IncompatibleError
from caloforge.geometry import get_detector
from caloforge.simulate.gflash.column import column_of

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
