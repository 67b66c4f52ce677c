"""Each published HDF5 layout, made from its description, is read as the showers that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.errors import FileFormatError
from caloforge.formats import convert, open_file, read
from caloforge.geometry import get_detector
from caloforge.showers import Showers

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes datasets to a file."""

    def call(**content: object) -> Path:
        path = tmp_path / "theirs.h5"
        with h5py.File(path, "w") as file:
            for name, values in content.items():
                file[name.replace("__", "/")] = values
        return path

    return call


def test_getting_high(photons: Showers, write: Write) -> None:
    layers = photons.grid().transpose(0, 3, 1, 2)
    path = write(g30x30__layers=layers, g30x30__energy=photons.incident_energy[:, None] / 1e3)
    with open_file(path) as file:
        assert file.read_as[:2] == ["format getting-high (guessed)", "detector ild-ecal (guessed)"]
        made = file[:]
    np.testing.assert_array_equal(made.cells, photons.cells)
    np.testing.assert_allclose(made.incident_energy, photons.incident_energy, rtol=1e-12)


def test_calogan(write: Write) -> None:
    rng = np.random.default_rng(1)
    layers = [rng.exponential(20, (5, *shape)) for shape in ((3, 96), (12, 12), (12, 6))]
    path = write(
        energy=np.full((5, 1), 20.0),
        overflow=np.zeros((5, 3)),
        **{f"layer_{i}": x for i, x in enumerate(layers)},
    )
    made = read(path)
    assert made.detector.name == "calogan"
    assert (made.incident_energy == 20e3).all()
    for layer, where in zip(layers, made.detector.layer_cells, strict=True):  # theirs is phi by eta
        grid = made.cells[:, where].reshape(5, layer.shape[2], layer.shape[1])
        np.testing.assert_array_equal(grid, layer.transpose(0, 2, 1).astype(np.float32))
    for number, extent in enumerate(((480, 480), (480, 480), (480, 480))):
        layer = made.detector.layers[number]
        assert (layer.nx * layer.pitch_x, layer.ny * layer.pitch_y) == extent


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_3dgan(unit: float, electrons: Showers, write: Write) -> None:
    """The unit of its cells is not the same in all releases: the one that is plausible is taken."""
    theta = np.full(12, np.pi / 2)
    path = write(
        ECAL=electrons.grid() * np.float64(unit), energy=electrons.incident_energy / 1e3, theta=theta
    )
    with open_file(path) as file:
        assert file.read_as[0] == "format 3dgan (guessed)"
        assert f"cells {'MeV' if unit == 1 else 'GeV'} (guessed)" in file.read_as
        made = file[:]
    assert made.detector.name == "clic-ecal"
    np.testing.assert_allclose(made.cells, electrons.cells, rtol=1e-6)
    np.testing.assert_allclose(made.incident_theta, 90, rtol=1e-12)


def test_3dgan_with_a_channel_axis(electrons: Showers, write: Write) -> None:
    path = write(ECAL=electrons.grid()[..., None], energy=electrons.incident_energy / 1e3)
    np.testing.assert_array_equal(read(path).cells, electrons.cells)


def test_lemurs(voxels: Showers, write: Write) -> None:
    raw = voxels.grid().transpose(0, 3, 2, 1) * 0.033  # (N, r, phi, z), the active material's energy
    facts = {"incident_phi": np.zeros(30), "incident_theta": np.full(30, np.pi / 2)}
    path = write(showers=raw, incident_energy=voxels.incident_energy, **facts)
    with pytest.raises(FileFormatError, match="names no detector"):
        read(path)
    with pytest.raises(
        FileFormatError, match=r"not divided by the sampling fraction; settle it with cell_scale, some 29"
    ):
        read(path, detector="calochallenge-2")
    made = read(path, detector="calochallenge-2", cell_scale=1 / 0.033)
    np.testing.assert_allclose(made.cells, voxels.cells, rtol=1e-5)
    np.testing.assert_allclose(made.incident_theta, 90, rtol=1e-12)
    assert not made.conditions


def test_calochallenge(voxels: Showers, write: Write) -> None:
    path = write(showers=voxels.cells.astype(np.float64), incident_energies=voxels.incident_energy[:, None])
    with open_file(path) as file:
        assert file.read_as[:2] == ["format calochallenge (guessed)", "detector calochallenge-2 (guessed)"]
        np.testing.assert_array_equal(file[:].cells, voxels.cells)
    wrong = write(
        showers=voxels.grid().transpose(0, 3, 2, 1).reshape(30, -1), incident_energies=voxels.incident_energy
    )
    with pytest.raises(FileFormatError, match=r"axes look exchanged.*axes='raz'"):
        read(wrong)
    np.testing.assert_array_equal(read(wrong, axes="rpz").cells, voxels.cells)


def test_any_names(inclined: Showers, write: Write) -> None:
    content = {
        "a__hits": inclined.grid().transpose(0, 3, 2, 1) * np.float64(1e3),
        "a__e": inclined.incident_energy / 1e6,
        "a__angle": np.radians(90 - inclined.incident_theta),
        "a__number": np.arange(20),
    }
    path = write(**content)
    keys = {"cells": "a/hits", "energy": "a/e", "theta": "a/angle", "conditions/number": "a/number"}
    given = {"keys": keys, "detector": "ild-ecal-angled", "axes": "zyx", "angle_from": "normal"}
    with pytest.raises(
        FileFormatError, match=r"is of no known layout; name its data \(keys={'cells': 'NAME'}"
    ):
        read(path)
    with pytest.raises(FileFormatError, match="does not say its units"):
        read(path, **given)
    made = read(path, **given, energy_unit="TeV", cell_unit="keV")
    np.testing.assert_allclose(made.cells, inclined.cells, rtol=1e-6)
    np.testing.assert_allclose(made.incident_theta, inclined.incident_theta, rtol=1e-12)
    np.testing.assert_allclose(made.incident_energy, inclined.incident_energy, rtol=1e-12)
    np.testing.assert_array_equal(made.conditions["number"][:, 0], np.arange(20))


def test_axes_that_a_shape_leaves_open(inclined: Showers, photons: Showers, write: Write) -> None:
    path = write(cells=photons.grid(), e=photons.incident_energy)
    given = {"keys": {"cells": "cells", "energy": "e"}, "energy_unit": "MeV", "cell_unit": "MeV"}
    with pytest.raises(
        FileFormatError, match=r"xyz or xzy or yxz or yzx or zxy or zyx\? settle it with axes"
    ):
        read(path, detector="ild-ecal", **given)
    place = get_detector("calochallenge-2")
    one = np.random.default_rng(0).random((4, 16, 45, 9))  # lengths that differ leave one order
    path = write(cells=one, e=np.full(4, one.sum() / 4))
    with open_file(path, detector=place, **given, allow_implausible=True) as file:
        assert "cells 'cells' (axes azr, guessed)" in file.read_as
        made = file[:]
    np.testing.assert_array_equal(made.grid(), one.transpose(0, 2, 1, 3).astype(np.float32))
    with pytest.raises(
        FileFormatError, match=r"has shape \(4, 16, 45, 9\); expected \(N, 45, 16, 9\) in the order zar"
    ):
        read(path, detector=place, axes="zar", **given)
    with pytest.raises(FileFormatError, match="axes='xyz' does not name the axes of 'calochallenge-2'"):
        read(path, detector=place, axes="xyz", **given)


def test_a_file_larger_than_a_chunk_is_read_by_ranges(
    photons: Showers, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read is larger than what bounds the memory."""
    from caloforge.formats.hdf5_arrays import _Dataset

    monkeypatch.setattr("caloforge.showers.hdf5.STREAM_BYTES", 3 * photons.cells[0].nbytes)
    sizes: list[int] = []
    whole = _Dataset.read

    def counted(self: _Dataset, start: int, stop: int) -> np.ndarray:
        sizes.append(stop - start)
        return whole(self, start, stop)

    monkeypatch.setattr(_Dataset, "read", counted)
    many = np.concatenate([photons.grid()] * 5).transpose(0, 3, 1, 2)
    path = write(g30x30__layers=many, g30x30__energy=np.full(60, 50.0))
    assert convert(path, tmp_path / "out.h5").n == 60
    assert max(sizes) <= 20
    np.testing.assert_array_equal(read(tmp_path / "out.h5").cells, np.concatenate([photons.cells] * 5))
