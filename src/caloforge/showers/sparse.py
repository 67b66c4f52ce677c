"""Showers as hits: in memory, and as points in a file that the package ShowerData reads.

A point is (x, y, layer, energy): the centre of its cell in mm, the number of its readout layer, and the energy in MeV. Points lie
in the order of the cells, so that a shower has one form only. ShowerData (https://github.com/FLC-QU-hep/ShowerData, version 0.7)
stores the points of a shower in a sequence of variable length, which HDF5 cannot compress and h5py writes one by one. The layout
here has the same names and gives the same points through ShowerData and h5py, but lies in chunks of ``showers`` (N, points) of
four float32 each, filled up with zeros: chunks of padding alone are not stored, and the others compress to a fifth.

Files of ShowerData itself, of either form, are read too. Their points need not be centres of cells: the energies of all points in
a cell are summed. In a file of caloforge a point beside the centres, or a second one in a cell, is damage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import FileFormatError, InputError
from caloforge.geometry import CylindricalLayer, Detector
from caloforge.showers import datasets, hdf5
from caloforge.showers.storage import row_not_stored

__all__ = ["PARTICLES", "Cells", "Hits", "PointFile", "directions_of", "is_sparse", "is_variable"]

PARTICLES: Final = {
    "gamma": 22,
    "e-": 11,
    "e+": -11,
    "mu-": 13,
    "mu+": -13,
    "pi+": 211,
    "pi-": -211,
    "pi0": 111,
    "kaon+": 321,
    "kaon-": -321,
    "kaon0L": 130,
    "proton": 2212,
    "neutron": 2112,
}
"""Geant4's names of particles, and their numbers of the Particle Data Group."""

_TOLERANCE = 0.01  # mm between a point and its cell's centre in our files: float32, and the libraries' sines
_MOST_POINTS = 10_000_000  # of a shower
_FIRST_ENERGY = 1000.0  # MeV; files without a unit and with energies below may well be in GeV


@dataclass(frozen=True, eq=False)
class Hits:
    """The cells with energy of some showers.

    Arguments:
        cell: Flat index (H,) of each hit's cell, ascending within each shower.
        energy: Visible energy (H,), MeV, above zero.
        offsets: Where the hits of each shower begin (N + 1,): those of shower i are offsets[i] to offsets[i + 1].

    Raises:
        InputError: When the shapes do not fit. Values are checked by :meth:`check`, and by every write.

    Examples:
        >>> hits = Hits.from_cells(np.array([[0, 2, 0], [0, 0, 0], [1, 0, 3]], np.float32))
        >>> hits.cell.tolist(), hits.energy.tolist(), hits.offsets.tolist()
        ([1, 0, 2], [2.0, 1.0, 3.0], [0, 1, 1, 3])
    """

    cell: NDArray[np.int32]
    energy: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        kinds = {"cell": np.int32, "energy": np.float32, "offsets": np.int64}
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
        ends, shapes = self.offsets, (self.cell.shape, self.energy.shape)
        if ends.ndim != 1 or not len(ends) or ends[0] != 0 or (ends[1:] < ends[:-1]).any():
            raise InputError("offsets of hits are wrong; expected (N + 1,) that begin at 0 and never fall")
        if shapes != ((ends[-1],), (ends[-1],)):
            msg = f"cells and energies of hits have shapes {shapes[0]} and {shapes[1]}; expected ({ends[-1]},), as the offsets say"
            raise InputError(msg)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: slice) -> Hits:
        """Return the hits of a range of showers, the arrays shared."""
        start, stop, _ = index.indices(len(self))
        ends = self.offsets[start : max(start, stop) + 1]
        return Hits(self.cell[ends[0] : ends[-1]], self.energy[ends[0] : ends[-1]], ends - ends[0])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of hits of each shower (N,)."""
        return np.diff(self.offsets)

    @property
    def shower(self) -> NDArray[np.int64]:
        """The shower of each hit (H,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @classmethod
    def from_cells(cls, cells: NDArray[np.float32]) -> Self:
        """Return the hits of showers with cells (N, n_cells), MeV."""
        flat = cells.reshape(-1)
        index = np.flatnonzero(flat != 0)
        starts = np.arange(len(cells) + 1) * cells.shape[1]
        offsets = np.searchsorted(index, starts)
        return cls(index - np.repeat(starts[:-1], np.diff(offsets)), flat[index], offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[Hits]) -> Hits:
        """Return the hits of several sets of showers, one behind the other, in new arrays."""
        counts = np.concatenate([part.counts for part in parts])
        cell, energy = np.concatenate([p.cell for p in parts]), np.concatenate([p.energy for p in parts])
        return cls(cell, energy, np.concatenate([[0], np.cumsum(counts)]))

    def to_cells(self, n_cells: int) -> NDArray[np.float32]:
        """Return all cells (N, n_cells), MeV."""
        cells = np.zeros((len(self), n_cells), np.float32)
        cells[self.shower, self.cell] = self.energy
        return cells

    def check(self, n_cells: int, first_row: int = 0) -> hdf5.Fault | None:
        """Find the first hit with a wrong cell or energy; ``first_row`` is the file's row where they begin."""
        cell, energy = self.cell, self.energy
        if not len(cell):
            return None
        rises = np.empty(len(cell), bool)
        np.greater(cell[1:], cell[:-1], out=rises[1:])
        rises[self.offsets[:-1][self.counts > 0]] = True
        possible = cell.min() >= 0 and cell.max() < n_cells and energy.min() > 0 and energy.max() < np.inf
        if possible and rises.all():
            return None
        inside, valid = (cell >= 0) & (cell < n_cells), (energy > 0) & (energy < np.inf)
        hit = int(np.argmin(inside & valid & rises))
        row = first_row + int(np.searchsorted(self.offsets, hit, "right")) - 1
        where = f"dataset '{hdf5.CELLS}', row {row}"
        if not inside[hit]:
            return hdf5.Fault(where, f"a hit is in cell {cell[hit]}; expected 0 to {n_cells - 1}")
        if not rises[hit]:
            return hdf5.Fault(
                where, f"cell {cell[hit]} comes after cell {cell[hit - 1]}; expected each cell once, in order"
            )
        return hdf5.Fault(
            where, f"cell {cell[hit]} is {energy[hit]:g}; expected a finite energy in MeV above zero"
        )


class Cells:
    """Conversion of the cells of a detector to points and back.

    ``points`` (n_cells, 3) float32 has x and y of each cell's nominal centre, mm, and its layer. Voxels of a ring with one angular bin
    lie at y = 0, x being their radius.
    """

    def __init__(self, detector: Detector) -> None:
        self._layers = detector.layers
        self._cells = np.concatenate(detector.layer_cells)
        self._first = np.cumsum([0, *(layer.n_cells for layer in detector.layers)])[:-1]
        self.points: NDArray[np.float32] = np.empty((detector.n_cells, 3), np.float32)
        for number, (layer, cells) in enumerate(zip(detector.layers, detector.layer_cells, strict=True)):
            centres = layer.centres()[:, :2]
            if isinstance(layer, CylindricalLayer) and layer.n_alpha == 1:
                centres = np.stack([layer.radii(), np.zeros(layer.n_cells)], axis=1)
            self.points[cells, :2] = centres
            self.points[cells, 2] = number
        names = ("nx", "ny", "pitch_x", "pitch_y", "x_centre", "y_centre")
        self._table = {
            n: np.array([getattr(layer, n) for layer in detector.layers]) for n in names if detector.is_flat
        }

    def find(self, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the flat index (H,) of the cell around each point (H, 3): x, y (mm), layer; -1 where there is none."""
        x, y, z = np.array(points.T, np.float64, order="C")
        number = np.rint(np.nan_to_num(z, nan=-1, posinf=-1, neginf=-1))
        known = (
            np.isfinite(x)
            & np.isfinite(y)
            & (np.abs(z - number) <= 0.1)
            & (number >= 0)
            & (number < len(self._layers))
        )
        layer = np.where(known, number, 0).astype(np.int64)
        x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
        local = self._flat(x, y, layer) if self._table else self._polar(x, y, layer)
        return np.where(known & (local >= 0), self._cells[self._first[layer] + local], -1)

    def _flat(
        self, x: NDArray[np.float64], y: NDArray[np.float64], layer: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the cell (H,) within its layer, -1 outside, of points on flat layers."""
        t = {name: values[layer] for name, values in self._table.items()}
        ix = np.floor((x - t["x_centre"]) / t["pitch_x"] + t["nx"] / 2.0)
        iy = np.floor((y - t["y_centre"]) / t["pitch_y"] + t["ny"] / 2.0)
        inside = (ix >= 0) & (ix < t["nx"]) & (iy >= 0) & (iy < t["ny"])
        return np.where(inside, ix * t["ny"] + iy, -1).astype(np.int64)

    def _polar(
        self, x: NDArray[np.float64], y: NDArray[np.float64], layer: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the cell (H,) within its layer, -1 outside, of points on layers of which some are rings."""
        local = np.full(len(x), -1)
        radius, angle = np.hypot(x, y), (np.arctan2(y, x) + np.pi) / (2 * np.pi)
        for number in np.unique(layer):
            mine, ring = layer == number, self._layers[number]
            if not isinstance(ring, CylindricalLayer):
                continue
            r = np.searchsorted(ring.r_edges, radius[mine], "right") - 1
            alpha = np.minimum((angle[mine] * ring.n_alpha).astype(np.int64), ring.n_alpha - 1)
            local[mine] = np.where((r >= 0) & (r < ring.n_r), alpha * ring.n_r + r, -1)
        return local


def directions_of(theta: ArrayLike) -> NDArray[np.float32]:
    """Return unit vectors (N, 3) of polar angles (N,), degrees: 90 is (0, 0, 1), smaller leans towards +y."""
    angle = np.asarray(theta, np.float64).reshape(-1)
    radians = np.radians(angle)
    y = np.where(angle == hdf5.PERPENDICULAR, 0.0, np.cos(radians))
    return np.stack([np.zeros_like(y), y, np.sin(radians)], axis=1).astype(np.float32)


def is_sparse(file: h5py.File) -> bool:
    """Return whether a file of showers holds points."""
    return datasets.has_item(file, hdf5.NUMBERS) and not datasets.has_item(file, hdf5.ENERGIES)


def is_variable(file: h5py.File) -> bool:
    """Return whether the showers of a file are sequences of variable length."""
    found = datasets.follow(file, hdf5.CELLS)
    return isinstance(found, h5py.Dataset) and isinstance(found.id.get_type(), h5py.h5t.TypeVlenID)


class PointFile:
    """The points of an open file, read as cells; see the module.

    Arguments:
        file: An open file for which :func:`is_sparse` is true.
        detector: Detector of the cells.
        energy_unit: MeV or GeV, where the file does not say which.

    Raises:
        FileFormatError: When the file is not what it should be; says where and what was expected.
    """

    def __init__(self, path: Path, file: h5py.File, detector: Detector, energy_unit: str = "") -> None:
        self._path, self._file, self._detector = path, file, detector
        self._cells = Cells(detector)
        n, self._most, self._width = self._shape()
        self.dataset = self._open(n)
        self.ours = "caloforge_version" in file.attrs and not self.variable
        self._numbers = self._column(hdf5.NUMBERS, (n,), "iu").astype(np.int64)
        self._scale = self._unit(energy_unit)
        self.band = hdf5.VARIABLE_BAND if self.variable else datasets.band_rows(self.dataset)
        room = min(self._most, max(_MOST_POINTS, detector.n_cells))
        if len(wrong := np.flatnonzero((self._numbers < 0) | (self._numbers > room))):
            row = int(wrong[0])
            self._reject(hdf5.NUMBERS, f"is {self._numbers[row]}; expected 0 to {room} points", row)
        if not self.variable and (lost := row_not_stored(self.dataset, self._numbers)) is not None:
            self._reject(hdf5.CELLS, f"was never written; expected {self._numbers[lost]} points", lost)

    def _shape(self) -> tuple[int, int, int]:
        """Return the numbers of showers, of points that there is room for, and of values of a point."""
        found = self._column(hdf5.SHAPE, (3,), "iu").tolist()
        if found[2] not in (4, 5) or min(found) < 0:
            self._reject(hdf5.SHAPE, f"is {found}; expected (N, points, 4 or 5)")
        if not found[0]:
            self._reject(hdf5.CELLS, "has no showers; expected at least one")
        return found[0], found[1], found[2]

    def _open(self, n: int) -> h5py.Dataset:
        """Return the dataset of points: (N,) of variable length, or (N, points) of several float32."""
        points = datasets.open_rows(self._path, self._file, hdf5.CELLS, padded=True)
        base, inner = points.dtype.base, points.dtype.shape or points.shape[2:]
        self.variable = h5py.check_vlen_dtype(points.dtype) is not None
        good = (
            points.shape == (n,) and h5py.check_vlen_dtype(points.dtype).kind == "f"
            if self.variable
            else (points.shape[:1] == (n,) and inner == (self._width,) and base.kind == "f")
        )
        if not good:
            expected = f"({n}, points) of {self._width} float32 each, or ({n},) of variable length"
            self._reject(hdf5.CELLS, f"has shape {points.shape} and type {points.dtype}; expected {expected}")
        return points

    def _unit(self, said: str) -> float:
        """Return the unit of the file's energies, MeV; ``said`` is the user's, where the file has none."""
        where, unit = f"attribute '{hdf5.UNIT}'", str(hdf5.plain_attributes(self._file).get(hdf5.UNIT, said))
        if unit not in (("MeV",) if self.ours else ("", "MeV", "GeV")):
            self._fail(where, f"is '{unit}'; expected MeV{'' if self.ours else ' or GeV'}")
        lowest = self._column(hdf5.POINT_ENERGIES, (len(self._numbers), 1), "fiu").min()
        if not unit and lowest < _FIRST_ENERGY:
            self._fail(
                where, "is missing and energies are below 1000: MeV or GeV? (caloforge convert --energy-unit)"
            )
        return 1000.0 if unit == "GeV" else 1.0

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Return energies (N, 1), MeV, and, where some differ from 90 degrees, angles (N, 1) of a file by ShowerData itself."""
        n = len(self._numbers)
        energies = self._scale * self._column(hdf5.POINT_ENERGIES, (n, 1), "fiu").astype(np.float64)
        if (fault := hdf5.check_column(hdf5.POINT_ENERGIES, energies)) is not None:
            self._fail(*fault)
        columns = {hdf5.ENERGIES: energies}
        x, y, z = self._column(hdf5.DIRECTIONS, (n, 3), "f").astype(np.float64).T
        if not np.allclose(x * x + y * y + z * z, 1.0, atol=1e-3) or np.abs(x).max() > 1e-3:
            self._reject(
                hdf5.DIRECTIONS,
                "has directions that lean in x, or not of length 1; expected (0, cos(theta), sin(theta))",
            )
        if y.any():
            columns[hdf5.THETA] = np.degrees(np.arctan2(z, y))[:, None]
        return columns

    @property
    def particle(self) -> str:
        """Particle by ``pdg``; empty when showers differ or it is not known."""
        found = np.unique(self._column(hdf5.PDG, (len(self._numbers),), "iu"))
        names = {number: name for name, number in PARTICLES.items()}
        return names.get(int(found[0]), "") if len(found) == 1 else ""

    def read(self, start: int, cells: NDArray[np.float32]) -> None:
        """Fill cells (n, n_cells), MeV, of the showers from ``start`` on.

        Raises:
            FileFormatError: When the data are damaged: a point outside of the detector, an energy that is not finite.
        """
        cells[:] = 0
        for first in range(0, len(cells), self.band):
            self._fill(start + first, cells[first : first + self.band])

    def _fill(self, start: int, cells: NDArray[np.float32]) -> None:
        numbers = self._numbers[start : start + len(cells)]
        points = self._read(start, numbers)
        row = np.repeat(np.arange(len(cells)), numbers)
        energy = points[:, 3] if self._scale == 1.0 else points[:, 3] * np.float32(self._scale)
        cell = self._cells.find(points[:, :3])
        good = (energy >= 0) & (energy < np.inf) & (cell >= 0)
        if self.ours:
            good &= (np.abs(self._cells.points[cell] - points[:, :3]) <= _TOLERANCE).all(axis=1)
        if not good.all():
            hit = int(np.argmin(good))
            x, y, z, e = points[hit, :4].tolist()
            where = f"{'the centre of' if self.ours else 'in'} a cell of '{self._detector.name}'"
            expected = f"a point {where}, (x mm, y mm, layer), and a finite energy that is not negative"
            message = f"point ({x:g}, {y:g}, {z:g}) has the energy {e:g}; expected {expected}"
            self._reject(hdf5.CELLS, message, start + int(row[hit]))
        place = row * cells.shape[1] + cell
        if (place[1:] > place[:-1]).all():
            cells.reshape(-1)[place] = energy
            return
        distinct, which, times = np.unique(place, return_inverse=True, return_counts=True)
        if self.ours and times.max() > 1:
            hit = int(np.argmax(times[which] > 1))
            self._reject(
                hdf5.CELLS, f"cell {cell[hit]} has several points; expected one", start + int(row[hit])
            )
        cells.reshape(-1)[distinct] = np.bincount(which, energy.astype(np.float64))

    def _read(self, start: int, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the points (H, 4 or 5) of some showers, one behind the other."""
        most, stop = int(numbers.max(initial=0)), start + len(numbers)
        try:
            rows = self.dataset[start:stop] if self.variable else self.dataset[start:stop, : most + 1]
        except hdf5.UNREADABLE as error:
            datasets.unreadable(self._path, self.dataset, error, f", rows {start} to {stop - 1}")
        if self.variable:
            for row, (points, number) in enumerate(zip(rows, numbers.tolist(), strict=True)):
                if len(points) != number * self._width:
                    message = f"has {len(points)} values; expected {number} points of {self._width}"
                    self._reject(hdf5.CELLS, message, start + row)
            return np.concatenate(rows).astype(np.float32, copy=False).reshape(-1, self._width)
        behind = rows[np.arange(len(rows)), np.minimum(numbers, rows.shape[1] - 1), 3]
        if len(wrong := np.flatnonzero((numbers < rows.shape[1]) & (behind != 0))):
            self._reject(
                hdf5.CELLS, f"has energy behind its {numbers[wrong[0]]} points", start + int(wrong[0])
            )
        return np.asarray(rows[np.arange(rows.shape[1]) < numbers[:, None]], np.float32)

    def _column(self, name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
        """Read a whole dataset of numbers."""
        found = datasets.find_dataset(self._path, self._file, name, padded=name == hdf5.PDG)
        # one value a shower may stand in a row or in a column
        same = found.shape[:1] == shape[:1] and found.size == math.prod(shape)
        if not same or found.dtype.kind not in kinds:
            self._reject(name, f"has shape {found.shape} and type {found.dtype}; expected {shape} of numbers")
        try:
            return np.asarray(found[()]).reshape(shape)
        except hdf5.UNREADABLE as error:
            datasets.unreadable(self._path, found, error)

    def _reject(self, name: str, message: str, row: int | None = None) -> NoReturn:
        self._fail(f"dataset '{name}'" + ("" if row is None else f", row {row}"), message)

    def _fail(self, where: str, message: str) -> NoReturn:
        raise FileFormatError(self._path, where, message)
