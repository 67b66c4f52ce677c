"""Exceptions of caloforge, and the import of optional dependencies.

Each has the exit code of the command line: 2 for bad usage or input, 1 for a failure of the work itself. Every message is
one line that says what is wrong, where, and what was expected.

Messages name the options of the command line. Where they are read in Python, :func:`spoken` names the arguments instead: ``--allow-seen``
becomes ``allow_seen=True``, ``--axes zxy`` becomes ``axes='zxy'``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = [
    "CaloforgeError",
    "CaloforgeWarning",
    "ClusterError",
    "ConfigError",
    "FileFormatError",
    "GateError",
    "Geant4DataError",
    "IncompatibleError",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "OutputExistsError",
    "SameShowersWarning",
    "SeenShowersError",
    "SimulationError",
    "TooFewShowersError",
    "TrainingError",
    "UnfinishedError",
    "UnitError",
    "UnknownNameError",
    "WriteError",
    "did_you_mean",
    "options_in_messages",
    "require",
    "spoken",
]


_LONGEST = 60  # characters of a name that is looked for among the known ones

ARGUMENTS = {
    "allow-extrapolation": "allow_extrapolation=True", "allow-gaps": "gaps=True", "allow-implausible": "allow_implausible=True",
    "allow-seen": "allow_seen=True", "clip-negative": "clip_negative=True", "compile": "compiled=True", "download-data": "download_data=True",
    "drop-outside": "drop_outside=True", "force": "force=True", "match-conditions": "match_conditions=True",
    "reconstruction": "reconstruction=True", "resume": "resume=True",
    "angle-from": "angle_from", "angle-unit": "angle_unit", "axes": "axes", "cell-scale": "cell_scale", "cell-unit": "cell_unit",
    "detector": "detector", "device": "device", "devices": "devices", "energy": "energy", "energy-unit": "energy_unit", "first": "first",
    "format": "format", "from": "start", "key": "keys", "layout": "layout", "like": "like", "number": "number", "origin": "origin",
    "parts": "parts", "precision": "precision", "preset": "preset", "pretrain": "pretrain", "scheduler": "scheduler", "search": "search",
    "seed": "seed", "set": "settings", "theta": "theta", "time": "time_limit", "truth": "reference",
}  # fmt: skip
"""Options that messages of the library name, and the arguments of its functions that they stand for; of flags with the value."""
_OPTION = re.compile(
    rf"(?<![\w-])--({'|'.join(sorted(ARGUMENTS, key=len, reverse=True))})(?![\w-])"
    r"(?: (\w+=[A-Z]+\b|\d[\w.]*|[A-Z]{2,}(?:\.toml)?\b|[xyzar]{3}\b|(?:rad|deg|normal|opposite|cpu|float32|gflash|[kMG]eV)\b))?"
)
_options = False


class CaloforgeError(Exception):
    """Base of every error that caloforge raises on purpose; it can be pickled, whatever its constructor takes."""

    exit_code = 1

    def __str__(self) -> str:
        return spoken(str(self.args[0])) if len(self.args) == 1 else super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args), vars(self)


def _rebuild(kind: type[CaloforgeError], args: tuple[Any, ...]) -> CaloforgeError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InputError(CaloforgeError, ValueError):
    """Bad usage or bad input: nothing was started."""

    exit_code = 2


class UnknownNameError(InputError, KeyError):
    """A name that no registry entry has; ``close`` are the names that may have been meant, by default those that look like it."""

    def __init__(self, kind: str, name: str, known: list[str], close: Sequence[str] = ()) -> None:
        self.kind, self.name, self.known = kind, name, known
        close = close or _near(name, known)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        super().__init__(f"unknown {kind} '{name:.80}'; {meant}known: {', '.join(known)}")


class ConfigError(InputError):
    """An invalid configuration value or file."""


class UnitError(InputError):
    """A quantity without its unit, or with one that does not fit."""


class FileFormatError(InputError):
    """A file with missing or invalid content: says which file, which dataset or row, and what was expected."""

    def __init__(self, path: str | Path, where: str, message: str) -> None:
        self.path, self.where = Path(path), where
        super().__init__(f"{path}: {where}: {message}" if where else f"{path}: {message}")


class OutputError(InputError):
    """An output that cannot be written."""


class OutputExistsError(OutputError):
    """An output that is already there; nothing was overwritten."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        super().__init__(f"{path} exists already; use --force to replace it or name another output")


class IncompatibleError(InputError):
    """Two inputs that do not fit each other (detectors, conditions, versions)."""


class SeenShowersError(InputError):
    """A model would be judged by showers that trained or selected it."""


class MissingExtraError(InputError):
    """An optional dependency that is not installed; names the command that installs it."""

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        super().__init__(f"'{module}' is not installed; install it with: pip install 'caloforge[{extra}]'")


class Geant4DataError(InputError):
    """Geant4's physics tables are not found."""


class TooFewShowersError(InputError):
    """Fewer showers than the calculation needs."""


class WriteError(CaloforgeError):
    """Writing failed on the way (for example a full disk); no half-written output is left."""


class ClusterError(CaloforgeError):
    """A cluster that lost its scheduler, or workers again and again."""


class SimulationError(CaloforgeError):
    """The simulation did not finish."""


class TrainingError(CaloforgeError):
    """A process of a training on several devices died."""


class UnfinishedError(CaloforgeError):
    """A training that ended before all of its stages were trained; the trained stages are kept."""


class CaloforgeWarning(UserWarning):
    """Base of the warnings of caloforge."""

    def __str__(self) -> str:
        return spoken(super().__str__())


class SameShowersWarning(CaloforgeWarning):
    """Showers that are made have been made before, into another file of the same folder."""


class GateError(CaloforgeError):
    """A validation limit was exceeded."""


def did_you_mean(name: str, known: Sequence[str], most: int = 40, both: bool = False) -> str:
    """Return the end of a message on an unknown name: what was perhaps meant, or, or with ``both`` also, at most so many known names."""
    near = _near(name, known)
    meant = f"did you mean {' or '.join(near)}?" if near else ""
    listed = f"known: {', '.join(known[:most])}"
    return " ".join(filter(None, (meant, listed))) if both else meant or listed


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Return up to three names that look like one, the most similar first; case and the part before a slash may differ."""
    word, short = str(name)[:_LONGEST].lower(), {one.lower(): one for one in known}
    if word in short:
        return [short[word]]
    tails = {one.rpartition("/")[2]: short[one] for one in reversed(short)}
    found = get_close_matches(word, list(short), n=3, cutoff=0.6) or get_close_matches(
        word, list(tails), n=3, cutoff=0.75
    )
    return [short[one] if one in short else tails[one] for one in found]


@contextmanager
def options_in_messages() -> Iterator[None]:
    """Let messages name options of the command line, not arguments of functions, while the block runs."""
    global _options
    before, _options = _options, True
    try:
        yield
    finally:
        _options = before


def spoken(text: str) -> str:
    """Return a message with the arguments of functions in place of options, except on the command line."""
    return text if _options else _OPTION.sub(_argument, text)


def _argument(found: re.Match[str]) -> str:
    name, value = ARGUMENTS[found[1]], found[2]
    if value is None or name.endswith("=True"):
        return name + (f" {value}" if value else "")
    key, equals, word = value.partition("=")
    if equals:
        return f"{name}={{'{key}': '{word}'}}"
    plain = value.isupper() or value.endswith(".toml") or re.fullmatch(r"[\d.]+", value)
    return f"{name}={value}" if plain else f"{name}='{value}'"


def require(module: str, extra: str) -> Any:
    """Import an optional module, such as ``sklearn.metrics``, which the extra of caloforge installs, such as ``eval``.

    Raises:
        MissingExtraError: When it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        raise MissingExtraError(top, extra) from error
