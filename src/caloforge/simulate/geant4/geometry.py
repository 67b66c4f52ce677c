"""A detector's stack in Geant4: plates, active slabs cut into cells that score their energy in C++, and the readout's cells.

Each active slab is replicated along x into columns and along y into cells of the fine grid. Equal active slabs
share one logical volume; the copy number of a placement is its readout layer, so that the scorer adds up what
belongs together. Its index of a cell is (layer * nx + ix) * ny + iy with the largest nx, ny of all layers.
Passive slabs of the surrounding medium need no volume. z = 0 is the front of the stack.

The scorer's map is walked once an event, flat, which is the quickest that the bindings offer (a quarter of a
microsecond a hit, a thousandth of the event); everything else is done for the whole chunk at once.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import SimulationError
from caloforge.geometry import Detector, FineGrid, Material

__all__ = ["SCORER", "HitCollector", "StackConstruction", "fold_hits", "index_shape"]


SCORER = "energy"
_MARGIN = 500.0  # mm of medium around the stack


def index_shape(detector: Detector) -> tuple[int, int, int]:
    """Return (layers, nx, ny), the strides of the scorer's index."""
    assert detector.readout is not None
    grids = detector.readout.fine_layers
    return len(grids), max(grid.nx for grid in grids), max(grid.ny for grid in grids)


class StackConstruction(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
    """Builds the volumes and attaches the scorers to the cells."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        assert detector.readout is not None
        self._detector = detector
        self._grids = detector.readout.fine_layers
        self._kept: list[Any] = []  # Geant4 does not own what Python made
        self._sensors: dict[tuple[str, float, FineGrid], Any] = {}
        self._cells: list[Any] = []

    def Construct(self) -> Any:
        """Build the world and all that is in it; called by Geant4."""
        detector = self._detector
        assert detector.medium is not None
        half_x = max(slab.half_x for slab in detector.stack) + _MARGIN
        half_y = max(slab.half_y for slab in detector.stack) + _MARGIN
        half_z = detector.length + _MARGIN
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

    def _sensor(self, material: Material, thickness: float, grid: FineGrid) -> Any:
        """Return the volume of an active slab, cut into cells; equal ones are shared."""
        key = (material.name, thickness, grid)
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
        substance = g4.G4NistManager.Instance().FindOrBuildMaterial(material.name)
        if substance is None:
            msg = f"Geant4 has no material '{material.name}'"
            raise SimulationError(msg)
        solid = self._keep(g4.G4Box(name, half_x, half_y, half_z))
        return self._keep(g4.G4LogicalVolume(solid, substance, name))

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
    """Return the cells (N, n_cells), MeV.

    Arguments:
        detector: The detector.
        events: For each shower the scorer's (hits, 2) pairs of index and energy, MeV.
        conditions: Conditions of the showers, each (N, k), of which the alignments move cells.
    """
    assert detector.readout is not None
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
