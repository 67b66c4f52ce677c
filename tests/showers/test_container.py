"""The container: shapes at the door, slices that agree, joins that refuse what does not fit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from comparison import assert_same
from hypothesis import given
from hypothesis import strategies as st

from caloforge.errors import IncompatibleError, InputError, UnknownNameError
from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers, ShowerSource


def test_types_and_shapes(make, toy: Detector) -> None:
    showers = make(6)
    assert isinstance(showers, ShowerSource)
    assert (showers.cells.dtype, showers.incident_energy.dtype) == (np.float32, np.float64)
    assert showers.grid().shape == (6, 3, 4, 5)
    assert showers.condition_names == ("impact", "alignment")
    assert [
        showers.condition(name).shape for name in ("incident_energy", "incident_theta", "alignment", "impact")
    ] == [
        (6, 1),
        (6, 1),
        (6, 1),
        (6, 2),
    ]


def test_a_detector_may_be_named() -> None:
    showers = Showers("ild-ecal", np.zeros((2, 27000)), [1.0, 2.0])
    assert showers.detector is get_detector("ild-ecal")


def test_grid_is_x_y_layer_without_copy(make, toy: Detector) -> None:
    showers = make(3)
    grid = showers.grid()
    for ix, iy, layer in [(0, 0, 1), (2, 3, 4), (1, 2, 0)]:
        np.testing.assert_array_equal(grid[:, ix, iy, layer], showers.cells[:, (ix * 4 + iy) * 5 + layer])
    assert np.shares_memory(grid, showers.cells)


def test_visible_energy_against_a_loop(make) -> None:
    showers = make(5)
    slow = [sum(float(cell) for cell in row) for row in showers.cells]
    np.testing.assert_allclose(showers.visible_energy, slow, rtol=1e-12)


def test_without_angles_all_are_perpendicular(make) -> None:
    showers = make(4, incident_theta=None)
    assert not showers.has_theta
    np.testing.assert_array_equal(showers.incident_theta, 90.0)
    assert not showers[1:3].has_theta
    assert make(4)[1:3].has_theta


def test_columns_may_have_two_axes(make) -> None:
    flat = make(4)
    assert_same(make(4, incident_energy=flat.incident_energy[:, None]), flat)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": np.zeros((4, 59))}, r"cells have shape \(4, 59\); expected \(N, 60\) for detector 'toy'"),
        ({"cells": np.zeros((4, 3, 4, 5))}, r"cells have shape \(4, 3, 4, 5\)"),
        ({"incident_energy": np.ones(5)}, r"incident_energy has shape \(5,\); expected \(4,\)"),
        ({"incident_theta": np.ones((4, 2))}, r"incident_theta has shape \(4, 2\)"),
        (
            {"conditions": {"tilt": np.ones((3, 1))}},
            r"condition 'tilt' has shape \(3, 1\); expected \(4, k\)",
        ),
        ({"conditions": {"tilt": np.ones((4, 1, 1))}}, r"condition 'tilt' has shape \(4, 1, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(4, **change)


def test_unknown_condition_names_the_known(make) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown condition 'tilt'; known: incident_energy, .*, impact"
    ):
        make(2).condition("tilt")


@given(st.slices(11))
def test_slices_are_those_of_the_arrays(make, which: slice) -> None:
    showers = make(11)
    part = showers[which]
    np.testing.assert_array_equal(part.cells, showers.cells[which])
    np.testing.assert_array_equal(part.incident_energy, showers.incident_energy[which])
    np.testing.assert_array_equal(part.conditions["impact"], showers.conditions["impact"][which])


def test_masks_indices_and_one(make) -> None:
    showers = make(9)
    assert_same(
        showers[showers.incident_theta > 60], showers.take(np.flatnonzero(showers.incident_theta > 60))
    )
    assert_same(showers[[8, 0, 0]], showers.take([-1, 0, 0]))
    assert_same(showers[3], showers[3:4])
    assert_same(showers[-1], showers[8:])
    assert len(showers[[]]) == 0
    assert [len(one) for one in showers] == [1] * 9


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([9], IndexError, "index 9 is out of range; there are 9 showers"),
        (-10, IndexError, "index -10"),
        (np.ones(8, bool), InputError, r"mask has shape \(8,\); expected \(9,\)"),
        ([0.5], InputError, "expected integers, a mask or a slice"),
        (np.zeros((2, 2), int), InputError, r"index has shape \(2, 2\)"),
    ],
)
def test_wrong_indices(make, index, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(9)[index]


def test_slices_share_memory(make) -> None:
    showers = make(9)
    assert np.shares_memory(showers[2:5].cells, showers.cells)


@pytest.mark.parametrize("size", [1, 4, 9, 50, None])
def test_chunks_join_to_the_whole(make, size: int | None) -> None:
    showers = make(9)
    parts = list(showers.chunks(size))
    assert all(len(part) == size for part in parts[:-1])
    assert_same(Showers.concatenate(parts), showers)


def test_chunk_size_is_checked_at_once(make) -> None:
    with pytest.raises(InputError, match="chunk size is 0; expected at least 1"):
        make(2).chunks(0)


def test_joining_keeps_what_agrees(make) -> None:
    joined = Showers.concatenate(
        [make(2), make(3, seed=1, source="other", attributes={"physics_list": "one", "cuts": 0.7})]
    )
    assert len(joined) == 5
    assert (joined.particle, joined.source, joined.seed) == ("gamma", "mixed", 7)
    assert joined.attributes == {"physics_list": "one"}


def test_joining_fills_missing_angles(make) -> None:
    joined = Showers.concatenate([make(2, incident_theta=None), make(1)])
    assert joined.has_theta
    np.testing.assert_array_equal(joined.incident_theta[:2], 90.0)
    assert not Showers.concatenate([make(2, incident_theta=None)] * 2).has_theta


def test_joining_refuses(make) -> None:
    other = Showers("ild-ecal-10x10", np.zeros((1, 100)), [1.0])
    with pytest.raises(
        IncompatibleError, match="detector 'ild-ecal-10x10' cannot be joined with those of 'toy'"
    ):
        Showers.concatenate([make(2), other])
    with pytest.raises(IncompatibleError, match="conditions none cannot be joined with"):
        Showers.concatenate([make(2), make(2, conditions={})])
    with pytest.raises(InputError, match="at least one"):
        Showers.concatenate([])


def test_repr(make) -> None:
    assert repr(make(2)) == "Showers(2 x toy, test gamma)"


def test_importing_showers_does_not_import_torch() -> None:
    code = "import sys, caloforge.showers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
