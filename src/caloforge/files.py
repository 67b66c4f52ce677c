"""Files and their provenance: outputs that are whole or not there, hashes, and which source code made a result.

A result kept on disk is used again only while its inputs, its settings and the code that computed it are the same. The
version of the package does not change with every change of the code; :func:`source_digest` does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from caloforge.errors import FileFormatError, OutputError, OutputExistsError, WriteError

__all__ = [
    "atomic_path",
    "check_output",
    "dump_json",
    "ensure_output_dir",
    "read_json",
    "read_toml",
    "sha256_file",
    "source_commit",
    "source_digest",
    "write_json",
]

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


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        FileFormatError: When it is missing or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(path, "", f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(path, "", f"is not TOML: {error}") from error


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
