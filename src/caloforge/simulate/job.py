"""Simulation engines, a simulation as a job in chunks, and the worker processes that simulate them.

Cells below a threshold are set to zero and the rest rounded to a number of mantissa bits. Nothing that a readout could
see is lost (10 bits are 0.05 %), and files shrink severalfold, since the compression of HDF5 finds the zeros.

A worker reads from standard input (module paths, pickled job), then (start, n, file or None) for each chunk, and answers
on standard output: the packed chunk, None when it was written to the file, or an error. What the engine prints, from
Python or from C++, goes to standard error, whose end the parent keeps as a log. When the parent is gone, for whatever
reason, standard input ends and the worker ends with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.errors import CaloforgeError, InputError, SimulationError
from caloforge.files import atomic_path
from caloforge.geometry import Beam, Detector
from caloforge.random import check_seed
from caloforge.showers import Showers

__all__ = [
    "FULL_MANTISSA",
    "MANTISSA_BITS",
    "THRESHOLD",
    "Engine",
    "IsolatedEngine",
    "Job",
    "WorkerDiedError",
    "WorkerProcess",
    "main",
    "round_mantissa",
    "write_part",
]

_PREFIX = "condition "

THRESHOLD = 1e-4
"""Default threshold, MeV: cells below it are set to zero."""

MANTISSA_BITS = 10
"""Default number of mantissa bits of the cells."""

FULL_MANTISSA = 23
"""Bits of mantissa that float32 has."""


def round_mantissa(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round float32 numbers of any shape to the nearest with ``bits`` bits of mantissa."""
    dropped = FULL_MANTISSA - bits
    if dropped == 0:
        return values
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half, mask = np.uint32(1 << (dropped - 1)), np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return ((words + half) & mask).view(np.float32)


class Engine(Protocol):
    """Simulates showers of any simulable detector, in chunks; an instance can be pickled.

    The showers ``start`` to ``start + n`` of a seed are a pure function of (detector, beam, seed, start, n), and shower i is the
    same whatever its chunk; so chunks can be made by any number of processes, in any order, again after a failure, on one machine or many.
    """

    @property
    def name(self) -> str:
        """Its name in the registry and in files."""

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return the number of showers of a chunk: seconds of work, tens of megabytes."""

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` of the seed.

        Their attributes may contain ``cpu_seconds``, the processor time of the showers alone; otherwise that of
        the whole call counts.
        """

    def attributes(self) -> Mapping[str, Any]:
        """Return what a file records about how its showers were made."""


@runtime_checkable
class IsolatedEngine(Engine, Protocol):
    """An engine that needs a separate process: it has global state, prints, or may crash."""

    def diagnose(self, log: str) -> CaloforgeError | None:
        """Return the error that ended the process, read from what it printed; None when there is none."""


@dataclass(frozen=True)
class Job:
    """Everything that the showers of a simulation depend on, beside their index.

    Raises:
        InputError: When a number is out of its range.
    """

    engine: Engine
    detector: Detector
    beam: Beam
    seed: int
    threshold: float = THRESHOLD  # cells below it are set to zero, MeV
    mantissa_bits: int = MANTISSA_BITS  # bits of mantissa of the cells, 1 to 23

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 0.0 <= self.threshold < float("inf"):
            raise InputError(f"threshold {self.threshold} MeV is out of range: expected 0 or more")
        if not 1 <= self.mantissa_bits <= FULL_MANTISSA:
            msg = f"mantissa_bits {self.mantissa_bits} is out of range: expected 1 to {FULL_MANTISSA}"
            raise InputError(msg)

    def run(self, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` as they are stored, with ``cpu_seconds`` as attribute."""
        before = time.process_time()
        showers = self.engine.run(self.detector, self.beam, self.seed, start, n)
        spent = time.process_time() - before
        cells = np.where(showers.cells < np.float32(self.threshold), np.float32(0), showers.cells)
        upright = self.beam.theta.low == self.beam.theta.high == 90.0
        return showers.replace(
            cells=round_mantissa(cells, self.mantissa_bits),
            incident_theta=None if upright else showers.incident_theta,
            attributes={"cpu_seconds": spent, **showers.attributes},
        )

    def pack(self, showers: Showers) -> bytes:
        """Return a chunk as an npz archive of its hits alone: numbers of hits, cells, energies, columns, attributes."""
        rows, cells = np.nonzero(showers.cells)
        columns: dict[str, Any] = {_PREFIX + name: values for name, values in showers.conditions.items()}
        if showers.has_theta:
            columns["incident_theta"] = showers.incident_theta
        archive = io.BytesIO()
        np.savez(
            archive,
            hits=np.bincount(rows, minlength=len(showers)),
            cell=cells.astype(np.int32),
            energy=showers.cells[rows, cells],
            incident_energy=showers.incident_energy,
            attributes=json.dumps(showers.attributes),
            **columns,
        )
        return archive.getvalue()

    def unpack(self, archive: bytes) -> Showers:
        """Return the showers that :meth:`pack` packed."""
        with np.load(io.BytesIO(archive)) as part:
            n = len(part["hits"])
            cells = np.zeros((n, self.detector.n_cells), np.float32)
            cells[np.repeat(np.arange(n), part["hits"]), part["cell"]] = part["energy"]
            return Showers(
                detector=self.detector,
                cells=cells,
                incident_energy=part["incident_energy"],
                incident_theta=part["incident_theta"] if "incident_theta" in part.files else None,
                conditions={k.removeprefix(_PREFIX): part[k] for k in part.files if k.startswith(_PREFIX)},
                particle=self.beam.particle,
                source=self.engine.name,
                seed=self.seed,
                attributes=json.loads(str(part["attributes"])),
            )

    def is_whole(self, path: Path, n: int) -> bool:
        """Whether a file has a packed chunk of ``n`` showers, undamaged by its checksums."""
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return False
            with np.load(path, allow_pickle=False) as part:
                return len(part["hits"]) == n and int(part["hits"].sum()) == len(part["cell"])
        except (
            OSError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            KeyError,
            ValueError,
            TypeError,
            RuntimeError,
        ):
            return False  # of the many errors of a damaged archive

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the file that do not depend on the showers."""
        return {
            **self.engine.attributes(),
            "beam_energy": str(self.beam.energy),
            "beam_theta": str(self.beam.theta),
            "cell_threshold_mev": self.threshold,
            "mantissa_bits": self.mantissa_bits,
        }

    def fingerprint(self) -> dict[str, Any]:
        """Return what distinguishes this job from another, as plain JSON values; not the number of showers."""
        place = self.detector
        curved = (place.inner_radius,) if place.inner_radius else ()
        geometry = repr((place.stack, place.medium, place.readout, *curved))
        return {
            "engine": self.engine.name,
            **self.engine.attributes(),
            "detector": self.detector.name,
            "geometry": hashlib.blake2b(geometry.encode(), digest_size=8).hexdigest(),
            **{f"beam {name}": str(value) for name, value in vars(self.beam).items()},
            "seed": self.seed,
            "threshold": self.threshold,
            "mantissa_bits": self.mantissa_bits,
            "caloforge_version": __version__,
        }


_LOG_LINES = 500  # of the end of the log
_PATIENCE = 5.0  # seconds that a worker has to end by itself


def write_part(path: Path, archive: bytes) -> None:
    """Write a packed chunk; it appears under its name when it is whole.

    Raises:
        WriteError: When the disk is full.
    """
    with atomic_path(path, force=True) as part:
        part.write_bytes(archive)


class WorkerDiedError(SimulationError):
    """A worker process ended before it answered; ``log`` is what it had printed."""

    def __init__(self, code: int, log: str) -> None:
        self.code, self.log = code, log
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        last = [line.strip() for line in log.splitlines() if line.strip()][-1:]
        super().__init__(f"a worker process {how}" + (f"; it last printed: {last[0]}" if last else ""))


class WorkerProcess:
    """A process that simulates chunks of one job, one after the other."""

    def __init__(self, job: Job) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from caloforge.simulate.job import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._requests, self._answers = process, process.stdin, process.stdout
        self._log: deque[bytes] = deque(maxlen=_LOG_LINES)
        self._logging = threading.Thread(target=self._log.extend, args=(process.stderr,), daemon=True)
        self._logging.start()
        self._setup: Any = [entry or os.getcwd() for entry in sys.path], pickle.dumps(job)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def make(self, start: int, n: int, part: Path | None = None) -> bytes | None:
        """Simulate a chunk; return it packed, or write it to ``part``.

        Raises:
            WorkerDiedError: When the process ended on the way.
            CaloforgeError: What the engine raised.
        """
        try:
            if self._setup is not None:
                pickle.dump(self._setup, self._requests)
                self._setup = None
            pickle.dump((start, n, part), self._requests)
            self._requests.flush()
            answer: bytes | CaloforgeError | None = pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._process.kill()
            code = self._process.wait()
            self._logging.join(_PATIENCE)
            log = b"".join(list(self._log)).decode(errors="replace")
            raise WorkerDiedError(code, log) from error
        if isinstance(answer, CaloforgeError):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process at once, whatever it does; may be called from another thread."""
        self._process.kill()

    def close(self) -> None:
        """Let the process end and clean up after it."""
        with suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._logging.join(_PATIENCE)


def main() -> None:
    """Serve until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # these reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, todo), daemon=True).start()
    paths, pickled = todo.get()
    sys.path.extend(entry for entry in paths if entry not in sys.path)
    try:
        job: Job = pickle.loads(pickled)
    except Exception as error:
        _send(answers, _as_ours(error))
        _leave()
    while True:
        _send(answers, _serve(job, *todo.get()))


def _serve(job: Job, start: int, n: int, part: Path | None) -> bytes | CaloforgeError | None:
    """Return a packed chunk, nothing when it was written to a file, or the error."""
    try:
        archive = job.pack(job.run(start, n))
        if part is None:
            return archive
        write_part(part, archive)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _as_ours(error)
    return None


def _as_ours(error: Exception) -> CaloforgeError:
    return error if isinstance(error, CaloforgeError) else SimulationError(f"{type(error).__name__}: {error}")


def _listen(requests: IO[bytes], todo: queue.SimpleQueue[Any]) -> None:
    """Put requests into the queue; end the process when there will be no more."""
    while True:
        try:
            message = pickle.load(requests)
        except (EOFError, OSError, pickle.UnpicklingError):
            _leave()
        todo.put(message)


def _send(answers: IO[bytes], answer: bytes | CaloforgeError | None) -> None:
    """Send an answer; end the process when nobody listens."""
    try:
        pickle.dump(answer, answers)
        answers.flush()
    except OSError:
        _leave()


def _leave() -> None:
    """End at once: the libraries' own clean-up at exit is neither needed nor always sound."""
    sys.stderr.flush()
    os._exit(0)
