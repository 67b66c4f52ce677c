"""Geant4's run manager, one a process, and the particle that starts each shower."""

from __future__ import annotations

import re
import time
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import SimulationError
from caloforge.geometry import Detector, Primaries
from caloforge.random import child_seed
from caloforge.simulate.geant4.geometry import HitCollector, StackConstruction, fold_hits
from caloforge.simulate.geant4.physics import build_physics, find_particle, set_cut

__all__ = ["PrimaryGenerator", "Session", "session"]


_SEED_BITS = 63  # so that no two showers of a large sample share a seed


class PrimaryGenerator(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
    """Fires the primaries of a chunk, one an event, each with its own seed."""

    def __init__(self) -> None:
        super().__init__()
        self._gun = g4.G4ParticleGun(1)

    def load(self, particle: Any, primaries: Primaries, seed: int, start: int) -> None:
        """Take the primaries of showers ``start`` and following."""
        self._gun.SetParticleDefinition(particle)
        self._energy = primaries.energy
        self._direction = primaries.direction
        self._position = primaries.position
        self._seed, self._start = seed, start

    def GeneratePrimaries(self, event: Any) -> None:
        """Start a shower; called by Geant4."""
        i = event.GetEventID()
        g4.G4Random.setTheSeed(child_seed(self._seed, "geant4", self._start + i, _SEED_BITS))
        self._gun.SetParticleEnergy(float(self._energy[i]))
        self._gun.SetParticleMomentumDirection(g4.G4ThreeVector(*map(float, self._direction[i])))
        self._gun.SetParticlePosition(g4.G4ThreeVector(*map(float, self._position[i])))
        self._gun.GeneratePrimaryVertex(event)


_active: Session | None = None


class _Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    """Makes our two actions when Geant4 is ready for them."""

    generator: PrimaryGenerator
    collector: HitCollector

    def Build(self) -> None:
        """Make and register the actions; called by Geant4."""
        self.generator, self.collector = PrimaryGenerator(), HitCollector()
        self.SetUserAction(self.generator)
        self.SetUserAction(self.collector)


class Session:
    """An initialised Geant4.

    Arguments:
        detector: The detector.
        physics_list: Name of the physics list.
        cut: Production cut, mm.
    """

    def __init__(self, detector: Detector, physics_list: str, cut: float) -> None:
        self.detector, self.physics_list, self.cut = detector, physics_list, cut
        self._manager = g4.G4RunManager()
        self._actions = _Actions()
        physics = build_physics(physics_list)
        self._kept: list[Any] = [StackConstruction(detector), physics, self._actions]
        for part in self._kept:
            self._manager.SetUserInitialization(part)
        self._manager.Initialize()
        set_cut(physics, cut)
        self._manager.BeamOn(0)  # makes the physics tables, so that no shower's time counts them

    @property
    def version(self) -> str:
        """Geant4's version, such as 11.4.1."""
        text = str(self._manager.GetVersionString())
        found = re.search(r"geant4-(\d+)-(\d+)(?:-patch-(\d+))?", text)
        return ".".join(str(int(number or 0)) for number in found.groups()) if found else text.strip()

    def run(
        self, particle: str, primaries: Primaries, seed: int, start: int
    ) -> tuple[NDArray[np.float32], float]:
        """Simulate a chunk.

        Returns:
            Cells (N, n_cells) in MeV, and the seconds of processor time that the event loop took.

        Raises:
            SimulationError: When Geant4 ended the run before its end.
        """
        generator, collector = self._actions.generator, self._actions.collector
        generator.load(find_particle(particle, self.physics_list), primaries, seed, start)
        collector.events.clear()
        before = time.process_time()
        self._manager.BeamOn(len(primaries))
        seconds = time.process_time() - before
        if len(collector.events) != len(primaries):
            msg = f"Geant4 ended the run after {len(collector.events)} of {len(primaries)} showers"
            raise SimulationError(msg)
        return fold_hits(self.detector, collector.events, primaries.conditions), seconds


def session(detector: Detector, physics_list: str, cut: float) -> Session:
    """Return the process's session, started on first use.

    Raises:
        SimulationError: When the process has one for another set-up.
    """
    global _active
    if _active is None:
        _active = Session(detector, physics_list, cut)
    if (_active.detector, _active.physics_list, _active.cut) != (detector, physics_list, cut):
        msg = "a process can hold one Geant4 set-up only; use caloforge.simulate, which starts a process for each"
        raise SimulationError(msg)
    return _active
