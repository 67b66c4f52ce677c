"""The tables of the report: the verdict at a glance, every metric, the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from caloforge.validate.limits import Row
from caloforge.validate.report.page import Cell, Table
from caloforge.validate.report.scores import (
    FLAGS,
    HEADLINES,
    Score,
    headline,
    mean_ranks,
    scores_of,
    worst,
)

__all__ = ["format_value", "limits_table", "metrics_table", "summary_rows", "summary_table", "verdict"]

_LEGEND = "✓ as near as other showers of the reference's kind would be (below 2 standard deviations), △ 2 to 5, ✗ above 5."
_FLOOR = "measured between sets of the reference and brought to the samples' sizes"


def format_value(value: float | None, uncertainty: float | None = None) -> str:
    """Return a number with its uncertainty, to two digits of it when it begins with 1 or 2, else to one."""
    if value is None:
        return "–"
    if uncertainty is None or not 0.0 < uncertainty < math.inf:
        return f"{value:.3g}"
    power = math.floor(math.log10(uncertainty))
    digits = (1 if uncertainty / 10.0**power < 2.95 else 0) - power
    if abs(value) >= 1e5 or (abs(value) < 1e-3 and uncertainty < 1e-3):
        power = math.floor(math.log10(max(abs(value), uncertainty)))
        places = max(0, digits + power)
        scale = 10.0**power
        return f"({value / scale:.{places}f} ± {uncertainty / scale:.{places}f})e{power}"
    places = min(max(0, digits), 6)
    return f"{value:.{places}f} ± {uncertainty:.{places}f}"


def summary_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[Cell]]]:
    """Return the keys shown, the headers, and one row a generated sample, the nearest first.

    Arguments:
        metrics: The content of ``metrics.json``.
    """
    by_sample = {label: scores_of(sample) for label, sample in metrics["samples"].items()}
    keys = [key for key in HEADLINES if any(headline(scores, key) for scores in by_sample.values())]
    ranks = mean_ranks(by_sample)
    names: dict[str, str] = {}
    rows = []
    for label in sorted(by_sample, key=lambda name: (math.isnan(ranks[name]), ranks[name])):
        scores = by_sample[label]
        row = [Cell(label), _rank_cell(label, ranks)]
        for key in keys:
            score = headline(scores, key)
            if score is not None:
                names[key] = score.label + (" (mean)" if score.item else "")
            row.append(_score_cell(score, [s for s in scores if s.key == key]))
        row.append(_failing_cell(scores))
        rows.append(row)
    return keys, ["Sample", "Mean rank", *(names[key] for key in keys), "Fails most in"], rows


def _rank_cell(label: str, ranks: Mapping[str, float]) -> Cell:
    rank = ranks[label]
    if math.isnan(rank):
        return Cell("")
    if len(ranks) == 1:
        return Cell("1", sort=1.0)
    nearest = rank == min(value for value in ranks.values() if not math.isnan(value))
    return Cell(f"{rank:.1f}", sort=rank, small="nearest" if nearest else "")


def _score_cell(score: Score | None, parts: Sequence[Score]) -> Cell:
    """Return a headline number with its floor, or the worst of its parts, below."""
    if score is None:
        return Cell("–", title="not measured: see the notes below")
    small = [] if score.floor is None else [f"floor {format_value(score.floor, score.floor_uncertainty)}"]
    known = [part for part in parts if part.item and part.excess is not None]
    if known:
        most = max(known, key=lambda part: part.excess or 0.0)
        small.append(f"worst {most.item.replace('_', ' ')} {most.value:.3g}")
    title = "" if score.pull is None else f"{score.pull:+.1f} standard deviations above the floor"
    return Cell(
        format_value(score.value, score.uncertainty), score.value, score.flag, title, " · ".join(small)
    )


def _failing_cell(scores: Sequence[Score]) -> Cell:
    """Return the entries that fail most, each named once."""
    names: list[str] = []
    for score in worst(scores, 40):
        name = (score.item if score.by == "observable" else score.label).replace("_", " ")
        if name not in names:
            names.append(name)
    failing = sum(score.flag == "bad" for score in scores)
    measured = sum(bool(score.flag) for score in scores)
    text = ", ".join(names[:3]) if names else "nothing"
    return Cell(text, sort=float(failing), small=f"{failing} of {measured} entries above 5 deviations")


def summary_table(metrics: Mapping[str, Any]) -> Table:
    """Return the table that says which sample is nearest and where each fails."""
    keys, columns, rows = summary_rows(metrics)
    titles = [
        "",
        "mean over the metrics shown; 1 is nearest",
        *keys,
        "the largest pulls over all metrics and observables",
    ]
    caption = (
        f"{_LEGEND} Floor: what a perfect generator would score with so many showers, {_FLOOR}. "
        "Click on a header to sort."
    )
    return Table(columns, rows, caption, titles, key="summary-table", texts=(0, len(columns) - 1))


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return one sentence: which sample is nearest, and whether it can be told from the reference."""
    by_sample = {label: scores_of(sample) for label, sample in metrics["samples"].items()}
    ranks = {label: rank for label, rank in mean_ranks(by_sample).items() if not math.isnan(rank)}
    if not ranks:
        return "No metric was measured that samples can be ranked by."
    nearest = min(ranks, key=lambda label: ranks[label])
    scores = by_sample[nearest]
    flagged = [score for score in scores if score.flag]
    failing = [score for score in flagged if score.flag == "bad"]
    start = f"{nearest} is nearest to the reference" if len(ranks) > 1 else nearest
    joint = " and" if len(ranks) > 1 else ""
    if not failing:
        return f"{start}{joint} has no entry of {len(flagged)} more than 5 standard deviations worse than the floor."
    return f"{start}{joint} is clearly off (more than 5 standard deviations) in {len(failing)} of {len(flagged)} entries."


def metrics_table(metrics: Mapping[str, Any], by_observable: bool = False) -> Table:
    """Return the numbers of every sample, one a row: those by observable, or all others."""
    rows: list[list[Cell]] = []
    for label, sample in metrics["samples"].items():
        for score in scores_of(sample):
            if (score.by == "observable") != by_observable:
                continue
            rows.append([
                Cell(label), Cell(score.label), Cell(score.item.replace("_", " ")),
                Cell(format_value(score.value, score.uncertainty), score.value, title=score.reason, small=score.reason),
                Cell("" if score.floor is None else format_value(score.floor, score.floor_uncertainty), score.floor, title=score.floor_note),
                Cell("" if score.ideal is None else f"{score.ideal:g}", score.ideal),
                Cell("" if score.pull is None else f"{score.pull:+.1f}", score.pull, score.flag, FLAGS.get(score.flag, "")),
            ])  # fmt: skip
    columns = ["Sample", "Metric", "Of", "Value", "Floor", "Ideal", "Pull"]
    titles = [
        "",
        "",
        "",
        "with one standard deviation",
        f"what a perfect generator would score, {_FLOOR}",
        "",
        "distance from the ideal beyond the floor's, in standard deviations",
    ]
    return Table(
        columns,
        rows,
        _LEGEND,
        titles,
        key="observables-table" if by_observable else "metrics-table",
        texts=(0, 1, 2),
    )


def limits_table(rows: Sequence[Row]) -> Table:
    """Return the outcome of every limit, failing ones first."""
    cells = [
        [
            Cell(row.sample),
            Cell(row.name),
            Cell("–" if row.value is None else f"{row.value:.4g}", row.value, small=row.reason),
            Cell(str(row.limit)),
            Cell("holds" if row.passed else "fails", flag="good" if row.passed else "bad"),
        ]
        for row in sorted(rows, key=lambda row: row.passed)
    ]
    return Table(
        ["Sample", "Metric", "Value", "Limit", "Outcome"], cells, key="limits-table", texts=(0, 1, 3)
    )
