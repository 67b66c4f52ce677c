"""Chunks: whole, of one job, in order; the same result for any number of processes, after any interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_engines import IsolatedToy, ToyEngine

from caloforge.errors import (
    FileFormatError,
    IncompatibleError,
    OutputError,
    SimulationError,
    UnknownNameError,
    WriteError,
)
from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers
from caloforge.simulate.chunks import ATTEMPTS, Chunk, Parts, make_chunks, plan
from caloforge.simulate.job import Job

N = 22
Make = Callable[..., Showers]


@pytest.fixture
def make(tmp_path: Path, tiny: Detector) -> Make:
    """Return a function that makes N showers with an engine and joins them."""

    def run(engine: ToyEngine, workers: int = 1, advance: Callable[[int], None] = lambda _: None) -> Showers:
        job = Job(engine, tiny, tiny.beam, seed=5)
        with Parts(tmp_path / "parts", job) as parts:
            chunks = plan(N, 4)
            make_chunks(parts, chunks, workers, advance)
            showers = Showers.concatenate([parts.take(chunk) for chunk in chunks])
            parts.remove()
        return showers

    return run


@pytest.fixture
def truth(tiny: Detector) -> np.ndarray:
    return Job(ToyEngine(), tiny, tiny.beam, seed=5).run(0, N).cells


@pytest.mark.parametrize(("engine", "workers"), [(ToyEngine(), 1), (IsolatedToy(), 1), (ToyEngine(), 2)])
def test_the_result_does_not_depend_on_the_workers(
    make: Make, truth: np.ndarray, engine: ToyEngine, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[int] = []
    assert (make(engine, workers, steps.append).cells == truth).all()
    assert sum(steps) == N
    assert capfd.readouterr() == ("", "")


def test_one_worker_serves_many_chunks(make: Make, tmp_path: Path) -> None:
    make(IsolatedToy(diary=tmp_path / "diary"))
    lines = (tmp_path / "diary").read_text().split()
    assert len(set(lines[1::2])) == 1
    assert str(os.getpid()) not in lines[1::2]


@pytest.mark.parametrize(("trouble", "workers"), [("kill", 2), ("exit", 1)])
def test_the_chunk_of_a_dead_worker_is_redone(
    make: Make, truth: np.ndarray, tmp_path: Path, trouble: str, workers: int
) -> None:
    engine = IsolatedToy(diary=tmp_path / "diary", trouble=trouble, once=True)
    assert (make(engine, workers).cells == truth).all()
    starts = (tmp_path / "diary").read_text().split()[::2]
    assert sorted(map(int, starts)) == sorted([*range(0, N, 4), engine.at])


def test_a_chunk_that_keeps_failing_is_named(make: Make, tmp_path: Path) -> None:
    engine = IsolatedToy(diary=tmp_path / "diary", trouble="exit")
    with pytest.raises(SimulationError, match=rf"showers 4 to 7 failed {ATTEMPTS} times.*code 3.*noise"):
        make(engine)
    starts = (tmp_path / "diary").read_text().split()[::2]
    assert starts.count("4") == ATTEMPTS


def test_a_known_complaint_is_raised_at_once(make: Make, tmp_path: Path) -> None:
    engine = IsolatedToy(diary=tmp_path / "diary", trouble="complain")
    with pytest.raises(SimulationError, match="COMPLAINT: the magnet is off"):
        make(engine)
    assert (tmp_path / "diary").read_text().split()[::2].count("4") == 1


def test_an_error_of_the_engine_arrives_as_it_was(make: Make) -> None:
    with pytest.raises(UnknownNameError, match="unknown toy 'c'; known: a, b") as caught:
        make(IsolatedToy(trouble="unknown"))
    assert caught.value.known == ["a", "b"]
    with pytest.raises(SimulationError, match="ZeroDivisionError"):
        make(IsolatedToy(trouble="divide"))


def test_a_part_that_cannot_be_written_is_an_error(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        msg = "disk full"
        raise WriteError(msg)

    monkeypatch.setattr("caloforge.simulate.chunks.write_part", full)
    with pytest.raises(WriteError):
        make(ToyEngine())


@pytest.mark.parametrize("engine", [ToyEngine, IsolatedToy])
def test_an_interrupted_run_goes_on(
    make: Make, truth: np.ndarray, tmp_path: Path, engine: type[ToyEngine]
) -> None:
    diary = tmp_path / "diary"
    seen: list[int] = []

    def interrupt(steps: int) -> None:
        seen.append(steps)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(engine(diary), 1, interrupt)
    finished = {path.name for path in (tmp_path / "parts").glob("*.npz")}
    assert len(finished) >= 2
    diary.unlink()
    assert (make(engine(diary)).cells == truth).all()
    redone = {int(start) for start in diary.read_text().split()[::2]}
    assert redone.isdisjoint({int(name[:10]) for name in finished})


SCRIPT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
sys.path.insert(0, {tests!r})
from pathlib import Path
from toy_engines import IsolatedToy
from caloforge.geometry import get_detector
from caloforge.simulate.chunks import Parts, make_chunks, plan
from caloforge.simulate.job import Job
place = get_detector("atlas-em-barrel")
engine = IsolatedToy(diary=Path({diary!r}), trouble="sleep", at=8)
with Parts(Path({parts!r}), Job(engine, place, place.beam, seed=1)) as parts:
    make_chunks(parts, plan(12, 4), 1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("blow", ["SIGKILL", "SIGINT"])
def test_no_worker_outlives_its_parent(tmp_path: Path, blow: str) -> None:
    diary, parts = tmp_path / "diary", tmp_path / "parts"
    script = SCRIPT.format(tests=str(Path(__file__).parent), diary=str(diary), parts=str(parts))
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    try:
        _wait(lambda: diary.exists() and "8 " in diary.read_text())
        worker = int(diary.read_text().split()[-1])
        parent.send_signal(getattr(signal, blow))
        parent.communicate(timeout=120)
        _wait(lambda: not _alive(worker))
    finally:
        parent.kill()
        parent.communicate()
    assert {path.name[:10] for path in parts.glob("*.npz")} == {"0000000000", "0000000004"}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (OSError, IndexError):
        return False


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@given(st.integers(1, 10_000), st.integers(1, 500))
def test_a_plan_covers_everything_once(n: int, size: int) -> None:
    chunks = plan(n, size)
    assert [i for chunk in chunks for i in range(chunk.start, chunk.start + chunk.n)] == list(range(n))
    assert all(chunk.start % size == 0 and 1 <= chunk.n <= size for chunk in chunks)


@pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-angled"])
def test_a_part_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    detector = get_detector(name)
    job = Job(ToyEngine(), detector, detector.beam, seed=3)
    with Parts(tmp_path / "p", job) as parts:
        chunk = Chunk(4, 3)
        assert not parts.has(chunk)
        made = job.run(chunk.start, chunk.n)
        parts.put(chunk, made)
        read = parts.take(chunk)
    assert (read.cells == made.cells).all()
    assert (read.incident_energy == made.incident_energy).all()
    assert read.has_theta == made.has_theta
    assert (read.condition("incident_theta") == made.condition("incident_theta")).all()
    assert set(read.conditions) == set(made.conditions)
    assert all((read.conditions[key] == made.conditions[key]).all() for key in made.conditions)
    assert read.attributes == made.attributes


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "other", "no archive"])
def test_a_damaged_part_is_made_again(make: Make, truth: np.ndarray, tmp_path: Path, damage: str) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(ToyEngine(), 1, stop)
    (part,) = (tmp_path / "parts").glob("*.npz")
    content = bytearray(part.read_bytes())
    if damage == "other":
        place = get_detector("atlas-em-barrel")
        content = bytearray(
            Job(ToyEngine(), place, place.beam, seed=5).pack(Job(ToyEngine(), place, place.beam, 5).run(0, 3))
        )
    content[len(content) // 2] ^= damage == "flipped"
    part.write_bytes(
        {"empty": b"", "half": content[: len(content) // 2], "no archive": b"x" * 100}.get(damage, content)
    )
    assert (make(ToyEngine()).cells == truth).all()


def test_a_part_that_is_damaged_meanwhile_is_named(tmp_path: Path, tiny: Detector) -> None:
    job = Job(ToyEngine(), tiny, tiny.beam, seed=1)
    with Parts(tmp_path / "p", job) as parts:
        parts.put(Chunk(0, 4), job.run(0, 4))
        path = parts.path(Chunk(0, 4))
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(FileFormatError, match=rf"{path.name}: is damaged"):
            parts.take(Chunk(0, 4))


def test_empty_showers_keep_their_place(tmp_path: Path, tiny: Detector) -> None:
    job = Job(ToyEngine(), tiny, tiny.beam, seed=3, threshold=2.0)
    with Parts(tmp_path / "p", job) as parts:
        parts.put(Chunk(0, 3), job.run(0, 3))
        assert (parts.take(Chunk(0, 3)).cells == np.zeros((3, tiny.n_cells))).all()


def test_parts_of_another_job_are_refused_and_named(tmp_path: Path, tiny: Detector) -> None:
    one, other = (Job(ToyEngine(), tiny, tiny.beam, seed=seed) for seed in (1, 2))
    with Parts(tmp_path / "p", one) as parts:
        parts.put(Chunk(0, 4), one.run(0, 4))
    with Parts(tmp_path / "p", one) as parts:
        assert parts.has(Chunk(0, 4))
    with pytest.raises(IncompatibleError, match="differs in: seed"), Parts(tmp_path / "p", other):
        pass
    with Parts(tmp_path / "p", other, force=True) as parts:
        assert not parts.has(Chunk(0, 4))
        parts.remove()
    assert not (tmp_path / "p").exists()


def test_a_torn_card_belongs_to_nobody(tmp_path: Path, tiny: Detector) -> None:
    folder, job = tmp_path / "p", Job(ToyEngine(), tiny, tiny.beam, seed=1)
    with Parts(folder, job) as parts:
        parts.put(Chunk(0, 4), job.run(0, 4))
    (folder / "job.json").write_text("{")
    with pytest.raises(IncompatibleError), Parts(folder, job):
        pass


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path: Path, tiny: Detector) -> None:
    folder = tmp_path / "p"
    with pytest.raises(KeyboardInterrupt), Parts(folder, Job(ToyEngine(), tiny, tiny.beam, seed=1)):
        raise KeyboardInterrupt
    assert not folder.exists()
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    with Parts(folder, Job(ToyEngine(), tiny, tiny.beam, seed=1)) as parts:
        assert parts.folder.exists()


def test_two_runs_do_not_share_an_output(tmp_path: Path, tiny: Detector) -> None:
    pytest.importorskip("fcntl")
    job = Job(ToyEngine(), tiny, tiny.beam, seed=1)
    with (
        Parts(tmp_path / "p", job),
        pytest.raises(OutputError, match="another run"),
        Parts(tmp_path / "p", job),
    ):
        pass
    with Parts(tmp_path / "p", job):
        pass
