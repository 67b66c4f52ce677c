"""The time that a generator takes for a shower on this machine.

A generator is timed through its public call, so that its noise, its inverse transform and the copy of the cells count.
On a CPU the cost of a shower is processor time, to compare with Geant4's on one core; on a GPU it is the time of the clock.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caloforge.generate import Generator
from caloforge.showers import Showers, ShowerSource

__all__ = ["GeneratorTime", "count_parameters", "hardware_name", "speed_of", "time_call", "time_generator"]


@dataclass(frozen=True)
class GeneratorTime:
    """Time of one shower of a generator."""

    wall_ms: float  # by the clock, ms; the median over the repeats
    wall_error: float  # half the central 68 % interval of the repeats, ms
    cpu_ms: float  # processor time of all threads, ms; the median
    cpu_error: float  # half its central 68 % interval, ms
    batch: int  # showers at once
    repeats: int  # number of repeats
    device: str  # "cpu" or "cuda"

    @property
    def cost_ms(self) -> float:
        """The time to compare with Geant4's, ms: processor time on a CPU, the clock's on a GPU."""
        return self.cpu_ms if self.device == "cpu" else self.wall_ms

    @property
    def cost_error(self) -> float:
        """The uncertainty of :attr:`cost_ms`, of the same clock, ms."""
        return self.cpu_error if self.device == "cpu" else self.wall_error


def count_parameters(generator: Generator) -> int:
    """Return the parameters that sampling needs, of one member of an ensemble."""
    model = generator.model
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.partition(".")[0] not in model.training_only
    )


def time_call(
    call: Callable[[int], object], n: int, device: str = "cpu", seconds: float = 2.0, most: int = 20, least: int = 2
) -> GeneratorTime:  # fmt: skip
    """Time a call that makes ``n`` showers of the seed it is given, for some seconds but at least ``least`` times."""
    wall: list[float] = []
    cpu: list[float] = []
    started = time.perf_counter()
    while len(wall) < least or (len(wall) < most and time.perf_counter() - started < seconds):
        before, spent = time.perf_counter(), time.process_time()
        call(len(wall))
        wall.append(1000.0 * (time.perf_counter() - before) / n)
        cpu.append(1000.0 * (time.process_time() - spent) / n)
    wall_error, cpu_error = (
        float(np.subtract(*np.quantile(times, (5 / 6, 1 / 6)))) / 2 for times in (wall, cpu)
    )
    return GeneratorTime(
        wall_ms=float(np.median(wall)),
        wall_error=wall_error,
        cpu_ms=float(np.median(cpu)),
        cpu_error=cpu_error,
        batch=n,
        repeats=len(wall),
        device=device,
    )


def time_generator(
    generator: Generator,
    like: ShowerSource,
    batch: int = 100,
    seconds: float = 2.0,
    most: int = 20,
    allow_extrapolation: bool = False,
) -> GeneratorTime:
    """Time a generator on the conditions of the first showers of a reference, for some seconds but at least twice."""
    conditions = like[: min(batch, len(like))]

    def call(seed: int) -> Showers:
        return generator.generate(
            batch, like=conditions, batch_size=batch, seed=seed, allow_extrapolation=allow_extrapolation
        )

    call(0)  # the first call sets things up
    return time_call(call, batch, generator.device.type, seconds, most)


_CPU = Path("/proc/cpuinfo")


def hardware_name(device: str) -> str:
    """Return the name of the GPU or of the CPU of this machine."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    if _CPU.is_file():
        for line in _CPU.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def speed_of(
    generator: Generator,
    like: ShowerSource,
    batch: int = 100,
    seconds: float = 5.0,
    allow_extrapolation: bool = False,
) -> dict[str, Any]:
    """Time a generator where it is: on a CPU with one thread, in processor time; on a GPU by the clock.

    The result has ``ms`` a shower, ``uncertainty``, ``batch``, ``threads`` and ``hardware``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = time_generator(generator, like, batch, seconds, allow_extrapolation=allow_extrapolation)
    finally:
        torch.set_num_threads(threads)
    cost, error = float(f"{found.cost_ms:.4g}"), float(f"{found.cost_error:.2g}")
    return {
        "ms": cost,
        "uncertainty": error,
        "batch": batch,
        "threads": 1,
        "hardware": hardware_name(found.device),
    }
