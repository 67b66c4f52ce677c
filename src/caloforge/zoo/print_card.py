"""The card of a shipped model, for people: what, of which data, by which command, how good, how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caloforge.cli.output import print_lines, print_table

__all__ = ["merits", "print_shipped", "shipped_row"]

_FIGURES = {
    "auc_strongest": "AUC, strongest classifier",
    "auc_cells": "AUC, cells",
    "auc_observables": "AUC, observables",
    "auc_spectrum": "AUC, cell spectrum",
    "detectability": "showers a side to 5 sigma",
    "auc_low": "AUC, CaloChallenge's classifier, cells",
    "auc_high": "AUC, CaloChallenge's classifier, observables",
    "shape_mse": "shower-shape MSE",
    "cell_mean_ratio": "core-cell means, ratio",
    "cell_std_ratio": "core-cell deviations, ratio",
    "layer_fractions": "largest layer fraction difference, points",
    "covariance_distance": "covariance distance",
    "fpd": "FPD",
    "kpd": "KPD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
"""Single figures of a card, in the order of the table."""
_MOMENTS = (
    "response",
    "peak_energy",
    "hits",
    "shower_depth",
    "radius_90",
    "centre_x",
    "centre_y",
    "centre_z",
)
"""Observables whose means and widths are shown."""
_MERITS = ("auc_strongest", "auc_cells", "auc_observables", "auc_spectrum")
"""Figures of the list of all shipped models."""
_PERCENT = 100.0


def merits() -> tuple[str, ...]:
    """Return the columns of the list of shipped models."""
    return ("name", "detector", "showers", *(f">{key}" for key in _MERITS), ">ms CPU", ">ms GPU", ">MB")


def shipped_row(card: Mapping[str, Any]) -> list[str]:
    """Return a model's row in the list, ``*`` behind the name of a data set's best."""
    figures = card.get("metrics", {}).get("figures", {})
    speed = card.get("speed", {})
    size = sum(entry["bytes"] for entry in card.get("weights", ()))
    return [
        f"{card['name']}{' *' if card.get('best') else ''}",
        str(card["detector"]),
        str(card.get("train_showers", "-")),
        *(_number(figures.get(key, {}).get("value")) for key in _MERITS),
        _number(speed.get("cpu", {}).get("ms")),
        _number(speed.get("gpu", {}).get("ms")),
        f"{size / 1e6:.1f}" if size else "-",
    ]


def print_shipped(card: Mapping[str, Any]) -> None:
    """Print a card: facts, held-out figures with uncertainty and floor, response, speed."""
    print_table((card["name"], card.get("description", card["model"])), list(_facts(card)))
    metrics = card.get("metrics")
    if metrics is None:
        print_lines(["", "not measured against showers that it has not seen"])
    else:
        _print_metrics(metrics)
    print_lines([""])
    print_table(("speed", ">ms a shower", "on"), list(_speeds(card)))


def _facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "detector", f"{card['detector']}, {card.get('particle', '')}"
    for name, span in card.get("conditions", {}).items():
        low, high = (" ".join(f"{v:g}" for v in _listed(span[end])) for end in ("low", "high"))
        yield (
            name.replace("_", " "),
            f"{low if low == high else f'{low} to {high}'} {span.get('unit', '')}".rstrip(),
        )
    data = card.get("data", {})
    for entry in data.get("files", ()):
        made = entry["made"]
        how = ", ".join(
            f"{label} {made[key]}"
            for key, label in (
                ("source", "by"),
                ("geant4_version", "version"),
                ("physics_list", "physics"),
                ("production_cut_mm", "cut in mm"),
            )
            if key in made
        )
        yield "data", f"{entry['file']}, {entry['showers']} showers, {how}"
        yield "", f"sha256 {entry['sha256']}"
    if data.get("projected"):
        yield "", f"projected to {card['detector']}"
    if "read" in data:
        yield "", f"read as {data['read']['file']}, sha256 {data['read']['sha256']}"
    if "train_showers" in card:
        yield "trained on", f"{card['train_showers']} showers; {card['held_out_showers']} held out"
    for line in card.get("prepare", ()):
        yield "command", line
    for number, line in enumerate(card.get("commands", [card["command"]] if "command" in card else [])):
        yield "" if card.get("prepare") or number else "command", line
    if card.get("commit"):
        yield "commit", card["commit"]
    seen = card.get("seen")
    if seen:
        seeds = f"; all of the simulation seeds {_ranges(seen['seeds'])}" if seen["seeds"] else ""
        yield "has seen", f"{seen['showers']} showers, whose identities are in {seen['file']}{seeds}"
    hardware = card.get("hardware")
    if hardware:
        yield "hardware, time", f"{hardware['name']}, {hardware['wall_seconds']:.0f} s"
    for name, stage in card.get("stages", {}).items():
        yield f"stage {name}", f"kept epoch {stage['epoch']}, figure {_number(stage['metric'])}"
    if "parameters" in card:
        count = card["parameters"]
        several = f", {card['members']} members" if card["members"] > 1 else ""
        yield "parameters", f"{count['all']:,}, of which {count['shipped']:,} are shipped{several}"
    for entry in card.get("weights", ()):
        yield "weights", f"{entry['file']}, {entry['bytes'] / 1e6:.2f} MB in half precision"


def _ranges(seeds: Sequence[int]) -> str:
    """Return integers as ranges, such as "1-3, 7"."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _print_metrics(metrics: Mapping[str, Any]) -> None:
    reference = metrics["reference"]
    parts = "; ".join(f"{part['showers']} of {part['file']}" for part in reference["parts"])
    kind = "sealed Geant4 showers" if reference.get("sealed") else "Geant4 showers that it was not trained on"
    print_lines(["", f"against {reference['n']} {kind} ({parts})"])
    figures = metrics["figures"]
    rows = [
        (label, *_value(figures[key]), *_floor(figures[key]))
        for key, label in _FIGURES.items()
        if key in figures
    ]
    core = metrics.get("core", {})
    for key, label in (("mean_ratio", "means"), ("std_ratio", "deviations")):
        if key in core:
            rows.append((f"core-cell {label}, {core['showers']}", *_value(core[key]), *_floor(core[key])))
    share = metrics.get("ks_by_energy", {}).get("profiles_above_80_percent")
    if share is not None:
        rows.append(("mean shapes with KS probability above 80 %", f"{_PERCENT * share:.0f} %", "", "", ""))
    print_lines([""])
    print_table(("figure", ">value", ">±", ">floor", ">±"), rows)
    moments = metrics.get("moments", {})
    means = [
        (
            name.replace("_", " "),
            _number(entry["generated"]),
            _number(entry["reference"]),
            entry["unit"],
            *_pair(entry, "ratio"),
            *_pair(entry, "width"),
        )
        for name, entry in moments.items()
        if name in _MOMENTS
    ]
    print_lines([""])
    print_table(("mean", ">generated", ">Geant4", "unit", ">ratio", ">±", ">width, ratio", ">±"), means)
    response = metrics.get("response", ())
    if len(response) > 1:
        slices = [
            (
                f"{row['energy'] / 1000.0:.3g} GeV",
                str(row["n"]),
                *_pair(row, "response_ratio", "response_uncertainty"),
                *_pair(row, "resolution_ratio", "resolution_uncertainty"),
            )
            for row in response
        ]
        print_lines([""])
        columns = ("mean energy", ">showers", ">response, ratio", ">±", ">resolution, ratio", ">±")
        print_table(columns, slices)


def _speeds(card: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    speed = card.get("speed", {})
    for name, label in (("cpu", "CPU, one thread"), ("gpu", "GPU")):
        entry = speed.get(name)
        if entry is None:
            yield label, "not measured", ""
            continue
        for one in (entry, entry.get("large_batch")):
            if one:
                yield f"{label}, batch {one['batch']}", _number(one["ms"]), one["hardware"]
    for entry in card.get("data", {}).get("files", ())[:1]:
        seconds = entry["made"].get("cpu_seconds_per_shower")
        if seconds is not None:
            yield "Geant4, of the training showers", _number(1000.0 * seconds), "one core, as the file says"


def _listed(value: float | list[float]) -> list[float]:
    return value if isinstance(value, list) else [value]


def _value(entry: Mapping[str, Any]) -> tuple[str, str]:
    return _number(entry.get("value")), _number(entry.get("uncertainty"), 2)


def _floor(entry: Mapping[str, Any]) -> tuple[str, str]:
    return _number(entry.get("floor")), _number(entry.get("floor_uncertainty"), 2)


def _pair(entry: Mapping[str, Any], key: str, error: str = "") -> tuple[str, str]:
    return _number(entry.get(key)), _number(entry.get(error or f"{key}_uncertainty"), 2)


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
