"""Cards of shipped models for people: a row of the list, the tables of one card, and the page of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from caloforge.zoo.store import Card

__all__ = ["Block", "card_blocks", "list_columns", "list_row", "models_page", "width_of"]


class Block(NamedTuple):
    """A table: names of its columns, ``>`` before those aligned to the right, and its rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


_FIGURES = {
    "auc_strongest": "AUC, strongest classifier", "auc_cells": "AUC, cells",
    "auc_observables": "AUC, observables", "auc_spectrum": "AUC, cell spectrum",
    "detectability": "showers a side to 5 sigma", "auc_low": "AUC, CaloChallenge's classifier, cells",
    "auc_high": "AUC, CaloChallenge's classifier, observables", "shape_mse": "shower-shape MSE",
    "cell_mean_ratio": "core-cell means, ratio", "cell_std_ratio": "core-cell deviations, ratio",
    "layer_fractions": "largest layer fraction difference, points",
    "covariance_distance": "covariance distance", "fpd": "FPD", "kpd": "KPD", "precision": "precision",
    "recall": "recall", "density": "density", "coverage": "coverage",
}  # fmt: skip
"""Single figures of a card, in the order of the table."""
_MOMENTS = (
    "response", "peak_energy", "hits", "shower_depth", "radius_90", "centre_x", "centre_y", "centre_z",
)  # fmt: skip
"""Observables with means and widths in the tables."""
_LISTED = ("auc_strongest", "auc_cells", "auc_observables", "auc_spectrum")
"""Figures of the list of all shipped models."""
_MADE = {
    "source": "by", "geant4_version": "version", "physics_list": "physics", "production_cut_mm": "cut in mm",
}  # fmt: skip


def list_columns() -> tuple[str, ...]:
    """Return the columns of the list of shipped models."""
    return ("name", "detector", "showers", *(f">{key}" for key in _LISTED), ">ms CPU", ">ms GPU", ">MB")


def list_row(card: Mapping[str, Any]) -> list[str]:
    """Return a model's row in the list, ``*`` behind the name of a data set's best."""
    figures = card.get("metrics", {}).get("figures", {})
    speed = card.get("speed", {})
    size = sum(entry["bytes"] for entry in card.get("weights", ()))
    return [
        f"{card['name']}{' *' if card.get('best') else ''}",
        str(card["detector"]),
        str(card.get("train_showers", "-")),
        *(_number(figures.get(key, {}).get("value")) for key in _LISTED),
        _number(speed.get("cpu", {}).get("ms")),
        _number(speed.get("gpu", {}).get("ms")),
        f"{size / 1e6:.1f}" if size else "-",
    ]


def card_blocks(card: Mapping[str, Any]) -> Iterator[str | Block]:
    """Yield the tables and lines of a card: facts, figures on test showers with uncertainty and floor, response, speed."""
    yield Block((card["name"], card.get("description", card["model"])), list(_facts(card)))
    metrics = card.get("metrics")
    if metrics is None:
        yield "not measured on test showers"
    else:
        yield from _metric_blocks(metrics)
    yield Block(("speed", ">ms a shower", "on"), list(_speeds(card)))


def _facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "detector", f"{card['detector']}, {card.get('particle', '')}"
    for name, span in card.get("conditions", {}).items():
        low, high = (" ".join(f"{v:g}" for v in np.atleast_1d(span[end])) for end in ("low", "high"))
        values = low if low == high else f"{low} to {high}"
        yield name.replace("_", " "), f"{values} {span.get('unit', '')}".rstrip()
    data = card.get("data", {})
    for entry in data.get("files", ()):
        made = entry["made"]
        how = ", ".join(f"{label} {made[key]}" for key, label in _MADE.items() if key in made)
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
        yield (
            "trained and selected on",
            f"{seen['showers']} showers, with identities in {seen['file']}{seeds}",
        )
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


def _metric_blocks(metrics: Mapping[str, Any]) -> Iterator[str | Block]:
    reference = metrics["reference"]
    parts = "; ".join(f"{part['showers']} of {part['file']}" for part in reference["parts"])
    kind = "sealed Geant4 showers" if reference.get("sealed") else "Geant4 showers that it was not trained on"
    yield f"against {reference['n']} {kind} ({parts})"
    figures = metrics["figures"]
    rows = [
        (label, *_pair(figures[key], "value", "uncertainty"), *_pair(figures[key], "floor"))
        for key, label in _FIGURES.items()
        if key in figures
    ]
    core = metrics.get("core", {})
    for key, label in (("mean_ratio", "means"), ("std_ratio", "deviations")):
        if key in core:
            pairs = *_pair(core[key], "value", "uncertainty"), *_pair(core[key], "floor")
            rows.append((f"core-cell {label}, {core['showers']}", *pairs))
    yield Block(("figure", ">value", ">±", ">floor", ">±"), rows)
    moments = metrics.get("moments", {})
    means = []
    for name in (name for name in moments if name in _MOMENTS):
        entry = moments[name]
        both = _number(entry["generated"]), _number(entry["reference"]), entry["unit"]
        means.append((name.replace("_", " "), *both, *_pair(entry, "ratio"), *_pair(entry, "width")))
    yield Block(("mean", ">generated", ">Geant4", "unit", ">ratio", ">±", ">width, ratio", ">±"), means)
    response = metrics.get("response", ())
    if len(response) > 1:
        slices = []
        for row in response:
            ratios = (_pair(row, f"{key}_ratio", f"{key}_uncertainty") for key in ("response", "resolution"))
            slices.append((f"{row['energy'] / 1000.0:.3g} GeV", str(row["n"]), *chain(*ratios)))
        columns = ("mean energy", ">showers", ">response, ratio", ">±", ">resolution, ratio", ">±")
        yield Block(columns, slices)


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


def _pair(entry: Mapping[str, Any], key: str, error: str = "") -> tuple[str, str]:
    return _number(entry.get(key)), _number(entry.get(error or f"{key}_uncertainty"), 2)


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


_HEAD = """# Shipped models

`caloforge models` lists the trained models that come with the package, and `caloforge models DATASET/MODEL` shows the card of one in full. To generate showers with one:

```
caloforge generate clic-electron/conv3d-gan -n 1000 --energy 100GeV -o showers.h5
```

Each table below is one detector and beam. Every number was measured on sealed Geant4 showers: no model was
trained, calibrated or selected on them, and one choice was made by looking at them: which of two flows is shipped for `atlas-photon`, `ild-photon-50gev` and
`ild-photon-angled` ([validation](validation.md#showers-a-model-has-seen)).
Value ± uncertainty; in brackets the floor, what two samples of Geant4 give.

- **AUC** is that of the strongest of several classifiers ([how it is measured](validation.md)), on cells, on observables, on each shower's histogram of cell energies, and on
  all three; 0.5 means that they cannot distinguish the two. It depends on the number of showers that they learn from, which is in the first row, or in brackets where it is smaller.
  A 3-D network does not learn the difference in every training: that of the cells of `ild-photon-angled/flow-matching` had 0.65 ± 0.06 in one run and 0.77 ± 0.07, the number here, in another.
- **Showers to 5 sigma**: how many showers a side a two-sample test needs to distinguish the model from Geant4.
- **Largest deviation of the cell spectrum**: generated over Geant4 in the bin of cell energies that deviates most, if significantly.
- Precision and recall, density and coverage belong together: a generator that has collapsed can have a coverage near 1.

This page is written by `python scripts/models_page.py` from the cards and the published [benchmark](benchmark.md). `python scripts/train_zoo.py --data SHOWERS --held SEALED --remeasure` measures the
shipped weights and writes the cards; `data/` holds the sealed showers, which `python scripts/pack_showers.py unpack` unpacks.
"""
_ROWS = (
    ("AUC, strongest classifier", "auc_strongest"), ("AUC, cells", "auc_cells"),
    ("AUC, observables", "auc_observables"), ("AUC, cell spectrum", "auc_spectrum"),
    ("CaloChallenge's classifier, cells", "auc_low"), ("CaloChallenge's classifier, observables", "auc_high"),
    ("Frechet physics distance", "fpd"), ("shower-shape MSE", "shape_mse"),
    ("largest difference of a layer's share, points", "layer_fractions"),
    ("core cells, mean ratio", "cell_mean_ratio"), ("core cells, standard deviation ratio", "cell_std_ratio"),
    ("covariance distance", "covariance_distance"), ("precision", "precision"), ("recall", "recall"),
    ("density", "density"), ("coverage", "coverage"),
)  # fmt: skip
_PAGE_MOMENTS = ("response", "hits", "peak_energy", "radius_90")


def _with_error(entry: Mapping[str, Any]) -> str:
    error = entry.get("uncertainty")
    return f"{entry['value']:.3g}" + ("" if error is None else f" ± {error:.1g}")


def _figure_text(name: str, card: dict[str, Any]) -> str:
    entry = card["metrics"]["figures"].get(name)
    if not isinstance(entry, dict) or entry.get("value") is None:
        return "–"
    notes = [] if entry.get("floor") is None else [f"{entry['floor']:.3g}"]
    return _with_error(entry) + _brackets([*notes, *_fewer(entry, card)])


def _fewer(entry: Mapping[str, Any], card: dict[str, Any]) -> list[str]:
    """Return with how many showers a side an entry was measured, if with fewer than the card's."""
    number = entry.get("n_used", card["metrics"]["reference"]["n"])
    return [f"{number:,} showers"] if number < card["metrics"]["reference"]["n"] else []


def _brackets(notes: Sequence[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _moment_text(name: str, card: dict[str, Any]) -> str:
    entry = card["metrics"]["moments"].get(name)
    if not entry:
        return "–"
    mean = f"{100 * (entry['ratio'] - 1):+.1f} ± {100 * entry['ratio_uncertainty']:.1f} %"
    width, error = width_of(card, name)
    return f"{mean}; {width:.2f} ± {error:.2f}"


def width_of(card: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Return the ratio of an observable's widths and its error: the mean over slices of energy where the card has it, else that of all showers."""
    metrics = card["metrics"]
    sliced = metrics["figures"].get("moments", {}).get("width", {}).get(name)
    if sliced is not None and sliced.get("value") is not None:
        return float(sliced["value"]), float(sliced["uncertainty"])
    entry = metrics["moments"][name]
    return float(entry["width"]), float(entry["width_uncertainty"])


def _detectability(card: dict[str, Any]) -> str:
    """Return how many showers a side a test at five standard deviations takes."""
    entry = card["metrics"]["figures"].get("detectability")
    if not isinstance(entry, dict):
        return "–"
    if entry.get("value") is None:
        limit = entry.get("lower_limit")
        return "–" if limit is None else f"above {limit:,.0f}"
    text = f"{entry['value']:,.0f}"
    return text + (" (extrapolated)" if entry.get("extrapolated") else "")


def _largest_ratio(card: dict[str, Any]) -> str:
    """Return the largest significant deviation of the spectrum of all cells, and where it is."""
    entry = card["metrics"]["figures"].get("spectrum_ratio", {}).get("all")
    if not entry or entry.get("value") is None:
        return "–"
    fewer = _brackets(_fewer(entry, card))
    if not entry.get("significant", entry["value"] != 1.0):
        return f"none{fewer}"
    return f"{_with_error(entry)} at {entry['energy_low']:.3g} to {entry['energy_high']:.3g} MeV{fewer}"


def _cpu_time(card: dict[str, Any]) -> str:
    entry = card.get("speed", {}).get("cpu")
    return f"{entry['ms']:.3g}" if entry else "–"


def _table(cards: list[Card], timed: bool) -> list[str]:
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "sealed showers": lambda c: f"{c['metrics']['reference']['n']:,}",
        "training showers": lambda c: f"{c['train_showers']:,}",
        "weights that generate": lambda c: f"{c['parameters']['shipped']:,}",
        "trained in, on": lambda c: f"{c['hardware']['wall_seconds']:.0f} s, {c['hardware']['name']}",
    }
    for name in _PAGE_MOMENTS:
        rows[f"{name.replace('_', ' ')}: mean; width ratio"] = partial(_moment_text, name)
    rows |= {"largest deviation of the cell spectrum": _largest_ratio, "showers to 5 sigma": _detectability}
    rows |= {label: partial(_figure_text, key) for label, key in _ROWS}
    if not timed:
        rows["ms a shower, one CPU thread"] = _cpu_time
    contents = [card.content for card in cards]
    names = [card.name.partition("/")[2] for card in cards]
    lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "| --- |" + " --- |" * len(names)]
    return [
        *lines,
        *(f"| {label} | " + " | ".join(map(write, contents)) + " |" for label, write in rows.items()),
    ]


def models_page(cards: Mapping[str, Card], speed: str = "") -> str:
    """Return the page of all measured cards, Markdown, a table for each data set.

    Arguments:
        cards: Shipped models by name.
        speed: A section on their speed, Markdown; without it each table has the time of the card.
    """
    groups: dict[str, list[Card]] = {}
    for card in cards.values():
        if "metrics" in card.content:
            groups.setdefault(card.path.parent.name, []).append(card)
    lines = [_HEAD, *([speed.rstrip(), ""] if speed else [])]
    for dataset, group in sorted(groups.items()):
        first = group[0].content
        particle = f"{first['particle']} in `{first['detector']}`."
        lines += [f"## {dataset}", particle, "", *_table(group, bool(speed)), ""]
    return "\n".join(lines).rstrip() + "\n"
