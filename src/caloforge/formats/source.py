"""Showers of a foreign file as a source of showers: in MeV and degrees, checked, read by ranges of rows.

Detector, order of axes and units come from the user, the file, or the format, in this order, and are judged on a sample before anything else
(:mod:`caloforge.formats.interpretation`); every row is checked for values that are not finite or negative when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import UnknownNameError
from caloforge.formats.base import Format, ReadOptions, Table
from caloforge.formats.interpretation import Interpretation
from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers, hdf5
from caloforge.showers.reading import find_detector
from caloforge.showers.selection import Index, as_indices, as_selection, chunk_size

__all__ = ["ForeignShowers"]

_NAMES = {hdf5.CELLS: "cells", hdf5.ENERGIES: "incident energies", hdf5.THETA: "angles"}


class ForeignShowers:
    """Showers that are read from a foreign file when they are needed: a :class:`~caloforge.showers.ShowerSource`.

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
        self._table, facts = table, table.facts
        self.read_as: list[str] = []
        self._columns: dict[str, NDArray[Any]] = {}
        try:
            hdf5.check_facts(table.path, facts)
            self.detector = self._find_detector(form, options)
            axes = table.bind(self.detector, options.axes)
            self.particle = options.particle or str(facts.get("particle", ""))
            self.source = options.made_by or str(facts.get("source", ""))
            self.seed: int | None = facts["seed"] if type(facts.get("seed")) is int else None
            self.seen = table.seen
            self._way = Interpretation(table, self.detector, axes, options, self.particle)
            self.read_as += self._way.read_as
            self.implausible = self._way.implausible
            self.attributes = {name: value for name, value in facts.items() if name not in hdf5.RESERVED}
            self.attributes |= {} if table.trusted else {"converted_from": form.name}
            self.attributes |= {"implausible": self.implausible} if self.implausible else {}
            first = self._read_band(0, 1)
            self.has_theta, self.condition_names = first.has_theta, first.condition_names
            table.forget()
        except BaseException:
            table.close()
            raise

    def _find_detector(self, form: Format, options: ReadOptions) -> Detector:
        table = self._table
        if options.detector is not None or "detector" in table.facts:
            found = find_detector(table.path, table.facts, options.detector)
            self.read_as.append(f"detector {found.name}")
            return found
        names = [name for name in form.detectors if table.fits(get_detector(name))]
        if len(names) != 1:
            known = f"; it may be {' or '.join(names)}" if names else ""
            table.reject("", f"names no detector{known} (--detector NAME)")
        self.read_as.append(f"detector {names[0]} (guessed)")
        return get_detector(names[0])

    def _read(self, start: int, stop: int) -> Showers:
        """Read and check the showers of a range, a band at a time."""
        if stop <= start:
            return self._read_band(0, 1)[:0]
        step = self._table.band
        stops = [start, *range((start // step + 1) * step, stop, step), stop]
        parts = [self._read_band(low, high) for low, high in pairwise(stops)]
        return parts[0] if len(parts) == 1 else Showers.concatenate(parts)

    def _read_band(self, start: int, stop: int) -> Showers:
        rows, way = self._table.rows(start, stop), self._way
        cells, energy, theta = way.cells(rows), way.energies(rows), way.angles(rows)
        columns = {hdf5.ENERGIES: energy, hdf5.THETA: theta, **rows.conditions}
        given = {name: values for name, values in columns.items() if values is not None}
        fault = hdf5.check_cells(cells, start) or hdf5.check_columns(given, start)
        if fault is not None:
            _, name, row = fault.where.split("'")
            hint = (
                "; negative ones are set to 0 with --clip-negative"
                if name == hdf5.CELLS and (cells < 0).any()
                else ""
            )
            self._table.reject(_NAMES.get(name, name) + row, fault.message + hint)
        facts = self.detector, cells, energy, theta, rows.conditions, self.particle, self.source, self.seed
        return Showers(*facts, attributes=self.attributes, seen=self.seen)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers, in memory: an int (one shower), a slice, a mask (N,) or indices."""
        chosen = as_selection(index, len(self))
        if isinstance(chosen, slice) and chosen.step in (None, 1):
            return self._read(*chosen.indices(len(self))[:2])
        return self.take(np.arange(len(self))[chosen])

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices, in their order, in memory; each band of the file is read once."""
        wanted = as_indices(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        bands = wanted[order] // self._table.band
        parts = [self._read(0, 0)]
        for places in np.split(order, np.flatnonzero(np.diff(bands)) + 1):
            if len(places):
                first = int(wanted[places[0]])
                parts.append(self._read(first, int(wanted[places[-1]]) + 1)[wanted[places] - first])
        return Showers.concatenate(parts)[np.argsort(order, kind="stable")]

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time (by default about 16 MiB of cells)."""
        n = len(self)
        step = chunk_size(size, hdf5.rows_per_stream(4 * self.detector.n_cells, self._table.band))
        return (self._read(start, min(start + step, n)) for start in range(0, n, step))

    @property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        return np.asarray(self.condition("incident_energy")[:, 0])

    @property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees; 90 where the file has none."""
        return np.asarray(self.condition("incident_theta")[:, 0])

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k): "incident_energy" MeV, "incident_theta" degrees, or a named one; the file is read for it, once.

        Raises:
            UnknownNameError: When there is no condition of that name.
        """
        known = ["incident_energy", "incident_theta", *self.condition_names]
        if name not in known:
            raise UnknownNameError("condition", name, known)
        if not self._columns:
            rows = [{one: part.condition(one) for one in known} for part in self.chunks()]
            self._columns = {one: np.concatenate([row[one] for row in rows]) for one in known}
        return self._columns[name]

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened while the file was read, such as hits that were left out."""
        return self._table.notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read from it stays."""
        self._table.close()
