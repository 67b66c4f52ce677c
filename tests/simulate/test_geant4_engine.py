"""The Geant4 engine without Geant4: its choices, its data sets, its printed errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caloforge.errors import Geant4DataError, InputError, MissingExtraError, SimulationError
from caloforge.simulate import geant4
from caloforge.simulate.geant4 import (
    DATA_SETS,
    ELECTROMAGNETIC,
    HADRONIC,
    Geant4Engine,
    download_data,
    export_data,
    find_data,
    read_complaint,
)

FAKE = """
import os, sys
if "CI" in os.environ or "GEANT4_DATA_DIR" in os.environ:
    raise SystemExit("would not have asked")
print("One or more Geant4 datasets were not found.")
if input("Would you like to download the missing ones? [Y/n] ").lower() != "y":
    raise ImportError("no data")
home = os.path.join(os.path.expanduser("~"), ".geant4_pybind")
for name in {names!r}:
    os.makedirs(os.path.join(home, name + "9.1"))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start without any data set; CI as continuous integration sets it."""
    for variable in ("GEANT4_DATA_DIR", *DATA_SETS):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CI", "true")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def lay_out(folder: Path, variables: tuple[str, ...] = tuple(DATA_SETS), version: str = "1.2") -> Path:
    for variable in variables:
        (folder / (DATA_SETS[variable] + version)).mkdir(parents=True)
    return folder


def test_without_data_the_error_says_how_to_get_them(home: Path) -> None:
    with pytest.raises(
        Geant4DataError, match=r"G4EMLOW.*GEANT4_DATA_DIR.*G4LEDATA.*download_data=True"
    ) as caught:
        find_data()
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_folder_that_holds_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lay_out(tmp_path / "data")
    lay_out(tmp_path / "data", ("G4LEDATA",), "1.10")
    (folder / "G4EMLOW-old").mkdir()
    monkeypatch.setenv("GEANT4_DATA_DIR", str(folder))
    found = find_data(tuple(DATA_SETS))
    assert set(found) == set(DATA_SETS)
    assert found["G4LEDATA"].name == "G4EMLOW1.10"


def test_a_set_of_its_own_comes_first(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(home / ".geant4_pybind")
    own = tmp_path / "mine"
    own.mkdir()
    monkeypatch.setenv("G4LEDATA", str(own))
    found = find_data()
    assert found["G4LEDATA"] == own
    assert found["G4ENSDFSTATEDATA"].parent == home / ".geant4_pybind"


@pytest.mark.parametrize("variable", ["GEANT4_DATA_DIR", "G4LEDATA"])
def test_a_variable_that_names_nothing(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/no/such/folder")
    with pytest.raises(Geant4DataError, match=f"{variable} names /no/such/folder"):
        find_data()


@pytest.mark.parametrize(
    ("name", "missing", "not_missing"),
    [
        ("FTFP_BERT", "G4PARTICLEXS, G4SAIDDATA", "G4NDL"),
        ("QGSP_BERT_HP", "G4PARTICLEXS, G4SAIDDATA, G4NDL", "G4INCL"),
        ("FTFP_INCLXX", "G4PARTICLEXS, G4SAIDDATA, G4INCL, G4ABLA", "G4NDL"),
        ("FTFP_INCLXX_HP", "G4PARTICLEXS, G4SAIDDATA, G4NDL, G4INCL, G4ABLA", "RealSurface"),
    ],
)
def test_lists_with_hadrons_need_more(
    name: str, missing: str, not_missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caloforge.simulate.geant4.find_spec", lambda _: object())
    monkeypatch.setenv("GEANT4_DATA_DIR", str(lay_out(tmp_path / "data", ELECTROMAGNETIC)))
    Geant4Engine()
    with pytest.raises(Geant4DataError, match=rf"not found \({missing}\)") as caught:
        Geant4Engine(physics_list=name)
    assert not_missing not in str(caught.value).split(":")[0]


def test_empty_folders_are_noticed_before_a_list_with_hadrons_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caloforge.simulate.geant4.find_spec", lambda _: object())
    folder = lay_out(tmp_path / "data")
    monkeypatch.setenv("GEANT4_DATA_DIR", str(folder))
    Geant4Engine()
    folders = [folder / (DATA_SETS[variable] + "1.2") for variable in HADRONIC]
    for one in folders:
        (one / "note.txt").write_text("empty")
    (folders[0] / "brem_SB").mkdir()
    with pytest.raises(
        Geant4DataError, match=r"no tables \(PhotonEvaporation[^,]*, .*G4PARTICLEXS[^,]*, G4SAIDDATA"
    ) as caught:
        Geant4Engine(physics_list="FTFP_BERT")
    assert "G4EMLOW" not in str(caught.value).split(":")[0]
    for one in folders:
        (one / "table.dat").write_bytes(bytes(2000))
    Geant4Engine(physics_list="FTFP_BERT")


def test_export_keeps_the_import_from_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G4LEDATA", str(lay_out(tmp_path / "data") / "G4EMLOW1.2"))
    environment: dict[str, str] = {}
    export_data({"G4LEDATA": tmp_path / "data" / "G4EMLOW1.2"}, environment)
    assert environment["G4LEDATA"] == os.environ["G4LEDATA"]
    assert environment["GEANT4_DATA_DIR"] == str(tmp_path / "data")


@pytest.mark.parametrize("stderr_is_a_file", [True, False])
def test_a_download_that_was_asked_for(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, stderr_is_a_file: bool
) -> None:
    (tmp_path / "geant4_pybind.py").write_text(FAKE.format(names=list(DATA_SETS.values())))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(geant4, "_has_descriptor", lambda: stderr_is_a_file)
    download_data()
    assert find_data()["G4LEDATA"] == home / ".geant4_pybind" / "G4EMLOW9.1"


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "geant4_pybind.py").write_text("raise OSError('no route to the server')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Geant4DataError, match="no route to the server"):
        download_data()


def test_the_engine_downloads_only_when_told(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("caloforge.simulate.geant4.find_spec", lambda _: object())
    monkeypatch.setattr(geant4, "download_data", lambda: lay_out(home / ".geant4_pybind"))
    with pytest.raises(Geant4DataError):
        Geant4Engine()
    assert list(home.iterdir()) == []
    Geant4Engine(download_data=True)


def test_the_package_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caloforge.simulate.geant4.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"caloforge\[geant4\]"):
        Geant4Engine()


@pytest.mark.parametrize("cut", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cut_must_be_positive(cut: float) -> None:
    with pytest.raises(InputError, match="production cut"):
        Geant4Engine(production_cut=cut)


BLOCK = """
-------- EEEE ------- G4Exception-START -------- EEEE -------
*** G4Exception : {code}
      issued by : {origin}
{text}
*** {severity} ***
 **** Track information is not available at this moment
-------- EEEE -------- G4Exception-END --------- EEEE -------
"""
WARNING = BLOCK.format(
    code="W1", origin="someone", text="stuck track", severity="This is just a warning message."
)


@pytest.mark.parametrize(
    "severity", ["Fatal Exception *** core dump", "Fatal Error in Argument *** core dump"]
)
def test_a_fatal_one_is_said_in_one_line(severity: str) -> None:
    block = BLOCK.format(code="Run0254", origin="G4Some::Thing()", text="No\nregion  here", severity=severity)
    error = read_complaint("chatter\n" + WARNING + block + "tail")
    assert isinstance(error, SimulationError)
    assert str(error) == "Geant4 stopped: No region here (Run0254, issued by G4Some::Thing())"


@pytest.mark.parametrize(
    "text",
    [
        "G4ENSDFSTATEDATA environment variable must be set",
        "Data file <x> is not opened!",
        "ENSDFSTATE.dat is not found.",
    ],
)
def test_missing_data_are_told_apart(text: str) -> None:
    block = BLOCK.format(code="em0003", origin="x", text=text, severity="Fatal Exception *** core dump")
    assert isinstance(read_complaint(block), Geant4DataError)


@pytest.mark.parametrize("log", ["", "all is well", WARNING])
def test_nothing_fatal_is_nothing(log: str) -> None:
    assert read_complaint(log) is None
