"""Files and their provenance: outputs that are whole or not there, hashes, and which source code made a result.

A result kept on disk is used again only while its inputs, its settings and the code that computed it are the same. The
version of the package does not change with every change of the code; :func:`source_digest` does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from caloforge.errors import FileFormatError, OutputError, OutputExistsError, WriteError

__all__ = [
    "atomic_path",
    "check_output",
    "check_regular",
    "dump_json",
    "ensure_output_dir",
    "parse_json",
    "parse_toml",
    "read_json",
    "read_text",
    "read_toml",
    "sha256_file",
    "source_commit",
    "source_digest",
    "write_json",
]

TEXT_BYTES = 64 * 2**20
"""Largest text that is read."""
TOML_BYTES = 2**20
"""Largest TOML file that is read: these are written by hand."""
_DEPTH = 64  # of nested values
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output(path: str | Path, force: bool = False) -> Path:
    """Check before any work that a file can be written.

    Raises:
        OutputExistsError: When it exists and ``force`` is not set.
        OutputError: When its folder does not exist, is not a folder, or is not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    if path.exists() and not force:
        raise OutputExistsError(path)
    folder = path.parent
    if not folder.exists():
        raise OutputError(f"{path}: the folder {folder} does not exist")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} is not writable")
    return path


@contextmanager
def atomic_path(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it when the block ends well.

    Raises:
        OutputExistsError: When ``path`` exists and ``force`` is not set.
        OutputError: When it cannot be written there.
        WriteError: When the disk is full; the temporary file is removed.
    """
    path = check_output(path, force)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno in _FULL:
            raise WriteError(f"{path}: no space left while writing; nothing was kept") from error
        raise
    finally:
        part.unlink(missing_ok=True)


def ensure_output_dir(path: str | Path, force: bool = False) -> Path:
    """Make an output folder; ``force`` accepts one that is not empty, to replace files or to continue the work in it.

    Raises:
        OutputExistsError: When it is not empty and ``force`` is not set.
        OutputError: When it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder is not writable")
    if any(path.iterdir()) and not force:
        raise OutputExistsError(path)
    return path


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def dump_json(content: Any) -> str:
    """Return JSON text; not-a-number becomes null, since JSON has none."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON in one piece; not-a-number becomes null, since JSON has none."""
    path = Path(path)
    with atomic_path(path, force=True) as part:
        part.write_text(dump_json(content) + "\n")
    return path


def read_text(path: str | Path, limit: int = TEXT_BYTES) -> str:
    """Read a small text file whole.

    Raises:
        FileFormatError: When it is missing, no regular file (a pipe, a device), larger than ``limit`` bytes, or not UTF-8.
    """
    try:
        check_regular(path, limit)
        with Path(path).open("rb") as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise FileFormatError(path, "", f"cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            path, "", f"is not text in UTF-8: {error.reason} at byte {error.start}"
        ) from error


def check_regular(path: str | Path, limit: int | None = None) -> int:
    """Return the size of a regular file in bytes.

    Raises:
        FileFormatError: When it is missing, a folder, a pipe or a device, or larger than ``limit``.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise FileFormatError(
            path, "", "no such file" if missing else f"cannot be read: {error.strerror}"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise FileFormatError(path, "", f"is {what}, not a file")
    if limit is not None and found.st_size > limit:
        raise FileFormatError(path, "", f"has {found.st_size:,} bytes; expected at most {limit:,}")
    return found.st_size


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file, an object.

    Raises:
        FileFormatError: When it cannot be read as text, or is not JSON.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, where: str | Path) -> dict[str, Any]:
    """Return the object of JSON text: of plain depth, its integers of 64 bits, its numbers finite.

    Raises:
        FileFormatError: When it is not JSON, no object, or has other values; names ``where``.
    """
    found = _parsed(lambda: json.loads(text, parse_constant=_no_number, parse_float=_finite), "JSON", where)
    if not isinstance(found, dict):
        raise FileFormatError(
            where, "", f"is not JSON of the right kind: {type(found).__name__}, expected an object"
        )
    return found


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        FileFormatError: When it is missing or not TOML.
    """
    return parse_toml(read_text(path, TOML_BYTES), path)


def parse_toml(text: str, where: str | Path) -> dict[str, Any]:
    """Return the values of TOML text; see :func:`parse_json`.

    Raises:
        FileFormatError: When it is not TOML; names ``where``.
    """
    found: dict[str, Any] = _parsed(lambda: tomllib.loads(text), "TOML", where)
    return found


def _parsed(parse: Callable[[], Any], language: str, where: str | Path) -> Any:
    try:
        found = parse()
    except RecursionError as error:
        raise FileFormatError(where, "", f"is nested deeper than {_DEPTH} levels") from error
    except ValueError as error:  # those of both parsers are, and of integers with thousands of digits
        reason = "a number has too many digits" if "int_max_str_digits" in str(error) else error
        raise FileFormatError(where, "", f"is not {language}: {reason}") from error
    waiting = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEPTH:
            raise FileFormatError(where, "", f"is nested deeper than {_DEPTH} levels")
        if isinstance(value, dict | list):
            waiting.extend((one, depth + 1) for one in (value.values() if isinstance(value, dict) else value))
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise FileFormatError(where, "", "has an integer of more than 64 bits")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:20])


def _plain(value: Any) -> Any:
    """Turn NumPy values, paths and non-finite numbers into plain JSON values."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Path):
        return str(value)
    return value


_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE.parents[1]


def source_commit(root: Path = _ROOT) -> str | None:
    """Return the commit of the checkout that the package runs from, with ``-dirty`` when tracked files were changed.

    Returns:
        40 hexadecimal digits, or None where there is no checkout or no git.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@cache
def source_digest(*parts: str) -> str:
    """Return 16 hexadecimal digits, which change with any line of these modules, to key cached results by.

    ``parts`` are folders or modules below the package, such as ``validate/metrics`` or ``random.py``.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = _PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(_PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
