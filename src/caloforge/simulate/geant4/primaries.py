"""The particle that starts each shower, and the random numbers that the shower uses."""

from __future__ import annotations

from typing import Any

import geant4_pybind as g4

from caloforge.geometry import Primaries
from caloforge.random import child_seed

__all__ = ["PrimaryGenerator"]

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
