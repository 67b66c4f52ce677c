"""One simulation, as it is sent to whoever makes its chunks, and the last touches on the cells.

Cells below a threshold are set to zero and the rest rounded to a number of mantissa bits. Nothing that a
readout could see is lost (10 bits are 0.05 %), and files shrink severalfold, since the compression of
HDF5 finds the zeros.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._version import __version__
from caloforge.errors import InputError
from caloforge.geometry import Beam, Detector
from caloforge.showers import Showers
from caloforge.simulate.engine import Engine

__all__ = ["FULL_MANTISSA", "MANTISSA_BITS", "THRESHOLD", "Job", "round_mantissa"]

THRESHOLD = 1e-4
"""MeV; cells below it are set to zero unless told otherwise."""

MANTISSA_BITS = 10
"""Bits of mantissa that cells keep unless told otherwise."""

FULL_MANTISSA = 23
"""Bits of mantissa that float32 has."""


def round_mantissa(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round float32 numbers of any shape to the nearest with ``bits`` bits of mantissa."""
    dropped = FULL_MANTISSA - bits
    if dropped == 0:
        return values
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half, mask = np.uint32(1 << (dropped - 1)), np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return ((words + half) & mask).view(np.float32)


@dataclass(frozen=True)
class Job:
    """Everything that the showers of a simulation depend on, beside their index.

    Arguments:
        engine: What makes the showers.
        detector: Where.
        beam: From what.
        seed: The user's seed.
        threshold: Cells below it are set to zero, MeV.
        mantissa_bits: Bits of mantissa that cells keep, 1 to 23.

    Raises:
        InputError: When a number is out of its range.
    """

    engine: Engine
    detector: Detector
    beam: Beam
    seed: int
    threshold: float = THRESHOLD
    mantissa_bits: int = MANTISSA_BITS

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            msg = f"seed {self.seed} is out of range: expected 0 <= seed < 2**63"
            raise InputError(msg)
        if not 0.0 <= self.threshold < float("inf"):
            msg = f"threshold {self.threshold} MeV is out of range: expected 0 or more"
            raise InputError(msg)
        if not 1 <= self.mantissa_bits <= FULL_MANTISSA:
            msg = f"mantissa_bits {self.mantissa_bits} is out of range: expected 1 to {FULL_MANTISSA}"
            raise InputError(msg)

    def run(self, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` as the file holds them, with ``cpu_seconds`` as attribute."""
        before = time.process_time()
        showers = self.engine.run(self.detector, self.beam, self.seed, start, n)
        spent = time.process_time() - before
        cells = np.where(showers.cells < np.float32(self.threshold), np.float32(0), showers.cells)
        upright = self.beam.theta.low == self.beam.theta.high == 90.0
        return showers.replace(
            cells=round_mantissa(cells, self.mantissa_bits),
            incident_theta=None if upright else showers.incident_theta,
            attributes={"cpu_seconds": spent, **showers.attributes},
        )

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the file that are known before any shower is made."""
        return {
            **self.engine.attributes(),
            "beam_energy": str(self.beam.energy),
            "beam_theta": str(self.beam.theta),
            "cell_threshold_mev": self.threshold,
            "mantissa_bits": self.mantissa_bits,
        }

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this job from another, as JSON can hold it; without the number of showers."""
        geometry = repr((self.detector.stack, self.detector.medium, self.detector.readout))
        return {
            "engine": self.engine.name,
            **self.engine.attributes(),
            "detector": self.detector.name,
            "geometry": hashlib.blake2b(geometry.encode(), digest_size=8).hexdigest(),
            **{f"beam {name}": str(value) for name, value in vars(self.beam).items()},
            "seed": self.seed,
            "threshold": self.threshold,
            "mantissa_bits": self.mantissa_bits,
            "caloforge_version": __version__,
        }
