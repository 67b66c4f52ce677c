"""The chunks of a simulation: simulated in processes, stored when finished, joined at the end.

Chunks begin at fixed places and depend on nothing but the job, so the result does not depend on how many
processes there are, in which order they finish, or how often the work was interrupted. The workers of a cluster
(:mod:`caloforge.cluster`) make the same parts.
"""

from __future__ import annotations

import json
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from zipfile import BadZipFile

from caloforge.cluster import Cluster
from caloforge.errors import FileFormatError, IncompatibleError, OutputError, SimulationError
from caloforge.files import is_empty, lock_folder, write_json
from caloforge.showers import Showers
from caloforge.simulate.job import IsolatedEngine, Job, WorkerDiedError, WorkerProcess, write_part
from caloforge.text_files import read_record

__all__ = ["ATTEMPTS", "Chunk", "InMemory", "Parts", "make_chunks", "plan"]

ATTEMPTS = 3
"""How often a chunk is tried when its worker dies."""


class Chunk(NamedTuple):
    """Showers ``start`` to ``start + n``."""

    start: int
    n: int


def plan(n: int, size: int, first: int = 0) -> list[Chunk]:
    """Cut the showers ``first`` to ``first + n`` into chunks at fixed places, the multiples of ``size``."""
    ends = [first, *range(first - first % size + size, first + n, size), first + n]
    return [Chunk(start, stop - start) for start, stop in pairwise(ends)]


class InMemory:
    """Finished chunks of a job in memory."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._made: dict[Chunk, Showers] = {}

    def path(self, chunk: Chunk) -> Path | None:
        """Return the file that a worker writes a chunk to; None: it sends the chunk back."""
        return None

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished."""
        return chunk in self._made

    def put(self, chunk: Chunk, showers: Showers) -> None:
        """Store a finished chunk."""
        self._made[chunk] = showers

    def receive(self, chunk: Chunk, archive: bytes) -> None:
        """Store a finished chunk that another process has packed."""
        self.put(chunk, self.job.unpack(archive))

    def take(self, chunk: Chunk) -> Showers:
        """Return a finished chunk, once."""
        return self._made.pop(chunk)


class Parts(InMemory):
    """Finished chunks on disk in ``OUTPUT.parts/`` until they are joined; use it in a ``with`` block.

    A part appears under its name only when it is whole. ``job.json`` says which simulation the parts belong to; parts of another
    one are never mixed in. A folder without parts is removed. A lock keeps two runs from working on one output at once.

    Arguments:
        folder: Made when it is not there.
        force: Remove parts of another job instead of refusing.

    Raises:
        IncompatibleError: When the folder has parts of another job and ``force`` is not set.
        OutputError: When another process works on them.
    """

    def __init__(self, folder: Path, job: Job, force: bool = False) -> None:
        super().__init__(job)
        self.folder, self._force = folder, force
        self._lock = ExitStack()

    def __enter__(self) -> Parts:
        with ExitStack() as stack:
            stack.enter_context(lock_folder(self.folder))
            self._claim()
            self._lock = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished():
            self.remove()
        self._lock.close()

    def _finished(self) -> list[Path]:
        """Return the parts that are there, of whatever job."""
        return list(self.folder.glob("*.npz"))

    def _card(self) -> dict[str, Any]:
        """Return the content of ``job.json``."""
        card: dict[str, Any] = json.loads(json.dumps(self.job.fingerprint()))
        return card

    def _claim(self) -> None:
        """Make the folder this job's, or refuse."""
        card = self.folder / "job.json"
        mine = self._card()
        theirs = (read_record(card) or {}) if card.exists() else None
        if theirs == mine:
            return
        if theirs is not None and self._finished() and not self._force:
            keys = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
            raise IncompatibleError(
                f"{self.folder} has chunks of another simulation (it differs in: {', '.join(keys)});"
                " remove it, use --force, or name another output"
            )
        for path in self._finished():
            path.unlink()
        write_json(card, mine)

    def path(self, chunk: Chunk) -> Path:
        """Return the path of a chunk's part."""
        return self.folder / f"{chunk.start:010d}-{chunk.start + chunk.n:010d}.npz"

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished and its part undamaged; a damaged one is removed, to be made again."""
        path = self.path(chunk)
        if not path.exists():
            return False
        if self.job.is_whole(path, chunk.n):
            return True
        path.unlink()
        return False

    def put(self, chunk: Chunk, showers: Showers) -> None:
        """Write a finished chunk.

        Raises:
            WriteError: When the disk is full.
        """
        write_part(self.path(chunk), self.job.pack(showers))

    def receive(self, chunk: Chunk, archive: bytes) -> None:
        """Write a finished chunk."""
        write_part(self.path(chunk), archive)

    def take(self, chunk: Chunk) -> Showers:
        """Read a finished chunk.

        Raises:
            FileFormatError: When its part was damaged after it was checked.
        """
        path = self.path(chunk)
        try:
            showers = self.job.unpack(path.read_bytes())
        except (BadZipFile, EOFError, KeyError, ValueError, IndexError, zlib.error) as error:
            raise FileFormatError(path, "", "is damaged; the same command makes it again") from error
        if len(showers) != chunk.n:
            raise FileFormatError(path, "", f"has {len(showers)} showers; expected {chunk.n}")
        return showers

    def remove(self) -> None:
        """Remove the parts, after they were joined; what they are goes last, so that a kill does not leave parts of nobody."""
        for path in self._finished():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_joined(self, output: Path) -> None:
        """Remove the parts of this job that a process left which was killed after it had written the output."""
        if not self.folder.is_dir():
            return
        if not is_empty(self.folder) and read_record(self.folder / "job.json") != self._card():
            return
        written = output.stat().st_mtime_ns
        with suppress(OutputError), lock_folder(self.folder):
            if all(path.stat().st_mtime_ns < written for path in self._finished()):
                self.remove()


def make_chunks(
    store: InMemory,
    chunks: Sequence[Chunk],
    workers: int = 1,
    advance: Callable[[int], None] = lambda _: None,
    cluster: Cluster | None = None,
) -> None:
    """Simulate all chunks that are not finished yet, in processes here or on a cluster.

    ``advance`` is called with the number of showers of each finished one.

    Raises:
        SimulationError: When a chunk's worker died ``ATTEMPTS`` times.
        CaloforgeError: What the engine raised.
    """
    missing = []
    for chunk in chunks:
        if store.has(chunk):
            advance(chunk.n)
        else:
            missing.append(chunk)
    if cluster is not None:
        tasks = [(store.job, chunk) for chunk in missing]
        for number, archive in cluster.results(_packed, tasks):
            store.receive(missing[number], archive)
            advance(missing[number].n)
    elif workers == 1 and not isinstance(store.job.engine, IsolatedEngine):
        for chunk in missing:
            store.put(chunk, store.job.run(chunk.start, chunk.n))
            advance(chunk.n)
    elif missing:
        _Crew(store).make(missing, min(workers, len(missing)), advance)


def _packed(job: Job, chunk: Chunk) -> bytes:
    """Return a chunk, simulated in this process or in one that it starts."""
    store = InMemory(job)
    make_chunks(store, [chunk])
    return job.pack(store.take(chunk))


class _Crew:
    """Threads that each lead one worker process."""

    def __init__(self, store: InMemory) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._processes: dict[int, WorkerProcess] = {}  # by the thread that leads it
        self._stopped = False

    def make(self, chunks: Sequence[Chunk], workers: int, advance: Callable[[int], None]) -> None:
        """Return when every chunk is finished, or raise the first error; no process is left either way."""
        try:
            with ThreadPoolExecutor(workers) as threads:
                try:
                    for done in as_completed([threads.submit(self._make, chunk) for chunk in chunks]):
                        advance(done.result())
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._stop()
                    raise
        finally:
            for process in self._processes.values():
                process.close()

    def _stop(self) -> None:
        """End all processes and start no other."""
        with self._guard:
            self._stopped = True
            for process in self._processes.values():
                process.kill()

    def _make(self, chunk: Chunk) -> int:
        """Simulate a chunk, again in a new process when the last has died; return its number of showers."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                archive = self._process().make(chunk.start, chunk.n, self._store.path(chunk))
            except WorkerDiedError as death:
                self._retire(chunk, attempt, death)
            else:
                if archive is not None:
                    self._store.receive(chunk, archive)
                break
        return chunk.n

    def _process(self) -> WorkerProcess:
        """Return this thread's process, which is started when there is none."""
        with self._guard:
            if self._stopped:
                raise SimulationError("the simulation was stopped")
            thread = threading.get_ident()
            if thread not in self._processes:
                self._processes[thread] = WorkerProcess(self._store.job)
            return self._processes[thread]

    def _retire(self, chunk: Chunk, attempt: int, death: WorkerDiedError) -> None:
        """Clean up after this thread's dead process; raise when its chunk should not be tried again."""
        with self._guard:
            self._processes.pop(threading.get_ident()).close()
        engine = self._store.job.engine
        known = (
            engine.diagnose(death.log) if isinstance(engine, IsolatedEngine) and not self._stopped else None
        )
        if known is not None:
            raise known from death
        if attempt == ATTEMPTS:
            last = chunk.start + chunk.n - 1
            msg = f"showers {chunk.start} to {last} failed {ATTEMPTS} times, gave up: {death}"
            raise SimulationError(msg) from death
