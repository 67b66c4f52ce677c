"""All studies of all models: with a folder of one tiny model, and with none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError, TooFewShowersError, UnknownNameError
from caloforge.simulate.run import simulate
from caloforge.studies import STUDIES, run_study
from caloforge.studies.layers.study import LayersStudy
from caloforge.train import RunFolder, train
from caloforge.train.checkpoint import save_weights
from caloforge.train.settings import read_settings

SETTINGS = {
    "studies": ["layers", "shapes", "conditioning"],
    "settings": {"shapes": {"geant4_showers": 0, "timing_seconds": 0.05}},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all")
    return simulate("atlas-em-barrel", 300, engine="gflash", seed=2, output=folder / "truth.h5")


@pytest.fixture(scope="module")
def run(reference: Path) -> Path:
    data = simulate("atlas-em-barrel", 600, engine="gflash", seed=5, output=reference.parent / "data.h5")
    options = ("epochs=2", "latent=4", "hidden=[16]")
    return train("vae", data, reference.parent / "tiny-vae", overrides=options, device="cpu", seed=1)


@pytest.fixture(scope="module")
def zoo(run: Path) -> Path:
    folder = run.parent / "zoo" / "atlas-photon"
    folder.mkdir(parents=True)
    save_weights(folder / "vae.safetensors", RunFolder(run).models()[0].shipped_state())
    config = read_settings(run / "config.toml")["model"]
    card = {"model": "vae", "detector": "atlas-em-barrel", "particle": "gamma", "config": config}
    (folder / "vae.json").write_text(json.dumps(card | {"train_showers": 600}))
    return folder.parent


def _links(page: Path) -> list[str]:
    return re.findall(r'<a href="([^"#]+)"', page.read_text())


def test_a_site_of_every_study_that_fits(reference: Path, zoo: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    options = {"output": site, "settings": SETTINGS | {"zoo": str(zoo)}, "n": 200}
    result = run_study("all", reference, **options)
    pages = {page["study"]: page for page in result.data["pages"]}
    assert set(pages) == {"layers", "shapes"}
    assert all(page["models"] == ["atlas-photon/vae"] and not page["error"] for page in pages.values())
    links = set(_links(site / "index.html"))
    assert links == {f"{page['folder']}/report.html" for page in pages.values()}
    for link in links:
        assert "atlas-photon/vae" in (site / link).read_text()
    index = (site / "index.html").read_text()
    assert "caloforge study all" in index
    assert "no test point has 20 reference showers" in index
    content = json.loads((site / "layers-atlas-em-barrel" / "study.json").read_text())
    assert sum(content["data"]["atlas-photon/vae"]["n"]) == 200
    rows = {row["quantity"]: row for row in result.content["rows"]}
    assert rows["shapes: shower-shape MSE"]["paper"]["value"] == 0.044
    middle = [
        row for row in result.content["rows"] if row["quantity"] == "layers: energy in the middle, 65.5 GeV"
    ]
    assert [row["paper"]["value"] for row in middle] == [79.3, 77.6]  # the paper's Geant4 and its VAE

    stamp = (site / "layers-atlas-em-barrel" / "study.json").stat().st_mtime_ns
    again = run_study("all", reference, **options)
    assert (site / "layers-atlas-em-barrel" / "study.json").stat().st_mtime_ns == stamp
    assert again.content["rows"] == result.content["rows"]


def test_one_failure_does_not_stop_the_others(
    reference: Path, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, context: object) -> None:
        msg = "too few for this"
        raise TooFewShowersError(msg)

    monkeypatch.setattr(LayersStudy, "run", broken)
    settings = SETTINGS | {"zoo": str(zoo), "studies": ["layers", "shapes"], "tidy": True}
    result = run_study("all", reference, output=tmp_path / "site", settings=settings, n=100)
    errors = {page["study"]: page["error"] for page in result.data["pages"]}
    assert errors == {"layers": "too few for this", "shapes": ""}
    assert "too few for this" in (tmp_path / "site" / "index.html").read_text()
    assert not (tmp_path / "site" / "shapes-atlas-em-barrel" / "cache").exists()


def test_an_empty_zoo_says_so(reference: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        InputError, match="no model is shipped yet and none was given; it needs reference files"
    ):
        run_study("all", reference, settings={"zoo": str(empty)})
    arguments = ["study", "all", str(reference), "-o", str(tmp_path / "out"), "--set", f"zoo={empty}"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="is no folder"):
        run_study("all", reference, settings={"zoo": str(tmp_path / "nowhere")})


def test_run_folders_do_without_shipped_models(reference: Path, run: Path, tmp_path: Path) -> None:
    arguments = ["study", "all", str(reference), str(run), "-o", str(tmp_path / "site"), "-n", "120"]
    arguments += ["--set", "shipped=false", "--set", 'studies=["layers"]', "--device", "cpu"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert set(_links(tmp_path / "site" / "index.html")) == {"layers-atlas-em-barrel/report.html"}
    page = json.loads((tmp_path / "site" / "layers-atlas-em-barrel" / "study.json").read_text())
    assert page["command"].startswith("caloforge study layers")
    assert str(run) in page["command"]


def test_unknown_names_are_refused(reference: Path, zoo: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown study 'layer'"):
        run_study("all", reference, settings={"studies": ["layer"], "zoo": str(zoo)})
    with pytest.raises(InputError, match="no shipped model is called 'gan'; known: atlas-photon/vae"):
        run_study("all", reference, settings={"models": ["gan"], "zoo": str(zoo)})


def test_every_study_has_what_the_site_shows() -> None:
    from caloforge.studies.page import document

    for name, study in STUDIES.items():
        assert study.name == name
        assert study.title
        assert study.needs
        assert document(study.source).title
