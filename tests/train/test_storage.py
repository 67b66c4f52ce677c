"""Showers of a training in memory, packed or in their files: the same showers, and no more memory than allowed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import ToyConfig, TwoStage, toy_showers

from caloforge.files import sha256_file
from caloforge.geometry import get_detector
from caloforge.showers import Showers, read_showers, write_showers
from caloforge.showers.identity import hash_showers
from caloforge.train import RunFolder, data, held_out_showers, train
from caloforge.train.data import StreamedDataset, TrainingFiles, read_files
from caloforge.train.dataset import CellPacker
from caloforge.train.files import describe_files

STORAGES = {"memory": "1GB", "packed": "25kB", "files": "1kB"}


def sparse_toys(n: int = 64, seed: int = 0, energy: float = 50_000.0) -> Showers:
    """Toys with a tenth of the cells hit, so that hits alone take less memory."""
    toys = toy_showers(n, seed)
    cells = np.where(toys.cells > np.quantile(toys.cells, 0.9), toys.cells, np.float32(0))
    return toys.replace(cells=cells, incident_energy=np.full(n, energy))


@pytest.fixture(scope="module")
def sparse_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_showers(tmp_path_factory.mktemp("sparse") / "toys.h5", sparse_toys(100))


@pytest.mark.parametrize("n_cells", [10, 60_000, 70_000])
@pytest.mark.parametrize("hit", [0.0, 0.02, 0.8])
def test_packed_cells_are_the_cells(n_cells: int, hit: float) -> None:
    rng = np.random.default_rng(1)
    cells = rng.random((9, n_cells), np.float32) * (rng.random((9, n_cells)) < hit)
    cells[[0, 4, 8]] = 0
    packer = CellPacker(9, n_cells)
    for part in np.split(cells, [2, 3, 8]):
        packer.append(part)
    found = packer.packed()
    assert found is not None
    for rows in ([0], [8, 1, 1, 4, 0], list(range(9)), []):
        assert np.array_equal(found.dense(torch.tensor(rows, dtype=torch.int64)).numpy(), cells[rows])
    assert (found.index is not None) == (hit < 0.3)
    assert found.nbytes <= cells.nbytes
    none = CellPacker(9, n_cells, memory=0.9 * found.nbytes)
    for part in np.split(cells, [2, 3, 8]):
        none.append(part)
    assert none.packed() is None


@pytest.mark.parametrize("storage", STORAGES)
def test_one_read_checks_hashes_and_loads(storage: str, sparse_file: Path, tmp_path: Path) -> None:
    other = write_showers(tmp_path / "other.h5", sparse_toys(50, seed=2, energy=30_000.0))
    memory = {"memory": 1e9, "packed": 30e3, "files": 1e3}[storage]
    files = read_files([sparse_file, other], memory)
    whole = Showers.concatenate([read_showers(sparse_file), read_showers(other)])
    assert files.storage == storage
    assert files.facts == describe_files([sparse_file, other])
    assert files.facts["files"][1]["sha256"] == sha256_file(other)
    assert np.array_equal(files.identities, hash_showers(whole.cells, whole.incident_energy))
    rows = np.random.default_rng(0).permutation(150)[:70]
    for kept in (files, files.keep(rows[:40])):
        found = kept.showers(rows)
        assert np.array_equal(found.cells, whole.cells[rows])
        assert np.array_equal(found.incident_energy, whole.incident_energy[rows])
    assert (len(files), repr(files.header)) == (150, repr(whole))


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("name", ["toy-adversarial", "toy-two-stage"])
def test_packing_changes_no_weight_and_streaming_the_order_alone(
    name: str, sparse_file: Path, tmp_path: Path
) -> None:
    weights, lines = {}, {}
    for storage, memory in STORAGES.items():
        run = RunFolder(
            train(name, sparse_file, tmp_path / storage, overrides=[f"data.memory={memory}"], device="cpu")
        )
        assert run.read()["storage"] == storage
        weights[storage] = run.models()[0].state_dict()
        lines[storage] = len(run.log.read_text().splitlines())
    for key, value in weights["memory"].items():
        assert torch.equal(weights["packed"][key], value)
    assert set(lines.values()) == {lines["memory"]}
    assert torch.equal(weights["files"]["scale"], weights["memory"]["scale"])
    assert not torch.equal(weights["files"]["net.0.weight"], weights["memory"]["net.0.weight"])


@pytest.mark.usefixtures("toys")
def test_a_streamed_run_goes_on_as_it_would_have(
    monkeypatch: pytest.MonkeyPatch, sparse_file: Path, tmp_path: Path
) -> None:
    from caloforge.train import loop

    how = {"model": "toy-two-stage", "data": sparse_file, "device": "cpu", "seed": 3}
    settings = ["checkpoint_epochs=1", "data.memory=1kB"]
    train(output=tmp_path / "whole", overrides=settings, **how)
    real, done = loop.StageLoop._epoch, []

    def stopping(self, *args):
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(loop.StageLoop, "_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(output=tmp_path / "again", overrides=settings, **how)
    # The memory may have changed meanwhile: the run goes on with the storage that it began with.
    train(output=tmp_path / "again", overrides=["checkpoint_epochs=1"], resume=True, **how)
    for file in ("weights.safetensors", "metrics.csv"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def _in_small_blocks(file: Path, size: int = 7) -> TrainingFiles:
    files = read_files(file, memory=0)
    n = len(files)
    starts = range(0, n, size)
    return replace(files, blocks=tuple(data.Block(file, s, min(s + size, n), s) for s in starts))


def _streamed(file: Path, rows: np.ndarray) -> StreamedDataset:
    files = _in_small_blocks(file)
    model = TwoStage(get_detector("ild-ecal-10x10"), ToyConfig())
    return StreamedDataset(files, rows, model.condition_matrix(files.header)[rows], torch.device("cpu"))


def test_a_streamed_epoch_shows_each_shower_once_in_a_reproducible_order(
    monkeypatch: pytest.MonkeyPatch, sparse_file: Path
) -> None:
    monkeypatch.setattr(data, "SAMPLE_BYTES", 30 * 400)  # a buffer of 30 showers
    cells = read_showers(sparse_file).cells
    rows = np.random.default_rng(3).permutation(100)[:83]
    stream = _streamed(sparse_file, rows)

    def order(*which) -> list[int]:
        batches = list(stream.epoch(10, *which))
        assert [len(batch) for batch in batches] == [10] * stream.steps(10) == [10] * 8
        for batch in batches:
            assert np.array_equal(batch.cells.numpy(), cells[rows[batch.indices]])
        return torch.cat([batch.indices for batch in batches]).tolist()

    orders = {which: order(*which) for which in [(1, "a", 0), (1, "a", 1), (2, "a", 0), (1, "b", 0)]}
    assert all(len(set(one)) == 80 for one in orders.values())
    assert len({tuple(one) for one in orders.values()}) == 4
    assert order(1, "a", 1) == orders[1, "a", 1]
    for one in orders.values():  # neighbours in the file are not neighbours in the epoch
        assert abs(np.corrcoef(rows[one], np.arange(80))[0, 1]) < 0.5
        assert np.mean(np.abs(np.diff(rows[one])) <= 7) < 0.5


def test_all_showers_of_a_stream_are_those_of_memory(sparse_file: Path) -> None:
    cells = read_showers(sparse_file).cells
    rows = np.random.default_rng(3).permutation(100)[:83]
    stream = _streamed(sparse_file, rows)
    batches = list(stream.batches(10))
    assert [len(batch) for batch in batches] == [10] * 8 + [3]
    indices = torch.cat([batch.indices for batch in batches])
    assert sorted(indices.tolist()) == list(range(83))
    assert np.array_equal(torch.cat([batch.cells for batch in batches]).numpy(), cells[rows[indices]])
    some = torch.tensor([5, 80, 5, 0])
    assert np.array_equal(stream.take(some).cells.numpy(), cells[rows[some]])


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("storage", STORAGES)
def test_the_first_showers_of_joined_files_are_of_all_files(
    monkeypatch: pytest.MonkeyPatch, storage: str, tmp_path: Path
) -> None:
    """Calibrations, epoch selection and batch norms take the first showers: they must be a random sample."""
    files = [
        write_showers(tmp_path / f"{energy}.h5", sparse_toys(200, seed=energy, energy=1000.0 * energy))
        for energy in (10, 90)
    ]
    found = {}

    def fit(self, training, generator) -> None:
        found["calibration"] = next(training.batches(60)).conditions
        found["fit"] = training.take(torch.arange(60)).conditions

    def validate(self, held_out) -> dict[str, float]:
        found["selection"] = held_out.take(torch.arange(40)).conditions
        return {"response": 1.0}

    from caloforge.models import MODELS

    monkeypatch.setattr(MODELS["toy-mean"], "fit", fit)
    monkeypatch.setattr(MODELS["toy-adversarial"], "validate", validate)
    for name in ("toy-mean", "toy-adversarial"):
        memory = {"memory": "1GB", "packed": "100kB", "files": "1kB"}[storage]
        run = train(name, files, tmp_path / name, overrides=[f"data.memory={memory}"], device="cpu")
        assert RunFolder(Path(run)).read()["storage"] == storage
    found["held out"] = torch.from_numpy(held_out_showers(run, files).incident_energy[:40, None])
    assert set(found) == {"calibration", "fit", "selection", "held out"}
    for name, energies in found.items():
        part = float((energies > 50_000).float().mean())
        assert part == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(energies))), name


SCRIPT = """
import sys
from pathlib import Path
import torch
from toys import Toy
from caloforge.models import MODELS
from caloforge.models.stage import Stage
from caloforge.train import data, train

class Tiny(Toy):
    def __init__(self, detector, config):
        super().__init__(detector, config)
        self.net = torch.nn.Linear(4, detector.n_cells)
    def stages(self):
        return (Stage("one", 1, 16, {"net": self.spec(self.net)}, self.step, metric="response"),)
    def step(self, batch, updater):
        loss = (self.sample(updater.normal(len(batch), 4), batch.conditions) - batch.cells).square().mean()
        updater.update("net", loss)
        return {"loss": loss.detach()}

def peak():  # since the process began; ru_maxrss counts that of the parent too
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

MODELS.register("tiny", Tiny)
data.SAMPLE_BYTES = 5 * 2**20
for name in ("small", "large"):
    before = peak()
    settings = ["data.memory=4MB", "validation=0.01"]
    train("tiny", f"{sys.argv[1]}/{name}.h5", f"{sys.argv[1]}/{name}", overrides=settings, device="cpu")
print(peak() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's count of a process's memory"
)
def test_a_stream_takes_less_memory_than_its_file(tmp_path: Path) -> None:
    detector, n = get_detector("ild-ecal"), 1500
    cells = np.zeros((n, detector.n_cells), np.float32)
    cells[:, ::2] = np.arange(1, n + 1, dtype=np.float32)[
        :, None
    ]  # half of the cells hit: no smaller as hits
    large = Showers(detector, cells, np.full(n, 50_000.0), particle="gamma")
    large.save(tmp_path / "large.h5")
    large[:400].save(tmp_path / "small.h5")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "large").read()["storage"] == "files"
    assert float(done.stdout) < 0.5 * cells.nbytes / 2**20
