"""How much of a shower a detector contains, and the factor k that calibrates its response.

The response of :mod:`.response` follows from the energy inside the detector: what leaks lowers it, as in Geant4. Where the detector's
``sampling_fraction`` is an estimate, k is 1. Where it was measured, as the mean visible over the mean incident energy
in the default beam with what leaks there, k scales the response to it under the same conditions, leakage included; so k relates the visible energy
to the energy inside, and is the same for all energies, angles, particles and depths of shower. This is the one place where a detector's sampling
fraction enters.

Longitudinal leakage is averaged over antithetic random profiles, lateral leakage over the spots of a few showers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from caloforge.geometry import Beam, Detector
from caloforge.random import generator
from caloforge.simulate.gflash.parametrisation import column_of
from caloforge.simulate.gflash.response import develop, draw_spots, to_cells

__all__ = ["Containment", "calibration", "containment", "expected_response"]

_PROFILES = 2048  # showers for the longitudinal average
_LATERAL = 64  # of which spots are drawn


@dataclass(frozen=True)
class Containment:
    """Where the energy of a beam goes; shares of the incident energy."""

    longitudinal: float  # leaks behind the stack
    lateral: float  # leaks beside the scored cells
    visible: float  # mean visible over incident energy before calibration, with leakage, as it is stored


def containment(detector: Detector, beam: Beam | None = None) -> Containment:
    """Return how much of the showers of a beam a detector contains, by default those of the default beam.

    Raises:
        IncompatibleError: When the detector has no stack.
        UnknownNameError: When the beam's particle makes no electromagnetic shower.
    """
    return _containment((detector.stack, detector.readout), detector, beam or detector.beam)


@lru_cache(maxsize=32)
def _containment(key: tuple[object, ...], detector: Detector, beam: Beam) -> Containment:
    """``key`` holds what equal detectors may differ in."""
    column = column_of(detector)
    random = generator(0, "gflash calibration")
    primaries = beam.sample(0, 0, _PROFILES)
    half = random.standard_normal((_PROFILES // 2, 2))
    depth = random.random(_PROFILES // 2)
    normal = np.concatenate([half, -half])
    exponential = -np.log1p(-np.concatenate([depth, np.nextafter(1.0 - depth, 0.0)]))
    energy = primaries.energy
    response = develop(column, beam.particle, energy, primaries.theta, normal, exponential)
    some = beam.sample(0, 0, _LATERAL)
    few = develop(column, beam.particle, some.energy, some.theta, normal[:_LATERAL], exponential[:_LATERAL])
    assert detector.readout is not None
    scale, scored, everything = detector.readout.energy_scale, 0.0, 0.0
    for spots in draw_spots(column, few, some, 1.0, random):
        scored += to_cells(detector, column, spots, _LATERAL, some.conditions).sum(dtype=np.float64) / scale
        everything += spots.energy.sum(dtype=np.float64)
    contained = min(float(scored / everything), 1.0) if everything > 0 else 1.0
    inside = float(energy @ response.inside / energy.sum())
    visible = float(response.visible.sum() / energy.sum())
    return Containment(1.0 - inside, inside * (1.0 - contained), visible * contained * scale)


def calibration(detector: Detector) -> float:
    """Return the factor k of a detector.

    Raises:
        IncompatibleError: When the detector has no stack.
        UnknownNameError: When its sampling fraction was measured in a beam that makes no electromagnetic showers.
    """
    if detector.sampling_source == "estimated":
        return 1.0
    return detector.sampling_fraction / containment(detector).visible


def expected_response(detector: Detector) -> float:
    """Return the mean visible over the mean incident energy that the engine gives in the detector's default beam.

    Raises:
        IncompatibleError: When the detector has no stack.
        UnknownNameError: When the beam's particle makes no electromagnetic shower.
    """
    return calibration(detector) * containment(detector).visible
