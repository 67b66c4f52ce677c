"""Arrays that a study has computed, kept under OUTPUT/cache and found again after an interruption.

An entry is a file ``NAME.npz`` with its arrays and the hash of everything that they depend on: the source code that
computes them, the settings and the seed of the study, the hashes of the files and models. Where the hash differs, the
entry is computed again and replaced.
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

from caloforge.files import atomic_path, source_digest

__all__ = ["CODE", "Cache", "digest_of"]

CODE = ("geometry", "showers", "statistics", "models", "generate", "validate", "studies", "random.py")
"""Parts of the package that compute what studies keep."""
_HASH = "__hash__"


def digest_of(*parts: Any) -> str:
    """Return the SHA-256 of plain values and of the source code by which studies compute."""
    content = json.dumps([source_digest(*CODE), *parts], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


class Cache:
    """Arrays by name.

    Arguments:
        folder: Where the files are; None keeps nothing.
        common: What every entry depends on: the settings of the study, its seed.
        showers: Folder of generated showers, which several studies may share; by default the same folder.
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
        path, wanted = None, ""
        if self.folder is not None:
            path, wanted = self.folder / f"{name}.npz", digest_of(name, self.common, list(inputs))
            found = _read(path, wanted)
            if found is not None:
                return found
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path, force=True) as part, part.open("wb") as handle:
                np.savez(handle, **arrays, **{_HASH: np.array(wanted)})  # type: ignore[arg-type]
        return arrays


def _read(path: Path, wanted: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a file, or None when it is not there, broken, or of other inputs."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored[_HASH]) != wanted:
                return None
            return {key: stored[key] for key in stored.files if key != _HASH}
    except (OSError, KeyError, ValueError, BadZipFile, EOFError):
        return None
