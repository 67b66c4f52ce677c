"""The study from end to end on parametrised showers: a generator that smears its training set is found out."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError
from caloforge.simulate import simulate
from caloforge.studies import run_study


def made(n, seed):
    return simulate("ild-ecal", n, energy="50GeV", engine="gflash", seed=seed)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return held-out showers, training showers, and two generators: one honest, one that smears its training."""
    folder = tmp_path_factory.mktemp("diversity")
    training = made(100, 2)
    noise = np.random.default_rng(0).normal(1.0, 0.05, training.cells.shape).astype(np.float32)
    sets = {"truth": made(200, 1), "training": training, "honest": made(100, 3)}
    sets["smeared"] = training.replace(cells=training.cells * noise, source="smeared")
    sets["collapsed"] = sets["honest"].take(np.arange(100) % 3).replace(source="collapsed")
    for name, showers in sets.items():
        showers.save(folder / f"{name}.h5")
    return {name: folder / f"{name}.h5" for name in sets}


@pytest.fixture(scope="module")
def written(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "study"
    words = [
        "study",
        "diversity",
        *(str(files[name]) for name in ("truth", "honest", "smeared", "collapsed")),
    ]
    words += ["-o", str(output), "--set", f"training={files['training']}", "--set", "pairs=40", "--json"]
    words += ["--set", "data_ranges=[1e-3]"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    return output, json.loads((output / "study.json").read_text())


def test_memory_is_found_where_it_is(written):
    samples = written[1]["data"]["samples"]
    memory = {label: sample["memory"] for label, sample in samples.items()}
    assert memory["smeared"]["closer"] == pytest.approx(1.0)
    assert memory["smeared"]["median_ratio"] < 0.7
    for label in ("GFlash", "honest"):
        assert abs(memory[label]["closer"] - 0.5) < 4 * memory[label]["closer_error"]
        assert 0.9 < memory[label]["median_ratio"] < 1.1
    more = {
        row["sample"]: row
        for row in written[1]["rows"]
        if row["quantity"].endswith("training set minus GFlash's")
    }
    assert memory["smeared"]["closer"] - 0.5 > 8 * memory["smeared"]["closer_error"]
    assert more["smeared"]["ours"] > 2.5 * more["smeared"]["uncertainty"]
    assert abs(more["honest"]["ours"]) < 4 * more["honest"]["uncertainty"]


def test_collapse_shows_in_likeness_and_recall(written):
    samples = written[1]["data"]["samples"]
    means = {label: sample["ssim_within"][0]["mean"] for label, sample in samples.items()}
    assert samples["GFlash"]["ssim_within"][0]["data_range"] == 1e-4
    assert means["collapsed"] > means["GFlash"] + 0.1
    assert abs(means["honest"] - means["GFlash"]) < 0.05
    assert samples["collapsed"]["recall"]["value"] < samples["honest"]["recall"]["value"]
    assert 0 <= samples["honest"]["precision"]["floor"] <= 1
    assert sum(samples["honest"]["ssim_between"][1]["histogram"]["counts"]) == 40


def test_page_and_figures(written):
    output, content = written
    names = {figure["name"] for figure in content["figures"]}
    assert {"ssim_histograms", "ssim_against_range", "memory", "nearest_1", "precision_recall"} <= names
    assert all(
        (output / "figures" / f"{name}{end}").stat().st_size > 2000
        for name in names
        for end in (".png", ".pdf")
    )
    assert "Diversity and memory" in (output / "report.html").read_text()


def test_training_showers_among_the_reference_are_left_out(files):
    truth, training = made(200, 1), made(100, 2)
    mixed = type(truth).concatenate([truth, training[:30]])
    settings = {"training": str(files["training"]), "pairs": 10, "data_ranges": []}
    result = run_study("diversity", mixed, training, settings=settings, labels=["copies"])
    memory = result.data["samples"]["copies"]["memory"]
    assert memory["shared_with_reference"] == 30
    assert memory["copies"] == 100
    assert any("30 reference showers are training showers" in text for text in result.texts)
    with pytest.raises(InputError, match="0 are not training showers"):
        run_study("diversity", files["training"], files["honest"], settings=settings)


def test_detectors_without_a_grid_still_have_precision_and_memory(tmp_path):
    showers = simulate("atlas-em-barrel", 120, energy="65GeV", engine="gflash", seed=4)
    showers[:40].save(tmp_path / "training.h5")
    settings = {"training": str(tmp_path / "training.h5")}
    result = run_study("diversity", showers[40:80], showers[80:], settings=settings, labels=["other"])
    sample = result.data["samples"]["other"]
    assert "ssim_within" not in sample
    assert {"precision", "recall", "memory"} <= set(sample)
    assert any("Structural similarity is left out" in text for text in result.texts)
    assert {figure.name for figure in result.figures} == {"memory", "precision_recall"}


def test_wrong_files_are_told_what_is_needed(files, tmp_path):
    other = simulate("ild-ecal-angled", 30, energy="50GeV", engine="gflash", seed=5)
    with pytest.raises(InputError, match="of 'ild-ecal-angled', the reference of 'ild-ecal'; it needs"):
        run_study("diversity", files["truth"], other)
    with pytest.raises(InputError, match="0 generated samples were given; it needs"):
        run_study("diversity", files["truth"])
    other.save(tmp_path / "angled.h5")
    with pytest.raises(InputError, match="the training set is of 'ild-ecal-angled'"):
        run_study(
            "diversity", files["truth"], files["honest"], settings={"training": str(tmp_path / "angled.h5")}
        )
    with pytest.raises(InputError, match=r"nowhere\.h5"):
        run_study(
            "diversity", files["truth"], files["honest"], settings={"training": str(tmp_path / "nowhere.h5")}
        )
