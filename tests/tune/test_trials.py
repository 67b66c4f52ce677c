"""When a trial is stopped, and on which showers it is judged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.showers import Showers
from caloforge.showers.identity import hash_showers
from caloforge.simulate import simulate
from caloforge.train import RunFolder, train
from caloforge.train.data import split
from caloforge.train.settings import TrainConfig
from caloforge.tune import trials, tune
from caloforge.tune.trials import hopeless

Small = Callable[..., Any]


def test_only_those_that_are_as_fast_can_stop_a_trial() -> None:
    slow = [(1.0, 9.0), (1.0, 9.0), (1.0, 9.0), (1.0, 9.0)]
    assert not hopeless(2.0, 1.0, slow)
    assert hopeless(2.0, 9.0, slow)
    assert not hopeless(0.5, 9.0, slow)
    assert not hopeless(2.0, 9.0, slow[:2])
    assert hopeless(2.0, 1.0, [(1.0, 0.5), (1.0, 1.04), (3.0, 1.0)])
    assert not hopeless(2.0, 1.0, [(1.0, 0.5), (1.0, 1.1), (3.0, 1.0)])


def test_stopping_never_stops_the_fastest_or_the_best() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        others = [(float(a), float(b)) for a, b in rng.random((8, 2))]
        figure, ms = rng.random(2)
        beaten = [theirs <= figure for theirs, time in others if time <= 1.05 * ms]
        if hopeless(figure, ms, others):
            assert 2 * sum(beaten) >= len(beaten) >= 3
        if ms * 1.05 < min(time for _, time in others) or figure < min(theirs for theirs, _ in others):
            assert not hopeless(figure, ms, others)


def test_trials_are_judged_by_the_showers_that_their_training_held_out(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Showers, Showers]] = []

    def figure(selection: float, pair: trials.Pair) -> tuple[float, float]:
        seen.append(pair())
        return 1.0, 0.1

    monkeypatch.setitem(trials.FIGURES, "selection", figure)
    small(tmp_path / "study", trials=1)
    known = RunFolder(tmp_path / "study" / "trials" / "0000").seen()
    assert len(seen) == 3  # at a quarter, at a half, at the end
    for truth, fake in seen:
        identities = hash_showers(truth.cells, truth.incident_energy)
        assert np.isin(identities, known.selection).all()
        assert not np.isin(identities, known.training).any()
        assert len(truth) == len(known.selection) == len(fake)
        np.testing.assert_array_equal(truth.incident_energy, fake.incident_energy)


def test_held_out_showers_may_have_more_energy_than_the_training(small: Small, tmp_path: Path) -> None:
    made = simulate("atlas-em-barrel", 400, energy="1-100GeV:log", engine="gflash", seed=3)
    parts = split(hash_showers(made.cells, made.incident_energy), TrainConfig())
    kept = np.concatenate([parts.held_out, parts.train[made.incident_energy[parts.train] < 3e4]])
    assert made.incident_energy[parts.held_out].max() > 5e4
    path = made[np.sort(kept)].save(tmp_path / "showers.h5")
    small = partial(tune, *small.args[:1], path, **small.keywords)
    assert small(tmp_path / "study", trials=1).counts()["complete"] == 1


def test_looking_at_a_training_does_not_change_it(small: Small, showers_file: Path, tmp_path: Path) -> None:
    overrides = ("epochs=4", "hidden=[16]", "latent=2", "batch_size=64")  # with its calibration
    small(tmp_path / "study", trials=1, overrides=overrides, figure="auc-spectrum")
    run = tmp_path / "study" / "trials" / "0000"
    plain = train("vae", showers_file, tmp_path / "plain", run / "config.toml", device="cpu")
    states = [RunFolder(path).models()[0].state_dict() for path in (run, plain)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_a_trial_without_hope_is_stopped(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_time", lambda model, loop: 1.0)
    arguments = {"trials": 6, "search": ("optimizer.lr=1e-2,1e-8",), "seed": 2}
    result = small(tmp_path / "study", **arguments)
    stopped = [trial for trial in result.trials if trial["state"] == "stopped"]
    assert stopped
    assert all("without hope after" in trial["reason"] for trial in stopped)
    assert result.best not in {trial["number"] for trial in stopped}
    assert not any((tmp_path / "study" / "trials" / f"{trial['number']:04d}").exists() for trial in stopped)
    whole = small(tmp_path / "whole", **arguments, prune=False)
    assert whole.counts() == {"complete": 6, "stopped": 0, "failed": 0}


def test_too_slow_a_trial_is_stopped_after_its_first_epoch(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_time", lambda model, loop: 2.0 + model.config.latent)
    result = small(
        tmp_path / "study",
        trials=5,
        overrides=("epochs=3", "hidden=[16]"),
        search=("latent=2,3",),
        most_ms=4.5,
    )
    for trial in result.trials:
        assert (trial["state"] == "stopped") == (trial["values"]["latent"] == 3)
    assert "more than 4.5 ms" in next(t["reason"] for t in result.trials if t["state"] == "stopped")
    assert result.best is not None


def test_failures_are_recorded_with_their_reason(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter([torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("broken"), None, None])

    def some(*arguments: Any, **options: Any) -> Path:
        if (reason := next(reasons)) is not None:
            raise reason
        return train(*arguments, **options)

    monkeypatch.setattr(trials, "train", some)
    result = small(tmp_path / "study", trials=4)
    assert [trial["state"] for trial in result.trials] == ["failed", "failed", "complete", "complete"]
    assert result.trials[0]["reason"] == "out of memory: CUDA out of memory"
    assert result.trials[1]["reason"] == "RuntimeError: broken"


def test_a_training_that_diverges_fails(small: Small, tmp_path: Path) -> None:
    result = small(
        tmp_path / "study",
        trials=4,
        overrides=(
            "epochs=16",
            "hidden=[16]",
            "latent=2",
            "calibrate=false",
            "optimizer.clip=0",
            "optimizer.warmup=0",
        ),
        search=("optimizer.lr=1e-3,1e30",),
    )
    failed = [trial for trial in result.trials if trial["values"]["optimizer.lr"] == 1e30]
    assert failed
    assert all(trial["state"] == "failed" and "diverged" in trial["reason"] for trial in failed)
    assert result.counts()["complete"] == 4 - len(failed) > 0
