"""Identities of showers: 64 bits computed from the content, by which a shower is recognised in any file.

The identity of a shower is the BLAKE2b hash (RFC 7693, 8 bytes) of the flat indices (int32) and energies (float32, MeV) of
its cells with energy, and of the incident energy rounded to float32 (MeV), all little endian. It does not depend on the
file, the position, the chunks or the storage of the shower. Showers without any energy are all alike: their identity is
0, and they never count as seen. Identities do not survive what changes energies or cells: a projection, a threshold, a rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError

__all__ = ["NO_IDENTITIES", "hash_showers", "mixed", "overlap", "seen_union"]

NO_IDENTITIES: NDArray[np.uint64] = np.empty(0, np.uint64)
"""The empty set; not to be written to."""
NO_IDENTITIES.setflags(write=False)


def hash_showers(cells: NDArray[np.float32], incident_energy: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the identities (N,) of showers with cells (N, n_cells) and energies (N,), MeV; 0 for those without energy."""
    occupied = cells != 0
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(occupied, axis=1))])
    indices = np.nonzero(occupied)[1].astype("<i4")
    values = cells[occupied].astype("<f4", copy=False)
    incident = np.asarray(incident_energy, "<f4")
    found = np.zeros(len(cells), np.uint64)
    for row in np.flatnonzero(np.diff(ends)):
        part = slice(ends[row], ends[row + 1])
        digest = hashlib.blake2b(indices[part].data, digest_size=8)
        digest.update(values[part].data)
        digest.update(incident[row].tobytes())
        found[row] = int.from_bytes(digest.digest(), "little") or 1
    return found


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
