r"""Statements of the summary, and the tolerances: the size of each deviation that a user of the showers would not accept.

A statement is judged by size and by significance. With the deviation d from what a perfect generator reaches (beyond the floor
where there is one), its uncertainty u and the tolerance t of the table:

=========== ==================================================================================
flag        condition
=========== ==================================================================================
bad         d >= t and d >= 5 u
warn        d >= t / 3 and d >= 3 u, and not bad
unknown     undecided: not significant (d < 3 u), and u > t or d >= t
good        everything else: right, or wrong by less than a third of the tolerance
=========== ==================================================================================

The severity of a deviation is :math:`s = \log_2(1 + \max(0, d - 2 u) / t)`, at most 8, and a sample's score the mean of the
severities with the weights of the table, over the statements that all samples have: a response wrong by 100 % has severity 6.7
and weight 4, a deviation just at the tolerance 1. The sample of lowest score is ranked first; a model whose training was not
finished is ranked behind all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "SIGNS", "SIMILARITY", "TOLERANCES", "Statement", "Tolerance", "entry_of", "excess_of", "flag_of",
    "severity_of", "worst_flag",
]  # fmt: skip


SIGNS = {"good": "✓", "warn": "△", "bad": "✗", "unknown": "?"}
"""The sign of each flag."""

_MOST = 8.0
_WARN, _BAD = 3.0, 5.0


@dataclass(frozen=True)
class Tolerance:
    """What is bad for one statement."""

    label: str  # the statement's name for people
    bad: float  # deviation t that is bad
    weight: float  # weight in the ranking; 0 for what is shown only
    says: str  # quantity and tolerance in words


TOLERANCES: dict[str, Tolerance] = {
    "response": Tolerance("Response", 0.01, 4.0, "mean visible over incident energy; bad when off by 1 %"),
    "response_width": Tolerance("Response width", 0.05, 2.0, "standard deviation of the response; bad when off by 5 %"),
    "resolution": Tolerance(
        "Resolution", 0.05, 2.0, "central width over median of the response, by incident energy; bad when off by 5 %"
    ),
    "hits": Tolerance("Hits", 0.02, 2.0, "mean number of cells above the threshold; bad when off by 2 %"),
    "layers": Tolerance("Layer energies", 0.05, 2.0, "mean energy of each layer with 0.5 % of the energy or more; bad when off by 5 %"),
    "shapes": Tolerance(
        "Shower shape", 0.2, 1.0,
        "depth, radius, centre, second moments, peak cell; bad when a mean is shifted by 0.2 standard deviations or a width is off by 10 %",
    ),
    "spectrum": Tolerance(
        "Cell spectrum", math.log(1.1), 2.0, "largest significant local ratio of the numbers of cells in a bin of energy; bad when off by 10 %"
    ),
    "auc_strongest": Tolerance("Strongest classifier", 0.1, 3.0, "AUC of the strongest classifier; bad at 0.6"),
    "auc_cells": Tolerance("AUC, cells", 0.1, 0.0, "strongest classifier on cell energies; bad at 0.6"),
    "auc_observables": Tolerance("AUC, observables", 0.1, 0.0, "strongest classifier on observables; bad at 0.6"),
    "auc_spectrum": Tolerance("AUC, cell spectrum", 0.1, 0.0, "strongest classifier on each shower's spectrum; bad at 0.6"),
    "detectability": Tolerance(
        "Showers to 5 sigma", 1000.0, 0.0,
        "showers a side with which a classifier distinguishes the sample from the reference at 5 sigma; bad below 1,000, good above 10,000",
    ),
    "fpd": Tolerance("Frechet physics distance", 0.1, 0.5, "bad when 0.1 above its floor"),
    "kpd": Tolerance("Kernel physics distance", 5e-4, 0.5, "bad when 0.0005 above its floor"),
    "prdc": Tolerance(
        "Precision, recall, density, coverage", 0.2, 2.0,
        "bad when one is 20 % below its floor, or the density 50 % above",
    ),
}  # fmt: skip
"""Statement to tolerance, in the order of the summary."""


def flag_of(deviation: float, uncertainty: float | None, tolerance: float) -> str:
    """Return ``good``, ``warn``, ``bad`` or ``unknown``; empty without an uncertainty.

    Arguments:
        deviation: Distance d >= 0 from what a perfect generator reaches; what is negative counts as 0.
        uncertainty: One standard deviation u.
        tolerance: Deviation t that is bad.
    """
    if uncertainty is None or math.isnan(uncertainty) or math.isnan(deviation):
        return ""
    d = max(deviation, 0.0)
    if d < _WARN * uncertainty or d == 0.0:
        return "unknown" if uncertainty > tolerance or d >= tolerance else "good"
    if d >= tolerance and d >= _BAD * uncertainty:
        return "bad"
    return "warn" if d >= tolerance / 3.0 else "good"


def severity_of(deviation: float, uncertainty: float | None, tolerance: float) -> float:
    """Return log2(1 + max(0, d - 2 u) / t), at most 8."""
    beyond = max(0.0, deviation - 2.0 * (uncertainty or 0.0))
    return min(_MOST, math.log2(1.0 + beyond / tolerance))


def worst_flag(flags: list[str]) -> str:
    """Return the flag of several entries: the worst; "unknown" counts only when half of them cannot tell."""
    known = [flag for flag in flags if flag]
    if not known:
        return ""
    for flag in ("bad", "warn"):
        if flag in known:
            return flag
    return "unknown" if 2 * known.count("unknown") >= len(known) else "good"


SIMILARITY = 7
"""Priority from which on a statement is no physical cause."""


@dataclass(frozen=True)
class Statement:
    """One line of the summary for one sample."""

    name: str  # key in :data:`TOLERANCES`
    text: str  # the number with its uncertainty
    small: str = ""  # second line, in small print
    flag: str = ""  # ``good``, ``warn``, ``bad``, ``unknown`` (cannot tell), or empty
    severity: float = 0.0  # see :func:`severity_of`
    finding: str = ""  # the deviation in words, for the verdict
    short: str = ""  # the deviation in few words, for tables
    priority: int = 5  # causes of a lower number are named first
    sort: float | None = None  # number to sort by

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
