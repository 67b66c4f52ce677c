"""Showers of a foreign file as a source of showers: in MeV and degrees, checked, read by ranges of rows.

Detector, order of axes and units come from the user, the file, or the format, in this order, and are judged on a sample before anything else
(:mod:`caloforge.formats.interpretation`); every row is checked for values that are not finite or negative when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import FileFormatError, UnknownNameError
from caloforge.formats.base import (
    Format,
    ReadOptions,
    Table,
    fitting,
    stored_facts,
)
from caloforge.formats.interpretation import Interpretation
from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers, ShowerSource, hdf5
from caloforge.showers.container import Index, as_selection, chunk_size
from caloforge.showers.reading import find_detector

__all__ = ["ForeignShowers"]


class ForeignShowers(ShowerSource):
    """Showers that are read from a foreign file when they are needed.

    Arguments:
        table: The open file.
        form: Its format.
        options: What the user says.

    Attributes:
        read_as: Texts that say how the file is understood; those that were guessed end with "(guessed)".
        implausible: What looks wrong, without a known cause or allowed by the user, or an empty text.

    Raises:
        FileFormatError: When the file is not what it should be, something is missing, or the showers are implausible; names the option that settles it.
    """

    def __init__(self, table: Table, form: Format, options: ReadOptions) -> None:
        self._table, self._options, self._form = table, options, form
        self.read_as: list[str] = []
        self.implausible = ""
        self._columns: dict[str, NDArray[Any]] = {}
        try:
            facts = table.facts
            self._detector = self._find_detector(form)
            axes = table.bind(self._detector, options.axes)
            self._particle = options.particle or str(facts.get("particle", ""))
            self._source = options.made_by or str(facts.get("source", ""))
            seed = facts.get("seed")
            self._seed = int(seed) if seed is not None else None
            self._way = Interpretation(table, self._detector, axes, options, self._particle)
            self.read_as += self._way.read_as
            self.implausible = self._way.implausible
            table.forget()
        except BaseException:
            table.close()
            raise

    def _find_detector(self, form: Format) -> Detector:
        table, options = self._table, self._options
        if options.detector is not None or "detector" in table.facts:
            found = find_detector(table.path, table.facts, options.detector)
            self.read_as.append(f"detector {found.name}")
            return found
        names = fitting(table, form.detectors)
        if len(names) != 1:
            known = f"; it may be {' or '.join(names)}" if names else ""
            table.reject("", f"names no detector{known} (--detector NAME)")
        self.read_as.append(f"detector {names[0]} (guessed)")
        return get_detector(names[0])

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, start: int, stop: int) -> Showers:
        """Read and check the showers of a range, a band at a time."""
        step = max(1, min(self._table.band, stop - start))
        stops = [*range((start // step + 1) * step, stop, step), stop]
        parts = (
            [self._read_band(low, high) for low, high in pairwise([start, *stops])] if stop > start else []
        )
        return parts[0] if len(parts) == 1 else Showers.concatenate(parts) if parts else self._empty()

    def _read_band(self, start: int, stop: int) -> Showers:
        rows, way = self._table.rows(start, stop), self._way
        cells = way.cells(rows)
        hint = "; negative ones are set to 0 with --clip-negative" if _negative(cells) else ""
        self._check(hdf5.check_cells(cells, start), hint)
        energy, theta = way.energies(rows), way.angles(rows)
        self._check(hdf5.check_column(hdf5.ENERGIES, energy, start))
        if theta is not None:
            self._check(hdf5.check_column(hdf5.THETA, theta, start))
        for name, values in rows.conditions.items():
            self._check(hdf5.check_column(f"{hdf5.CONDITIONS}/{name}", values, start))
        return self._showers(cells, energy, theta, rows.conditions)

    def _showers(
        self,
        cells: NDArray[np.float32],
        energy: ArrayLike,
        theta: ArrayLike | None,
        conditions: dict[str, NDArray[Any]],
    ) -> Showers:
        return Showers(
            self._detector,
            cells,
            energy,
            theta,
            conditions,
            self._particle,
            self._source,
            self._seed,
            self.attributes,
            self.seen,
        )

    def _empty(self) -> Showers:
        one = self._read_band(0, 1)
        return one[:0]

    def _check(self, fault: hdf5.Fault | None, hint: str = "") -> None:
        if fault is not None:
            where = fault.where.replace(f"dataset '{hdf5.CELLS}'", "cells").replace(
                f"dataset '{hdf5.ENERGIES}'", "incident energies"
            )
            raise FileFormatError(
                self._table.path, where.replace(f"dataset '{hdf5.THETA}'", "angles"), fault.message + hint
            )

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory: an int (one shower), a slice, a mask (N,) or indices."""
        chosen = as_selection(index, len(self))
        if isinstance(chosen, slice):
            start, stop, step = chosen.indices(len(self))
            if step == 1:
                return self._read(start, max(start, stop))
            return self.take(np.arange(start, stop, step))
        return self.take(np.flatnonzero(chosen) if chosen.dtype == bool else chosen)

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory; each band of the file is read once."""
        wanted = np.arange(len(self))[as_selection(np.asarray(indices), len(self))]
        if not len(wanted):
            return self._empty()
        order = np.argsort(wanted, kind="stable")
        bands = wanted[order] // max(1, self._table.band)
        parts = []
        for places in np.split(order, np.flatnonzero(np.diff(bands)) + 1):
            first = int(wanted[places[0]])
            parts.append(self._read(first, int(wanted[places[-1]]) + 1)[wanted[places] - first])
        return Showers.concatenate(parts)[np.argsort(order, kind="stable")]

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time (by default about 16 MiB of cells)."""
        n = len(self)
        step = chunk_size(size, hdf5.rows_per_stream(4 * self._detector.n_cells, self._table.band))
        return (self._read(start, min(start + step, n)) for start in range(0, n, step))

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k): "incident_energy" MeV, "incident_theta" degrees, or a named one.

        The whole file is read for it, once.

        Raises:
            UnknownNameError: When there is no condition of that name.
        """
        if not self._columns:
            self._columns = self._all_columns()
        if name not in self._columns:
            raise UnknownNameError("condition", name, list(self._columns))
        return self._columns[name]

    def _all_columns(self) -> dict[str, NDArray[Any]]:
        found: dict[str, list[NDArray[Any]]] = {}
        for part in self.chunks():
            for name in ("incident_energy", "incident_theta", *part.condition_names):
                found.setdefault(name, []).append(part.condition(name))
        return {name: np.concatenate(values) for name, values in found.items()}

    # --- facts --------------------------------------------------------------------------------------------------------

    @property
    def detector(self) -> Detector:
        """Detector whose cells the showers fill."""
        return self._detector

    @property
    def particle(self) -> str:
        """Incident particle; empty when not known."""
        return self._particle

    @property
    def source(self) -> str:
        """What made the showers; empty when not known."""
        return self._source

    @property
    def seed(self) -> int | None:
        """Seed that they were made with, when there is one."""
        return self._seed

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts about how they were made."""
        facts = stored_facts(self._table.facts)
        if not self._table.trusted:
            facts["converted_from"] = self._form.name
        if self.implausible:
            facts["implausible"] = self.implausible
        return facts

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these; empty for none."""
        return self._table.seen

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened while the file was read, such as hits that were left out."""
        return self._table.notes

    @cached_property
    def _first(self) -> Showers:
        return self._read_band(0, 1)

    @property
    def has_theta(self) -> bool:
        """Whether there are angles; otherwise all are 90 degrees."""
        return self._first.has_theta

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return self._first.condition_names

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read from it stays."""
        self._table.close()


def _negative(cells: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(cells).all() and cells.size and cells.min() < 0)
