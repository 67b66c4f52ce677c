"""Files written while the next showers are made: what they hold, and what is left when something fails."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import caloforge
from caloforge.errors import IncompatibleError, WriteError
from caloforge.generate import Generator
from caloforge.showers import Showers, SparseShowers, read_showers
from caloforge.showers.sparse import Hits
from caloforge.zoo.store import load

LAYOUTS = pytest.mark.parametrize("layout", ["dense", "sparse"])


@pytest.fixture
def model(run: Path) -> Generator:
    return load(run, device="cpu")


@pytest.fixture
def on_gpu(run: Path, monkeypatch: pytest.MonkeyPatch) -> Generator:
    """Return a generator that takes the path of a GPU; its batches are made on the CPU nevertheless."""
    model, cpu = load(run, device="cpu"), torch.device("cpu")
    block = model._block
    model.device = torch.device("meta")

    def made(*arguments: Any) -> torch.Tensor:
        model.device = cpu
        try:
            return block(*arguments)
        finally:
            model.device = torch.device("meta")

    monkeypatch.setattr(model, "_block", made)
    return model


def assert_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "caloforge-generate"]


def test_hits_of_the_stream_are_its_cells(model: Generator) -> None:
    dense = list(model.stream(250, energy="2-200GeV", seed=5, batch_size=100))
    sparse = list(model.stream_sparse(250, energy="2-200GeV", seed=5, batch_size=100))
    assert [len(part) for part in sparse] == [100, 100, 50]
    for one, other in zip(dense, sparse, strict=True):
        assert isinstance(other, SparseShowers)
        assert other.hits.check(model.detector.n_cells) is None
        np.testing.assert_array_equal(other.to_dense().cells, one.cells)
        np.testing.assert_array_equal(other.incident_energy, one.incident_energy)
        assert other.attributes == one.attributes


@LAYOUTS
def test_both_layouts_hold_the_same_showers(model: Generator, tmp_path: Path, layout: str) -> None:
    expected = model.generate(430, energy="2-200GeV", seed=5)
    for size in (100, 300):
        path = model.write(
            tmp_path / f"{size}.h5", 430, energy="2-200GeV", seed=5, batch_size=size, layout=layout
        )
        back = read_showers(path)
        np.testing.assert_array_equal(back.cells, expected.cells)
        np.testing.assert_array_equal(back.incident_energy, expected.incident_energy)
        assert (back.source, back.seed, back.particle) == ("vae", 5, "gamma")
        for name, values in expected.conditions.items():
            np.testing.assert_array_equal(back.conditions[name], values)


@LAYOUTS
def test_the_path_of_a_gpu_makes_the_same(
    on_gpu: Generator, model: Generator, tmp_path: Path, layout: str
) -> None:
    expected = model.generate(250, energy="2-200GeV", seed=5, batch_size=100)
    path = on_gpu.write(tmp_path / "s.h5", 250, energy="2-200GeV", seed=5, batch_size=100, layout=layout)
    in_memory = on_gpu.generate(250, energy="2-200GeV", seed=5, batch_size=100)
    assert isinstance(in_memory, Showers)
    for found in (read_showers(path), in_memory):
        np.testing.assert_allclose(found.cells, expected.cells, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found.incident_energy, expected.incident_energy)


def test_memory_that_holds_one_batch_is_enough(on_gpu: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not fit beside the one before is made again when that one is gone, at full size."""
    block, sizes, held = on_gpu._block, [], []

    def narrow(matrix: torch.Tensor, *arguments: Any) -> torch.Tensor:
        sizes.append(len(matrix))
        if any(pending.held for pending in held):
            raise torch.OutOfMemoryError
        return block(matrix, *arguments)

    class Watched(caloforge.generate.PendingHits):
        def __init__(self, cells: torch.Tensor) -> None:
            super().__init__(cells)
            held.append(self)

    monkeypatch.setattr(on_gpu, "_block", narrow)
    monkeypatch.setattr("caloforge.generate.PendingHits", Watched)
    made = list(on_gpu.stream_sparse(400, energy="20GeV", batch_size=100))
    assert [len(part) for part in made] == [100] * 4
    assert sizes == [100] * 5


@LAYOUTS
def test_bad_conditions_are_known_before_a_file_is_made(
    model: Generator, tmp_path: Path, layout: str
) -> None:
    with pytest.raises(IncompatibleError, match="outside the training's"):
        model.write(tmp_path / "s.h5", 5, energy="2TeV", layout=layout)
    assert_nothing_is_left(tmp_path)


@LAYOUTS
def test_a_disk_that_is_full_in_the_middle(
    on_gpu: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    from caloforge.showers.writing import GuardedFile

    written = []

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: memoryview) -> int:
            written.append(len(data))
            if sum(written) > 60_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self._file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    start = GuardedFile.__init__

    def opened(self: GuardedFile, path: Path) -> None:
        start(self, path)
        self._file = Full(self._file)

    monkeypatch.setattr(GuardedFile, "__init__", opened)
    with pytest.raises(WriteError, match="writing failed, nothing was kept: No space left on device"):
        on_gpu.write(tmp_path / "s.h5", 20_000, energy="20GeV", batch_size=500, layout=layout)
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("failure", [RuntimeError("of the network"), KeyboardInterrupt()])
def test_a_failure_while_the_next_showers_are_made(
    on_gpu: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    block: Callable[..., torch.Tensor] = on_gpu._block

    def broken(matrix: torch.Tensor, start: int, *others: Any) -> torch.Tensor:
        if start >= 300:
            raise failure
        return block(matrix, start, *others)

    monkeypatch.setattr(on_gpu, "_block", broken)
    with pytest.raises(type(failure)):
        on_gpu.write(tmp_path / "s.h5", 1000, energy="20GeV", batch_size=100, layout="sparse")
    assert_nothing_is_left(tmp_path)


def test_a_wrong_value_is_not_written(
    on_gpu: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block: Callable[..., torch.Tensor] = on_gpu._block

    def wrong(matrix: torch.Tensor, start: int, *others: Any) -> torch.Tensor:
        cells = block(matrix, start, *others).clone()
        cells[0, 3] = torch.nan if start == 100 else cells[0, 3]
        return cells

    monkeypatch.setattr(on_gpu, "_block", wrong)
    for layout in ("dense", "sparse"):
        with pytest.raises(ValueError, match="row 100: cell 3 is nan"):
            on_gpu.write(tmp_path / "s.h5", 300, energy="20GeV", batch_size=100, layout=layout)
    assert_nothing_is_left(tmp_path)


INTERRUPTED = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
import torch
torch.set_num_threads(1)
from caloforge.progress import progress
from caloforge.zoo.store import load
from caloforge.showers import ShowerWriter
model = load(sys.argv[1], device="cpu")
append = ShowerWriter.append
def said(self, showers):
    append(self, showers)
    print("writing", flush=True)
ShowerWriter.append = said
try:
    model.write(sys.argv[2], 10**9, energy="20GeV", layout="sparse")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_in_the_middle(run: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(run), str(tmp_path / "s.h5")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "writing\n"
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "interrupted"
    assert list(tmp_path.iterdir()) == []


def test_hits_can_be_put_into_other_showers(model: Generator) -> None:
    showers = model.generate(3, energy="20GeV")
    found = SparseShowers.with_hits(Hits.from_cells(showers.cells), showers)
    np.testing.assert_array_equal(found.to_dense().cells, showers.cells)
    assert found.to_dense().fields().keys() == showers.fields().keys()
