"""HDF5 files of arrays: the CaloChallenge, CaloGAN, getting_high, 3DGAN, LEMURS and Par04, and any other by names.

A layout is a line of data: what its datasets are called, the order of their axes, its units, and the detectors that it was published for. Sources:

- CaloChallenge: C. Krause et al., arXiv:2410.21611, https://calochallenge.github.io. ``showers`` (N, voxels), ``incident_energies`` (N, 1), MeV.
- CaloGAN: M. Paganini, L. de Oliveira, B. Nachman, arXiv:1712.10321. ``energy`` (N, 1) GeV, ``layer_0`` (N, 3, 96), ``layer_1`` (N, 12, 12), ``layer_2``
  (N, 12, 6) MeV, each phi by eta.
- getting_high: E. Buhmann et al., arXiv:2005.05334. Group ``30x30`` with ``energy`` (N, 1) GeV and ``layers`` (N, z, x, y) MeV.
- 3DGAN: G. Khattak et al., arXiv:2109.07388. ``ECAL`` (N, x, y, z), ``energy`` GeV, ``theta`` radians. The unit of the cells differs between its releases.
- LEMURS and Par04: P. McKeown, P. Raikwar, A. Zaborowska, arXiv:2509.05108. ``showers`` (N, r, phi, z) and ``incident_energy`` MeV, ``incident_theta``
  radians. Energies are those of the active material; the CaloChallenge's are divided by the sampling fraction, 0.033.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.formats.arrays import CONDITION, ArrayTable, RowArray
from caloforge.formats.base import Format, ReadOptions
from caloforge.showers import datasets, hdf5
from caloforge.showers.sparse import is_sparse

__all__ = [
    "CALOCHALLENGE",
    "CALOGAN",
    "GAN3D",
    "GETTING_HIGH",
    "HDF5",
    "LEMURS",
    "HDF5Arrays",
    "opened_quietly",
]


class _Dataset(RowArray):
    """A dataset of an open file."""

    def __init__(self, path: Path, file: h5py.File, name: str) -> None:
        self.name = name
        self._path, self._data = path, datasets.open_rows(path, file, name)
        self.shape, self.dtype = tuple(self._data.shape), self._data.dtype

    @property
    def band(self) -> int:
        """How many rows are best read at a time."""
        return datasets.band_rows(self._data)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        datasets.read_rows(self._path, self._data, start, out)
        return out


@dataclass(frozen=True)
class HDF5Arrays(Format):
    """A layout of HDF5 files; names may be patterns (``*/layers``), of which one dataset must be the only match."""

    name: str
    summary: str
    cells: tuple[str, ...] = ()  # one dataset, or one a layer
    energy: str = ""
    theta: str = ""
    axes: str | None = ""  # None: the detector's own order
    energy_unit: str | None = None
    cell_unit: str | None = None
    angle_unit: str | None = None
    detectors: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # names whose presence means another format

    @property
    def general(self) -> bool:  # type: ignore[override]
        """Whether the user must give the names."""
        return not self.cells

    def matches(self, path: Path) -> bool:
        """Return whether a file has the datasets of the layout, or, of the general one, is HDF5."""
        with opened_quietly(path) as file:
            if file is None or self.general:
                return file is not None
            names = datasets.dataset_names(file)
            if is_sparse(file) or "caloforge_version" in file.attrs:
                return False
            wanted = (*self.cells, self.energy)
            return all(_find(names, one) for one in wanted) and not any(
                _find(names, one) for one in self.without
            )
        return False  # it is damaged

    def open(self, path: Path, options: ReadOptions) -> ArrayTable:
        """Open a file."""
        file = hdf5.open_hdf5(path)
        try:
            with hdf5.guarded(path):
                table = self._table(path, file, options)
            table.seen = datasets.read_seen(path, file)
        except BaseException:
            file.close()
            raise
        table.energy_unit, table.cell_unit, table.angle_unit = (
            self.energy_unit,
            self.cell_unit,
            self.angle_unit,
        )
        return table

    def _table(self, path: Path, file: h5py.File, options: ReadOptions) -> ArrayTable:
        names = datasets.dataset_names(file)
        shown = (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "nothing"
        usual = {"cells": ",".join(self.cells), "energy": self.energy, "theta": self.theta}
        needless = {"theta"} if options.energy is None else {"theta", "energy"}
        keys = {
            role: name
            for role, name in usual.items()
            if name and (role not in needless or _find(names, name) or datasets.has_item(file, name))
        }
        found = [CONDITION + name for name in datasets.find_group(path, file, hdf5.CONDITIONS) or ()]
        keys |= {name: name for name in found} | dict(options.keys)
        names = list(dict.fromkeys([*names, *found]))
        if "cells" not in keys:
            message = "is of no known layout; name its data (--key cells=NAME --key energy=NAME)"
            raise FileFormatError(path, "", f"{message}; the file has: {shown}")

        def opened(pattern: str, role: str) -> _Dataset:
            found = _find(names, pattern)
            if len(found) != 1:
                what = f"is one of {', '.join(found)}" if found else "is missing"
                message = f"{what} (--key {role}=NAME); the file has: {shown}"
                raise FileFormatError(path, f"dataset '{pattern}'", message)
            return _Dataset(path, file, found[0])

        facts = hdf5.plain_attributes(file)
        facts.pop("caloforge_version", None)
        return ArrayTable(path, keys, opened, self.axes, facts, file.close)


@contextmanager
def opened_quietly(path: Path) -> Iterator[h5py.File | None]:
    """Open a file if it is HDF5 and can be read, and leave the block where it is damaged."""
    try:
        file = hdf5.open_hdf5(path)
    except FileFormatError:
        yield None
        return
    with file, suppress(FileFormatError), hdf5.guarded(path):
        yield file


def _find(names: list[str], pattern: str) -> list[str]:
    return [name for name in names if name == pattern] or [
        name for name in names if pattern and fnmatchcase(name, pattern)
    ]


CALOCHALLENGE = HDF5Arrays(
    "calochallenge",
    "CaloChallenge: showers, incident_energies (MeV)",
    ("showers",),
    "incident_energies",
    "incident_theta",
    axes=None,
    energy_unit="MeV",
    cell_unit="MeV",
    angle_unit="deg",
    detectors=("calochallenge-1-photons", "calochallenge-1-pions", "calochallenge-2", "calochallenge-3"),
)
CALOGAN = HDF5Arrays(
    "calogan",
    "CaloGAN: layer_0, layer_1, layer_2 (MeV), energy (GeV)",
    ("layer_0", "layer_1", "layer_2"),
    "energy",
    axes="yx",
    energy_unit="GeV",
    cell_unit="MeV",
    detectors=("calogan",),
)
GETTING_HIGH = HDF5Arrays(
    "getting-high",
    "getting_high: 30x30/layers (N, z, x, y) (MeV), 30x30/energy (GeV)",
    ("*x*/layers",),
    "*x*/energy",
    axes="zxy",
    energy_unit="GeV",
    cell_unit="MeV",
    detectors=("ild-ecal",),
)
GAN3D = HDF5Arrays(
    "3dgan",
    "3DGAN: ECAL (N, x, y, z), energy (GeV), theta (rad)",
    ("ECAL",),
    "energy",
    "theta",
    axes="xyz",
    energy_unit="GeV",
    angle_unit="rad",
    detectors=("clic-ecal", "clic-ecal-wide"),
)
LEMURS = HDF5Arrays(
    "lemurs",
    "LEMURS, Par04: showers (N, r, phi, z), incident_energy (MeV), incident_theta (rad)",
    ("showers",),
    "incident_energy",
    "incident_theta",
    axes="raz",
    energy_unit="MeV",
    cell_unit="MeV",
    angle_unit="rad",
    without=("incident_energies",),
)
HDF5 = HDF5Arrays("hdf5", "any HDF5 arrays, named with --key")
