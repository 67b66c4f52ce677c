"""One line of the summary: a number, its flag, and the deviation in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caloforge.validate.report.tolerances import TOLERANCES

__all__ = ["SIMILARITY", "Statement", "entry_of", "excess_of", "pull_of"]


SIMILARITY = 7
"""Priority from which on a statement is no physical cause."""


@dataclass(frozen=True)
class Statement:
    """One line of the summary for one sample.

    Attributes:
        name: Key in :data:`~caloforge.validate.report.tolerances.TOLERANCES`.
        text: The number with its uncertainty.
        small: What else is to be said in small print.
        flag: ``good``, ``warn``, ``bad``, ``unknown`` (cannot tell), or empty.
        severity: See :func:`~caloforge.validate.report.tolerances.severity_of`.
        finding: The deviation in words, for the verdict.
        short: The deviation in few words, for tables.
        priority: Causes of a lower number are named first.
        sort: Number to sort by.
    """

    name: str
    text: str
    small: str = ""
    flag: str = ""
    severity: float = 0.0
    finding: str = ""
    short: str = ""
    priority: int = 5
    sort: float | None = None

    @property
    def label(self) -> str:
        """The statement's name for people."""
        return TOLERANCES[self.name].label

    @property
    def weight(self) -> float:
        """Its weight in the ranking."""
        return TOLERANCES[self.name].weight


def entry_of(sample: Mapping[str, Any], *path: str) -> Mapping[str, Any] | None:
    """Return a value with its detail; None when it is missing or null."""
    found: Any = sample
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) and found.get("value") is not None else None


def excess_of(entry: Mapping[str, Any], ideal: float) -> tuple[float, float]:
    """Return the distance from the ideal beyond the floor's, and its uncertainty."""
    floor = entry.get("floor")
    beyond = 0.0 if floor is None else abs(floor - ideal)
    error = math.hypot(entry.get("uncertainty") or 0.0, entry.get("floor_uncertainty") or 0.0)
    return abs(float(entry["value"]) - ideal) - beyond, error


def pull_of(entry: Mapping[str, Any], ideal: float) -> float:
    """Return the excess of :func:`excess_of` in standard deviations; 0 without an uncertainty."""
    excess, error = excess_of(entry, ideal)
    return excess / error if error > 0 else 0.0
