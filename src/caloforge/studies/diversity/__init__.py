"""The study of diversity: do generated showers differ from each other, and from the training showers?

Structural similarity of reference, generated and mixed pairs over the data range; distances to the nearest training
shower against those to held-out showers (:mod:`~caloforge.studies.diversity.measure`); precision, recall, density and
coverage (:mod:`caloforge.statistics.feature_distances`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.errors import InputError
from caloforge.files import sha256_file
from caloforge.showers import ShowerFile, Showers, ShowerSource, open_showers
from caloforge.studies.base import Context, Row, Study, StudyResult
from caloforge.studies.diversity.figures import figures_of
from caloforge.studies.diversity.measure import (
    LEAST,
    DiversitySettings,
    Known,
    Measured,
    Memory,
    Similarities,
    fingerprints,
    known_showers,
    measure,
)
from caloforge.studies.support_size.duplicates import why_no_windows

__all__ = ["DiversityStudy"]

_BINS = 60


class DiversityStudy(Study):
    """Similarity of pairs, memory of the training set, precision and recall."""

    name = "diversity"
    title = "Diversity and memory"
    source = "support-size"
    papers = ("3dgan", "birthday-paradox")
    needs = (
        f"at least {LEAST} reference showers that no generator was trained on, and generated showers or models of the "
        "same detector; for the test of memory name the training showers with training=FILE.h5"
    )
    question = "Are the showers as diverse as Geant4's, and are none copied from the training set?"
    Settings = DiversitySettings

    def check(self, context: Context) -> None:
        """Check that there are showers enough, of one detector, and that the training set can be read."""
        super().check(context)
        chosen, detector = context.chosen(DiversitySettings), context.reference.detector
        sizes = {context.reference_name: len(chosen.of(context.reference))}
        for source in context.generated:
            if source.showers is not None:
                sizes[source.label] = len(chosen.of(source.showers))
        if chosen.training:
            with self._training(chosen.training) as file:
                if file.detector != detector:
                    self.refuse(
                        f"the training set is of '{file.detector.name}', the reference of '{detector.name}'"
                    )
                sizes["the training set"] = len(chosen.of(file))
        for label, size in sizes.items():
            if size < LEAST:
                self.refuse(f"'{label}' has {size} showers in the window")

    def _training(self, path: str) -> ShowerFile:
        try:
            return open_showers(path)
        except OSError as error:
            msg = f"study '{self.name}': the training set {path} cannot be read: {error}"
            raise InputError(msg) from error

    def run(self, context: Context) -> StudyResult:
        """Measure the reference and every generated sample."""
        chosen, known = context.chosen(DiversitySettings), _KnownShowers(context)
        labels = [context.reference_name, *context.labels[1:]]
        measured: list[Measured] = []

        def compute(showers: ShowerSource, label: str) -> Mapping[str, Any]:
            if not measured:
                return measure(known.reference, None, chosen, context.seed, known.sets)
            kept = chosen.of(showers)
            some = kept[: min(len(kept), context.size(chosen.showers), chosen.showers)]
            return measure(some, known.reference, chosen, context.seed, known.sets)

        training = sha256_file(Path(chosen.training)) if chosen.training else ""
        size, window = context.size(chosen.showers), (chosen.energy, chosen.theta)
        for arrays in context.measured(compute, training, n=size, like=known.source, window=window):
            measured.append(Measured(arrays))
        return StudyResult(
            rows=_rows(labels, measured, chosen.data_range),
            figures=figures_of(labels, measured),
            texts=_texts(context, labels, measured),
            data={"data_range": chosen.data_range, "samples": _data(labels, measured)},
            showers={label: one.n for label, one in zip(labels, measured, strict=True)},
        )


class _KnownShowers:
    """The reference and the training set, read when something must be computed."""

    def __init__(self, context: Context) -> None:
        self.chosen = context.chosen(DiversitySettings)
        self.source = self.chosen.of(context.reference)

    @cached_property
    def reference(self) -> Showers:
        """Reference showers in memory."""
        return self.source[: min(len(self.source), self.chosen.showers)]

    @cached_property
    def sets(self) -> Known | None:
        """Training and held-out showers; None where the training set is not known."""
        if not self.chosen.training:
            return None
        with open_showers(self.chosen.training, self.source.detector) as file:
            marks = {mark for chunk in file.chunks() for mark in fingerprints(chunk.cells)}
            training = self.chosen.of(file)
            return known_showers(training[: min(len(training), self.chosen.showers)], marks, self.reference)


def _rows(labels: Sequence[str], measured: Sequence[Measured], data_range: float) -> list[Row]:
    """Return our numbers; the reference first."""
    reference, name = measured[0], labels[0]
    rows = []
    for role, (label, one) in enumerate(zip(labels, measured, strict=True)):
        row = partial(Row, sample=label)
        own, known = one.similarities("within"), reference.similarities("within")
        if own is not None and known is not None:
            at, (mean, error) = f"L = {data_range:g} GeV", own.at(data_range)
            rows.append(row(f"SSIM of its pairs, {at}", mean, error, note=f"{len(own.values):,} pairs"))
            between = one.similarities("between")
            if between is not None:
                mean_known, error_known = known.at(data_range)
                note = "above 0: its showers are more similar to each other than those of the reference, so it lacks diversity"
                difference = mean - mean_known, math.hypot(error, error_known)
                rows += [
                    row(f"SSIM of mixed pairs with {name}, {at}", *between.at(data_range)),
                    row(f"SSIM of its pairs minus {name}'s, {at}", *difference, note=note),
                ]
        if one.memory is not None and reference.memory is not None:
            rows += _memory_rows(row, one.memory, reference.memory if role else None, name)
        for quantity, value in one.quality.items():
            floor = "" if value.floor is None else f"two halves of {name}: {value.floor:.3f}"
            note = floor + _surprise(quantity, value.value, value.floor)
            rows.append(row(quantity, value.value, value.uncertainty, note=note))
    return rows


_EXCESS = {
    "precision": "higher is not better: the showers are concentrated where those of the reference are densest",
    "density": "higher is not better: the showers are concentrated where those of the reference are densest",
}
_LACK = {
    "recall": "lower: the model never makes some kinds of showers of the reference",
    "coverage": "lower: the model never makes some kinds of showers of the reference",
    "precision": "lower: the model makes showers that the reference does not have",
}


def _surprise(quantity: str, value: float | None, floor: float | None) -> str:
    """Return what a value a tenth or more from that of two halves of the reference says."""
    if value is None or floor is None or abs(value - floor) < 0.1 * abs(floor):
        return ""
    text = (_EXCESS if value > floor else _LACK).get(quantity)
    return f"; {text}" if text else ""


def _memory_rows(row: partial[Row], memory: Memory, held_out: Memory | None, name: str) -> list[Row]:
    """Return the rows on memory; ``held_out`` is that of reference showers, None for these themselves."""
    part, closer = memory.closer, "part closer to the training set"
    sets = "held-out showers; cannot remember" if held_out is None else "0.5 for one that remembers nothing"
    note = f"{sets}; {memory.neighbours:,} different nearest neighbours"
    rows = [
        row(f"{closer} than to held-out showers", *part, note=note),
        row("median distance to the training set over that to held-out showers", memory.ratio),
    ]
    if held_out is not None:
        more = memory.more_than(held_out)
        rows += [
            row(f"{closer} minus {name}'s", *more, note="above 0: memory of the training set"),
            row("exact copies of training showers", float(memory.copies), note=f"of {memory.n:,}"),
        ]
    return rows


def _histogram(values: Any, low: float, high: float) -> dict[str, Any]:
    counts, edges = np.histogram(values, _BINS, (low, high))
    return {"edges": edges, "counts": counts}


def _similarity_data(found: Similarities) -> list[dict[str, Any]]:
    columns = zip(found.data_ranges, found.mean, found.error, found.spread, found.values.T, strict=True)
    return [
        {
            "data_range": data_range,
            "mean": mean,
            "error": error,
            "spread": spread,
            "histogram": _histogram(values, values.min(), values.max()),
        }
        for data_range, mean, error, spread, values in columns
    ]


def _data(labels: Sequence[str], measured: Sequence[Measured]) -> dict[str, Any]:
    """Return everything for ``study.json``, by sample."""
    out: dict[str, Any] = {}
    for label, one in zip(labels, measured, strict=True):
        entry: dict[str, Any] = {"n": one.n}
        for name in ("within", "between"):
            found = one.similarities(name)
            if found is not None:
                entry[f"ssim_{name}"] = _similarity_data(found)
        memory = one.memory
        if memory is not None:
            distances = {"training": memory.to_training.distance, "held_out": memory.to_held_out.distance}
            high = max(float(values.max()) for values in distances.values()) or 1.0
            part, error = memory.closer
            entry["memory"] = {
                "n": memory.n,
                "closer": part,
                "closer_error": error,
                "known": memory.known,
                "neighbours": memory.neighbours,
                "median_ratio": memory.ratio,
                "copies": memory.copies,
                **{name: _histogram(values, 0.0, 1.02 * high) for name, values in distances.items()},
                "shared_with_reference": one.shared,
            }
        entry |= {name: value.to_dict() for name, value in one.quality.items()}
        out[label] = entry
    return out


def _texts(context: Context, labels: Sequence[str], measured: Sequence[Measured]) -> list[str]:
    """Return what was found and what limits it."""
    sizes = "; ".join(f"{label} {one.n:,}" for label, one in zip(labels, measured, strict=True))
    why = why_no_windows(context.reference.detector)
    texts = [
        f"Showers: {sizes}.",
        f"Structural similarity is left out: {why}."
        if why
        else "If generated pairs are more similar than reference pairs, the model lacks diversity, as the paper found for its 3DGAN.",
    ]
    memory = measured[0].memory
    if memory is None:
        texts.append("Memory of the training set was not measured: name its file with training=FILE.h5.")
        return texts
    training = Path(context.chosen(DiversitySettings).training).name
    texts.append(
        f"Memory: {memory.n:,} training showers of {training} against as many held-out ones of "
        f"{labels[0]}; a generator that was trained on other showers cannot reproduce these."
    )
    if measured[0].shared:
        texts.append(
            f"{measured[0].shared:,} reference showers are training showers; the test of memory leaves them out."
        )
    return texts
