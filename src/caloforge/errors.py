"""Exceptions of caloforge, and the import of optional dependencies.

Each has the exit code of the command line: 2 for bad usage or input, 1 for a failure of the work itself. Every message is
one line that says what is wrong, where, and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = [
    "CaloforgeError",
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
    "require",
]


_LONGEST = 60  # characters of a name that is looked for among the known ones


class CaloforgeError(Exception):
    """Base of every error that caloforge raises on purpose; it can be pickled, whatever its constructor takes."""

    exit_code = 1

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
    """A name that no registry entry has; ``close`` are the names that may have been meant."""

    def __init__(self, kind: str, name: str, known: list[str], close: Sequence[str] = ()) -> None:
        self.kind, self.name, self.known = kind, name, known
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        super().__init__(f"unknown {kind} '{name:.80}'; {meant}known: {', '.join(known)}")

    def __str__(self) -> str:
        return str(self.args[0])


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


class SameShowersWarning(UserWarning):
    """Showers that are made have been made before, into another file of the same folder."""


class GateError(CaloforgeError):
    """A validation limit was exceeded."""


def did_you_mean(name: str, known: Sequence[str], most: int = 40) -> str:
    """Return the end of a message on an unknown name: what was perhaps meant, or at most so many known names."""
    near = get_close_matches(name[:_LONGEST], known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known[:most])}"


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
