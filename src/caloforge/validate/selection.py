"""Some showers of a source, read when they are needed, and the conditions of any source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.geometry import Detector
from caloforge.showers import Showers, ShowerSource

__all__ = ["Selection", "conditions_of"]

_CHUNK_BYTES = 1 << 26


def conditions_of(source: ShowerSource) -> dict[str, NDArray[np.float64]]:
    """Return every condition of a source as (N, k): energy (MeV), angle (degrees), then the named ones."""
    columns = {
        "incident_energy": np.asarray(source.incident_energy, np.float64),
        "incident_theta": np.asarray(source.incident_theta, np.float64),
    } | {name: np.asarray(source.condition(name), np.float64) for name in source.condition_names}
    return {name: values.reshape(len(values), -1) for name, values in columns.items()}


@dataclass(frozen=True)
class Selection:
    """A part of a source, itself a source.

    Arguments:
        base: Where the showers are.
        indices: (K,) which of them, ascending.
    """

    base: ShowerSource
    indices: NDArray[np.int64]

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.base.detector

    @property
    def particle(self) -> str:
        """Particle that started the showers."""
        return self.base.particle

    @property
    def source(self) -> str:
        """What made them."""
        return self.base.source

    @property
    def seed(self) -> int | None:
        """Seed they were made with."""
        return self.base.seed

    @property
    def attributes(self) -> dict[str, Any]:
        """Everything else that is known of their making."""
        return dict(self.base.attributes)

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made the base."""
        return self.base.seen

    @property
    def has_theta(self) -> bool:
        """Whether angles are given."""
        return self.base.has_theta

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return self.base.condition_names

    @property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (K,), MeV."""
        return self.base.incident_energy[self.indices]

    @property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (K,), degrees."""
        return self.base.incident_theta[self.indices]

    @property
    def n_empty(self) -> int:
        """Number of chosen showers without any energy."""
        return sum(chunk.n_empty for chunk in self.chunks())

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (K, k)."""
        values: NDArray[Any] = self.base.condition(name)[self.indices]
        return values

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Showers:
        return self.base.take(np.atleast_1d(self.indices[index]))

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers at these places of the selection, in their order."""
        return self.base.take(self.indices[np.asarray(indices)])

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over the selection in order, ``size`` at a time."""
        step = size or max(1, _CHUNK_BYTES // (4 * self.detector.n_cells))
        for start in range(0, len(self), step):
            yield self.base.take(self.indices[start : start + step])
