"""The beam of a study: particle, entry point, energy and angle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from caloforge.random import uniforms
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["Beam", "Primaries"]


@dataclass(frozen=True)
class Primaries:
    """The particles that start showers ``start`` to ``start + n``."""

    energy: NDArray[np.float64]  # (n,) MeV
    theta: NDArray[np.float64]  # (n,) degrees
    x: NDArray[np.float64]  # (n,) mm, where the particle crosses z = 0
    y: NDArray[np.float64]  # (n,) mm, likewise
    z_start: float  # mm, where it is born
    conditions: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # named conditions, each (n, k)

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vectors (n, 3): (0, cos theta, sin theta)."""
        angle = np.radians(self.theta)
        return np.stack([np.zeros_like(angle), np.cos(angle), np.sin(angle)], axis=1)

    @property
    def position(self) -> NDArray[np.float64]:
        """Points of birth (n, 3), mm: on the line through (x, y, 0)."""
        lean = self.z_start / np.tan(np.radians(self.theta))
        return np.stack([self.x, self.y + lean, np.full_like(self.x, self.z_start)], axis=1)


@dataclass(frozen=True)
class Beam:
    """A beam along +z."""

    particle: str
    energy: EnergySpec
    theta: AngleSpec  # polar angles; 90 is perpendicular, smaller leans towards +y
    x: float = 0.0  # entry point at z = 0, mm
    y: float = 0.0  # entry point at z = 0, mm
    spread_x: float = 0.0  # full width of the uniform spread around ``x``, mm
    spread_y: float = 0.0  # full width of the uniform spread around ``y``, mm
    z_start: float = -0.1  # where the particle is born, mm
    # names of integer conditions drawn uniformly, each with its number of values
    alignments: tuple[tuple[str, int], ...] = ()
    impact: str = ""  # name under which the offset (x, y) within the spread is stored, or empty

    def replace(
        self,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        particle: str | None = None,
    ) -> Beam:
        """Return the same beam with another energy, angle or particle; None leaves one unchanged."""
        return dataclasses.replace(
            self,
            energy=self.energy if energy is None else EnergySpec.parse(energy),
            theta=self.theta if theta is None else AngleSpec.parse(theta),
            particle=self.particle if particle is None else particle,
        )

    @property
    def condition_sizes(self) -> dict[str, int]:
        """Sizes of the named conditions beside energy and angle."""
        sizes = {name: 1 for name, _ in self.alignments}
        if self.impact:
            sizes[self.impact] = 2
        return sizes

    def sample(self, seed: int, start: int, n: int) -> Primaries:
        """Draw the primaries of showers ``start`` to ``start + n``; counted per shower."""
        u = uniforms(seed, "beam", start, n, 4 + len(self.alignments))
        dx = (u[:, 2] - 0.5) * self.spread_x
        dy = (u[:, 3] - 0.5) * self.spread_y
        conditions = {
            name: np.floor(u[:, 4 + i : 5 + i] * count).astype(np.float32)
            for i, (name, count) in enumerate(self.alignments)
        }
        if self.impact:
            conditions[self.impact] = np.stack([dx, dy], axis=1).astype(np.float32)
        return Primaries(
            energy=self.energy.values(u[:, 0]),
            theta=self.theta.values(u[:, 1]),
            x=self.x + dx,
            y=self.y + dy,
            z_start=self.z_start,
            conditions=conditions,
        )
