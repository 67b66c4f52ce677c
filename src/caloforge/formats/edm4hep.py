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

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.formats.base import Format, ReadOptions, Rows, Table, guarded
from caloforge.formats.hits import HitTable
from caloforge.formats.trees import Branches, find_tree, is_root, open_root
from caloforge.showers import hdf5
from caloforge.showers.sparse import PARTICLES

__all__ = ["EDM4HEP", "EDM4hep"]

_TREE: Final = "events"
_PARTICLES: Final = "MCParticles"
_STABLE = 1  # status of a particle of the generator that the simulation transports
_SMALL = 0.01  # degrees
_LEAN = 1e-3  # largest direction in x, smallest in z
_EVENTS = 4096  # whose particles are read at a time


class _EventTable(HitTable):
    """Events of a file, a shower each."""

    energy_unit, cell_unit, angle_unit = "GeV", "GeV", "deg"

    def __init__(self, path: Path, file: Any, options: ReadOptions) -> None:
        self.path = path
        branches = Branches(path, find_tree(path, file, options.keys.get("tree", _TREE)))
        self._mother = options.keys.get("energy", _PARTICLES)
        hits = self._find_hits(branches.names, options.keys.get("cells", ""))
        keys = {"hit_energy": f"{hits}.energy"} | {f"hit_{axis}": f"{hits}.position.{axis}" for axis in "xyz"}
        super().__init__(branches, keys, options, None, file.close)
        self._angled, pdg = False, set[int]()
        if options.energy is None:
            for start in range(0, len(self), _EVENTS):
                _, theta, numbers = self._primaries(start, min(start + _EVENTS, len(self)))
                self._angled |= bool((np.abs(theta - hdf5.PERPENDICULAR) > _SMALL).any())
                pdg |= set(numbers.tolist())
        names = [name for name, number in PARTICLES.items() if pdg == {number}]
        if names:
            self.facts["particle"] = names[0]

    def _find_hits(self, names: Mapping[str, str], wanted: str) -> str:
        ends = (".energy", ".cellID")
        found = [name.removesuffix(".position.x") for name in names if name.endswith(".position.x")]
        found = [name for name in found if all(name + end in names for end in ends)]
        if wanted in found or (not wanted and len(found) == 1):
            return wanted or found[0]
        what = (
            f"has no hits '{wanted}'"
            if wanted
            else f"has {len(found) or 'no'} collections of calorimeter hits"
        )
        self.reject("", f"{what} (--key cells=COLLECTION); it has: {', '.join(found) or 'none'}")

    def columns(self, start: int, stop: int) -> Rows:
        """Read energies and angles of the incident particles."""
        none = np.empty((stop - start, 0), np.float32)
        if self.options.energy is not None:
            return Rows(none, None, None, {})
        energy, theta, _ = self._primaries(start, stop)
        return Rows(none, energy, theta if self._angled and self.options.theta is None else None, {})

    def _primaries(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return energies (n,) GeV, angles (n,) degrees and PDG numbers (n,) of the incident particles."""

        def values(name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
            return self.branches.flat(f"{self._mother}.{name}", "energy", start, stop)

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
        ours = momentum[:, self.order] / np.maximum(size, 1e-30)[:, None]
        if (wrong := np.flatnonzero((np.abs(ours[:, 0]) > _LEAN) | (ours[:, 2] < _LEAN))).size:
            x, y, z = ours[wrong[0]]
            self.reject(
                f"event {start + int(wrong[0])}",
                f"its particle flies along ({x:.3f}, {y:.3f}, {z:.3f}); expected (0, cos(theta), sin(theta)), towards larger depth; settle it with --axes",
            )
        theta = np.where(ours[:, 1] == 0, hdf5.PERPENDICULAR, np.degrees(np.arctan2(ours[:, 2], ours[:, 1])))
        return np.sqrt(size**2 + mass**2), theta, values("PDG")[0][stable].astype(np.int64)


@dataclass(frozen=True)
class EDM4hep(Format):
    """ROOT files of EDM4hep."""

    name: str = "edm4hep"
    summary: str = "EDM4hep: SimCalorimeterHits (GeV, mm), MCParticles, in ROOT files of podio"

    def matches(self, path: Path) -> bool:
        """Return whether a file has a tree of events with hits of calorimeters; False without uproot."""
        if not is_root(path):
            return False
        with suppress(FileFormatError), guarded(path), open_root(path) as file:
            kinds = file.classnames(recursive=False, cycle=False)
            if kinds.get(_TREE) != "TTree":
                return False
            return any(name.endswith(".position.x") for name in Branches(path, file[_TREE]).names)
        return False  # it is damaged

    def open(self, path: Path, options: ReadOptions) -> Table:
        """Open a file.

        Raises:
            MissingExtraError: When uproot is not installed.
            FileFormatError: When a collection is missing, or there are several and none is named.
        """
        file = open_root(path)
        try:
            with guarded(path):
                return _EventTable(path, file, options)
        except BaseException:
            file.close()
            raise


EDM4HEP = EDM4hep()
