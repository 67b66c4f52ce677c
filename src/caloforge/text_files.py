"""Small text files, JSON and TOML: read whole or refused in one line, whatever they hold.

A file is regular, of bounded size and in UTF-8; its values are nested to plain depth, its integers have 64 bits, its numbers are finite.
"""

from __future__ import annotations

import json
import math
import os
import stat
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from caloforge.errors import FileFormatError

__all__ = [
    "TEXT_BYTES",
    "TOML_BYTES",
    "check_regular",
    "listed",
    "parse_json",
    "parse_toml",
    "read_json",
    "read_record",
    "read_text",
    "read_toml",
]

TEXT_BYTES = 64 * 2**20
"""Largest text that is read."""
TOML_BYTES = 2**20
"""Largest TOML file that is read: these are written by hand."""
_DEPTH = 64  # of nested values


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


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return names for a message, not more than some: ``a.h5, b.h5, c.h5 and 101 more``."""
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most + 1 else ""
    return ", ".join(known[:most] if more else known) + more


def read_record(path: str | Path) -> dict[str, Any] | None:
    """Return what was kept in a JSON file, or None when it is not there or damaged: then it is made again."""
    try:
        return read_json(path)
    except FileFormatError:
        return None


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
