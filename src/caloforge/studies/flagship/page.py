"""The page of the study: tables, figures and the commands behind every number."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path
from caloforge.studies.drawing import Margins, panels
from caloforge.studies.flagship.measure import (
    AUCS,
    Difference,
    ablations,
    by_group,
    by_series,
    repeats,
    seed_scatter,
)
from caloforge.studies.flagship.plan import Entry, Group
from caloforge.text_files import read_json
from caloforge.validate.plots.panel import BAND, INK, colour, figure_style, marker

__all__ = ["draw_all", "not_made", "notes", "read_results", "spread_of_times", "write_page"]


Measured: TypeAlias = Mapping[str, Any]
"""The results of one training."""
Entries: TypeAlias = Mapping[str, Measured]
_DPI = 90
_APART = 0.11  # least distance of two numbers on an axis, in parts of it
_LABELS = {"auc_high": "AUC, observables", "auc_low": "AUC, cells"}


def draw_all(
    groups: Mapping[str, Entries], differences: Mapping[str, Sequence[Difference]], folder: Path
) -> dict[str, Path]:
    """Draw the PNG figure of each group that has entries, and of each choice's differences in the AUCs; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with figure_style() as pyplot:
        figures: tuple[tuple[str, Callable[..., Any], Mapping[str, Any] | None], ...] = (
            ("steps", _draw_steps, groups.get("steps")),
            ("size", partial(_line, key="parameters", label="parameters"), groups.get("size")),
            ("data", partial(_line, key="train_showers", label="training showers"), groups.get("data")),
            ("ablations", _draw_ablations, differences),
        )
        for group, draw, content in figures:
            if content:
                drawn[group] = folder / f"flagship-{group}.png"
                draw(pyplot, content).savefig(drawn[group], dpi=_DPI, metadata={"Software": None})
    return drawn


def _draw_steps(pyplot: Any, entries: Entries) -> Any:
    """Draw each teacher's line and each student's point against evaluations of the cells' network."""
    figure, axes = _pair(pyplot, entries, "evaluations of the cells' network")
    for role, (series, group) in enumerate(by_series(entries).items(), start=1):
        for place, name in zip(axes, AUCS, strict=True):
            for kind, style in (("teacher", "-"), ("student", "none")):
                points = [entry for entry in group if entry["kind"] == kind]
                _points(place, points, "evaluations", name, role, style, f"{series}, {kind}")
    if len(axes[0].get_legend_handles_labels()[0]) > 1:
        axes[0].legend(fontsize=9, loc="best")
    for place in axes:
        _logarithmic(place, [entry["evaluations"] for entry in entries.values()])
    return figure


def _line(pyplot: Any, entries: Entries, key: str, label: str) -> Any:
    figure, axes = _pair(pyplot, entries, label)
    for place, name in zip(axes, AUCS, strict=True):
        _points(place, list(entries.values()), key, name, 1, "-", "")
        _logarithmic(place, [entry[key] for entry in entries.values()])
    return figure


def _logarithmic(place: Any, values: Sequence[float]) -> None:
    """Scale x by its logarithm, with plain numbers at the points; those that would overlap are left out."""
    place.set_xscale("log")
    span = max(values) / min(values)
    ticks: list[float] = []
    for value in sorted(set(values)):
        if not ticks or value / ticks[-1] > span**_APART:
            ticks.append(value)
    place.set_xticks(ticks, [_short(value) for value in ticks])
    place.set_xticks([], minor=True)


def _short(value: float) -> str:
    """Return a number for an axis: 31, 5.9k, 1.2M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2g}{unit}" if value < 100 * size else f"{value / size:.0f}{unit}"
    return f"{value:g}"


def _pair(pyplot: Any, entries: Entries, label: str) -> tuple[Any, Any]:
    figure, axes = panels(pyplot, 1, 2, 3.4, 2.6, Margins(bottom=0.6, top=0.2, across=0.95))
    first = next(iter(entries.values()))
    for place, name in zip(axes[0], AUCS, strict=True):
        entry = first["figures"][name]
        floor, error = entry.get("floor"), entry.get("floor_uncertainty") or 0.0
        if floor is not None:
            place.axhspan(floor - error, floor + error, color=BAND, lw=0)
            place.axhline(floor, color=INK, lw=0.8)
        place.set_xlabel(label, fontsize=12)
        place.set_ylabel(_LABELS[name], fontsize=12)
    return figure, axes[0]


def _points(
    place: Any, entries: Sequence[Measured], key: str, name: str, role: int, style: str, label: str
) -> None:
    if not entries:
        return
    known = sorted(entries, key=lambda entry: float(entry[key]))
    figures = [entry["figures"][name] for entry in known]
    values, errors = [f["value"] for f in figures], [f.get("uncertainty") or 0.0 for f in figures]
    mark, size = (marker(role, paper=True), 4.5) if style == "-" else ("*", 9)
    look = {"color": colour(role), "fmt": mark, "ms": size, "lw": 1.1, "ls": style, "label": label}
    place.errorbar([entry[key] for entry in known], values, errors, **look)


def _draw_ablations(pyplot: Any, differences: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw the difference of each choice to the baseline, a row each."""
    rows = list(differences)
    margins = Margins(left=2.9, bottom=0.6, top=0.2, across=0.3)
    figure, axes = panels(pyplot, 1, 2, 2.5, 0.26 * len(rows) + 0.4, margins, sharey=True)
    places = range(len(rows), 0, -1)
    for index, (place, name) in enumerate(zip(axes[0], AUCS, strict=True)):
        found = [differences[row][index] for row in rows]
        place.axvline(0.0, color=INK, lw=0.8)
        values, errors = [one.value for one in found], [one.uncertainty for one in found]
        place.errorbar(values, list(places), xerr=errors, color=colour(1), fmt="o", ms=4.5, lw=1.1)
        place.set_xlabel(f"difference in {_LABELS[name]}", fontsize=11)
        place.locator_params(axis="x", nbins=5)
        place.margins(x=0.07)
        place.tick_params(axis="y", which="both", length=0)
        place.set_ylim(0.4, len(rows) + 0.6)
    axes[0][0].set_yticks(list(places), rows, fontsize=10)
    return figure


_ROUGH = 1.2  # times of one network further apart than by this factor are said to be rough


def notes(plan: Mapping[str, Entry], entries: Mapping[str, Any]) -> list[str]:
    """Return the plan's notes on entries (of one group) that were measured, a paragraph each."""
    known = [plan[name] for name in entries if name in plan]
    return [f'Note on "{entry.title}": {entry.note}' for entry in known if entry.note]


def not_made(plan: Mapping[str, Entry], entries: Mapping[str, Any], group: Group) -> str:
    """Say which trainings of a group are planned, but not among the entries measured; empty when there are none."""
    missing = [entry.title for name, entry in plan.items() if group in entry.figure and name not in entries]
    if not missing:
        return ""
    return (
        f"Planned, but not trained, since GPU time was not available: {', '.join(missing)}. "
        f"`python scripts/flagship_study.py train --data showers --runs runs --only {group}` trains them."
    )


def spread_of_times(entries: Mapping[str, Any]) -> str:
    """Say how far the times of the baseline's trainings (of the ablations), networks of one form, lie apart; empty when they agree."""
    times = sorted(1000.0 * entry["time"]["ms"] for entry in repeats(entries).values() if "time" in entry)
    if len(times) < 2 or times[-1] < _ROUGH * times[0]:
        return ""
    return (
        f"Times are rough: the baseline's trainings with other seeds, which have the same network and number of steps, took from "
        f"{times[0]:,.0f} to {times[-1]:,.0f} µs."
    )


_TAILS = 0.0455  # of a normal number to be more than two standard deviations off
_HEAD = """## What was measured
The study measures how the accuracy of the flow depends on the number of steps, weights and training showers, and the effect of each choice of the design. The trainings here are shorter than those of the [shipped models](models.md), and all have the same number of steps, so that
they can be compared with each other.

AUC is that of classifiers that distinguish generated from Geant4 showers, trained on observables or on cells (see [Validation](validation.md)); 0.5 means that
they cannot distinguish them. Entries are value ± uncertainty; the number in brackets is the floor, the value for two samples of Geant4. FPD is the Frechet physics distance.
"""
_STEPS = """Teachers integrate with Heun's method, which evaluates the network twice in each step and once in the last; students take learned jumps. Summary and
cells take the same number of steps; the column "evaluations" counts those of the cells' network."""
_NO_STUDENT = "No student was measured here; the shipped ones are among the [shipped models](models.md)."
_SIZE = "The networks differ in the width of the cells' transformer."
_DATA = """All trainings have the same number of steps, with fewer training showers; the epoch that is best on held-out showers is kept."""
_ABLATIONS = """In each row one choice is changed. Differences are relative to the mean of the baseline's {count}, taken for each classifier with the
same splits; above 0 the choice of the baseline is better. Their uncertainty includes that of the classifiers and {scatter}."""


def read_results(path: Path) -> dict[str, Any]:
    """Read a file of results.

    Raises:
        FileFormatError: When it has no measurements.
    """
    try:
        results: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise FileFormatError(path, "", f"cannot be read: {error}") from error
    if not isinstance(results, dict) or not results.get("entries"):
        raise FileFormatError(path, "entries", "are missing; expected a file that 'measure' wrote")
    return results


def write_page(
    results: Mapping[str, Any], page: Path, folder: Path, plan: Mapping[str, Entry], introduction: str = ""
) -> Path:
    """Write the page (Markdown) and its figures.

    Arguments:
        results: What ``measure`` wrote.
        folder: Where the figures go.
        plan: The planned trainings; the page says which are missing.
        introduction: Text of the page before the measurements, Markdown.
    """
    order = {name: place for place, name in enumerate(plan)}
    names = sorted(results["entries"], key=lambda name: order.get(name.split("@")[0], len(order)))
    entries = {name: results["entries"][name] for name in names}
    results = {**results, "entries": entries}
    groups = {name: group for name, group in by_group(entries).items() if len(group) > 1}
    found = ablations(groups.get("ablations", {}))
    titles = {entries[name]["title"]: both for name, both in found.items()}
    figures = draw_all(groups, titles, folder)
    paths = {name: Path(os.path.relpath(path, page.parent)).as_posix() for name, path in figures.items()}
    links = {name: f"![{name}]({path})\n" for name, path in paths.items()}
    sections: tuple[tuple[Group, str, Callable[[Entries], list[str]]], ...] = (
        ("steps", "Steps", _steps),
        ("size", "Weights", _size),
        ("data", "Training showers", _data),
        ("ablations", "What each choice changes", _choices),
    )
    parts = ["# The flagship, studied\n", f"{introduction}\n" if introduction else "", _HEAD]
    for name, title, say in sections:
        missing = "" if name == "steps" else not_made(plan, entries, name)
        if name in groups:
            text, *rest = say(groups[name])
            parts += [f"## {title}", f"{text}\n", links.get(name, ""), *rest, ""]
            parts += [f"{one}\n" for one in (*notes(plan, groups[name]), missing) if one]
        elif missing:
            parts += [f"## {title}", f"Not measured. {missing}\n"]
        if name == "steps" and (rough := spread_of_times(groups.get("ablations", {}))):
            parts.append(f"{rough}\n")
    parts += _made(results)
    with atomic_path(page, force=True) as part:
        part.write_text("\n".join(parts).rstrip() + "\n")
    return page


def _figure(entry: Measured, name: str) -> str:
    figure, digits = entry["figures"][name], ".3f" if name in AUCS else ".3g"
    text = f"{figure['value']:{digits}}"
    if figure.get("uncertainty") is not None:
        text += f" ± {figure['uncertainty']:{digits if name in AUCS else '.1g'}}"
    return text + (f" ({figure['floor']:{digits}})" if figure.get("floor") is not None else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


_NUMBERS = ("AUC, observables", "AUC, cells", "FPD")


def _numbers(entry: Measured) -> list[str]:
    return [_figure(entry, name) for name in (*AUCS, "fpd")]


def _time(entry: Measured) -> str:
    if "time" not in entry:
        return "–"
    time = 1000.0 * float(entry["time"]["ms"])
    return f"{time:,.0f}" if time >= 100 else f"{time:.3g}"


def _steps(entries: Entries) -> list[str]:
    head = ("model", "", "steps", "evaluations", *_NUMBERS, "µs a shower")
    rows = []
    for series, group in by_series(entries).items():
        for entry in group:
            facts = series, entry["kind"], str(entry["steps"]), str(entry["evaluations"])
            rows.append([*facts, *_numbers(entry), _time(entry)])
    students = any(entry["kind"] == "student" for entry in entries.values())
    text = _STEPS if students else f"{_STEPS} {_NO_STUDENT}"
    return [text, *_table(head, rows), "", *_timed(entries)]


def _timed(entries: Entries) -> list[str]:
    times = [entry["time"] for entry in entries.values() if "time" in entry]
    where = sorted({f"{time['batch']:,} showers at once on {time['hardware']}" for time in times})
    text = f"Times are for {'; '.join(where)}, including noise, decoding and the copy of the cells."
    return [text] if where else []


def _size(entries: Entries) -> list[str]:
    ordered = sorted(entries.values(), key=lambda entry: int(entry["parameters"]))
    rows = [[e["title"], f"{e['parameters']:,}", *_numbers(e), _time(e)] for e in ordered]
    return [_SIZE, *_table(("network", "parameters", *_NUMBERS, "µs a shower"), rows)]


def _data(entries: Entries) -> list[str]:
    ordered = sorted(entries.values(), key=lambda entry: int(entry["train_showers"]))
    rows = [[f"{entry['train_showers']:,}", *_numbers(entry)] for entry in ordered]
    return [_DATA, *_table(("training showers", *_NUMBERS), rows)]


def _choices(entries: Entries) -> list[str]:
    found = ablations(entries)
    head = ("", "parameters", "AUC, observables", "difference", "AUC, cells", "difference", "FPD")
    rows = []
    for name, entry in entries.items():
        first, second = (_difference(one) for one in found.get(name, (None, None)))
        high, low, fpd = _numbers(entry)
        rows.append([entry["title"], f"{entry['parameters']:,}", high, first, low, second, fpd])
    return [_ablations_text(entries), *_table(head, rows), "", _verdict(entries, found)]


def _ablations_text(entries: Entries) -> str:
    baselines = list(repeats(entries).values())
    scatters = [seed_scatter(baselines, auc) for auc in AUCS]
    known = [f"{scatter:.3f}" for scatter in scatters if scatter is not None]
    scatter = "not the scatter between seeds, since there is one"
    if known:
        scatter = f"the scatter between seeds, {known[0]} on observables and {known[1]} on cells"
    count = f"{len(baselines)} trainings" if len(baselines) > 1 else "one training"
    return _ABLATIONS.format(count=count, scatter=scatter)


def _difference(found: Difference | None) -> str:
    return "–" if found is None else f"{found.value:+.3f} ± {found.uncertainty:.3f}"


def _verdict(entries: Entries, found: Mapping[str, tuple[Difference, ...]]) -> str:
    """Say which choices differ from the baseline by more than two uncertainties in either AUC."""
    clear = [entries[name]["title"] for name, both in found.items() if any(one.significant for one in both)]
    n = sum(len(both) for both in found.values())
    chance = f"If no choice had an effect, {_TAILS * n:.1f} of {n} differences would be as large on average."
    if not clear:
        return f"No choice differs from the baseline by more than two uncertainties. {chance}"
    return f"These differ from the baseline by more than two uncertainties in either AUC: {', '.join(clear)}. {chance}"


def _made(results: Mapping[str, Any]) -> list[str]:
    """Say how everything was made: commands, data, dates, settings."""
    entries: Entries = results["entries"]
    reference = results["reference"]
    files = ", ".join(f"`{part['file']}`" for part in reference["files"])
    dates = sorted({entry["date"] for entry in entries.values()})
    hardware = sorted({entry["trained"]["hardware"] for entry in entries.values()})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    lines = [
        "## How this was made",
        f"Measured {days} with caloforge {results['caloforge_version']} against {reference['n']:,} Geant4 showers of "
        f"`{reference['detector']}` ({files}), which no model was trained on. Trainings ran on {', '.join(hardware)}; the list of them is "
        "`scripts/flagship.toml`.",
        "",
        "```",
        "python scripts/flagship_study.py train --data showers --runs runs",
        results["command"] or "python scripts/flagship_study.py measure runs REFERENCE.h5",
        "python scripts/flagship_study.py page docs/results/flagship.json -o docs/flagship.md",
        "```",
        "",
        "| run | changed settings | training showers | trained in, s |",
        "| --- | --- | --- | --- |",
    ]
    for name, entry in entries.items():
        if "@" not in name:
            settings = " ".join(f"`{one}`" for one in entry["set"]) or "–"
            seconds = entry["trained"]["seconds"]
            lines.append(f"| `{name}` | {settings} | {entry['train_showers']:,} | {seconds:,} |")
    base = entries.get("baseline")
    return lines + (["", "The baseline:", "", "```", base["command"], "```"] if base else [])
