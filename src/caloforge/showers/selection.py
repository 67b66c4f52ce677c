"""Selection of showers by indices, slices and masks, and sizes of chunks, with checks."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError

__all__ = ["Index", "as_indices", "as_selection", "chunk_size"]

Index: TypeAlias = int | np.integer[Any] | slice | list[int] | NDArray[Any]
"""One shower, a range of showers, a mask (N,), or indices."""


def as_selection(index: Index, n: int) -> slice | NDArray[Any]:
    """Turn any index of ``n`` showers into a slice or an array, both of which keep the axis of showers.

    Raises:
        InputError: When a mask has another length, or the index is of no known kind.
        IndexError: When an index is out of range.
    """
    if isinstance(index, slice):
        return index
    array = np.asarray(index)
    if array.dtype == bool:
        if array.shape != (n,):
            raise InputError(f"mask has shape {array.shape}; expected ({n},), one entry a shower")
        return array
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim > 1 or array.dtype.kind not in "iu":
        msg = f"index has shape {array.shape} and type {array.dtype}; expected integers, a mask or a slice"
        raise InputError(msg)
    array = np.atleast_1d(array).astype(np.int64)
    if array.min() < -n or array.max() >= n:
        wrong = array[(array < -n) | (array >= n)][0]
        raise IndexError(f"index {wrong} is out of range; there are {n} showers")
    return array


def as_indices(index: ArrayLike, n: int) -> NDArray[np.int64]:
    """Turn indices or a mask of ``n`` showers into indices from 0 on; see :func:`as_selection`."""
    chosen = np.asarray(as_selection(np.asarray(index), n))
    return np.flatnonzero(chosen) if chosen.dtype == bool else np.where(chosen < 0, chosen + n, chosen)


def chunk_size(size: int | None, default: int) -> int:
    """Return the number of showers of a chunk, checked; None: ``default``."""
    if size is not None and size < 1:
        raise InputError(f"chunk size is {size}; expected at least 1")
    return default if size is None else int(size)
