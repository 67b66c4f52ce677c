"""The flagship's study: trainings and measurements that go on, and the page that says what was measured."""

import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.data import sample_path
from caloforge.files import sha256_file, write_json
from caloforge.models.flow.distilled import FlowMatchingFast
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.settings import FlowSampling
from caloforge.showers import read_showers
from caloforge.text_files import read_json
from caloforge.train import RunFolder
from caloforge.zoo.shipping import settings_of_command
from caloforge.zoo.store import load

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

TINY = """
[common]
dataset = "atlas-photon"
model = "flow-matching"
preset = "small"
data = ["geant4.h5"]
set = ["batch_size=64", "summary_epochs=2", "epochs=2", "width=16", "summary_width=16", "train.validation=0.1"]

[baseline]
title = "baseline"
figure = ["ablations", "size", "data", "steps"]

[no-trend]
title = "no trend of the core"
figure = ["ablations", "size", "data"]
note = "of the test."
set = ["core=1.0"]

[student]
title = "student"
figure = ["steps"]
model = "flow-matching-fast"
set = ["summary_student_epochs=2", "student_epochs=2", "jumps=2", "summary_jumps=2"]
"""
NAMES = ["baseline", "baseline@3", "no-trend", "student", "student@3"]
Script = Callable[..., int]


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    """Return a function that runs the script in this process."""
    import flagship_study

    with pytest.MonkeyPatch.context() as patch:

        def run(*words: str | Path) -> int:
            patch.setattr(sys, "argv", ["flagship_study.py", *map(str, words)])
            return flagship_study.main()

        yield run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, script: Script) -> Path:
    """Return a folder with the plan, showers, two teachers and a student, trained."""
    path = tmp_path_factory.mktemp("flagship")
    showers = read_showers(sample_path())
    order = np.random.default_rng(0).permutation(len(showers))
    showers.take(np.sort(order[:200])).save(path / "geant4.h5")
    showers.take(np.sort(order[200:360])).save(path / "held.h5")
    (path / "plan.toml").write_text(TINY)
    assert (
        script("train", *_of(path), "--data", path, "--runs", path / "runs", "--jobs", "2", "--device", "cpu")
        == 0
    )
    return path


@pytest.fixture(scope="module")
def results(folder: Path, script: Script) -> Path:
    """Return the file of all measurements."""
    assert _measure(script, folder) == 0
    return folder / "results" / "flagship.json"


def _of(folder: Path) -> list[str | Path]:
    return ["--plan", folder / "plan.toml"]


def _measure(script: Script, folder: Path, *words: str | Path, reference: str = "held.h5") -> int:
    fixed = ["-n", "120", "--networks", "3", "--steps", "3", "--seconds", "0.1", "--device", "cpu"]
    output = folder / "results" / "flagship.json"
    return script("measure", folder / "runs", folder / reference, "-o", output, *_of(folder), *fixed, *words)


@pytest.mark.slow
def test_finished_trainings_are_skipped(
    folder: Path, script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caloforge.zoo.recipes.subprocess.Popen", None)  # nothing is started
    words = ("train", *_of(folder), "--data", folder, "--runs", folder / "runs", "--only", "ablations")
    assert script(*words, "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "baseline: is trained" in said
    assert "no-trend: is trained" in said
    assert "student" not in said


@pytest.mark.slow
def test_everything_is_measured(folder: Path, results: Path) -> None:
    content = read_json(results)
    entries = content["entries"]
    assert sorted(entries) == NAMES
    assert content["reference"]["n"] == 120
    assert content["reference"]["files"][0]["sha256"] == sha256_file(folder / "held.h5")
    assert str(folder) not in results.read_text()
    for name, entry in entries.items():
        for figure in ("auc_high", "auc_low"):
            assert len(entry["figures"][figure]["networks"]) == 3
            mean = np.mean(entry["figures"][figure]["networks"])
            assert entry["figures"][figure]["value"] == pytest.approx(mean, abs=1e-4)
            assert entry["figures"][figure]["uncertainty"] >= 0  # 0 where all can be told
        assert entry["figures"]["fpd"]["value"] > 0, name
        assert entry["time"]["ms"] > 0
        run = read_json(folder / "runs" / name.partition("@")[0] / "run.json")
        assert entry["train_showers"] == run["train_showers"] == 200 - run["held_out_showers"]
    assert (entries["baseline"]["steps"], entries["baseline"]["evaluations"]) == (8, 16)
    assert (entries["baseline@3"]["steps"], entries["baseline@3"]["evaluations"]) == (3, 6)
    assert (entries["student"]["kind"], entries["student"]["evaluations"]) == ("student", 2)
    assert entries["student@3"]["kind"] == "teacher"
    again = settings_of_command(entries["no-trend"]["command"])
    from caloforge.studies.flagship.plan import read_plan

    assert again == read_plan(folder / "plan.toml")["no-trend"].resolved()


@pytest.mark.slow
def test_a_stopped_measurement_goes_on(
    folder: Path, results: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_json(results)
    stopped = {**before, "entries": {k: v for k, v in before["entries"].items() if k != "baseline@3"}}
    write_json(results, stopped)
    capsys.readouterr()
    assert _measure(script, folder) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^(\S+): AUC", said, re.MULTILINE) == ["baseline@3"]
    after = read_json(results)
    assert after["entries"]["baseline@3"]["figures"] == before["entries"]["baseline@3"]["figures"]
    assert after["entries"]["no-trend"] == before["entries"]["no-trend"]


@pytest.mark.slow
def test_side_by_side_gives_the_same(folder: Path, results: Path, script: Script, tmp_path: Path) -> None:
    output = tmp_path / "both.json"
    assert _measure(script, folder, "-o", output, "--only", "ablations", "--jobs", "2") == 0
    ours, theirs = read_json(output)["entries"], read_json(results)["entries"]
    assert sorted(ours) == ["baseline", "baseline@3", "no-trend"]
    assert all(ours[name]["figures"] == theirs[name]["figures"] for name in ours)


@pytest.mark.slow
def test_showers_that_were_trained_on_are_refused(
    folder: Path, results: Path, script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-o", tmp_path / "out.json", "--only", "no-trend")
    assert _measure(script, folder, *words, reference="geant4.h5") == 1
    assert "no-trend: was trained on geant4.h5" in capsys.readouterr().err
    assert read_json(tmp_path / "out.json")["entries"] == {}


@pytest.mark.slow
def test_the_teacher_in_a_students_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from caloforge.studies.flagship.plan import teacher_of

    monkeypatch.setattr(FlowMatchingFast, "balances", FlowMatching.balances)
    student = load(folder / "runs" / "student", "cpu")
    teacher = teacher_of(student, {"steps": 3, "summary_steps": 3})
    (slow,) = RunFolder(folder / "runs" / "student").models()
    object.__setattr__(slow, "sampling", FlowSampling(steps=3, summary_steps=3, calibrated=False))
    slow.filled_factor.fill_(1.0)
    slow.core.edge.fill_(-torch.inf)
    for method in (FlowMatching.summarise, FlowMatching.shape, FlowMatching.sample):
        setattr(slow, method.__name__, types.MethodType(method, slow))
    like = read_showers(folder / "held.h5")[:20]
    expected = slow.draw(slow.condition_matrix(like), seed=4).numpy()
    made = teacher.generate(like=like, seed=4).cells
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-2)
    assert not np.allclose(made, student.generate(like=like, seed=4).cells, rtol=1e-3, atol=1e-2)
    object.__setattr__(slow, "sampling", FlowSampling(steps=3, summary_steps=3))
    assert not np.allclose(made, slow.draw(slow.condition_matrix(like), seed=4).numpy(), rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_the_page_says_what_was_measured(folder: Path, results: Path, script: Script) -> None:
    page = folder / "flagship.md"
    assert script("page", results, "-o", page, *_of(folder)) == 0
    text, entries = page.read_text(), read_json(results)["entries"]
    figures = re.findall(r"!\[\w+\]\((.*?)\)", text)
    assert figures == [f"results/flagship-{name}.png" for name in ("steps", "size", "data", "ablations")]
    for figure in figures:
        content = (folder / figure).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert 3_000 < len(content) < 100_000
    steps = _rows(text, "## Steps")
    assert [(row[0], row[1], row[2]) for row in steps] == [
        *(("baseline", "teacher", steps) for steps in ("3", "8")),
        ("student", "teacher", "3"),
        ("student", "student", "2"),
    ]
    assert steps[0][4].startswith(f"{entries['baseline@3']['figures']['auc_high']['value']:.3f} ±")
    (base, choice) = _rows(text, "## What each choice changes")
    assert base[3] == "–"
    networks = [
        np.array(entries[name]["figures"]["auc_low"]["networks"]) for name in ("no-trend", "baseline")
    ]
    d = networks[0] - networks[1]
    assert d.std() > 0
    error = np.sqrt((1 / 3 + 0.25) * d.var(ddof=1))
    assert choice[5] == f"{d.mean():+.3f} ± {error:.3f}"
    assert "`core=1.0`" in text
    assert "If no choice had an effect, 0.1 of 2 differences would be" in text
    assert entries["baseline"]["date"] in text
    assert read_json(results)["command"] in text
    assert str(folder) not in text
    made = text.partition("The baseline:")[2]
    command = next(line for line in made.splitlines() if line.startswith("caloforge train"))
    assert settings_of_command(command).model_name == "flow-matching"


def _rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading."""
    section = text.split(f"{heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.slow
def test_other_models_are_refused(folder: Path, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert _measure(script, folder, "--student", "atlas-photon/vae") == 2
    assert "atlas-photon/vae is a vae; expected a flow-matching" in capsys.readouterr().err
