"""Figures of the flagship's study: AUC against steps, parameters and training showers, and the effect of each choice of the design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caloforge.studies.drawing import Margins, panels
from caloforge.studies.flagship.measure import AUCS, Difference, by_series
from caloforge.validate.plots.panel import BAND, INK, colour, figure_style, marker

__all__ = ["draw_all"]

Entries = Mapping[str, Mapping[str, Any]]
_DPI = 90
_APART = 0.11  # least distance of two numbers on an axis, in parts of it
_LABELS = {"auc_high": "AUC, observables", "auc_low": "AUC, cells"}


def draw_all(
    groups: Mapping[str, Entries], differences: Mapping[str, Sequence[Difference]], folder: Path
) -> dict[str, Path]:
    """Draw the figure of each group that has entries; return the files.

    Arguments:
        groups: Entries by group.
        differences: Title of a choice to its difference in each AUC.
        folder: Where the PNG files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with figure_style() as pyplot:
        for group, draw in (("steps", _steps), ("size", _size), ("data", _data)):
            if groups.get(group):
                drawn[group] = _save(draw(pyplot, groups[group]), folder / f"flagship-{group}.png")
        if differences:
            drawn["ablations"] = _save(_ablations(pyplot, differences), folder / "flagship-ablations.png")
    return drawn


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return path


def _steps(pyplot: Any, entries: Entries) -> Any:
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


def _size(pyplot: Any, entries: Entries) -> Any:
    return _line(pyplot, entries, "parameters", "parameters")


def _data(pyplot: Any, entries: Entries) -> Any:
    return _line(pyplot, entries, "train_showers", "training showers")


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
    """Return a figure with a panel for each AUC and its floor."""
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
    place: Any, entries: Sequence[Mapping[str, Any]], key: str, name: str, role: int, style: str, label: str
) -> None:
    """Draw one AUC of entries against one of their numbers."""
    if not entries:
        return
    known = sorted(entries, key=lambda entry: float(entry[key]))
    place.errorbar(
        [entry[key] for entry in known],
        [entry["figures"][name]["value"] for entry in known],
        [entry["figures"][name].get("uncertainty") or 0.0 for entry in known],
        color=colour(role),
        fmt=marker(role, paper=True) if style == "-" else "*",
        ms=4.5 if style == "-" else 9,
        lw=1.1,
        ls=style,
        label=label,
    )


def _ablations(pyplot: Any, differences: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw the difference of each choice to the baseline, a row each."""
    rows = list(differences)
    margins = Margins(left=2.9, bottom=0.6, top=0.2, across=0.3)
    figure, axes = panels(pyplot, 1, 2, 2.5, 0.26 * len(rows) + 0.4, margins, sharey=True)
    places = range(len(rows), 0, -1)
    for index, (place, name) in enumerate(zip(axes[0], AUCS, strict=True)):
        found = [differences[row][index] for row in rows]
        place.axvline(0.0, color=INK, lw=0.8)
        place.errorbar(
            [one.value for one in found],
            list(places),
            xerr=[one.uncertainty for one in found],
            color=colour(1),
            fmt="o",
            ms=4.5,
            lw=1.1,
        )
        place.set_xlabel(f"difference in {_LABELS[name]}", fontsize=11)
        place.locator_params(axis="x", nbins=5)
        place.margins(x=0.07)
        place.tick_params(axis="y", which="both", length=0)
        place.set_ylim(0.4, len(rows) + 0.6)
    axes[0][0].set_yticks(list(places), rows, fontsize=10)
    return figure
