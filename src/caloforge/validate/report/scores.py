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

from caloforge.validate.report.tolerances import excess_of

__all__ = ["FLAGS", "Score", "scores_of"]

FLAGS = {"good": "as the reference", "warn": "2 to 5 deviations off", "bad": "more than 5 deviations off"}
_GOOD, _BAD = 2.0, 5.0


@dataclass(frozen=True)
class Score:
    """One number of one sample."""

    key: str  # key in ``metrics.json``
    item: str  # entry under that key (an observable, a pair), empty for a single value
    label: str  # the metric's name for people
    # entry: its ``value`` (None when it was not measured), ``uncertainty``, ``floor``, ``floor_uncertainty``, ``detail``
    entry: Mapping[str, Any]
    ideal: float | None = None  # what a perfect generator reaches, or None when unknown
    by: str = ""  # what the items of its key are: "observable", "pair", "sample", or empty

    @property
    def name(self) -> str:
        """Its path in ``metrics.json``."""
        return f"{self.key}.{self.item}" if self.item else self.key

    @property
    def value(self) -> float | None:
        """The number; None when it was not measured."""
        found: float | None = self.entry["value"]
        return found

    @property
    def floor(self) -> float | None:
        """What a perfect generator would score with so many showers, or None."""
        return self.entry.get("floor")

    @property
    def pull(self) -> float | None:
        """How much further it is from the ideal than the floor, in standard deviations; None when that is not known."""
        if self.value is None or self.ideal is None:
            return None
        excess, sigma = excess_of(self.entry, self.ideal)
        return excess / sigma if sigma > 0.0 else None

    @property
    def flag(self) -> str:
        """``good``, ``warn`` or ``bad`` by the pull; empty without one."""
        if self.pull is None:
            return ""
        return "good" if self.pull < _GOOD else ("warn" if self.pull < _BAD else "bad")

    @property
    def reason(self) -> str:
        """Why there is no value."""
        return str((self.entry.get("detail") or {}).get("reason", ""))

    @property
    def floor_note(self) -> str:
        """How the floor was measured, as far as the detail says."""
        detail = self.entry.get("detail") or {}
        size = detail.get("floor_size", detail.get("size"))
        if size is None:
            return ""
        note = f"measured between sets of {size:,} reference showers"
        measured, scale = detail.get("floor_measured"), detail.get("floor_scale")
        if measured is None or scale is None or abs(scale - 1.0) < 1e-3:
            return note
        return f"{note}: {measured:.3g}; times {scale:.3g} for the samples' sizes"


def scores_of(metrics: Mapping[str, Any]) -> list[Score]:
    """Return every number of one sample that some metric declares, in the metrics' order."""
    from caloforge.validate.metrics.base import METRICS

    scores: list[Score] = []
    for _, metric in METRICS.items():
        for key in metric.keys:
            entry = key.find(metrics)
            if not isinstance(entry, Mapping) or key.name.endswith("_floor"):
                continue  # floors stand beside the values that they belong to
            for item, number in ({"": entry} if "value" in entry else entry).items():
                if isinstance(number, Mapping) and "value" in number:
                    # Of pairs and samples only what compares the two has an ideal.
                    judged = (key.by in ("", "observable") or item == "ratio") and math.isfinite(key.ideal)
                    ideal = key.ideal if judged else None
                    scores.append(Score(key.name, str(item), key.label, number, ideal, key.by))
    return scores
