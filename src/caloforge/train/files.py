"""Files, or showers in memory, that a training reads: those that are given or, for a resumed run, those of the run."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from caloforge.errors import CaloforgeWarning, ConfigError, InputError
from caloforge.files import sha256_file
from caloforge.geometry import Detector
from caloforge.showers import ShowerFile, ShowerSource
from caloforge.showers.reading import open_with_default
from caloforge.text_files import listed

__all__ = [
    "IN_MEMORY",
    "Files",
    "data_paths",
    "describe_files",
    "items_of",
    "joined_facts",
    "own_files",
    "path_facts",
]

Files: TypeAlias = "str | Path | ShowerSource | Sequence[str | Path | ShowerSource]"
"""A file of showers, showers in memory, or several of these."""
IN_MEMORY = "showers in memory"
"""Stands for the name of a file."""


def items_of(data: Files) -> tuple[Path | ShowerSource, ...]:
    """Return the paths of files, one or several; showers that are in memory as they are.

    Raises:
        InputError: When there are none, or one is named twice.
    """
    several = [data] if isinstance(data, str | Path | ShowerSource) else list(data)
    items = [one.path if isinstance(one, ShowerFile) else one for one in several]
    paths = [Path(one) if isinstance(one, str | Path) else one for one in items]
    if not paths:
        raise InputError("no file of showers was given; expected at least one")
    for number, path in enumerate(paths):
        if any(path is one or (isinstance(path, Path) and path == one) for one in paths[:number]):
            raise InputError(f"{path} is given twice; its showers would be trained on and held out at once")
    return tuple(paths)


def data_paths(data: Files) -> tuple[Path, ...]:
    """Return the paths of one file or of several.

    Raises:
        InputError: When there are none, one is named twice, or showers are in memory.
    """
    items = items_of(data)
    paths = tuple(item for item in items if isinstance(item, Path))
    if len(paths) < len(items):
        raise InputError("showers in memory were given; expected files: save them first")
    return paths


def describe_files(data: Files, detector: Detector | None = None) -> dict[str, Any]:
    """Return ``file``, ``sha256`` and ``showers``; of several files also ``files``, the same of each.

    The hash of several files is that of their hashes, one a line. ``detector`` is that of files that do not name their own.
    """
    each = []
    for path in data_paths(data):
        with open_with_default(path, detector) as file:
            each.append({"file": path.name, "sha256": sha256_file(path), "showers": len(file)})
    return joined_facts(each)


def joined_facts(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is known of several files as :func:`describe_files` does."""
    if len(each) == 1:
        return each[0]
    hashes = "".join(f"{entry['sha256']}\n" for entry in each)
    return {
        "file": " ".join(entry["file"] for entry in each),
        "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "showers": sum(entry["showers"] for entry in each),
        "files": each,
    }


def path_facts(data: Files) -> list[str]:
    """Return where the files of a training are, for ``run.json``; empty texts for showers in memory."""
    return [str(item.absolute()) if isinstance(item, Path) else "" for item in items_of(data)]


def own_files(folder: Path, before: Mapping[str, Any], data: Files | None) -> Files:
    """Return the files of a run that goes on, in its order.

    Arguments:
        folder: The run folder.
        before: What its ``run.json`` says.
        data: What is given: nothing, or files among which the run's are found by their names; others, which came later, are left out.

    Raises:
        ConfigError: When the run's files are not found; names some.
    """
    facts = before["data"].get("files") or [before["data"]]
    names = [str(entry["file"]) for entry in facts]
    if data is None:
        return _stored_files(folder, names, [str(path) for path in before.get("paths", ())])
    given = items_of(data)
    if len(given) == len(names) or not all(isinstance(one, Path) for one in given):
        return given if len(given) > 1 else given[0]  # their hash is compared when they are read
    left = [one for one in given if isinstance(one, Path)]
    chosen: list[Path] = []
    for name in names:
        fitting = [path for path in left if path.name == name]
        if fitting:
            chosen.append(fitting[0])
            left.remove(fitting[0])
    if len(chosen) < len(names):
        missing = [name for name in names if name not in {path.name for path in chosen}]
        raise ConfigError(
            f"{folder}: cannot resume without {listed(missing)}, which the run was started with"
        )
    warnings.warn(
        f"{folder}: the run continues with its files; left out: {listed(path.name for path in left)}",
        CaloforgeWarning,
        stacklevel=2,
    )
    return chosen


def _stored_files(folder: Path, names: Sequence[str], stored: Sequence[str]) -> Files:
    """Return the files where they were."""
    if not stored or not all(stored):
        what = (
            "was trained on showers in memory" if IN_MEMORY in names else "does not say where its files are"
        )
        raise ConfigError(f"{folder}: {what}; name the same data to continue: {listed(names)}")
    paths = [Path(text) for text in stored]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{folder}: cannot resume without {listed(missing)}; name the files where they are now"
        )
    return paths if len(paths) > 1 else paths[0]
