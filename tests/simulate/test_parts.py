"""Finished chunks: whole, of one job, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_engines import ToyEngine

from caloforge.errors import IncompatibleError, OutputError
from caloforge.geometry import Detector, get_detector
from caloforge.simulate.chunks import Chunk, Parts, plan
from caloforge.simulate.job import Job


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
