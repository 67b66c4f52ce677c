"""Similarity and memory: identical showers, copies, fresh showers; the study finds a generator that smears its training set."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError, TooFewShowersError
from caloforge.showers import Showers
from caloforge.simulate import simulate
from caloforge.statistics.pairs import Neighbours, nearest, structural_similarity
from caloforge.studies import run_study
from caloforge.studies.diversity.measure import (
    Memory,
    fingerprints,
    known_showers,
    memory_of,
    similarities_between,
    similarities_within,
)


@pytest.fixture(scope="module")
def showers():
    return simulate("ild-ecal", 60, energy="10-100GeV", engine="gflash", seed=1)


@pytest.mark.parametrize("dimensions", [2, 200], ids=["few", "many"])
def test_no_memory_is_one_half_within_its_error(dimensions):
    rng = np.random.default_rng(dimensions)

    def sets():
        return [rng.gamma(0.5, 2.0, (60, dimensions)).astype(np.float32) for _ in range(2)]

    pulls, differences, hubs = [], [], []
    for _ in range(80):
        (training, held), (one, other) = sets(), sets()
        memories = [Memory(nearest(x, training), nearest(x, held), 60) for x in (one, other)]
        part, error = memories[0].closer
        pulls.append((part - 0.5) / error)
        more, error = memories[0].more_than(memories[1])
        differences.append(more / error)
        hubs.append(memories[0].neighbours)
    # in many dimensions few showers are the neighbours of all, and the error must know it
    assert (np.mean(hubs) < 35) == (dimensions == 200)
    for found in (pulls, differences):
        assert abs(np.mean(found)) < 4 / np.sqrt(80)
        assert 0.7 < np.std(found) < 1.35


def test_exchange_error_is_the_spread_over_all_halves():
    rng = np.random.default_rng(7)
    x, y, z = (rng.normal(size=(n, 3)).astype(np.float32) for n in (11, 3, 3))
    memory = Memory(nearest(x, y), nearest(x, z), 3)
    halves = [memory.weights[list(half)].sum() for half in combinations(range(6), 3)]
    assert memory.closer[1] == pytest.approx(np.std(halves))
    assert memory.closer[0] == pytest.approx(
        np.mean(memory.to_training.distance < memory.to_held_out.distance)
    )
    assert np.mean(halves) == pytest.approx(0.5)


def test_ties_count_half():
    same = Neighbours(np.array([1.0, 2.0]), np.array([0, 1]))
    assert Memory(same, same, 2).closer[0] == 0.5


def test_a_generator_that_repeats_is_found_out():
    rng = np.random.default_rng(3)
    training, held, fresh = (rng.gamma(0.5, 2.0, (50, 60)).astype(np.float32) for _ in range(3))
    marks = set(fingerprints(training))
    repeated = training[rng.integers(0, 50, 40)] * np.float32(1.05)  # nearly
    memory = memory_of(repeated, training, held, marks, 0.1)
    assert memory.closer[0] == 1
    assert memory.ratio < 0.5
    assert memory.copies == 0
    assert memory_of(training[:9], training, held, marks, 0.1).copies == 9
    assert abs(memory_of(fresh, training, held, marks, 0.1).closer[0] - 0.5) < 0.3


def test_training_showers_are_left_out_of_the_held_out_ones(showers):
    training = showers[:40]
    trusted = Showers.concatenate(
        [showers[30:40], simulate("ild-ecal", 50, energy="50GeV", engine="gflash", seed=2)]
    )
    known = known_showers(training, set(fingerprints(training.cells)), trusted)
    assert known.shared == 10
    assert len(known.training) == len(known.held_out) == len(known.others) == 25
    rows = fingerprints(np.concatenate([known.held_out, known.others]))
    assert len(set(rows)) == 50
    assert not set(rows) & set(known.marks)
    with pytest.raises(TooFewShowersError, match="60 reference showers 20 are not training showers"):
        known_showers(training, set(fingerprints(training.cells)), showers)


def test_identical_samples_have_pairs_of_similarity_one(showers):
    found = similarities_between(showers, showers.take(np.arange(60)[::-1]), 60, (1e-5, 1e-3), seed=0)
    np.testing.assert_allclose(found.values, 1.0)
    own = similarities_within(showers, 20, (1e-5, 1e-3), seed=0)
    assert own.values.shape == (20, 2)
    assert own.values.max() < 1
    assert (own.mean[1:] > own.mean[:-1]).all()  # a larger range sees less


def test_pairs_are_of_like_energy_and_agree_with_single_ones(showers, monkeypatch):
    found = similarities_within(showers, 30, (1e-4,), seed=3)
    order = np.argsort(showers.incident_energy)
    grid = showers.grid()
    expected = structural_similarity(grid, order[::2], grid, order[1::2], (0.1,))  # MeV
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_a_collapsed_sample_is_more_alike(showers):
    rows = np.random.default_rng(5).integers(0, 4, 60)
    collapsed = showers.take(rows)
    a, b = (similarities_within(one, 30, (1e-4,), seed=0) for one in (showers, collapsed))
    assert b.mean[0] > a.mean[0] + 5 * a.error[0]


def test_one_pair_is_not_enough(showers):
    with pytest.raises(TooFewShowersError, match="at least 2"):
        similarities_within(showers[:3], 30, (1e-4,), seed=0)


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
    assert all((output / "figures" / f"{name}.png").stat().st_size > 1000 for name in names)
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
