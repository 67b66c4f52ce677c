"""How long a shower takes: a generator here and now, Geant4 in the same run where it can, and their ratio.

A generator is timed through its public call, so that its noise, its inverse transform and the copy of the cells count. On a
CPU both sides are given in processor time, one core against one core; a GPU's time is the clock's. Geant4 is run
on a few showers of the reference's energies and angles; where it is not installed, cannot simulate the detector or
finds no data, the reference file's own ``cpu_seconds_per_shower`` stands in, and the result says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from caloforge.errors import CaloforgeError
from caloforge.generate.generator import Generator
from caloforge.showers import ShowerSource
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["GeneratorTime", "SimulationTime", "count_parameters", "time_geant4", "time_generator"]


@dataclass(frozen=True)
class GeneratorTime:
    """Time of one shower of a generator.

    Attributes:
        wall_ms: By the clock, ms; the median over the repeats.
        wall_error: Half the spread of the middle two thirds of the repeats, ms.
        cpu_ms: Processor time of all threads, ms; the median.
        batch: Showers at once.
        repeats: How often.
        device: "cpu" or "cuda".
    """

    wall_ms: float
    wall_error: float
    cpu_ms: float
    batch: int
    repeats: int
    device: str

    @property
    def cost_error(self) -> float:
        """Of :attr:`cost_ms`: the relative error of the clock's."""
        return self.wall_error * self.cost_ms / self.wall_ms if self.wall_ms > 0 else 0.0

    @property
    def cost_ms(self) -> float:
        """What is compared with Geant4: processor time on a CPU, the clock's on a GPU."""
        return self.cpu_ms if self.device == "cpu" else self.wall_ms


@dataclass(frozen=True)
class SimulationTime:
    """Processor time of one Geant4 shower at the reference's mean energy.

    Attributes:
        seconds: None where nothing is known.
        how: How it was found, for people.
        same_run: Whether Geant4 ran here and now.
    """

    seconds: float | None
    how: str
    same_run: bool


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
        like: Whose conditions it takes.
        batch: Showers at once.
        seconds: How long to go on, at least twice.
        most: Most repeats.
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
    low, high = np.quantile(wall, (1 / 6, 5 / 6))
    return GeneratorTime(
        wall_ms=float(np.median(wall)),
        wall_error=float((high - low) / 2),
        cpu_ms=float(np.median(cpu)),
        batch=batch,
        repeats=len(wall),
        device=generator.device.type,
    )


def time_geant4(reference: ShowerSource, n: int, seed: int = 0) -> SimulationTime:
    """Return Geant4's processor time of a shower, measured on ``n`` showers, or else the reference's own.

    The cost of a shower is proportional to its energy, so that the few showers are scaled to the reference's mean.

    Arguments:
        reference: Reference showers.
        n: Showers to simulate; 0 for none.
        seed: Their seed.
    """
    why = "not asked for"
    if n > 0:
        try:
            return _simulated(reference, n, seed)
        except (CaloforgeError, ImportError) as error:
            why = str(error).split(";")[0].split(":")[0]
    known = reference.attributes.get("cpu_seconds_per_shower")
    if known is None or reference.source != "geant4":
        return SimulationTime(
            None, f"Geant4 did not run ({why}) and the reference does not say its time", False
        )
    return SimulationTime(
        float(known), f"of the reference's own simulation; Geant4 did not run here ({why})", False
    )


def _simulated(reference: ShowerSource, n: int, seed: int) -> SimulationTime:
    from caloforge.simulate.run import simulate

    energy = np.asarray(reference.incident_energy, np.float64)
    theta = np.asarray(reference.incident_theta, np.float64)
    particle = reference.particle or None
    showers = simulate(
        reference.detector,
        n,
        energy=EnergySpec(
            float(energy.min()), float(energy.max()), "uniform" if np.ptp(energy) > 0 else "fixed"
        ),
        theta=AngleSpec(float(theta.min()), float(theta.max())),
        particle=particle,
        engine="geant4",
        seed=seed,
    )
    seconds = float(showers.attributes["cpu_seconds_per_shower"])
    scale = float(energy.mean() / showers.incident_energy.mean())
    how = f"{n} showers in the same run, scaled to the reference's mean of {energy.mean() / 1000:.3g} GeV"
    return SimulationTime(seconds * scale, how, True)
