"""The whole comparison on made-up showers: files, keys, labels, resuming, gate, refusals."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.errors import (
    ConfigError,
    GateError,
    IncompatibleError,
    InputError,
    MissingExtraError,
    OutputExistsError,
    SeenShowersError,
    TooFewShowersError,
)
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers, read_showers
from caloforge.validate import driver
from caloforge.validate.driver import validate
from caloforge.validate.inputs import check_conditions, check_detectors, match_conditions
from caloforge.validate.metrics.base import METRICS
from caloforge.validate.plots.draw import Drawing
from caloforge.validate.plots.families import FAMILIES

FAST = {"separation_power", "distances", "classifier_cnn"}  # the last one runs only when it is asked for
DETECTOR = "ild-ecal-10x10"


@pytest.fixture(autouse=True)
def _fast_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep only quick metrics: each has tests of its own."""
    METRICS.names()
    monkeypatch.setattr(METRICS, "_entries", {k: v for k, v in METRICS._entries.items() if k in FAST})


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawings for paper, which take most of the time."""
    from caloforge.validate.report import build

    monkeypatch.setattr(build, "Drawing", lambda figures, folder: Drawing([], folder))


def toy(
    n: int = 200,
    seed: int = 0,
    energy: Any = 50_000.0,
    scale: float = 1.0,
    detector: str = DETECTOR,
    theta: Any = None,
    source: str = "geant4",
) -> Showers:
    """Return showers that fall off exponentially from a random axis."""
    rng = np.random.default_rng(seed)
    geometry = get_detector(detector)
    incident = np.broadcast_to(np.asarray(energy(rng, n) if callable(energy) else energy, float), (n,)).copy()
    axis = rng.normal(0.0, 5.0, size=(n, 2))
    x, y = geometry.cell_centres[:, 0], geometry.cell_centres[:, 1]
    distance = np.hypot(x - axis[:, :1], y - axis[:, 1:])
    cells = np.exp(-distance / 20.0) * rng.gamma(4.0, 0.25, size=distance.shape)
    cells *= (scale * 0.02 * incident / cells.sum(axis=1))[:, None] * rng.normal(1.0, 0.03, size=(n, 1))
    cells[cells < 0.02] = 0.0
    conditions = {name: np.zeros((n, k), np.float32) for name, k in geometry.condition_sizes.items()}
    angles = (
        None
        if theta is None
        else np.broadcast_to(np.asarray(theta(rng, n) if callable(theta) else theta, float), (n,)).copy()
    )
    return Showers(geometry, cells.astype(np.float32), incident, angles, conditions, "gamma", source, seed)


def uniform(low: float, high: float) -> Any:
    return lambda rng, n: rng.uniform(low, high, n)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    made = {
        "truth": toy(),
        "near": toy(seed=1, source="near-model"),
        "far": toy(seed=2, scale=1.3, source="far-model"),
    }
    return {
        name: showers.save(folder / f"{name}.h5") and folder / f"{name}.h5" for name, showers in made.items()
    }


# -- what comes out


def test_the_folder_holds_metrics_report_and_figures(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {
        name: entry for name, entry in FAMILIES._entries.items() if name in ("cells", "images", "energies")
    }
    monkeypatch.setattr(FAMILIES, "_entries", few)
    report = validate(files["truth"], files["near"], files["far"], output=tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics == report.metrics
    assert list(metrics["samples"]) == ["near", "far"]
    for label in ("near", "far"):
        entry = metrics["samples"][label]
        assert {"separation_power", "ks", "wasserstein", "skipped", "provenance"} <= set(entry)
        assert entry["n_generated"] == entry["n_reference"] == 200
        assert entry["provenance"]["file"] == str(files[label])
        assert len(entry["provenance"]["sha256"]) == 64
    assert metrics["reference"]["source"] == "geant4"
    assert (
        metrics["command"]
        == f"caloforge validate {files['truth']} {files['near']} {files['far']} -o {tmp_path / 'out'}"
    )
    assert "ks" not in metrics  # with two samples there is no place at the top
    near, far = (metrics["samples"][label]["ks"]["visible_energy"]["value"] for label in ("near", "far"))
    assert far > 0.9 > 0.2 > near
    page = (tmp_path / "out" / "report.html").read_text()
    assert report.path == tmp_path / "out" / "report.html"
    assert report.folder == tmp_path / "out"
    assert metrics["command"] in page
    assert metrics["reference"]["sha256"] in page
    assert page.count('class="plot') == len(list((tmp_path / "out" / "figures").glob("*.png")))
    pngs = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert pngs == {path.stem for path in (tmp_path / "out" / "figures").glob("*.pdf")}
    assert pngs == {"cell_spectrum", "image_front", "image_front_ratio", "event_0", "event_1", "event_2"}
    assert not list((tmp_path / "out").rglob("*.part"))


def test_one_sample_has_its_metrics_at_the_top_as_well(files: dict[str, Path]) -> None:
    report = validate(files["truth"], files["near"])
    assert report.path is None
    assert report.folder is None
    only = report.metrics["samples"]["near"]
    assert report.metrics["ks"] == only["ks"]
    assert report.metrics["n_generated"] == 200
    assert "skipped" not in report.metrics


def test_showers_in_memory_give_the_same_numbers_as_files(files: dict[str, Path]) -> None:
    with open_showers(files["near"]) as opened:
        first = validate(files["truth"], opened, labels=["truth", "x"]).metrics["samples"]["x"]
    second = validate(toy(), toy(seed=1), labels=["truth", "x"]).metrics["samples"]["x"]
    assert first["ks"] == second["ks"]
    assert second["provenance"]["file"] is None
    assert first["provenance"]["file"] == str(files["near"])


def test_several_files_are_one_sample(files: dict[str, Path], tmp_path: Path) -> None:
    """The parts of a file as a list give the numbers of the whole."""
    with open_showers(files["near"]) as whole:
        parts = [whole[:70].save(tmp_path / "a.h5"), whole[70:].save(tmp_path / "b.h5")]
    names = ["truth", "x"]
    expected = validate(files["truth"], files["near"], labels=names).metrics["samples"]["x"]
    report = validate([files["truth"]], parts, labels=names)
    found = report.metrics["samples"]["x"]
    assert {key: found[key] for key in expected if key != "provenance"} == {
        key: value for key, value in expected.items() if key != "provenance"
    }
    assert found["provenance"]["file"] == [str(part) for part in parts]
    assert len(found["provenance"]["sha256"]) == 64
    assert repr([str(part) for part in parts]) in report.metrics["command"]
    mixed = validate(toy(), [parts[0], read_showers(parts[1])], labels=names).metrics["samples"]["x"]
    assert (mixed["ks"], mixed["provenance"]["file"]) == (expected["ks"], None)
    with pytest.raises(InputError, match="a sample of no files"):
        validate(files["truth"], [])


def test_labels_are_different_and_speak(files: dict[str, Path]) -> None:
    report = validate(toy(), toy(seed=1, source="vae"), toy(seed=2, source="vae"), files["near"])
    assert list(report.metrics["samples"]) == ["vae", "vae (2)", "near"]
    assert report.metrics["reference"]["label"] == "Geant4 (reference)"
    assert report.metrics["command"].startswith("caloforge.validate(")
    with pytest.raises(InputError, match="2 labels for 3 samples"):
        validate(toy(), toy(seed=1), toy(seed=2), labels=["a", "b"])


def test_the_summary_names_every_sample(files: dict[str, Path]) -> None:
    table = validate(files["truth"], files["near"], files["far"]).summary()
    assert [str(column.header) for column in table.columns[1:]] == ["near", "far"]


def test_the_command_in_the_report_makes_the_same_comparison(files: dict[str, Path]) -> None:
    settings = {"seed": 3, "threshold": 0.2, "reconstruction": False, "n_max": 50, "n_bootstrap": 4}
    given = files["truth"], files["near"]
    command = validate(*given, settings=settings, labels=["a b", "c"]).metrics["command"]
    words = shlex.split(command)
    assert words[:4] == ["caloforge", "validate", *map(str, given)]
    assert words[4:] == [
        *("--label", "a b", "--label", "c", "--seed", "3", "--n-max", "50"),
        *("--threshold", "0.2", "--no-reconstruction"),
    ]
    assert "--" not in validate(*given).metrics["command"]
    in_memory = validate(toy(), toy(seed=1), settings={"n_bootstrap": 4}).metrics["command"]
    assert "settings={'n_bootstrap': 4}" in in_memory


# -- going on


@pytest.mark.usefixtures("no_drawing")
def test_an_interrupted_comparison_goes_on(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import caloforge.validate.metrics as metrics_module

    real = metrics_module.compute_metrics
    measured: list[str] = []

    def killed(reference: Any, generated: Any, settings: Any, *rest: Any, **more: Any) -> Any:
        measured.append(generated.label)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return real(reference, generated, settings, *rest, **more)

    monkeypatch.setattr(metrics_module, "compute_metrics", killed)
    arguments = (files["truth"], files["near"], files["far"])
    with pytest.raises(KeyboardInterrupt):
        validate(*arguments, output=tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()
    resumed = validate(*arguments, output=tmp_path / "out")
    assert measured == ["near", "far", "far"]
    assert resumed.metrics["samples"] == validate(*arguments).metrics["samples"]


@pytest.mark.usefixtures("no_drawing")
def test_a_folder_with_something_else_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError):
        validate(files["truth"], files["near"], output=tmp_path)
    validate(files["truth"], files["near"], output=tmp_path, force=True)
    with pytest.raises(OutputExistsError):
        validate(files["truth"], files["far"], output=tmp_path)
    with pytest.raises(OutputExistsError):
        validate(files["truth"], files["near"], output=tmp_path, settings={"seed": 1})
    with pytest.raises(OutputExistsError):
        validate(files["truth"], files["near"], output=tmp_path / "mine.txt")


# -- showers that a model has seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train a model for two epochs on fast showers; return its files."""
    from caloforge.simulate import simulate
    from caloforge.train import train
    from caloforge.zoo.store import load

    folder = tmp_path_factory.mktemp("trained")
    for seed, name in ((1, "training"), (2, "fresh")):
        simulate(
            "atlas-em-barrel", n=300, energy="20GeV", engine="gflash", seed=seed, output=folder / f"{name}.h5"
        )
    settings = ("epochs=2", "latent=4", "hidden=[32]", "calibrate=false")
    run = train("vae", folder / "training.h5", folder / "run", overrides=settings, device="cpu")
    load(run, device="cpu").write(folder / "vae.h5", like=folder / "fresh.h5")
    return {name: folder / f"{name}.h5" for name in ("training", "fresh", "vae")}


@pytest.mark.usefixtures("no_drawing")
def test_a_model_is_not_judged_by_what_it_has_seen(trained: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        SeenShowersError, match=r"^300 of 300 reference .* 'vae'; use allow_seen=True"
    ) as caught:
        validate(trained["training"], trained["vae"], output=tmp_path / "out")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    report = validate(trained["training"], trained["vae"], output=tmp_path / "out", allow_seen=True)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["samples"]["vae"]["seen"] == {"n": 300, "of": 300}
    assert report.metrics["command"].endswith(" --allow-seen")
    assert "seen" not in content


def test_seen_showers_are_found_in_one_of_several_files(trained: dict[str, Path]) -> None:
    with pytest.raises(SeenShowersError, match=r"^300 of 600 reference showers"):
        validate([trained["fresh"], trained["training"]], trained["vae"])
    with pytest.raises(SeenShowersError, match=r"^300 of 300 reference showers"):
        validate(trained["training"], [trained["vae"], trained["vae"]])


def test_fresh_showers_judge_it(trained: dict[str, Path]) -> None:
    report = validate(trained["fresh"], trained["vae"])
    assert report.metrics["samples"]["vae"]["seen"] == {"n": 0, "of": 300}
    plain = validate(trained["fresh"], trained["training"], labels=["fresh", "gflash"])
    assert "seen" not in plain.metrics["samples"]["gflash"]


def test_a_few_seen_showers_among_fresh_ones_are_found(trained: dict[str, Path]) -> None:
    fresh, training, fake = (read_showers(trained[name]) for name in ("fresh", "training", "vae"))
    mixed = Showers.concatenate([fresh[:250], training[:7]])
    with pytest.raises(SeenShowersError, match=r"^7 of 257 reference showers .*'fake'"):
        validate(mixed, fresh[:100], fake[:100], labels=["truth", "fast", "fake"])
    report = validate(mixed, fake[100:], labels=["truth", "fake"], allow_seen=True)
    assert report.metrics["samples"]["fake"]["seen"] == {"n": 7, "of": 257}
    assert "allow_seen=True" in report.metrics["command"]


# -- the gate


@pytest.mark.usefixtures("no_drawing")
def test_the_gate_fails_after_everything_is_written(files: dict[str, Path], tmp_path: Path) -> None:
    limits = {"ks.visible_energy": {"max": 0.5}}
    with pytest.raises(GateError, match=r"1 of 2 limits failed: far: ks.visible_energy = "):
        validate(files["truth"], files["near"], files["far"], output=tmp_path / "out", limits=limits)
    assert "limits-table" in (tmp_path / "out" / "report.html").read_text()
    report = validate(files["truth"], files["near"], limits=limits)
    assert [row.passed for row in report.limits] == [True]


def test_a_limit_on_an_unknown_metric_stops_before_any_work(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such metric; did you mean"):
        validate(
            files["truth"], files["near"], output=tmp_path / "out", limits={"separation_pwer": {"max": 1}}
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["plotly", "mplhep", "jinja2"])
def test_a_missing_extra_stops_before_any_work(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    import caloforge.validate.metrics as metrics_module

    measured: list[Any] = []
    monkeypatch.setattr(metrics_module, "compute_metrics", lambda *given, **named: measured.append(given))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"'{module}' .* pip install 'caloforge\[report\]'"):
        validate(files["truth"], files["near"], output=tmp_path / "out")
    assert measured == []
    assert not (tmp_path / "out").exists()


def test_the_threshold_reaches_the_observables(monkeypatch: pytest.MonkeyPatch) -> None:
    import caloforge.validate.metrics as metrics_module

    seen: list[Any] = []
    monkeypatch.setattr(
        metrics_module,
        "compute_metrics",
        lambda *samples_and_settings, cluster: seen.append(samples_and_settings) or {},
    )
    given = toy(60), toy(60, seed=1)
    for threshold in (0.05, 2.0):
        validate(*given, settings={"threshold": threshold})
        for sample, showers in zip(seen[-1][:2], given, strict=True):
            expected = (showers.cells > threshold).sum(axis=1)
            np.testing.assert_array_equal(sample.observables["hits"], expected)
            np.testing.assert_array_equal(
                sample.halves()[0].observables["hits"], expected[sample.halves()[0].rows]
            )
    assert not np.array_equal(*(samples[0].observables["hits"] for samples in seen))


def test_a_metric_that_was_skipped_fails_its_limit(files: dict[str, Path]) -> None:
    skipped = METRICS["classifier_cnn"].keys[0].name
    with pytest.raises(GateError, match=rf"{skipped} = not measured \(.+\), expected <= 1"):
        validate(files["truth"], files["near"], limits={skipped: {"max": 1}})


# -- what does not go together


def test_a_reference_alone_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="only one was given"):
        validate(files["truth"])


def test_other_detectors_are_refused() -> None:
    with pytest.raises(
        IncompatibleError, match="gen: detector 'ild-ecal', but the reference has 'ild-ecal-10x10'"
    ):
        check_detectors(toy(5), {"gen": toy(5, detector="ild-ecal")})


def test_another_order_of_the_cells_is_refused() -> None:
    from dataclasses import replace

    detector = get_detector(DETECTOR)
    other = toy(5).replace(detector=replace(detector, order="layered"))
    with pytest.raises(
        IncompatibleError, match=r"in the order 'layered', but those of the reference in 'xyl'"
    ):
        check_detectors(toy(5), {"gen": other})
    wider = replace(detector, layers=(replace(detector.layers[0], pitch_x=99.0),))
    with pytest.raises(IncompatibleError, match="other layers or cells"):
        check_detectors(toy(5), {"gen": toy(5).replace(detector=wider)})


def test_ranges_that_do_not_overlap_are_refused_with_an_offer() -> None:
    with pytest.raises(
        IncompatibleError,
        match=r"incident_energy 80000 MeV does not overlap .* 50000 MeV: .*match_conditions=True",
    ):
        validate(toy(), toy(energy=80_000.0))
    with pytest.raises(
        IncompatibleError,
        match=r"incident_theta 30\.\d+ to 59\.\d+ degrees does not overlap with the reference's 90 degrees",
    ):
        validate(toy(), toy(theta=uniform(30, 60)))


def test_ranges_that_differ_are_refused_with_an_offer() -> None:
    reference = toy(energy=uniform(10_000, 100_000))
    with pytest.raises(IncompatibleError, match=r"covers another range than .*match_conditions=True"):
        validate(reference, toy(seed=1))
    check_conditions(reference, {"gen": toy(seed=1, energy=uniform(10_000, 100_000))})


def test_a_missing_condition_is_refused() -> None:
    reference = toy(20, detector="atlas-em-barrel")
    with pytest.raises(IncompatibleError, match=r"has no condition 'alignment_phi'|has no condition"):
        check_conditions(reference, {"gen": reference.replace(conditions={})})


def test_a_model_need_not_know_the_impact() -> None:
    reference = toy(20, detector="atlas-em-barrel")
    alignments = {name: values for name, values in reference.conditions.items() if name != "impact"}
    assert "impact" in reference.conditions
    check_conditions(reference, {"gen": reference.replace(conditions=alignments)})


def test_matching_leaves_the_common_range_with_one_distribution() -> None:
    reference = toy(3000, energy=uniform(10_000, 100_000), theta=uniform(30, 90))
    steep = toy(
        20_000, seed=1, energy=lambda rng, n: 20_000 * rng.power(0.4, n) + 40_000, theta=uniform(60, 90)
    )
    matched = match_conditions(reference, {"gen": steep})
    first, second = matched
    for name, low, high in (("incident_energy", 40_000, 60_000), ("incident_theta", 60, 90)):
        ours, theirs = getattr(first, name), getattr(second, name)
        assert low * 0.95 <= min(ours.min(), theirs.min()) <= max(ours.max(), theirs.max()) <= high * 1.05
        assert abs(np.median(ours) - np.median(theirs)) < 0.12 * (high - low)
    assert abs(np.median(steep.incident_energy) - np.median(first.incident_energy)) > 0.2 * 20_000
    np.testing.assert_array_equal(second[:].cells, steep.take(second.indices).cells)
    again = match_conditions(reference, {"gen": steep})[1]
    np.testing.assert_array_equal(again.indices, second.indices)


def test_matching_without_a_common_range_or_with_too_few_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="no range in common"):
        match_conditions(toy(50), {"gen": toy(50, energy=80_000.0)})
    with pytest.raises(TooFewShowersError, match=r"leaves .* expected at least 10"):
        match_conditions(toy(5), {"gen": toy(50)})


def test_matched_samples_are_compared(tmp_path: Path) -> None:
    reference = toy(400, energy=uniform(10_000, 100_000))
    generated = toy(400, seed=1, energy=uniform(40_000, 60_000), source="vae")
    report = validate(reference, generated, match_conditions=True)
    entry = report.metrics["samples"]["vae"]
    assert entry["n_reference"] == report.metrics["reference"]["n_compared"] < 400
    assert report.metrics["match_conditions"] is True
    assert "match_conditions=True" in report.metrics["command"]


def test_settings_and_keys_are_checked() -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        validate(toy(20), toy(20, seed=1), settings={"no_such_option": 1})
    assert {"ks", "n_reference"} <= set(driver._known_keys())
