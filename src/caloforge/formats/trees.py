"""Trees of ROOT files, read by branches and ranges of entries, with uproot.

uproot and awkward are the extra ``formats`` of caloforge. They raise many kinds of errors for damaged or unusual files; here all become one line about the
file and the branch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError, require
from caloforge.formats.arrays import RowArray
from caloforge.formats.base import guarded
from caloforge.text_files import check_regular

__all__ = ["EXTRA", "BranchRows", "Branches", "find_tree", "is_root", "open_root"]

EXTRA: Final = "formats"
"""Extra of caloforge that installs uproot and awkward."""


def is_root(path: Path) -> bool:
    """Return whether a file begins as those of ROOT do."""
    with path.open("rb") as file:
        return file.read(4) == b"root"


def open_root(path: Path) -> Any:
    """Open a ROOT file for reading.

    Raises:
        MissingExtraError: When uproot is not installed.
        FileFormatError: When it is not there, or not a ROOT file.
    """
    uproot = require("uproot", EXTRA)
    require("awkward", EXTRA)
    check_regular(path)
    with guarded(path, "", "cannot be opened as a ROOT file"):
        return uproot.open(path)


def find_tree(path: Path, file: Any, name: str) -> Any:
    """Return the tree of this name, or, without a name, the only one.

    Raises:
        FileFormatError: When there is none, or there are several.
    """
    kinds = file.classnames(recursive=True, cycle=False)
    trees = [key for key, kind in kinds.items() if kind in ("TTree", "TNtuple")]
    if name and name in trees:
        return file[name]
    if not name and len(trees) == 1:
        return file[trees[0]]
    what = f"has no tree '{name}'" if name else f"has {len(trees) or 'no'} trees (--key tree=NAME)"
    raise FileFormatError(path, "", f"{what}; it has: {', '.join(trees) or 'no trees'}")


class Branches:
    """The branches of a tree by name, read by ranges of entries.

    The full name of a branch is known by its last part too (``events/Hits/Hits.energy`` by ``Hits.energy``).
    """

    def __init__(self, path: Path, tree: Any) -> None:
        self.path, self._tree = path, tree
        self.n = int(tree.num_entries)
        if not 0 <= self.n < 2**62:
            raise FileFormatError(path, "", f"has {self.n} entries; expected showers")
        self.names: dict[str, str] = {}
        for full in tree.keys(recursive=True, full_paths=True):
            parent, _, last = full.rpartition("/")
            if last not in self.names or parent.rpartition("/")[2] == last.partition(".")[0]:
                self.names[last] = full

    def find(self, name: str, role: str) -> str:
        """Return the full name of a branch.

        Raises:
            FileFormatError: When there is none.
        """
        if name in self.names:
            return self.names[name]
        shown = ", ".join(list(self.names)[:12]) + (", ..." if len(self.names) > 12 else "")
        raise FileFormatError(
            self.path, f"branch '{name}'", f"is missing (--key {role}=NAME); the tree has: {shown or 'none'}"
        )

    def flat(self, name: str, role: str, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the values of a branch of lists, one behind the other, and the length of each entry's list.

        Raises:
            FileFormatError: When it is missing, holds no lists of numbers, or is damaged.
        """
        ak = require("awkward", EXTRA)
        found = self._read(name, role, start, stop, lambda array: (ak.flatten(array), ak.num(array)))
        return found[0], found[1].astype(np.int64)

    def array(self, name: str, role: str, start: int, stop: int) -> NDArray[Any]:
        """Return a branch of one value, or an array of fixed shape, for each entry.

        Raises:
            FileFormatError: When it is missing, has lists of several lengths, or is damaged.
        """
        return self._read(name, role, start, stop, lambda array: (array,))[0]

    def _read(
        self, name: str, role: str, start: int, stop: int, parts: Callable[[Any], tuple[Any, ...]]
    ) -> list[NDArray[Any]]:
        full = self.find(name, role)
        with guarded(self.path, f"branch '{name}'", "cannot be read as numbers, or lists of them"):
            array = self._tree[full].array(entry_start=start, entry_stop=stop, library="ak")
            if len(array) != stop - start:
                raise ValueError(f"it has {len(array)} of the entries {start} to {stop - 1}")
            found = [np.asarray(require("awkward", EXTRA).to_numpy(part)) for part in parts(array)]
        if found[0].dtype.kind not in "fiub":
            raise FileFormatError(
                self.path, f"branch '{name}'", f"has type {found[0].dtype}; expected numbers"
            )
        return found


class BranchRows(RowArray):
    """A branch of one value, or an array of fixed shape, for each entry."""

    def __init__(self, branches: Branches, name: str, role: str) -> None:
        self.name, self._branches, self._role = name, branches, role
        first = branches.array(name, role, 0, min(1, branches.n))
        self.shape, self.dtype = (branches.n, *first.shape[1:]), first.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of a range."""
        return self._branches.array(self.name, self._role, start, stop)
