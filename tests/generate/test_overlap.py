"""Hits taken from a device, and a thread that makes some in advance."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest
import torch

from caloforge.generate import overlap
from caloforge.generate.overlap import PendingHits, ahead, find_hits
from caloforge.showers.sparse import Hits

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
Stopped = Callable[[], bool]


def cells_of(n: int, width: int) -> torch.Tensor:
    """Return cells (n, width) of which a third have energy; the second shower is empty."""
    generator = torch.Generator().manual_seed(1)
    filled = torch.rand(n, width, generator=generator) < 0.3
    filled[1:2] = False
    return torch.where(filled, torch.rand(n, width, generator=generator) + 0.1, 0.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("most", [40, 2**29])
def test_hits_are_those_of_the_cells(device: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_MOST_CELLS", most)
    cells = cells_of(7, 19)
    expected = Hits.from_cells(cells.numpy())
    counts, cell, energy = (part.cpu().numpy() for part in find_hits(cells.to(device)))
    assert (cell.dtype, energy.dtype) == (np.int32, np.float32)
    pending = PendingHits(cells.to(device))
    assert pending.held
    found = pending.result()
    assert not pending.held
    assert pending.result() is found
    for one in (Hits(cell, energy, np.concatenate([[0], np.cumsum(counts)])), found):
        np.testing.assert_array_equal(one.cell, expected.cell)
        np.testing.assert_array_equal(one.energy, expected.energy)
        np.testing.assert_array_equal(one.offsets, expected.offsets)


@pytest.mark.parametrize("device", DEVICES)
def test_showers_without_any_energy(device: str) -> None:
    found = PendingHits(torch.zeros(3, 5, device=device)).result()
    assert found.offsets.tolist() == [0, 0, 0, 0]


def test_a_value_that_is_not_a_number_is_not_lost() -> None:
    found = PendingHits(torch.tensor([[0.0, torch.nan, -1.0]])).result()
    assert found.cell.tolist() == [1, 2]
    assert found.check(3) is not None


def test_all_come_in_order_and_the_thread_ends() -> None:
    with ahead(lambda _: iter(range(50))) as items:
        assert list(items) == list(range(50))
    assert not _threads()


def test_few_are_made_in_advance() -> None:
    made: list[int] = []
    ready = threading.Event()

    def make(stopped: Stopped) -> Iterator[int]:
        for number in count():
            made.append(number)
            if number == 2:
                ready.set()
            yield number

    with ahead(make, most=2) as items:
        assert ready.wait(10)
        assert len(made) <= 3
        assert next(items) == 0
        assert len(made) <= 4
    assert not _threads()


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_a_failure_of_the_thread_comes_after_what_it_made(failure: BaseException) -> None:
    def make(stopped: Stopped) -> Iterator[int]:
        yield 1
        raise failure

    found: list[int] = []
    with ahead(make) as items:
        with pytest.raises(type(failure)):
            found.extend(items)
        assert found == [1]
    with ahead(make) as items:
        assert next(items) == 1
    assert not _threads()


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_a_failure_of_the_user_ends_the_thread_in_the_middle(failure: BaseException) -> None:
    closed = threading.Event()

    def make(stopped: Stopped) -> Iterator[int]:
        try:
            yield 0
            while not stopped():
                pass
        finally:
            closed.set()

    def use() -> None:
        with ahead(make) as items:
            assert next(items) == 0
            raise failure

    with pytest.raises(type(failure)):
        use()
    assert closed.is_set()
    assert not _threads()


UNFINISHED = """
from itertools import count
from caloforge.generate.overlap import ahead
def items():
    with ahead(lambda stopped: count()) as numbers:
        yield from numbers
kept = items()
print(next(kept))
"""


def test_a_process_ends_though_nobody_finished() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNFINISHED], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "caloforge-generate"]
