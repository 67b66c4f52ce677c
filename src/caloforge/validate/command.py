"""The command that makes a comparison again, for its report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from caloforge.validate.inputs import Input
from caloforge.validate.metrics.settings import Settings

__all__ = ["command_line"]

_OPTIONS = ("seed", "n_max", "threshold", "classifier", "device")
_SWITCHES = {
    "cnn": {True: "--cnn"},
    "quick": {True: "--quick"},
    "reconstruction": {True: "--reconstruction", False: "--no-reconstruction"},
}


def command_line(
    inputs: Sequence[Input],
    settings: Settings,
    folder: Path | None = None,
    limits: object = None,
    match: bool = False,
    labels: Sequence[str] | None = None,
    detector: object = None,
    allow_seen: bool = False,
) -> str:
    """Return the command that makes the same comparison, or the call when not all samples are files.

    Arguments:
        inputs: The reference first.
        settings: Those that the command line knows and that differ from its defaults are written out.
        folder: The output folder.
        limits: The file of limits, when it is one.
        match: Whether conditions are matched.
        labels: Names that were given.
        detector: Detector that was given, by its name or file.
        allow_seen: Whether reference showers may be ones that a model has seen.
    """
    if not all(entry.path is not None for entry in inputs):
        names = ", ".join(
            repr(str(entry.path)) if entry.path else entry.label.split(" ")[0].lower() for entry in inputs
        )
        changed = {name: getattr(settings, name) for name in _changed(settings)}
        rest = f", settings={changed!r}" if changed else ""
        rest += f"{', match_conditions=True' if match else ''}{', allow_seen=True' if allow_seen else ''}"
        return f"caloforge.validate({names}{rest})"
    words = ["caloforge", "validate", *(str(entry.path) for entry in inputs)]
    words += [] if folder is None else ["-o", str(folder)]
    words += ["--match-conditions"] if match else []
    words += ["--allow-seen"] if allow_seen else []
    words += ["--fail-on", str(limits)] if isinstance(limits, str | Path) else []
    words += ["--detector", str(detector)] if isinstance(detector, str | Path) else []
    for label in labels or ():
        words += ["--label", label]
    for name in _changed(settings):
        value = getattr(settings, name)
        if name in _OPTIONS:
            words += [f"--{name.replace('_', '-')}", str(value)]
        elif value in _SWITCHES.get(name, {}):
            words.append(_SWITCHES[name][value])
    return shlex.join(words)


def _changed(settings: Settings) -> list[str]:
    """Return the names of the settings that are not at their defaults."""
    fields = type(settings).model_fields
    return [name for name, entry in fields.items() if getattr(settings, name) != entry.default]
