"""The chunks of a simulation: made in processes, kept when finished, joined at the end.

Finished chunks on disk, until they are joined: ``OUTPUT.parts/``.

Each part holds the hit cells of one chunk alone (cell, energy), so it is small and quickly written, and
it appears under its name only when it is whole. ``job.json`` says which simulation the parts belong to;
parts of another one are never mixed in. A folder without parts is removed. A lock keeps two runs from working on one output at once.

Runs a job's chunks in one or more processes; finished ones are kept, failed ones are done again.

Chunks lie at fixed places and depend on nothing but the job, so the result does not depend on how many
processes there are, in which order they finish, or how often the work was interrupted. Anything else that can
call :meth:`Job.run` (a cluster's scheduler) may make the same parts.
"""

from __future__ import annotations

import json
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from caloforge.errors import IncompatibleError, OutputError, SimulationError
from caloforge.files import atomic_path, ensure_output_dir, read_json, write_json
from caloforge.showers import Showers
from caloforge.simulate.engine import IsolatedEngine
from caloforge.simulate.job import Job
from caloforge.simulate.process import WorkerDiedError, WorkerProcess

__all__ = ["ATTEMPTS", "Chunk", "Parts", "make_parts", "plan", "write_part"]


@dataclass(frozen=True)
class Chunk:
    """Showers ``start`` to ``start + n``."""

    start: int
    n: int

    @property
    def file_name(self) -> str:
        """Name of its part."""
        return f"{self.start:010d}-{self.start + self.n:010d}.npz"


def plan(n: int, size: int) -> list[Chunk]:
    """Cut ``n`` showers into chunks at fixed places."""
    return [Chunk(start, min(size, n - start)) for start in range(0, n, size)]


def write_part(path: Path, showers: Showers) -> None:
    """Write a chunk.

    Raises:
        WriteError: When the disk is full.
    """
    rows, cells = np.nonzero(showers.cells)
    columns: dict[str, Any] = {f"condition {name}": values for name, values in showers.conditions.items()}
    if showers.has_theta:
        columns["incident_theta"] = showers.incident_theta
    with atomic_path(path, force=True) as part, part.open("wb") as handle:
        np.savez(
            handle,
            hits=np.bincount(rows, minlength=len(showers)),
            cell=cells.astype(np.int32),
            energy=showers.cells[rows, cells],
            incident_energy=showers.incident_energy,
            attributes=json.dumps(showers.attributes),
            **columns,
        )


class Parts:
    """The folder of parts of one job; use it in a ``with`` block.

    Arguments:
        folder: Where; made when it is not there.
        job: What the parts are made by.
        force: Throw away parts of another job instead of refusing.

    Raises:
        IncompatibleError: When the folder holds parts of another job and ``force`` is not set.
        OutputError: When another process works on them.
    """

    def __init__(self, folder: Path, job: Job, force: bool = False) -> None:
        self.folder, self.job, self._force = folder, job, force
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Parts:
        ensure_output_dir(self.folder, resume=True)
        self._lock = (self.folder / "lock").open("wb")
        if not _lock(self._lock):
            self._lock.close()
            msg = f"{self.folder}: another run is working on this output; wait for it or name another output"
            raise OutputError(msg)
        try:
            self._claim()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        if not self._finished():
            self.remove()
        self._lock.close()

    def _finished(self) -> list[Path]:
        """Return the parts that are there, of whatever job."""
        return list(self.folder.glob("*.npz"))

    def _claim(self) -> None:
        """Make the folder this job's, or refuse."""
        card = self.folder / "job.json"
        mine = json.loads(json.dumps(self.job.fingerprint()))
        try:
            theirs = read_json(card) if card.exists() else None
        except ValueError:
            theirs = {}
        if theirs == mine:
            return
        if theirs is not None and self._finished() and not self._force:
            keys = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
            msg = (
                f"{self.folder} holds chunks of another simulation (it differs in: {', '.join(keys)});"
                " remove it, use --force, or name another output"
            )
            raise IncompatibleError(msg)
        for path in self._finished():
            path.unlink()
        write_json(card, mine)

    def path(self, chunk: Chunk) -> Path:
        """Return where a chunk's part is or will be."""
        return self.folder / chunk.file_name

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished."""
        return self.path(chunk).exists()

    def attributes(self, chunk: Chunk) -> dict[str, Any]:
        """Return the attributes of a finished chunk."""
        with np.load(self.path(chunk)) as part:
            found: dict[str, Any] = json.loads(str(part["attributes"]))
        return found

    def read(self, chunk: Chunk) -> Showers:
        """Return a finished chunk."""
        job = self.job
        with np.load(self.path(chunk)) as part:
            cells = np.zeros((chunk.n, job.detector.n_cells), np.float32)
            cells[np.repeat(np.arange(chunk.n), part["hits"]), part["cell"]] = part["energy"]
            prefix = "condition "
            return Showers(
                detector=job.detector,
                cells=cells,
                incident_energy=part["incident_energy"],
                incident_theta=part["incident_theta"] if "incident_theta" in part.files else None,
                conditions={k.removeprefix(prefix): part[k] for k in part.files if k.startswith(prefix)},
                particle=job.beam.particle,
                source=job.engine.name,
                seed=job.seed,
                attributes=json.loads(str(part["attributes"])),
            )

    def remove(self) -> None:
        """Throw the parts away, after they were joined."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _lock(handle: IO[bytes]) -> bool:
    """Lock an open file until it is closed; whether it was free. Systems without such locks say it was."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


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
