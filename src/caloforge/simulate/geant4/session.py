"""Geant4 in this process: the detector's volumes and scorers, physics, the primary particles, one run manager.

Each active slab is replicated along x into columns and along y into cells of the fine grid. Equal active slabs
share one logical volume; the copy number of a placement is its readout layer, so that the scorer adds up what
belongs together. Its index of a cell is (layer * nx + ix) * ny + iy with the largest nx, ny of all layers.
Passive slabs of the surrounding medium need no volume. z = 0 is the front of the stack. Detectors that are read out by a mesh are in :mod:`.mesh`. The scorer's map is walked once
an event, flat, which is the quickest that the bindings offer; everything else is done for the whole chunk at once.

The production cut is set once the run manager is initialised: earlier it is lost without a message, and overriding
``SetCuts`` does not survive the bindings. Fluorescence is off: it costs time and moves energies below any threshold.
"""

from __future__ import annotations

import re
import time
from itertools import chain
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, SimulationError, UnknownNameError
from caloforge.geometry import Detector, FineGrid, Material, MeshReadout, Primaries, Readout
from caloforge.random import child_seed
from caloforge.simulate.geant4.mesh import DepositCollector, MeshConstruction, material_of

__all__ = [
    "CONSTRUCTORS",
    "SCORER",
    "HitCollector",
    "PrimaryGenerator",
    "Session",
    "StackConstruction",
    "build_physics",
    "find_particle",
    "fold_hits",
    "index_shape",
    "session",
]

SCORER = "energy"
_MARGIN = 500.0  # mm


def index_shape(detector: Detector) -> tuple[int, int, int]:
    """Return (layers, nx, ny), the strides of the scorer's index."""
    assert isinstance(detector.readout, Readout)
    grids = detector.readout.fine_layers
    return len(grids), max(grid.nx for grid in grids), max(grid.ny for grid in grids)


class StackConstruction(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
    """Builds the volumes and attaches the scorers to the cells; ``margin`` is the medium around the stack, mm."""

    def __init__(self, detector: Detector, margin: float = _MARGIN) -> None:
        super().__init__()
        assert isinstance(detector.readout, Readout)
        self._margin = margin
        self._detector = detector
        self._grids = detector.readout.fine_layers
        self._kept: list[Any] = []  # Geant4 does not own what Python made
        self._sensors: dict[tuple[Material, float, FineGrid], Any] = {}
        self._cells: list[Any] = []

    def Construct(self) -> Any:
        """Build the world and all that is in it; called by Geant4."""
        detector = self._detector
        assert detector.medium is not None
        half_x = max(slab.half_x for slab in detector.stack) + self._margin
        half_y = max(slab.half_y for slab in detector.stack) + self._margin
        half_z = detector.length + self._margin
        world = self._box("world", half_x, half_y, half_z, detector.medium)
        placed = self._keep(g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "world", None, False, 0))
        for number, slab in enumerate(detector.stack):
            if slab.active:
                volume = self._sensor(slab.material, slab.thickness, self._grids[slab.layer])
            elif slab.material == detector.medium:
                continue
            else:
                volume = self._box(
                    f"slab {number}", slab.half_x, slab.half_y, slab.thickness / 2, slab.material
                )
            centre = g4.G4ThreeVector(0, 0, slab.z + slab.thickness / 2)
            copy = slab.layer if slab.active else number
            self._keep(g4.G4PVPlacement(None, centre, volume, volume.GetName(), world, False, copy))
        return placed

    def ConstructSDandField(self) -> None:
        """Attach the scorer to the cells; called by Geant4."""
        layers, nx, ny = index_shape(self._detector)
        scorers = self._keep(g4.G4MultiFunctionalDetector("calorimeter"))
        g4.G4SDManager.GetSDMpointer().AddNewDetector(scorers)
        scorers.RegisterPrimitive(self._keep(g4.G4PSEnergyDeposit3D(SCORER, layers, nx, ny, 2, 1, 0)))
        for cell in self._cells:
            self.SetSensitiveDetector(cell, scorers)

    def collector(self) -> HitCollector:
        """Return the action that collects the energies of each event."""
        return HitCollector()

    def fold(
        self, events: list[NDArray[np.float64]], conditions: dict[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return the cells of each shower's pairs of index and energy; see :func:`fold_hits`."""
        return fold_hits(self._detector, events, conditions)

    def _sensor(self, material: Material, thickness: float, grid: FineGrid) -> Any:
        """Return the volume of an active slab, cut into cells; equal ones are shared."""
        key = (material, thickness, grid)
        if key not in self._sensors:
            name = f"sensor {len(self._sensors)}"
            half_x, half_y, half_z = grid.nx * grid.pitch_x / 2, grid.ny * grid.pitch_y / 2, thickness / 2
            slab = self._box(name, half_x, half_y, half_z, material)
            column = self._box(f"{name} column", grid.pitch_x / 2, half_y, half_z, material)
            cell = self._box(f"{name} cell", grid.pitch_x / 2, grid.pitch_y / 2, half_z, material)
            self._keep(g4.G4PVReplica(f"{name} columns", column, slab, g4.kXAxis, grid.nx, grid.pitch_x))
            self._keep(g4.G4PVReplica(f"{name} cells", cell, column, g4.kYAxis, grid.ny, grid.pitch_y))
            self._cells.append(cell)
            self._sensors[key] = slab
        return self._sensors[key]

    def _box(self, name: str, half_x: float, half_y: float, half_z: float, material: Material) -> Any:
        """Return the logical volume of a box."""
        solid = self._keep(g4.G4Box(name, half_x, half_y, half_z))
        return self._keep(g4.G4LogicalVolume(solid, material_of(material), name))

    def _keep(self, made: Any) -> Any:
        self._kept.append(made)
        return made


class HitCollector(g4.G4UserEventAction):  # type: ignore[misc]
    """Collects the scored energies of each event."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[NDArray[np.float64]] = []

    def EndOfEventAction(self, event: Any) -> None:
        """Copy the event's map; called by Geant4."""
        scored = event.GetHCofThisEvent().GetHC(0)
        pairs = np.fromiter(chain.from_iterable(scored), np.float64, 2 * scored.entries())
        self.events.append(pairs.reshape(-1, 2))


def fold_hits(
    detector: Detector, events: list[NDArray[np.float64]], conditions: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the cells (N, n_cells), MeV, of each shower's (hits, 2) pairs of scorer's index and energy, MeV; alignments move cells."""
    assert isinstance(detector.readout, Readout)
    hits = np.concatenate(events)
    shower = np.repeat(np.arange(len(events)), [len(event) for event in events])
    _, nx, ny = index_shape(detector)
    index = hits[:, 0].astype(np.int64)
    alignments = {name: conditions[name][shower, 0] for name in detector.readout.alignment_names}
    cell = detector.readout.fold(index // (nx * ny), index // ny % nx, index % ny, alignments)
    inside = cell >= 0
    flat = shower[inside] * detector.n_cells + cell[inside]
    total = np.bincount(flat, hits[inside, 1], minlength=len(events) * detector.n_cells)
    return total.reshape(len(events), detector.n_cells).astype(np.float32)


CONSTRUCTORS = (
    "G4EmStandardPhysics",
    "G4EmStandardPhysics_noRayleigh",
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

_VARIANTS = {
    "G4EmStandardPhysics_noRayleigh": (
        "G4EmStandardPhysics_option1",
        (
            "/process/em/applyCuts false",
            "/process/em/transportationWithMsc Disabled",
            "/process/eLoss/StepFunction 0.2 1 mm",
            "/process/eLoss/setFluctModel Urban",
            "/process/msc/StepLimit UseSafety",
            "/process/msc/RangeFactor 0.04",
        ),
    ),
}
"""Names of ours: the constructor each is made from, and the commands that change its parameters.

``G4EmStandardPhysics_noRayleigh`` has the processes of option 1, which are those of ``G4EmStandardPhysics`` but for Rayleigh scattering, and the
parameters of the latter: short steps that end at the boundaries of thin slabs, and secondaries below the production
cut tracked where they come from photons. It needs fewer tables.
"""

_COVERED = ("gamma", "e-", "e+", "mu-", "mu+")


class _OneConstructor(g4.G4VModularPhysicsList):  # type: ignore[misc]
    """A physics list of one constructor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.SetVerboseLevel(0)
        base, commands = _VARIANTS.get(name, (name, ()))
        self._constructor = getattr(g4, base)()
        for command in commands:
            g4.G4UImanager.GetUIpointer().ApplyCommand(command)
        self.RegisterPhysics(self._constructor)


def build_physics(name: str) -> Any:
    """Return the physics list of a constructor's name or of a reference list's.

    Raises:
        UnknownNameError: When Geant4 has neither of that name.
    """
    if name in CONSTRUCTORS:
        physics = _OneConstructor(name)
    else:
        # what Geant4's factory makes cannot be handed over through the bindings, so only lists that they have as classes can be used
        reference = [str(entry) for entry in g4.G4PhysListFactory().AvailablePhysLists()]
        known = [entry for entry in reference if hasattr(g4, entry)]
        if name not in known:
            raise UnknownNameError("physics list", name, [*CONSTRUCTORS, *known])
        physics = getattr(g4, name)()
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
    collector: HitCollector | DepositCollector

    def __init__(self, construction: StackConstruction | MeshConstruction) -> None:
        super().__init__()
        self._construction = construction

    def Build(self) -> None:
        """Make and register the actions; called by Geant4."""
        self.generator, self.collector = PrimaryGenerator(), self._construction.collector()
        self.SetUserAction(self.generator)
        self.SetUserAction(self.collector)


class Session:
    """An initialised Geant4; the production cut is in mm."""

    def __init__(self, detector: Detector, physics_list: str, cut: float) -> None:
        self.detector, self.physics_list, self.cut = detector, physics_list, cut
        self._manager = g4.G4RunManager()
        self._construction: StackConstruction | MeshConstruction = (
            MeshConstruction(detector, all_steps=physics_list not in CONSTRUCTORS)
            if isinstance(detector.readout, MeshReadout)
            else StackConstruction(detector)
        )
        self._actions = _Actions(self._construction)
        physics = build_physics(physics_list)
        self._kept: list[Any] = [self._construction, physics, self._actions]
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
        return self._construction.fold(collector.events, primaries.conditions), seconds


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
