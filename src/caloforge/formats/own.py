"""Our own files, dense and sparse, and those of the package ShowerData.

Reading and both layouts of ours are those of :mod:`caloforge.showers`. What is written here is ShowerData's native form (version 0.7): the points of a
shower are one sequence of variable length in ``showers``, which its functions that change rows in place need. Its angles are unit vectors in float32;
``incident_theta``, which ShowerData ignores, holds them as they are, so that the way there and back is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caloforge.errors import InputError, WriteError
from caloforge.files import atomic_path
from caloforge.formats.base import Format, ReadOptions, checked_chunks, facts_of
from caloforge.formats.hdf5_arrays import opened_quietly
from caloforge.showers import Hits, ShowerFile, ShowerSource, hdf5, open_showers, write_showers
from caloforge.showers.sparse import PARTICLES, Cells, directions_of, is_sparse, is_variable
from caloforge.showers.writing import GuardedFile, check_layout, columns_of

__all__ = ["OWN", "SHOWERDATA", "Own", "ShowerData"]


@dataclass(frozen=True)
class Own(Format):
    """Files of caloforge."""

    name: str = "caloforge"
    summary: str = "caloforge: dense or sparse (--layout)"
    endings: tuple[str, ...] = (".h5", ".hdf5")
    writes: bool = True

    def matches(self, path: Path) -> bool:
        """Return whether caloforge wrote a file in one of its layouts."""
        with opened_quietly(path) as file:
            return (
                file is not None
                and "caloforge_version" in file.attrs
                and not (is_sparse(file) and is_variable(file))
            )
        return False  # it is damaged

    def open(self, path: Path, options: ReadOptions) -> ShowerFile:
        """Open a file; nothing of it is left to interpret."""
        return _open(self.name, path, options)

    def write(self, path: Path, showers: ShowerSource, *, force: bool, layout: str) -> None:
        """Write one of our layouts."""
        write_showers(path, showers, force=force, layout=check_layout(layout))


@dataclass(frozen=True)
class ShowerData(Format):
    """Files of the package ShowerData."""

    name: str = "showerdata"
    summary: str = "ShowerData: point clouds of variable length"
    writes: bool = True

    def matches(self, path: Path) -> bool:
        """Return whether a file holds points, other than in our layout."""
        with opened_quietly(path) as file:
            return file is not None and is_sparse(file) and not OWN.matches(path)
        return False  # it is damaged

    def open(self, path: Path, options: ReadOptions) -> ShowerFile:
        """Open a file; its unit is its attribute ``energy_unit``, or, where there is none, the user's."""
        return _open(self.name, path, options, options.energy_unit or "")

    def write(self, path: Path, showers: ShowerSource, *, force: bool, layout: str) -> None:
        """Write ShowerData's native form, in bounded memory.

        Raises:
            FileFormatError: When a value may not be written.
            WriteError: When the disk is full.
        """
        with atomic_path(path, force) as part:
            raw = GuardedFile(part)
            failure: Exception | None = None
            try:
                with h5py.File(raw, "w") as file:
                    _write_points(path, file, showers)
                raw.sync()
            except (OSError, RuntimeError) as error:
                failure = error
            finally:
                raw.close()
            if raw.error is not None or failure is not None:
                reason = raw.error.strerror if raw.error is not None else failure
                raise WriteError(f"{path}: writing failed, nothing was kept: {reason}") from (
                    raw.error or failure
                )


def _open(name: str, path: Path, options: ReadOptions, unit: str = "") -> ShowerFile:
    """Open a file that says itself what its content is; ``unit`` is the user's, where it may lack."""
    given = {
        "--key": options.keys,
        "--axes": options.axes,
        "--angle-unit": options.angle_unit,
        "--angle-from": options.angle_from != "plane",
        "--energy": options.energy,
        "--theta": options.theta,
        "--cell-scale": options.cell_scale != 1.0,
        "--energy-unit": options.energy_unit and not unit,
        "--cell-unit": options.cell_unit and options.cell_unit != unit,
    }
    for option, value in given.items():
        if value:
            raise InputError(f"{path}: {option} does not apply to files of the format '{name}'")
    file = open_showers(path, options.detector, unit, options.allow_implausible)
    file.particle, file.source = options.particle or file.particle, options.made_by or file.source
    return file


def _write_points(path: Path, file: h5py.File, showers: ShowerSource) -> None:
    """Fill an empty file with showers in ShowerData's native form."""
    n, points, most = len(showers), Cells(showers.detector).points, 0
    clouds = file.create_dataset(hdf5.CELLS, (n,), h5py.vlen_dtype(np.float32))
    columns: dict[str, Any] = {}
    for start, chunk in checked_chunks(path, showers):
        stop = start + len(chunk)
        hits = Hits.from_cells(chunk.cells)
        rows = np.concatenate([points[hits.cell], hits.energy[:, None]], axis=1)
        for row, (a, b) in enumerate(pairwise(hits.offsets.tolist())):
            clouds[start + row] = rows[a:b].ravel()  # one by one: h5py takes rows of equal length for a table
        most = max(most, int(hits.counts.max(initial=0)))
        others = columns_of(chunk)
        values = {
            hdf5.POINT_ENERGIES: others.pop(hdf5.ENERGIES),
            hdf5.NUMBERS: hits.counts.astype(np.int32),
            hdf5.DIRECTIONS: directions_of(chunk.incident_theta),
            hdf5.PDG: np.full(len(chunk), PARTICLES.get(showers.particle, 0), np.int32),
            "shower_ids": np.arange(start, stop, dtype=np.int32),
            **others,
        }
        for name, table in values.items():
            if name not in columns:
                columns[name] = file.create_dataset(name, (n, *table.shape[1:]), table.dtype)
            columns[name][start:stop] = table
    file[hdf5.SHAPE] = np.array([n, most, 4])
    for name, value in facts_of(showers).items():
        file.attrs[name] = value
    if len(showers.seen):
        file[hdf5.SEEN] = showers.seen


OWN = Own()
SHOWERDATA = ShowerData()
