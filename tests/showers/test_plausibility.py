"""Units and orders of axes that cannot be right are found, and those that are right pass."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pytest

import caloforge as cf
from caloforge.errors import FileFormatError
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers, read_showers
from caloforge.showers.plausibility import arranged, axis_sizes, check_angles, check_axes, check_energies

ORDERS = ["".join(order) for order in permutations("xyz")]


def stored(showers: Showers, order: str) -> np.ndarray:
    """Return the cells as a file has them whose axes are in this order."""
    return np.ascontiguousarray(showers.grid().transpose(0, *("xyz".index(letter) + 1 for letter in order)))


def axes_finding(showers: Showers, raw: np.ndarray, said: str) -> object:
    return check_axes(raw, said, showers.incident_energy, showers.incident_theta, showers.detector)


@pytest.fixture(scope="module")
def samples() -> list[Showers]:
    """Few showers each: a file may have three, or one."""
    runs = [
        ("ild-ecal", "50GeV", "90", 3),
        ("clic-ecal", "2-500GeV", "90", 5),
        ("clic-ecal-wide", "100GeV", "90", 1),
        ("ild-ecal-angled", "10-100GeV", "40-70", 12),
    ]
    return [cf.simulate(name, n=n, energy=e, theta=t, engine="gflash", seed=8) for name, e, t, n in runs]


@pytest.mark.parametrize("order", ORDERS)
def test_arranged_undoes_any_order(order: str) -> None:
    place = get_detector("ild-ecal-angled")
    cells = np.random.default_rng(0).random((2, place.n_cells)).astype(np.float32)
    raw = stored(Showers(place, cells, [1e3, 1e3]), order)
    for shape in (raw, raw.reshape(2, -1)):
        np.testing.assert_array_equal(arranged(shape, order, axis_sizes(place)), cells)


def test_axis_sizes() -> None:
    assert axis_sizes(get_detector("ild-ecal-angled")) == {"x": 30, "y": 60, "z": 30}
    assert axis_sizes(get_detector("calochallenge-2")) == {"z": 45, "a": 16, "r": 9}
    assert axis_sizes(get_detector("atlas-em-barrel")) == {}


@pytest.mark.parametrize("order", ORDERS)
def test_exchanged_axes_are_found(order: str, samples: list[Showers]) -> None:
    """All orders but the right one, flat as well; x and y can be distinguished where showers lean."""
    for showers in samples:
        raw = stored(showers, order)
        assert axes_finding(showers, raw.reshape(len(raw), -1), order) is None
        assert axes_finding(showers, raw, order) is None
        found = axes_finding(showers, raw.reshape(len(raw), -1), "xyz")
        alike = {"xyz", "yxz"} if (showers.incident_theta == 90).all() else {"xyz"}
        assert (found is None) == (order in alike), (showers, order)
        if found is not None:
            named = str(found).rpartition("--axes ")[2]
            assert named.index("z") == order.index("z")


def test_showers_that_lean_to_the_other_side(samples: list[Showers]) -> None:
    showers = samples[-1].replace(incident_theta=180 - samples[-1].incident_theta)
    found = axes_finding(showers, stored(showers, "xyz"), "xyz")
    assert found is not None
    assert "--angle-from opposite" in str(found)


def test_energies(samples: list[Showers]) -> None:
    for showers in samples:
        place, visible, incident = showers.detector, showers.visible_energy, showers.incident_energy
        assert check_energies(visible, incident, place) is None
        for cells, energies, option in (
            (1.0, 1e-3, "--energy-unit GeV"),
            (1e-3, 1.0, "--cell-unit GeV"),
            (1.0, 1e3, "--energy-unit keV"),
            (1e3, 1.0, "--cell-unit keV"),
            (1 / place.sampling_fraction, 1.0, f"--cell-scale {place.sampling_fraction:.4g}"),
        ):
            found = check_energies(cells * visible, energies * incident, place)
            assert found is not None
            assert found.clear
            assert option in str(found)
    assert check_energies(np.zeros(3), np.full(3, 1e3), place) is not None
    assert check_energies(np.full(3, 1.0), np.full(3, 1e5), place, "mu-") is None
    mesh = get_detector("calochallenge-2")
    found = check_energies(np.full(3, 33.0), np.full(3, 1e3), mesh)
    assert "not divided by the sampling fraction" in str(found)


def test_angles() -> None:
    assert check_angles(np.array([30.0, 90.0])) is None
    assert "--angle-unit rad" in str(check_angles(np.radians([30.0, 90.0])))


def test_files_of_others_are_judged_when_they_are_opened(samples: list[Showers], tmp_path: Path) -> None:
    showers = samples[0]
    changes = {
        "right": (showers.cells, 1.0, ""),
        "gev": (showers.cells, 1e-3, "energy_unit='GeV'"),
        "order": (stored(showers, "zxy").reshape(len(showers), -1), 1.0, "axes='zxy'"),
    }
    for name, (cells, scale, option) in changes.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file["showers"], file["incident_energies"] = cells, scale * showers.incident_energy[:, None]
        if not option:
            np.testing.assert_array_equal(read_showers(path, "ild-ecal").cells, showers.cells)
            continue
        with pytest.raises(FileFormatError, match=option):
            open_showers(path, "ild-ecal")
        assert len(open_showers(path, "ild-ecal", allow_implausible=True)) == len(showers)


def test_our_own_files_are_not_judged(tmp_path: Path) -> None:
    """A model early in its training makes anything."""
    showers = Showers("ild-ecal", np.ones((2, 27000)), [1.0, 1.0])
    assert len(read_showers(showers.save(tmp_path / "a.h5"))) == 2
