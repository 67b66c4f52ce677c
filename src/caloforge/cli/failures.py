"""What an error means to whoever typed the command: one line and an exit code."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from caloforge.errors import CaloforgeError

__all__ = ["INTERRUPTED", "Failure", "describe"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}


@dataclass(frozen=True)
class Failure:
    """One line for standard error, and the exit code: 2 bad usage or input, 1 failure, 130 interrupted."""

    line: str
    exit_code: int


def describe(error: BaseException) -> Failure | None:
    """Say in one line what went wrong.

    Arguments:
        error: What a verb raised.

    Returns:
        The line and the exit code; None for the exceptions that belong to typer (usage errors, exits).
    """
    if isinstance(error, CaloforgeError):
        return Failure(_one_line(str(error)), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        line = "interrupted; nothing half-written is left, the same command goes on where it can"
        return Failure(line + " (train: add --resume)", INTERRUPTED)
    if isinstance(error, OSError) and not _from_typer(error):
        return _describe_os_error(error)
    if _from_typer(error):
        return None
    if type(error).__module__.startswith("pydantic") and hasattr(error, "errors"):
        return Failure(_one_line(_first_setting(error.errors())), 2)
    name = type(error).__name__
    return Failure(_one_line(f"unexpected {name}: {error} (--debug shows where)"), 1)


def _describe_os_error(error: OSError) -> Failure:
    """Name the file and the reason; a full disk is a failure, a wrong or closed path is bad input."""
    where = f"{error.filename}: " if error.filename is not None else ""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return Failure(_one_line(f"{where}no space left while writing ({reason}); nothing was kept"), 1)
    return Failure(_one_line(f"{where}{reason}"), 2 if error.errno in _REFUSED else 1)


def _first_setting(problems: list[dict[str, Any]]) -> str:
    """Name the first setting that was refused, why, and what was given."""
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    return f"setting '{key}': {first['msg']}, got {first['input']!r}"


def _from_typer(error: BaseException) -> bool:
    """Tell typer's own exceptions (of click, or of the copy of click inside typer) from the others."""
    return any(kind.__module__.partition(".")[0] in {"typer", "click"} for kind in type(error).__mro__)


def _one_line(text: str) -> str:
    return " ".join(text.split())
