"""The process that makes chunks: reads requests from standard input, answers on standard output.

What the engine prints, from Python or from C++, goes to standard error, which the parent keeps as a log. When the
parent is gone, for whatever reason, standard input ends and the process ends with it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from caloforge.errors import CaloforgeError, SimulationError

__all__ = ["Answer", "Request", "Setup", "main"]


@dataclass(frozen=True)
class Setup:
    """First message: where to look for modules, and the pickled job."""

    path: list[str]
    job: bytes


@dataclass(frozen=True)
class Request:
    """Later messages: a chunk to make and where to put it."""

    start: int
    n: int
    part: Path


@dataclass(frozen=True)
class Answer:
    """What became of a request: nothing more to say, or an error."""

    error: type[CaloforgeError] | None = None
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Answer:
        """Return the answer that carries an error."""
        if isinstance(error, CaloforgeError):
            return cls(type(error), str(error), dict(vars(error)))
        return cls(SimulationError, f"{type(error).__name__}: {error}")

    def check(self) -> None:
        """Raise the error that was carried, if any."""
        if self.error is not None:
            error = self.error.__new__(self.error)
            error.args = (self.message,)
            vars(error).update(self.details)
            raise error


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
    setup: Setup = todo.get()
    sys.path.extend(entry for entry in setup.path if entry not in sys.path)
    try:
        job = pickle.loads(setup.job)
    except Exception as error:
        _say(answers, Answer.of(error))
        _leave()
    while True:
        _say(answers, _serve(job, todo.get()))


def _serve(job: Any, request: Request) -> Answer:
    """Make one chunk and write it."""
    from caloforge.simulate.chunks import write_part

    try:
        write_part(request.part, job.run(request.start, request.n))
    except Exception as error:
        import traceback

        traceback.print_exc()
        return Answer.of(error)
    return Answer()


def _listen(requests: IO[bytes], todo: queue.SimpleQueue[Any]) -> None:
    """Hand requests on; end the process when there will be no more."""
    while True:
        try:
            message = pickle.load(requests)
        except (EOFError, OSError, pickle.UnpicklingError):
            _leave()
        todo.put(message)


def _say(answers: IO[bytes], answer: Answer) -> None:
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
