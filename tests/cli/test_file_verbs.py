"""``info``, ``split``, ``merge``, ``doctor``, ``--cite``, endings of names, and what is said when a name is misspelt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from caloforge.showers import Showers, read_showers

Run = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]


def test_info_says_what_is_in_a_file(run: Run, showers_file: Path, tmp_path: Path) -> None:
    text = run("info", showers_file).stdout
    for words in (
        "atlas-em-barrel, 266 cells in 4 layers",
        "300, 0 of them empty",
        "1024 to 262144 MeV, 9 values",
        "gflash",
        "1, showers 0 to 299",
    ):
        assert words in text
    empty = read_showers(showers_file)[:5]
    empty.cells[2] = 0.0
    empty.save(tmp_path / "empty.h5", layout="sparse")
    [facts] = json.loads(run("info", tmp_path / "empty.h5", "--json").stdout)
    assert (facts["kind"], facts["format"], facts["layout"]) == ("showers", "caloforge", "sparse")
    assert (facts["showers"], facts["empty"]) == (5, 1)
    assert facts["bytes"] == (tmp_path / "empty.h5").stat().st_size
    assert facts["visible_energy"]["mean"] == pytest.approx(empty.visible_energy.mean())
    assert facts["filled_cells"] == pytest.approx((empty.cells > 0).sum() / 5)
    assert facts["conditions"]["impact"]["low"] == pytest.approx(empty.conditions["impact"].min(0).tolist())
    assert facts["attributes"]["beam_theta"] == "90"


def test_info_on_files_of_others_and_runs(run: Run, refused: Run, showers_file: Path, tmp_path: Path) -> None:
    showers = read_showers(showers_file)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["showers"], file["incident_energies"] = (
            showers.cells,
            showers.incident_energy[:, None],
        )
    assert "no such file" in refused("info", tmp_path / "nothing.h5")
    theirs = run("info", tmp_path / "theirs.h5", "--detector", "atlas-em-barrel").stdout
    assert "calochallenge" in theirs
    assert "not known" in theirs
    run("train", "vae", showers_file, "-o", tmp_path / "run", "--set", "epochs=1", "--device", "cpu")
    first, second = json.loads(run("info", showers_file, tmp_path / "run", "--json").stdout)
    assert (first["kind"], second["kind"], second["model"]) == ("showers", "run", "vae")
    text = run("info", tmp_path / "run").stdout
    assert "gflash.h5, 300 showers" in text
    assert "finished" in text
    assert "run.json" in refused("info", tmp_path)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("how", [("-n", 130), ("--parts", 7)])
def test_what_is_split_is_merged_to_the_same(
    layout: str, how: tuple[str, int], run: Run, refused: Run, showers_file: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.h5"
    if layout == "sparse":
        run("convert", showers_file, whole, "--layout", "sparse")
    else:
        whole.write_bytes(showers_file.read_bytes())
    made = json.loads(run("split", whole, "-o", tmp_path / "parts", *how, "--json").stdout)
    files = [Path(name) for name in made["files"]]
    sizes = [len(read_showers(path)) for path in files]
    assert sizes == ([130, 130, 40] if how[0] == "-n" else [42, 43, 43, 43, 43, 43, 43])
    assert files[1].name == "whole-1.h5"
    run("merge", *reversed(files), "-o", tmp_path / "again.h5")
    _assert_same(whole, tmp_path / "again.h5")
    assert "exists already" in refused("split", whole, "-o", tmp_path / "parts", *how)
    assert "are missing between" in refused("merge", files[0], files[2], "-o", tmp_path / "gap.h5")


def _assert_same(first: Path, second: Path) -> None:
    with h5py.File(first) as a, h5py.File(second) as b:
        facts = [{key: np.asarray(value).tolist() for key, value in file.attrs.items()} for file in (a, b)]
        assert facts[0] == facts[1]
        names: list[str] = []
        a.visit(names.append)
        others: list[str] = []
        b.visit(others.append)
        assert names == others
        for name in names:
            if isinstance(a[name], h5py.Dataset):
                assert a[name].dtype == b[name].dtype
                np.testing.assert_array_equal(a[name][:], b[name][:])


def test_a_file_without_a_range_is_split_and_merged(
    run: Run, refused: Run, showers_file: Path, tmp_path: Path
) -> None:
    """Of several seeds, or of another program."""
    run("simulate", "atlas-em-barrel", "-n", 20, "--engine", "gflash", "--seed", 2, "-o", tmp_path / "two.h5")
    run(
        "simulate",
        "atlas-em-barrel",
        "-n",
        20,
        "--engine",
        "gflash",
        "--seed",
        3,
        "-o",
        tmp_path / "three.h5",
    )
    run("merge", tmp_path / "two.h5", tmp_path / "three.h5", "-o", tmp_path / "both.h5")
    run("split", tmp_path / "both.h5", "-o", tmp_path / "p", "--parts", 3)
    parts = sorted((tmp_path / "p").glob("*.h5"))
    assert "showers of 3 files" in run("merge", *parts, "-o", tmp_path / "again.h5").stdout
    _assert_same(tmp_path / "both.h5", tmp_path / "again.h5")
    run("split", parts[1], "-o", tmp_path / "q", "-n", 5)
    smaller = sorted((tmp_path / "q").glob("*.h5"))
    run("merge", parts[2], *smaller, parts[0], "-o", tmp_path / "third.h5")
    _assert_same(tmp_path / "both.h5", tmp_path / "third.h5")
    run("merge", *smaller, "-o", tmp_path / "part.h5")
    _assert_same(parts[1], tmp_path / "part.h5")
    line = refused("merge", parts[0], parts[2], "-o", tmp_path / "gap.h5")
    assert "showers 13 to 25 of the file that was split are missing between" in line
    assert "has part_of" in refused("merge", parts[0], tmp_path / "two.h5", "-o", tmp_path / "mixed.h5")
    mine = Showers("ild-ecal-10x10", np.ones((4, 100)), np.full(4, 50e3)).save(tmp_path / "mine.h5")
    run("split", mine, "-o", tmp_path / "r", "-n", 3)
    run("merge", tmp_path / "r" / "mine-0.h5", tmp_path / "r" / "mine-1.h5", "-o", tmp_path / "mine-again.h5")
    _assert_same(mine, tmp_path / "mine-again.h5")
    assert "give the showers of each file (--number) or the number of files (--parts)" in refused(
        "split", mine, "-o", tmp_path / "s"
    )
    assert "--parts is 9; expected 1 to 4" in refused("split", mine, "-o", tmp_path / "s", "--parts", 9)


def test_a_name_that_ends_as_nothing_that_is_written(
    refused: Run, run: Run, showers_file: Path, tmp_path: Path
) -> None:
    model = ("ild-photon-50gev/vae-gan", "-n", 5, "--energy", "50GeV")
    for command in (
        ("simulate", "ild-ecal", "-n", 2, "--engine", "gflash"),
        ("generate", *model),
        ("merge", showers_file),
        ("project", showers_file),
    ):
        for name in ("e.root", "e", "e.npz", "e.h5.gz"):
            line = refused(*command, "-o", tmp_path / name)
            assert "showers are written to files that end with .h5 or .hdf5, such as e." in line
    assert "suffix" in refused("export", "ild-photon-50gev/vae-gan", "-o", tmp_path / "m.onx")
    assert "ends with one of" in refused("view", showers_file, "-o", tmp_path / "v.jpg")
    assert "ends with one of" in refused("detectors", "ild-ecal", "--draw", tmp_path / "d.jpg")
    assert "no format is written to files that end with '.txt'" in refused(
        "convert", showers_file, tmp_path / "c.txt"
    )
    assert not list(tmp_path.iterdir())


def test_what_is_taken_from_the_beam_is_said(run: Run, tmp_path: Path) -> None:
    command = ("simulate", "ild-ecal-angled", "-n", 2, "--engine", "gflash")
    said = run(*command, "--energy", "50GeV", "-o", tmp_path / "a.h5").stderr
    assert said == (
        "caloforge: not given (--theta, --particle): taken from the detector's beam: theta 30-90 degrees, particle gamma\n"
    )
    whole = ("--energy", "50GeV", "--theta", 60, "--particle", "gamma")
    assert run(*command, *whole, "-o", tmp_path / "b.h5").stderr == ""


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (("simulat", "ild-ecal"), "simulate"),
        (("detectors", "ild-ecl"), "ild-ecal"),
        (("models", "vea"), "vae"),
        (("models", "atlas-photon/vea"), "atlas-photon/vae"),
        (
            ("generate", "ild-photon-50gev/vaegan", "-n", 1, "--energy", "50GeV", "-o", "x.h5"),
            "ild-photon-50gev/vae-gan",
        ),
        (("study", "amplificaton", "a.h5", "-o", "x"), "amplification"),
        (("convert", "FILE", "x.npz", "--format", "calochalenge"), "calochallenge"),
        (("convert", "FILE", "x.npz", "--too", "numpy"), "--to"),
        (("train", "vae", "FILE", "-o", "x", "--set", "epoch=3"), "epochs"),
        (("train", "vae", "FILE", "-o", "x", "--set", "train.validaton=0.1"), "validation"),
        (("train", "vae", "FILE", "-o", "x", "--preset", "papper"), "paper"),
        (("simulate", "ild-ecal", "-n", 1, "--engine", "geant5", "-o", "x.h5"), "geant4"),
        (("simulate", "ild-ecal", "-n", 1, "--enrgy", "5GeV", "-o", "x.h5"), "--energy"),
        (("tune", "vae", "FILE", "-o", "x", "--figure", "auc-cell"), "auc-cells"),
    ],
)
def test_misspelt_names(
    command: tuple[str, ...],
    meant: str,
    run: Run,
    showers_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = " ".join(
        run(*(showers_file if word == "FILE" else word for word in command), code=2).stderr.split()
    )
    assert meant in said.partition("known:")[0], said
    assert "did you mean" in said.lower() or "Possible options" in said


def test_the_limits_of_a_gate_that_are_misspelt(refused: Run, showers_file: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nauc_hihg = { max = 0.6 }\n")
    line = refused("validate", showers_file, showers_file, "-o", tmp_path / "v", "--fail-on", limits)
    assert "did you mean auc_high" in line


def test_a_run_is_resumed_by_its_name(run: Run, refused: Run, showers_file: Path, tmp_path: Path) -> None:
    run(
        "train",
        "vae",
        showers_file,
        "-o",
        tmp_path / "run",
        "--set",
        "epochs=1",
        "--seed",
        7,
        "--device",
        "cpu",
    )
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    said = run("train", "--resume", tmp_path / "run", "--device", "cpu").stdout
    assert f"wrote {tmp_path / 'run'} (vae, " in said
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before
    assert "cannot resume with seed 8" in refused("train", "--resume", "-o", tmp_path / "run", "--seed", 8)
    assert "name the run folder with -o" in refused("train", "vae", showers_file)
    assert "name a file of showers" in refused("train", "-o", tmp_path / "new")
    assert "run.json" in refused("train", "--resume", tmp_path)


def test_the_doctor(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = run("doctor").stdout
    for name in ("python", "packages", "torch", "gpu", "geant4 tables", "memory", "shipped models"):
        assert name in text
    assert "caloforge works here" in text
    found = json.loads(run("doctor", "--json").stdout)
    assert found["healthy"]
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    broken = json.loads(run("doctor", "--json", code=1).stdout)
    [packages] = [one for one in broken["findings"] if one["name"] == "packages"]
    assert packages["state"] == "broken"
    assert "torch is 1.0, older than 2" in packages["text"]
    extra = next(one for one in broken["findings"] if one["name"] == "extra report")
    assert (extra["state"], extra["remedy"]) == ("missing", "pip install 'caloforge[report]'")
    assert "-> pip install 'caloforge[report]'" in run("doctor", code=1).stdout


def test_what_the_doctor_cannot_look_at_is_broken(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    doctor = import_module("caloforge.cli.doctor")

    def _broken():
        raise RuntimeError("no such library")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (_broken,))
    assert "! broken  RuntimeError: no such library" in run("doctor", code=1).stdout
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("G4LEDATA", "G4LEVELGAMMADATA", "G4ENSDFSTATEDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "CHECKS", (doctor._geant4,))
    text = run("doctor").stdout
    assert "- geant4 tables" in text
    assert "-> set GEANT4_DATA_DIR to their folder" in text
    run("doctor", "--strict", code=1)


def test_what_to_cite(run: Run) -> None:
    text = run("--cite").stdout
    assert text.startswith("% If you use caloforge, please cite it")
    for entry in (
        "@software{caloforge,",
        "@article{getting-high,",
        "@techreport{atlas,",
        "eprint        = {2005.05334},",
    ):
        assert entry in text
    own = run("models", "ild-photon-angled/bib-ae", "--cite").stdout
    assert "@article{new-angles," in own
    assert "@techreport{atlas," not in own
    assert json.loads(run("models", "vae", "--cite", "--json").stdout)["papers"][0]["abbreviation"] == "atlas"
    study = run("study", "amplification", "--cite").stdout
    assert "@article{calomplification," in study
    assert "@article{ganplification," in study
    assert "@article{new-angles," not in study
    assert "@article{new-angles," in run("study", "--cite").stdout
    metrics = run("validate", "--cite").stdout  # without files
    assert "% metrics fpd, kpd\n@article{fpd-kpd," in metrics
    assert "@article{birthday-paradox," not in metrics


def test_every_model_and_paper_of_the_citation_is_known() -> None:
    from caloforge.citation import bibtex, references
    from caloforge.models import MODELS
    from caloforge.studies import STUDIES
    from caloforge.validate.metrics import METRICS

    content = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    keys = {one["abbreviation"] for one in content["references"]}
    for name, model in MODELS.items():
        if model.__module__.startswith("caloforge."):
            assert model.papers, name
            assert set(model.papers) <= keys
            assert any(name in one["notes"] for one in references(model.papers)), name
    for kind, registry in (("study", STUDIES), ("metric", METRICS)):
        for name, one in registry.items():
            for paper in references(one.papers):
                said = paper["notes"] if kind == "metric" else re.findall(r"study ([\w-]+)", paper["notes"])
                assert name in said, (name, paper["notes"])
    assert all(one.papers or one.several for _, one in STUDIES.items())
    assert sum(line.startswith("@") for line in bibtex()) == 1 + len(keys)
    assert all(line.count("{") == line.count("}") for line in bibtex() if line.startswith("  "))


def test_the_challenge_is_cited_by_its_first_author_wherever_it_is() -> None:
    cited = 0
    for path in [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "docs").glob("*.md")]:
        for words in re.findall(
            r"([A-Z]\. \w+) et al\.[^;]{0,90}?arXiv:2410\.21611", path.read_text(encoding="utf-8")
        ):
            cited += 1
            assert words == "C. Krause", path
    assert cited >= 10
