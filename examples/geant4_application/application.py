"""A Geant4 application whose calorimeter showers come from a trained model, or from Geant4 for comparison.

    python application.py --particle pi0 --energy 20-60GeV -n 300 -o pi0-full
    python application.py --particle pi0 --energy 20-60GeV -n 300 -o pi0-fast --model ild-photon-angled/bib-ae

The world of air holds the calorimeter of ``plane.toml``; particles are born in front of it and fly towards it, pi0 decay in Geant4. A thin
slab of air before the face is a sensitive detector. With a model, photons and electrons in its range that enter there are recorded and
killed; when the event ends, all of them go through the model in one batch, and the cells of its showers are added to the hits of Geant4, which
simulates everything else. The same seed gives the same primary particles in both modes.

It writes OUTPUT.h5, showers as ``caloforge validate`` and ``view`` read them, and OUTPUT.npz, the particles at the face and the
processor time of each event.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from replacement import ELECTRON_DEPTH, Particle, ShowerReplacement

import caloforge as cf
from caloforge.errors import CaloforgeError, InputError, require
from caloforge.files import check_output
from caloforge.geometry import Detector, load_detector
from caloforge.random import child_seed, uniforms
from caloforge.showers import ShowerWriter
from caloforge.simulate.geant4 import PHYSICS_LIST, export_data, find_data
from caloforge.units import EnergySpec

export_data(find_data())
g4 = require("geant4_pybind", extra="geant4")
from caloforge.simulate.geant4.session import (  # noqa: E402 - Geant4's data must be found before it is imported
    HitCollector,
    StackConstruction,
    build_physics,
    fold_hits,
)

__all__ = ["Application", "Event", "Gun", "Start"]

PLANE = Path(__file__).with_name("plane.toml")
CUT = 1.0  # production cut, mm: that of the showers that the shipped models were trained on
FACE = 0.05  # thickness of the sensitive air before the face, mm
BLOCK = 50  # events of a Geant4 run


@dataclass(frozen=True)
class Start:
    """A primary particle."""

    energy: float  # kinetic, MeV
    distance: float  # from its birth to the face along its line, mm
    x: float  # where its line crosses the face, mm
    y: float  # likewise
    direction: tuple[float, float, float]  # unit vector


@dataclass(frozen=True)
class Gun:
    """What is fired: all quantities uniform in their ranges, the azimuth between 0 and 360 degrees."""

    particle: str  # Geant4's name
    energy: EnergySpec
    distance: tuple[float, float] = (500.0, 2000.0)  # mm
    incidence: tuple[float, float] = (0.0, 10.0)  # angle to the perpendicular, degrees
    spread: float = 50.0  # half the side of the square of impact points, mm

    def start(self, seed: int, number: int) -> Start:
        """Return the primary particle of an event; it depends on the seed and its number alone."""
        u = uniforms(seed, "application", number, 1, 6)[0]
        angle = np.radians(self.incidence[0] + (self.incidence[1] - self.incidence[0]) * u[2])
        azimuth = 2 * np.pi * u[3]
        return Start(
            energy=float(self.energy.values(u[:1])[0]),
            distance=float(self.distance[0] + (self.distance[1] - self.distance[0]) * u[1]),
            x=float((2 * u[4] - 1) * self.spread),
            y=float((2 * u[5] - 1) * self.spread),
            direction=(
                float(np.sin(angle) * np.cos(azimuth)),
                float(np.sin(angle) * np.sin(azimuth)),
                float(np.cos(angle)),
            ),
        )


@dataclass
class Event:
    """What an event left."""

    start: Start
    cells: NDArray[np.float32]  # (n_cells,) MeV
    face: list[Particle]  # all that entered the calorimeter
    seconds: float  # processor time, the model's included
    model_seconds: float  # processor time of the model and its cells
    batches: int  # calls of the model
    outside: float  # energy of the model's showers beside the cells, MeV


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


@dataclass
class _Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    """Makes our actions when Geant4 is ready for them."""

    detector: Detector
    face: FaceSensor
    kept: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

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


class Record:
    """Everything about a run but its cells: columns that OUTPUT.npz holds."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def add(self, events: Sequence[Event]) -> None:
        """Keep events; their cells are dropped."""
        for event in events:
            event.cells = np.empty(0, np.float32)
        self._events += events

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns: one row an event, or (``face_...``) one row a particle at the face."""
        events = self._events
        face = [(number, particle) for number, event in enumerate(events) for particle in event.face]
        return {
            "energy": np.array([event.start.energy for event in events]),
            "distance": np.array([event.start.distance for event in events]),
            "impact": np.array([(event.start.x, event.start.y) for event in events]),
            "direction": np.array([event.start.direction for event in events]),
            "seconds": np.array([event.seconds for event in events]),
            "model_seconds": np.array([event.model_seconds for event in events]),
            "batches": np.array([event.batches for event in events]),
            "outside": np.array([event.outside for event in events]),
            "face_event": np.array([number for number, _ in face], np.int64),
            "face_name": np.array([particle.name for _, particle in face], "U16"),
            "face_energy": np.array([particle.energy for _, particle in face]),
            "face_position": np.array([(p.x, p.y) for _, p in face]).reshape(-1, 2),
            "face_direction": np.array([p.direction for _, p in face]).reshape(-1, 3),
            "face_replaced": np.array([p.replaced for _, p in face], bool),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; return the exit code."""
    try:
        return _run(_options(arguments))
    except CaloforgeError as error:
        print(f"application: error: {error}", file=sys.stderr)
        return error.exit_code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--particle", default="pi0", help="Geant4's name of the primary particle")
    parser.add_argument("--energy", default="20-60GeV", help="kinetic energy, with its unit")
    parser.add_argument("--distance", default="500-2000", help="from birth to face, mm")
    parser.add_argument("--incidence", default="0-10", help="angle to the perpendicular, degrees")
    parser.add_argument("-n", type=int, default=100, help="events")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="shipped model or run folder; without it Geant4 simulates all")
    parser.add_argument(
        "--electron-depth", type=float, default=ELECTRON_DEPTH, help="radiation lengths, see replacement.py"
    )
    parser.add_argument("--whole-cells", action="store_true", help="move showers to the nearest cell")
    parser.add_argument("--device", default="cpu", help="of the model: cpu or cuda")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without its ending")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    return parser.parse_args(arguments)


def _range(text: str, name: str, low: float, high: float) -> tuple[float, float]:
    """Return the ends of "5" or "0-10".

    Raises:
        InputError: When it is neither, or beyond the limits.
    """
    ends = text.split("-")
    try:
        first, last = float(ends[0]), float(ends[-1])
    except ValueError:
        first, last = np.nan, np.nan
    if len(ends) > 2 or not low <= first <= last <= high:
        raise InputError(f"{name} '{text}' is not understood: expected one number or LOW-HIGH, {low:g} to {high:g}")
    return first, last


def _run(options: argparse.Namespace) -> int:
    if options.n < 1:
        raise InputError(f"-n is {options.n}; expected 1 or more")
    gun = Gun(
        options.particle,
        EnergySpec.parse(options.energy),
        _range(options.distance, "distance", 1.0, 2000.0),
        _range(options.incidence, "incidence", 0.0, 60.0),
    )
    path = check_output(options.output.with_name(options.output.name + ".h5"), options.force)
    detector = load_detector(PLANE)
    torch.set_num_threads(1)
    replacement, source, seen = None, "geant4", None
    if options.model is not None:
        model = cf.load(options.model, device=options.device)
        replacement = ShowerReplacement(model, detector, options.electron_depth, options.whole_cells)
        source, seen = f"geant4 with {options.model}", model.seen
    application, record = Application(detector), Record()
    with ShowerWriter(path, detector, gun.particle, source, options.seed, force=options.force) as writer:
        for events in application.run(gun, options.n, options.seed, replacement):
            showers = cf.Showers(
                detector,
                np.stack([event.cells for event in events]),
                [event.start.energy for event in events],
                [90.0 - np.degrees(np.arccos(event.start.direction[2])) for event in events],
                particle=gun.particle,
                seen=seen,
            )
            writer.append(showers)
            record.add(events)
            print(f"\r{len(writer)} of {options.n} events", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    columns = record.columns()
    np.savez_compressed(path.with_suffix(".npz"), **columns, model=np.array(options.model or ""))
    _summarise(columns, path)
    return 0


def _summarise(columns: dict[str, NDArray[Any]], path: Path) -> None:
    """Print what happened."""
    n, replaced, energy = len(columns["energy"]), columns["face_replaced"], columns["face_energy"]
    electromagnetic = np.isin(columns["face_name"], ("gamma", "e-", "e+"))
    print(f"wrote {path} and {path.with_suffix('.npz').name} ({n} events)")
    print(f"processor time: {columns['seconds'].mean():.4f} s an event, {columns['model_seconds'].mean():.4f} s of it in the model")
    print(
        f"at the face: {len(energy)} particles, {replaced.sum()} replaced in {columns['batches'].sum()} batches;"
        f" to Geant4: {(~replaced & electromagnetic).sum()} photons and electrons, {(~electromagnetic).sum()} others,"
        f" {energy[~replaced].sum() / energy.sum():.1%} of the energy"
    )
    print(f"beside the cells: {columns['outside'].sum():.3g} MeV of the model's visible energy")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Geant4's own clean-up at exit is not sound under Python
