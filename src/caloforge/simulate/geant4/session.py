"""Geant4's run manager, one a process, its physics, and the primary particle of each shower.

The production cut is set once the run manager is initialised: earlier it is lost without a message, and overriding ``SetCuts``
does not survive the bindings. Fluorescence is off: it costs time and moves energies below any threshold.
"""

from __future__ import annotations

import re
import time
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, SimulationError, UnknownNameError
from caloforge.geometry import Detector, Primaries
from caloforge.random import child_seed
from caloforge.simulate.geant4.geometry import HitCollector, StackConstruction, fold_hits

__all__ = ["CONSTRUCTORS", "PrimaryGenerator", "Session", "build_physics", "find_particle", "session"]

CONSTRUCTORS = (
    "G4EmStandardPhysics",
    "G4EmStandardPhysics_option1",
    "G4EmStandardPhysics_option2",
    "G4EmStandardPhysics_option3",
    "G4EmStandardPhysics_option4",
    "G4EmStandardPhysicsGS",
    "G4EmStandardPhysicsSS",
    "G4EmStandardPhysicsWVI",
    "G4EmLivermorePhysics",
    "G4EmLivermorePolarizedPhysics",
    "G4EmPenelopePhysics",
    "G4EmLowEPPhysics",
)
"""Electromagnetic constructors that are a physics list on their own."""

_COVERED = ("gamma", "e-", "e+", "mu-", "mu+")


class _OneConstructor(g4.G4VModularPhysicsList):  # type: ignore[misc]
    """A physics list of one constructor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.SetVerboseLevel(0)
        self._constructor = getattr(g4, name)()
        self.RegisterPhysics(self._constructor)


def build_physics(name: str) -> Any:
    """Return a physics list.

    Arguments:
        name: Name of a constructor or of a reference list.

    Raises:
        UnknownNameError: When Geant4 has neither of that name.
    """
    if name in CONSTRUCTORS:
        physics = _OneConstructor(name)
    else:
        factory = g4.G4PhysListFactory()
        factory.SetVerbose(0)
        if not factory.IsReferencePhysList(name):
            reference = [str(entry) for entry in factory.AvailablePhysLists()]
            raise UnknownNameError("physics list", name, [*CONSTRUCTORS, *reference])
        physics = factory.GetReferencePhysList(name)
        physics.SetVerboseLevel(0)
    parameters = g4.G4EmParameters.Instance()
    parameters.SetFluo(False)
    parameters.SetVerbose(0)
    return physics


def find_particle(name: str, physics_list: str) -> Any:
    """Return Geant4's definition of a particle.

    Raises:
        UnknownNameError: When there is none.
        IncompatibleError: When an electromagnetic list would let it pass without its hadronic interactions.
    """
    definition = g4.G4ParticleTable.GetParticleTable().FindParticle(name)
    if definition is None:
        raise UnknownNameError("particle", name, [*_COVERED, "or another of Geant4's"])
    if physics_list in CONSTRUCTORS and name not in _COVERED:
        msg = f"physics list '{physics_list}' has no hadronic interactions of '{name}'; choose one such as FTFP_BERT"
        raise IncompatibleError(msg)
    return definition


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
        physics.SetDefaultCutValue(cut)
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


_active: Session | None = None


def session(detector: Detector, physics_list: str, cut: float) -> Session:
    """Return the process's session, started on first use.

    Raises:
        SimulationError: When the process has one for another set-up.
    """
    global _active
    if _active is None:
        _active = Session(detector, physics_list, cut)
    if (_active.detector, _active.physics_list, _active.cut) != (detector, physics_list, cut):
        msg = "a process can have one Geant4 set-up only; use caloforge.simulate, which starts a process for each"
        raise SimulationError(msg)
    return _active
