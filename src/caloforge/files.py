"""Files and their provenance: outputs that are whole or not there, hashes, and which source code made a result.

A result kept on disk is used again only while its inputs, its settings and the code that computed it are the same. The
version of the package does not change with every change of the code; :func:`source_digest` does.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from caloforge.errors import OutputError, OutputExistsError, WriteError

__all__ = [
    "atomic_path",
    "check_output",
    "dump_json",
    "ensure_output_dir",
    "is_empty",
    "lock_folder",
    "sha256_file",
    "source_commit",
    "source_digest",
    "write_json",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PART = re.compile(r"\.(?P<name>.*)\.[0-9a-f]{8}\.part")  # a temporary name
_LONGEST = 200  # bytes of a name that its temporary name repeats
_LOCK = ".lock"
_OF_FILES = {
    ".csv", ".gz", ".h5", ".hdf5", ".htm", ".html", ".json", ".md", ".npy", ".npz", ".onnx", ".pdf", ".png", ".pt", ".pt2",
    ".root", ".safetensors", ".svg", ".toml", ".txt", ".xz", ".zip",
}  # fmt: skip
"""Endings that a folder to make does not have: who writes one means a file."""


def check_output(path: str | Path, force: bool = False) -> Path:
    """Check before any work that a file can be written; remove what a killed process left of an earlier attempt.

    A symbolic link is followed.

    Raises:
        OutputExistsError: When it exists and ``force`` is not set.
        OutputError: When its folder does not exist, is not a folder, or is not writable; when there is something that is not a regular
            file; when another process is writing it and ``force`` is not set.
    """
    path = Path(path)
    real = _followed(path)
    if real.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    if real.exists() and not real.is_file():
        raise OutputError(f"{path} is not a regular file and is not replaced; expected the name of a file")
    folder = real.parent
    if not folder.exists():
        raise OutputError(f"{path}: the folder {folder} does not exist")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} is not writable")
    others = _sweep(folder, _stem(real.name))
    if real.exists() and not force:
        raise OutputExistsError(path)
    if others and not force:
        raise OutputError(f"{path}: another process is writing it; wait for it or name another output")
    return path


@contextmanager
def atomic_path(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield the path of an empty temporary file beside ``path``, and rename it when the block ends well.

    The content is on the disk before it gets its name. Without ``force`` the renaming replaces nothing, whatever appeared under the name
    meanwhile. The temporary file is locked, so that what a killed process left is known, and removed with the next attempt.
    The block writes into that file; files that it makes beside it are named after it (``part.name`` and more) and removed with it.

    Raises:
        OutputExistsError: When ``path`` exists and ``force`` is not set; when it was written by another process meanwhile.
        OutputError: When it cannot be written there.
        WriteError: When the disk is full; the temporary file is removed.
    """
    path = check_output(path, force)
    real = _followed(path)
    try:
        part, handle = _new_part(real)
        try:
            yield part
            _commit(part, handle, real, path, force)
        finally:
            handle.close()
            _remove_part(part)
    except OSError as error:
        if error.errno in _FULL:
            raise WriteError(f"{path}: no space left while writing; nothing was kept") from error
        raise


def _followed(path: Path) -> Path:
    """Return the file that a path means, at the end of symbolic links."""
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OutputError(f"{path} is a symbolic link that leads nowhere; expected the name of a file")
    return real


def _stem(name: str) -> str:
    return os.fsencode(name)[:_LONGEST].decode(errors="ignore")


def _new_part(real: Path) -> tuple[Path, IO[bytes]]:
    """Make an empty temporary file, locked as long as the handle is open."""
    while True:
        part = real.with_name(f".{_stem(real.name)}.{secrets.token_hex(4)}.part")
        try:
            handle = part.open("x+b")
        except FileExistsError:
            continue
        if _lock(handle) is not False and _is_at(handle, part):
            return part, handle
        handle.close()  # swept by another process before it was locked


def _commit(part: Path, handle: IO[bytes], real: Path, path: Path, force: bool) -> None:
    """Put a finished temporary file on the disk and give it its name."""
    if not part.exists():
        raise WriteError(f"{path}: the temporary file {part.name} was removed while it was written")
    os.fsync(handle.fileno())
    if os.name == "nt":
        handle.close()  # an open file cannot be renamed there
    if force:
        os.replace(part, real)
    else:
        try:
            os.link(part, real)  # unlike a renaming, never replaces
        except FileExistsError:
            raise OutputExistsError(path) from None
        except OSError as error:
            if error.errno in _FULL:
                raise
            _rename_new(part, real, path)  # a file system without hard links
    _sync_folder(real.parent)


def _rename_new(part: Path, real: Path, path: Path) -> None:
    """Rename a file to a name that nothing has, where there are no hard links: the name is taken first."""
    try:
        real.open("xb").close()
    except FileExistsError:
        raise OutputExistsError(path) from None
    os.replace(part, real)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lock(handle: IO[bytes]) -> bool | None:
    """Lock an open file until it is closed; whether it was free, None where the system has no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _is_at(handle: IO[bytes], path: Path) -> bool:
    """Whether an open file still is what has the name."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_part(part: Path) -> None:
    """Remove a temporary file and what was made beside it under its name."""
    part.unlink(missing_ok=True)
    for path in part.parent.glob(f"{glob.escape(part.name)}.*"):
        with suppress(OSError):
            path.unlink()


def _sweep(folder: Path, stem: str | None = None) -> bool:
    """Remove temporary files that no process writes any more, of one output or of all; whether some are being written."""
    busy = False
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.name.endswith(".part")]
    for name in found:
        match = _PART.fullmatch(name)
        if match is None or stem not in (None, match["name"]):
            continue
        with suppress(OSError), (folder / name).open("r+b") as handle:
            free = _lock(handle)
            if free:
                _remove_part(folder / name)
            busy |= free is False
    return busy


def _check_folder_name(path: Path) -> None:
    """Refuse to make a folder whose name is that of a file; one that is there stays usable."""
    if path.suffix.lower() in _OF_FILES and not path.is_dir():
        raise OutputError(
            f"{path} is the name of a file; expected that of a folder, in which several files are written, such as {path.with_suffix('')}"
        )


def ensure_output_dir(path: str | Path, force: bool = False) -> Path:
    """Make an output folder; ``force`` accepts one that is not empty, to replace files or to continue the work in it.

    Raises:
        OutputExistsError: When it is not empty and ``force`` is not set; see :func:`is_empty`.
        OutputError: When it cannot be made or written to, or its name ends as those of files do (``report.html``).
    """
    path = Path(path)
    _check_folder_name(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder is not writable")
    if not force and not is_empty(path):
        raise OutputExistsError(path)
    return path


def is_empty(folder: Path, besides: Container[str] = ()) -> bool:
    """Whether a folder has no files but those named, locks, and what a killed process left of files that it was writing."""
    for _, _, names in os.walk(folder):
        for name in names:
            if name not in besides and name != _LOCK and not _PART.match(name):
                return False
    return True


@contextmanager
def lock_folder(path: str | Path) -> Iterator[Path]:
    """Keep other processes from working in an output folder while the block runs, and remove what killed ones left there.

    The folder is made when it is not there, and removed again when the block leaves it empty.

    Raises:
        OutputExistsError: When it is a file.
        OutputError: When another process works in it, it cannot be made or written to, or its name ends as those of files do.
    """
    folder = Path(path)
    _check_folder_name(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(folder)
    with _locked(folder):
        for parent, _, _ in os.walk(folder):
            _sweep(Path(parent))
        try:
            yield folder
        finally:
            (folder / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the file of locks in a folder."""
    while True:
        ensure_output_dir(folder, force=True)
        try:
            handle = (folder / _LOCK).open("ab")
        except FileNotFoundError:
            continue  # another process, which has just finished, removed the folder
        except OSError as error:
            if error.errno in _FULL:
                raise WriteError(f"{folder}: no space left while writing") from error
            raise OutputError(f"{folder}: the folder is not writable: {error.strerror}") from error
        with handle:
            if _lock(handle) is False:
                raise OutputError(
                    f"{folder}: another run is working on it; wait for it or name another output"
                )
            if not _is_at(handle, folder / _LOCK):
                continue
            yield
            return


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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


def dump_json(content: Any) -> str:
    """Return JSON text; not-a-number becomes null, since JSON has none."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON in one piece; not-a-number becomes null, since JSON has none."""
    path = Path(path)
    with atomic_path(path, force=True) as part:
        part.write_text(dump_json(content) + "\n")
    return path


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
