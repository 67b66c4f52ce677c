"""Showers in memory, and the protocol of all sources of showers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import IncompatibleError, InputError, UnknownNameError, require
from caloforge.geometry import Detector, get_detector
from caloforge.geometry.draw import draw_cells
from caloforge.showers.description import html_table, known, lines
from caloforge.showers.hdf5 import PERPENDICULAR, SEEN_SEEDS, condition_values, rows_per_stream
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.selection import Index, as_indices, as_selection, chunk_size
from caloforge.showers.sparse import Hits
from caloforge.showers.writing import write_showers
from caloforge.units import plain_number

__all__ = [
    "RESERVED_CONDITIONS", "Index", "ShowerSource", "Showers", "as_indices", "as_selection", "chunk_size",
]  # fmt: skip

RESERVED_CONDITIONS = ("incident_energy", "incident_theta")  # names of arguments, not of further conditions


@runtime_checkable
class ShowerSource(Protocol):
    """A source of showers, which can be read as a whole or in chunks.

    Code that only reads takes a ShowerSource: :class:`~caloforge.showers.Showers`, a :class:`~caloforge.showers.ShowerFile`, or one
    of :mod:`caloforge.showers.views`.
    """

    @property
    def detector(self) -> Detector:
        """Detector whose cells the showers fill."""

    @property
    def particle(self) -> str:
        """Incident particle, "gamma" or "e-"; empty when not known."""

    @property
    def source(self) -> str:
        """What made the showers: geant4, gflash or a model's name; empty when not known."""

    @property
    def seed(self) -> int | None:
        """Seed that they were made with, when there is one."""

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts about how they were made."""

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these; empty for none."""

    @property
    def has_theta(self) -> bool:
        """Whether there are angles; otherwise all are 90 degrees."""

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""

    @property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        return np.asarray(self.condition("incident_energy")[:, 0])

    @property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees."""
        return np.asarray(self.condition("incident_theta")[:, 0])

    def __len__(self) -> int:
        """Return the number of showers."""

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory."""

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k): "incident_energy" MeV, "incident_theta" degrees, or a named one."""

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time."""

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory."""


class Showers:
    """Showers of one detector, in memory.

    Slices are views: they share the arrays' memory. Shapes are checked here, values by every write and every read.

    Arguments:
        detector: The detector, or its name.
        cells: Visible energies (N, n_cells), MeV, in the detector's flat order.
        incident_energy: Energies (N,) or (N, 1) of the incident particles, MeV.
        incident_theta: Angles (N,) or (N, 1), degrees; None: all 90, and not stored.
        conditions: Further conditions, each (N, k) or (N,): integers stay int64, other numbers become float32.
        particle: Incident particle, "gamma" or "e-".
        source: What made them: geant4, gflash or a model's name.
        seed: Seed that they were made with.
        attributes: Further facts, stored in files.
        seen: Identities (M,) uint64 of the showers that trained or selected the model that made these; stored in files.

    Raises:
        InputError: When shapes or lengths do not fit, or a condition of whole numbers would lose digits.

    Examples:
        >>> import numpy as np
        >>> showers = Showers("ild-ecal", np.ones((4, 27000)), np.full(4, 50e3), particle="gamma")
        >>> showers
        Showers(4 x ild-ecal, gamma)
        >>> showers.grid().shape, showers[1:3].visible_energy.tolist()
        ((4, 30, 30, 30), [27000.0, 27000.0])
    """

    def __init__(
        self,
        detector: Detector | str,
        cells: ArrayLike,
        incident_energy: ArrayLike,
        incident_theta: ArrayLike | None = None,
        conditions: Mapping[str, ArrayLike] | None = None,
        particle: str = "",
        source: str = "",
        seed: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        seen: ArrayLike | None = None,
    ) -> None:
        self.detector = get_detector(detector)
        self.cells: NDArray[np.float32] = np.asarray(cells, dtype=np.float32)
        if self.cells.ndim != 2 or self.cells.shape[1] != self.detector.n_cells:
            raise InputError(
                f"cells have shape {self.cells.shape}; expected (N, {self.detector.n_cells}) "
                f"for detector '{self.detector.name}'"
            )
        n = len(self.cells)
        self.incident_energy: NDArray[np.float64] = _column("incident_energy", incident_energy, n)
        self.has_theta = incident_theta is not None
        theta = PERPENDICULAR * np.ones(n) if incident_theta is None else incident_theta
        self.incident_theta: NDArray[np.float64] = _column("incident_theta", theta, n)
        if given := [name for name in RESERVED_CONDITIONS if name in (conditions or ())]:
            raise InputError(f"condition '{given[0]}' has the name of an argument; expected another name")
        self.conditions = {name: _table(name, values, n) for name, values in (conditions or {}).items()}
        self.particle = particle
        self.source = source
        self.seed = seed
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.seen: NDArray[np.uint64] = NO_IDENTITIES if seen is None else seen_union([seen])

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        made = " ".join(word for word in (self.source, self.particle) if word)
        return f"Showers({len(self)} x {self.detector.name}{', ' if made else ''}{made})"

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers: an int (one shower), a slice, a mask (N,) or indices."""
        chosen = as_selection(index, len(self))
        return self.replace(
            cells=self.cells[chosen],
            incident_energy=self.incident_energy[chosen],
            incident_theta=self.incident_theta[chosen] if self.has_theta else None,
            conditions={name: values[chosen] for name, values in self.conditions.items()},
        )

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order."""
        return self[np.asarray(indices)]

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time (by default about 16 MiB of cells)."""
        step = chunk_size(size, rows_per_stream(4 * self.detector.n_cells, 1))
        return (self[start : start + step] for start in range(0, len(self), step))

    def replace(self, **changes: Any) -> Showers:
        """Return showers with some of the constructor's arguments changed, the arrays shared."""
        return Showers(**(self.fields() | changes))

    def fields(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, the arrays shared."""
        return {
            "detector": self.detector,
            "cells": self.cells,
            "incident_energy": self.incident_energy,
            "incident_theta": self.incident_theta if self.has_theta else None,
            "conditions": self.conditions,
            "particle": self.particle,
            "source": self.source,
            "seed": self.seed,
            "attributes": self.attributes,
            "seen": self.seen,
        }

    def grid(self) -> NDArray[np.float32]:
        """Return the cells as (N, *detector.shape), without a copy."""
        return self.detector.grid(self.cells)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return tuple(self.conditions)

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k): "incident_energy" MeV, "incident_theta" degrees, or a named one.

        Raises:
            UnknownNameError: When the showers have no condition of that name.
        """
        known: dict[str, NDArray[Any]] = {
            "incident_energy": self.incident_energy[:, None],
            "incident_theta": self.incident_theta[:, None],
            **self.conditions,
        }
        if name not in known:
            raise UnknownNameError("condition", name, list(known))
        return known[name]

    @property
    def visible_energy(self) -> NDArray[np.float64]:
        """Sum of the cells of each shower (N,), MeV."""
        total: NDArray[np.float64] = self.cells.sum(axis=1, dtype=np.float64)
        return total

    @property
    def layer_energies(self) -> NDArray[np.float64]:
        """Sum of the cells of each shower in each layer (N, n_layers), MeV."""
        sums = [self.cells[:, cells].sum(axis=1, dtype=np.float64) for cells in self.detector.layer_cells]
        return np.stack(sums, axis=1)

    def to_awkward(self) -> Any:
        """Return an array of Awkward Array, a record for each shower.

        Fields: ``incident_energy`` (MeV), ``incident_theta`` (degrees), the named conditions, and ``hits``, a list of records of the cells with energy:
        ``cell`` (flat index), ``layer``, ``x``, ``y``, ``z`` (centre, mm) and ``energy`` (MeV).

        Raises:
            MissingExtraError: When Awkward Array is not installed.
        """
        awkward, hits = require("awkward", "formats"), Hits.from_cells(self.cells)
        x, y, z = self.detector.cell_centres[hits.cell].T
        places = {"cell": hits.cell, "layer": self.detector.cell_layer[hits.cell], "x": x, "y": y, "z": z}
        found = awkward.unflatten(awkward.zip({**places, "energy": hits.energy}), hits.counts)
        named = {
            name: values[:, 0] if values.shape[1] == 1 else values for name, values in self.conditions.items()
        }
        columns = {"incident_energy": self.incident_energy, "incident_theta": self.incident_theta, **named}
        return awkward.zip({**columns, "hits": found}, depth_limit=1)

    def plot(self, shower: int = 0) -> Any:
        """Return a figure of matplotlib of one shower: its cells from the side and from the front, and the energies of its layers.

        Raises:
            IndexError: When there is no such shower.
            MissingExtraError: When matplotlib is not installed.
        """
        one = self[shower]
        made = " ".join(word for word in (one.source, one.particle) if word)
        angle = f", {one.incident_theta[0]:.4g} degrees" if one.has_theta else ""
        return draw_cells(
            self.detector,
            one.cells[0],
            f"shower {shower}: {made} {plain_number(one.incident_energy[0] / 1e3, 4)} GeV{angle}, {self.detector.name}",
        )

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        return html_table("Showers", lines(known(self)))

    def __add__(self, other: Showers) -> Showers:
        """Join with other showers; see :meth:`concatenate`."""
        return Showers.concatenate([self, other]) if isinstance(other, Showers) else NotImplemented

    def __radd__(self, other: Any) -> Showers:
        """Let ``sum`` join showers: it begins with 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def save(self, path: str | Path, force: bool = False, layout: str = "dense") -> Path:
        """Write them to a file, see :func:`~caloforge.showers.write_showers`, and return its path."""
        return write_showers(path, self, force=force, layout=layout)

    @classmethod
    def concatenate(cls, parts: Iterable[Showers]) -> Showers:
        """Join showers of one detector, in order.

        A particle or source on which the parts disagree becomes "mixed", such a seed None; attributes on which
        they disagree are left out. Parts without angles count as 90 degrees when another has some. What any part's
        model has seen, the whole has seen.

        Raises:
            InputError: When there are no parts.
            IncompatibleError: When detectors or conditions differ.
        """
        parts = list(parts)
        if not parts:
            raise InputError("nothing to concatenate; expected at least one Showers")
        first = parts[0]
        for part in parts[1:]:
            _check_alike(first, part)
        angled = any(part.has_theta for part in parts)
        return cls(
            detector=first.detector,
            cells=np.concatenate([part.cells for part in parts]),
            incident_energy=np.concatenate([part.incident_energy for part in parts]),
            incident_theta=np.concatenate([part.incident_theta for part in parts]) if angled else None,
            conditions={
                name: np.concatenate([part.conditions[name] for part in parts]) for name in first.conditions
            },
            particle=_common([part.particle for part in parts], "mixed"),
            source=_common([part.source for part in parts], "mixed"),
            seed=_common([part.seed for part in parts], None),
            attributes=common_attributes(parts),
            seen=seen_union(part.seen for part in parts),
        )


def _column(name: str, values: ArrayLike, n: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((n,), (n, 1)):
        raise InputError(f"{name} has shape {array.shape}; expected ({n},) or ({n}, 1), one value a shower")
    return array.reshape(n)


def _table(name: str, values: ArrayLike, n: int) -> NDArray[Any]:
    array = condition_values(name, values)
    if array.ndim not in (1, 2) or len(array) != n:
        raise InputError(f"condition '{name}' has shape {array.shape}; expected ({n}, k), one row a shower")
    return array[:, None] if array.ndim == 1 else array


def _check_alike(first: Showers, other: Showers) -> None:
    """Raise when two sets of showers cannot be joined."""
    if other.detector != first.detector:
        msg = f"showers of detector '{other.detector.name}' cannot be joined with those of '{first.detector.name}'"
        raise IncompatibleError(msg)
    sizes, expected = _sizes(other), _sizes(first)
    if sizes != expected:
        msg = f"showers with conditions {sizes or 'none'} cannot be joined with those that have {expected or 'none'}"
        raise IncompatibleError(msg)


def _sizes(showers: Showers) -> dict[str, int]:
    return {name: values.shape[1] for name, values in sorted(showers.conditions.items())}


def common_attributes(parts: Sequence[ShowerSource]) -> dict[str, Any]:
    """Return the attributes on which all parts agree, and the union of the seeds that their models have seen."""
    kept = {
        key: value
        for key, value in parts[0].attributes.items()
        if all(np.array_equal(np.asarray(part.attributes.get(key)), value) for part in parts[1:])
    }
    seeds = sorted({int(seed) for part in parts for seed in part.attributes.get(SEEN_SEEDS, ())})
    return kept | ({SEEN_SEEDS: seeds} if seeds else {})


def _common(values: Sequence[Any], otherwise: Any) -> Any:
    return values[0] if all(value == values[0] for value in values) else otherwise
