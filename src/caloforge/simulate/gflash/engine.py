"""The parametrised engine: an effective-medium shower in place of each Geant4 one.

Showers are made in blocks of fixed absolute position, each from its own stream of random numbers, and cut to
what is asked for: shower i is the same whatever the chunks, workers or restarts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Beam, Detector
from caloforge.random import generator
from caloforge.showers import Showers
from caloforge.simulate.gflash.calibration import calibration
from caloforge.simulate.gflash.column import column_of
from caloforge.simulate.gflash.deposit import draw_spots, to_cells
from caloforge.simulate.gflash.response import develop

__all__ = ["BLOCK", "GFlashEngine"]

BLOCK = 16  # showers that share a stream of random numbers
_CHUNK_BYTES = 64 << 20


class GFlashEngine:
    """Grindhammer-Peters showers for photons, electrons and positrons at any angle."""

    name = "gflash"

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return how many showers to make at once: whole blocks, at most 64 MiB of cells."""
        return max(1, min(64, _CHUNK_BYTES // (4 * detector.n_cells * BLOCK))) * BLOCK

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` of the ``seed``.

        Raises:
            IncompatibleError: When the detector has no stack.
            UnknownNameError: When the beam's particle makes no electromagnetic shower.
        """
        primaries = beam.sample(seed, start, n)
        first, last = start // BLOCK, -(-(start + n) // BLOCK)
        blocks = [_block(detector, beam, seed, number) for number in range(first, last)]
        cells = np.concatenate(blocks) if blocks else np.zeros((0, detector.n_cells), np.float32)
        skip = start - first * BLOCK
        return Showers(
            detector=detector,
            cells=cells[skip : skip + n],
            incident_energy=primaries.energy,
            incident_theta=primaries.theta,
            conditions=primaries.conditions,
            particle=beam.particle,
            source=self.name,
            seed=seed,
            attributes=self.attributes(),
        )

    def attributes(self) -> dict[str, str]:
        """Return what a file should say about how its showers were made."""
        return {"parametrisation": "Grindhammer-Peters, arXiv:hep-ex/0001020"}


def _block(detector: Detector, beam: Beam, seed: int, number: int) -> NDArray[np.float32]:
    """Return the cells (BLOCK, n_cells) of one block."""
    column, factor = column_of(detector), calibration(detector)
    primaries = beam.sample(seed, number * BLOCK, BLOCK)
    random = generator(seed, "gflash", number)
    normal, exponential = random.standard_normal((BLOCK, 2)), random.standard_exponential(BLOCK)
    response = develop(column, beam.particle, primaries.energy, primaries.theta, normal, exponential)
    spots = draw_spots(column, response, primaries, factor, random)
    return to_cells(detector, column, spots, BLOCK, primaries.conditions)
