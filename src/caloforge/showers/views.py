"""Parts of a source of showers and several sources read as one, without copies of the cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector
from caloforge.showers.container import Showers
from caloforge.showers.identity import seen_union
from caloforge.showers.source import Index, ShowerSource

__all__ = ["JoinedShowers", "Selection", "conditions_of"]


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


class JoinedShowers:
    """Showers of several files, a :class:`~caloforge.showers.ShowerSource` itself.

    Arguments:
        parts: Sources with the same detector and the same conditions, at least one.

    Raises:
        IncompatibleError: When detectors or names of conditions differ.
    """

    def __init__(self, parts: Sequence[ShowerSource]) -> None:
        self.parts = tuple(parts)
        first = self.parts[0]
        for part in self.parts[1:]:
            if part.detector != first.detector:
                msg = (
                    f"showers of '{part.detector.name}' cannot be joined to those of '{first.detector.name}'"
                )
                raise IncompatibleError(msg)
            if set(part.condition_names) != set(first.condition_names):
                msg = (
                    f"showers with the conditions {list(part.condition_names)} cannot be joined to those with "
                    f"{list(first.condition_names)}"
                )
                raise IncompatibleError(msg)
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])

    @property
    def detector(self) -> Detector:
        """The detector of all parts."""
        return self.parts[0].detector

    @property
    def particle(self) -> str:
        """The first part's particle."""
        return self.parts[0].particle

    @property
    def source(self) -> str:
        """What made the showers, "mixed" where the parts disagree."""
        made = {part.source for part in self.parts}
        return made.pop() if len(made) == 1 else "mixed"

    @property
    def seed(self) -> int | None:
        """None: each part has its own."""
        return self.parts[0].seed if len(self.parts) == 1 else None

    @property
    def attributes(self) -> dict[str, Any]:
        """The first part's facts."""
        return dict(self.parts[0].attributes)

    @cached_property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of what the models of any part have seen."""
        return seen_union(part.seen for part in self.parts)

    @property
    def has_theta(self) -> bool:
        """Whether some part has angles; the others' are 90 degrees."""
        return any(part.has_theta for part in self.parts)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return self.parts[0].condition_names

    @cached_property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        return np.concatenate([part.incident_energy for part in self.parts])

    @cached_property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees."""
        return np.concatenate([part.incident_theta for part in self.parts])

    @cached_property
    def n_empty(self) -> int:
        """Number of showers without any energy."""
        return sum(part.n_empty for part in self.parts)

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k); also "incident_energy" and "incident_theta"."""
        return np.concatenate([part.condition(name) for part in self.parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory."""
        return self.take(np.atleast_1d(np.arange(len(self))[index]))

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, at most ``size`` at a time; no chunk spans two parts."""
        for part in self.parts:
            yield from part.chunks(size)

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory."""
        wanted = np.asarray(indices, dtype=np.int64)
        owner = np.searchsorted(self._starts, wanted, "right") - 1
        taken, places = [], []
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(owner == number)
            if len(mine):
                taken.append(part.take(wanted[mine] - self._starts[number]))
                places.append(mine)
        if not taken:
            return self.parts[0].take(wanted)
        joined = Showers.concatenate(taken)
        return joined[np.argsort(np.concatenate(places), kind="stable")]
