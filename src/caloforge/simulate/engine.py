"""What a simulation engine is.

An engine makes showers in chunks. The showers ``start`` to ``start + n`` of a seed are a pure function of
(detector, beam, seed, start, n), and shower i is the same whatever chunk it comes in; so chunks can be made by
any number of processes, in any order, again after a failure, on one machine or on many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from caloforge.errors import CaloforgeError
from caloforge.geometry import Beam, Detector
from caloforge.showers import Showers

__all__ = ["Engine", "IsolatedEngine"]


class Engine(Protocol):
    """Makes showers of any simulable detector; an instance can be pickled."""

    @property
    def name(self) -> str:
        """Its name in the registry and in files."""

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return how many showers to make at once: seconds of work, tens of megabytes."""

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` of the seed.

        Their attributes may give ``cpu_seconds``, the processor time of the showers alone; otherwise that of
        the whole call counts.
        """

    def attributes(self) -> Mapping[str, Any]:
        """Return what a file should say about how its showers were made."""


@runtime_checkable
class IsolatedEngine(Engine, Protocol):
    """An engine that needs a process of its own: it has global state, prints, or may end the process."""

    def diagnose(self, log: str) -> CaloforgeError | None:
        """Return the error that ended the process, read from what it printed; None when it tells nothing."""
