"""EDM4hep: hits of simulated calorimeters in ROOT files of podio.

Read with uproot, without podio. What is assumed of the files (https://github.com/key4hep/EDM4hep, ROOT trees, not RNTuples):

- the tree ``events``, an entry each event; a collection NAME of SimCalorimeterHits has the branches ``NAME/NAME.energy`` (GeV) and ``NAME/NAME.position.x``,
  ``.y``, ``.z`` (mm, coordinates of the whole detector);
- ``MCParticles`` has ``.PDG``, ``.generatorStatus``, ``.mass`` and ``.momentum.x``, ``.y``, ``.z`` (GeV); the incident particle is the first with status 1, and
  an event has one alone.

The energy of the particle is that at its origin: material in front of the calorimeter, or a magnetic field, are not undone. The angle follows from its direction;
where no angle differs from 90 degrees by more than 0.01, none is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from caloforge.formats.base import Format, ReadOptions, Rows, Table
from caloforge.formats.points import HitCells
from caloforge.formats.trees import Branches, find_tree, open_root
from caloforge.geometry import Detector
from caloforge.showers import hdf5
from caloforge.showers.sparse import PARTICLES

__all__ = ["EDM4HEP", "EDM4hep"]

_TREE: Final = "events"
_PARTICLES: Final = "MCParticles"
_STABLE = 1  # status of a particle of the generator that the simulation transports
_SMALL = 0.01  # degrees
_LEAN = 1e-3  # largest direction in x, smallest in z
_BAND = 64  # events


class _EventTable(Table):
    """Events of a file, a shower each."""

    energy_unit, cell_unit, angle_unit = "GeV", "GeV", "deg"

    def __init__(self, path: Path, file: Any, options: ReadOptions) -> None:
        super().__init__(path)
        self._file, self._options = file, options
        self._branches = Branches(path, find_tree(path, file, options.keys.get("tree", _TREE)))
        if not self._branches.n:
            self.reject("", "has no events; expected at least one")
        self._hits = self._find_hits(options.keys.get("cells", ""))
        self._mother = options.keys.get("energy", _PARTICLES)
        if options.energy is None:
            self._set_particle()

    def _find_hits(self, wanted: str) -> str:
        names = self._branches.names
        found = [
            name.removesuffix(".position.x")
            for name in names
            if name.endswith(".position.x")
            and name.replace(".position.x", ".energy") in names
            and name.replace(".position.x", ".cellID") in names
        ]
        if wanted in found or (not wanted and len(found) == 1):
            return wanted or found[0]
        what = (
            f"has no hits '{wanted}'"
            if wanted
            else f"has {len(found) or 'no'} collections of calorimeter hits"
        )
        self.reject("", f"{what} (--key cells=COLLECTION); it has: {', '.join(found) or 'none'}")

    def _set_particle(self) -> None:
        """Take the particle from the first events, when it is the same in all of them."""
        pdg = np.unique(self._primaries(0, min(_BAND, len(self)))[2])
        known = {number: name for name, number in PARTICLES.items()}
        if len(pdg) == 1 and int(pdg[0]) in known:
            self.facts["particle"] = known[int(pdg[0])]

    def __len__(self) -> int:
        return self._branches.n

    @property
    def band(self) -> int:
        """How many showers are best read at a time."""
        return min(_BAND, hdf5.rows_per_chunk(8 * self._detector.n_cells, hdf5.STREAM_BYTES))

    def describe(self) -> str:
        """Return the name of the collection."""
        return f"hits '{self._hits}', particles '{self._mother}'"

    def fits(self, detector: Detector) -> bool:
        """Return False: hits do not tell their detector."""
        return False

    def bind(self, detector: Detector, axes: str) -> str:
        """Prepare the reading of cells of a detector."""
        self._detector = detector
        self._points = HitCells(self.path, detector, self._options)
        self._angled = self._options.theta is None and self._options.energy is None and self._any_angle()
        return ""

    def rows(self, start: int, stop: int) -> Rows:
        """Read the events of a range."""
        energy, counts = self._branches.flat(f"{self._hits}.energy", "cells", start, stop)
        position = np.column_stack(
            [self._branches.flat(f"{self._hits}.position.{axis}", "cells", start, stop)[0] for axis in "xyz"]
        ).astype(np.float64)
        cells = self._points.fill(start, counts, position, energy.astype(np.float32))
        self.notes = self._points.notes
        if self._options.energy is not None:
            return Rows(cells, None, None, {})
        incident, theta, _ = self._primaries(start, stop)
        return Rows(cells, incident, theta if self._angled else None, {})

    def _any_angle(self) -> bool:
        parts = (
            self._primaries(start, min(start + 4096, len(self)))[1] for start in range(0, len(self), 4096)
        )
        return any(bool((np.abs(theta - hdf5.PERPENDICULAR) > _SMALL).any()) for theta in parts)

    def _primaries(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return energies (n,) GeV, angles (n,) degrees and PDG numbers (n,) of the incident particles."""

        def values(name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
            return self._branches.flat(f"{self._mother}.{name}", "energy", start, stop)

        status, counts = values("generatorStatus")
        row = np.repeat(np.arange(stop - start), counts)
        stable = np.flatnonzero(status == _STABLE)
        number = np.bincount(row[stable], minlength=stop - start)
        if (number != 1).any():
            event = int(np.argmax(number != 1))
            self.reject(
                f"event {start + event}",
                f"has {number[event]} particles of status {_STABLE}; expected one, whose shower it is (or give --energy)",
            )
        momentum = np.column_stack([values(f"momentum.{axis}")[0][stable] for axis in "xyz"]).astype(
            np.float64
        )
        mass = values("mass")[0][stable].astype(np.float64)
        size = np.sqrt((momentum**2).sum(1))
        ours = HitCells.turned(momentum, self._options) / np.maximum(size, 1e-30)[:, None]
        if (wrong := np.flatnonzero((np.abs(ours[:, 0]) > _LEAN) | (ours[:, 2] < _LEAN))).size:
            x, y, z = ours[wrong[0]]
            self.reject(
                f"event {start + int(wrong[0])}",
                f"its particle flies along ({x:.3f}, {y:.3f}, {z:.3f}); expected (0, cos(theta), sin(theta)), towards larger depth; settle it with --axes",
            )
        theta = np.where(ours[:, 1] == 0, hdf5.PERPENDICULAR, np.degrees(np.arctan2(ours[:, 2], ours[:, 1])))
        return np.sqrt(size**2 + mass**2), theta, values("PDG")[0][stable].astype(np.int64)

    def forget(self) -> None:
        """Forget the notes: what was read before was a sample."""
        super().forget()
        self._points.forget()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class EDM4hep(Format):
    """ROOT files of EDM4hep."""

    name: str = "edm4hep"
    summary: str = "EDM4hep: SimCalorimeterHits (GeV, mm), MCParticles, in ROOT files of podio"

    def matches(self, path: Path) -> bool:
        """Return whether a file has a tree of events with hits of calorimeters; False without uproot."""
        if _start(path) != b"root":
            return False
        file = open_root(path)
        with file:
            kinds = file.classnames(recursive=False, cycle=False)
            if kinds.get(_TREE) != "TTree":
                return False
            return any(name.endswith(".position.x") for name in Branches(path, file[_TREE]).names)

    def open(self, path: Path, options: ReadOptions) -> Table:
        """Open a file.

        Raises:
            MissingExtraError: When uproot is not installed.
            FileFormatError: When a collection is missing, or there are several and none is named.
        """
        file = open_root(path)
        try:
            return _EventTable(path, file, options)
        except BaseException:
            file.close()
            raise


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""


EDM4HEP = EDM4hep()
