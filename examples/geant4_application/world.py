"""The Geant4 side: calorimeter, sensitive face, primary particles, events. Geant4's data must be found before this is imported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import geant4_pybind as g4
import numpy as np
from events import Event, Gun, Start
from replacement import Particle, ShowerReplacement

from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.random import child_seed
from caloforge.simulate.geant4 import PHYSICS_LIST
from caloforge.simulate.geant4.session import HitCollector, StackConstruction, build_physics, fold_hits

__all__ = ["Application", "Collector", "FaceSensor", "Plane", "Primaries"]

CUT = 1.0  # production cut, mm: that of the showers that the shipped models were trained on
FACE = 0.05  # thickness of the sensitive air before the face, mm
BLOCK = 50  # events of a Geant4 run


class Plane(StackConstruction):
    """The calorimeter, and the sensitive air before its face."""

    def __init__(self, detector: Detector, room: float) -> None:
        super().__init__(detector, margin=room)
        self.face = FaceSensor()
        self._parts: list[Any] = []
        self._slab = detector.stack[0]

    def Construct(self) -> Any:
        """Build the world; called by Geant4."""
        world = super().Construct()
        volume = world.GetLogicalVolume()
        box = g4.G4Box("face", self._slab.half_x, self._slab.half_y, FACE / 2)
        slab = g4.G4LogicalVolume(box, volume.GetMaterial(), "face")
        place = g4.G4PVPlacement(None, g4.G4ThreeVector(0, 0, -FACE / 2), slab, "face", volume, False, 0)
        self._parts += [box, slab, place]
        return world

    def ConstructSDandField(self) -> None:
        """Attach the scorer to the cells and the sensor to the face; called by Geant4."""
        super().ConstructSDandField()
        g4.G4SDManager.GetSDMpointer().AddNewDetector(self.face)
        self.SetSensitiveDetector(self._parts[1], self.face)


class FaceSensor(g4.G4VSensitiveDetector):  # type: ignore[misc]
    """Records what enters the calorimeter, and kills what the model replaces.

    As a sensitive detector it is called for steps in its own slab only; a stepping action in Python is called for all steps.
    """

    def __init__(self) -> None:
        super().__init__("face")
        self.replacement: ShowerReplacement | None = None
        self.entered: list[Particle] = []

    def ProcessHits(self, step: Any, history: Any) -> bool:
        """Look at a step in the slab; called by Geant4."""
        before = step.GetPreStepPoint()
        direction = before.GetMomentumDirection()
        if before.GetStepStatus() != g4.fGeomBoundary or direction.z <= 0:
            return False
        position, track = before.GetPosition(), step.GetTrack()
        rest = -position.z / direction.z  # to z = 0, mm
        particle = Particle(
            name=str(track.GetDefinition().GetParticleName()),
            energy=before.GetKineticEnergy(),
            x=position.x + rest * direction.x,
            y=position.y + rest * direction.y,
            direction=(direction.x, direction.y, direction.z),
        )
        if self.replacement is not None and self.replacement.covers(particle):
            particle = particle._replace(replaced=True)
            track.SetTrackStatus(g4.fStopAndKill)
        self.entered.append(particle)
        return True


class Primaries(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
    """Fires one particle an event."""

    def __init__(self) -> None:
        super().__init__()
        self._gun = g4.G4ParticleGun(1)
        self.gun: Gun | None = None
        self.seed, self.first = 0, 0
        self.start: Start | None = None

    def GeneratePrimaries(self, event: Any) -> None:
        """Start an event with its own seed; called by Geant4."""
        assert self.gun is not None
        number = self.first + event.GetEventID()
        start = self.start = self.gun.start(self.seed, number)
        g4.G4Random.setTheSeed(child_seed(self.seed, "geant4", number, 63))
        self._gun.SetParticleDefinition(g4.G4ParticleTable.GetParticleTable().FindParticle(self.gun.particle))
        dx, dy, dz = start.direction
        origin = start.x - start.distance * dx, start.y - start.distance * dy, -start.distance * dz
        self._gun.SetParticleEnergy(start.energy)
        self._gun.SetParticleMomentumDirection(g4.G4ThreeVector(dx, dy, dz))
        self._gun.SetParticlePosition(g4.G4ThreeVector(*origin))
        self._gun.GeneratePrimaryVertex(event)


class Collector(HitCollector):
    """Times each event, asks the model for the showers of what was killed, and adds them to the hits."""

    def __init__(self, detector: Detector, primaries: Primaries, face: FaceSensor) -> None:
        super().__init__()
        self._detector, self._primaries, self._face = detector, primaries, face
        self.finished: list[Event] = []

    def BeginOfEventAction(self, event: Any) -> None:
        """Start the clock; called by Geant4."""
        self._before = time.process_time()
        self._face.entered = []

    def EndOfEventAction(self, event: Any) -> None:
        """Finish the event; called by Geant4."""
        super().EndOfEventAction(event)
        cells = fold_hits(self._detector, [self.events.pop()], {})[0]
        killed = [particle for particle in self._face.entered if particle.replaced]
        model_seconds = outside = 0.0
        if killed:
            assert self._face.replacement is not None
            number = self._primaries.first + event.GetEventID()
            placed = self._face.replacement.showers(killed, child_seed(self._primaries.seed, "model", number))
            cells = (cells + placed.cells).astype(np.float32)
            model_seconds, outside = placed.seconds, placed.outside
        seconds = time.process_time() - self._before
        assert self._primaries.start is not None
        self.finished.append(
            Event(
                self._primaries.start,
                cells,
                self._face.entered,
                seconds,
                model_seconds,
                int(bool(killed)),
                outside,
            )
        )


class _Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    """Makes our actions when Geant4 is ready for them."""

    primaries: Primaries
    collector: Collector

    def __init__(self, detector: Detector, face: FaceSensor) -> None:
        super().__init__()
        self.detector, self.face = detector, face

    def Build(self) -> None:
        """Make and register the actions; called by Geant4."""
        self.primaries = Primaries()
        self.collector = Collector(self.detector, self.primaries, self.face)
        for action in (self.primaries, self.collector):
            self.SetUserAction(action)


class Application:
    """Geant4 with the calorimeter, once a process.

    Arguments:
        detector: A flat-plate calorimeter.
        room: Air around it, mm; particles must be born within.
    """

    def __init__(self, detector: Detector, room: float = 2100.0) -> None:
        self.detector = detector
        self._manager = g4.G4RunManager()
        self._plane = Plane(detector, room)
        self._actions = _Actions(detector, self._plane.face)
        self._decay = g4.G4DecayPhysics()
        physics = self._physics = build_physics(PHYSICS_LIST)
        physics.RegisterPhysics(self._decay)
        for part in (self._plane, physics, self._actions):
            self._manager.SetUserInitialization(part)
        self._manager.Initialize()
        physics.SetDefaultCutValue(CUT)
        self._manager.BeamOn(0)  # makes the physics tables, so that no event's time counts them

    def run(
        self, gun: Gun, n: int, seed: int = 0, replacement: ShowerReplacement | None = None
    ) -> Iterator[list[Event]]:
        """Yield events 0 to n in blocks; with a replacement, the model makes the showers that it covers.

        Raises:
            InputError: When Geant4 does not know the particle.
        """
        if g4.G4ParticleTable.GetParticleTable().FindParticle(gun.particle) is None:
            raise InputError(f"Geant4 has no particle '{gun.particle}'; expected such as pi0, e- or gamma")
        primaries, collector = self._actions.primaries, self._actions.collector
        primaries.gun, primaries.seed = gun, seed
        self._plane.face.replacement = replacement
        for first in range(0, n, BLOCK):
            primaries.first, collector.finished = first, []
            self._manager.BeamOn(min(BLOCK, n - first))
            yield collector.finished
