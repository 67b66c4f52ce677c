"""Conditioning: windows against known answers, the whole study on small showers."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError
from caloforge.showers import Showers
from caloforge.simulate.run import simulate
from caloforge.studies import run_study
from caloforge.studies.base import Context
from caloforge.studies.cache import Cache
from caloforge.studies.conditioning import ConditioningSettings, ConditioningStudy
from caloforge.studies.conditioning.measure import angle_curve
from caloforge.studies.conditioning.points import TestPoint, points_with_showers, window_around
from caloforge.studies.sources import open_sources


def test_the_nine_points_are_every_combination() -> None:
    points = ConditioningSettings().points
    assert len(points) == 9
    assert points[1] == TestPoint(20e3, 60.0)
    assert points[-1].key == "90gev-85deg"


def test_a_window_is_as_narrow_as_the_showers_allow() -> None:
    rng = np.random.default_rng(1)
    energy, theta = rng.uniform(10e3, 100e3, 20_000), rng.uniform(30.0, 90.0, 20_000)
    point = TestPoint(50e3, 60.0)
    windows = [window_around(energy, theta, point, wanted) for wanted in (10, 100, 500)]
    counts = [len(window.select(energy, theta, point)) for window in windows]
    assert [window.energy for window in windows] == sorted(window.energy for window in windows)
    for wanted, count in zip((10, 100, 500), counts, strict=True):
        assert count >= wanted
    chosen = windows[1].select(energy, theta, point)
    assert np.abs(energy[chosen] - 50e3).max() <= windows[1].energy
    assert np.abs(theta[chosen] - 60.0).max() <= windows[1].theta
    assert window_around(energy, theta, point, 10**6).theta == 10.0


def test_a_file_made_at_the_points_needs_no_width() -> None:
    energy, theta = np.repeat([20e3, 50e3, 90e3], 40), np.tile([40.0, 60.0, 85.0, 60.0], 30)
    window = window_around(energy, theta, TestPoint(50e3, 60.0), 300)
    assert window.theta < 0.1
    assert window.energy < 100.0


def test_a_point_beside_all_showers_is_no_point() -> None:
    energy, theta = np.full(100, 50e3), np.full(100, 90.0)
    points = ConditioningSettings(energies=(45.0, 50.0), thetas=(85.0, 90.0)).points
    found = points_with_showers(energy, theta, points, 50)
    assert [point for point, _ in found] == [TestPoint(50e3, 90.0)]


def test_widths_that_are_given_are_kept() -> None:
    window = window_around(np.array([1e4]), np.array([40.0]), TestPoint(2e4, 40.0), 10, 3e3, 2.5)
    assert (window.energy, window.theta) == (3e3, 2.5)


def test_a_direction_has_its_bias_and_resolution_in_each_bin() -> None:
    rng = np.random.default_rng(5)
    theta = np.repeat([40.0, 60.0, 85.0], 2000)
    residual = 0.01 * theta + rng.normal(0.0, 0.5 + 0.01 * theta)
    residual[::10] = np.nan
    curve = angle_curve(residual, theta)
    np.testing.assert_allclose(curve.centre, [40.0, 60.0, 85.0])
    assert curve.missing == 600
    assert np.abs((curve.bias - 0.01 * curve.centre) / curve.bias_error).max() < 4
    assert np.abs((curve.resolution - 0.5 - 0.01 * curve.centre) / curve.resolution_error).max() < 4
    np.testing.assert_allclose(curve.width68, curve.resolution, rtol=0.1)


SETTINGS = {"energies": [50.0], "thetas": [60.0], "showers": 150}


@pytest.fixture(scope="module")
def showers() -> Showers:
    return simulate("ild-ecal-angled", 200, energy="45-55GeV", theta="55-65", engine="gflash", seed=4)


def test_a_sample_scaled_by_two_percent_has_two_percent_more_response(showers: Showers) -> None:
    scaled = showers.replace(cells=showers.cells * 1.02, source="scaled")
    result = run_study("conditioning", showers, showers, scaled, settings=SETTINGS, labels=["same", "scaled"])
    point = result.data["points"]["50gev-60deg"]
    assert point["n"]["scaled"] == point["n"]["same"] >= 150
    for stage, tolerance in (("before", 1e-5), ("after", 2e-3)):
        response = point[stage]["energy_response"]
        assert response["scaled"]["against_reference"]["relative"] == pytest.approx(0.02, abs=tolerance)
        assert response["scaled"]["against_reference"]["width"] == pytest.approx(0.02, abs=0.05)
        for name, found in point[stage].items():
            difference = found["same"]["against_reference"]
            assert difference["shift"] == 0.0, name
            assert difference["ks"] == 0.0, name
    assert point["after"]["energy_response"]["reference"]["mean"][0] == pytest.approx(1.0, abs=0.02)
    assert abs(point["before"]["angle_residual"]["scaled"]["against_reference"]["shift"]) < 1e-3


def test_every_observable_is_there_before_and_after(showers: Showers) -> None:
    result = run_study("conditioning", showers, showers, settings=SETTINGS, labels=["same"])
    point = result.data["points"]["50gev-60deg"]
    assert {"visible_energy", "hits", "shower_depth", "radius_90", "centre_y"} <= set(point["before"])
    assert set(point["after"]) == set(point["before"]) | {"n_clusters", "outside"}
    assert set(result.data["curves"]) == {
        f"{what}_against_{variable}" for what in ("energy", "angle") for variable in ("energy", "theta")
    }
    rows = {row.quantity: row for row in result.rows if row.sample == "same"}
    assert rows["largest deviation, mean energy response, after reconstruction"].ours == 0.0
    assert (
        rows["mean deviation, mean energy response, before reconstruction"].paper == "conditioning.response"
    )


def test_reconstruction_and_measurement_come_from_the_cache(showers: Showers, tmp_path: Path) -> None:
    sources = open_sources(ExitStack(), [showers])
    context = Context(sources, sources, ConditioningSettings(**SETTINGS), cache=Cache(tmp_path))
    first = ConditioningStudy().run(context)
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 3
    stamps = [file.stat().st_mtime_ns for file in files]
    again = ConditioningStudy().run(context)
    assert stamps == [file.stat().st_mtime_ns for file in files]
    np.testing.assert_equal(again.data, first.data)


def test_showers_far_from_every_point_are_refused(showers: Showers) -> None:
    with pytest.raises(
        InputError, match=r"no test point has 20 reference showers around it.*45.* to 5.* GeV"
    ):
        run_study("conditioning", showers, showers, settings={"energies": [10.0], "thetas": [85.0]})


def test_a_detector_without_depth_is_refused(showers: Showers) -> None:
    image = Showers("ild-ecal-10x10", np.ones((30, 100)), np.full(30, 5e4))
    with pytest.raises(InputError, match="needs 3 layers"):
        run_study("conditioning", image, image)
    with pytest.raises(InputError, match="is of 'ild-ecal-10x10'"):
        run_study("conditioning", showers, image, settings=SETTINGS)


def test_the_command_line_writes_the_study(showers: Showers, tmp_path: Path) -> None:
    truth, fake = showers.save(tmp_path / "truth.h5"), tmp_path / "fake.h5"
    showers.replace(cells=showers.cells * 0.98).save(fake)
    arguments = ["study", "conditioning", str(truth), str(fake), "-o", str(tmp_path / "out")]
    arguments += ["--set", "energies=[50]", "--set", "thetas=[60]", "--set", "showers=150"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    found = content["data"]["points"]["50gev-60deg"]["before"]["energy_response"]["fake"]
    assert found["against_reference"]["relative"] == pytest.approx(-0.02, abs=1e-4)
    assert {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")} == {
        figure["name"] for figure in content["figures"]
    }
    assert "fake at the test points" in (tmp_path / "out" / "report.html").read_text()
