"""Shapes: core cells, probabilities and times of known answer, the whole study with a model and with files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import Geant4DataError, InputError
from caloforge.generate import Generator
from caloforge.generate.timing import count_parameters, time_generator
from caloforge.showers import Showers
from caloforge.simulate.run import simulate
from caloforge.studies import run_study
from caloforge.studies.shapes import report as measure
from caloforge.studies.shapes.report import time_geant4
from caloforge.validate.sample import Sample
from caloforge.validate.shape_tests import (
    CoreWindow,
    compare_cores,
    core_energies,
    core_window,
    profile_test,
    reference_core,
    shape_tests,
)
from caloforge.zoo.store import load

QUICK = {"geant4_showers": 0, "timing_seconds": 0.05, "batch": 100}


@pytest.fixture(scope="module")
def showers() -> Showers:
    return simulate("clic-ecal", 240, energy="200-300GeV", engine="gflash", seed=6)


@pytest.fixture(scope="module")
def model(tiny_vae: Path) -> Generator:
    return load(tiny_vae, device="cpu")


# -- core cells ----------------------------------------------------------------------------------------------


def test_the_window_is_the_papers_where_there_are_showers_enough() -> None:
    energy = np.random.default_rng(0).uniform(2e3, 500e3, 100_000)
    window = core_window([energy, energy], 250e3, 2e3, 200)
    assert window.half_width == 2e3
    assert window.n == len(window.rows(energy)) >= 200
    few = core_window([energy[:2000], energy], 250e3, 2e3, 200)
    assert few.half_width > 2e3
    assert few.n >= 200
    nothing = core_window([np.full(50, 1e4)], 250e3, 2e3, 10)
    assert np.isinf(nothing.half_width)
    assert "all energies" in nothing.text


def test_core_cells_are_the_cube_and_scale_with_the_energy(showers: Showers) -> None:
    window = CoreWindow(250e3, 60e3, len(showers))
    cells, energies = reference_core(showers, window)
    assert len(cells) == 7**3
    first, last = np.unravel_index(cells[[0, -1]], (25, 25, 25)), (10, 16)
    assert [int(axis[0]) for axis in first] == [10, 10, 10]
    assert [int(axis[1]) for axis in first] == [last[1]] * 3
    row = 17
    expected = showers.cells[row, cells] * (250e3 / showers.incident_energy[row])
    np.testing.assert_allclose(energies[row], expected, rtol=1e-6)


def test_scaled_cells_have_scaled_ratios(showers: Showers) -> None:
    window = CoreWindow(250e3, 60e3, len(showers))
    cells, known = reference_core(showers, window)
    louder = core_energies(showers.replace(cells=1.1 * showers.cells), window, cells)
    found = compare_cores(known, louder)
    assert found.mean == pytest.approx(1.1, rel=1e-5)
    assert found.std == pytest.approx(1.1, rel=1e-5)
    assert found.n == len(showers)
    same = compare_cores(known, known)
    assert (same.mean, same.std) == (1.0, 1.0)
    np.testing.assert_allclose(found.cell_mean[np.isfinite(found.cell_mean)], 1.1, rtol=1e-5)


# -- probabilities -------------------------------------------------------------------------------------------


def test_profiles_that_differ_are_found_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    bins = np.arange(20)
    shape = np.exp(-0.5 * ((bins - 9) / 3.0) ** 2)
    wide = np.exp(-0.5 * ((bins - 9) / 6.0) ** 2)
    a, b = (shape * rng.gamma(20.0, 1.0, (500, 20)) for _ in range(2))
    statistic, p = profile_test(a, b)
    assert statistic < 0.02
    assert p > 0.9
    statistic, p = profile_test(a, wide * rng.gamma(20.0, 1.0, (500, 20)))
    assert statistic > 0.1
    assert p < 1e-3
    assert profile_test(a, a) == (0.0, 1.0)


def test_quantities_are_tested_slice_by_slice(showers: Showers) -> None:
    reference = Sample(showers, "reference")
    cells = showers.cells.copy()
    high = showers.incident_energy > 250e3
    cells[high] *= 1.2
    sample = Sample(showers.replace(cells=cells), "changed")
    tests = shape_tests(reference, sample, (high.astype(np.int64),) * 2, 2)
    index = tests.shapes.index("visible_energy")
    assert tests.n_profiles == 3
    assert tests.p[index, 0] == 1.0
    assert tests.p[index, 1] < 1e-3
    few = shape_tests(reference, sample, (np.full(len(showers), -1),) * 2, 2)
    assert np.isnan(few.p).all()


# -- speed ---------------------------------------------------------------------------------------------------


def test_parameters_are_those_that_sampling_needs(model: Generator) -> None:
    state = model.model.shipped_state()
    names = {name for name, _ in model.model.named_parameters()}
    assert count_parameters(model) == sum(state[name].numel() for name in state if name in names)
    assert count_parameters(model) < sum(p.numel() for p in model.model.parameters())


def test_a_generator_that_waits_is_as_slow_as_it_waits(
    model: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = simulate("atlas-em-barrel", 50, engine="gflash", seed=9)
    plain = time_generator(model, like, batch=100, seconds=0.01)
    assert plain.repeats >= 2
    assert 0 < plain.wall_ms < 100
    whole = model.generate

    def slow(*args: object, **options: object) -> Showers:
        time.sleep(0.3)
        return whole(*args, **options)

    monkeypatch.setattr(model, "generate", slow)
    found = time_generator(model, like, batch=100, seconds=0.01)
    assert found.wall_ms >= 3.0
    assert found.cpu_ms < found.wall_ms


def test_without_geant4_the_files_own_time_stands_in(
    showers: Showers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = showers.replace(source="geant4", attributes={"cpu_seconds_per_shower": 1.25})
    assert time_geant4(told, 0).seconds == 1.25

    def broken(*args: object) -> None:
        msg = "no data: set something"
        raise Geant4DataError(msg)

    monkeypatch.setattr(measure, "_simulated", broken)
    found = time_geant4(told, 5)
    assert (found.seconds, found.same_run) == (1.25, False)
    assert "no data" in found.how
    assert time_geant4(showers, 5).seconds is None


# -- the study -----------------------------------------------------------------------------------------------


def test_a_scaled_sample_and_an_equal_one(showers: Showers) -> None:
    louder = showers.replace(cells=1.05 * showers.cells)
    settings = QUICK | {"core_showers": 100}
    result = run_study("shapes", showers, showers, louder, settings=settings, labels=["same", "louder"])
    same, loud = result.data["same"], result.data["louder"]
    assert same["shape_mse"]["value"] == 0.0
    assert same["core_cells"]["mean_ratio"][0] == same["core_cells"]["std_ratio"][0] == 1.0
    assert loud["shape_mse"]["value"] > 1e-3
    assert loud["core_cells"]["mean_ratio"][0] == pytest.approx(1.05, rel=1e-4)
    assert loud["sampling_fraction"]["ratio"]["value"] == pytest.approx(1.05, rel=1e-5)
    assert result.data["core_window"]["half_width_mev"] in (25e3, 50e3)
    rows = {(row.sample, row.quantity): row for row in result.rows}
    assert rows["louder", "core cells, ratio of means"].paper == "shapes.mean_ratio_conv2d"
    assert not any("mean shapes" in quantity or "time" in quantity for _, quantity in rows)
    assert "median of 100 % or more for every sample" in result.texts[0]
    assert "Conv2D against Conv3D" in result.blocks


def test_a_model_is_counted_timed_and_compared_with_geant4(model: Generator, tmp_path: Path) -> None:
    truth = simulate("atlas-em-barrel", 200, engine="gflash", seed=8)
    truth = truth.replace(source="geant4", attributes={"cpu_seconds_per_shower": 0.5})
    result = run_study("shapes", truth, model, settings=QUICK, output=tmp_path / "out", labels=["vae"], n=150)
    rows = {row.quantity: row for row in result.rows if row.sample == "vae"}
    assert rows["generator's parameters"].ours == pytest.approx(count_parameters(model) / 1e6)
    times = result.data["vae"]["time"]
    speedup = rows["speed-up against Geant4 on one core, one CPU core"]
    assert speedup.ours == pytest.approx(500.0 / times["cpu_ms"])
    assert speedup.paper is rows["time a shower, one CPU core"].paper is None  # the paper's are a GPU's
    assert result.data["vae"]["n"] == 150
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Conv2D against Conv3D" not in page  # the paper's showers are of another calorimeter
    assert "The numbers of atlas-em-barrel are not compared with those of the paper" in page
    untimed = run_study("shapes", truth, model, settings=QUICK | {"timing": False}, labels=["vae"], n=50)
    assert [row.quantity for row in untimed.rows if "time" in row.quantity or "speed" in row.quantity] == []
    assert any(text.endswith("docs/benchmark.md.") for text in untimed.texts)
    assert list((tmp_path / "out" / "cache").glob("showers-*.h5"))


def test_another_detector_is_refused(showers: Showers, model: Generator) -> None:
    with pytest.raises(InputError, match="is of 'atlas-em-barrel', the reference of 'clic-ecal'"):
        run_study("shapes", showers, model, settings=QUICK)


def test_the_command_line_writes_the_study(showers: Showers, tmp_path: Path) -> None:
    truth, fake = showers.save(tmp_path / "truth.h5"), tmp_path / "fake.h5"
    showers.replace(cells=showers.cells * 0.9).save(fake)
    arguments = ["study", "shapes", str(truth), str(fake), "-o", str(tmp_path / "out"), "--json"]
    answer = CliRunner().invoke(app, [*arguments, "--set", "geant4_showers=0", "--set", "core_showers=60"])
    assert answer.exit_code == 0, answer.output
    content = json.loads(answer.stdout)
    assert content["data"]["fake"]["core_cells"]["mean_ratio"][0] == pytest.approx(0.9, rel=1e-4)
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert written["rows"] == content["rows"]
    assert (tmp_path / "out" / "figures" / "ks_probability.png").is_file()
