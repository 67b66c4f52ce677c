"""Overlap of computation and use: hits are copied from a GPU while it computes the next ones, and a thread makes showers in advance.

Of showers on a GPU only the cells with energy are copied: they are found there, on a stream that waits for these showers alone and not
for those that were begun since, and copied through pinned memory (:class:`PendingHits`). A thread makes showers while those before are
checked, packed and written (:func:`ahead`); a bounded queue limits how many wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from caloforge.showers.sparse import Hits

__all__ = ["PendingHits", "ahead", "find_hits"]

T = TypeVar("T")

_MOST_CELLS = 2**29  # cells that are searched at once: torch's limit is 2**31
_PATIENCE = 0.2  # seconds after which a thread with a full queue looks whether it shall end


class PendingHits:
    """The hits of showers (B, n_cells) that the current stream of their GPU may still be computing."""

    def __init__(self, cells: Tensor) -> None:
        self._cells: Tensor | None = cells
        self._hits: Hits | None = None
        self._made: torch.cuda.Event | None = None
        if cells.is_cuda:
            self._made = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._made.record(torch.cuda.current_stream(cells.device))

    @property
    def held(self) -> bool:
        """Whether the cells are in memory still."""
        return self._cells is not None

    def result(self) -> Hits:
        """Return the hits, on the CPU, once the showers are made; the cells are not kept."""
        if self._hits is None:
            assert self._cells is not None
            self._hits = _hits(self._cells, self._made)
            self._cells = None
        return self._hits


@torch.inference_mode()
def _hits(cells: Tensor, made: torch.cuda.Event | None) -> Hits:
    """Return the hits of cells that are there after an event of their GPU, none on a CPU."""
    if made is not None:
        stream = _side_stream(cells.device)
        try:
            with torch.cuda.stream(stream):
                stream.wait_event(made)
                parts = _copied(find_hits(cells))
                stream.synchronize()
        except torch.OutOfMemoryError:  # the showers are there, only their hits had no room
            made.synchronize()
        else:
            counts, cell, energy = (part.numpy() for part in parts)
            return Hits(cell, energy, np.concatenate([[0], np.cumsum(counts)]))
    return Hits.from_cells(cells.float().cpu().numpy())


def find_hits(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the hits of cells (B, n_cells) on their device.

    Returns:
        The number of hits of each shower (B,) int64, and of all hits, in order, the cell (H,) int32 and the energy (H,) float32, MeV.
    """
    n_cells = cells.shape[1]
    rows = max(1, _MOST_CELLS // max(1, n_cells))
    counts, places, energies = [], [], []
    for part in torch.split(cells.float(), rows):
        flat = part.reshape(-1)
        index = flat.nonzero()[:, 0]
        counts.append(torch.count_nonzero(part, 1))
        places.append((index % n_cells).int())
        energies.append(flat[index])
    return torch.cat(counts), torch.cat(places), torch.cat(energies)


def _copied(parts: tuple[Tensor, ...]) -> list[Tensor]:
    """Return tensors in pinned memory of the CPU; they are there when the current stream has finished."""
    found = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
    for there, part in zip(found, parts, strict=True):
        there.copy_(part, non_blocking=True)
    return found


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Queue(Generic[T]):
    """What a thread makes, at most some in advance; its end or its failure comes last."""

    def __init__(self, most: int) -> None:
        self.stop = Event()
        self._queue: Queue[tuple[list[T], BaseException | None]] = Queue(most)

    def work(self, make: Callable[[Callable[[], bool]], Iterator[T]]) -> None:
        """Make all, or until it shall end."""
        failure: BaseException | None = None
        try:
            items = make(self.stop.is_set)
            for item in items:
                self._put([item], None)
                if self.stop.is_set():
                    break
            if isinstance(items, Generator):
                items.close()
        except BaseException as error:  # raised again where the showers are used
            failure = error
        self._put([], failure)

    def _put(self, items: list[T], failure: BaseException | None) -> None:
        while not self.stop.is_set():
            try:
                return self._queue.put((items, failure), timeout=_PATIENCE)
            except Full:
                continue

    def __iter__(self) -> Iterator[T]:
        while True:
            items, failure = self._queue.get()
            if failure is not None:
                raise failure
            if not items:
                return
            yield items[0]


@contextmanager
def ahead(make: Callable[[Callable[[], bool]], Iterator[T]], most: int = 2) -> Iterator[Iterator[T]]:
    """Iterate, in a ``with`` block, over what a thread makes meanwhile, at most ``most`` in advance.

    A failure of the thread is raised where the next item is used. When the block ends, whatever ended it, the thread has ended too;
    ``make`` is called with a function that says whether it shall end, and looks at it as often as it can.
    """
    queue: _Queue[T] = _Queue(most)
    # a process that ends in the middle of such a block, as an iterator that nobody finished may be, does not wait
    thread = Thread(target=queue.work, args=(make,), name="caloforge-generate", daemon=True)
    thread.start()
    try:
        yield iter(queue)
    finally:
        queue.stop.set()
        thread.join()
