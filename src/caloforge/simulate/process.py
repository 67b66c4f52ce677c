"""The parent's end of a worker process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from caloforge.errors import SimulationError
from caloforge.simulate.job import Job
from caloforge.simulate.worker import Answer, Request, Setup

__all__ = ["WorkerDiedError", "WorkerProcess"]

_LOG_TAIL = 20_000  # characters of the log that are worth reading
_PATIENCE = 5.0  # seconds that a worker has to end by itself


class WorkerDiedError(SimulationError):
    """A worker process ended before it answered; carries what it had printed."""

    def __init__(self, code: int, log: str) -> None:
        self.code, self.log = code, log
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        last = [line.strip() for line in log.splitlines() if line.strip()][-1:]
        super().__init__(f"a worker process {how}" + (f"; it last printed: {last[0]}" if last else ""))


class WorkerProcess:
    """A process that makes chunks of one job, one after the other.

    Arguments:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from caloforge.simulate.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._setup: Setup | None = Setup([entry or os.getcwd() for entry in sys.path], pickle.dumps(job))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def make(self, start: int, n: int, part: Path) -> None:
        """Have a chunk made and written to ``part``.

        Raises:
            WorkerDiedError: When the process ended on the way.
            CaloforgeError: What the engine raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if self._setup is not None:
                pickle.dump(self._setup, self._process.stdin)
                self._setup = None
            pickle.dump(Request(start, n, part), self._process.stdin)
            self._process.stdin.flush()
            answer: Answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._process.kill()
            raise WorkerDiedError(self._process.wait(), self._read_log()) from error
        answer.check()

    def kill(self) -> None:
        """End the process at once, whatever it does; may be called from another thread."""
        self._process.kill()

    def close(self) -> None:
        """Let the process end and clean up after it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _read_log(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL))
        return self._log.read().decode(errors="replace")
