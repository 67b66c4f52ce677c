"""Whole studies: their outputs, going on, several processes, and what is refused."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from caloforge.errors import CaloforgeError, ConfigError, InputError, OutputExistsError, TooFewShowersError
from caloforge.text_files import read_json
from caloforge.train import RunFolder, train
from caloforge.tune import trials as trials_module
from caloforge.tune.study import TunedStudy

Small = Callable[..., Any]
MAIN = "from caloforge.cli.app import main; main()"


def dominated(trial: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    def point(one: dict[str, Any]) -> tuple[float, float]:
        return one["figure"], one["ms"]

    return any(
        all(a <= b for a, b in zip(point(other), point(trial), strict=True)) and point(other) != point(trial)
        for other in others
    )


@pytest.mark.usefixtures("drawn")
def test_a_study_finds_the_front_and_settings_that_train_takes(
    small: Small, showers_file: Path, tmp_path: Path
) -> None:
    folder, lines = tmp_path / "study", []
    result = small(folder, trials=4, prune=False, say=lines.append)
    assert [trial["number"] for trial in result.trials] == [0, 1, 2, 3]
    assert result.counts() == {"complete": 4, "stopped": 0, "failed": 0}
    assert result.trials[0]["values"] == {"optimizer.lr": 1e-3, "kl": 1.0}  # the preset's
    assert set(result.front) == {
        trial["number"] for trial in result.trials if not dominated(trial, result.trials)
    }
    assert result.best == min(result.trials, key=lambda trial: trial["figure"])["number"]
    assert {path.name for path in (folder / "trials").iterdir()} == {f"{n:04d}" for n in result.front}
    with (folder / "trials.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["figure"]) for row in rows] == [trial["figure"] for trial in result.trials]
    assert read_json(folder / "tune.json")["best"] == result.best
    assert (folder / "figures" / "front.png").stat().st_size > 5_000
    assert len(lines) == 4

    run = RunFolder(train("vae", showers_file, tmp_path / "run", result.settings, device="cpu"))
    assert run.read()["trainings"] == [result.trials[result.best]["figure"]]
    assert run.config.read_text() == RunFolder(folder / "trials" / f"{result.best:04d}").config.read_text()


def test_the_auc_of_the_observables_is_measured(small: Small, tmp_path: Path) -> None:
    result = small(tmp_path / "study", trials=1, figure="auc-observables")
    (trial,) = result.trials
    assert 0.6 < trial["figure"] <= 1.0
    assert 0 <= trial["uncertainty"] < 0.1


def test_the_same_call_goes_on_and_the_same_seed_gives_the_same(small: Small, tmp_path: Path) -> None:
    first = small(tmp_path / "study", trials=2)
    again = small(tmp_path / "study", trials=2)
    assert again.trials == first.trials
    more = small(tmp_path / "study", trials=4, keep=True)
    assert more.trials[:2] == first.trials
    assert len(more.trials) == 4
    whole = small(tmp_path / "whole", trials=2)
    assert [(t["values"], t["figure"]) for t in whole.trials] == [
        (t["values"], t["figure"]) for t in first.trials
    ]


def test_an_interrupted_trial_is_made_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def interrupted(*arguments: Any, **options: Any) -> Path:
        calls.append(options["config"]["model"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(trials_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "study", trials=3)
    assert len(read_json(tmp_path / "study" / "tune.json")["trials"]) == 1
    result = small(tmp_path / "study", trials=3)
    assert [trial["number"] for trial in result.trials] == [0, 2, 3]
    assert calls[2] == calls[1]
    assert len(calls) == 4


@pytest.mark.slow
def test_a_killed_command_loses_the_running_trial_alone(showers_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    words = [
        "tune", "vae", showers_file, "-o", folder, "-n", "3", "--only", "--search", "kl=0.5:1.5", "--figure", "selection",
        "--set", "hidden=[16]", "--set", "calibrate=false", "--set", "epochs=10", "--device", "cpu",
    ]  # fmt: skip
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (folder / "trials" / "0001" / "run.json").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 of 3 trials" in done.stdout
    numbers = [trial["number"] for trial in read_json(folder / "tune.json")["trials"]]
    assert numbers == [0, 2, 3]
    stored = optuna.load_study(study_name="caloforge", storage=f"sqlite:///{folder / 'study.db'}").trials
    assert [trial.state.name for trial in stored] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert stored[2].params == stored[1].params
    assert not list((folder / "trials").glob(".*.lock"))


def test_settings_that_end_their_process_twice_are_recorded_as_failed(small: Small, tmp_path: Path) -> None:
    first = small(tmp_path / "study", trials=1)
    job = _job(small, tmp_path / "study", 2)
    for _ in range(2):  # a process that dies: its lock is free, the trial is still marked as running
        study = TunedStudy(job)
        started = study.next()
        assert started is not None
        trial, lock = started
        for parameter in job.space:
            parameter.suggest(trial)
        lock.release()
    result = small(tmp_path / "study", trials=3)
    assert result.trials[0] == first.trials[0]
    assert [trial["state"] for trial in result.trials] == ["complete", "failed", "complete"]
    assert "ended twice" in result.trials[1]["reason"]


def _job(small: Small, folder: Path, trials: int) -> Any:
    kept: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caloforge.tune.work", lambda job, *rest: kept.append(job))
        small(folder, trials=trials)
    return kept[0]


@pytest.mark.slow
def test_two_processes_share_a_study(small: Small, tmp_path: Path) -> None:
    lines: list[str] = []
    result = small(tmp_path / "study", trials=5, workers=2, say=lines.append)
    assert sorted(trial["number"] for trial in result.trials) == [0, 1, 2, 3, 4]
    assert result.counts()["failed"] == 0
    assert len({str(trial["values"]) for trial in result.trials}) == 5
    assert len(lines) == 5


def test_the_study_ends_when_its_time_is_over(small: Small, tmp_path: Path) -> None:
    began = small(tmp_path / "study", trials=2, seconds=1e-3)
    assert (began.trials, began.best) == ([], None)
    assert len(small(tmp_path / "study", trials=2).trials) == 2


def test_the_time_of_a_trial_cuts_its_training(small: Small, showers_file: Path, tmp_path: Path) -> None:
    overrides = ("epochs=100000", "hidden=[16]", "calibrate=false")
    result = small(tmp_path / "study", trials=2, overrides=overrides, trial_seconds=0.5)
    assert all(trial["cut"] and trial["seconds"] < 30 for trial in result.trials)
    assert "most trainings were cut at 0.5 s" in result.warnings[0]
    assert "max_seconds = 0.5" in result.settings.read_text()


def test_a_study_of_which_all_trials_fail_ends(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Path:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(trials_module, "train", broken)
    with pytest.raises(
        CaloforgeError, match=r"all of the first 5 trials failed.*RuntimeError: no such thing"
    ):
        small(tmp_path / "study", trials=20)


def test_another_study_is_refused_and_can_be_replaced(small: Small, tmp_path: Path) -> None:
    small(tmp_path / "study", trials=1)
    with pytest.raises(ConfigError, match="is a study with another seed: 0, not 1"):
        small(tmp_path / "study", trials=1, seed=1)
    with pytest.raises(ConfigError, match=r"another space: kl = 0.5,1.0, not 0.5,1.5"):
        small(tmp_path / "study", search=("kl=0.5,1.5", "optimizer.lr=1e-4:1e-2:log"))
    assert len(small(tmp_path / "study", trials=1, seed=1, force=True).trials) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError):
        small(tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "number of trials is 0"),
        ({"workers": 0}, "number of workers is 0"),
        ({"trial_seconds": -1.0}, "time of a trial is -1 s"),
        ({"most_ms": 0.0}, "most time of a shower is 0 ms"),
        ({"figure": "auc"}, "unknown figure 'auc'; known: auc-observables"),
    ],
)
def test_wrong_arguments_are_refused(
    small: Small, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        small(tmp_path / "study", **arguments)
    assert not (tmp_path / "study").exists()


def test_too_few_showers_to_judge_by_are_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(TooFewShowersError, match=r"showers are held out \(train.validation 0.05\)"):
        small(tmp_path / "study", overrides=("train.validation=0.05",))
    assert not (tmp_path / "study").exists()


def test_a_missing_optuna_is_named_with_its_extra(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'caloforge\[tune\]'"):
        small(tmp_path / "study")


def test_the_verb(showers_file: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from caloforge.cli.app import app

    def run(*words: object) -> Any:
        return CliRunner().invoke(app, ["tune", "vae", str(showers_file), *map(str, words)])

    words = [
        "-o",
        tmp_path / "study",
        "--only",
        "--search",
        "kl=0.5:1.5",
        "--figure",
        "selection",
        "--device",
        "cpu",
    ]
    quick = ["--set", "hidden=[16]", "--set", "epochs=2", "--set", "calibrate=false"]
    done = run(*words, *quick, "-n", 1, "--trial-time", "10min", "--time", "1h")
    assert done.exit_code == 0, done.output
    assert "caloforge train vae --config takes it" in done.stdout
    assert "trial 0: selection" in done.stderr
    for wrong, message in (
        (["--time", "30"], "time '30' is not understood: expected such as 900s, 30min or 2h"),
        (["--search", "kll=1:2"], "did you mean kl"),
        (["--set", "kl=1"], "is set by --set too"),
        (["--space", tmp_path / "none.toml"], "none.toml: no such file"),
        (["--max-ms", "nan"], "--max-ms is nan"),
    ):
        refused = run(*words, *quick, *wrong)
        assert refused.exit_code == 2, refused.output
        (line,) = refused.stderr.splitlines()
        assert message in line
    assert os.listdir(tmp_path) == ["study"]
