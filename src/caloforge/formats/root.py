"""ROOT files with a tree of showers, an entry each, read and written with uproot.

What is written is the tree ``showers`` with these branches, and beside it the text ``caloforge``, the attributes of the file as JSON:

- ``incident_energy`` MeV, ``incident_theta`` degrees where there are angles, and each condition as ``condition_NAME``;
- the cells with energy as lists of equal length ``hit_cell`` (flat index), ``hit_x``, ``hit_y`` (mm, centre of the cell), ``hit_z`` (mm, depth of its layer),
  ``hit_layer`` and ``hit_energy`` MeV.

Other trees are read by names (``--key``): ``tree``, ``energy`` and ``theta``, with either ``cells`` (an array of fixed shape, or flat), or ``hit_energy`` with
``hit_cell`` or with ``hit_x``, ``hit_y`` and ``hit_z``. Entries are read by ranges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError, InputError, WriteError, require
from caloforge.files import atomic_path
from caloforge.formats.arrays import CONDITION, ArrayTable
from caloforge.formats.base import Format, ReadOptions, Table, checked_chunks, facts_of, guarded
from caloforge.formats.hits import HitTable
from caloforge.formats.trees import EXTRA, Branches, BranchRows, find_tree, is_root, open_root
from caloforge.showers import Hits, ShowerSource, hdf5
from caloforge.showers.sparse import Cells
from caloforge.showers.writing import columns_of
from caloforge.text_files import parse_json

__all__ = ["ROOT", "RootFiles"]

_TREE, _FACTS, _SEEN = "showers", "caloforge", "seen_identities"
_CONDITION = "condition_"
_USUAL = {
    "energy": "incident_energy",
    "theta": "incident_theta",
    "hit_cell": "hit_cell",
    "hit_energy": "hit_energy",
}


@dataclass(frozen=True)
class RootFiles(Format):
    """ROOT trees."""

    general: ClassVar[bool] = True
    name: str = "root"
    summary: str = "ROOT: the tree of caloforge, or any tree, named with --key"
    endings: tuple[str, ...] = (".root",)
    writes: bool = True

    def matches(self, path: Path) -> bool:
        """Return whether a file is one of ROOT's."""
        return is_root(path)

    def open(self, path: Path, options: ReadOptions) -> Table:
        """Open a tree.

        Raises:
            MissingExtraError: When uproot is not installed.
            FileFormatError: When the file or the tree is not what it should be.
        """
        file = open_root(path)
        try:
            with guarded(path):
                return self._table(path, file, options)
        except BaseException:
            file.close()
            raise

    def _table(self, path: Path, file: Any, options: ReadOptions) -> Table:
        facts = _read_facts(file)
        ours = "caloforge_version" in facts
        branches = Branches(path, find_tree(path, file, options.keys.get("tree", _TREE if ours else "")))
        usual = _USUAL | {
            CONDITION + name.removeprefix(_CONDITION): name
            for name in branches.names
            if name.startswith(_CONDITION)
        }
        keys = {role: name for role, name in usual.items() if ours and name in branches.names}
        keys |= {role: name for role, name in options.keys.items() if role != "tree"}
        if "cells" in keys:
            opened = partial(BranchRows, branches)
            return ArrayTable(path, keys, opened, facts=facts, close=file.close)
        places = {"hit_cell"} if "hit_cell" in keys else {"hit_x", "hit_y", "hit_z"}
        if missing := sorted(({"hit_energy"} | places) - set(keys)):
            message = (
                f"does not say where its cells are: name {', '.join(missing)}, or cells (--key ROLE=BRANCH)"
            )
            raise FileFormatError(
                path, "", f"{message}; the tree has: {', '.join(list(branches.names)[:12])}"
            )
        table = HitTable(branches, keys, options, facts, file.close)
        if ours and set(options.keys) <= {"tree"}:
            table.trust()
            if _SEEN in file:
                table.seen = np.asarray(file[_SEEN]["identity"].array(library="np"), np.uint64)
        return table

    def write(self, path: Path, showers: ShowerSource, *, force: bool, layout: str) -> None:
        """Write the tree, chunk by chunk.

        Raises:
            MissingExtraError: When uproot or awkward is not installed.
            WriteError: When the disk is full.
        """
        uproot, ak = require("uproot", EXTRA), require("awkward", EXTRA)
        points = Cells(showers.detector).points
        depth = np.array([layer.z for layer in showers.detector.layers], np.float32)
        with atomic_path(path, force) as part:
            try:
                with uproot.recreate(part) as file:
                    tree = None
                    for _, chunk in checked_chunks(path, showers):
                        content = _entries(ak, chunk, points, depth)
                        if tree is None:
                            kinds = {name: _kind(ak, values) for name, values in content.items()}
                            tree = file.mktree(_TREE, kinds, title="showers of caloforge")
                        tree.extend(content)
                    if tree is None:
                        raise InputError(f"{path}: no showers to write; expected at least one")
                    file[_FACTS] = json.dumps(facts_of(showers), default=str)
                    if len(showers.seen):
                        file.mktree(_SEEN, {"identity": np.uint64}).extend({"identity": showers.seen})
            except OSError as error:
                raise WriteError(
                    f"{path}: writing failed, nothing was kept: {error.strerror or error}"
                ) from error


def _entries(ak: Any, chunk: Any, points: NDArray[np.float32], depth: NDArray[np.float32]) -> dict[str, Any]:
    """Return the branches of some showers."""
    hits = Hits.from_cells(chunk.cells)
    x, y, layer = points[hits.cell].T
    number = layer.astype(np.int32)
    lists = {
        "cell": hits.cell, "x": x, "y": y, "z": depth[number], "layer": number, "energy": hits.energy,
    }  # fmt: skip
    columns = columns_of(chunk)
    content: dict[str, Any] = {"incident_energy": columns.pop(hdf5.ENERGIES)[:, 0]}
    if hdf5.THETA in columns:
        content["incident_theta"] = columns.pop(hdf5.THETA)[:, 0]
    for name, values in columns.items():
        content[_CONDITION + name.removeprefix(f"{hdf5.CONDITIONS}/")] = values
    lengths = {
        name: ak.unflatten(np.ascontiguousarray(values), hits.counts) for name, values in lists.items()
    }
    return content | {"hit": ak.zip(lengths)}


def _kind(ak: Any, values: Any) -> Any:
    """Return the type of a branch."""
    if isinstance(values, np.ndarray):
        return np.dtype((values.dtype, values.shape[1:]))
    return ak.type(values).content


def _read_facts(file: Any) -> dict[str, Any]:
    """Return the attributes that caloforge wrote; nothing of others."""
    if f"{_FACTS};1" not in file.keys(recursive=False):
        return {}
    return parse_json(str(file[_FACTS]), _FACTS)


ROOT = RootFiles()
