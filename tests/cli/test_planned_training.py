"""``train`` without a model, with a time, and the measurement that ends a planned training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caloforge.errors import MissingExtraError
from caloforge.validate.plots.families import all_figures
from caloforge.validate.report import build
from caloforge.zoo import closing as closing_module

Run = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, showers_file: Path) -> tuple[Path, Any]:
    """Return the folder of a planned training of the autoencoder, and what was printed."""
    from typer.testing import CliRunner

    from caloforge.cli.app import app
    from caloforge.validate.metrics.base import METRICS

    folder = tmp_path_factory.mktemp("planned") / "run"
    command = [
        "train",
        "vae",
        showers_file,
        "-o",
        folder,
        "--time",
        "9min",
        "--set",
        "epochs=2",
        "--device",
        "cpu",
    ]

    def fewer(*samples: Any) -> dict[str, Any]:
        return {family: figures[:1] for family, figures in all_figures(*samples).items()}

    few = {name: METRICS[name] for name in ("auc_observables", "moments")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METRICS, "_entries", few)
        patch.setattr(build, "all_figures", fewer)
        return folder, CliRunner().invoke(app, [str(word) for word in command])


def test_the_plan_is_said_before_the_training(trained: tuple[Path, Any]) -> None:
    _, result = trained
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "plan: vae for 300 showers of 266 cells on cpu, within 9 min"
    assert "its own numbers of epochs fit" in lines[1]
    assert lines[2].startswith("  time: about ")
    assert "closing measurement" in lines[2]
    assert next(k for k, line in enumerate(lines) if line.startswith("wrote ")) > 2


def test_the_report_says_what_chose_the_epochs(trained: tuple[Path, Any]) -> None:
    folder, result = trained
    metrics = json.loads((folder / "report" / "metrics.json").read_text())
    info = json.loads((folder / "run.json").read_text())
    n = info["closing"]["showers"]
    assert 20 <= n <= info["held_out_showers"]
    assert metrics["reference"]["label"] == "held-out showers"
    assert metrics["samples"]["vae"]["seen"] == {"n": n, "of": n}
    assert metrics["settings"]["quick"]
    assert "trained or selected the model" in (folder / "report" / "report.html").read_text()
    assert f"{n} generated showers against as many held-out ones" in " ".join(result.stdout.split())
    assert "classifiers find only large differences" in result.stdout
    for name in ("AUC, observables", "Time of a shower"):
        assert name in result.stdout
        assert name in info["closing"]["statements"]
    value = metrics["auc_observables"]["value"]
    assert info["closing"]["statements"]["AUC, observables"].startswith(f"{value:.2f}"[:3])


def test_a_finished_run_is_measured_again(
    trained: tuple[Path, Any], run: Run, showers_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = trained
    weights = (folder / "weights.safetensors").read_bytes()

    def missing() -> None:
        raise MissingExtraError("matplotlib", "report")

    monkeypatch.setattr(closing_module, "require_report", missing)
    text = run("train", showers_file, "-o", folder, "--resume", "--set", "epochs=2", "--device", "cpu").stdout
    assert (
        "no report: 'matplotlib' is not installed; install it with: pip install 'caloforge[report]'" in text
    )
    assert (folder / "weights.safetensors").read_bytes() == weights


def test_no_report_is_written_when_none_is_wanted(run: Run, showers_file: Path, tmp_path: Path) -> None:
    command = ("train", "vae", showers_file, "-o", tmp_path / "run", "--set", "epochs=1", "--device", "cpu")
    info = json.loads(run(*command, "--time", "5min", "--no-report", "--json").stdout)
    assert info["status"] == "finished"
    assert info["plan"]["predicted_seconds"]["closing measurement"] == 0
    assert not (tmp_path / "run" / "report").exists()
    assert "plan" not in json.loads(run(*command, "--force", "--json").stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--time", "15"), "time '15' is not understood: expected such as 900s, 30min or 2h"),
        (
            ("--time", "2s"),
            "--time: 2 s is too short for 300 showers of 266 cells on this device; expected at least",
        ),
        (("--set", "epoch=3"), "unknown key 'epoch'"),
    ],
)
def test_refusals(
    words: tuple[str, ...], message: str, refused: Refused, showers_file: Path, tmp_path: Path
) -> None:
    assert message in refused("train", showers_file, "-o", tmp_path / "run", "--device", "cpu", *words)
    assert not list((tmp_path / "run").glob("*"))


def test_what_is_neither_a_model_nor_a_file(refused: Refused, run: Run, tmp_path: Path) -> None:
    assert "unknown model 'flow-matchin'; did you mean flow-matching or " in refused(
        "train", "flow-matchin", "-o", tmp_path / "run"
    )
    assert "no such file" in refused("train", "showers.h5", "-o", tmp_path / "run")
    assert "no file of showers after the model 'vae'" in " ".join(
        run("train", "vae", "-o", tmp_path / "run", code=2).stderr.replace("│", " ").split()
    )
