"""Parametrised electromagnetic showers after Grindhammer and Peters: an effective-medium shower for each Geant4 one.

From the stack and the profiles of :mod:`.parametrisation` follow the mean response of each sampling unit, spots
that fluctuate about it, and cells (:mod:`.response`). A factor k, of order one, calibrates the response to what is contained
(:mod:`.containment`). Showers are made in blocks at fixed places, each with its own stream of random numbers: shower i is the
same whatever the chunks, workers or restarts.

The profile constants are the paper's. What is not, each fitted to Geant4 or chosen where it is defined: the ratio
of active to passive energy (:func:`caloforge.geometry.active_over_passive`), the fluctuation of an electron's start and the spectrum of spots (:mod:`.response`), and the backscatter that
the last slab lacks (:data:`.parametrisation.ALBEDO`).

References:
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Beam, Detector
from caloforge.random import generator
from caloforge.showers import Showers
from caloforge.simulate.gflash.containment import (
    Containment,
    calibration,
    containment,
    expected_response,
)
from caloforge.simulate.gflash.parametrisation import column_of
from caloforge.simulate.gflash.response import (
    SOFT_ENERGY,
    SOFT_SHARE,
    START_DEPTH,
    Response,
    Spots,
    SpotSpectrum,
    develop,
    draw_spots,
    landau,
    spot_spectrum,
    to_cells,
)

__all__ = [
    "BLOCK",
    "SOFT_ENERGY",
    "SOFT_SHARE",
    "START_DEPTH",
    "Containment",
    "GFlashEngine",
    "Response",
    "SpotSpectrum",
    "Spots",
    "calibration",
    "containment",
    "develop",
    "draw_spots",
    "expected_response",
    "landau",
    "spot_spectrum",
    "to_cells",
]

BLOCK = 16  # showers that share a stream of random numbers
_CHUNK_BYTES = 64 << 20


class GFlashEngine:
    """Grindhammer-Peters showers for photons, electrons and positrons at any angle."""

    name = "gflash"

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return the number of showers of a chunk: whole blocks, at most 64 MiB of cells."""
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
        """Return what a file records about how its showers were made."""
        return {"parametrisation": "Grindhammer-Peters, arXiv:hep-ex/0001020"}


def _block(detector: Detector, beam: Beam, seed: int, number: int) -> NDArray[np.float32]:
    """Return the cells (BLOCK, n_cells) of one block."""
    column, factor = column_of(detector), calibration(detector)
    primaries = beam.sample(seed, number * BLOCK, BLOCK)
    random = generator(seed, "gflash", number)
    normal, exponential = random.standard_normal((BLOCK, 2)), random.standard_exponential(BLOCK)
    response = develop(column, beam.particle, primaries.energy, primaries.theta, normal, exponential)
    parts = (
        to_cells(detector, column, spots, BLOCK, primaries.conditions)
        for spots in draw_spots(column, response, primaries, factor, random)
    )
    return reduce(np.add, parts)
