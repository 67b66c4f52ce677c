"""Primary particles, what an event leaves, and the columns that a run writes about its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replacement import Particle

from caloforge.random import uniforms
from caloforge.units import EnergySpec

__all__ = ["Event", "Gun", "Start", "columns_of"]


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


def columns_of(events: Sequence[Event]) -> dict[str, NDArray[Any]]:
    """Return all but the cells: columns of one row an event, or (``face_...``) one row a particle at the face."""
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
