"""The one container of showers in memory: cells, conditions and where they come from.

Checks on the values of showers: vectorised, and exact about the place of the first fault.

Each check returns None, or the first :class:`Fault`; the caller knows whether it came from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import IncompatibleError, InputError, UnknownNameError
from caloforge.geometry import Detector, get_detector
from caloforge.showers.hdf5 import (
    CELLS,
    CONDITIONS,
    ENERGIES,
    PERPENDICULAR,
    SEEN_SEEDS,
    THETA,
    rows_per_stream,
)
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.source import Index, as_selection, chunk_size

__all__ = [
    "Fault",
    "Showers",
    "check_cells",
    "check_condition",
    "check_energies",
    "check_theta",
    "check_values",
]


@dataclass(frozen=True)
class Fault:
    """Where a value is wrong, and how.

    Arguments:
        where: Dataset and row.
        message: The value, and what was expected.
    """

    where: str
    message: str


def check_cells(cells: NDArray[np.float32], first_row: int = 0) -> Fault | None:
    """Find the first cell whose energy is negative or not finite.

    Arguments:
        cells: Energies (N, n_cells), MeV.
        first_row: Row of the file in which ``cells`` begins.
    """
    # The minimum and maximum of an array with a NaN are NaN, for which the comparison is false.
    if cells.size == 0 or (cells.min() >= 0 and cells.max() < np.inf):
        return None
    good = (cells >= 0) & (cells < np.inf)
    row = int(np.argmin(good.all(axis=1)))
    cell = int(np.argmin(good[row]))
    return Fault(
        f"dataset '{CELLS}', row {first_row + row}",
        f"cell {cell} holds {cells[row, cell]:g}; expected a finite energy in MeV that is not negative",
    )


def check_energies(energies: NDArray[np.float64], first_row: int = 0) -> Fault | None:
    """Find the first incident energy (N,) that is not finite and positive."""
    expected = "a finite incident energy in MeV above zero"
    return _first(energies, (energies > 0) & (energies < np.inf), ENERGIES, first_row, expected)


def check_theta(theta: NDArray[np.float64], first_row: int = 0) -> Fault | None:
    """Find the first angle (N,) that does not lie between 0 and 180 degrees."""
    expected = "an angle in degrees between 0 and 180 (90 is perpendicular to the front face)"
    return _first(theta, (theta > 0) & (theta < 180), THETA, first_row, expected)


def check_condition(name: str, values: NDArray[Any], first_row: int = 0) -> Fault | None:
    """Find the first row of a condition (N, k) that is not finite."""
    good = np.isfinite(values).all(axis=1)
    return _first(values, good, f"{CONDITIONS}/{name}", first_row, "finite values")


def check_values(
    cells: NDArray[np.float32],
    energies: NDArray[np.float64],
    theta: NDArray[np.float64],
    conditions: dict[str, NDArray[Any]],
    first_row: int = 0,
) -> Fault | None:
    """Return the first fault of a batch of showers, the cheap checks first."""
    fault = check_energies(energies, first_row) or check_theta(theta, first_row)
    for name, values in conditions.items():
        fault = fault or check_condition(name, values, first_row)
    return fault or check_cells(cells, first_row)


def _first(
    values: NDArray[Any], good: NDArray[np.bool_], dataset: str, first_row: int, expected: str
) -> Fault | None:
    if good.all():
        return None
    row = int(np.argmin(good))
    held = np.array2string(np.asarray(values[row]), precision=8)
    return Fault(f"dataset '{dataset}', row {first_row + row}", f"holds {held}; expected {expected}")


class Showers:
    """Showers of one detector, in memory.

    Slices are views: they share the arrays' memory. Shapes are checked here; the values are looked at by
    :meth:`check`, which is part of every write, and by every read.

    Arguments:
        detector: The detector, or its name.
        cells: Visible energies (N, n_cells), MeV, in the detector's flat order.
        incident_energy: Energies (N,) or (N, 1) of the incident particles, MeV.
        incident_theta: Angles (N,) or (N, 1), degrees; None: all 90, and not stored.
        conditions: Further conditions, each (N, k) or (N,).
        particle: Incident particle, "gamma" or "e-".
        source: What made them: geant4, gflash or a model's name.
        seed: Seed that they were made with.
        attributes: Further facts, kept in files.
        seen: Identities (M,) uint64 of the showers that trained or selected the model that made these; kept in files.

    Raises:
        InputError: When shapes or lengths do not fit.

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
            msg = (
                f"cells have shape {self.cells.shape}; expected (N, {self.detector.n_cells}) "
                f"for detector '{self.detector.name}'"
            )
            raise InputError(msg)
        n = len(self.cells)
        self.incident_energy: NDArray[np.float64] = _column("incident_energy", incident_energy, n)
        self.has_theta = incident_theta is not None
        theta = PERPENDICULAR * np.ones(n) if incident_theta is None else incident_theta
        self.incident_theta: NDArray[np.float64] = _column("incident_theta", theta, n)
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
        fields: dict[str, Any] = {
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
        return Showers(**(fields | changes))

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
    def n_empty(self) -> int:
        """Number of showers without any energy: legal, but worth a word when there are many."""
        return int(len(self) - np.count_nonzero(self.cells.any(axis=1)))

    def check(self) -> Showers:
        """Check every value and return the showers themselves.

        Raises:
            InputError: At the first value that is not finite or out of range; says which and where.
        """
        fault = check_values(self.cells, self.incident_energy, self.incident_theta, self.conditions)
        if fault is not None:
            msg = f"showers: {fault.where}: {fault.message}"
            raise InputError(msg)
        return self

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write them to a file, see :func:`~caloforge.showers.write_showers`, and return its path."""
        from caloforge.showers.writing import write_showers

        return write_showers(path, self, force=force)

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
            msg = "nothing to concatenate; expected at least one Showers"
            raise InputError(msg)
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
            attributes=_common_attributes(parts),
            seen=seen_union(part.seen for part in parts),
        )


def _column(name: str, values: ArrayLike, n: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((n,), (n, 1)):
        msg = f"{name} has shape {array.shape}; expected ({n},) or ({n}, 1), one value a shower"
        raise InputError(msg)
    return array.reshape(n)


def _table(name: str, values: ArrayLike, n: int) -> NDArray[np.float32]:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim not in (1, 2) or len(array) != n:
        msg = f"condition '{name}' has shape {array.shape}; expected ({n}, k), one row a shower"
        raise InputError(msg)
    return array[:, None] if array.ndim == 1 else array


def _check_alike(first: Showers, other: Showers) -> None:
    """Raise when two sets of showers cannot stand in one."""
    if other.detector != first.detector:
        msg = f"showers of detector '{other.detector.name}' do not go with those of '{first.detector.name}'"
        raise IncompatibleError(msg)
    sizes, expected = _sizes(other), _sizes(first)
    if sizes != expected:
        msg = f"showers with conditions {sizes or 'none'} do not go with those that have {expected or 'none'}"
        raise IncompatibleError(msg)


def _sizes(showers: Showers) -> dict[str, int]:
    return {name: values.shape[1] for name, values in sorted(showers.conditions.items())}


def _common_attributes(parts: Sequence[Showers]) -> dict[str, Any]:
    """Return the attributes on which all parts agree, and the union of the seeds that their models have seen."""
    kept = {
        key: value
        for key, value in parts[0].attributes.items()
        if all(_equal(part.attributes.get(key), value) for part in parts[1:])
    }
    seeds = sorted({int(seed) for part in parts for seed in part.attributes.get(SEEN_SEEDS, ())})
    return kept | ({SEEN_SEEDS: seeds} if seeds else {})


def _equal(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right))


def _common(values: Sequence[Any], otherwise: Any) -> Any:
    return values[0] if all(value == values[0] for value in values) else otherwise
