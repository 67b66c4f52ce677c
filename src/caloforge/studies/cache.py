"""What a study has computed already: arrays under OUTPUT/cache, found again after an interruption.

An entry is a file ``NAME.npz`` with its arrays and the hash of everything that it depends on. Where the hash differs,
the entry is computed again and replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge._version import __version__
from caloforge.files import atomic_path

__all__ = ["Cache"]

_HASH = "__hash__"


class Cache:
    """Arrays by name.

    Arguments:
        folder: Where the files are; None keeps nothing.
        common: What every entry depends on: the settings of the study, its seed.
        showers: Where the showers of models are kept, which several studies may share; by default the same folder.
    """

    def __init__(self, folder: Path | None, common: Any = None, showers: Path | None = None) -> None:
        self.folder, self.common = folder, common
        self.showers = showers or folder

    def get(
        self, name: str, compute: Callable[[], Mapping[str, ArrayLike]], *inputs: Any
    ) -> dict[str, NDArray[Any]]:
        """Return the arrays of an entry, computed when it is not there.

        Arguments:
            name: Name of the entry, a file name.
            compute: Returns the arrays by name.
            inputs: What the entry depends on beside the common things, such as a file's SHA-256; plain values.
        """
        if self.folder is None:
            return {key: np.asarray(value) for key, value in compute().items()}
        path = self.folder / f"{name}.npz"
        wanted = self._hash(name, inputs)
        found = _read(path, wanted)
        if found is not None:
            return found
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, force=True) as part, part.open("wb") as handle:
            np.savez(handle, **arrays, **{_HASH: np.array(wanted)})  # type: ignore[arg-type]
        return arrays

    def _hash(self, name: str, inputs: tuple[Any, ...]) -> str:
        parts = [__version__, name, self.common, list(inputs)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path, wanted: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a file, or None when it is not there, broken, or of other inputs."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored[_HASH]) != wanted:
                return None
            return {key: stored[key] for key in stored.files if key != _HASH}
    except (OSError, KeyError, ValueError, BadZipFile, EOFError):
        return None
