"""Plates and concentric cylinders in Geant4, read out by a mesh of rings around the beam, which their volumes do not follow.

Cylinders are full ones around an axis along x, in a binary tree of envelopes: an envelope holds two halves of its part of the stack, so
that Geant4 never looks for a point in more than two daughters. Side by side, concentric cylinders cannot be distinguished by
Geant4's voxels, which makes tracking up to half as long again.

A deposit belongs to the voxel in which its step ends, as in Geant4's example Par04. Geant4's own scorers know volumes only, so the steps
themselves are read, by a scorer in Python. Calls from C++ to Python are what this costs, so a filter in C++ lets through
only steps that can deposit energy: those of charged particles, and of photons below 0.1 MeV, which leave binding energies. That is all
but a part in a million of the energy with an electromagnetic physics list. Where the list applies production cuts to the electrons
of photons (``G4EmStandardPhysics_option1`` and ``option2``), photons of any energy leave what such electrons would have, and all of their steps are read;
with hadrons, whose neutrons deposit energy too, all steps of all particles are. Places are put into voxels once an event, all together.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import SimulationError
from caloforge.geometry import Detector, Material, MeshReadout, Slab

__all__ = ["DepositCollector", "DepositScorer", "MeshConstruction", "material_of"]

_MARGIN = 10.0  # mm of the medium around the cylinders
_SOFT = 0.1  # MeV, kinetic energy below which photons leave energy where they are absorbed


def material_of(material: Material) -> Any:
    """Return Geant4's material.

    Raises:
        SimulationError: When Geant4 has none of that name.
    """
    nist = g4.G4NistManager.Instance()
    if not material.elements:
        found = nist.FindOrBuildMaterial(material.name)
        if found is None:
            raise SimulationError(f"Geant4 has no material '{material.name}'")
        return found
    if material not in _own:
        made = g4.G4Material(material.name, material.density * g4.g / g4.cm3, len(material.elements))
        for symbol, fraction in material.elements:
            made.AddElementByMassFraction(nist.FindOrBuildElement(symbol), fraction)
        _own[material] = made
    return _own[material]


_own: dict[Material, Any] = {}  # materials of users, each made once in a process


class DepositScorer(g4.G4VPrimitiveScorer):  # type: ignore[misc]
    """Appends the energy (MeV) and the end (x, y, z; mm) of each step that deposits energy to ``deposits``."""

    def __init__(self, name: str, deposits: array[float]) -> None:
        super().__init__(name, 0)
        self._deposits = deposits
        self._step: Any = None

    def Initialize(self, collections: Any) -> None:
        """Begin an event: there is no collection of hits; called by Geant4."""

    def EndOfEvent(self, collections: Any) -> None:
        """End an event; called by Geant4."""

    def ProcessHits(self, step: Any, history: Any) -> bool:
        """Read a step; called by Geant4, which has one step object and fills it again and again."""
        if step is not self._step:
            self._step = step
            self._energy = step.GetTotalEnergyDeposit
            self._place = step.GetPostStepPoint().GetPosition
        energy = self._energy()
        if energy != 0.0:
            place = self._place()
            self._deposits.extend((energy, place.x, place.y, place.z))
        return True


class MeshConstruction(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
    """Builds the slabs and attaches the scorers to the active ones; z = 0 is the front of the stack, on the axis of the beam.

    Arguments:
        detector: A detector with a mesh as readout, of cylinders where it has an inner radius; gaps between its slabs are
            filled with the medium.
        all_steps: Whether steps of all particles are read, as hadrons need.
    """

    def __init__(self, detector: Detector, all_steps: bool = False) -> None:
        super().__init__()
        assert isinstance(detector.readout, MeshReadout)
        self._mesh = detector.readout
        self._detector = detector
        self._all_steps = all_steps
        self._kept: list[Any] = []  # Geant4 does not own what Python made
        self._active: list[Any] = []
        self.deposits: array[float] = array("d")
        """Energy, x, y and z of one deposit after the other, of the event in progress."""

    def Construct(self) -> Any:
        """Build the world and all that is in it; called by Geant4."""
        detector, stack, medium = self._detector, self._detector.stack, self._detector.medium
        assert medium is not None
        outer = detector.inner_radius + detector.length + _MARGIN
        half_x, half_y = (max(getattr(slab, key) for slab in stack) + _MARGIN for key in ("half_x", "half_y"))
        solid = self._keep(g4.G4Box("world", half_x, max(outer, half_y), 2 * outer))
        world = self._keep(g4.G4LogicalVolume(solid, material_of(medium), "world"))
        placed = self._keep(g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "world", None, False, 0))
        if detector.inner_radius:
            turn = self._keep(g4.G4RotationMatrix())
            turn.rotateY(math.pi / 2)  # the cylinders' own axis is z
            centre = g4.G4ThreeVector(0, 0, -detector.inner_radius)
            self._place(self._part(stack), world, turn, centre)
            return placed
        for slab in stack:
            if slab.active or slab.material != medium:
                self._place(
                    self._plate(slab), world, None, g4.G4ThreeVector(0, 0, slab.z + slab.thickness / 2)
                )
        return placed

    def ConstructSDandField(self) -> None:
        """Attach the scorers to the active cylinders; called by Geant4."""
        detector = self._keep(g4.G4MultiFunctionalDetector("calorimeter"))
        g4.G4SDManager.GetSDMpointer().AddNewDetector(detector)
        for name, accepted in self._filters():
            scorer = self._keep(DepositScorer(name, self.deposits))
            if accepted is not None:
                scorer.SetFilter(self._keep(accepted))
            detector.RegisterPrimitive(scorer)
        for volume in self._active:
            self.SetSensitiveDetector(volume, detector)

    def collector(self) -> DepositCollector:
        """Return the action that collects the energies of each event."""
        return DepositCollector(self._mesh, self.deposits)

    def fold(
        self, events: list[NDArray[np.float64]], conditions: dict[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return the voxels (N, n_cells), MeV as they are stored, of each shower's (hits, 2) pairs of voxel and deposited energy, MeV."""
        cells = np.zeros((len(events), self._detector.n_cells), np.float32)
        for shower, hits in enumerate(events):
            cells[shower, hits[:, 0].astype(np.int64)] = hits[:, 1] * self._mesh.energy_scale
        return cells

    def _filters(self) -> list[tuple[str, Any]]:
        """Return the names of the scorers, each with its filter."""
        if self._all_steps:
            return [("all", None)]
        most = math.inf if g4.G4EmParameters.Instance().ApplyCuts() else _SOFT
        photons = g4.G4SDParticleWithEnergyFilter("photons", 0.0, most)
        photons.add("gamma")
        return [("charged", g4.G4SDChargedFilter("charged")), ("photons", photons)]

    def _part(self, slabs: Sequence[Slab]) -> Any:
        """Return the volume of some slabs that follow each other."""
        if len(slabs) == 1:
            return self._shell(slabs[0].material, slabs[0], slabs[0])
        assert self._detector.medium is not None
        envelope = self._shell(self._detector.medium, slabs[0], slabs[-1])
        middle = len(slabs) // 2
        for half in (slabs[:middle], slabs[middle:]):
            self._place(self._part(half), envelope, None, g4.G4ThreeVector())
        return envelope

    def _shell(self, material: Material, first: Slab, last: Slab) -> Any:
        """Return the volume between the inner face of one slab and the outer face of another."""
        radius = self._detector.inner_radius
        inner, outer = radius + first.z, radius + last.z + last.thickness
        solid = self._keep(g4.G4Tubs("shell", inner, outer, first.half_x, 0.0, 2 * math.pi))
        return self._volume(solid, material, first.active if first is last else False)

    def _plate(self, slab: Slab) -> Any:
        """Return the volume of a flat slab."""
        solid = self._keep(g4.G4Box("plate", slab.half_x, slab.half_y, slab.thickness / 2))
        return self._volume(solid, slab.material, slab.active)

    def _volume(self, solid: Any, material: Material, active: bool) -> Any:
        volume = self._keep(g4.G4LogicalVolume(solid, material_of(material), solid.GetName()))
        if active:
            self._active.append(volume)
        return volume

    def _place(self, volume: Any, mother: Any, turn: Any, centre: Any) -> None:
        self._keep(g4.G4PVPlacement(turn, centre, volume, volume.GetName(), mother, False, 0))

    def _keep(self, made: Any) -> Any:
        self._kept.append(made)
        return made


class DepositCollector(g4.G4UserEventAction):  # type: ignore[misc]
    """Puts the deposits of each event into voxels: ``events`` holds pairs (hits, 2) of voxel and energy, MeV."""

    def __init__(self, mesh: MeshReadout, deposits: array[float]) -> None:
        super().__init__()
        self.events: list[NDArray[np.float64]] = []
        self._mesh, self._deposits = mesh, deposits

    def EndOfEventAction(self, event: Any) -> None:
        """Sum the event's deposits; called by Geant4."""
        energy, x, y, z = np.array(self._deposits, np.float64).reshape(-1, 4).T
        del self._deposits[:]
        voxel = self._mesh.locate(x, y, z)
        inside = voxel >= 0
        sums = np.bincount(voxel[inside], energy[inside])
        hit = np.flatnonzero(sums)
        self.events.append(np.stack([hit, sums[hit]], axis=1))
