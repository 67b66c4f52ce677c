"""Statements on how well a sample can be distinguished from the reference: classifiers, distances, precision and recall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from caloforge.validate.report.page import format_count, format_value
from caloforge.validate.report.tolerances import (
    TOLERANCES,
    Statement,
    entry_of,
    excess_of,
    flag_of,
    severity_of,
    worst_flag,
)

__all__ = ["auc", "auc_strongest", "detectability", "distance", "features_of", "prdc"]

_COLLAPSED = 0.5  # recall over its floor below which a sample has collapsed, when its precision is right
_DENSE = 0.5  # excess of the density that is bad
_MANY_SHOWERS = 10_000
_SIGNIFICANT = 3.0  # standard deviations of an importance that is shown
_PRDC = ("precision", "recall", "density", "coverage")
_AUCS = {
    "auc_spectrum": "cell spectrum",
    "auc_cells": "cells",
    "auc_observables": "observables",
    "auc_low": "cells (CaloChallenge network)",
    "auc_high": "observables (CaloChallenge network)",
    "auc_cnn": "3-D images",
}


def _statement(
    name: str, entry: Mapping[str, Any], ideal: float, short: str, note: str = "", finding: str = ""
) -> Statement:
    """Return the statement on a number that is compared with its floor."""
    tolerance, floor = TOLERANCES[name].bad, entry.get("floor")
    excess, error = excess_of(entry, ideal)
    below = "" if floor is None else f"floor {format_value(floor, entry.get('floor_uncertainty'))}"
    small = " · ".join(part for part in (note, below) if part)
    flag = flag_of(excess, error, tolerance) if error > 0 else ""
    text, severity = (
        format_value(entry["value"], entry.get("uncertainty")),
        severity_of(excess, error, tolerance),
    )
    return Statement(name, text, small, flag, severity, finding, short, 7, float(entry["value"]))


def auc_strongest(sample: Mapping[str, Any]) -> Statement | None:
    """Return the strongest classifier; the largest AUC that was measured where ``auc_strongest`` is not."""
    entry = entry_of(sample, "auc_strongest")
    if entry is not None:
        note = str(entry.get("detail", {}).get("classifier", ""))
    else:
        measured = {key: found for key in _AUCS if (found := entry_of(sample, key)) is not None}
        if not measured:
            return None
        key = max(measured, key=lambda name: float(measured[name]["value"]))
        entry, note = measured[key], _AUCS[key]
    finding = f"a classifier reaches AUC {entry['value']:.2f}" + (f" ({note})" if note else "")
    for first in features_of(sample)[:1]:
        finding += f", mostly by {str(first['feature']).replace('_', ' ')} ({first['kind']})"
    return _statement("auc_strongest", entry, 0.5, f"AUC {entry['value']:.2f}", note, finding)


def features_of(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the features by which classifiers distinguish a sample, the most important first; without those that may be chance."""
    entry = sample.get("attribution")
    detail = entry.get("detail") if isinstance(entry, Mapping) else None
    found = detail.get("features") if isinstance(detail, Mapping) else detail
    if not isinstance(found, Sequence):
        return []
    known = [row for row in found if row.get("importance")]
    return [row for row in known if row["importance"] >= _SIGNIFICANT * (row.get("uncertainty") or 0.0)]


def auc(name: str, sample: Mapping[str, Any]) -> Statement | None:
    """Return the statement on one of the classifiers, by its key."""
    entry = entry_of(sample, name)
    if entry is None:
        return None
    note = str(entry.get("detail", {}).get("classifier", ""))
    return _statement(name, entry, 0.5, f"AUC {entry['value']:.2f}", note)


def distance(name: str, sample: Mapping[str, Any]) -> Statement | None:
    """Return the statement on the Frechet ("fpd") or kernel ("kpd") physics distance."""
    entry, label = entry_of(sample, name), TOLERANCES[name].label
    return None if entry is None else _statement(name, entry, 0.0, label, finding=f"{label} above its floor")


def detectability(sample: Mapping[str, Any]) -> Statement | None:
    """Return how many showers a classifier needs for five standard deviations."""
    entry = sample.get("detectability")
    if not isinstance(entry, Mapping) or "value" not in entry:
        return None
    detail, value = entry.get("detail", {}), entry["value"]
    if value is None:
        limit = detail.get("lower_limit")
        if limit is None:
            return None
        flag = "good" if limit >= _MANY_SHOWERS else "unknown"
        return Statement("detectability", f"more than {format_count(limit)}", flag=flag, sort=float(limit))
    found = detail.get("n_5sigma") or {}
    low, high = found.get("low"), found.get("high")
    small = f"68 %: {format_count(low)} to {format_count(high)}" if low and high else ""
    if detail.get("extrapolated"):
        small = " · ".join(part for part in (small, "extrapolated") if part)
    bad = TOLERANCES["detectability"].bad
    flag = "bad" if value < bad else "good" if (low or value) >= _MANY_SHOWERS else "warn"
    finding = f"{format_count(value)} showers a side tell it from the reference at 5 sigma"
    return Statement("detectability", format_count(value), small, flag, 0.0, finding, "", 8, float(value))


def prdc(sample: Mapping[str, Any]) -> Statement | None:
    """Return precision, recall, density and coverage together; nothing when one is missing."""
    entries = {key: entry for key in _PRDC if (entry := entry_of(sample, key)) is not None}
    if len(entries) < len(_PRDC):
        return None
    text = " · ".join(f"{float(entry['value']):.2f}" for entry in entries.values())
    floors = [entry.get("floor") for entry in entries.values()]
    if any(floor is None or floor <= 0 for floor in floors):
        return Statement("prdc", text)
    tolerance = TOLERANCES["prdc"].bad
    flags, severities, share = {}, {}, {}
    for key, entry in entries.items():
        value, floor = float(entry["value"]), float(entry["floor"])
        share[key] = value / floor
        below = share[key] * (entry.get("floor_uncertainty") or 0.0)
        error = math.hypot(entry.get("uncertainty") or 0.0, below) / floor
        deviation, bad = max(0.0, 1.0 - share[key]), tolerance
        if key == "density" and share[key] > 1.0:
            deviation, bad = share[key] - 1.0, _DENSE
        flags[key], severities[key] = flag_of(deviation, error, bad), severity_of(deviation, error, bad)
    worst = max(severities, key=lambda key: severities[key])
    finding, short, priority = (
        f"{worst} {share[worst]:.2f} of its floor",
        f"{worst} {entries[worst]['value']:.2g}",
        6,
    )
    recall = entries["recall"]
    if flags["recall"] == "bad" and share["recall"] < _COLLAPSED and share["precision"] > 1.0 - tolerance:
        finding = (
            f"mode collapse: recall {recall['value']:.2g}, floor {recall['floor']:.2g}; "
            "the showers cover a part of the reference's variety only"
        )
        short, priority = "mode collapse", 1
    small = "floor " + " · ".join(f"{floor:.2f}" for floor in floors)
    flag, severity = worst_flag(list(flags.values())), severities[worst]
    return Statement("prdc", text, small, flag, severity, finding, short, priority, float(recall["value"]))
