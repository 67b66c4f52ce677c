"""Worker processes: the parent's end, and the process that simulates chunks.

The worker reads requests from standard input, first (module paths, pickled job), then (start, n, file or None) for each chunk,
and answers on standard output: the packed chunk, None when it was written to the file, or an error. What the engine prints, from Python or from C++,
goes to standard error, whose end the parent keeps as a log. When the parent is gone, for whatever reason, standard
input ends and the worker ends with it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from caloforge.errors import CaloforgeError, SimulationError
from caloforge.files import atomic_path
from caloforge.simulate.job import Job

__all__ = ["WorkerDiedError", "WorkerProcess", "main", "write_part"]

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
    """A process that simulates chunks of one job, one after the other.

    Arguments:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from caloforge.simulate.worker import main; main()"],
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
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
