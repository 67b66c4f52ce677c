"""Sources of showers derived from others without copies of the cells: selected, joined, projected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import IncompatibleError, InputError
from caloforge.geometry import Detector, get_detector, project
from caloforge.showers.container import Showers, ShowerSource, common_attributes
from caloforge.showers.hdf5 import MODEL_STATUS, SEEN_INCOMPLETE, rows_per_stream
from caloforge.showers.identity import seen_union
from caloforge.showers.reading import open_showers
from caloforge.showers.selection import Index, as_selection, chunk_size

__all__ = [
    "AnyShowers", "JoinedShowers", "ProjectedShowers", "Selection", "SourceView", "conditions_of", "open_any", "project_showers",
]  # fmt: skip

AnyShowers: TypeAlias = str | Path | ShowerSource | Sequence[str | Path | ShowerSource]
"""A file of showers, showers in memory or in an open file, or several of these that are one sample."""


def conditions_of(source: ShowerSource) -> dict[str, NDArray[np.float64]]:
    """Return every condition of a source as (N, k): energy (MeV), angle (degrees), then the named ones."""
    names = ("incident_energy", "incident_theta", *source.condition_names)
    return {name: np.asarray(source.condition(name), np.float64).reshape(len(source), -1) for name in names}


class SourceView(ShowerSource):
    """A source of showers that reads from another one: the base of everything that wraps a source.

    All properties are those of the other source, and so are the showers, unless a subclass changes them. A subclass
    that changes the showers one by one overrides :meth:`convert`; one with other showers overrides the number,
    :meth:`take` and :meth:`chunks`.
    """

    def __init__(self, base: ShowerSource) -> None:
        self.base = base

    def convert(self, showers: Showers) -> Showers:
        """Return some of the base's showers as this source has them, one for one; by default unchanged."""
        return showers

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory."""
        return self.convert(self.base[index])

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory."""
        return self.convert(self.base.take(indices))

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time."""
        return map(self.convert, self.base.chunks(size))

    @property
    def detector(self) -> Detector:
        """Detector whose cells the showers fill."""
        return self.base.detector

    @property
    def particle(self) -> str:
        """Incident particle."""
        return self.base.particle

    @property
    def source(self) -> str:
        """What made the showers."""
        return self.base.source

    @property
    def seed(self) -> int | None:
        """Seed that they were made with."""
        return self.base.seed

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts about how they were made."""
        return dict(self.base.attributes)

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these."""
        return self.base.seen

    @property
    def has_theta(self) -> bool:
        """Whether the source has angles."""
        return self.base.has_theta

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return self.base.condition_names

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k); also "incident_energy" and "incident_theta"."""
        return self.base.condition(name)


class Selection(SourceView):
    """A part of a source: the showers ``indices`` (K,); ascending ones read a file once."""

    def __init__(self, base: ShowerSource, indices: NDArray[np.int64]) -> None:
        super().__init__(base)
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory."""
        return self.base.take(self.indices[as_selection(index, len(self))])

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers at these places of the selection, in their order."""
        return self.base.take(self.indices[np.asarray(indices)])

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over the selection in order, ``size`` at a time."""
        step = chunk_size(size, rows_per_stream(4 * self.detector.n_cells, 1))
        return (self.base.take(self.indices[start : start + step]) for start in range(0, len(self), step))

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (K, k); also "incident_energy" and "incident_theta"."""
        return np.asarray(self.base.condition(name)[self.indices])


class JoinedShowers(SourceView):
    """Several sources read as one, one after the other.

    Attributes are those on which all agree, with what is wrong with the model of any; particle and source are "mixed" where they disagree.

    Arguments:
        parts: Sources with the same detector and the same conditions, at least one.

    Raises:
        IncompatibleError: When detectors or names of conditions differ.
    """

    def __init__(self, parts: Sequence[ShowerSource]) -> None:
        super().__init__(parts[0])
        self.parts = tuple(parts)
        for part in self.parts[1:]:
            if part.detector != self.detector:
                msg = f"showers of '{part.detector.name}' cannot be joined to those of '{self.detector.name}'"
                raise IncompatibleError(msg)
            if set(part.condition_names) != set(self.condition_names):
                raise IncompatibleError(
                    f"showers with the conditions {list(part.condition_names)} cannot be joined to those with "
                    f"{list(self.condition_names)}"
                )
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory."""
        return self.take(np.arange(len(self))[as_selection(index, len(self))])

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
            return self.base.take(wanted)
        joined = Showers.concatenate(taken)
        return joined[np.argsort(np.concatenate(places), kind="stable")]

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, at most ``size`` at a time; no chunk spans two parts."""
        for part in self.parts:
            yield from part.chunks(size)

    @property
    def source(self) -> str:
        """What made the showers, "mixed" where the parts disagree."""
        return self.base.source if len({part.source for part in self.parts}) == 1 else "mixed"

    @property
    def particle(self) -> str:
        """Incident particle, "mixed" where the parts disagree."""
        return self.base.particle if len({part.particle for part in self.parts}) == 1 else "mixed"

    @property
    def attributes(self) -> dict[str, Any]:
        """Facts on which all parts agree, and those of any part that tell of seen showers or of a fault of the model."""
        kept = common_attributes(self.parts)
        for name in (MODEL_STATUS, SEEN_INCOMPLETE):
            found = [part.attributes[name] for part in self.parts if part.attributes.get(name)]
            kept |= {name: found[0]} if found else {}
        return kept

    @property
    def seed(self) -> int | None:
        """The seed of a single part; several have none in common."""
        return self.base.seed if len(self.parts) == 1 else None

    @cached_property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of what the models of any part have seen."""
        return seen_union(part.seen for part in self.parts)

    @property
    def has_theta(self) -> bool:
        """Whether some part has angles; the others' are 90 degrees."""
        return any(part.has_theta for part in self.parts)

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k); also "incident_energy" and "incident_theta"."""
        found = [part.condition(name) for part in self.parts]
        if len({values.shape[1:] for values in found}) > 1:
            sizes = ", ".join(str(values.shape[1]) for values in found)
            raise IncompatibleError(f"condition '{name}' has {sizes} values a shower in the joined samples")
        return np.concatenate(found)


@contextmanager
def open_any(item: AnyShowers, detector: str | Path | Detector | None = None) -> Iterator[ShowerSource]:
    """Yield showers of any kind as a source; the files that are opened for it are closed afterwards.

    Arguments:
        item: See :data:`AnyShowers`; several are read as one sample, one after the other.
        detector: Detector of files that do not name their own.

    Raises:
        InputError: When a list has nothing in it.
        IncompatibleError: When several do not go together.
    """
    with ExitStack() as stack:

        def opened(one: str | Path | ShowerSource) -> ShowerSource:
            return stack.enter_context(open_showers(one, detector)) if isinstance(one, str | Path) else one

        if not isinstance(item, list | tuple):
            yield opened(cast("str | Path | ShowerSource", item))
            return
        if not item:
            raise InputError("a sample of no files was given; expected at least one")
        parts = [opened(one) for one in item]
        yield parts[0] if len(parts) == 1 else JoinedShowers(parts)


class ProjectedShowers(SourceView):
    """Showers summed over their layers and pooled to the cells of an image, such as ``ild-ecal`` to ``ild-ecal-10x10``.

    To write a projected file in bounded memory::

        with open_showers("showers.h5") as source:
            write_showers("images.h5", ProjectedShowers(source, "ild-ecal-10x10"))

    Arguments:
        base: Showers of a grid detector.
        image: A one-layer grid whose numbers of cells divide those of the base.

    Raises:
        IncompatibleError: On reading, when the grids do not fit.
    """

    def __init__(self, base: ShowerSource, image: str | Detector) -> None:
        super().__init__(base)
        self._image = get_detector(image)

    @property
    def detector(self) -> Detector:
        """The detector of the images."""
        return self._image

    @property
    def attributes(self) -> dict[str, Any]:
        """Facts about how the showers were made, without the base's ``shape``."""
        return {key: value for key, value in self.base.attributes.items() if key != "shape"}

    def convert(self, showers: Showers) -> Showers:
        """Project showers of the base."""
        cells = project(showers.cells, showers.detector, self._image)
        attributes = {key: value for key, value in showers.attributes.items() if key != "shape"}
        return showers.replace(detector=self._image, cells=cells, attributes=attributes)


def project_showers(source: ShowerSource, image: str | Detector) -> Showers:
    """Return :class:`ProjectedShowers` in memory."""
    projected = ProjectedShowers(source, image)
    return Showers.concatenate(projected.chunks()) if len(source) else projected[:]
