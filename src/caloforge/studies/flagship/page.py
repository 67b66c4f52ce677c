"""The page of the flagship's study: tables, figures and the commands behind every number."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path, read_json
from caloforge.studies.flagship.figures import draw_all
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

__all__ = ["not_made", "notes", "read_results", "spread_of_times", "write_page"]


_ROUGH = 1.2
"""Times of one network further apart than by this factor are said to be rough."""


def notes(plan: Mapping[str, Entry], entries: Mapping[str, Any]) -> list[str]:
    """Return the plan's notes on entries (of one group) that were measured, a paragraph each."""
    return [
        f'Note on "{plan[name].title}": {plan[name].note}'
        for name in entries
        if name in plan and plan[name].note
    ]


def not_made(plan: Mapping[str, Entry], entries: Mapping[str, Any], group: Group) -> str:
    """Say which trainings of a group are planned, but not among the entries measured; empty when there are none."""
    missing = [entry.title for name, entry in plan.items() if group in entry.figure and name not in entries]
    if not missing:
        return ""
    return (
        f"Planned, but not trained, for want of time on a GPU: {', '.join(missing)}. "
        f"`python scripts/flagship_study.py train --data showers --runs runs --only {group}` trains them."
    )


def spread_of_times(entries: Mapping[str, Any]) -> str:
    """Say how far the times of the baseline's trainings (of the ablations), networks of one form, lie apart; empty when they agree."""
    times = sorted(1000.0 * entry["time"]["ms"] for entry in repeats(entries).values() if "time" in entry)
    if len(times) < 2 or times[-1] < _ROUGH * times[0]:
        return ""
    return (
        f"Times are rough: the baseline's trainings with other seeds, networks of one form and as many steps, took from "
        f"{times[0]:,.0f} to {times[-1]:,.0f} µs."
    )


Measured: TypeAlias = Mapping[str, Any]
"""The results of one training."""
_TAILS = 0.0455  # of a normal number to be more than two standard deviations off
_HEAD = """## What was measured
How accurate the flow is, against steps, weights and showers, and the effect of each choice of its design. The trainings here are shorter than those of the [shipped models](models.md), all with as many steps, so that
they can be compared with each other.

AUC is that of classifiers between generated and Geant4 showers, trained on observables or on cells (see [Validation](validation.md)); 0.5 means that
they cannot distinguish them. Value ± uncertainty; in brackets the floor, what two samples of Geant4 give. FPD is the Frechet physics distance.
"""
_STEPS = """Teachers integrate with Heun's method, which evaluates the network twice a step and once in the last; students jump. Summary and
cells take the same number of steps; evaluations are those of the cells' network."""
_NO_STUDENT = "No student was measured here; the shipped ones are among the [shipped models](models.md)."
_SIZE = "One network after another with the width of the cells' transformer changed."
_DATA = """Fewer training showers, with the same number of steps; the epoch that is best on held-out showers is kept."""
_ABLATIONS = """One choice changed at a time. Differences are to the mean of the baseline's {count}, classifier by classifier with the
same splits; above 0 the choice of the baseline is better. Their uncertainty includes the classifiers' and {scatter}."""


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
    """Write the page and its figures.

    Arguments:
        results: What ``measure`` wrote.
        page: The Markdown file.
        folder: Where the figures go.
        plan: The planned trainings; the page says which are missing.
        introduction: Text of the page before the measurements, Markdown.
    """
    order = {name: place for place, name in enumerate(plan)}
    entries = {
        name: results["entries"][name]
        for name in sorted(results["entries"], key=lambda name: order.get(name.split("@")[0], len(order)))
    }
    results = {**results, "entries": entries}
    groups = {name: group for name, group in by_group(entries).items() if len(group) > 1}
    found = ablations(groups.get("ablations", {}))
    titles = {entries[name]["title"]: both for name, both in found.items()}
    figures = draw_all(groups, titles, folder)
    links = {
        name: f"![{name}]({Path(os.path.relpath(path, page.parent)).as_posix()})\n"
        for name, path in figures.items()
    }
    sections: tuple[tuple[Group, str, Callable[[Mapping[str, Measured]], list[str]]], ...] = (
        ("steps", "Steps", _steps),
        ("size", "Weights", _size),
        ("data", "Training showers", _data),
        ("ablations", "What each choice buys", _choices),
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
    return [
        f"| {' | '.join(head)} |",
        "| --- |" + " --- |" * (len(head) - 1),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


_NUMBERS = ("AUC, observables", "AUC, cells", "FPD")


def _numbers(entry: Measured) -> list[str]:
    return [_figure(entry, name) for name in (*AUCS, "fpd")]


def _time(entry: Measured) -> str:
    if "time" not in entry:
        return "–"
    time = 1000.0 * float(entry["time"]["ms"])
    return f"{time:,.0f}" if time >= 100 else f"{time:.3g}"


def _steps(entries: Mapping[str, Measured]) -> list[str]:
    head = ("model", "", "steps", "evaluations", *_NUMBERS, "µs a shower")
    rows = [
        [
            series,
            entry["kind"],
            str(entry["steps"]),
            str(entry["evaluations"]),
            *_numbers(entry),
            _time(entry),
        ]
        for series, group in by_series(entries).items()
        for entry in group
    ]
    students = any(entry["kind"] == "student" for entry in entries.values())
    text = _STEPS if students else f"{_STEPS} {_NO_STUDENT}"
    return [text, *_table(head, rows), "", *_timed(entries)]


def _timed(entries: Mapping[str, Measured]) -> list[str]:
    """Say where the times were taken."""
    where = sorted(
        {
            f"{entry['time']['batch']:,} showers at once on {entry['time']['hardware']}"
            for entry in entries.values()
            if "time" in entry
        }
    )
    return (
        [f"Times: {'; '.join(where)}; noise, decoding and the copy of the cells included."] if where else []
    )


def _size(entries: Mapping[str, Measured]) -> list[str]:
    rows = [
        [entry["title"], f"{entry['parameters']:,}", *_numbers(entry), _time(entry)]
        for entry in sorted(entries.values(), key=lambda entry: int(entry["parameters"]))
    ]
    return [_SIZE, *_table(("network", "parameters", *_NUMBERS, "µs a shower"), rows)]


def _data(entries: Mapping[str, Measured]) -> list[str]:
    rows = [
        [f"{entry['train_showers']:,}", *_numbers(entry)]
        for entry in sorted(entries.values(), key=lambda entry: int(entry["train_showers"]))
    ]
    return [_DATA, *_table(("training showers", *_NUMBERS), rows)]


def _choices(entries: Mapping[str, Measured]) -> list[str]:
    found = ablations(entries)
    return [_ablations_text(entries), *_ablations_table(entries, found), "", _verdict(entries, found)]


def _ablations_text(entries: Mapping[str, Measured]) -> str:
    baselines = list(repeats(entries).values())
    scatters = [seed_scatter(baselines, auc) for auc in AUCS]
    known = [f"{scatter:.3f}" for scatter in scatters if scatter is not None]
    scatter = (
        f"the scatter between seeds, {known[0]} on observables and {known[1]} on cells"
        if known
        else "not the scatter between seeds, since there is one"
    )
    count = f"{len(baselines)} trainings" if len(baselines) > 1 else "one training"
    return _ABLATIONS.format(count=count, scatter=scatter)


def _ablations_table(
    entries: Mapping[str, Measured], found: Mapping[str, tuple[Difference, ...]]
) -> list[str]:
    head = ("", "parameters", "AUC, observables", "difference", "AUC, cells", "difference", "FPD")
    rows = []
    for name, entry in entries.items():
        first, second = (_difference(one) for one in found.get(name, (None, None)))
        high, low, fpd = _numbers(entry)
        rows.append([entry["title"], f"{entry['parameters']:,}", high, first, low, second, fpd])
    return _table(head, rows)


def _difference(found: Difference | None) -> str:
    return "–" if found is None else f"{found.value:+.3f} ± {found.uncertainty:.3f}"


def _verdict(entries: Mapping[str, Measured], found: Mapping[str, tuple[Difference, ...]]) -> str:
    """Say which choices differ from the baseline by more than two uncertainties in either AUC."""
    clear = [entries[name]["title"] for name, both in found.items() if any(one.significant for one in both)]
    n = sum(len(both) for both in found.values())
    chance = f"Of {n} differences of nothing {_TAILS * n:.1f} would be as large on average."
    if not clear:
        return f"No choice differs from the baseline by more than two uncertainties. {chance}"
    return f"More than two uncertainties from the baseline in either AUC: {', '.join(clear)}. {chance}"


def _made(results: Mapping[str, Any]) -> list[str]:
    """Say how everything was made: commands, data, dates, settings."""
    entries: Mapping[str, Measured] = results["entries"]
    reference = results["reference"]
    files = ", ".join(f"`{part['file']}`" for part in reference["files"])
    dates = sorted({entry["date"] for entry in entries.values()})
    hardware = sorted({entry["trained"]["hardware"] for entry in entries.values()})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    lines = [
        "## How this was made",
        f"Measured {days} with caloforge {results['caloforge_version']} against {reference['n']:,} Geant4 showers of "
        f"`{reference['detector']}` ({files}), none of which was trained on; trained on {', '.join(hardware)}. The list of trainings is "
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
