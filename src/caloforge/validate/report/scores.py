"""Which sample is nearest to the reference, and where each fails: the numbers of ``metrics.json`` as scores.

A score compares a metric's distance from its ideal with the same distance of the floor (what a perfect generator would
score with so many showers), in standard deviations of both:

    pull = (|value - ideal| - |floor - ideal|) / sqrt(uncertainty^2 + floor_uncertainty^2)

A pull below 2 is as good as the reference itself at these sample sizes, above 5 it is a clear difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FLAGS", "HEADLINES", "Score", "headline", "mean_ranks", "scores_of", "worst"]

FLAGS = {"good": "as the reference", "warn": "2 to 5 deviations off", "bad": "more than 5 deviations off"}
# What the summary shows, when it was computed.
HEADLINES = ("auc_high", "auc_low", "fpd", "kpd", "separation_power", "shape_mse", "coverage")
_GOOD, _BAD = 2.0, 5.0
_JUDGED = ("ratio",)


@dataclass(frozen=True)
class Score:
    """One number of one sample.

    Attributes:
        key: Key in ``metrics.json``.
        item: Entry under that key (an observable, a pair), empty for a single value.
        label: The metric's name for people.
        value: The number; None when it was not measured.
        uncertainty: One standard deviation, or None.
        floor: What a perfect generator would score with so many showers, or None.
        floor_uncertainty: One standard deviation, or None.
        ideal: What a perfect generator reaches, or None when unknown.
        reason: Why there is no value.
        floor_note: How the floor was measured.
        by: What the items of its key are: "observable", "pair", "sample", or empty.
    """

    key: str
    item: str
    label: str
    value: float | None
    uncertainty: float | None = None
    floor: float | None = None
    floor_uncertainty: float | None = None
    ideal: float | None = None
    reason: str = ""
    by: str = ""
    floor_note: str = ""

    @property
    def name(self) -> str:
        """Its path in ``metrics.json``."""
        return f"{self.key}.{self.item}" if self.item else self.key

    @property
    def excess(self) -> float | None:
        """How much further it is from the ideal than the floor is; None without an ideal or a value."""
        if self.value is None or self.ideal is None:
            return None
        return abs(self.value - self.ideal) - (0.0 if self.floor is None else abs(self.floor - self.ideal))

    @property
    def pull(self) -> float | None:
        """The excess in standard deviations, or None when they are not known."""
        sigma = math.hypot(self.uncertainty or 0.0, self.floor_uncertainty or 0.0)
        if self.excess is None or sigma <= 0.0:
            return None
        return self.excess / sigma

    @property
    def flag(self) -> str:
        """``good``, ``warn`` or ``bad`` by the pull; empty without one."""
        if self.pull is None:
            return ""
        return "good" if self.pull < _GOOD else ("warn" if self.pull < _BAD else "bad")


def scores_of(metrics: Mapping[str, Any]) -> list[Score]:
    """Return every number of one sample that some metric declares, in the metrics' order."""
    from caloforge.validate.metrics.base import METRICS

    scores: list[Score] = []
    for _, metric in METRICS.items():
        for key in metric.keys:
            entry = key.find(metrics)
            if not isinstance(entry, Mapping) or key.name.endswith("_floor"):
                continue  # floors stand beside the values that they belong to
            items = {"": entry} if "value" in entry else entry
            for item, number in items.items():
                if isinstance(number, Mapping) and "value" in number:
                    # Of pairs and samples only what compares the two has an ideal.
                    judged = key.by in ("", "observable") or item in _JUDGED
                    ideal = key.ideal if judged else math.nan
                    scores.append(_score(key.name, str(item), key.label, number, ideal, key.by))
    return scores


def _score(key: str, item: str, label: str, number: Mapping[str, Any], ideal: float, by: str = "") -> Score:
    detail = number.get("detail", {})
    return Score(
        key,
        item,
        label,
        number["value"],
        number.get("uncertainty"),
        number.get("floor"),
        number.get("floor_uncertainty"),
        None if ideal is None or ideal != ideal else ideal,
        str(detail.get("reason", "")) if isinstance(detail, Mapping) else "",
        by,
        _floor_note(detail) if isinstance(detail, Mapping) else "",
    )


def _floor_note(detail: Mapping[str, Any]) -> str:
    """Return how the floor was measured, as far as the detail says."""
    size = detail.get("floor_size", detail.get("size"))
    if size is None:
        return ""
    note = f"measured between sets of {size:,} reference showers"
    measured, scale = detail.get("floor_measured"), detail.get("floor_scale")
    if measured is None or scale is None or abs(scale - 1.0) < 1e-3:
        return note
    return f"{note}: {measured:.3g}; times {scale:.3g} for the samples' sizes"


def headline(scores: Iterable[Score], key: str) -> Score | None:
    """Return a key's single number: itself, or the mean over its entries with the worst one named.

    The mean's uncertainty neglects correlations between the entries; its label is that of the metric.
    """
    chosen = [score for score in scores if score.key == key and score.value is not None]
    if not chosen:
        return None
    if len(chosen) == 1 and not chosen[0].item:
        return chosen[0]
    return Score(
        key,
        "mean",
        chosen[0].label,
        _mean(score.value for score in chosen),
        _quadrature(score.uncertainty for score in chosen),
        _mean(score.floor for score in chosen),
        _quadrature(score.floor_uncertainty for score in chosen),
        chosen[0].ideal,
    )


def worst(scores: Iterable[Score], number: int = 4) -> list[Score]:
    """Return the scores that fail most: the largest pulls among those flagged."""
    failing = [score for score in scores if score.flag in ("warn", "bad")]
    return sorted(failing, key=lambda score: -(score.pull or 0.0))[:number]


def mean_ranks(by_sample: Mapping[str, list[Score]]) -> dict[str, float]:
    """Return each sample's mean rank (1 is nearest) over the headline metrics that all samples have."""
    ranks: dict[str, list[float]] = {label: [] for label in by_sample}
    for key in HEADLINES:
        found = {label: headline(scores, key) for label, scores in by_sample.items()}
        excess = {label: score.excess for label, score in found.items() if score is not None}
        if len(excess) < len(by_sample) or any(value is None for value in excess.values()):
            continue
        for label, value in excess.items():
            below = sum(other < value for other in excess.values())  # type: ignore[operator]
            equal = sum(other == value for other in excess.values())
            ranks[label].append(below + (equal + 1) / 2)
    return {label: sum(values) / len(values) if values else math.nan for label, values in ranks.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _quadrature(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.sqrt(sum(value * value for value in known)) / len(known) if known else None
