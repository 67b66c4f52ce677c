"""What cannot be right is refused in one line that names the way out; what is unusual but possible is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.errors import (
    CaloforgeError,
    FileFormatError,
    InputError,
    MissingExtraError,
    OutputError,
    UnknownNameError,
)
from caloforge.formats import FORMATS, ReadOptions, convert, open_file, read
from caloforge.formats.base import Format
from caloforge.showers import Showers

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that writes showers as another program does: no attributes; changes replace datasets."""

    def call(made: Showers, /, **changes: Any) -> Path:
        content = {"showers": made.cells, "incident_energies": made.incident_energy[:, None]}
        if made.has_theta:
            content["incident_theta"] = made.incident_theta[:, None]
        path = tmp_path / "theirs.h5"
        with h5py.File(path, "w") as file:
            for name, values in (content | changes).items():
                file[name] = values
        return path

    return call


def test_units(photons: Showers, inclined: Showers, save: Save) -> None:
    cases = [
        (
            photons,
            {"incident_energies": photons.incident_energy / 1e3},
            {"energy_unit": "GeV"},
            "energy_unit='GeV'",
        ),
        (photons, {"showers": photons.cells / 1e3}, {"cell_unit": "GeV"}, "cell_unit='GeV'"),
        (photons, {"showers": photons.cells / 0.0215}, {"cell_scale": 0.0215}, "cell_scale=0.0215"),
        (
            inclined,
            {"incident_theta": np.radians(inclined.incident_theta)},
            {"angle_unit": "rad"},
            "angle_unit='rad'",
        ),
        (inclined, {"incident_theta": 90 - inclined.incident_theta}, {"angle_from": "normal"}, ""),
        (
            inclined,
            {"incident_theta": 180 - inclined.incident_theta},
            {"angle_from": "opposite"},
            "angle_from='opposite'",
        ),
    ]
    for showers, changes, options, text in cases:
        path, place = save(showers, **changes), showers.detector.name
        if text:
            with pytest.raises(FileFormatError, match=text):
                read(path, detector=place)
            assert open_file(path, detector=place, allow_implausible=True).implausible
        made = read(path, detector=place, **options)
        np.testing.assert_allclose(made.cells, showers.cells, rtol=1e-6)
        np.testing.assert_allclose(made.incident_energy, showers.incident_energy, rtol=1e-12)
        np.testing.assert_allclose(made.incident_theta, showers.incident_theta, rtol=1e-12)


def test_what_is_unusual_hides_nothing(photons: Showers, save: Save) -> None:
    """A low response without a known cause is a warning; exchanged axes are refused all the same."""
    path = save(photons, showers=photons.cells * 0.03)
    with open_file(path, detector="ild-ecal") as file:
        assert file.implausible.startswith("cells hold 0.0")
    flat = photons.grid().transpose(0, 3, 1, 2).reshape(12, -1) * 0.03
    with pytest.raises(FileFormatError, match="axes look exchanged"):
        read(save(photons, showers=flat), detector="ild-ecal")


def test_angles_out_of_range(inclined: Showers, save: Save) -> None:
    path = save(inclined, incident_theta=np.linspace(0, 60, 20))
    with pytest.raises(
        FileFormatError, match=r"angles are 0 to 60 degrees; expected 0 to 180.*angle_from='normal'"
    ):
        read(path, detector="ild-ecal-angled")
    assert (
        read(
            path, detector="ild-ecal-angled", angle_from="normal", allow_implausible=True
        ).incident_theta.max()
        == 90
    )


@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "cell 5 is nan"), (np.inf, "cell 5 is inf"), (-1.0, "cell 5 is -1")]
)
def test_cells_that_are_no_energies(value: float, text: str, photons: Showers, save: Save) -> None:
    cells = photons.cells.copy()
    cells[9, 5] = value
    path = save(photons, showers=cells)
    with pytest.raises(FileFormatError, match=f"cells, row 9: {text}") as caught:
        read(path, detector="ild-ecal")
    assert ("clip_negative=True" in str(caught.value)) == (value == -1.0)
    if value == -1.0:
        np.testing.assert_array_equal(
            read(path, detector="ild-ecal", clip_negative=True).cells, np.maximum(cells, 0)
        )


@pytest.mark.parametrize("value", [0.0, -5.0, np.nan])
def test_energies_that_are_none(value: float, photons: Showers, save: Save) -> None:
    energy = photons.incident_energy.copy()
    energy[3] = value
    with pytest.raises(FileFormatError, match="incident energies, row 3: is"):
        read(save(photons, incident_energies=energy), detector="ild-ecal")


def test_energies_that_are_given_twice(inclined: Showers, save: Save) -> None:
    for options in ({"energy": "50GeV"}, {"theta": 60.0}):
        with pytest.raises(
            FileFormatError, match=f"has its own values of .*; leave out {next(iter(options))}"
        ):
            read(save(inclined), detector="ild-ecal-angled", **options)


def test_shapes(photons: Showers, save: Save) -> None:
    cases = {
        "no showers": {"showers": photons.cells[:0], "incident_energies": photons.incident_energy[:0]},
        "expected 12 rows": {"incident_energies": photons.incident_energy[:5]},
        r"one value a shower": {"incident_energies": np.ones((12, 2))},
        r"or \(N, 27000\) for": {"showers": photons.cells[:, :100]},
        "expected numbers": {"showers": photons.cells.astype("S5")},
    }
    for text, changes in cases.items():
        with pytest.raises(FileFormatError, match=text):
            read(save(photons, **changes), detector="ild-ecal")


def test_outputs(photons: Showers, tmp_path: Path) -> None:
    path = photons.save(tmp_path / "a.h5")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("b.txt", {}, r"no format is written to files that end with '\.txt'; known: \.h5 \(caloforge\)"),
        (
            "b.h5",
            {"to": "calogan"},
            "the format 'calogan' is read, not written; written are: caloforge, showerdata, root, numpy",
        ),
        ("b.root", {"to": "showerdata"}, r"files of the format 'showerdata' end with \.h5 or \.hdf5"),
        ("a.h5", {}, "exists already"),
        ("a.h5", {"force": True}, "is the input"),
        ("no/b.h5", {}, "does not exist"),
    ]
    for name, options, text in cases:
        with pytest.raises(OutputError, match=text):
            convert(path, tmp_path / name, **options)
    with pytest.raises(UnknownNameError, match="unknown layout 'packed'"):
        convert(path, tmp_path / "b.h5", layout="packed")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.h5"]


def test_nothing_is_left_of_a_conversion_that_fails(photons: Showers, save: Save, tmp_path: Path) -> None:
    cells = photons.cells.copy()
    cells[11, 3] = np.nan
    path = save(photons, showers=cells)
    outputs = ["a.h5", "b.npz"]
    if _has_uproot():
        outputs.append("c.root")
    for name in outputs:
        with pytest.raises(CaloforgeError, match="row 11"):
            convert(path, tmp_path / name, detector="ild-ecal")
    with pytest.raises(CaloforgeError, match="row 11"):
        convert(path, tmp_path / "d.h5", to="showerdata", detector="ild-ecal")
    assert [one.name for one in tmp_path.iterdir()] == ["theirs.h5"]


def test_options(photons: Showers, tmp_path: Path) -> None:
    cases = [
        (
            {"energy_unit": "gev"},
            "unknown unit of energy 'gev'; did you mean GeV\\? known: eV, keV, MeV, GeV, TeV",
        ),
        ({"angle_unit": "grad"}, "unknown unit of angle 'grad'"),
        ({"axes": "xxz"}, "'xxz' is not an order of axes"),
        ({"cell_scale": 0.0}, "expected a factor above zero"),
        ({"keys": {"enregy": "e"}}, "unknown role of keys 'enregy'; did you mean energy or hit_energy"),
        ({"theta": 200.0}, "expected degrees between 0 and 180"),
    ]
    for options, text in cases:
        with pytest.raises(InputError, match=text):
            ReadOptions(**options)
    path = photons.save(tmp_path / "a.h5")
    for options, name in (
        ({"energy_unit": "GeV"}, "energy_unit"),
        ({"axes": "zxy"}, "axes"),
        ({"theta": 60.0}, "theta"),
    ):
        with pytest.raises(InputError, match=f"{name} does not apply to files of the format 'caloforge'"):
            read(path, **options)
    with pytest.raises(FileFormatError, match="expected 'clic-ecal'"):
        read(path, detector="clic-ecal")


def test_files_of_no_format(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    with pytest.raises(FileFormatError, match="no such file"):
        read(path)
    path.write_bytes(b"anything")
    with pytest.raises(
        FileFormatError, match=r"is of no known format; name it \(format caloforge, showerdata, "
    ):
        read(path)
    for name in FORMATS:
        with pytest.raises((FileFormatError, MissingExtraError)):
            read(
                path,
                name,
                "ild-ecal",
                keys={} if FORMATS[name].name in ("caloforge", "showerdata") else {"cells": "x"},
            )


def test_a_missing_extra_is_named(tmp_path: Path, photons: Showers, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, extra: str) -> None:
        raise MissingExtraError(module, extra)

    monkeypatch.setattr("caloforge.formats.root.require", missing)
    with pytest.raises(
        MissingExtraError,
        match=r"'uproot' is not installed; install it with: pip install 'caloforge\[formats\]'",
    ):
        convert(photons.save(tmp_path / "a.h5"), tmp_path / "a.root")
    assert [one.name for one in tmp_path.iterdir()] == ["a.h5"]


def test_every_format_says_what_it_is() -> None:
    for name, form in FORMATS.items():
        assert isinstance(form, Format)
        assert form.name == name
        assert form.summary
        assert form.writes or not form.endings


def _has_uproot() -> bool:
    try:
        import uproot  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
