"""The one place where a detector's sampling fraction enters.

The response of :mod:`.response` follows from energy losses and e/mip. A factor k of order one brings the
mean visible over the mean incident energy, in the detector's default beam and with its leakage, to the
detector's ``sampling_fraction``; it is the same for all energies, angles and particles. Longitudinal
leakage is averaged over antithetic random profiles, lateral leakage over spots.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.simulate.gflash.column import column_of
from caloforge.simulate.gflash.deposit import draw_spots, to_cells
from caloforge.simulate.gflash.response import develop

__all__ = ["calibration"]

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
