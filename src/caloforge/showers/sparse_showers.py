"""Showers in memory as hits: the cells with energy, the conditions and the attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from caloforge.geometry import Detector, get_detector
from caloforge.showers.container import Showers
from caloforge.showers.identity import NO_IDENTITIES
from caloforge.showers.sparse import Hits

__all__ = ["SparseShowers"]


class SparseShowers:
    """Showers as hits, for example from a GPU, for a :class:`~caloforge.showers.ShowerWriter` of either layout.

    Arguments:
        hits: The cells with energy.
        others: The arguments of :class:`Showers` but ``cells``; all of them are attributes here too.

    Raises:
        InputError: When shapes or lengths do not fit.

    Examples:
        >>> hits = Hits(cell=[5, 7, 5], energy=[1.0, 2.0, 4.0], offsets=[0, 2, 3])
        >>> showers = SparseShowers("ild-ecal", hits, incident_energy=[50e3, 50e3])
        >>> showers.to_dense().visible_energy.tolist()
        [3.0, 4.0]
    """

    def __init__(
        self, detector: Detector | str, hits: Hits, incident_energy: ArrayLike, **others: Any
    ) -> None:
        place = get_detector(detector)
        none = np.broadcast_to(np.float32(0), (len(hits), place.n_cells))  # takes no memory
        self.hits = hits
        self._empty = empty = Showers(place, none, incident_energy, **others)
        self.detector, self.particle, self.source, self.seed = place, empty.particle, empty.source, empty.seed
        self.incident_energy, self.conditions = empty.incident_energy, empty.conditions
        self.has_theta, self.incident_theta = empty.has_theta, empty.incident_theta
        self.attributes, self.seen = empty.attributes, empty.seen

    def __len__(self) -> int:
        return len(self.hits)

    def __reduce__(self) -> tuple[Any, ...]:
        others = {name: value for name, value in self._empty.fields().items() if name != "cells"}
        return _sparse, (self.hits, others)

    @classmethod
    def from_dense(cls, showers: Showers) -> SparseShowers:
        """Return the hits of showers, and all else of them."""
        return cls.with_hits(Hits.from_cells(showers.cells), showers)

    @classmethod
    def with_hits(cls, hits: Hits, showers: Showers) -> SparseShowers:
        """Return hits with all else of other showers, of which there are as many."""
        others = {name: value for name, value in showers.fields().items() if name != "cells"}
        return cls(hits=hits, **others)

    def forget_seen(self) -> None:
        """Drop the identities of the showers that trained the model; they are the same for all showers of a model."""
        self.seen = self._empty.seen = NO_IDENTITIES

    def to_dense(self) -> Showers:
        """Return them with all their cells."""
        return self._empty.replace(cells=self.hits.to_cells(self.detector.n_cells))


def _sparse(hits: Hits, others: dict[str, Any]) -> SparseShowers:
    return SparseShowers(hits=hits, **others)
