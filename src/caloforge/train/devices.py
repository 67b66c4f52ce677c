"""Training on several devices: one process for each, every batch divided between them.

Each process has the whole model, computes the gradients of its part of every batch, and makes the same step with the mean of all
gradients (data parallelism, as in S. Li et al., VLDB 13 (2020) 3005, arXiv:2006.15704). torch's ``DistributedDataParallel`` does so behind the
``forward`` of one module; steps here call methods of several networks and have an optimiser for each, so the mean is taken in
:class:`~caloforge.train.updater.StageUpdater`, where all gradients pass.

What a step computes over its batch (batch norms, minibatch discrimination, distances between distributions) is computed over the part of a
device. The first process alone fits, looks at held-out showers, decides about time, and writes. Processes are started here or by
``torchrun``; they talk through NCCL between GPUs and through Gloo otherwise.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from caloforge.errors import CaloforgeError, InputError, TrainingError
from caloforge.settings import torch_device

__all__ = ["Devices", "first_process", "joined", "main", "run_on_devices", "started"]

T = TypeVar("T")

_PATIENCE = timedelta(days=2)
"""A process waits for the first one so long, which reads, fits, simulates or measures meanwhile; a dead one ends the others at once."""
_SETTLE = 1.0  # seconds in which a process that fails writes why
_GRACE = 5.0  # seconds that processes have to end by themselves
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Devices:
    """The devices of a training, seen from the process of one of them."""

    device: torch.device
    rank: int = 0  # of this process
    size: int = 1  # number of processes

    @property
    def first(self) -> bool:
        """Whether this process is the one that decides and writes."""
        return self.rank == 0

    def divisible(self, batch: int) -> int:
        """Return the largest number of showers up to ``batch`` that the devices can divide equally.

        Raises:
            InputError: When there are more devices than showers in a batch.
        """
        if batch < self.size:
            raise InputError(f"{self.size} devices cannot share batches of {batch} showers; use fewer")
        return batch - batch % self.size

    def agreed(self, make: Callable[[], T]) -> T:
        """Return what the first process makes of something, or raise what it raises; the others do not call it and wait."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None]
        if self.first:
            try:
                answer = [make()]
            except CaloforgeError as error:
                answer = [error]
        dist.broadcast_object_list(answer, 0, device=self.device)
        made: T | CaloforgeError = answer[0]
        if isinstance(made, CaloforgeError):
            raise made
        return made

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.monitored_barrier(timeout=_PATIENCE) if self.device.type == "cpu" else dist.barrier()

    def mean_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients by their means over the devices; a parameter that has none keeps none."""
        if self.size == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.detach().reshape(-1) for grad in grads]) / self.size
        dist.all_reduce(flat)
        means = [
            part.view_as(p)
            for part, p in zip(torch.split(flat, [p.numel() for p in parameters]), parameters, strict=True)
        ]
        torch._foreach_copy_(grads, means)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of single numbers over the devices."""
        if self.size == 1 or not values:
            return dict(values)
        stacked = torch.stack([value.detach().float() for value in values.values()]) / self.size
        dist.all_reduce(stacked)
        return dict(zip(values, stacked, strict=True))

    @torch.no_grad()
    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors of the same shapes in all processes the values that they have in the first."""
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in {id(tensor): tensor for tensor in tensors}.values():
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for kind, group in kinds.items():
            stored = torch.uint8 if kind is torch.bool else kind
            flat = torch.cat([tensor.detach().reshape(-1).to(stored) for tensor in group])
            dist.broadcast(flat, 0)
            if not self.first:
                for tensor, part in zip(group, torch.split(flat, [t.numel() for t in group]), strict=True):
                    tensor.copy_(part.view_as(tensor).to(kind))


def started() -> bool:
    """Whether this process is one of several of a training, which :func:`run_on_devices` or ``torchrun`` started."""
    return dist.is_initialized() or (
        all(name in os.environ for name in _TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1
    )


def first_process() -> bool:
    """Whether this process is the one that writes and prints: the only one, or the first that ``torchrun`` started."""
    return not started() or os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str, wanted: int = 1) -> Iterator[Devices]:
    """Yield the devices of a training, of which this process has one; ``device`` alone when it is the only process.

    Arguments:
        device: ``auto``, ``cpu``, ``cuda``, or one GPU such as ``cuda:1``.
        wanted: Number of devices that the user named; 1: whatever there is.

    Raises:
        InputError: When there are other processes than wanted, or there is no such device.
    """
    if not started():
        yield Devices(torch.device(torch_device(device)))
        return
    outer = not dist.is_initialized()
    size = int(os.environ["WORLD_SIZE"]) if outer else dist.get_world_size()
    if wanted not in (1, size):
        raise InputError(
            f"--devices {wanted}: torchrun started {size} processes; leave --devices out, or name as many"
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    mine = torch.device(_numbered(device, local))
    if mine.type == "cuda":
        torch.cuda.set_device(mine)
    if outer:
        dist.init_process_group(**_backend(mine), timeout=_PATIENCE)
    try:
        yield Devices(mine, dist.get_rank(), size)
    finally:
        if outer:
            dist.destroy_process_group()


def _numbered(device: str, local: int) -> str:
    """Return the name of the device of the ``local``-th process of a machine."""
    kind = torch_device(device)
    if ":" in kind:
        raise InputError(f"--device {device} is one GPU; several devices are --device cuda with --devices")
    return torch_device(f"cuda:{local}") if kind == "cuda" else kind


def _backend(device: torch.device) -> dict[str, Any]:
    """Return through what the processes of such devices talk."""
    return {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}


def run_on_devices(number: int, device: str, call: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Call a function in processes of one device each, which may then use :func:`joined`, and wait for all.

    Arguments:
        number: Number of processes.
        device: ``auto``, ``cpu`` or ``cuda``.
        call: Function of a module.
        arguments: Its arguments by name; they can be pickled.

    Raises:
        InputError: When there are not so many devices.
        CaloforgeError: What the function raised in the first process that failed.
        TrainingError: When a process died.
    """
    _numbered(device, number - 1)
    threads = max(1, torch.get_num_threads() // number)
    with TemporaryDirectory(prefix="caloforge-") as folder:
        crew: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(number):
                crew.append(
                    _start(pickle.dumps((rank, number, device, threads, Path(folder), call, dict(arguments))))
                )
            _watch(crew, Path(folder))
        finally:
            for process in crew:
                process.terminate()
            for process in crew:
                _end(process)


def _start(job: bytes) -> subprocess.Popen[bytes]:
    """Start a process for a job; it ends when its standard input is closed, so that it does not outlive this one."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    code = "from caloforge.train.devices import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    with suppress(OSError):  # a process that died already is found by who waits for it
        pickle.dump(([entry or os.getcwd() for entry in sys.path], sys.argv), process.stdin)
        pickle.dump(job, process.stdin)
        process.stdin.flush()
    return process


def _watch(crew: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Return when all processes have ended well; raise the error of the first that has not."""
    while any(codes := [process.poll() for process in crew]) or None in codes:
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            files = sorted(folder.glob("error-*"))
            if not files:
                time.sleep(_SETTLE)  # one that fails makes others fail, which cannot say why
                files = sorted(folder.glob("error-*"))
            if files:
                raise pickle.loads(files[0].read_bytes())
            code = codes[failed[0]]
            how = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
            raise TrainingError(
                f"the process of device {failed[0]} ended {how}; continue the run with --resume"
            )
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end, or end it."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Be the process of one device."""
    (paths, sys.argv), job = pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer)
    sys.path.extend(entry for entry in paths if entry not in sys.path)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    rank, number, device, threads, folder, call, arguments = pickle.loads(job)
    os.environ["LOCAL_RANK"] = str(rank)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
    try:
        mine = torch.device(_numbered(device, rank))
        torch.set_num_threads(threads)
        if mine.type == "cuda":
            torch.cuda.set_device(mine)
        store = dist.FileStore(str(folder / "store"), number)  # type: ignore[attr-defined]
        dist.init_process_group(
            **_backend(mine), store=store, rank=rank, world_size=number, timeout=_PATIENCE
        )
        call(**arguments)
        dist.destroy_process_group()
    except CaloforgeError as error:
        part = folder / f"part-{rank}"
        part.write_bytes(pickle.dumps(error))
        part.rename(folder / f"error-{rank}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        time.sleep(_SETTLE / 2)
        if not any(folder.glob("error-*")):
            raise
        sys.exit(1)  # it waited for a process that failed, which has said why


def _leave_with_parent() -> None:
    """End when the parent has ended, for whatever reason."""
    while os.read(0, 1):
        pass
    os._exit(1)
