"""The rows and the data of the study: likeness, memory, precision and recall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from caloforge.studies.base import Row
from caloforge.studies.diversity.likeness import Likeness
from caloforge.studies.diversity.neighbours import Memory
from caloforge.studies.diversity.sample import Measured

__all__ = ["data_of", "rows_of"]

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
