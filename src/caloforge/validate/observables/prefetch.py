"""Reading ahead: a thread that has the next chunk ready.

HDF5 releases Python's lock while it reads and unpacks, so that reading and computing overlap.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread

from caloforge.showers import Showers

__all__ = ["prefetch"]

_POLL = 0.1  # s, how soon the reading thread notices that nobody listens


def prefetch(chunks: Iterator[Showers], depth: int = 1) -> Generator[Showers, None, None]:
    """Iterate over chunks that another thread reads ahead.

    Arguments:
        chunks: What to read.
        depth: Chunks that may wait.

    Yields:
        The chunks, in order; an error of the reading thread is raised here.
    """
    queue: Queue[Showers | BaseException | None] = Queue(depth)
    stop = Event()

    def put(item: Showers | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=_POLL)
            except Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for chunk in chunks:
                if not put(chunk):
                    return
        except BaseException as error:  # handed to the reader of the queue
            put(error)
            return
        put(None)

    thread = Thread(target=read, name="read showers", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=_POLL)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
