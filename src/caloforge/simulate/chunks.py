"""Runs a job's chunks in one or more processes; finished ones are kept, failed ones are done again.

Chunks lie at fixed places and depend on nothing but the job, so the result does not depend on how many
processes there are, in which order they finish, or how often the work was interrupted. Anything else that can
call :meth:`Job.run` (a cluster's scheduler) may make the same parts.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from caloforge.errors import SimulationError
from caloforge.simulate.engine import IsolatedEngine
from caloforge.simulate.parts import Chunk, Parts, write_part
from caloforge.simulate.process import WorkerDiedError, WorkerProcess

__all__ = ["ATTEMPTS", "make_parts"]

ATTEMPTS = 3
"""How often a chunk is tried when its worker dies."""


def make_parts(
    parts: Parts, chunks: Sequence[Chunk], workers: int = 1, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Make the parts of all chunks that are not there yet.

    Arguments:
        parts: Where they go, and the job that makes them.
        chunks: The chunks.
        workers: Number of processes.
        advance: Told the number of showers of each finished chunk.

    Raises:
        SimulationError: When a chunk's worker died ``ATTEMPTS`` times.
        CaloforgeError: What the engine raised.
    """
    missing = []
    for chunk in chunks:
        if parts.has(chunk):
            advance(chunk.n)
        else:
            missing.append(chunk)
    if workers == 1 and not isinstance(parts.job.engine, IsolatedEngine):
        for chunk in missing:
            write_part(parts.path(chunk), parts.job.run(chunk.start, chunk.n))
            advance(chunk.n)
    elif missing:
        _Crew(parts, missing).work(min(workers, len(missing)), advance)


class _Crew:
    """Threads that each lead one worker process, and the chunks that they share."""

    def __init__(self, parts: Parts, chunks: Sequence[Chunk]) -> None:
        self._parts = parts
        self._total = len(chunks)
        self._todo: queue.SimpleQueue[tuple[Chunk, int] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Chunk | BaseException] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._processes: set[WorkerProcess] = set()
        self._stopped = False
        for chunk in chunks:
            self._todo.put((chunk, 1))

    def work(self, workers: int, advance: Callable[[int], None]) -> None:
        """Return when every chunk is done, or raise the first error; no process is left either way."""
        threads = [threading.Thread(target=self._lead, daemon=True) for _ in range(workers)]
        try:
            for thread in threads:
                thread.start()
            for _ in range(self._total):
                result = self._done.get()
                if isinstance(result, BaseException):
                    raise result
                advance(result.n)
        except BaseException:
            self._stop()
            raise
        finally:
            for _ in threads:
                self._todo.put(None)
            for thread in threads:
                thread.join()

    def _stop(self) -> None:
        """Let no further work begin and end the processes."""
        with self._guard:
            self._stopped = True
            for process in self._processes:
                process.kill()

    def _lead(self) -> None:
        """Give chunks to one process after the other, a new one when the last has died."""
        process: WorkerProcess | None = None
        try:
            while (item := self._todo.get()) is not None:
                if process is None:
                    process = self._hire()
                if process is None:
                    return
                chunk, attempt = item
                try:
                    process.make(chunk.start, chunk.n, self._parts.path(chunk))
                except WorkerDiedError as death:
                    self._dismiss(process)
                    process = None
                    if not self._stopped:
                        self._again(chunk, attempt, death)
                else:
                    self._done.put(chunk)
        except BaseException as error:
            self._done.put(error)
        finally:
            if process is not None:
                self._dismiss(process)

    def _again(self, chunk: Chunk, attempt: int, death: WorkerDiedError) -> None:
        """Put a chunk back whose worker died, unless there is no point."""
        engine = self._parts.job.engine
        known = engine.diagnose(death.log) if isinstance(engine, IsolatedEngine) else None
        if known is not None:
            raise known from death
        if attempt == ATTEMPTS:
            last = chunk.start + chunk.n - 1
            msg = f"showers {chunk.start} to {last} failed {ATTEMPTS} times, gave up: {death}"
            raise SimulationError(msg) from death
        self._todo.put((chunk, attempt + 1))

    def _hire(self) -> WorkerProcess | None:
        """Start a process, unless the work was stopped."""
        with self._guard:
            if self._stopped:
                return None
            process = WorkerProcess(self._parts.job)
            self._processes.add(process)
            return process

    def _dismiss(self, process: WorkerProcess) -> None:
        with self._guard:
            self._processes.discard(process)
        process.close()
