"""The study of diversity: do generated showers differ from each other and from the training showers?

The study of diversity: do generated showers differ from each other, and from those that the generator has seen?

Structural similarity of trusted, generated and mixed pairs over the data range; distances to the nearest training
shower against those to held-out showers; precision, recall, density and coverage. See
:mod:`~caloforge.studies.diversity.distances`, :mod:`~caloforge.studies.diversity.distances` and
:mod:`caloforge.statistics.feature_distances`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.errors import InputError
from caloforge.files import sha256_file
from caloforge.showers import ShowerFile, Showers, ShowerSource, open_showers
from caloforge.studies.base import Context, Row, Study, StudyResult, StudySettings
from caloforge.studies.diversity.distances import Likeness, Memory, fingerprints
from caloforge.studies.diversity.figures import figures_of
from caloforge.studies.diversity.sample import (
    Known,
    Measured,
    Options,
    known_showers,
    measure_generated,
    measure_reference,
)
from caloforge.studies.sources import Source, made
from caloforge.studies.support_size.sample import reference_name, torch_device, within
from caloforge.studies.support_size.search import why_no_windows
from caloforge.validate.metrics.shapes import DATA_RANGE

__all__ = ["DiversitySettings", "DiversityStudy", "data_of", "rows_of"]


_BINS = 60


def rows_of(labels: Sequence[str], measured: Sequence[Measured], data_range: float) -> list[Row]:
    """Return our numbers; the reference first.

    Arguments:
        labels: Names of the samples.
        measured: What was measured of each.
        data_range: L of the rows on structural similarity, GeV.
    """
    reference = measured[0]
    rows = []
    for role, (label, one) in enumerate(zip(labels, measured, strict=True)):
        rows += _likeness_rows(role, label, one, reference, data_range, labels[0])
        rows += _memory_rows(role, label, one, reference, labels[0])
        for name, value in one.quality.items():
            floor = "" if value.floor is None else f"two halves of {labels[0]}: {value.floor:.3f}"
            rows.append(Row(name, value.value, value.uncertainty, note=floor, sample=label))
    return rows


def _column(likeness: Likeness, data_range: float) -> tuple[float, float]:
    """Return mean and error at one L."""
    k = int(np.argmin(np.abs(np.log(np.array(likeness.data_ranges) / data_range))))
    return float(likeness.mean[k]), float(likeness.error[k])


def _likeness_rows(
    role: int, label: str, one: Measured, reference: Measured, data_range: float, name: str
) -> list[Row]:
    own, trusted, between = one.likeness("within"), reference.likeness("within"), one.likeness("between")
    if own is None or trusted is None:
        return []
    at = f"L = {data_range:g} GeV"
    mean, error = _column(own, data_range)
    rows = [Row(f"SSIM of its pairs, {at}", mean, error, note=f"{len(own.values):,} pairs", sample=label)]
    if role and between is not None:
        mixed, mixed_error = _column(between, data_range)
        known, known_error = _column(trusted, data_range)
        note = "above 0: its showers are more alike than the trusted ones, it lacks diversity"
        rows += [
            Row(f"SSIM of mixed pairs with {name}, {at}", mixed, mixed_error, sample=label),
            Row(
                f"SSIM of its pairs minus {name}'s, {at}",
                mean - known,
                math.hypot(error, known_error),
                note=note,
                sample=label,
            ),
        ]
    return rows


def _memory_rows(role: int, label: str, one: Measured, reference: Measured, name: str) -> list[Row]:
    memory, held = one.memory, reference.memory
    if memory is None or held is None:
        return []
    part, error = memory.closer
    sets = "0.5 for one that remembers nothing" if role else "held-out showers; cannot remember"
    count = f"{memory.neighbours:,} different nearest neighbours"
    closer = "part closer to the training set"
    rows = [
        Row(f"{closer} than to held-out showers", part, error, note=f"{sets}; {count}", sample=label),
        Row("median distance to the training set over that to held-out showers", memory.ratio, sample=label),
    ]
    if role:
        more, more_error = memory.more_than(held)
        note = "above 0: memory of the training set"
        rows += [
            Row(f"{closer} minus {name}'s", more, more_error, note=note, sample=label),
            Row(
                "exact copies of training showers",
                float(memory.copies),
                note=f"of {memory.n:,}",
                sample=label,
            ),
        ]
    return rows


def _histogram(values: Any, low: float, high: float) -> dict[str, Any]:
    counts, edges = np.histogram(values, _BINS, (low, high))
    return {"edges": edges, "counts": counts}


def _likeness_data(likeness: Likeness) -> list[dict[str, Any]]:
    return [
        {
            "data_range": data_range,
            "mean": likeness.mean[k],
            "error": likeness.error[k],
            "spread": likeness.spread[k],
            "histogram": _histogram(
                likeness.values[:, k], likeness.values[:, k].min(), likeness.values[:, k].max()
            ),
        }
        for k, data_range in enumerate(likeness.data_ranges)
    ]


def _memory_data(memory: Memory) -> dict[str, Any]:
    distances = {"training": memory.to_training.distance, "held_out": memory.to_held_out.distance}
    high = max(float(values.max()) for values in distances.values()) or 1.0
    part, error = memory.closer
    return {
        "n": memory.n,
        "closer": part,
        "closer_error": error,
        "known": memory.known,
        "neighbours": memory.neighbours,
        "median_ratio": memory.ratio,
        "copies": memory.copies,
        **{name: _histogram(values, 0.0, 1.02 * high) for name, values in distances.items()},
    }


def data_of(labels: Sequence[str], measured: Sequence[Measured]) -> dict[str, Any]:
    """Return everything for ``study.json``, by sample."""
    out: dict[str, Any] = {}
    for label, one in zip(labels, measured, strict=True):
        entry: dict[str, Any] = {"n": one.n}
        for name in ("within", "between"):
            likeness = one.likeness(name)
            if likeness is not None:
                entry[f"ssim_{name}"] = _likeness_data(likeness)
        if one.memory is not None:
            entry["memory"] = _memory_data(one.memory) | {"shared_with_reference": one.shared}
        entry |= {name: value.to_dict() for name, value in one.quality.items()}
        out[label] = entry
    return out


_LEAST = 20


class DiversitySettings(StudySettings):
    """What may be set.

    Arguments:
        showers: Showers of each sample at most; they are held in memory.
        training: File of the showers that the generators were trained on; empty: memory is not measured.
        pairs: Pairs of showers behind each mean similarity.
        data_range: L of the numbers in the table, GeV.
        data_ranges: Further L, for the figures, GeV.
        threshold: Cells below it are taken as equal by distances, MeV.
        neighbours: k of precision, recall, density and coverage.
        drawn: Showers nearest to the training set that are drawn.
        energy: Only showers of these incident energies, such as ``97.5-102.5GeV``; empty: all.
        theta: Only showers of these angles, such as ``87.5-92.5``; empty: all.
        device: Where torch computes: ``auto`` takes a GPU when there is one.
    """

    showers: Annotated[int, Field(ge=_LEAST)] = 2000
    training: str = ""
    pairs: Annotated[int, Field(ge=2)] = 1000
    data_range: Annotated[float, Field(gt=0)] = DATA_RANGE
    data_ranges: tuple[Annotated[float, Field(gt=0)], ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    threshold: Annotated[float, Field(gt=0)] = 0.1
    neighbours: Annotated[int, Field(ge=1)] = 5
    drawn: Annotated[int, Field(ge=1, le=8)] = 5
    energy: str = ""
    theta: str = ""
    device: str = "auto"

    def options(self, seed: int) -> Options:
        """Return how diversity is measured."""
        ranges = tuple(sorted({*self.data_ranges, self.data_range}))
        device = torch_device(self.device)
        return Options(self.pairs, ranges, self.threshold, self.neighbours, self.drawn, seed, device)

    def of(self, source: ShowerSource) -> ShowerSource:
        """Return the showers of a source within the windows."""
        return within(source, self.energy, self.theta)


class _Trusted:
    """The reference and the training set, read when something must be computed."""

    def __init__(self, context: Context) -> None:
        self.chosen = context.chosen(DiversitySettings)
        self.source = self.chosen.of(context.reference)

    @cached_property
    def showers(self) -> Showers:
        """Trusted showers in memory."""
        return self.source[: min(len(self.source), self.chosen.showers)]

    @cached_property
    def known(self) -> Known | None:
        """Training and held-out showers; None without a training set."""
        if not self.chosen.training:
            return None
        with open_showers(self.chosen.training, self.source.detector) as file:
            marks = {mark for chunk in file.chunks() for mark in fingerprints(chunk.cells)}
            training = self.chosen.of(file)
            return known_showers(training[: min(len(training), self.chosen.showers)], marks, self.showers)


class DiversityStudy(Study):
    """Likeness of pairs, memory of the training set, precision and recall."""

    name: ClassVar[str] = "diversity"
    title: ClassVar[str] = "Diversity and memory"
    source: ClassVar[str] = "support-size"
    needs: ClassVar[str] = (
        f"at least {_LEAST} reference showers that no generator was trained on, and generated showers or models of the "
        "same detector; training=FILE.h5 names the training showers, for memory"
    )
    Settings: ClassVar[type[StudySettings]] = DiversitySettings

    def check(self, context: Context) -> None:
        """Check that there are showers enough, of one detector, and that the training set can be read."""
        super().check(context)
        chosen = context.chosen(DiversitySettings)
        detector = context.reference.detector
        sizes = {reference_name(context): len(chosen.of(context.reference))}
        for source in context.generated:
            self.require_detector(source, detector)
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
            if size < _LEAST:
                self.refuse(f"'{label}' has {size} showers in the window")

    def _training(self, path: str) -> ShowerFile:
        try:
            return open_showers(path)
        except OSError as error:
            msg = f"study '{self.name}': the training set {path} cannot be read: {error}"
            raise InputError(msg) from error

    def run(self, context: Context) -> StudyResult:
        """Measure the reference and every generated sample."""
        chosen = context.chosen(DiversitySettings)
        options, trusted = chosen.options(context.seed), _Trusted(context)
        labels = [reference_name(context), *(source.label for source in context.generated)]
        measured = [_measured(context, source, options, trusted) for source in (None, *context.generated)]
        return StudyResult(
            rows=rows_of(labels, measured, chosen.data_range),
            figures=figures_of(labels, measured),
            texts=_texts(context, labels, measured),
            data={"data_range": chosen.data_range, "samples": data_of(labels, measured)},
            showers={label: one.n for label, one in zip(labels, measured, strict=True)},
        )


def _measured(context: Context, source: Source | None, options: Options, trusted: _Trusted) -> Measured:
    """Return what was measured of the reference (None) or a generated sample, from the cache if it is there."""
    chosen = trusted.chosen

    def compute() -> Mapping[str, Any]:
        if source is None:
            return measure_reference(trusted.showers, options, trusted.known)
        wanted = None if source.generator is None else context.size(chosen.showers)
        key = "/".join([*context.reference_hashes, *filter(None, (chosen.energy, chosen.theta))])
        with ExitStack() as stack:
            found = stack.enter_context(
                made(source, wanted, trusted.source, context.seed, context.cache, key)
            )
            kept = chosen.of(found)
            showers = kept[: min(len(kept), context.size(chosen.showers), chosen.showers)]
        return measure_generated(showers, trusted.showers, options, trusted.known)

    training = sha256_file(Path(chosen.training)) if chosen.training else ""
    name = "reference" if source is None else f"sample-{source.sha256[:16]}"
    own = None if source is None else [source.sha256, context.n]
    return Measured(context.cache.get(name, compute, context.reference_hashes, training, own))


def _texts(context: Context, labels: Sequence[str], measured: Sequence[Measured]) -> list[str]:
    """Return what was found and what limits it."""
    chosen = context.chosen(DiversitySettings)
    sizes = "; ".join(f"{label} {one.n:,}" for label, one in zip(labels, measured, strict=True))
    texts = [f"Showers: {sizes}."]
    why = why_no_windows(context.reference.detector)
    texts.append(
        f"Structural similarity is left out: {why}."
        if why
        else "Pairs that are more alike than trusted ones show a lack of diversity: so the paper found its 3DGAN."
    )
    memory = measured[0].memory
    if memory is None:
        texts.append("Memory of the training set was not measured: name its file with training=FILE.h5.")
        return texts
    texts.append(
        f"Memory: {memory.n:,} training showers of {Path(chosen.training).name} against as many held-out ones of "
        f"{labels[0]}; generators that were trained on other showers cannot remember these."
    )
    if measured[0].shared:
        texts.append(
            f"{measured[0].shared:,} reference showers are training showers; memory leaves them out."
        )
    return texts
