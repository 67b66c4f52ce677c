"""The files that a training reads: one, or several of one detector that count as one, in the order given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from caloforge.errors import InputError
from caloforge.files import sha256_file
from caloforge.showers import Showers, open_showers, read_showers

__all__ = ["Files", "data_paths", "describe_files", "read_files"]

Files: TypeAlias = "str | Path | Sequence[str | Path]"


def data_paths(data: Files) -> tuple[Path, ...]:
    """Return the paths of one file or of several.

    Raises:
        InputError: When there are none, or one is named twice.
    """
    paths = (Path(data),) if isinstance(data, str | Path) else tuple(Path(path) for path in data)
    if not paths:
        msg = "no file of showers was given; expected at least one"
        raise InputError(msg)
    twice = [path for number, path in enumerate(paths) if path in paths[:number]]
    if twice:
        msg = f"{twice[0]} is given twice; its showers would be trained on and held out at once"
        raise InputError(msg)
    return paths


def read_files(data: Files) -> Showers:
    """Return the showers of all files in memory, one file behind the other.

    Raises:
        FileFormatError: When a file is missing or broken.
        IncompatibleError: When their detectors or conditions differ.
    """
    parts = [read_showers(path) for path in data_paths(data)]
    return parts[0] if len(parts) == 1 else Showers.concatenate(parts)


def describe_files(data: Files) -> dict[str, Any]:
    """Return ``file``, ``sha256`` and ``showers``; of several files also ``files``, the same of each.

    The hash of several files is that of their hashes, one a line.
    """
    each = []
    for path in data_paths(data):
        with open_showers(path) as file:
            each.append({"file": path.name, "sha256": sha256_file(path), "showers": len(file)})
    if len(each) == 1:
        return each[0]
    hashes = "".join(f"{entry['sha256']}\n" for entry in each)
    return {
        "file": " ".join(str(entry["file"]) for entry in each),
        "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "showers": sum(int(str(entry["showers"])) for entry in each),
        "files": each,
    }
