"""``--help``, ``--version``, ``detectors``, ``models``: what they print is what there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import caloforge
from caloforge.geometry import DETECTORS, get_detector
from caloforge.models import MODELS

VERBS = ("detectors", "models", "simulate", "train", "generate", "validate", "view", "demo")


def test_help_names_every_verb(run: Callable[..., Any]) -> None:
    text = run("--help").stdout
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, run: Callable[..., Any]) -> None:
    text = run(verb, "--help").stdout
    assert "--json" in text
    assert len(text) > 400


def test_version(run: Callable[..., Any]) -> None:
    assert run("--version").stdout.strip() == f"caloforge {caloforge.__version__}"


def test_every_detector_is_listed_with_its_numbers(run: Callable[..., Any]) -> None:
    table = run("detectors").stdout
    listed = {one["name"]: one for one in json.loads(run("detectors", "--json").stdout)}
    assert list(listed) == DETECTORS.names()
    for name, one in listed.items():
        detector = get_detector(name)
        assert name in table
        assert (one["cells"], one["layers"]) == (detector.n_cells, detector.n_layers)
        assert one["depth_x0"] == pytest.approx(detector.depth_x0, abs=1e-3)


@pytest.mark.parametrize("name", DETECTORS.names())
def test_one_detector_in_full(name: str, run: Callable[..., Any]) -> None:
    text = run("detectors", name).stdout
    card = json.loads(run("detectors", name, "--json").stdout)
    detector = get_detector(name)
    assert f"{detector.n_cells} in {detector.n_layers} layers" in text
    assert sum(row["cells"] for row in card["layer_table"]) == detector.n_cells
    assert card["beam"]["energy"] == str(detector.beam.energy)
    if detector.stack:
        assert f"{detector.depth_x0:.2f} X0 over {detector.length:.1f} mm" in text
        for slab in detector.stack:
            assert slab.material.name in text


def test_a_users_detector_by_its_file(run: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nnx = 4\nny = 6\npitch = 10.0\n[[layers]]\nrepeat = 5\nabsorber = "G4_Pb"\nabsorber_mm = 5.0\n'
        'active = "G4_Si"\nactive_mm = 0.3\n'
    )
    text = run("detectors", path).stdout
    assert "120 in 5 layers" in text
    assert "G4_Pb: 25.0 mm in 5 slabs" in text


LEAKING = """
name = "thin"
nx = 21
ny = 21
pitch = 40.0
[[layers]]
repeat = 20
absorber = "G4_Pb"
absorber_mm = 2.0
active = "G4_PLASTIC_SC_VINYLTOLUENE"
active_mm = 5.0
[beam]
particle = "e-"
energy = "10GeV"
"""


def test_what_the_sampling_fraction_is_and_what_leaks(run: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "thin.toml"
    path.write_text(LEAKING)
    text, card = run("detectors", path).stdout, json.loads(run("detectors", path, "--json").stdout)
    assert card["sampling_fraction_source"] == "estimated"
    assert "estimated from energy losses" in text
    assert 0.4 < card["leakage"]["longitudinal"] < 0.55
    assert 0 <= card["leakage"]["lateral"] < 0.01
    assert f"{100 * card['leakage']['longitudinal']:.1f} % of the energy behind the stack" in text
    assert card["expected_response"] == pytest.approx(0.0915, rel=0.05)
    assert f"response           {card['expected_response']:.4g}" in text

    path.write_text(LEAKING.replace("nx = 21", "nx = 21\nsampling_fraction = 0.0915"))
    text, card = run("detectors", path).stdout, json.loads(run("detectors", path, "--json").stdout)
    assert card["sampling_fraction_source"] == "measured"
    assert card["expected_response"] == pytest.approx(card["sampling_fraction"]) == 0.0915
    assert "measured: mean visible over incident energy in the default beam, leakage included" in text

    path.write_text(LEAKING.replace('"e-"', '"pi-"'))
    text, card = run("detectors", path).stdout, json.loads(run("detectors", path, "--json").stdout)
    assert card["leakage"] is None
    assert "gflash cannot simulate pi-" in text


def test_leakage_of_built_in_detectors(run: Callable[..., Any]) -> None:
    text, card = (
        run("detectors", "clic-ecal").stdout,
        json.loads(run("detectors", "clic-ecal", "--json").stdout),
    )
    assert card["sampling_fraction_source"] == "measured"
    assert 0.01 < card["leakage"]["longitudinal"] < 0.04
    assert "behind the stack" in text
    mesh = json.loads(run("detectors", "calochallenge-1-photons", "--json").stdout)
    assert (mesh["sampling_fraction_source"], mesh["leakage"]) == ("calibrated", None)


def test_a_drawing_is_written_once(
    run: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'report'")
    path = tmp_path / "side.png"
    assert f"wrote {path}" in run("detectors", "clic-ecal", "--draw", path).stdout
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "--force" in refused("detectors", "clic-ecal", "--draw", path)
    assert "name of a detector" in refused("detectors", "--draw", path)


def test_every_model_is_listed_and_shown(run: Callable[..., Any]) -> None:
    table = run("models").stdout
    listed = json.loads(run("models", "--json").stdout)["models"]
    assert [one["name"] for one in listed] == MODELS.names()
    for name, model in MODELS.items():
        assert name in table
        card = json.loads(run("models", name, "--json").stdout)
        assert set(card["settings"]) == set(model.presets)
        without = name == "image-copula"  # fitted in closed form, without weights
        assert all((counts["total"] > 0) != without for counts in card["parameters"].values())
        text = run("models", name).stdout
        assert all(preset in text for preset in model.presets)


def test_the_parameters_are_those_of_the_model(run: Callable[..., Any]) -> None:
    card = json.loads(run("models", "vae", "--detector", "atlas-em-barrel", "--json").stdout)
    model = MODELS["vae"]
    built = model(get_detector("atlas-em-barrel"), model.resolve({"preset": "paper"}))
    assert card["parameters"]["paper"]["total"] == sum(p.numel() for p in built.parameters())
