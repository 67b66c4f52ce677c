"""The samples of a comparison: opened, labelled, checked against each other, matched.

Samples that are compared fill the same cells, and their conditions cover the same ranges. Comparing showers of 50 GeV with showers of 10 to 100 GeV measures the beam, not the generator. So the ranges of
energy, angle and named conditions must agree: at most 5 % of either sample may lie outside the other's range.
Otherwise ``match_conditions`` makes them agree: it keeps the showers in the common range and thins the generated
samples, without putting any back, until their conditions are distributed as the reference's.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, InputError, TooFewShowersError
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import ShowerFile, ShowerSource
from caloforge.showers.views import AnyShowers, JoinedShowers, Selection, conditions_of, open_any
from caloforge.statistics.moments import levels
from caloforge.validate.metrics.base import Settings

__all__ = [
    "Input", "ShowersLike", "check_conditions", "check_detectors", "command_line",
    "match_conditions", "open_inputs",
]  # fmt: skip


ShowersLike: TypeAlias = AnyShowers
_NAMES = {"geant4": "Geant4", "gflash": "GFlash"}


@dataclass
class Input:
    """One sample of a comparison."""

    label: str  # its name in tables and figures
    source: ShowerSource  # its showers
    paths: tuple[Path, ...] = ()  # its files; none for showers in memory
    sha256: str = ""  # hash of the files, or of the arrays; of files empty until they were read
    kept: int | None = None  # how many of its showers are compared, when not all

    @cached_property
    def outline(self) -> str:
        """Hash of what is known of the showers before they are read: size of the file and conditions."""
        size = [path.stat().st_size for path in self.paths] if self.paths else self.sha256
        return f"{size}-{_hash(conditions_of(self.source).values())}"

    def provenance(self) -> dict[str, Any]:
        """Return where the showers come from, as ``metrics.json`` has it."""
        energy, theta = self.source.incident_energy, self.source.incident_theta
        files = [str(path) for path in self.paths]
        facts: dict[str, Any] = {
            "label": self.label, "file": (files[0] if len(files) == 1 else files) if files else None, "sha256": self.sha256,
            "n_showers": len(self.source), "detector": self.source.detector.name, "particle": self.source.particle,
            "source": self.source.source, "seed": self.source.seed,
            "incident_energy": [float(energy.min()), float(energy.max())],
        }  # fmt: skip
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
        items: Paths, showers, open files or lists of these that are one sample, the reference first.
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
        source = stack.enter_context(open_any(item, detector))
        parts = source.parts if isinstance(source, JoinedShowers) else (source,)
        paths = tuple(part.path for part in parts if isinstance(part, ShowerFile))
        paths = paths if len(paths) == len(parts) else ()
        if len(source) == 0:
            msg = f"{paths[0] if paths else 'sample ' + str(number)}: has no showers"
            raise InputError(msg)
        sha256 = ""
        if not paths:
            conditions = (values for _, values in sorted(conditions_of(source).items()))
            sha256 = _hash(chain((part.cells for part in source.chunks()), conditions), source.detector.name)
        label = _label(source, paths, number, inputs) if labels is None else labels[number]
        inputs.append(Input(label, source, paths, sha256))
    return inputs


def _label(source: ShowerSource, paths: Sequence[Path], number: int, before: Sequence[Input]) -> str:
    """Return a short name that no other sample has."""
    made = _NAMES.get(source.source, source.source) or ("reference" if number == 0 else f"sample {number}")
    if number == 0:
        return f"{made} (reference)" if made != "reference" else made
    name, taken = paths[0].stem if paths else made, {entry.label for entry in before}
    return next(x for x in (name, *(f"{name} ({k})" for k in range(2, number + 3))) if x not in taken)


def _hash(arrays: Iterable[NDArray[Any]], name: str = "") -> str:
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
    inputs: Sequence[Input], settings: Settings, folder: Path | None = None, limits: object = None,
    match: bool = False, labels: Sequence[str] | None = None, detector: object = None,
    allow_seen: bool = False,
) -> str:  # fmt: skip
    """Return the command that makes the same comparison, or the call when not all samples are files.

    Arguments:
        settings: Those that the command line knows and that differ from its defaults are written out.
        folder: The output folder; it and the others as the arguments of :func:`~caloforge.validate.driver.validate`.
    """
    defaults = {name: entry.default for name, entry in type(settings).model_fields.items()}
    changed = {name: value for name, value in settings if value != defaults[name]}
    if not all(len(entry.paths) == 1 for entry in inputs):
        files = [[str(path) for path in entry.paths] for entry in inputs]
        words = [
            repr(names if len(names) > 1 else names[0]) if names else entry.label.split(" ")[0].lower()
            for entry, names in zip(inputs, files, strict=True)
        ]
        words += [f"settings={changed!r}"] if changed else []
        words += ["match_conditions=True"] * match + ["allow_seen=True"] * allow_seen
        return f"caloforge.validate({', '.join(words)})"
    words = ["caloforge", "validate", *(str(entry.paths[0]) for entry in inputs)]
    words += [] if folder is None else ["-o", str(folder)]
    words += ["--match-conditions"] * match + ["--allow-seen"] * allow_seen
    words += ["--fail-on", str(limits)] if isinstance(limits, str | Path) else []
    words += ["--detector", str(detector)] if isinstance(detector, str | Path) else []
    words += [word for label in labels or () for word in ("--label", label)]
    for name, value in changed.items():
        if name in _OPTIONS:
            words += [f"--{name.replace('_', '-')}", str(value)]
        elif value in _SWITCHES.get(name, {}):
            words.append(_SWITCHES[name][value])
    return shlex.join(words)


_OUTSIDE = 0.05  # most of a sample that may lie outside the other's range
_SLACK = 0.02  # of a range, by which samples of the same beam differ at its ends
_BINS = 20
_UNITS = {"incident_energy": "MeV", "incident_theta": "degrees"}
_BEAM = ("incident_energy", "incident_theta")


def check_detectors(reference: ShowerSource, generated: Mapping[str, ShowerSource]) -> None:
    """Check that all samples fill the same cells in the same order.

    Raises:
        IncompatibleError: Says which sample differs and how.
    """
    first = reference.detector
    for label, source in generated.items():
        second = source.detector
        if second.name != first.name:
            msg = f"{label}: detector '{second.name}', but the reference has '{first.name}': expected the same detector"
        elif second.order != first.order:
            msg = (
                f"{label}: cells of '{second.name}' are in the order '{second.order}', but those of the reference in "
                f"'{first.order}': convert one of the files"
            )
        elif second != first:
            msg = (
                f"{label}: its detector '{second.name}' has other layers or cells than the reference's "
                f"({second.n_cells} cells in {second.n_layers} layers against {first.n_cells} in {first.n_layers})"
            )
        else:
            continue
        raise IncompatibleError(msg)


class _Range:
    """The range of one column of a condition, and the same with some slack."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.low, self.high = float(values.min()), float(values.max())

    def inside(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        slack = _SLACK * (self.high - self.low) + 1e-3 * max(abs(self.low), abs(self.high))
        return (values >= self.low - slack) & (values <= self.high + slack)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


def check_conditions(reference: ShowerSource, generated: Mapping[str, ShowerSource]) -> None:
    """Check that the conditions of all samples cover the same ranges.

    Raises:
        IncompatibleError: Says which condition of which sample differs, and offers ``--match-conditions`` where
            the ranges have a part in common.
    """
    first = conditions_of(reference)
    impact = reference.detector.beam.impact
    for label, source in generated.items():
        second = conditions_of(source)
        # a model may average over the point of impact, and its showers do not have it then
        missing = [name for name in first if name not in second and name != impact]
        if missing:
            msg = f"{label}: has no condition '{missing[0]}' of the reference; generate it with --like"
            raise IncompatibleError(msg)
        for name, ours in first.items():
            if name not in second:
                continue
            for k in range(min(ours.shape[1], second[name].shape[1])):
                _compare(label, name, ours[:, k], second[name][:, k])


def _compare(label: str, name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    first, second = _Range(ours), _Range(theirs)
    unit = _UNITS.get(name, "")
    ranges = [f"{limits} {unit}".rstrip() for limits in (second, first)]
    ends = np.array([second.low, second.high])
    if not (first.inside(ends).any() or (second.low < first.low and second.high > first.high)):
        msg = (
            f"{label}: {name} {ranges[0]} does not overlap with the reference's {ranges[1]}: "
            "generate it with --like the reference; --match-conditions compares the common range where there is one"
        )
        raise IncompatibleError(msg)
    if max(1.0 - second.inside(ours).mean(), 1.0 - first.inside(theirs).mean()) > _OUTSIDE:
        msg = (
            f"{label}: {name} {ranges[0]} covers another range than the reference's {ranges[1]}: "
            "compare only the common range with --match-conditions"
        )
        raise IncompatibleError(msg)


def match_conditions(
    reference: ShowerSource, generated: Mapping[str, ShowerSource], seed: int = 0, minimum: int = 10
) -> list[ShowerSource]:
    """Return the showers of the reference and of each generated sample in their common range of conditions.

    Generated samples are thinned to the reference's distribution of energy and angle in 20 bins each (or at each value, when
    there are few); named conditions are only restricted in range. At least ``minimum`` showers must be left of each sample.

    Raises:
        IncompatibleError: When there is no common range.
        TooFewShowersError: When too few showers are left.
    """
    sources = [reference, *generated.values()]
    columns = [conditions_of(source) for source in sources]
    inside = [np.ones(len(source), bool) for source in sources]
    for name in [name for name in columns[0] if all(name in each for each in columns)]:
        for k in range(min(each[name].shape[1] for each in columns)):
            ranges = [_Range(each[name][:, k]) for each in columns]
            for mask, each in zip(inside, columns, strict=True):
                for limit in ranges:
                    mask &= limit.inside(each[name][:, k])
    chosen = [np.flatnonzero(mask) for mask in inside]
    if not all(len(indices) for indices in chosen):
        msg = "the samples' conditions have no range in common: --match-conditions leaves nothing to compare"
        raise IncompatibleError(msg)
    bins = _bins(columns, chosen)
    size = 1 + max(int(values.max()) for values in bins)
    counts = np.array([np.bincount(values, minlength=size) for values in bins])
    wanted = np.where((counts > 0).all(axis=0), counts[0], 0)
    chosen[0] = chosen[0][wanted[bins[0]] > 0]
    for number in range(1, len(sources)):
        chosen[number] = chosen[number][_thin(bins[number], wanted, seed, number - 1)]
    for label, left in zip(["reference", *generated], map(len, chosen), strict=True):
        if left < minimum:
            msg = f"{label}: --match-conditions leaves {left} showers in the common range; expected at least {minimum}"
            raise TooFewShowersError(msg)
    return [Selection(source, indices) for source, indices in zip(sources, chosen, strict=True)]


def _bins(
    columns: Sequence[Mapping[str, NDArray[np.float64]]], chosen: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """Return the bin of energy and angle of each chosen shower, the same bins for all samples."""
    bins = [np.zeros(len(indices), np.int64) for indices in chosen]
    for name in _BEAM:
        values = [each[name][indices, 0] for each, indices in zip(columns, chosen, strict=True)]
        distinct = levels(np.concatenate(values), 2 * _BINS)
        if distinct is not None:
            edges = (distinct[1:] + distinct[:-1]) / 2
        else:
            edges = np.quantile(values[0], np.linspace(0, 1, _BINS + 1))[1:-1]
        bins = [b * (len(edges) + 1) + np.searchsorted(edges, v) for b, v in zip(bins, values, strict=True)]
    return bins


def _thin(bins: NDArray[np.int64], wanted: NDArray[np.int64], seed: int, number: int) -> NDArray[np.int64]:
    """Return the places, ascending, of as many showers as possible with bins in the wanted proportions."""
    there = np.bincount(bins, minlength=len(wanted))
    needed = wanted > 0
    scale = float((there[needed] / wanted[needed]).min())
    if scale < 0.2:  # one poor bin must not cost nearly everything: take what there is in it
        scale = float(np.quantile(there[needed] / wanted[needed], 0.2))
    rng = generator(seed, "match-conditions", number)
    order = rng.permutation(len(bins))
    order = order[np.argsort(bins[order], kind="stable")]
    rank = np.arange(len(bins)) - np.searchsorted(bins[order], bins[order])
    allowed = np.minimum(np.round(scale * wanted).astype(np.int64), there)
    return np.sort(order[rank < allowed[bins[order]]])
