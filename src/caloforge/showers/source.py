"""What showers in memory and showers in a file have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.geometry import Detector

if TYPE_CHECKING:
    from caloforge.showers.container import Showers

__all__ = ["Index", "ShowerSource"]

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
