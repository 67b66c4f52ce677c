"""Parametrised electromagnetic showers after Grindhammer and Peters: an effective-medium shower for each Geant4 one.

The path of a shower: :mod:`.parametrisation` (the stack, its profiles), :mod:`.deposit` (mean
response, spots, cells). Showers are made in blocks at fixed places, each with its own stream of random numbers: shower i is the
same whatever the chunks, workers or restarts.

This is the one place where a detector's sampling fraction enters: the response follows from energy losses and e/mip, and a factor k
of order one scales the mean visible over the mean incident energy, in the detector's default beam and with its leakage, to the
detector's ``sampling_fraction``; it is the same for all energies, angles and particles. Longitudinal leakage is averaged over
antithetic random profiles, lateral leakage over spots.

References:
    G. Grindhammer, S. Peters, The parameterized simulation of electromagnetic showers in homogeneous and
    sampling calorimeters, arXiv:hep-ex/0001020.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Beam, Detector
from caloforge.random import generator
from caloforge.showers import Showers
from caloforge.simulate.gflash.deposit import develop, draw_spots, to_cells
from caloforge.simulate.gflash.parametrisation import column_of

__all__ = ["BLOCK", "GFlashEngine", "calibration"]

BLOCK = 16  # showers that share a stream of random numbers
_CHUNK_BYTES = 64 << 20
_PROFILES = 2048  # showers for the longitudinal average
_LATERAL = 64  # of which spots are drawn


@lru_cache(maxsize=32)
def _calibration(key: tuple[object, ...], detector: Detector) -> float:
    column, beam = column_of(detector), detector.beam
    random = generator(0, "gflash calibration")
    primaries = beam.sample(0, 0, _PROFILES)
    half = random.standard_normal((_PROFILES // 2, 2))
    depth = random.random(_PROFILES // 2)
    normal = np.concatenate([half, -half])
    exponential = -np.log1p(-np.concatenate([depth, np.nextafter(1.0 - depth, 0.0)]))
    energy = primaries.energy
    response = develop(column, beam.particle, energy, primaries.theta, normal, exponential)
    factor = float(detector.sampling_fraction * energy.sum() / response.visible.sum())
    some = beam.sample(0, 0, _LATERAL)
    few = develop(column, beam.particle, some.energy, some.theta, normal[:_LATERAL], exponential[:_LATERAL])
    spots = draw_spots(column, few, some, factor, random)
    contained = to_cells(detector, column, spots, _LATERAL, some.conditions).sum(dtype=np.float64)
    return factor * float(spots.energy.sum(dtype=np.float64) / contained)


def calibration(detector: Detector) -> float:
    """Return the factor k of a detector."""
    key = (detector.stack, detector.readout, detector.beam, detector.sampling_fraction)
    return _calibration(key, detector)


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
    spots = draw_spots(column, response, primaries, factor, random)
    return to_cells(detector, column, spots, BLOCK, primaries.conditions)
