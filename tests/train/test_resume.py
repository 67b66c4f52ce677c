"""A training that was killed goes on to the very same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from stops import assert_same, stopped

from caloforge.errors import (
    CaloforgeError,
    ConfigError,
    FileFormatError,
    OutputError,
    OutputExistsError,
    UnfinishedError,
    WriteError,
)
from caloforge.files import lock_folder
from caloforge.showers import write_showers
from caloforge.train import train
from caloforge.train.folder import RunFolder, load_state, load_weights, save_state, save_weights

pytestmark = pytest.mark.usefixtures("toys")

SETTINGS = ["checkpoint_epochs=1"]

KILLED = textwrap.dedent(
    """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import torch
    torch.set_num_threads(int(sys.argv[6]))
    import toys
    toys.register()
    from caloforge.train import run as module
    saved, count = module.save_state, 0
    def save_then_die(path, state):
        global count
        saved(path, state)
        count += 1
        if count == int(sys.argv[5]):
            os.kill(os.getpid(), signal.SIGKILL)
    module.save_state = save_then_die
    module.train(sys.argv[2], sys.argv[3], sys.argv[4], overrides=["checkpoint_epochs=1"], device="cpu", seed=3)
    """
)


def _kill_after(name: str, file: Path, run: Path, checkpoints: int) -> None:
    done = subprocess.run(
        [
            sys.executable, "-c", KILLED, str(Path(__file__).parent), name, str(file), str(run), str(checkpoints),
            str(torch.get_num_threads()),
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(("name", "checkpoints"), [("toy-adversarial", 2), ("toy-two-stage", 3)])
def test_killed_and_resumed_is_theassert_same(
    monkeypatch: pytest.MonkeyPatch, name: str, checkpoints: int, toy_file: Path, tmp_path: Path
) -> None:
    how = {"overrides": SETTINGS, "device": "cpu", "seed": 3}
    if name == "toy-two-stage":  # in its second stage
        _kill_after(name, toy_file, tmp_path / "killed", checkpoints)
    else:
        stopped(monkeypatch, name, toy_file, tmp_path / "killed", checkpoints, overrides=SETTINGS, seed=3)
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    with pytest.raises(FileFormatError, match=r"not finished.*resume=True"):
        RunFolder(tmp_path / "killed").models()
    train(name, toy_file, tmp_path / "killed", resume=True, **how)
    train(name, toy_file, tmp_path / "whole", **how)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    logs = [RunFolder(tmp_path / run).log.read_text() for run in ("killed", "whole")]
    assert logs[0] == logs[1]
    assert not (tmp_path / "killed" / "state.pt").exists()


@pytest.mark.parametrize("after", [2, 5])
def test_several_trainings_go_on(
    monkeypatch: pytest.MonkeyPatch, after: int, toy_file: Path, tmp_path: Path
) -> None:
    how = {"overrides": ["checkpoint_epochs=1", "trainings=2", "epochs=3", "combine=ensemble"], "seed": 1}
    stopped(monkeypatch, "toy-two-stage", toy_file, tmp_path / "a", after, **how)
    train("toy-two-stage", toy_file, tmp_path / "a", device="cpu", resume=True, **how)
    train("toy-two-stage", toy_file, tmp_path / "b", device="cpu", **how)
    assert_same(tmp_path / "a", tmp_path / "b")
    second = [load_weights(tmp_path / run / "weights-1.safetensors") for run in "ab"]
    assert all(torch.equal(value, second[1][name]) for name, value in second[0].items())
    assert RunFolder(tmp_path / "a").read()["trainings"] == RunFolder(tmp_path / "b").read()["trainings"]


def test_a_vae_goes_on(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    how = {"overrides": ["epochs=4", "hidden=[16]", "latent=2", "checkpoint_epochs=1"]}
    stopped(monkeypatch, "vae", toy_file, tmp_path / "a", 2, **how)
    train("vae", toy_file, tmp_path / "a", device="cpu", resume=True, **how)
    train("vae", toy_file, tmp_path / "b", device="cpu", **how)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_the_state_holds_no_code(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    stopped(monkeypatch, "toy-adversarial", toy_file, tmp_path / "a", 1, overrides=SETTINGS)
    state = torch.load(tmp_path / "a" / "state.pt", weights_only=True)
    assert state["stage"] == 0
    assert not [p.name for p in (tmp_path / "a").iterdir() if p.name.endswith(".part")]


def test_a_finished_run_is_left_alone(toy_file: Path, tmp_path: Path) -> None:
    train("toy-mean", toy_file, tmp_path / "a", device="cpu")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").iterdir()}
    train("toy-mean", toy_file, tmp_path / "a", device="cpu", resume=True)
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").iterdir()}


def test_what_cannot_be_resumed_says_why(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    from toys import toy_showers

    run = tmp_path / "a"
    stopped(monkeypatch, "toy-adversarial", toy_file, run, 1, overrides=SETTINGS)

    def again(message: str, error: type[CaloforgeError] = ConfigError, **changes) -> None:
        how = {"model": "toy-adversarial", "data": toy_file, "output": run, "overrides": SETTINGS, **changes}
        with pytest.raises(error, match=message):
            train(device="cpu", resume=True, **how)

    again("epochs = 3; the run has 4", overrides=[*SETTINGS, "epochs=3"])
    again("optimizer", overrides=[*SETTINGS, "optimizer.lr=0.5"])
    again("seed 4", seed=4)
    again("model toy-two-stage", model="toy-two-stage")
    other = write_showers(tmp_path / "other.h5", toy_showers(seed=9))
    again("hash", data=other)
    again(r"run.json", FileFormatError, output=tmp_path / "nothing")
    (run / "state.pt").write_bytes(b"broken")
    again("state of a training", FileFormatError)


def test_an_output_is_kept_unless_forced(toy_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "a"
    train("toy-mean", toy_file, run, device="cpu")
    (run / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="force=True"):
        train("toy-mean", toy_file, run, device="cpu")
    train("toy-mean", toy_file, run, device="cpu", seed=8, force=True)
    assert RunFolder(run).read()["seed"] == 8
    assert (run / "mine.txt").read_text() == "kept"


class _Killed(BaseException):
    """Stands for a kill: nothing in the package answers it."""


def _killed_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Have a function that the training uses raise in place of a call, counted from 1."""
    module = sys.modules[train.__module__]
    real, calls = getattr(module, name), 0

    def killed(*args: object, **how: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise _Killed
        return real(*args, **how)

    monkeypatch.setattr(module, name, killed)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("where", ["atomic_path", "write_json"])
def test_killed_before_it_was_a_run(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path, where: str, resume: bool
) -> None:
    run = tmp_path / "a"
    with monkeypatch.context() as patch:  # before the settings, and between them and run.json
        _killed_at(patch, where, 1)
        with pytest.raises(_Killed):
            train("toy-mean", toy_file, run, device="cpu")
    run.mkdir(exist_ok=True)
    train("toy-mean", toy_file, run, device="cpu", resume=resume)
    assert RunFolder(run).read()["status"] == "finished"


def test_killed_when_the_best_training_is_chosen(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    how = {"overrides": ["checkpoint_epochs=1", "trainings=3", "epochs=3", "combine=best"], "device": "cpu"}
    train("toy-two-stage", toy_file, tmp_path / "whole", **how)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for before in (True, False):  # run.json says that the run is finished, by the second call
        run = tmp_path / f"{before}"
        with monkeypatch.context() as patch:
            if before:
                _killed_at(patch, "write_json", 2)
            else:
                patch.setattr(RunFolder, "tidy", _raise_killed)
            with pytest.raises(_Killed):
                train("toy-two-stage", toy_file, run, **how)
        assert (run / "weights-2.safetensors").exists()
        assert (run / "state.pt").exists()
        train("toy-two-stage", toy_file, run, resume=True, **how)
        assert_same(run, tmp_path / "whole")
        assert sorted(path.name for path in run.iterdir()) == names


def _raise_killed(_: object) -> None:
    raise _Killed


def test_two_trainings_do_not_share_a_folder(toy_file: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a"), pytest.raises(OutputError, match="another run is working"):
        train("toy-mean", toy_file, tmp_path / "a", device="cpu", force=True)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = {"x": torch.zeros(100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # the limit of a quota
    try:
        for save, name in ((save_state, "state.pt"), (save_weights, "weights.safetensors")):
            with pytest.raises(WriteError, match=rf"{name}: no space left while writing"):
                save(tmp_path / name, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_made(toy_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaloforgeError, match="file"):
        train("toy-mean", toy_file, tmp_path / "file" / "run", device="cpu")


def test_a_broken_state_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "state.pt")
    with pytest.raises(FileFormatError, match="99"):
        load_state(tmp_path / "state.pt", torch.device("cpu"))
    (tmp_path / "weights").write_bytes(os.urandom(100))
    with pytest.raises(FileFormatError, match="safetensors"):
        load_weights(tmp_path / "weights")
    with pytest.raises(FileFormatError, match="missing"):
        load_weights(tmp_path / "none")


def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one second pass with every epoch, and none otherwise."""
    from caloforge.train import loop, run

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def process_time(self) -> float:
            return self.now

    clock, real = Clock(), loop.StageLoop._epoch

    def epoch(self, *args):
        clock.now += 1.0
        return real(self, *args)

    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(run, "time", clock)
    monkeypatch.setattr(loop.StageLoop, "_epoch", epoch)


@pytest.mark.parametrize("seconds", [1, 2])
def test_a_training_that_ends_before_a_stage_is_unfinished_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, seconds: int, toy_file: Path, tmp_path: Path
) -> None:
    _clock(monkeypatch)
    run, how = RunFolder(tmp_path / "a"), {"device": "cpu", "seed": 3}
    with pytest.raises(UnfinishedError, match="stage post not trained when max_seconds = ") as caught:
        train("toy-two-stage", toy_file, run.path, overrides=[f"max_seconds={seconds}"], **how)
    assert caught.value.exit_code == 1
    facts = run.read()
    assert (facts["status"], facts["not_trained"]) == ("unfinished", ["post"])
    assert facts.get("stopped_early", {}) == ({"0/decoder": {"epochs": 1, "of": 2}} if seconds == 1 else {})
    assert run.unfinished() == "unfinished: stage post not trained"
    assert len(run.models()) == 1
    with pytest.raises(ConfigError, match=r"cannot resume with train\.max_seconds"):
        train("toy-two-stage", toy_file, run.path, overrides=[f"max_seconds={seconds}"], resume=True, **how)
    train("toy-two-stage", toy_file, run.path, overrides=["max_seconds=100"], resume=True, **how)
    assert (run.read()["status"], run.unfinished()) == ("finished", "")
    assert "not_trained" not in run.read()
    assert not run.state.exists()
    train("toy-two-stage", toy_file, tmp_path / "b", **how)
    assert_same(run.path, tmp_path / "b")
    assert run.log.read_text() == RunFolder(tmp_path / "b").log.read_text()


def test_a_stage_cut_short_is_noted_and_the_run_finished(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    _clock(monkeypatch)
    run = RunFolder(
        train("toy-two-stage", toy_file, tmp_path / "a", overrides=["max_seconds=4"], device="cpu")
    )
    facts = run.read()
    assert facts["status"] == "finished"
    assert facts["stopped_early"] == {"0/post": {"epochs": 2, "of": 4}}
    assert not run.state.exists()


@pytest.mark.parametrize("combine", ["ensemble", "best"])
def test_several_trainings_of_which_one_never_began(
    monkeypatch: pytest.MonkeyPatch, combine: str, toy_file: Path, tmp_path: Path
) -> None:
    _clock(monkeypatch)
    how = {"device": "cpu", "seed": 2}
    settings = ["trainings=3", "epochs=2", f"combine={combine}"]
    with pytest.raises(UnfinishedError, match="stage gan of training 2 not trained"):
        train("toy-adversarial", toy_file, tmp_path / "a", overrides=[*settings, "max_seconds=4"], **how)
    assert len(RunFolder(tmp_path / "a").models()) == (3 if combine == "ensemble" else 1)
    again = [*settings, "max_seconds=0"]
    train("toy-adversarial", toy_file, tmp_path / "a", overrides=again, resume=True, **how)
    train("toy-adversarial", toy_file, tmp_path / "b", overrides=settings, **how)
    files = sorted(path.name for path in (tmp_path / "b").glob("weights*"))
    assert sorted(path.name for path in (tmp_path / "a").glob("weights*")) == files
    for name in files:
        first, second = load_weights(tmp_path / "a" / name), load_weights(tmp_path / "b" / name)
        assert all(torch.equal(value, second[key]) for key, value in first.items())
