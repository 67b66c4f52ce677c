"""Arrays in memory, .npz and .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import FileFormatError, InputError
from caloforge.formats import from_arrays, read
from caloforge.showers import Showers


def test_arrays_in_memory(photons: Showers, barrel: Showers) -> None:
    made = from_arrays(
        photons.grid().transpose(0, 3, 1, 2),
        photons.incident_energy / 1e3,
        detector="ild-ecal",
        axes="zxy",
        energy_unit="GeV",
    )
    np.testing.assert_array_equal(made.cells, photons.cells)
    layers = [
        barrel.cells[:, where].reshape(len(barrel), layer.nx, layer.ny)
        for layer, where in zip(barrel.detector.layers, barrel.detector.layer_cells, strict=True)
    ]
    made = from_arrays(layers, barrel.incident_energy, detector=barrel.detector, conditions=barrel.conditions)
    np.testing.assert_array_equal(made.cells, barrel.cells)
    np.testing.assert_array_equal(made.conditions["impact"], barrel.conditions["impact"])
    turned = from_arrays(
        [layer.transpose(0, 2, 1) for layer in layers], barrel.incident_energy, detector=barrel.detector
    )
    np.testing.assert_array_equal(turned.cells, barrel.cells)
    with pytest.raises(FileFormatError, match=r"has shape .*in the order xy for"):
        from_arrays(
            [layers[0], *(x.transpose(0, 2, 1) for x in layers[1:])],
            barrel.incident_energy,
            detector=barrel.detector,
        )


def test_one_energy_and_angle_for_all(photons: Showers) -> None:
    made = from_arrays(photons.cells, "50GeV", detector="ild-ecal", theta=None)
    np.testing.assert_array_equal(made.incident_energy, np.full(12, 5e4))
    with pytest.raises(InputError, match="is a range"):
        from_arrays(photons.cells, "10-50GeV", detector="ild-ecal")
    with pytest.raises(FileFormatError, match=r"has no incident energies; .*energy='50GeV'"):
        from_arrays(photons.cells, detector="ild-ecal")


def test_npz_of_others(electrons: Showers, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, cells=electrons.grid(), energy=electrons.incident_energy / 1e3)
    with pytest.raises(
        FileFormatError,
        match=r"which array holds the cells \(keys={'cells': 'NAME'}\); it has: cells, energy",
    ):
        read(path, detector="clic-ecal")
    keys = {"cells": "cells", "energy": "energy"}
    made = read(path, detector="clic-ecal", keys=keys, energy_unit="GeV", axes="xyz")
    np.testing.assert_array_equal(made.cells, electrons.cells)
    with pytest.raises(FileFormatError, match=r"array 'e': is missing \(keys={'energy': 'NAME'}\)"):
        read(path, detector="clic-ecal", keys={"cells": "cells", "energy": "e"})
    np.savez(path, cells=np.asfortranarray(electrons.grid()), energy=electrons.incident_energy)
    with pytest.raises(FileFormatError, match="Fortran order"):
        read(path, detector="clic-ecal", keys=keys, energy_unit="MeV")
    np.savez(path, cells=np.array([{}] * 3), energy=np.ones(3))
    with pytest.raises(FileFormatError, match="has type object; expected numbers"):
        read(path, detector="clic-ecal", keys=keys)


def test_npy(photons: Showers, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, photons.cells)
    made = read(path, detector="ild-ecal", energy="50GeV")
    np.testing.assert_array_equal(made.cells, photons.cells)
    assert not made.has_theta


def test_a_file_cut_short(photons: Showers, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, c=photons.cells)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:2000] + bytes(2000) + whole[4000:]):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="cannot be read"):
            read(path, detector="ild-ecal", keys={"cells": "c"}, energy="50GeV", cell_unit="MeV")
