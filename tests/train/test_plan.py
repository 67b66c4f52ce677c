"""Plans from invented speeds, the time of a training, and that a planned run is reproducible and goes on."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from caloforge.errors import ConfigError, UnitError
from caloforge.showers import Showers
from caloforge.train import RunFolder, train
from caloforge.train import loop as loop_module
from caloforge.train.expected import expected_accuracy
from caloforge.train.plan import SIZES, Facts, Plan, flagship_plan, scaled_plan
from caloforge.train.speed import Speed, StageSpeed
from caloforge.units import read_seconds, say_seconds


def speeds(scale: float = 1.0, fixed: float = 0.0) -> dict[str, Speed]:
    """Return speeds as of one core: each network twice as slow as the one before."""
    return {
        name: {"summary": StageSpeed(fixed, 1e-3 * scale), "cells": StageSpeed(fixed, 4e-3 * scale * 2**k)}
        for k, name in enumerate(SIZES)
    }


def plan(showers: int, seconds: float, scale: float = 1.0, fixed: float = 0.0, **facts: object) -> Plan:
    return flagship_plan(
        Facts(showers, 2420, "cpu", seconds, used=5.0, **facts),
        speeds(scale, fixed),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("showers", [100, 300, 1000, 30_000, 300_000])
@pytest.mark.parametrize("seconds", [600.0, 1800.0, 7200.0])
@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0])
def test_what_is_planned_fits_into_the_time(showers: int, seconds: float, scale: float) -> None:
    found = plan(showers, seconds, scale, 1e-3)
    assert found.seconds <= 1.02 * seconds
    model, train_values = found.values["model"], found.values["train"]
    n = train_values.get("train_size") or showers * (1 - train_values["validation"])
    speed = next(
        speeds(scale, 1e-3)[name] for name, size in SIZES.items() if size.settings.items() <= model.items()
    )
    for stage, prefix in (("summary", "summary_"), ("cells", "")):
        batch, epochs = model[f"{prefix}batch_size"], model[f"{prefix}epochs"]
        training = epochs * max(1, int(n // batch)) * speed[stage].step(batch)
        assert training <= train_values["stage_seconds"][stage]
        assert batch <= n
    assert found.parts["calibration"] <= 0.13 * seconds or model["calibration"] <= 100
    assert sum(train_values["stage_seconds"].values()) <= seconds - 5.0


def test_more_time_gives_a_larger_network() -> None:
    widths = [plan(30_000, seconds).values["model"] for seconds in (600, 3600, 20_000, 80_000)]
    sizes = [next(k for k, s in SIZES.items() if s.settings.items() <= model.items()) for model in widths]
    order = [list(SIZES).index(name) for name in sizes]
    assert order == sorted(order)
    assert (sizes[0], sizes[-1]) == ("small", "largest")
    few = plan(300, 80_000.0).values["model"]
    assert (few["width"], few["blocks"]) == (128, 3)  # the largest takes more different showers


def test_few_showers_are_not_trained_on_for_ever() -> None:
    few, many = (plan(n, 10_000.0, 0.01) for n in (300, 1_000_000))
    assert (few.values["model"]["summary_epochs"], few.values["model"]["epochs"]) == (300, 100)
    assert few.seconds < 4_000
    assert many.values["model"]["epochs"] < 50
    assert few.values["train"]["validation"] == 0.2
    assert many.values["train"]["validation"] == 0.002
    assert few.values["model"]["batch_size"] < many.values["model"]["batch_size"]
    assert (
        few.values["model"]["optimizer"]["weight_decay"] > many.values["model"]["optimizer"]["weight_decay"]
    )


def test_showers_that_cannot_be_used_three_times_are_left_out() -> None:
    found = plan(1_000_000, 900.0)
    size = found.values["train"]["train_size"]
    assert 10_000 < size < 200_000
    assert found.values["model"]["epochs"] >= 2
    assert "three times" in "\n".join(found.lines())
    assert "train_size" not in plan(1_000_000, 900.0, train_size=5_000).values["train"]


def test_a_time_that_is_too_short_says_what_is_needed() -> None:
    with pytest.raises(
        ConfigError, match=r"time_limit: 30 s is too short .* expected at least about "
    ) as caught:
        plan(300, 30.0)
    needed = read_seconds(str(caught.value).rpartition("about ")[2].replace(" ", ""))
    assert plan(300, needed).seconds <= 1.05 * needed
    with pytest.raises(ConfigError, match="too short"):
        plan(300, 0.8 * needed)


def test_no_report_leaves_the_time_to_the_training() -> None:
    with_report, without = (plan(10_000, 700.0, report=report) for report in (True, False))
    assert without.parts["closing measurement"] == 0
    assert without.values["model"]["epochs"] > with_report.values["model"]["epochs"]


def test_another_model_keeps_the_proportions_of_its_stages() -> None:
    speed = {"a": StageSpeed(0.0, 1e-3, 300, 50), "b": StageSpeed(0.0, 2e-3, 100, 50)}
    settings = {"epochs": 300, "post_epochs": 100, "flow_epochs": 0, "width": 8}
    facts = Facts(1_000, 100, "cpu", 100.0, report=False)
    found = scaled_plan(facts, "toy", settings, speed, 0.2)
    epochs = found.values["model"]
    assert epochs["epochs"] == pytest.approx(3 * epochs["post_epochs"], abs=3)
    assert set(epochs) == {"epochs", "post_epochs"}
    assert 70 < epochs["epochs"] * 0.8 + epochs["post_epochs"] * 1.6 <= 100
    assert not scaled_plan(Facts(1_000, 100, "cpu", 1e5), "toy", settings, speed, 0.2).values["model"]
    assert set(scaled_plan(facts, "toy", settings, speed, 0.2, frozenset({"epochs"})).values["model"]) == {
        "post_epochs"
    }
    with pytest.raises(ConfigError, match="too short"):
        scaled_plan(Facts(1_000, 100, "cpu", 0.5, report=False), "toy", settings, speed, 0.2)


def test_the_expectation_is_that_of_the_nearest_detector(tmp_path: Path) -> None:
    rows = [("a", 266, 300, 0.70), ("a", 266, 1200, 0.60), ("b", 27_000, 300, 0.9), ("b", 27_000, 1200, 0.8)]
    table = tmp_path / "expected.toml"
    table.write_text(
        "".join(
            f'[[measured]]\ndetector="{d}"\ncells={c}\nstart="nothing"\nshowers={n}\nauc={auc}\nauc_error=0.01\n'
            f'auc_floor=0.5\nseconds=120\ndevice="a GPU"\ndetectability={n * 200 // 600}\n'
            for d, c, n, auc in rows
        )
    )
    found = expected_accuracy(600, 300, "nothing", table)
    assert found is not None
    assert found.auc == pytest.approx(0.5 + (0.2 * 0.1) ** 0.5, abs=1e-6)  # halfway in both logarithms
    assert (found.detector, found.measured, found.inside) == ("a", (300, 1200), True)
    assert found.detectability == pytest.approx(200.0)
    assert "about 0.64 (floor 0.50), 200 showers a side to 5 sigma: an estimate from a (266 cells)" in str(
        found
    )
    beyond = expected_accuracy(100, 20_000, "nothing", table)
    assert beyond is not None
    assert (beyond.auc, beyond.inside) == (pytest.approx(0.9), False)
    assert "300 to 1,200 showers; here the nearest of these" in str(beyond)
    assert expected_accuracy(600, 300, "gflash", table) is None
    assert expected_accuracy(600, 300, "nothing", tmp_path / "none.toml") is None


def test_times_are_read_and_said() -> None:
    assert [read_seconds(text) for text in ("900s", "15min", "1.5 h", "2d")] == [900, 900, 5400, 172_800]
    for text in ("900", "", "5 minutes", "-3s", "0s", "15m", "nan s", "1e999s"):
        with pytest.raises(UnitError, match="is not understood: expected such as 900s, 30min or 2h"):
            read_seconds(text)
    assert [say_seconds(x) for x in (0.02, 0.5, 45, 300, 5400, 7200)] == [
        "20 ms",
        "0.5 s",
        "45 s",
        "5 min",
        "90 min",
        "2 h",
    ]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 60 parametrised showers."""
    import caloforge as cf

    showers = cf.simulate("atlas-em-barrel", n=60, energy="10-60GeV", engine="gflash", seed=5)
    assert isinstance(showers, Showers)
    return showers.save(tmp_path_factory.mktemp("few") / "few.h5")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rule content with a training of a few steps of a small network."""
    from caloforge.train import plan as module

    monkeypatch.setattr(module, "_EPOCHS", {"summary": 2, "cells": 2})
    monkeypatch.setattr(module, "_LEAST_STEPS", 1)
    monkeypatch.setattr(module, "SIZES", {"small": SIZES["small"]})
    monkeypatch.setattr(module, "_CALIBRATED", 10)
    monkeypatch.setattr("caloforge.models.flow.model._LEAST_HELD_OUT", 30)


@pytest.mark.usefixtures("quick")
def test_the_config_of_a_planned_run_repeats_it(few: Path, tmp_path: Path) -> None:
    plans: list[Plan] = []
    first = RunFolder(
        train(None, few, tmp_path / "a", device="cpu", seed=4, time_limit="20min", announce=plans.append)
    )
    assert plans[0].model == first.read()["model"] == "flow-matching"
    config = tomllib.loads(first.config.read_text())
    assert config["model"]["epochs"] == plans[0].values["model"]["epochs"] == 2
    assert config["model"]["width"] == 64
    assert first.read()["plan"]["predicted_seconds"]["cells"] >= 0
    assert "shortened" not in first.read()
    again = RunFolder(train(config["name"], few, tmp_path / "b", config=first.config, device="cpu", seed=4))
    assert "plan" not in again.read()
    weights = again.models()[0].state_dict()
    assert all(torch.equal(weights[name], value) for name, value in first.models()[0].state_dict().items())
    assert train(None, few, first.path, device="cpu", seed=4, resume=True) == first.path  # finished


@pytest.mark.usefixtures("quick")
def test_settings_of_the_user_go_before_the_plan(few: Path, tmp_path: Path) -> None:
    run = RunFolder(
        train(
            None,
            few,
            tmp_path / "a",
            overrides=["width=32", "train.validation=0.3"],
            device="cpu",
            time_limit="20min",
        )
    )
    config = tomllib.loads(run.config.read_text())
    assert (config["model"]["width"], config["train"]["validation"]) == (32, 0.3)
    assert config["model"]["epochs"] == 2


@pytest.mark.usefixtures("quick")
def test_a_stopped_plan_goes_on(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from caloforge.train import run as module

    saved = module.save_state

    class Killed(BaseException):
        pass

    def save(path: Path, state: dict[str, object]) -> None:
        saved(path, state)
        raise Killed

    how = {"device": "cpu", "seed": 2, "overrides": ["checkpoint_epochs=1"]}
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_state", save)
        with pytest.raises(Killed):
            train(None, few, tmp_path / "a", time_limit="20min", **how)
    before = (tmp_path / "a" / "config.toml").read_text()
    train(None, few, tmp_path / "a", resume=True, time_limit="20min", **how)
    assert (tmp_path / "a" / "config.toml").read_text() == before
    info = RunFolder(tmp_path / "a").read()
    assert info["status"] == "finished"
    assert info["plan"]["seconds"] == 1200
    whole = train(
        "flow-matching", few, tmp_path / "b", config=tmp_path / "a" / "config.toml", device="cpu", seed=2
    )
    weights = RunFolder(whole).models()[0].state_dict()
    for name, value in RunFolder(tmp_path / "a").models()[0].state_dict().items():
        assert torch.equal(weights[name], value), name


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("compiled", [False, True])
def test_the_time_of_compilation_does_not_shorten_a_stage(
    toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """The first epoch takes 8 s, in which networks are compiled, the fourth 6 s, in which they are again, each further one 1 s."""
    now = 0.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now

    epoch: Callable[..., object] = loop_module.StageLoop._epoch

    def timed(self, updater, size):
        nonlocal now
        now += {0: 8.0, 3: 6.0}.get(updater.epoch, 1.0)
        return epoch(self, updater, size)

    monkeypatch.setattr(loop_module, "time", Clock)
    monkeypatch.setattr(loop_module.StageLoop, "_epoch", timed)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    settings = ["epochs=22", "train.stage_seconds.gan=36", f"train.compile={str(compiled).lower()}"]
    run = RunFolder(train("toy-adversarial", toy_file, tmp_path / "run", overrides=settings, device="cpu"))
    assert "shortened" not in run.read()


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.usefixtures("toys")
def test_epochs_that_were_taken_away_are_given_back_when_the_stage_is_faster_again(
    toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """Epochs 4 to 9 take 3 s, the others 1 s: as a run that goes on decides one that was not stopped."""
    now, plans, rates = 0.0, [], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now

    epoch: Callable[..., object] = loop_module.StageLoop._epoch

    def timed(self, updater, size):
        nonlocal now
        plans.append(updater.epochs)
        now += 3.0 if 4 <= updater.epoch < 10 else 1.0
        found = epoch(self, updater, size)
        rates.append(updater._slots["generator"].optimizer.param_groups[0]["lr"])
        return found

    class Stop(Exception):
        pass

    def stop(loop: object, epoch: int, best: object) -> None:
        if stopped and epoch == 8:
            raise Stop

    monkeypatch.setattr(loop_module, "time", Clock)
    monkeypatch.setattr(loop_module.StageLoop, "_epoch", timed)
    settings = [
        "epochs=40", "train.stage_seconds.gan=54", "optimizer.schedule=cosine", "train.checkpoint_epochs=1",
    ]  # fmt: skip
    arguments: dict[str, Any] = {"overrides": settings, "device": "cpu"}
    with suppress(Stop):
        train("toy-adversarial", toy_file, tmp_path / "run", watch=stop, **arguments)
    if stopped:
        train("toy-adversarial", toy_file, tmp_path / "run", resume=True, **arguments)
    assert plans[0] == 40
    assert min(plans) < 30  # taken away while the epochs were slow
    run = RunFolder(tmp_path / "run").read()
    assert len(plans) == plans[-1] == 40
    assert now == 52.0
    assert "shortened" not in run
    assert rates[-1] < 0.02 * rates[0]
    late = rates[27:]  # the second half of the time
    assert all(b <= a for a, b in pairwise(late))


@pytest.mark.usefixtures("toys")
def test_a_stage_that_is_slower_than_planned_is_shortened(
    toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    rates: list[float] = []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now

    epoch: Callable[..., object] = loop_module.StageLoop._epoch

    def slow(self, updater, size):
        nonlocal now
        now += 1.0 if updater.epoch < 10 else 3.0  # seconds an epoch; the stage has 30
        found = epoch(self, updater, size)
        optimizer = updater._slots["generator"].optimizer
        rates.append(optimizer.param_groups[0]["lr"])
        return found

    monkeypatch.setattr(loop_module, "time", Clock)
    monkeypatch.setattr(loop_module.StageLoop, "_epoch", slow)
    settings = [
        "epochs=28",
        "train.stage_seconds.gan=30",
        "optimizer.schedule=cosine",
        "train.validate_every=100",
    ]
    run = RunFolder(train("toy-adversarial", toy_file, tmp_path / "run", overrides=settings, device="cpu"))
    done = run.read()["shortened"]["0/gan"]
    assert done["of"] == 28
    assert 14 <= done["epochs"] <= 18
    assert now <= 33
    assert rates[-1] < 0.1 * rates[0]
    assert all(b <= a for a, b in pairwise(rates))
    assert "stopped_early" not in run.read()
    assert run.read()["status"] == "finished"
    assert json.loads(run.info.read_text())["stages"]["0/gan"]["epoch"] == done["epochs"]


def test_the_expectation_is_that_of_the_start_and_names_a_pre_training_that_is_better() -> None:
    alone = plan(300, 1800.0)
    assert "after --pretrain gflash about 0." in alone.expected
    started = flagship_plan(alone.facts, speeds(), frozenset({"train.pretrain"})).expected
    assert "--pretrain" not in started
    assert started != alone.expected.partition(";")[0]
    assert "--pretrain" not in plan(20_000, 1800.0).expected
