"""Statements on a sample: its physics, and how well it can be distinguished from the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from caloforge.statistics.moments import significance_of_largest
from caloforge.units import plain_number
from caloforge.validate.report.page import format_count, format_percent, format_value
from caloforge.validate.report.tolerances import (
    TOLERANCES,
    Statement,
    entry_of,
    excess_of,
    flag_of,
    severity_of,
    worst_flag,
)

__all__ = [
    "RATIOS", "auc", "auc_strongest", "detectability", "distance", "features_of", "layers", "prdc", "ratio",
    "shapes", "spectrum",
]  # fmt: skip


RATIOS: dict[str, tuple[tuple[str, ...], str, tuple[str, str], int]] = {
    "response": (("ratio", "response"), "response", ("too high", "too low"), 2),
    "response_width": (("width", "response"), "width of the response", ("too wide", "too narrow"), 4),
    "resolution": (("resolution",), "energy resolution", ("too wide", "too narrow"), 3),
    "hits": (("ratio", "hits"), "number of hits", ("too high", "too low"), 3),
}
"""Ratio of moments to its path below ``moments``, its subject, the words for above and below 1, and its priority."""

_SHAPES = (
    "shower_depth", "radius_90", "centre_x", "centre_y", "second_moment_x", "second_moment_y", "peak_energy",
)  # fmt: skip
_LEAST_SHARE = 0.005  # of the visible energy in a layer that is judged
_MISSING = 0.1  # a layer with less than this of the reference's energy is missing
_LEAST_MISSING = 0.001  # share of a layer that can be missing
_WIDTH_TOLERANCE = 0.1  # of a shape's width


def _words(value: float, words: tuple[str, str]) -> str:
    """Return a ratio as "12 % too high" or "2.1 times too high"."""
    if value >= 1.9:
        return f"{plain_number(value)} times {words[0]}"
    return f"{plain_number(100 * abs(value - 1.0), 2)} % {words[0] if value > 1.0 else words[1]}"


def ratio(name: str, sample: Mapping[str, Any]) -> Statement | None:
    """Return the statement on one of :data:`RATIOS`, whose ideal is 1, with the energy at which it is worst."""
    path, subject, words, priority = RATIOS[name]
    entry = entry_of(sample, "moments", *path)
    if entry is None:
        return None
    tolerance, label = TOLERANCES[name].bad, TOLERANCES[name].label.lower()
    value, error = float(entry["value"]), entry.get("uncertainty")
    deviation = abs(value - 1.0)
    flag, severity = flag_of(deviation, error, tolerance), severity_of(deviation, error, tolerance)
    finding, short, small = f"{subject} {_words(value, words)}", f"{label} {format_percent(value)}", ""
    worst = entry.get("detail", {}).get("worst")
    if worst is not None:
        there, u, mev = float(worst["ratio"]), float(worst["uncertainty"]), float(worst["energy"])
        at = f"{plain_number(mev / 1000, 4)} GeV" if mev >= 1000 else f"{plain_number(mev, 4)} MeV"
        effective = abs(there - 1.0) / max(float(worst["significance"]), 1e-9)  # u with the number of slices
        in_slice = flag_of(abs(there - 1.0), effective, tolerance)
        if in_slice in ("warn", "bad"):
            small = f"{format_percent(there, u)} at {at}" if abs(there - value) > 3 * u else ""
            if flag != "bad" and (in_slice == "bad" or flag != "warn"):
                flag = in_slice
                finding = f"{subject} {_words(there, words)} at {at}"
                short = f"{label} {format_percent(there)} at {at}"
            severity = max(severity, 0.5 * severity_of(abs(there - 1.0), effective, tolerance))
    text = format_percent(value, error)
    return Statement(name, text, small, flag, severity, finding, short, priority, value)


def _worst_of(rows: Sequence[tuple[float, float, float]]) -> tuple[int, str, float]:
    """Return the worst of several deviations: its place, the flag of all, its severity.

    A significant deviation has the significance that is left of it after a choice among so many; power needs no such correction.

    Arguments:
        rows: Deviation, its uncertainty and the tolerance of each.
    """
    flags, severities = [], []
    for deviation, error, tolerance in rows:
        effective = error
        if deviation >= 3 * error and deviation > 0:
            z = deviation / error if error > 0 else math.inf
            corrected = significance_of_largest(z, len(rows))
            effective = max(error, deviation / corrected if corrected > 0 else math.inf)
        flag = flag_of(deviation, effective, tolerance)
        flags.append(flag if flag in ("warn", "bad") or error > tolerance else "good")
        severities.append(severity_of(deviation, effective, tolerance))
    most = max(range(len(rows)), key=lambda k: (severities[k], rows[k][0] / rows[k][2]))
    return most, worst_flag(flags), severities[most]


def layers(sample: Mapping[str, Any]) -> Statement | None:
    """Return the layer whose mean energy deviates most, or those that are missing."""
    entries = {
        key.removeprefix("layer_energy[").removesuffix("]"): entry
        for key, entry in sample.get("moments", {}).get("ratio", {}).items()
        if key.startswith("layer_energy[") and None not in (entry.get("value"), entry.get("uncertainty"))
    }
    total = sum(float(entry["detail"]["reference"]) for entry in entries.values())
    if total <= 0:
        return None
    share = {key: float(entry["detail"]["reference"]) / total for key, entry in entries.items()}
    missing = [k for k, entry in entries.items() if share[k] > _LEAST_MISSING and entry["value"] < _MISSING]
    judged = [key for key in entries if share[key] >= _LEAST_SHARE or key in missing]
    if not judged:
        return None
    tolerance = TOLERANCES["layers"].bad
    numbers = ((float(entries[k]["value"]), float(entries[k]["uncertainty"])) for k in judged)
    rows = [(abs(value - 1.0), error, tolerance) for value, error in numbers]
    most, flag, severity = _worst_of(rows)
    name, value = f"layer {judged[most]}", float(entries[judged[most]]["value"])
    priority, finding = 4, f"energy of {name} {_words(value, ('too high', 'too low'))}"
    short = f"{name} {format_percent(value)}"
    response = entry_of(sample, "moments", "ratio", "response")
    if missing and 2 * len(missing) <= len(entries):
        which = f"layer{'s' if len(missing) > 1 else ''} {', '.join(missing[:4])}"
        gone = "without energy" if all(entries[k]["value"] == 0 for k in missing) else "nearly without energy"
        priority, finding, short = 0, f"missing {which} ({gone})", f"missing {which}"
    elif response is not None and abs(value / float(response["value"]) - 1.0) < tolerance:
        priority = 6  # a consequence of the response
    text, small = f"{name} {format_percent(value, rows[most][1])}", f"worst of {len(judged)}"
    return Statement("layers", text, small, flag, severity, finding, short, priority, rows[most][0])


def shapes(sample: Mapping[str, Any]) -> Statement | None:
    """Return the shape observable whose mean or width deviates most, in units of its tolerance."""
    rows = []
    for kind, ideal, tolerance in (
        ("shift", 0.0, TOLERANCES["shapes"].bad),
        ("width", 1.0, _WIDTH_TOLERANCE),
    ):
        for observable in _SHAPES:
            entry = entry_of(sample, "moments", kind, observable)
            if entry is not None and entry.get("uncertainty") is not None:
                value, error = float(entry["value"]), float(entry["uncertainty"])
                name = observable.replace("_", " ")
                rows.append((kind, name, value, error, (abs(value - ideal), error, tolerance)))
    if not rows:
        return None
    most, flag, severity = _worst_of([row[-1] for row in rows])
    kind, name, value, error, _ = rows[most]
    if kind == "width":
        text, short = f"width of {name} {format_percent(value, error)}", f"width of {name}"
        finding = f"{short} {_words(value, ('too wide', 'too narrow'))}"
    else:
        text, short = f"{name} {'+' if value >= 0 else ''}{format_value(value, error)} σ", f"mean of {name}"
        finding = f"{short} shifted by {plain_number(value, 2, '+')} standard deviations".replace("-", "−")
        text = text.replace("-", "−")
    return Statement("shapes", text, f"worst of {len(rows)}", flag, severity, finding, short, 4, severity)


def spectrum(sample: Mapping[str, Any]) -> Statement | None:
    """Return the significant local ratio that tells most about the generator, over all layers and each of them."""
    found = sample.get("spectrum_ratio", {}).values()
    entries = [entry for entry in found if entry.get("value") is not None and entry.get("detail")]
    if not entries:
        return None
    tolerance = TOLERANCES["spectrum"].bad
    chi2 = entry_of(sample, "spectrum_chi2", "all")
    small = (
        ""
        if chi2 is None
        else f"chi2 per bin {plain_number(chi2['value'])}, floor {plain_number(chi2.get('floor') or 1.0, 2)}"
    )
    significant = [entry["detail"] for entry in entries if entry["detail"].get("significant")]
    if not significant:
        error = float(entries[0]["detail"]["typical_uncertainty"])
        flag, finding = flag_of(0.0, error, tolerance), ""
        excess, sigma = (0.0, 0.0) if chi2 is None else excess_of(chi2, 1.0)
        if chi2 is not None and flag == "good" and sigma > 0 and excess / sigma >= 5.0:
            flag, finding = "warn", f"chi2 per bin of the cell spectrum is {plain_number(chi2['value'])}"
        text = f"no bin deviates (bins to ±{plain_number(100 * error, 1)} %)"
        return Statement("spectrum", text, small, flag, 0.0, finding, "cell spectrum", 3, 0.0)
    detail = max(significant, key=lambda each: float(each["deviance"]))
    value = float(detail["ratio"])
    deviation = abs(math.log(max(value, 1e-3)))
    error = deviation / float(detail["significance"])
    low, high = _mev(float(detail["energy_low"])), _mev(float(detail["energy_high"]))
    where = f"{low} to {high} MeV" + (f", {detail['layer']}" if detail.get("layer") else "")
    finding, short = str(detail["finding"]), f"cells × {plain_number(value, 2)} at {where}"
    if value > 1.5:
        finding, short = f"pile-up of cells: {finding}", f"pile-up at {where}"
    flag, severity = flag_of(deviation, error, tolerance), severity_of(deviation, error, tolerance)
    text = f"× {plain_number(value)} at {where}"
    return Statement("spectrum", text, small, flag, severity, finding, short, 3, deviation)


def _mev(energy: float) -> str:
    return f"{energy:.3f}" if 0.05 <= energy < 10.0 else plain_number(energy)


_COLLAPSED = 0.5  # recall over its floor below which a sample has collapsed, when its precision is right
_DENSE = 0.5  # excess of the density that is bad
_MANY_SHOWERS = 10_000
_SIGNIFICANT = 3.0  # standard deviations of an importance that is shown
_PRDC = ("precision", "recall", "density", "coverage")
_AUCS = {
    "auc_spectrum": "cell spectrum", "auc_cells": "cells", "auc_observables": "observables",
    "auc_low": "cells (CaloChallenge network)", "auc_high": "observables (CaloChallenge network)",
    "auc_cnn": "3-D images",
}  # fmt: skip


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
    finding = f"{format_count(value)} showers a side distinguish it from the reference at 5 sigma"
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
    finding, priority = f"{worst} {share[worst]:.2f} of its floor", 6
    short = f"{worst} {plain_number(entries[worst]['value'], 2)}"
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
