"""Identities of showers: 64 bits computed from the content, and which showers a model has seen.

Identities of showers: 64 bits computed from the content, by which a shower is recognised in any file.

The identity of a shower is the BLAKE2b hash (RFC 7693, 8 bytes) of the flat indices (int32) and energies (float32, MeV) of
its cells with energy, and of the incident energy rounded to float32 (MeV), all little endian. It does not depend on the
file, the position, the chunks or the storage of the shower. Showers without any energy are all alike: their identity is
0, and they never count as seen.

Identities do not survive what changes energies or cells: a projection, a threshold, a rounding.

Reference showers that a model has seen: counted by their identities and by their simulation seeds.

A model must not be judged by showers that trained or selected it. Showers that a model makes carry the identities of
what it has seen (``seen``), and, where those showers do not exist any more, the seeds of their simulation (attribute
``seen_seeds``). A reference file made by Geant4 with such a seed counts as seen as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import IncompatibleError, InputError, SeenShowersError
from caloforge.geometry import Detector
from caloforge.showers.hdf5 import MODEL_STATUS, SEEN_INCOMPLETE, SEEN_SEEDS
from caloforge.showers.source import ShowerSource

__all__ = [
    "NO_IDENTITIES",
    "HasSeen",
    "SeenCheck",
    "SeenCount",
    "identities",
    "identities_as",
    "mixed",
    "overlap",
    "seeds_of",
    "seen_union",
    "warnings_of",
]


NO_IDENTITIES: NDArray[np.uint64] = np.empty(0, np.uint64)
"""The set of nothing; not to be written to."""
NO_IDENTITIES.setflags(write=False)


def identities(source: ShowerSource, chunk: int | None = None) -> NDArray[np.uint64]:
    """Return the identity of every shower of a source (N,), 0 for those without energy.

    Arguments:
        source: Showers in memory or in a file; read once, chunk by chunk.
        chunk: Showers read at a time; by default about 16 MiB of cells.
    """
    parts = [_identities(part.cells, part.incident_energy) for part in source.chunks(chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def identities_as(source: ShowerSource, detector: Detector, chunk: int | None = None) -> NDArray[np.uint64]:
    """Return the identities (N,) that showers have in another detector, after projection to its image.

    Raises:
        IncompatibleError: When they cannot be projected to it.
    """
    from caloforge.geometry.projection import project

    if source.detector == detector:
        return identities(source, chunk)
    parts = [
        _identities(project(part.cells, source.detector, detector), part.incident_energy)
        for part in source.chunks(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def overlap(found: NDArray[np.uint64], seen: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which identities (N,) are in a set (M,); never those of showers without energy."""
    return np.asarray(np.isin(found, seen) & (found != 0))


def seen_union(sets: Iterable[ArrayLike]) -> NDArray[np.uint64]:
    """Return the union of sets of identities, sorted, without 0.

    Raises:
        InputError: When a set is not one of unsigned 64-bit integers.
    """
    distinct: dict[int, NDArray[np.uint64]] = {}
    for one in sets:
        array = np.asarray(one)
        if not array.size:
            continue
        if array.dtype != np.uint64 or array.ndim != 1:
            msg = f"identities have type {array.dtype} and shape {array.shape}; expected uint64 (N,)"
            raise InputError(msg)
        distinct[id(array)] = array
    if not distinct:
        return NO_IDENTITIES
    arrays = list(distinct.values())
    if len(arrays) == 1 and arrays[0][0] != 0 and bool((arrays[0][1:] > arrays[0][:-1]).all()):
        return arrays[0]
    union = np.unique(np.concatenate(arrays))
    return np.asarray(union[union != 0], np.uint64)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (G. Steele et al., OOPSLA 2014): a permutation of all 64-bit integers that mixes."""
    x = np.asarray(values, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def _identities(cells: NDArray[np.float32], energy: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the identities of showers in memory."""
    occupied = cells != 0
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(occupied, axis=1))])
    indices = np.nonzero(occupied)[1].astype("<i4")
    values = cells[occupied].astype("<f4", copy=False)
    incident = np.asarray(energy, "<f4")
    found = np.zeros(len(cells), np.uint64)
    for row in np.flatnonzero(np.diff(ends)):
        part = slice(ends[row], ends[row + 1])
        digest = hashlib.blake2b(indices[part].data, digest_size=8)
        digest.update(values[part].data)
        digest.update(incident[row].tobytes())
        found[row] = int.from_bytes(digest.digest(), "little") or 1
    return found


_SIMULATED = "geant4"


class HasSeen(Protocol):
    """Generated showers, or a model, with what it has seen."""

    @property
    def detector(self) -> Detector:
        """The detector of the showers."""
        ...

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,) of showers that trained or selected the model."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Further facts; ``seen_seeds`` among them."""
        ...


@dataclass(frozen=True)
class SeenCount:
    """How many of how many reference showers a model has seen."""

    n: int
    of: int

    def __str__(self) -> str:
        return f"{self.n} of {self.of}"

    def as_dict(self) -> dict[str, int]:
        """Return plain values, as ``metrics.json`` and ``study.json`` have them."""
        return {"n": self.n, "of": self.of}


class SeenCheck:
    """Compares a reference with what models have seen; it is read once for each detector of the models.

    Arguments:
        parts: The reference, one source or several with a simulation seed of their own each.
    """

    def __init__(self, parts: Sequence[ShowerSource]) -> None:
        self._parts = tuple(parts)
        self._known: dict[str, list[NDArray[np.uint64]]] = {}

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

        Arguments:
            generated: Labels and samples.
            allow_seen: Accept an overlap.

        Raises:
            SeenShowersError: When reference showers were used to train or select a model; says how many.
        """
        counts = {label: self.count(sample) for label, sample in generated}
        known = {label: count for label, count in counts.items() if count is not None}
        wrong = {label: count for label, count in known.items() if count.n}
        if wrong and not allow_seen:
            said = "; ".join(
                f"{count} reference showers were used to train or select '{label}'"
                for label, count in wrong.items()
            )
            msg = f"{said}; use --allow-seen to go on"
            raise SeenShowersError(msg)
        return known

    def _identities(self, detector: Detector) -> list[NDArray[np.uint64]]:
        """Return the identities of each part, in the detector of the model where the part can be projected to it."""
        if detector.name not in self._known:
            self._known[detector.name] = [_identities_in(part, detector) for part in self._parts]
        return self._known[detector.name]


def seeds_of(source: ShowerSource) -> tuple[int, ...]:
    """Return the seeds that showers were made with: ``seed``, and of packed files the attribute ``seeds``."""
    several = np.atleast_1d(source.attributes.get("seeds", ())).astype(int).tolist()
    return tuple(sorted({*several, *(() if source.seed is None else (int(source.seed),))}))


def warnings_of(label: str, facts: Mapping[str, Any]) -> list[str]:
    """Return a line for everything that a user of generated showers must know of their model.

    Arguments:
        label: Name of the showers.
        facts: Attributes of the showers.
    """
    lines = []
    if facts.get(MODEL_STATUS):
        lines.append(f"{label}: the model is {facts[MODEL_STATUS]}")
    if facts.get(SEEN_INCOMPLETE):
        lines.append(f"{label}: not all showers that trained the model are known: {facts[SEEN_INCOMPLETE]}")
    return lines


def _identities_in(part: ShowerSource, detector: Detector) -> NDArray[np.uint64]:
    try:
        return identities_as(part, detector)
    except IncompatibleError:
        return identities(part)
