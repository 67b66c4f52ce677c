"""Engines that are quick, and fail when they are told to; worker processes import them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from caloforge.errors import CaloforgeError, SimulationError, UnknownNameError
from caloforge.geometry import Beam, Detector
from caloforge.random import uniforms
from caloforge.showers import Showers


@dataclass
class ToyEngine:
    """Uniform energies in all cells; ``diary`` gets a line for each chunk that is begun."""

    diary: Path | None = None
    name: ClassVar[str] = "toy"

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        return 4

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        if self.diary is not None:
            with self.diary.open("a") as diary:
                diary.write(f"{start} {os.getpid()}\n")
        primaries = beam.sample(seed, start, n)
        cells = uniforms(seed, "toy", start, n, detector.n_cells)
        return Showers(
            detector=detector,
            cells=np.where(cells < 0.5, 0.0, cells).astype(np.float32),
            incident_energy=primaries.energy,
            incident_theta=primaries.theta,
            conditions=primaries.conditions,
            particle=beam.particle,
            source=self.name,
            seed=seed,
        )

    def attributes(self) -> dict[str, Any]:
        return {"toy": True}


@dataclass
class IsolatedToy(ToyEngine):
    """The same in a process of its own; ``trouble`` says what happens at the chunk that starts at ``at``."""

    trouble: str = "none"
    at: int = 4
    once: bool = False
    known: list[str] = field(default_factory=lambda: ["a", "b"])

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        print("noise on standard output")
        print("noise on standard error", file=sys.stderr)
        first = self.diary is None or not self.diary.exists() or f"{start} " not in self.diary.read_text()
        showers = super().run(detector, beam, seed, start, n)
        if start == self.at and (first or not self.once):
            {
                "none": lambda: None,
                "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
                "exit": lambda: os._exit(3),
                "complain": self._complain,
                "unknown": self._unknown,
                "divide": lambda: 1 / 0,
                "sleep": lambda: time.sleep(600),
            }[self.trouble]()
        return showers

    def _complain(self) -> None:
        print("COMPLAINT: the magnet is off", flush=True)
        os.abort()

    def _unknown(self) -> None:
        raise UnknownNameError("toy", "c", self.known)

    def diagnose(self, log: str) -> CaloforgeError | None:
        assert "noise on standard output" in log
        assert "noise on standard error" in log
        found = [line for line in log.splitlines() if line.startswith("COMPLAINT")]
        return SimulationError(found[0]) if found else None
