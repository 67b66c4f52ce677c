"""Which showers an index means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.showers.source import Index

__all__ = ["as_selection", "chunk_size"]


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
            msg = f"mask has shape {array.shape}; expected ({n},), one entry a shower"
            raise InputError(msg)
        return array
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim > 1 or array.dtype.kind not in "iu":
        msg = f"index has shape {array.shape} and type {array.dtype}; expected integers, a mask or a slice"
        raise InputError(msg)
    array = np.atleast_1d(array).astype(np.int64)
    if array.min() < -n or array.max() >= n:
        wrong = array[(array < -n) | (array >= n)][0]
        msg = f"index {wrong} is out of range; there are {n} showers"
        raise IndexError(msg)
    return array


def chunk_size(size: int | None, default: int) -> int:
    """Return the number of showers a chunk holds, ``default`` when none is asked for."""
    if size is not None and size < 1:
        msg = f"chunk size is {size}; expected at least 1"
        raise InputError(msg)
    return default if size is None else int(size)
