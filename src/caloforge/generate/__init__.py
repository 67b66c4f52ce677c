"""A trained model as a source of showers, and the time that one takes on this machine.

Noise and conditions are counted per shower: shower i of a seed is the same whatever the batch size and the number of
showers. Matrix products of different heights may round differently in the last bits, so the network always works on
blocks of one fixed size at fixed places; a batch is a whole number of them.

A generator is timed through its public call, so that its noise, its inverse transform and the copy of the cells count.
On a CPU the cost of a shower is processor time, to compare with Geant4's on one core; on a GPU it is the time of the clock.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, InputError
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel, counted_noise
from caloforge.progress import progress
from caloforge.showers import Showers, ShowerSource, ShowerWriter, open_showers
from caloforge.showers.identity import seen_union
from caloforge.units import AngleSpec, EnergySpec

__all__ = [
    "Generator", "GeneratorTime", "condition_range", "count_parameters", "hardware_name", "speed_of",
    "time_generator",
]  # fmt: skip

BLOCK = 100
"""Showers that one pass of the network makes on a CPU; batches are whole numbers of them. A GPU makes whole batches."""


class Generator:
    """Showers from a model, or from the members of an ensemble in equal parts (shower i from member i mod k).

    Arguments:
        members: Models of one kind, in evaluation mode, on the device.
        name: Written as the showers' source.
        seen: Identities (M,) uint64 of the showers that trained or selected the models; stored with all generated showers.
        attributes: Attributes of all generated showers: seeds that were seen, whether the model is unfinished.
    """

    def __init__(
        self,
        members: Sequence[ShowerModel],
        name: str,
        particle: str,
        device: torch.device,
        seen: NDArray[np.uint64] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.members, self.name, self.particle, self.device = list(members), name, particle, device
        self.model = self.members[0]
        self.seen: NDArray[np.uint64] = seen_union([] if seen is None else [seen])
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.card: Mapping[str, Any] = {}  # of a shipped model

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.model.detector

    def generate(
        self,
        n: int | None = None,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        like: str | Path | ShowerSource | None = None,
        seed: int = 0,
        batch_size: int = 1000,
        allow_extrapolation: bool = False,
    ) -> Showers:
        """Generate showers in memory; see :meth:`stream` for the arguments."""
        stream = self.stream(n, energy, theta, like, seed, batch_size, allow_extrapolation)
        return Showers.concatenate(list(stream))

    def write(
        self,
        path: str | Path,
        n: int | None = None,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        like: str | Path | ShowerSource | None = None,
        seed: int = 0,
        batch_size: int = 1000,
        allow_extrapolation: bool = False,
        force: bool = False,
    ) -> Path:
        """Generate showers into a file, a batch at a time; see :meth:`stream` for the arguments."""
        stream = self.stream(n, energy, theta, like, seed, batch_size, allow_extrapolation)
        first = next(stream)
        total = self._number(n, like)
        writer = ShowerWriter(path, self.detector, first.particle, self.name, seed, first.attributes, force)
        with writer, progress(total, f"generate {self.name}") as advance:
            for part in chain([first], stream):
                writer.append(part)
                advance(len(part))
        return Path(path)

    def stream(
        self,
        n: int | None = None,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        like: str | Path | ShowerSource | None = None,
        seed: int = 0,
        batch_size: int = 1000,
        allow_extrapolation: bool = False,
    ) -> Iterator[Showers]:
        """Iterate over generated showers.

        Arguments:
            n: Number of showers; with ``like`` by default as many as it has.
            energy: Incident energies such as ``50GeV``; other conditions follow the detector's beam.
            theta: Angles, degrees; by default those of the detector's beam.
            like: File or showers whose energies, angles and further conditions are taken.
            batch_size: Showers a part.
            allow_extrapolation: Accept conditions outside those of the training.

        Raises:
            InputError: When neither ``n`` and ``energy`` nor ``like`` are given, or both.
            IncompatibleError: When ``like`` is of another detector, or conditions lie outside the training's.
        """
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}; expected at least 1")
        size = max(1, round(batch_size / BLOCK)) * BLOCK
        starts = range(0, self._number(n, like), size)
        if like is None:
            if energy is None:
                msg = "an energy is needed, such as 50GeV, or showers whose conditions are taken ('like')"
                raise InputError(msg)
            beam = self.detector.beam.replace(energy=energy, theta=theta)
            straight = beam.theta == AngleSpec(90.0, 90.0)
            for start in starts:
                drawn = beam.sample(seed, start, min(size, starts.stop - start))
                angles = None if straight else drawn.theta
                yield self._batch(drawn.energy, angles, drawn.conditions, start, seed, allow_extrapolation)
            return
        if energy is not None or theta is not None:
            raise InputError("'like' gives energies and angles; leave out energy and theta")
        with _opened(like) as source:
            if source.detector != self.detector:
                msg = f"'{source.detector.name}' showers cannot be imitated by a model of '{self.detector.name}'"
                raise IncompatibleError(msg)
            for start in starts:
                one = source.take(np.arange(start, min(start + size, starts.stop)) % len(source))
                angles = one.incident_theta if one.has_theta else None
                yield self._batch(
                    one.incident_energy,
                    angles,
                    one.conditions,
                    start,
                    seed,
                    allow_extrapolation,
                    one.particle,
                )

    def _number(self, n: int | None, like: str | Path | ShowerSource | None) -> int:
        """Return the number of showers: ``n``, or that of ``like``."""
        if n is None and like is None:
            raise InputError("the number of showers is needed")
        if like is not None:
            with _opened(like) as source:
                available = len(source)
            if not available:
                raise InputError("'like' contains no showers")
            n = available if n is None else n
        if n is None or n < 1:
            raise InputError(f"number of showers is {n}; expected at least 1")
        return n

    def _batch(
        self,
        energy: NDArray[np.float64],
        theta: NDArray[np.float64] | None,
        conditions: dict[str, NDArray[np.float32]],
        start: int,
        seed: int,
        allow_extrapolation: bool,
        particle: str = "",
    ) -> Showers:
        """Return showers ``start`` to ``start + len(energy)``, with the conditions that shape them or place their cells."""
        readout = self.detector.readout
        known = {*self.model.columns, *(() if readout is None else readout.alignment_names)}
        shell = Showers(
            self.detector,
            np.zeros((len(energy), self.detector.n_cells), np.float32),
            energy,
            theta,
            {name: values for name, values in conditions.items() if name in known},
            particle or self.particle or self.detector.beam.particle,
            self.name,
            seed,
            self.attributes,
            self.seen,
        )
        matrix = self.model.condition_matrix(shell)
        if not allow_extrapolation:
            self._check_range(matrix)
        block = BLOCK if self.device.type == "cpu" else len(matrix)
        for first in range(0, len(matrix), block):
            rows = slice(first, first + block)
            shell.cells[rows] = self._block(matrix[rows], start + first, seed, block)
        return shell

    @torch.inference_mode()
    def _block(self, matrix: torch.Tensor, start: int, seed: int, block: int) -> NDArray[np.float32]:
        """Return one block (n, n_cells), padded to its full height so that its rounding is always the same."""
        n = len(matrix)
        padded = torch.cat([matrix, matrix[:1].expand(block - n, -1)]).to(self.device)
        noise = counted_noise(seed, start, block, self.model.noise_size, self.device)
        cells = self.members[0].sample(noise, padded)
        for number, member in enumerate(self.members[1:], start=1):
            mine = (torch.arange(block, device=self.device) + start) % len(self.members) == number
            cells = torch.where(mine[:, None], member.sample(noise, padded), cells)
        return cells[:n].float().cpu().numpy()

    def _check_range(self, matrix: torch.Tensor) -> None:
        low, high = self.model.condition_low.cpu(), self.model.condition_high.cpu()
        least, most = (bound.cpu() for bound in condition_range(self.model))
        for name, columns in self.model.columns.items():
            values, a, b = matrix[:, columns], low[columns], high[columns]
            if bool(((values < least[columns]) | (values > most[columns])).any()):
                raise IncompatibleError(
                    f"condition '{name}' from {values.min().item():g} to {values.max().item():g} is outside the "
                    f"training's {a.min().item():g} to {b.max().item():g}; use --allow-extrapolation to go on"
                )


def condition_range(model: ShowerModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and highest conditions (C,) that a model takes: a little more than those of its training."""
    low, high = model.condition_low, model.condition_high
    slack = 0.02 * (high - low) + 1e-3 * high.abs()
    return low - slack, high + slack


def _opened(like: str | Path | ShowerSource) -> AbstractContextManager[ShowerSource]:
    return open_showers(like) if isinstance(like, str | Path) else nullcontext(like)


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


def time_generator(
    generator: Generator, like: ShowerSource, batch: int = 100, seconds: float = 2.0, most: int = 20
) -> GeneratorTime:
    """Time a generator on the conditions of the first showers of a reference, for some seconds but at least twice."""
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
    generator: Generator, like: ShowerSource, batch: int = 100, seconds: float = 5.0
) -> dict[str, Any]:
    """Time a generator where it is: on a CPU with one thread, in processor time; on a GPU by the clock.

    The result has ``ms`` a shower, ``uncertainty``, ``batch``, ``threads`` and ``hardware``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = time_generator(generator, like, batch, seconds)
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
