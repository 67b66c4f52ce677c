"""Geant4, through geant4-pybind: the engine with the user's choices, checked before anything starts.

The path of a chunk: this engine, :mod:`.datasets` (Geant4's tables), :mod:`.session` (one run manager a process, physics and
primaries) with :mod:`.geometry` (slabs, cells, scorers). Geant4 itself is imported by the session alone, in worker processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from caloforge.errors import CaloforgeError, Geant4DataError, InputError, MissingExtraError, SimulationError
from caloforge.geometry import Beam, Detector
from caloforge.showers import Showers
from caloforge.simulate.geant4 import datasets

__all__ = ["PHYSICS_LIST", "Geant4Engine", "read_complaint"]


PHYSICS_LIST = "G4EmStandardPhysics_option1"

_SECONDS_PER_MEV = 5e-6  # of one core, roughly, in a sampling calorimeter
_CHUNK_SECONDS = 5.0
_CHUNK_BYTES = 32 << 20
_EXCEPTION = re.compile(
    r"\*\*\* G4Exception : (?P<code>\S+)\s*\n\s*issued by : (?P<origin>[^\n]*)\n(?P<text>.*?)\n\*\*\* (?P<severity>[^\n*]+?) \*\*\*",
    re.DOTALL,
)
_FATAL = ("Fatal Exception", "Fatal Error in Argument")
_DATA = re.compile(r"G4[A-Z]+DATA|GEANT4_DATA_DIR|\.dat\b|data ?(?:file|set|base|directory)", re.IGNORECASE)


def read_complaint(log: str) -> CaloforgeError | None:
    """Return the last fatal exception that Geant4 printed; None when there is none."""
    fatal = [found for found in _EXCEPTION.finditer(log) if found["severity"].startswith(_FATAL)]
    if not fatal:
        return None
    last = fatal[-1]
    text = " ".join(last["text"].split())
    message = f"Geant4 stopped: {text} ({last['code']}, issued by {last['origin'].strip()})"
    return Geant4DataError(message) if _DATA.search(text) else SimulationError(message)


@dataclass(frozen=True)
class Geant4Engine:
    """Full simulation with Geant4, fluorescence off.

    Arguments:
        physics_list: An electromagnetic constructor (``G4EmStandardPhysics_option1``) or a reference list
            (``FTFP_BERT``).
        production_cut: Range below which secondaries are not produced, mm; by default as in Geant4: 1.0 for a
            constructor on its own, 0.7 for a reference list.
        download_data: Let geant4-pybind download missing data sets.

    Raises:
        InputError: When the cut is not positive.
        MissingExtraError: When geant4-pybind is not installed.
        Geant4DataError: When data sets are missing.
    """

    physics_list: str = PHYSICS_LIST
    production_cut: float | None = None
    download_data: bool = False
    name: ClassVar[str] = "geant4"

    def __post_init__(self) -> None:
        if not 0.0 < self.cut < float("inf"):
            msg = f"production cut {self.cut} mm is out of range: expected more than 0"
            raise InputError(msg)
        if find_spec("geant4_pybind") is None:
            raise MissingExtraError("geant4_pybind", "geant4")
        try:
            datasets.find(self._data_sets)
        except Geant4DataError:
            if not self.download_data:
                raise
            datasets.download()
            datasets.find(self._data_sets)

    @property
    def cut(self) -> float:
        """Production cut that is used, mm."""
        if self.production_cut is not None:
            return float(self.production_cut)
        return 1.0 if self._electromagnetic else 0.7

    @property
    def _electromagnetic(self) -> bool:
        """Whether the physics list is a constructor on its own."""
        return self.physics_list.startswith("G4Em")

    @property
    def _data_sets(self) -> tuple[str, ...]:
        return datasets.ELECTROMAGNETIC if self._electromagnetic else tuple(datasets.DATA_SETS)

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return the number of showers of a chunk: seconds of work, at most 32 MiB of cells."""
        mean = float(beam.energy.values((np.arange(64) + 0.5) / 64).mean())
        by_time = int(_CHUNK_SECONDS / (_SECONDS_PER_MEV * mean))
        return max(1, min(by_time, _CHUNK_BYTES // (4 * detector.n_cells)))

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` of the seed; the process serves one set-up only.

        Raises:
            SimulationError: When the process has served another set-up, or Geant4 lost showers.
            UnknownNameError: When physics list or particle is unknown.
            IncompatibleError: When the physics list does not cover the particle.
        """
        datasets.export(datasets.find(self._data_sets))
        from caloforge.simulate.geant4.session import session

        active = session(detector, self.physics_list, self.cut)
        primaries = beam.sample(seed, start, n)
        cells, seconds = active.run(beam.particle, primaries, seed, start)
        return Showers(
            detector=detector,
            cells=cells,
            incident_energy=primaries.energy,
            incident_theta=primaries.theta,
            conditions=primaries.conditions,
            particle=beam.particle,
            source=self.name,
            seed=seed,
            attributes={**self.attributes(), "geant4_version": active.version, "cpu_seconds": seconds},
        )

    def attributes(self) -> Mapping[str, Any]:
        """Return what a file records about how its showers were made."""
        return {
            "physics_list": self.physics_list,
            "production_cut_mm": self.cut,
            "fluorescence": False,
        }

    def diagnose(self, log: str) -> CaloforgeError | None:
        """Return Geant4's own error, which it prints before it ends the process."""
        return read_complaint(log)
