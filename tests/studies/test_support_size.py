"""The study from end to end on parametrised showers: a generator that knows 30 showers is found out."""

from __future__ import annotations

import json
import math
from html import unescape
from itertools import combinations

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError
from caloforge.geometry import get_detector, project
from caloforge.showers import Showers
from caloforge.simulate import simulate
from caloforge.statistics.birthday import Interval
from caloforge.studies import run_study
from caloforge.studies.base import Row, StudyResult
from caloforge.studies.page import like_with_like
from caloforge.studies.sources import within
from caloforge.studies.support_size.duplicates import (
    DEFINITIONS,
    Limits,
    PairTable,
    SimilaritySearch,
    find_duplicates,
    limits_of,
    profiles_of,
    why_no_windows,
)
from caloforge.studies.support_size.report import _meaning

KNOWN = 30


SETTINGS = {"alpha": 0.003, "alphas": [0.003, 0.02], "subsets": 200, "limit_pairs": 500, "drawn": 2}


@pytest.fixture(scope="module")
def truth():
    return simulate("ild-ecal", 200, energy="50GeV", engine="gflash", seed=1)


@pytest.fixture(scope="module")
def collapsed():
    known = simulate("ild-ecal", KNOWN, energy="50GeV", engine="gflash", seed=2)
    rows = np.random.default_rng(3).integers(0, KNOWN, 200)
    return known.take(rows).replace(source="collapsed")


@pytest.fixture(scope="module")
def files(truth, collapsed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("support")
    truth.save(folder / "truth.h5")
    collapsed.save(folder / "collapsed.h5")
    return folder / "truth.h5", folder / "collapsed.h5"


@pytest.fixture(scope="module")
def written(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("study") / "out"
    result = run_study("support-size", *files, output=output, settings=SETTINGS)
    return output, result


def test_a_generator_that_knows_30_showers_has_a_support_of_30(written):
    output, result = written
    content = json.loads((output / "study.json").read_text())
    samples = content["data"]["samples"]
    found = samples["collapsed"]["similarity"]
    for number in (found["collision"]["support"], found["fit"]):
        assert number["low"] <= KNOWN <= number["high"]
        assert number["high"] < 2 * KNOWN
    # the paper's rule reads more
    assert KNOWN < found["rule"]["value"] < 2.5 * KNOWN
    truth = samples["GFlash"]["similarity"]["collision"]["support"]
    assert truth["low"] > 10 * KNOWN
    ratio = [
        row for row in result.rows if row.quantity.startswith("support over GFlash's, profiles + energy")
    ]
    assert all("95 %" in row.note or "below" in row.note for row in ratio)


def test_stricter_definitions_and_smaller_alphas_give_larger_supports(written):
    for sample in written[1].data["samples"].values():
        rates = [sample[one.name]["collision"]["rate"] for one in DEFINITIONS]
        assert rates == sorted(rates, reverse=True)
        for one in DEFINITIONS[:2]:
            by_alpha = [rate["rate"] for rate in sample[one.name]["by_alpha"]]
            assert by_alpha == sorted(by_alpha)


def test_page_figures_and_papers_numbers_are_there(written):
    output, result = written
    names = ["birthday", "support_size", "sensitivity", "closest_0", "closest_1"]
    assert [figure.name for figure in result.figures] == names
    assert all((output / "figures" / f"{name}.png").stat().st_size > 1000 for name in names)
    page = unescape((output / "report.html").read_text())
    rows = json.loads((output / "study.json").read_text())["rows"]
    assert not any(row["paper"] for row in rows)  # the paper's showers are of another calorimeter
    assert (
        "The numbers of ild-ecal are not compared with those of the paper: 3DGAN support size has electrons"
        in page
    )


def test_the_papers_numbers_stand_beside_showers_of_the_papers_kind() -> None:
    rows = [Row("profiles", 1.0, paper="support-size.gan_profiles"), Row("fit", 2.0)]
    for detector, shown in (("clic-ecal-wide", True), ("clic-ecal", False), ("mine", False)):
        result = StudyResult(list(rows), texts=["first"])
        like_with_like(result, detector)
        assert [row.paper is not None for row in result.rows] == [shown, False]
        assert len(result.texts) == 1 + (not shown)


def test_a_support_far_from_the_references_is_explained() -> None:
    assert "larger is not better" in _meaning(Interval(4.7, 3.1, 6.9))
    assert "repeat each other" in _meaning(Interval(0.2, 0.1, 0.5))
    assert _meaning(Interval(1.2, 0.7, 1.9)) == _meaning(Interval(math.nan, 0.7, math.inf)) == ""


def test_the_closest_pairs_of_a_collapsed_generator_are_copies(written):
    closest = written[1].data["samples"]["collapsed"]["closest"]
    assert len(closest) == 2
    for pair in closest:
        assert pair["closeness"] < 1e-6
        assert pair["similarity"] == pytest.approx(1.0)


def test_the_same_command_finds_again_what_was_found(written, files):
    output, result = written
    kept = {path: path.stat().st_mtime_ns for path in (output / "cache").glob("*.npz")}
    assert len(kept) == 2
    words = ["study", "support-size", *map(str, files), "-o", str(output), "--json"]
    for key, value in SETTINGS.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    content = json.loads((output / "study.json").read_text())
    assert content["rows"] == result.content["rows"]
    assert content["command"] == result.content["command"]


def test_detectors_without_a_grid_are_judged_by_profiles_and_energy():
    showers = simulate("atlas-em-barrel", 120, energy="65GeV", engine="gflash", seed=4)
    result = run_study("support-size", showers[:60], showers[60:], settings={"subsets": 20})
    assert set(result.data["samples"]["GFlash"]) >= {"profiles", "energy"}
    assert "similarity" not in result.data["samples"]["GFlash"]
    assert any("left out" in text for text in result.texts)


def test_images_of_one_layer_have_their_energy_for_a_depth_profile(truth):
    image = get_detector("ild-ecal-10x10")
    cells = project(truth.cells, truth.detector, image)
    images = Showers(image, cells, truth.incident_energy)
    profiles = profiles_of(images)
    np.testing.assert_allclose(profiles["z"][:, 0], cells.sum(axis=1), rtol=1e-5)
    result = run_study("support-size", images[:100], images[100:], settings={"subsets": 20})
    assert {"profiles", "energy"} <= set(result.data["samples"]["showers"])


def test_wrong_files_are_told_what_is_needed(truth, collapsed):
    other = simulate("ild-ecal-angled", 60, energy="50GeV", engine="gflash", seed=5)
    with pytest.raises(InputError, match="of 'ild-ecal-angled', the reference of 'ild-ecal'; it needs"):
        run_study("support-size", truth, other)
    with pytest.raises(InputError, match="has 20 showers in the window; it needs at least 50"):
        run_study("support-size", truth, collapsed[:20])
    with pytest.raises(InputError, match="has 0 showers"):
        run_study("support-size", truth, settings={"energy": "10-20GeV"})


def test_windows_take_showers_out_of_a_wide_file():
    energy, theta = np.array([10e3, 50e3, 99e3, 101e3]), np.array([90.0, 90.0, 60.0, 90.0])
    showers = Showers("ild-ecal-10x10", np.eye(4, 100), energy, theta)
    assert within(showers, "40-100GeV", "")[:].incident_energy.tolist() == [50e3, 99e3]
    assert within(showers, "40GeV-200GeV", "85-95")[:].incident_energy.tolist() == [50e3, 101e3]
    assert within(showers, "", "") is showers


def test_duplicates_agree_with_a_loop_over_pairs(truth):
    showers = truth[:40]
    profiles = profiles_of(showers)
    table = PairTable(profiles)
    search = SimilaritySearch(showers.grid(), 1e-4)
    similarity = search.of(np.arange(len(table)))
    limits = limits_of(table, [0.3], similarity)[0]
    for definition in DEFINITIONS:
        expected = []
        for k, (i, j) in enumerate(combinations(range(40), 2)):
            cheap = all(
                table.values[name][k] <= np.float32(limits.cheap[name]) for name in definition.criteria
            )
            if cheap and (not definition.similarity or similarity[k] >= limits.similarity):
                expected.append([i, j])
        found = find_duplicates(table, limits, definition, search)
        assert expected
        assert found.duplicates.pairs.tolist() == expected


def test_too_many_pairs_are_thinned_by_showers(truth):
    showers = truth[:40]
    table = PairTable(profiles_of(showers))
    search = SimilaritySearch(showers.grid(), 1e-4)
    loose = Limits(0.5, dict.fromkeys(("x", "y", "z", "energy"), np.inf), -1.0)  # every pair passes
    found = find_duplicates(table, loose, DEFINITIONS[2], search, most=100)
    assert found.duplicates.n == 14  # 14 showers have 91 pairs, 15 have 105
    assert found.duplicates.count == found.candidates == search.count == 91


def test_normalised_profiles_know_no_energy(truth):
    a = truth[:3]
    doubled = a.replace(cells=2 * a.cells)
    table = PairTable(profiles_of(Showers.concatenate([a, doubled])), normalised=True)
    assert table.values["x"][2] < 1e-9  # shower 0 and its double
    assert PairTable(profiles_of(Showers.concatenate([a, doubled]))).values["x"][2] > 1


def test_similarity_needs_a_grid_as_large_as_the_window():
    assert why_no_windows(get_detector("ild-ecal")) == ""
    assert "11 x 11" in why_no_windows(get_detector("ild-ecal-10x10"))
    assert "layered" in why_no_windows(get_detector("atlas-em-barrel"))
