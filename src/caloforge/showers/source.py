"""What every source of showers offers, in memory, in a file, selected or joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError
from caloforge.geometry import Detector

if TYPE_CHECKING:
    from caloforge.showers.container import Showers

__all__ = ["Index", "ShowerSource", "as_selection", "chunk_size"]

Index: TypeAlias = int | np.integer[Any] | slice | list[int] | NDArray[Any]
"""One shower, a range of showers, a mask (N,), or indices."""


@runtime_checkable
class ShowerSource(Protocol):
    """Anything that showers can be read from, all at once or piece by piece.

    Code that only reads takes a ShowerSource; both :class:`~caloforge.showers.Showers` and
    :class:`~caloforge.showers.ShowerFile` are one. ``isinstance`` may evaluate every property, ``n_empty`` among
    them, which reads the whole file: it is for tests, not for code that runs on data.
    """

    @property
    def detector(self) -> Detector:
        """Detector whose cells the showers fill."""
        ...

    @property
    def particle(self) -> str:
        """Incident particle, "gamma" or "e-"; empty when not known."""
        ...

    @property
    def source(self) -> str:
        """What made the showers: geant4, gflash or a model's name; empty when not known."""
        ...

    @property
    def seed(self) -> int | None:
        """Seed that they were made with, when there is one."""
        ...

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts about how they were made."""
        ...

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these; empty for none."""
        ...

    @property
    def has_theta(self) -> bool:
        """Whether angles are given; otherwise all are 90 degrees."""
        ...

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        ...

    @property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        ...

    @property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees."""
        ...

    @property
    def n_empty(self) -> int:
        """Number of showers without any energy."""
        ...

    def __len__(self) -> int:
        """Return the number of showers."""
        ...

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory."""
        ...

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k); also "incident_energy" and "incident_theta"."""
        ...

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time."""
        ...

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory."""
        ...


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
