"""Showers of a trained model in place of the photons and electrons that enter a calorimeter; Geant4 is not needed here.

All particles of an event go through the model in one batch. The model's showers start in the centre of one cell of its grid and lean
towards +y; each is moved, layer by layer, so that its axis lies on the particle's line:

- It is turned by a multiple of 90 degrees, to the one nearest to the particle's azimuth; cells stay cells.
- Layer l, at depth z_l, moves by a whole number of cells. What is wanted is f_l = (position of the particle's line at z_l - position of the
  turned shower's axis) / pitch, and the layer moves by floor(f_l + r_l). With r_l = 1/2 this is the nearest cell, wrong by up to half a cell in
  all layers alike; with r_l spread evenly over [0, 1) the mean over the layers is right, and no cell's energy is changed or divided. r_l are the
  numbers of a two-dimensional additive recurrence, with powers of 1/1.32472 as steps, from a random beginning.
- An electron begins to shower at once, a photon where it converts, 9/7 radiation lengths deep on average. The maximum of its mean shower is
  one radiation length deeper (Particle Data Group, Passage of particles through matter: t_max = ln(E/Ec) + 0.5 for photons, - 0.5 for
  electrons), and its depth fluctuates with the conversion. So for an electron the photon's shower is moved to the front by
  ``electron_depth`` + t - ``START`` radiation lengths along the particle's line, where t is the depth of its first layer above ``START_MIP``
  and ``START`` the mean of t: layer l takes the cells of the layer that lies this much deeper, and where that is between two, one of
  them is drawn, once a shower. What would come from before the first or behind the last layer is taken from these.

What this leaves out: how a shower that begins at the edge of a cell divides its core between two cells; the lean of the shower's spread
to an azimuth between the four; what falls beside the model's own grid; that a photon's shower begins with two particles.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError
from caloforge.generate import Generator
from caloforge.geometry import Detector, ReadoutLayer
from caloforge.random import uniforms

__all__ = ["ELECTRON_DEPTH", "Particle", "Placed", "ShowerReplacement"]

ELECTRON_DEPTH = 1.0
"""Radiation lengths by which the mean shower of a photon is deeper than that of an electron."""
START_MIP = 5.0
"""Energy of a layer, in mean losses of a minimum-ionising particle, from which on a shower has begun."""
START = 2.03
"""Mean depth of a photon's first layer above ``START_MIP``, radiation lengths: the first 200 events of
``application.py --particle gamma --energy 10-100GeV``; the 250 of ``make_page.sh`` have 2.00 with an error of 0.08."""

_STEPS = (0.7548776662466927, 0.5698402909980532)
_PHOTONS, _ELECTRONS = ("gamma",), ("e-", "e+")


class Particle(NamedTuple):
    """A particle where it enters the calorimeter, at z = 0."""

    name: str  # Geant4's name of its kind
    energy: float  # kinetic, MeV
    x: float  # mm
    y: float  # mm
    direction: tuple[float, float, float]  # unit vector
    replaced: bool = False  # whether the model made its shower

    @property
    def incidence(self) -> float:
        """Angle between its direction and the perpendicular to the face, degrees; theta is 90 less this."""
        return float(np.degrees(np.arctan2(np.hypot(*self.direction[:2]), self.direction[2])))


@dataclass(frozen=True)
class Placed:
    """The showers of one event, added up in the calorimeter."""

    cells: NDArray[np.float64]  # (n_cells,) MeV
    outside: float  # visible energy that fell beside the calorimeter's cells, MeV
    seconds: float  # processor time


class ShowerReplacement:
    """A model of photons, the particles that it may replace, and the cells that its showers fill in another calorimeter.

    Arguments:
        generator: A shipped model or a trained run on a grid of the same layers and pitch, conditioned on energy and, if it likes, angle.
        plane: The calorimeter.
        electron_depth: Radiation lengths between a photon's and an electron's shower; 0 takes photons for electrons as they are.
        whole_cells: Move all layers of a perpendicular shower alike, to the nearest cell.

    Raises:
        IncompatibleError: When layers or pitch differ, or the model has other conditions.
    """

    def __init__(
        self,
        generator: Generator,
        plane: Detector,
        electron_depth: float = ELECTRON_DEPTH,
        whole_cells: bool = False,
    ) -> None:
        model = generator.model
        unknown = set(model.conditions) - {"incident_energy", "incident_theta"}
        if unknown or not model.detector.is_grid or _layers(model.detector) != _layers(plane):
            msg = f"'{generator.name}' of '{model.detector.name}' does not fit '{plane.name}': it takes a grid of the same layers and pitch"
            raise IncompatibleError(msg)
        self.model, self.plane, self.electron_depth = model, plane, electron_depth
        beam, first = model.detector.beam, plane.layers[0]
        assert isinstance(first, ReadoutLayer)
        self._energy = (beam.energy.low, beam.energy.high)
        self._incidence = (90.0 - beam.theta.high, 90.0 - beam.theta.low)
        nx, ny, _ = model.detector.shape
        self._pitch = np.array([first.pitch_x, first.pitch_y])
        self._entry = np.rint(np.array([beam.x, beam.y]) / self._pitch + np.array([nx, ny]) / 2 - 0.5).astype(
            int
        )
        self._z = np.array([layer.z for layer in plane.layers])
        self._depth = np.array([layer.depth_x0 for layer in plane.layers])
        number = np.arange(len(self._z))
        self._spread = np.outer(number, _STEPS)
        self._whole = whole_cells
        self._threshold = START_MIP * np.array([layer.mip for layer in plane.layers])
        middle = (model.condition_low + model.condition_high) / 2
        model.draw(middle[None])  # the first call sets torch up, so that no event's time counts it

    def covers(self, particle: Particle) -> bool:
        """Whether the model may replace a particle: photon or electron, energy and angle in the range of the model's beam."""
        low, high = self._incidence
        return (
            particle.name in (*_PHOTONS, *_ELECTRONS)
            and particle.direction[2] > 0
            and self._energy[0] <= particle.energy <= self._energy[1]
            and low - 1e-6 <= particle.incidence <= high
        )

    def showers(self, particles: Sequence[Particle], seed: int) -> Placed:
        """Return the showers of all particles of an event, made in one batch; the same seed gives the same showers."""
        before = time.process_time()
        values = {
            "incident_energy": [particle.energy for particle in particles],
            "incident_theta": [90.0 - particle.incidence for particle in particles],
        }
        conditions = torch.tensor([values[name] for name in self.model.conditions], dtype=torch.float32).T
        conditions = conditions.contiguous().to(self.model.condition_low.device)
        made = self.model.draw(conditions, seed, batch_size=len(particles))
        grids = made.float().cpu().numpy().reshape(len(particles), *self.model.detector.shape)
        draws = uniforms(seed, "placement", 0, len(particles), 3)
        cells, outside = np.zeros(self.plane.n_cells), 0.0
        for particle, grid, draw in zip(particles, grids, draws, strict=True):
            index, energy = self.place(grid, particle, draw)
            inside = index >= 0
            cells += np.bincount(index[inside], energy[inside], len(cells))
            outside += float(energy[~inside].sum())
        return Placed(cells, outside, time.process_time() - before)

    def place(
        self, grid: NDArray[np.float32], particle: Particle, draw: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Move a shower of the model to where a particle entered.

        Arguments:
            grid: Its cells (nx, ny, n_layers), MeV.
            particle: The particle.
            draw: Uniform numbers (3,) in [0, 1): the beginnings of r_l in x and y, and the choice between two layers for electrons.

        Returns:
            Flat cells (H,) of the plane, -1 outside, and their energies (H,), MeV. A cell may occur more than once.
        """
        source = self._source_layers(grid, particle, float(draw[2]))
        ix, iy, layer = np.nonzero(grid[:, :, source])
        energy = grid[ix, iy, source[layer]].astype(np.float64)
        dx, dy, dz = particle.direction
        quarter = round((np.arctan2(dy, dx) - np.pi / 2) / (np.pi / 2)) % 4 if np.hypot(dx, dy) > 1e-9 else 0
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
        a, b = ix - self._entry[0], iy - self._entry[1]
        lean = np.hypot(dx, dy) / dz * np.array([-sin, cos])
        wanted = np.array([particle.x, particle.y]) + np.outer(self._z, [dx / dz, dy / dz])
        have = np.outer(self._z[source], lean)
        nx, ny, n_layers = self.plane.shape
        middle = (wanted - have) / self._pitch + np.array([nx, ny]) / 2 - 0.5
        rounding = 0.5 if self._whole else (self._spread + draw[:2]) % 1.0
        shift = np.floor(middle + rounding).astype(np.int64)[layer]
        column, row = cos * a - sin * b + shift[:, 0], sin * a + cos * b + shift[:, 1]
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        return np.where(inside, (column * ny + row) * n_layers + layer, -1), energy

    def _source_layers(self, grid: NDArray[np.float32], particle: Particle, draw: float) -> NDArray[np.int64]:
        """Return the layer (n_layers,) of the photon's shower whose cells each layer takes."""
        number = np.arange(len(self._depth))
        begun = grid.sum(axis=(0, 1)) > self._threshold
        if particle.name in _PHOTONS or not self.electron_depth or not begun.any():
            return number
        along = np.cos(np.radians(particle.incidence))  # depth of the plane by length of the line
        start = self._depth[begun.argmax()] / along
        deeper = (self.electron_depth + start - START) * along
        position = np.interp(self._depth + deeper, self._depth, number)
        source: NDArray[np.int64] = np.minimum(np.floor(position + draw), number[-1]).astype(np.int64)
        return source


def _layers(detector: Detector) -> list[tuple[float, float, float]]:
    """Return depth and pitches of each layer, mm."""
    return [
        (round(layer.z, 6), layer.pitch_x, layer.pitch_y)
        for layer in detector.layers
        if isinstance(layer, ReadoutLayer)
    ]
