"""The numbers of one generated sample, and the time of a Geant4 shower that its speed is compared with.

On a CPU both sides are processor time, one core against one core; a GPU's time is the clock's. Geant4 is run on a few showers
of the reference's energies and angles; where it is not installed, cannot simulate the detector or finds no data, the
reference file's own ``cpu_seconds_per_shower`` is used instead, and the result says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from caloforge.errors import CaloforgeError
from caloforge.generate.timing import GeneratorTime
from caloforge.showers import ShowerSource
from caloforge.units import AngleSpec, EnergySpec
from caloforge.validate.metrics.base import jsonable
from caloforge.validate.shape_tests import CoreRatios, ShapeTests

__all__ = ["Shapes", "SimulationTime", "time_geant4"]

_HIGH = 0.8  # the paper's "above 80 %"


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
    same_run: bool = False


def time_geant4(reference: ShowerSource, n: int, seed: int = 0) -> SimulationTime:
    """Return Geant4's processor time of a shower, measured on ``n`` showers, or else the reference's own.

    The cost of a shower is proportional to its energy, so that the few showers are scaled to the reference's mean.

    Arguments:
        reference: Reference showers.
        n: Showers to simulate; 0 for none.
        seed: Their seed.
    """
    why = "switched off"
    if n > 0:
        try:
            return _simulated(reference, n, seed)
        except (CaloforgeError, ImportError) as error:
            why = str(error).split(";")[0].split(":")[0]
    known = reference.attributes.get("cpu_seconds_per_shower")
    if known is None or reference.source != "geant4":
        return SimulationTime(None, f"Geant4 did not run ({why}) and the reference does not say its time")
    return SimulationTime(float(known), f"of the reference's own simulation; Geant4 did not run here ({why})")


def _simulated(reference: ShowerSource, n: int, seed: int) -> SimulationTime:
    from caloforge.simulate.run import simulate

    energy = np.asarray(reference.incident_energy, np.float64)
    theta = np.asarray(reference.incident_theta, np.float64)
    low, high = float(energy.min()), float(energy.max())
    showers = simulate(
        reference.detector,
        n,
        energy=EnergySpec(low, high, "uniform" if high > low else "fixed"),
        theta=AngleSpec(float(theta.min()), float(theta.max())),
        particle=reference.particle or None,
        engine="geant4",
        seed=seed,
    )
    seconds = float(showers.attributes["cpu_seconds_per_shower"])
    scale = float(energy.mean() / showers.incident_energy.mean())
    how = f"{n} showers in the same run, scaled to the reference's mean of {energy.mean() / 1000:.3g} GeV"
    return SimulationTime(seconds * scale, how, True)


@dataclass(frozen=True, eq=False)
class Shapes:
    """Everything about one generated sample.

    Attributes:
        label: Its name.
        n: Its showers.
        parameters: Number of parameters that sampling needs; None for a file.
        members: Members of an ensemble; None for a file.
        time: None for a file.
        mse: Shower-shape MSE, a value.
        sampling: Sampling fraction, values: ``reference``, ``generated`` and ``ratio``, whose detail has the energies.
        core: Core cells.
        tests: Kolmogorov-Smirnov probabilities.
    """

    label: str
    n: int
    parameters: int | None
    members: int | None
    time: GeneratorTime | None
    mse: Any
    sampling: Any
    core: CoreRatios
    tests: ShapeTests

    def speedup(self, geant4: SimulationTime) -> float | None:
        """Return Geant4's time of a shower over the generator's."""
        if self.time is None or geant4.seconds is None or self.time.cost_ms <= 0:
            return None
        return 1000.0 * geant4.seconds / self.time.cost_ms

    @property
    def energies(self) -> list[Mapping[str, Any]]:
        """Sampling fractions in bins of energy, as the metric gives them."""
        bins: list[Mapping[str, Any]] = self.sampling["ratio"].detail["bins"]
        return bins

    def high_probability(self, profiles: bool) -> tuple[float, float]:
        """Return median probability, and the part above 80 %, of the mean shapes or of the quantities."""
        n = self.tests.n_profiles
        p = self.tests.p[:n] if profiles else self.tests.p[n:]
        p = p[np.isfinite(p)]
        return (float(np.median(p)), float((p > _HIGH).mean())) if p.size else (np.nan, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        tests, core = self.tests, self.core
        return {
            "n": self.n,
            "parameters": self.parameters,
            "members": self.members,
            "time": None if self.time is None else asdict(self.time),
            "shape_mse": jsonable(self.mse),
            "sampling_fraction": jsonable(self.sampling),
            "core_cells": {
                "n": core.n,
                "mean_ratio": [core.mean, core.mean_error],
                "std_ratio": [core.std, core.std_error],
                "floor": list(core.floor),
            },
            "ks": {
                shape: {"p": tests.p[index], "statistic": tests.statistic[index]}
                for index, shape in enumerate(tests.shapes)
            },
        }
