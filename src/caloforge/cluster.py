"""Work on a Dask cluster: the same tasks as on one machine, done by its workers.

A task is a function of a module of caloforge and its arguments, and depends on nothing else; so it can be done by any worker, and again when a
worker dies. Results come back to the caller, who writes them: workers need no file system but for the files that a task names.
The extra ``distributed`` installs Dask, and dask-jobqueue, which starts workers as jobs of Slurm, HTCondor and others.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from caloforge import __version__
from caloforge.errors import CaloforgeError, ClusterError, IncompatibleError, InputError, require

__all__ = ["Cluster", "connected"]

T = TypeVar("T")

_WAIT = "10s"  # for the scheduler
_AHEAD = 3  # tasks in flight for each thread of the workers


def _do(version: str, function: Callable[..., T], task: tuple[Any, ...]) -> T:
    """Do a task on a worker."""
    if version != __version__:
        raise IncompatibleError(
            f"a worker on {socket.gethostname()} has caloforge {__version__}, the command {version}; expected the same"
        )
    try:
        return function(*task)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        raise ClusterError(f"a worker on {socket.gethostname()}: {where}{error.strerror or error}") from error


class Cluster:
    """The workers of a Dask scheduler; see :func:`connected`."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def everywhere(self, value: T) -> T:
        """Send a value to all workers, and return what stands for it among the arguments of tasks."""
        (sent,) = self.client.scatter([value], broadcast=True, hash=False)
        stands: T = sent
        return stands

    def results(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], in_order: bool = False
    ) -> Iterator[tuple[int, T]]:
        """Do tasks and yield the number of each with its result, as they end or in order; few results wait in memory.

        Arguments:
            function: Function of a module that workers can import.
            tasks: Its arguments, one tuple a task.
            in_order: Yield the results in the order of the tasks.

        Raises:
            CaloforgeError: What a task raised.
            ClusterError: When workers died again and again on a task, or the scheduler is gone.
        """
        distributed = require("distributed", "distributed")
        todo = deque(enumerate(tasks))
        futures: dict[Any, int] = {}
        waiting: dict[int, Any] = {}

        def submit() -> None:
            """Hand out tasks until enough are in flight; the cluster may grow and shrink meanwhile."""
            most = _AHEAD * max(1, sum(self.client.nthreads().values()))
            while todo and len(futures) < most:
                number, task = todo.popleft()
                waiting[number] = self.client.submit(_do, __version__, function, task, pure=False)
                futures[waiting[number]] = number

        try:
            submit()
            while futures:
                looked_at = [waiting[min(waiting)]] if in_order else list(futures)
                future = next(iter(distributed.wait(looked_at, return_when="FIRST_COMPLETED").done))
                result, number = future.result(), futures.pop(future)
                waiting.pop(number).release()
                submit()
                yield number, result
        except CaloforgeError:
            raise
        except distributed.KilledWorker as error:
            raise ClusterError(
                "a task was given up after its workers had died repeatedly; the workers' logs say why (often memory)"
            ) from error
        except (OSError, distributed.CancelledError, TimeoutError) as error:
            raise ClusterError(
                "the scheduler cannot be reached any more; repeat the command to continue where it can"
            ) from error
        finally:
            with suppress(Exception):
                self.client.cancel(list(futures), force=True)


@contextmanager
def connected(address: str | None) -> Iterator[Cluster | None]:
    """Yield the cluster of a scheduler; None for no address: the work is done here.

    Arguments:
        address: ``tcp://HOST:PORT``, or the path of the scheduler's file (``dask scheduler --scheduler-file``).

    Raises:
        MissingExtraError: When Dask is not installed.
        InputError: When there is no scheduler at the address.
    """
    if address is None:
        yield None
        return
    distributed = require("distributed", "distributed")
    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        logging.getLogger("distributed").setLevel(
            logging.CRITICAL
        )  # what is wrong is said by what is raised here
        client = distributed.Client(**where, timeout=_WAIT)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers ({error}); expected tcp://HOST:PORT or its scheduler file"
        ) from error
    with client:
        if not client.nthreads():
            print(
                f"caloforge: the scheduler at {address} has no worker yet; waiting for the first",
                file=sys.stderr,
            )
        yield Cluster(client)
