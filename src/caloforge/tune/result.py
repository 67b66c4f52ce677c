"""What a study leaves behind: ``tune.json``, ``trials.csv``, the figure of the front, and the best settings as TOML."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from caloforge.files import atomic_path, write_json
from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, panels
from caloforge.studies.page import draw_figures
from caloforge.train.settings import resolve, to_toml
from caloforge.tune.space import value_at
from caloforge.tune.study import TunedStudy
from caloforge.units import plain_number
from caloforge.validate.plots.panel import INK, colour

__all__ = ["TuneResult", "sentence", "write_result"]

_STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}
_FACTS = ("uncertainty", "ms_uncertainty", "seconds", "parameters", "cut", "reason")
_NAMES = {
    "auc-observables": "AUC of the observables",
    "auc-cells": "AUC of the cells",
    "auc-spectrum": "AUC of the cell spectrum",
    "selection": "selection figure of the training",
}


@dataclass
class TuneResult:
    """The outcome of a study."""

    folder: Path
    trials: list[dict[str, Any]] = field(default_factory=list)  # every trial that ended, in order
    front: list[int] = field(default_factory=list)  # numbers of the trials on the front, the fastest first
    best: int | None = None  # number of the most accurate trial within the limit of time
    warnings: list[str] = field(default_factory=list)  # a line on each thing that makes the numbers doubtful

    @property
    def settings(self) -> Path | None:
        """The best settings, for ``caloforge train --config``."""
        return None if self.best is None else self.folder / "best.toml"

    @property
    def figure(self) -> Path | None:
        """The figure of the front."""
        return None if self.best is None else self.folder / "figures" / "front.png"

    def counts(self) -> dict[str, int]:
        """Return how many trials are complete, stopped and failed."""
        return {state: sum(trial["state"] == state for trial in self.trials) for state in _STATES.values()}


def sentence(entry: Mapping[str, Any], figure: str) -> str:
    """Return a line on a trial that ended."""
    values = ", ".join(f"{key} {value}" for key, value in entry["values"].items())
    if entry["state"] != "complete":
        return f"trial {entry['number']}: {entry['state']}, {entry['reason']} ({values})"
    error = "" if entry["uncertainty"] is None else f" ± {plain_number(entry['uncertainty'], 2)}"
    cut = ", cut by the time of a trial" if entry["cut"] else ""
    return (
        f"trial {entry['number']}: {figure} {plain_number(entry['figure'], 4)}{error}, {plain_number(entry['ms'])} ms a shower, "
        f"trained {entry['seconds']:.0f} s{cut} ({values})"
    )


def entries(study: TunedStudy) -> list[dict[str, Any]]:
    """Return plain facts of every trial that ended."""
    return [_entry(study, trial) for trial in study.ended()]


def _entry(study: TunedStudy, trial: Any) -> dict[str, Any]:
    facts = trial.user_attrs
    figure, ms = trial.values or (None, None)
    own = {"number": trial.number, "state": _STATES[trial.state.name], "figure": figure, "ms": ms}
    return own | {name: facts.get(name) for name in _FACTS} | {"values": study.values(trial)}


def write_result(study: TunedStudy, content: Mapping[str, Any]) -> TuneResult:
    """Write all outputs for the trials so far; ``content`` says what the study is, for ``tune.json``."""
    job = study.job
    found, front = entries(study), [trial.number for trial in study.front()]
    within = [entry for entry in found if entry["state"] == "complete" and entry["ms"] <= job.most_ms]
    best = min(within, key=lambda entry: (entry["figure"], entry["ms"]), default=None)
    result = TuneResult(job.folder, found, front, None if best is None else best["number"])
    result.warnings = _warnings(study, found)
    write_json(
        job.folder / "tune.json",
        {**content, "warnings": result.warnings, "trials": found, "front": front, "best": result.best},
    )
    _write_table(job.folder / "trials.csv", found, [parameter.key for parameter in job.space])
    if best is not None:
        _write_best(study, best, len(found))
        draw_figures([_figure(study, found, front, best["number"])], job.folder / "figures")
    return result


def _warnings(study: TunedStudy, found: Sequence[Mapping[str, Any]]) -> list[str]:
    job, lines = study.job, []
    complete = [entry for entry in found if entry["state"] == "complete"]
    if 2 * sum(entry["cut"] for entry in complete) > len(complete):
        lines.append(
            f"most trainings were cut at {job.trial_seconds:g} s, within their schedules; set fewer epochs, or give them more time"
        )
    if job.device == "cuda" and job.workers > torch.cuda.device_count():
        lines.append("several processes share a GPU, and the times of a shower contain their waiting")
    return lines


def _write_table(path: Path, found: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    columns = ("number", "state", "figure", "ms", *_FACTS)
    with atomic_path(path, force=True) as part, part.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow([*columns, *keys])
        for entry in found:
            cells = [entry[name] for name in columns] + [entry["values"].get(key) for key in keys]
            table.writerow(["" if cell is None else cell for cell in cells])


def _write_best(study: TunedStudy, best: Mapping[str, Any], n: int) -> None:
    """Write the settings of the best trial; a limit of time that did not end its training is left out."""
    job = study.job
    settings = job.settings(best["values"])
    if not best["cut"]:
        settings["train"]["max_seconds"] = job.base.train.max_seconds
    text = to_toml(resolve(job.model, settings).as_dict())
    head = f"# caloforge tune {job.model}, trial {best['number']} of {n}: {job.figure} {plain_number(best['figure'], 4)}, {plain_number(best['ms'])} ms a shower"
    with atomic_path(job.folder / "best.toml", force=True) as part:
        part.write_text(f"{head}\n{text}")


def _figure(study: TunedStudy, found: Sequence[Mapping[str, Any]], front: Sequence[int], best: int) -> Figure:
    caption = "Time of a shower against accuracy; lower and further left is better. Line: the trials than which none is better in both."

    def draw(pyplot: Any) -> Any:
        margins = Margins(left=0.95, right=0.25, bottom=0.75, top=0.35)
        figure, axes = panels(pyplot, 1, 1, 6.2, 4.0, margins, small=False)
        place = axes[0, 0]
        complete = {entry["number"]: entry for entry in found if entry["state"] == "complete"}
        rest = [entry for number, entry in complete.items() if number not in front]
        _points(place, rest, fmt="o", mfc="white", color=colour(6), label="trials")
        line = [complete[number] for number in front]
        place.step(*_steps(line), where="post", color=colour(1), lw=1.4)
        _points(place, line, fmt="o", color=colour(1), label="front")
        for entry in line:
            place.annotate(
                str(entry["number"]),
                (entry["ms"], entry["figure"]),
                (5, 5),
                textcoords="offset points",
                fontsize=10,
            )
        if 0 in complete and complete[0]["values"] == _preset(study):
            _points(place, [complete[0]], fmt="s", color=INK, label="trial 0: the preset", ms=7)
        _points(place, [complete[best]], fmt="*", color=colour(2), label="best", ms=13)
        place.set_xscale("log")
        where = "GPU" if study.job.device.startswith("cuda") else "CPU"
        place.set_xlabel(f"time of a shower on the {where} [ms]")
        place.set_ylabel(_NAMES[study.job.figure])
        _ticks(place, [entry["ms"] for entry in complete.values()])
        place.legend(fontsize=11, loc="best")
        return figure

    return Figure("front", "Accuracy and speed", caption, draw)


def _preset(study: TunedStudy) -> dict[str, Any]:
    base = study.job.base.as_dict()["model"]
    return {parameter.key: value_at(base, parameter.key) for parameter in study.job.space}


def _points(place: Any, some: Sequence[Mapping[str, Any]], **style: Any) -> None:
    """Draw trials with the uncertainties of both numbers."""
    if not some:
        return
    errors = [[entry[name] or 0.0 for entry in some] for name in ("ms_uncertainty", "uncertainty")]
    x, y = ([entry[name] for entry in some] for name in ("ms", "figure"))
    place.errorbar(x, y, xerr=errors[0], yerr=errors[1], lw=0.9, **{"ms": 6, "zorder": 3, **style})


def _steps(line: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [entry["ms"] for entry in line], [entry["figure"] for entry in line]


def _ticks(place: Any, times: Sequence[float]) -> None:
    """Mark times as plain numbers, over a range that holds them all."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    low, high = 0.8 * min(times), 1.25 * max(times)
    place.set_xlim(low, high)
    subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 5, 7)
    place.xaxis.set_major_locator(LogLocator(subs=subs) if high > 3 * low else MaxNLocator(6))
    place.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    place.xaxis.set_minor_locator(NullLocator())
