"""The samples of a comparison: files or showers, labels, hashes, and the command that makes it again."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.showers import ShowerFile, Showers, open_showers
from caloforge.showers.views import conditions_of
from caloforge.validate.metrics.base import Settings

__all__ = ["Input", "ShowersLike", "command_line", "open_inputs"]


ShowersLike = str | Path | Showers | ShowerFile
_NAMES = {"geant4": "Geant4", "gflash": "GFlash"}


@dataclass
class Input:
    """One sample of a comparison."""

    label: str  # its name in tables and figures
    source: Showers | ShowerFile  # its showers
    path: Path | None  # its file, or None for showers in memory
    sha256: str = ""  # hash of the file, or of the arrays; of a file empty until it was read
    kept: int | None = None  # how many of its showers are compared, when not all

    @cached_property
    def outline(self) -> str:
        """Hash of what is known of the showers before they are read: size of the file and conditions."""
        size = self.sha256 if self.path is None else self.path.stat().st_size
        return f"{size}-{_hash(conditions_of(self.source).values())}"

    def provenance(self) -> dict[str, Any]:
        """Return where the showers come from, as ``metrics.json`` has it."""
        energy, theta = self.source.incident_energy, self.source.incident_theta
        facts: dict[str, Any] = {
            "label": self.label,
            "file": None if self.path is None else str(self.path),
            "sha256": self.sha256,
            "n_showers": len(self.source),
            "detector": self.source.detector.name,
            "particle": self.source.particle,
            "source": self.source.source,
            "seed": self.source.seed,
            "incident_energy": [float(energy.min()), float(energy.max())],
        }
        if self.source.has_theta:
            facts["incident_theta"] = [float(theta.min()), float(theta.max())]
        if self.kept is not None:
            facts["n_compared"] = self.kept
        return facts | {"attributes": dict(self.source.attributes)}


def open_inputs(
    stack: ExitStack,
    items: Sequence[ShowersLike],
    detector: str | Path | Detector | None = None,
    labels: Sequence[str] | None = None,
) -> list[Input]:
    """Open the samples; files are closed when the stack ends.

    Arguments:
        stack: Closes the files that were opened here.
        items: Paths, showers or open files, the reference first.
        detector: Detector of files that do not name their own.
        labels: Names of the samples, one each; by default the file's name or the source of the showers.

    Raises:
        InputError: When there is nothing to compare, a sample is empty, or labels do not fit.
    """
    if len(items) < 2:
        msg = "validate compares a reference with at least one generated sample; only one was given"
        raise InputError(msg)
    if labels is not None and (len(labels) != len(items) or len(set(labels)) != len(labels)):
        msg = f"{len(labels)} labels for {len(items)} samples; expected one each, all different"
        raise InputError(msg)
    inputs: list[Input] = []
    for number, item in enumerate(items):
        source = stack.enter_context(open_showers(item, detector)) if isinstance(item, str | Path) else item
        path = source.path if isinstance(source, ShowerFile) else None
        if len(source) == 0:
            msg = f"{path or 'sample ' + str(number)}: has no showers"
            raise InputError(msg)
        sha256 = ""
        if path is None:
            conditions = (values for _, values in sorted(conditions_of(source).items()))
            sha256 = _hash([source[:].cells, *conditions], source.detector.name)
        label = _label(source, path, number, inputs) if labels is None else labels[number]
        inputs.append(Input(label, source, path, sha256))
    return inputs


def _label(source: Showers | ShowerFile, path: Path | None, number: int, before: Sequence[Input]) -> str:
    """Return a short name that no other sample has."""
    made = _NAMES.get(source.source, source.source) or ("reference" if number == 0 else f"sample {number}")
    if number == 0:
        return f"{made} (reference)" if made != "reference" else made
    name, taken = path.stem if path is not None else made, {entry.label for entry in before}
    return next(x for x in (name, *(f"{name} ({k})" for k in range(2, number + 3))) if x not in taken)


def _hash(arrays: Iterable[NDArray[Any]], name: str = "") -> str:
    """Return the SHA-256 of a name and of arrays."""
    digest = hashlib.sha256(name.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
        labels: Names of the samples that the user chose.
        detector: Detector that the user named, by its name or file.
        allow_seen: Whether reference showers may be ones that a model has seen.
    """
    changed = {name: getattr(settings, name) for name in _changed(settings)}
    if not all(entry.path is not None for entry in inputs):
        words = [repr(str(x.path)) if x.path else x.label.split(" ")[0].lower() for x in inputs]
        words += [f"settings={changed!r}"] if changed else []
        words += ["match_conditions=True"] if match else []
        words += ["allow_seen=True"] if allow_seen else []
        return f"caloforge.validate({', '.join(words)})"
    words = ["caloforge", "validate", *(str(entry.path) for entry in inputs)]
    words += [] if folder is None else ["-o", str(folder)]
    words += ["--match-conditions"] if match else []
    words += ["--allow-seen"] if allow_seen else []
    words += ["--fail-on", str(limits)] if isinstance(limits, str | Path) else []
    words += ["--detector", str(detector)] if isinstance(detector, str | Path) else []
    words += [word for label in labels or () for word in ("--label", label)]
    for name, value in changed.items():
        if name in _OPTIONS:
            words += [f"--{name.replace('_', '-')}", str(value)]
        elif value in _SWITCHES.get(name, {}):
            words.append(_SWITCHES[name][value])
    return shlex.join(words)


def _changed(settings: Settings) -> list[str]:
    """Return the names of the settings that are not at their defaults."""
    fields = type(settings).model_fields
    return [name for name, entry in fields.items() if getattr(settings, name) != entry.default]
