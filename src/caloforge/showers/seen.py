"""Reference showers that a model has seen, found by their identities and by their simulation seeds.

A model must not be judged by showers that trained or selected it. Generated showers therefore have the identities of what
their model has seen (``seen``), and, where those showers do not exist any more, the seeds of their simulation (attribute
``seen_seeds``). A reference file made by Geant4 with such a seed counts as seen as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, SeenShowersError
from caloforge.geometry import Detector
from caloforge.showers.container import ShowerSource
from caloforge.showers.hdf5 import MODEL_STATUS, SEEN_INCOMPLETE, SEEN_SEEDS
from caloforge.showers.identity import hash_showers, overlap
from caloforge.showers.views import ProjectedShowers

__all__ = ["HasSeen", "SeenCheck", "SeenCount", "identities", "seeds_of", "warnings_of"]

_SIMULATED = "geant4"


def identities(
    source: ShowerSource, detector: Detector | None = None, chunk: int | None = None
) -> NDArray[np.uint64]:
    """Return the identity of every shower of a source (N,), 0 for those without energy.

    Arguments:
        source: Showers in memory or in a file; read once, chunk by chunk.
        detector: Detector to which they are projected before.
        chunk: Showers read at a time; by default about 16 MiB of cells.

    Raises:
        IncompatibleError: When they cannot be projected to the detector.
    """
    if detector not in (None, source.detector):
        source = ProjectedShowers(source, detector)
    parts = [hash_showers(part.cells, part.incident_energy) for part in source.chunks(chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


class HasSeen(Protocol):
    """Generated showers, or a model, with what it has seen."""

    @property
    def detector(self) -> Detector:
        """The detector of the showers."""

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,) of showers that trained or selected the model."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Further facts; ``seen_seeds`` among them."""


@dataclass(frozen=True)
class SeenCount:
    """How many (``n``) of how many reference showers a model has seen."""

    n: int
    of: int

    def __str__(self) -> str:
        return f"{self.n} of {self.of}"

    def as_dict(self) -> dict[str, int]:
        """Return plain values, as ``metrics.json`` and ``study.json`` have them."""
        return asdict(self)


class SeenCheck:
    """Compares a reference of one or several sources with what models have seen; it is read once for each detector.

    ``known`` are the identities (N,) of each part's showers where they were computed before: the parts are not read then.
    """

    def __init__(self, parts: Sequence[ShowerSource], known: Sequence[NDArray[np.uint64]] = ()) -> None:
        self._parts = tuple(parts)
        self._known = {parts[0].detector.name: list(known)} if known else {}

    def count(self, generated: HasSeen) -> SeenCount | None:
        """Return how many reference showers were seen; None when nothing is known of what the model has seen."""
        seeds = {int(seed) for seed in generated.attributes.get(SEEN_SEEDS, ())}
        if not len(generated.seen) and not seeds:
            return None
        number = 0
        for part, found in zip(self._parts, self._identities(generated.detector), strict=True):
            if part.source == _SIMULATED and seeds & set(seeds_of(part)):
                number += len(part)
            else:
                number += int(overlap(found, generated.seen).sum())
        return SeenCount(number, sum(len(part) for part in self._parts))

    def require_unseen(
        self, generated: Iterable[tuple[str, HasSeen]], allow_seen: bool = False
    ) -> dict[str, SeenCount]:
        """Check several samples or models and return the counts of those whose seen showers are known.

        Raises:
            SeenShowersError: When reference showers were used to train or select a model; says how many.
        """
        counts = {label: self.count(sample) for label, sample in generated}
        known = {label: count for label, count in counts.items() if count is not None}
        wrong = [
            f"{count} reference showers were used to train or select '{label}'"
            for label, count in known.items()
            if count.n
        ]
        if wrong and not allow_seen:
            raise SeenShowersError(f"{'; '.join(wrong)}; use --allow-seen to continue")
        return known

    def _identities(self, detector: Detector) -> list[NDArray[np.uint64]]:
        """Return the identities of each part, in the model's detector where the part can be projected to it."""
        found = self._known.setdefault(detector.name, [])
        for part in self._parts[len(found) :]:
            try:
                found.append(identities(part, detector))
            except IncompatibleError:
                found.append(identities(part))
        return found


def seeds_of(source: ShowerSource) -> tuple[int, ...]:
    """Return the seeds that showers were made with: ``seed``, and of packed files the attribute ``seeds``."""
    several = np.atleast_1d(source.attributes.get("seeds", ())).astype(int).tolist()
    return tuple(sorted({*several, *(() if source.seed is None else (int(source.seed),))}))


def warnings_of(
    label: str, attributes: Mapping[str, Any], seen: Mapping[str, int] | None = None
) -> list[str]:
    """Return a line for all that is wrong with the model of generated showers: unfinished, its training unknown or seen again.

    ``seen`` says how many (``n``) of how many (``of``) reference showers the model has seen, where known.
    """
    lines = []
    if attributes.get(MODEL_STATUS):
        lines.append(f"{label}: the model is {attributes[MODEL_STATUS]}")
    if attributes.get(SEEN_INCOMPLETE):
        lines.append(
            f"{label}: not all showers that trained the model are known: {attributes[SEEN_INCOMPLETE]}"
        )
    if seen and seen["n"]:
        count = f"{seen['n']} of {seen['of']}"
        lines.append(f"{label}: {count} reference showers were used to train or select the model")
    return lines
