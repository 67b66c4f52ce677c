"""Simulation, generation and validation on a real Dask cluster of two worker processes, one of which dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.cluster import Cluster, connected
from caloforge.errors import ClusterError, IncompatibleError, InputError, UnitError
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers
from caloforge.simulate import simulate
from caloforge.simulate.chunks import InMemory, make_chunks, plan
from caloforge.simulate.gflash import GFlashEngine
from caloforge.simulate.job import Job
from caloforge.studies.run import run_study
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.sample import Sample
from caloforge.zoo.store import generate_on_cluster, load

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(host="127.0.0.1", **options) as cluster:
        yield str(cluster.scheduler_address)


def kill_one(cluster: Cluster) -> int:
    """End the process of a worker as a batch system does that wants its memory back."""
    pids = cluster.client.run(os.getpid)
    os.kill(min(pids.values()), signal.SIGKILL)
    return len(pids)


def same(one: Path, other: Path) -> None:
    with h5py.File(one) as a, h5py.File(other) as b:
        names: list[str] = []
        a.visit(names.append)
        for name in names:
            if isinstance(a[name], h5py.Dataset):
                assert np.array_equal(a[name][:], b[name][:]), name
        facts = [{k: v for k, v in file.attrs.items() if k != "cpu_seconds_per_shower"} for file in (a, b)]
        assert facts[0] == facts[1]


def test_a_simulation_is_whole_although_a_worker_dies(address: str) -> None:
    place = get_detector("atlas-em-barrel")
    job, chunks = Job(GFlashEngine(), place, place.beam, 5), plan(240, 20)
    here, there = InMemory(job), InMemory(job)
    make_chunks(here, chunks)
    with connected(address) as cluster:
        assert cluster is not None
        killed: list[int] = []

        def advance(n: int) -> None:
            if not killed:
                killed.append(kill_one(cluster))

        make_chunks(there, chunks, advance=advance, cluster=cluster)
    assert killed == [2]
    one, other = (Showers.concatenate([store.take(chunk) for chunk in chunks]) for store in (here, there))
    assert one.cells.tobytes() == other.cells.tobytes()
    assert np.array_equal(one.incident_energy, other.incident_energy)


def test_a_simulated_file_is_that_of_one_machine(address: str, tmp_path: Path) -> None:
    made = {}
    for where in (None, address):
        made[where] = tmp_path / str(bool(where)) / "x.h5"
        made[where].parent.mkdir()
        simulate("ild-ecal", 50, engine="gflash", seed=2, first=7, output=made[where], scheduler=where)
    same(made[None], made[address])
    assert [path.name for path in made[address].parent.iterdir()] == ["x.h5"]


@pytest.mark.parametrize(("layout", "imitated"), [("dense", False), ("sparse", True)])
def test_generated_files_are_those_of_one_machine(
    layout: str, imitated: bool, address: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caloforge.zoo.store._TASK", 100)
    like = run.parent / "data.h5" if imitated else None
    model = load(run, device="cpu")
    wanted: dict[str, Any] = {"n": 430, "seed": 3, "batch_size": 100, "first": 200}
    wanted |= {} if imitated else {"energy": "8GeV"}
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    model.write(tmp_path / "here" / "x.h5", like=like, layout=layout, **wanted)
    loading = {"device": "cpu", "options": {}, "precision": "float32", "compiled": False}
    with connected(address) as cluster:
        assert cluster is not None
        generate_on_cluster(
            cluster, model, run, tmp_path / "there" / "x.h5", loading, wanted, like, layout=layout
        )
    same(tmp_path / "here" / "x.h5", tmp_path / "there" / "x.h5")


@pytest.mark.slow
def test_metrics_are_those_of_one_machine_although_a_worker_dies(address: str, tmp_path: Path) -> None:
    files = [
        simulate("atlas-em-barrel", 150, engine="gflash", seed=seed, output=tmp_path / f"{seed}.h5")
        for seed in (1, 2)
    ]
    names = ("auc_spectrum", "auc_observables", "classifier_high", "separation_power", "moments")
    settings = Settings(quick=True, device="cpu", n_bootstrap=2, n_halves=1)
    one, other = (Sample(open_showers(path), path.stem) for path in files)
    with connected(address) as cluster:
        assert cluster is not None
        killed: list[int] = []

        def progress(name: str, done: int, of: int) -> None:
            if not killed:
                killed.append(kill_one(cluster))

        there = compute_metrics(one, other, settings, names, progress, cluster)
    here = compute_metrics(one, other, settings, names)
    assert list(there) == list(here)
    assert there == here
    assert killed


@pytest.mark.slow
def test_studies_are_those_of_one_machine(address: str, tmp_path: Path) -> None:
    reference, fake = (
        simulate("ild-ecal", 40, engine="gflash", seed=seed, output=tmp_path / f"{seed}.h5")
        for seed in (1, 2)
    )
    options = {"shipped": False, "studies": ["layers"]}
    run_study("all", reference, fake, output=tmp_path / "site", settings=options, scheduler=address)
    there = json.loads((tmp_path / "site" / "layers-ild-ecal" / "study.json").read_text())
    here = run_study("layers", reference, fake, labels=[Path(fake).stem])
    assert there["rows"] == here.content["rows"]
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_study_is_refused_by_the_worker_that_does_it(address: str, tmp_path: Path) -> None:
    reference = simulate("ild-ecal", 10, engine="gflash", output=tmp_path / "x.h5")
    with pytest.raises(InputError, match="study 'layers': 0 generated samples were given"):
        run_study("layers", reference, output=tmp_path / "study", scheduler=address)


def test_results_in_order(address: str) -> None:
    with connected(address) as cluster:
        assert cluster is not None
        tasks = [(number,) for number in range(20)]
        assert list(cluster.results(abs, tasks, in_order=True)) == [(n, n) for n in range(20)]
        assert sorted(cluster.results(abs, tasks)) == [(n, n) for n in range(20)]
        assert list(cluster.results(abs, [])) == []


def test_what_a_task_raises_is_raised_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(address) as cluster:
        assert cluster is not None
        with pytest.raises(UnitError, match="50"):
            list(cluster.results(_parsed, [("50",)]))
        with pytest.raises(ClusterError, match=r"a worker on .*: /nowhere: No such file"):
            list(cluster.results(os.listdir, [("/nowhere",)]))
        monkeypatch.setattr("caloforge.cluster.__version__", "9.9")
        with pytest.raises(IncompatibleError, match=r"a worker on .* has caloforge .*, the command 9\.9"):
            list(cluster.results(abs, [(1,)]))


def _parsed(text: str) -> object:
    from caloforge.units import EnergySpec

    return EnergySpec.parse(text)


def test_a_task_that_kills_its_workers_is_given_up(address: str) -> None:
    with connected(address) as cluster:
        assert cluster is not None
        with pytest.raises(ClusterError, match="died repeatedly"):
            list(cluster.results(signal.raise_signal, [(signal.SIGKILL,)]))


@pytest.mark.slow
def test_the_example_runs_on_a_slurm_of_one_node() -> None:
    script = Path(__file__).parents[1] / "scripts" / "slurm_node.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout.strip())
    assert "3000 showers, equal to those of one machine" in done.stdout


def test_no_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caloforge.cluster._WAIT", "1s")
    with pytest.raises(InputError, match="no Dask scheduler answers"), connected("tcp://127.0.0.1:1"):
        pass
    with connected(None) as cluster:
        assert cluster is None
