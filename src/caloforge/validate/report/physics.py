"""Statements on the physics of a sample: response, resolution, hits, layers, shape, cell spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from caloforge.validate.report.page import format_percent, format_value
from caloforge.validate.report.tolerances import (
    TOLERANCES,
    Statement,
    entry_of,
    flag_of,
    pull_of,
    severity_of,
    worst_flag,
)

__all__ = ["hits", "layers", "resolution", "response", "response_width", "shapes", "spectrum"]

_SHAPES = (
    "shower_depth",
    "radius_90",
    "centre_x",
    "centre_y",
    "second_moment_x",
    "second_moment_y",
    "peak_energy",
)
_LEAST_SHARE = 0.005  # of the visible energy in a layer that is judged
_MISSING = 0.1  # a layer with less than this of the reference's energy is missing
_LEAST_MISSING = 0.001  # share of a layer that can be missing
_WIDTH_TOLERANCE = 0.1  # of a shape's width


def _words(ratio: float, much: str, little: str) -> str:
    """Return a ratio as "12 % too high" or "2.1 times too high"."""
    if ratio >= 1.9:
        return f"{ratio:.3g} times {much}"
    return f"{100 * abs(ratio - 1.0):.2g} % {much if ratio > 1.0 else little}"


def _ratio(
    name: str, entry: Mapping[str, Any] | None, subject: str, much: str, little: str, priority: int
) -> Statement | None:
    """Return the statement on a ratio whose ideal is 1, with its worst slice of the energy."""
    if entry is None:
        return None
    tolerance = TOLERANCES[name].bad
    value, error = float(entry["value"]), entry.get("uncertainty")
    deviation = abs(value - 1.0)
    flag, severity = flag_of(deviation, error, tolerance), severity_of(deviation, error, tolerance)
    finding = f"{subject} {_words(value, much, little)}"
    label = TOLERANCES[name].label.lower()
    short = f"{label} {format_percent(value)}"
    small = ""
    worst = entry.get("detail", {}).get("worst")
    if worst is not None:
        ratio, u = float(worst["ratio"]), float(worst["uncertainty"])
        at = _energy(float(worst["energy"]))
        effective = abs(ratio - 1.0) / max(float(worst["significance"]), 1e-9)  # u with the number of slices
        in_slice = flag_of(abs(ratio - 1.0), effective, tolerance)
        if in_slice in ("warn", "bad"):
            small = f"{format_percent(ratio, u)} at {at}" if abs(ratio - value) > 3 * u else ""
            if flag != "bad" and (in_slice == "bad" or flag != "warn"):
                flag = in_slice
                finding = f"{subject} {_words(ratio, much, little)} at {at}"
                short = f"{label} {format_percent(ratio)} at {at}"
            severity = max(severity, 0.5 * severity_of(abs(ratio - 1.0), effective, tolerance))
    return Statement(
        name, format_percent(value, error), small, flag, severity, finding, short, priority, value
    )


def _energy(mev: float) -> str:
    return f"{mev / 1000:.4g} GeV" if mev >= 1000 else f"{mev:.4g} MeV"


def response(sample: Mapping[str, Any]) -> Statement | None:
    """Return the mean response, and the energy at which it is worst."""
    return _ratio(
        "response", entry_of(sample, "moments", "ratio", "response"), "response", "too high", "too low", 2
    )


def response_width(sample: Mapping[str, Any]) -> Statement | None:
    """Return the standard deviation of the response."""
    entry = entry_of(sample, "moments", "width", "response")
    return _ratio("response_width", entry, "width of the response", "too wide", "too narrow", 4)


def resolution(sample: Mapping[str, Any]) -> Statement | None:
    """Return the energy resolution, and the energy at which it is worst."""
    entry = entry_of(sample, "moments", "resolution")
    return _ratio("resolution", entry, "energy resolution", "too wide", "too narrow", 3)


def hits(sample: Mapping[str, Any]) -> Statement | None:
    """Return the mean number of hits, and the energy at which it is worst."""
    return _ratio(
        "hits", entry_of(sample, "moments", "ratio", "hits"), "number of hits", "too high", "too low", 3
    )


def _significance(deviation: float, error: float, trials: int) -> float:
    """Return the uncertainty that leaves a deviation the significance it has after a choice among so many."""
    z = deviation / error if error > 0 else math.inf
    corrected = math.sqrt(max(z * z - 2.0 * math.log(max(trials, 1)), 0.0))
    return max(error, deviation / corrected if corrected > 0 else math.inf) if deviation > 0 else error


def layers(sample: Mapping[str, Any]) -> Statement | None:
    """Return the layer whose mean energy deviates most, or those that are missing."""
    found = sample.get("moments", {}).get("ratio", {})
    entries = {
        key: entry
        for key, entry in found.items()
        if key.startswith("layer_energy[")
        and entry.get("value") is not None
        and entry.get("uncertainty") is not None
    }
    total = sum(float(entry["detail"]["reference"]) for entry in entries.values())
    if total <= 0:
        return None
    share = {key: float(entry["detail"]["reference"]) / total for key, entry in entries.items()}
    missing = [k for k, entry in entries.items() if share[k] > _LEAST_MISSING and entry["value"] < _MISSING]
    judged = {key: entry for key, entry in entries.items() if share[key] >= _LEAST_SHARE or key in missing}
    if not judged:
        return None
    tolerance = TOLERANCES["layers"].bad
    flags, severities = {}, {}
    for key, entry in judged.items():
        deviation, error = abs(float(entry["value"]) - 1.0), float(entry["uncertainty"])
        effective = error if deviation < 3 * error else _significance(deviation, error, len(judged))
        flags[key] = _decided(deviation, error, effective, tolerance)
        severities[key] = severity_of(deviation, effective, tolerance)
    most = max(judged, key=lambda key: (severities[key], abs(float(judged[key]["value"]) - 1.0)))
    entry = judged[most]
    name = f"layer {most.removeprefix('layer_energy[').removesuffix(']')}"
    value, error = float(entry["value"]), float(entry["uncertainty"])
    priority, finding = 4, f"energy of {name} {_words(value, 'too high', 'too low')}"
    short = f"{name} {format_percent(value)}"
    if missing and 2 * len(missing) <= len(entries):
        numbers = [key.removeprefix("layer_energy[").removesuffix("]") for key in missing]
        which = f"layer{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:4])}"
        gone = "without energy" if all(entries[k]["value"] == 0 for k in missing) else "nearly without energy"
        priority, finding, short = 0, f"missing {which} ({gone})", f"missing {which}"
    else:
        response = entry_of(sample, "moments", "ratio", "response")
        if response is not None and abs(value / float(response["value"]) - 1.0) < tolerance:
            priority = 6  # a consequence of the response
    text = f"{name} {format_percent(value, error)}"
    return Statement(
        "layers",
        text,
        f"worst of {len(judged)}",
        worst_flag(list(flags.values())),
        max(severities.values()),
        finding,
        short,
        priority,
        abs(value - 1.0),
    )


def _decided(deviation: float, error: float, effective: float, tolerance: float) -> str:
    """Return the flag of one of several entries: significance with their number, power without."""
    flag = flag_of(deviation, effective, tolerance)
    return flag if flag in ("warn", "bad") or error > tolerance else "good"


def shapes(sample: Mapping[str, Any]) -> Statement | None:
    """Return the shape observable whose mean or width deviates most, in units of its tolerance."""
    found = sample.get("moments", {})
    rows = []
    for kind, ideal, tolerance in (
        ("shift", 0.0, TOLERANCES["shapes"].bad),
        ("width", 1.0, _WIDTH_TOLERANCE),
    ):
        for observable in _SHAPES:
            entry = entry_of(found, kind, observable)
            if entry is not None and entry.get("uncertainty") is not None:
                rows.append(
                    (kind, observable, float(entry["value"]), float(entry["uncertainty"]), ideal, tolerance)
                )
    if not rows:
        return None
    flags, severities = [], []
    for _, _, value, error, ideal, tolerance in rows:
        deviation = abs(value - ideal)
        effective = error if deviation < 3 * error else _significance(deviation, error, len(rows))
        flags.append(_decided(deviation, error, effective, tolerance))
        severities.append(severity_of(deviation, effective, tolerance))
    most = max(range(len(rows)), key=lambda k: (severities[k], abs(rows[k][2] - rows[k][4]) / rows[k][5]))
    kind, observable, value, error, *_ = rows[most]
    name = observable.replace("_", " ")
    if kind == "width":
        text = f"width of {name} {format_percent(value, error)}"
        finding, short = f"width of {name} {_words(value, 'too wide', 'too narrow')}", f"width of {name}"
    else:
        text = f"{name} {'+' if value >= 0 else ''}{format_value(value, error)} σ".replace("-", "−")
        finding, short = (
            f"mean of {name} shifted by {value:+.2g} standard deviations".replace("-", "−"),
            f"mean of {name}",
        )
    return Statement(
        "shapes",
        text,
        f"worst of {len(rows)}",
        worst_flag(flags),
        severities[most],
        finding,
        short,
        4,
        severities[most],
    )


# -- the spectrum ------------------------------------------------------------------------------------------


def spectrum(sample: Mapping[str, Any]) -> Statement | None:
    """Return the significant local ratio that tells most about the generator, over all layers and each of them."""
    entries = [
        e for e in sample.get("spectrum_ratio", {}).values() if e.get("value") is not None and e.get("detail")
    ]
    if not entries:
        return None
    tolerance = TOLERANCES["spectrum"].bad
    chi2 = entry_of(sample, "spectrum_chi2", "all")
    small = "" if chi2 is None else f"chi2 per bin {chi2['value']:.3g}, floor {chi2.get('floor') or 1.0:.2g}"
    significant = [e for e in entries if e["detail"].get("significant")]
    if not significant:
        error = float(entries[0]["detail"]["typical_uncertainty"])
        flag = flag_of(0.0, error, tolerance)
        finding = ""
        if flag == "good" and chi2 is not None and pull_of(chi2, 1.0) >= 5.0:
            flag, finding = "warn", f"chi2 per bin of the cell spectrum is {chi2['value']:.3g}"
        text = f"no bin deviates (bins to ±{100 * error:.1g} %)"
        return Statement("spectrum", text, small, flag, 0.0, finding, "cell spectrum", 3, 0.0)
    most = max(significant, key=lambda e: float(e["detail"]["deviance"]))
    detail = most["detail"]
    ratio = float(detail["ratio"])
    deviation = abs(math.log(max(ratio, 1e-3)))
    error = deviation / float(detail["significance"])
    low, high = _mev(float(detail["energy_low"])), _mev(float(detail["energy_high"]))
    where = f"{low} to {high} MeV" + (f", {detail['layer']}" if detail.get("layer") else "")
    finding = str(detail["finding"])
    if ratio > 1.5:
        finding = f"pile-up of cells: {finding}"
    return Statement(
        "spectrum",
        f"× {ratio:.3g} at {where}",
        small,
        flag_of(deviation, error, tolerance),
        severity_of(deviation, error, tolerance),
        finding,
        f"{'pile-up' if ratio > 1.5 else f'cells × {ratio:.2g}'} at {where}",
        3,
        deviation,
    )


def _mev(energy: float) -> str:
    return f"{energy:.3f}" if 0.05 <= energy < 10.0 else f"{energy:.3g}"
