"""Every number of ``metrics.json`` as a score, for the tables of all metrics.

A score compares a metric's distance from its ideal with the same distance of the floor (what a perfect generator would
score with so many showers), in standard deviations of both:

    pull = (|value - ideal| - |floor - ideal|) / sqrt(uncertainty^2 + floor_uncertainty^2)

A pull below 2 is as good as the reference itself at these sample sizes, above 5 it is a clear difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FLAGS", "Score", "scores_of"]

FLAGS = {"good": "as the reference", "warn": "2 to 5 deviations off", "bad": "more than 5 deviations off"}
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
        ideal if ideal is not None and math.isfinite(ideal) else None,
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
