"""From the scorer's map of each event to the cells of the readout.

The map is walked once an event, flat, which is the quickest that the bindings offer (a quarter of a
microsecond a hit, a thousandth of the event); everything else is done for the whole chunk at once.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.simulate.geant4.geometry import index_shape

__all__ = ["HitCollector", "fold_hits"]


class HitCollector(g4.G4UserEventAction):  # type: ignore[misc]
    """Keeps the scored energies of each event."""

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
