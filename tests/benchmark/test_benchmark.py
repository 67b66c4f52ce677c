"""Laws of ``caloforge benchmark``: every measurement is complete, an interrupted run goes on, bad input does no work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import caloforge as cf
from caloforge.benchmark import measure as measuring
from caloforge.benchmark.measure import PROBE, showers_within
from caloforge.benchmark.page import cost, headline, speed_lines, speed_rows, strongest
from caloforge.benchmark.subjects import beams_of, subject_of
from caloforge.errors import IncompatibleError, InputError, OutputExistsError
from caloforge.zoo.store import shipped_models

VAE, GAN = "atlas-photon/vae", "ild-photon-50gev/vae-gan"
QUICK: dict[str, Any] = {"batch": (100,), "threads": (1,), "device": "cpu", "geant4": 0, "seconds": 0.05}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark") / "out"
    cf.benchmark([VAE, GAN], folder, **QUICK)
    return folder


@pytest.fixture
def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    return found


def test_every_measurement_is_complete(content: dict[str, Any]) -> None:
    assert [model["name"] for model in content["models"]] == [VAE, GAN]
    for model in content["models"]:
        assert [entry["batch"] for entry in model["measurements"]] == [100]
        for entry in model["measurements"]:
            assert entry["showers"] == entry["batch"]
            assert (entry["device"], entry["threads"]) == ("cpu", 1)
            for where in ("memory", "file"):
                assert entry[where]["cpu_ms"] > 0
                assert entry[where]["wall_ms"] > 0
            assert entry["peak_file_mb"] >= entry["peak_mb"] > 0
            assert entry["bytes_per_shower"] > 0
            first = entry["first_call"]
            assert first["from_loading"]["wall_ms"] >= entry["load"]["wall_ms"]
        assert model["headline"] == 0


def test_a_detector_has_one_beam_and_images_are_compared_with_their_source(content: dict[str, Any]) -> None:
    assert set(content["beams"]) == {"atlas-em-barrel", "ild-ecal"}
    assert content["models"][1]["detector"] == "ild-ecal-10x10"
    assert content["models"][1]["beam"] == "ild-ecal"
    for beam in content["beams"].values():
        assert beam["gflash"]["origin"] == "this run"
        assert beam["gflash"]["memory"]["cpu_ms"] > 0
        assert beam["geant4"]["origin"] != "this run"
    files = shipped_models()[VAE].content["data"]["files"]
    seconds = sum(entry["showers"] * entry["made"]["cpu_seconds_per_shower"] for entry in files)
    mean = 1e3 * seconds / sum(entry["showers"] for entry in files)
    assert content["beams"]["atlas-em-barrel"]["geant4"]["cpu_ms"] == pytest.approx(mean, rel=1e-3)


def test_accuracy_is_the_cards(content: dict[str, Any]) -> None:
    for model in content["models"]:
        figures = shipped_models()[model["name"]].content["metrics"]["figures"]
        for name in ("auc_strongest", "auc_cells", "auc_observables", "auc_spectrum", "detectability"):
            assert model["accuracy"][name]["value"] == figures[name]["value"]


def test_page_and_figure_are_written_and_need_no_network(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert VAE in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script src" not in page
    for ending in ("png", "pdf"):
        assert (folder / "figures" / f"pareto.{ending}").stat().st_size > 1000


def test_no_temporary_file_and_no_path_of_this_machine_is_left(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"benchmark.json", "report.html", "figures", "cache"}
    assert {path.suffix for path in (folder / "cache").iterdir()} == {".json"}
    for name in ("benchmark.json", "report.html"):
        assert str(folder.parent) not in (folder / name).read_text()


def test_the_same_command_measures_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("measured again")

    before = json.loads((folder / "benchmark.json").read_text())
    monkeypatch.setattr("caloforge.benchmark.in_new_process", refuse)
    assert cf.benchmark([VAE, GAN], folder, **QUICK).content["models"] == before["models"]
    with pytest.raises(OutputExistsError):
        cf.benchmark([VAE], folder, **QUICK)


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    broken = False

    def fake(request: dict[str, Any], _: Path) -> dict[str, Any]:
        asked.append(f"{request['kind']} {request.get('batch', '')}".strip())
        if broken and request.get("batch") == 100:
            raise KeyboardInterrupt
        times = {"wall_ms": 2.0, "wall_uncertainty": 0.1, "cpu_ms": 1.0, "cpu_uncertainty": 0.1, "repeats": 2}
        first = {"wall_ms": 3.0, "cpu_ms": 2.0, "showers": 1, "from_loading": {"wall_ms": 5.0, "cpu_ms": 4.0}}
        n = request.get("batch", 100)
        return {"memory": times, "file": times, "showers": n, "bytes_per_shower": 9.0, "peak_mb": 1.0, "peak_file_mb": 1.0,
                "first_call": first, "load": {"wall_ms": 2.0, "cpu_ms": 2.0}}  # fmt: skip

    monkeypatch.setattr("caloforge.benchmark.in_new_process", fake)
    both = {**QUICK, "batch": (1, 100)}
    for force in (False, True):
        out = tmp_path / str(force)
        if force:  # a finished run that is measured again, and interrupted
            cf.benchmark(VAE, out, **both)
        asked.clear()
        broken = True
        with pytest.raises(KeyboardInterrupt):
            cf.benchmark(VAE, out, **both, force=force)
        assert asked == ["gflash", "model 1", "model 100"]
        assert not (out / "benchmark.json").exists()
        asked.clear()
        broken = False
        cf.benchmark(VAE, out, **both, force=force)
        assert asked == ["model 100"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"sources": "no-such-model"}, "no-such-model"),
        ({"batch": (0,)}, "batch"),
        ({"threads": ("many",)}, "many"),
        ({"geant4": -1}, "Geant4"),
        ({"seconds": 0.0}, "0 s"),
        ({"device": "tpu"}, "tpu"),
        ({"energy": "50"}, "unit"),
        ({"energy": "900GeV"}, "trained on energy"),
        ({"theta": 60}, "trained on theta"),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments: dict[str, Any], text: str, tmp_path: Path) -> None:
    asked = {"sources": VAE, **QUICK, **arguments}
    with pytest.raises(InputError, match=text) as refused:
        cf.benchmark(**asked, output=tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_models_of_a_detector_share_the_energies_that_all_were_trained_on() -> None:
    wide = subject_of("clic-electron-wide")
    beam = beams_of([wide], None, None)["clic-ecal-wide"]
    assert (beam.energy.low, beam.energy.high) == (97_500.0, 102_500.0)
    assert (beam.theta.low, beam.theta.high) == (87.5, 92.5)
    assert str(beams_of([wide], "100GeV", 90)["clic-ecal-wide"].energy) == "100GeV"
    with pytest.raises(IncompatibleError):
        beams_of([wide], "50-100GeV", None)
    both = [subject_of(f"atlas-photon/{name}") for name in ("vae", "wgan-gp")]
    assert list(beams_of(both, None, None)) == ["atlas-em-barrel"]


def test_a_run_folder_is_timed_without_a_card(run: Path) -> None:
    found = cf.benchmark(run, **QUICK).content
    model = found["models"][0]
    assert model["accuracy"] == {}
    assert model["measurements"][0]["memory"]["repeats"] >= 1
    assert strongest(model) is None
    assert found["beams"]["atlas-em-barrel"]["geant4"] is None


def test_geant4_that_cannot_run_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(request: dict[str, Any], _: Path) -> dict[str, Any]:
        raise measuring.RefusedMeasurementError("Geant4's tables are missing")

    monkeypatch.setattr("caloforge.benchmark.in_new_process", fake)
    with pytest.raises(InputError):  # the model's own refusal is not hidden
        cf.benchmark(VAE, tmp_path / "out", **{**QUICK, "geant4": 2})
    real = measuring.measure

    def only_models(request: dict[str, Any], folder: Path) -> dict[str, Any]:
        return fake(request, folder) if request["kind"] == "geant4" else real(request, folder)

    monkeypatch.setattr("caloforge.benchmark.in_new_process", only_models)
    found = cf.benchmark(VAE, **{**QUICK, "geant4": 2, "batch": (1,)}).content
    assert any("geant4 was not timed" in note and "card" in note for note in found["notes"])
    assert found["beams"]["atlas-em-barrel"]["geant4"]["origin"] != "this run"
    (single,) = found["models"][0]["measurements"]
    assert single["first_call"]["showers"] == single["showers"] == 1


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    request = {
        "kind": "model",
        "source": VAE,
        "device": "cpu",
        "threads": 1,
        "batch": 1,
        "seed": 0,
        "seconds": 0.05,
    }
    with pytest.raises(measuring.RefusedMeasurementError, match="outside the training"):
        measuring.measure({**request, "energy": "5000GeV", "theta": "90"}, tmp_path)
    with pytest.raises(measuring.FailedMeasurementError, match="ended with code"):
        measuring.measure({**request, "kind": "nothing"}, tmp_path)


def test_large_batches_that_take_too_long_are_made_smaller_or_left_out() -> None:
    assert showers_within(10_000, 0.01, 10.0) == 10_000
    assert showers_within(PROBE, 1000.0, 0.1) == PROBE
    assert showers_within(10_000, 5.0, 10.0) == 1000
    assert showers_within(10_000, 60.0, 10.0) == 0


def test_calls_of_a_gpu_grow_tenfold_until_they_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measuring, "_clocks", lambda: (clock[0], 0.0))
    monkeypatch.setattr(measuring, "_since", lambda before, n: {"wall_ms": 1e3 * (clock[0] - before[0]) / n})
    made: list[int] = []

    def generate(n: int) -> None:
        made.append(n)
        clock[0] += 1.0 + 1e-4 * n  # s: a fixed time, and little for each shower

    assert measuring._large(generate, 100, 10_000, 10.0) == pytest.approx(0.2)
    assert made == [100, 1000, 10_000]
    made.clear()
    assert measuring._large(generate, 100, 10_000, 1.0) == pytest.approx(10.1)
    assert made == [100]


def test_the_table_is_of_one_core_and_a_hundred_showers() -> None:
    def entry(device: str, threads: int, batch: int) -> dict[str, Any]:
        return {"device": device, "threads": threads, "batch": batch, "memory": {}}

    several = [entry("cuda", 2, 100), entry("cpu", 2, 100), entry("cpu", 1, 10_000), entry("cpu", 1, 100)]
    assert headline(several) == 3
    assert headline(several[:2]) == 1
    assert headline([{"device": "cpu", "threads": 1, "batch": 1, "skipped": "why"}]) is None
    times = {"cpu_ms": 1.0, "cpu_uncertainty": 0.1, "wall_ms": 2.0, "wall_uncertainty": 0.2}
    assert cost({"device": "cpu", "memory": times}) == (1.0, 0.1)
    assert cost({"device": "cuda", "memory": times}) == (2.0, 0.2)
    assert cost({"skipped": "why"}) is None


def test_the_markdown_has_a_row_for_each_model(content: dict[str, Any]) -> None:
    rows, lines = speed_rows(content), speed_lines(content, compact=True)
    assert len(rows) == len(content["models"]) + 1
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [line.split("|")[1].strip() for line in lines[2:]] == [f"`{VAE}`", f"`{GAN}`"]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


@pytest.mark.geant4
def test_geant4_is_timed_at_the_mean_energy_of_the_beam(tmp_path: Path) -> None:
    request = {
        "kind": "geant4", "detector": "atlas-em-barrel", "definition": "", "particle": "gamma", "energy": "1-3GeV",
        "theta": "90", "seed": 1, "threads": 1, "seconds": 1.0, "showers": 4,
    }  # fmt: skip
    try:
        found = measuring.measure(request, tmp_path)
    except measuring.RefusedMeasurementError as missing:
        pytest.skip(str(missing))
    assert found["showers"] == 4
    assert 1000.0 <= found["mean_energy_mev"] <= 3000.0
    assert found["beam_mean_energy_mev"] == pytest.approx(2000.0)
    assert found["cpu_ms"] > 0
