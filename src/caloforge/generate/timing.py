"""How long a generated shower takes, on this machine.

A generator is timed through its public call, so that its noise, its inverse transform and the copy of the cells count. On a CPU the cost
of a shower is processor time, which is compared with Geant4's one core against one core; on a GPU it is the time of the clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from caloforge.generate.generator import Generator
from caloforge.showers import ShowerSource

__all__ = ["GeneratorTime", "count_parameters", "time_generator"]


@dataclass(frozen=True)
class GeneratorTime:
    """Time of one shower of a generator.

    Attributes:
        wall_ms: By the clock, ms; the median over the repeats.
        wall_error: Half the central 68 % interval of the repeats, ms.
        cpu_ms: Processor time of all threads, ms; the median.
        cpu_error: Half its central 68 % interval, ms.
        batch: Showers at once.
        repeats: Number of repeats.
        device: "cpu" or "cuda".
    """

    wall_ms: float
    wall_error: float
    cpu_ms: float
    cpu_error: float
    batch: int
    repeats: int
    device: str

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


def time_generator(
    generator: Generator, like: ShowerSource, batch: int = 100, seconds: float = 2.0, most: int = 20
) -> GeneratorTime:
    """Time a generator on the conditions of the first showers of a reference.

    Arguments:
        generator: The model.
        like: Showers whose conditions it takes.
        batch: Showers at once.
        seconds: How long to repeat, at least twice.
        most: Repeats at most.
    """
    conditions = like[: min(batch, len(like))]
    generator.generate(batch, like=conditions, batch_size=batch)  # the first call sets things up
    wall: list[float] = []
    cpu: list[float] = []
    started = time.perf_counter()
    while len(wall) < 2 or (len(wall) < most and time.perf_counter() - started < seconds):
        before, spent = time.perf_counter(), time.process_time()
        generator.generate(batch, like=conditions, batch_size=batch, seed=len(wall))
        wall.append(1000.0 * (time.perf_counter() - before) / batch)
        cpu.append(1000.0 * (time.process_time() - spent) / batch)
    wall_error, cpu_error = (
        float(np.subtract(*np.quantile(times, (5 / 6, 1 / 6)))) / 2 for times in (wall, cpu)
    )
    return GeneratorTime(
        wall_ms=float(np.median(wall)),
        wall_error=wall_error,
        cpu_ms=float(np.median(cpu)),
        cpu_error=cpu_error,
        batch=batch,
        repeats=len(wall),
        device=generator.device.type,
    )
