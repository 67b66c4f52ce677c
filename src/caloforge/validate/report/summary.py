"""The verdict and the tables of the report, on the page and in the terminal.

The statements on a sample come in the order in which a physicist asks: response, resolution, hits, layers, shape and cell spectrum,
then classifiers and the number of showers that they need, then distances, and precision, recall, density and coverage together.
Each is judged by size and significance (:mod:`caloforge.validate.report.tolerances`), and causes are named in physical terms: a
missing layer, mode collapse, a wrong response, a pile-up of cells.

In the tables of all metrics every number of ``metrics.json`` is a score. It compares a metric's distance from its ideal with
the same distance of the floor (what a perfect generator would score with so many showers), in standard deviations of both:

    pull = (|value - ideal| - |floor - ideal|) / sqrt(uncertainty^2 + floor_uncertainty^2)

A pull below 2 is as good as the reference itself at these sample sizes, above 5 it is a clear difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich import box
from rich.table import Table as TerminalTable
from rich.text import Text

from caloforge.units import plain_number
from caloforge.validate.limits import Row
from caloforge.validate.report import statements
from caloforge.validate.report.page import Block, Cell, Table, format_value
from caloforge.validate.report.tolerances import SIGNS, SIMILARITY, TOLERANCES, Statement, excess_of

__all__ = [
    "FLAGS", "Judgement", "Score", "judge", "judge_all", "limits_table", "metrics_table", "scores_of",
    "spectrum_tables", "summary_for_terminal", "summary_rows", "summary_table", "verdicts",
]  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """All statements on one sample."""

    label: str  # the sample's
    statements: Mapping[str, Statement]  # by name, in the summary's order
    score: float  # weighted mean severity over the statements that all samples have; 0 is best, NaN when there are none
    unfinished: str = ""  # status of a model whose training is unfinished; else empty
    seen: tuple[int, int] | None = (
        None  # reference showers that the model has seen, of how many; None: not known
    )

    @property
    def causes(self) -> list[Statement]:
        """Physical causes first, then classifiers and distances; in each the bad ones before the doubtful ones."""

        def order(s: Statement) -> tuple[bool, bool, int, float]:
            return s.priority >= SIMILARITY, s.flag != "bad", s.priority, -s.weight * s.severity

        found = (s for s in self.statements.values() if s.flag in ("bad", "warn") and s.finding)
        return sorted(found, key=order)

    @property
    def undecided(self) -> list[str]:
        """Names of the statements whose test cannot tell."""
        return [s.label.lower() for s in self.statements.values() if s.flag == "unknown"]


def judge_all(metrics: Mapping[str, Any]) -> list[Judgement]:
    """Return the judgement of every sample, the best first; unfinished models last."""
    found = {label: judge(sample) for label, sample in metrics["samples"].items()}
    weighted = [name for name, tolerance in TOLERANCES.items() if tolerance.weight > 0]
    common = [name for name in weighted if all(name in judged for judged in found.values())]
    total = sum(TOLERANCES[name].weight for name in common)
    judgements = []
    for label, judged in found.items():
        severities = [judged[name].weight * judged[name].severity for name in common]
        score = sum(severities) / total if common else math.nan
        sample = metrics["samples"][label]
        status = str(sample.get("provenance", {}).get("attributes", {}).get("model_status", ""))
        unfinished = status if status.startswith("unfinished") else ""
        seen = (sample["seen"]["n"], sample["seen"]["of"]) if sample.get("seen") is not None else None
        judgements.append(Judgement(label, judged, score, unfinished, seen))
    return sorted(judgements, key=lambda j: (bool(j.unfinished), math.isnan(j.score), j.score))


def judge(sample: Mapping[str, Any]) -> dict[str, Statement]:
    """Return the statements on a sample's part of ``metrics.json`` by name, in the summary's order, without those not measured."""
    found = {name: _RULES[name](sample) for name in TOLERANCES}
    return {name: statement for name, statement in found.items() if statement is not None}


_RULES: dict[str, Callable[[Mapping[str, Any]], Statement | None]] = {
    **{name: partial(statements.ratio, name) for name in statements.RATIOS},
    "layers": statements.layers,
    "shapes": statements.shapes,
    "spectrum": statements.spectrum,
    "auc_strongest": statements.auc_strongest,
    **{name: partial(statements.auc, name) for name in ("auc_cells", "auc_observables", "auc_spectrum")},
    "detectability": statements.detectability,
    **{name: partial(statements.distance, name) for name in ("fpd", "kpd")},
    "prdc": statements.prdc,
}


FLAGS = {
    "good": "compatible with the reference",
    "warn": "2 to 5 standard deviations from the reference",
    "bad": "more than 5 standard deviations from the reference",
}
_GOOD, _BAD = 2.0, 5.0


@dataclass(frozen=True)
class Score:
    """One number of one sample."""

    key: str  # key in ``metrics.json``
    item: str  # entry under that key (an observable, a pair), empty for a single value
    label: str  # the metric's name for people
    # entry: its ``value`` (None when it was not measured), ``uncertainty``, ``floor``, ``floor_uncertainty``, ``detail``
    entry: Mapping[str, Any]
    ideal: float | None = None  # what a perfect generator reaches, or None when unknown
    by: str = ""  # what the items of its key are: "observable", "pair", "sample", or empty

    @property
    def name(self) -> str:
        """Its path in ``metrics.json``."""
        return f"{self.key}.{self.item}" if self.item else self.key

    @property
    def value(self) -> float | None:
        """The number; None when it was not measured."""
        found: float | None = self.entry["value"]
        return found

    @property
    def floor(self) -> float | None:
        """What a perfect generator would score with so many showers, or None."""
        return self.entry.get("floor")

    @property
    def pull(self) -> float | None:
        """How much further it is from the ideal than the floor, in standard deviations; None when that is not known."""
        if self.value is None or self.ideal is None:
            return None
        excess, sigma = excess_of(self.entry, self.ideal)
        return excess / sigma if sigma > 0.0 else None

    @property
    def flag(self) -> str:
        """``good``, ``warn`` or ``bad`` by the pull; empty without one."""
        if self.pull is None:
            return ""
        return "good" if self.pull < _GOOD else ("warn" if self.pull < _BAD else "bad")

    @property
    def reason(self) -> str:
        """Why there is no value."""
        return str((self.entry.get("detail") or {}).get("reason", ""))

    @property
    def floor_note(self) -> str:
        """How the floor was measured, as far as the detail says."""
        detail = self.entry.get("detail") or {}
        size = detail.get("floor_size", detail.get("size"))
        if size is None:
            return ""
        note = f"measured between sets of {size:,} reference showers"
        measured, scale = detail.get("floor_measured"), detail.get("floor_scale")
        if measured is None or scale is None or abs(scale - 1.0) < 1e-3:
            return note
        return f"{note}: {plain_number(measured)}; times {plain_number(scale)} for the samples' sizes"


def scores_of(metrics: Mapping[str, Any]) -> list[Score]:
    """Return every number of one sample that some metric declares, in the metrics' order."""
    from caloforge.validate.metrics.base import METRICS

    scores: list[Score] = []
    for _, metric in METRICS.items():
        for key in metric.keys:
            entry = key.find(metrics)
            if not isinstance(entry, Mapping) or key.name.endswith("_floor"):
                continue  # floors stand beside the values that they belong to
            for item, number in ({"": entry} if "value" in entry else entry).items():
                if isinstance(number, Mapping) and "value" in number:
                    # Of pairs and samples only what compares the two has an ideal.
                    judged = (key.by in ("", "observable") or item == "ratio") and math.isfinite(key.ideal)
                    ideal = key.ideal if judged else None
                    scores.append(Score(key.name, str(item), key.label, number, ideal, key.by))
    return scores


_LEGEND = "✓: compatible with other showers of the reference (below 2 standard deviations); △: 2 to 5 standard deviations; ✗: above 5."
_FLOOR = "measured between sets of the reference and scaled to the samples' sizes"
_MOST_CAUSES = 3


def summary_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    """Return the headers (a statement, then the samples, the best first) and one row a statement."""
    judgements = judge_all(metrics)
    rows: list[list[Cell]] = []
    if len(judgements) > 1:
        name = Cell("Rank", title="by the score: weighted mean severity of the statements below; 0 is best")
        rows.append([name, *(_rank(k, j.score) for k, j in enumerate(judgements, start=1))])
    if any(j.unfinished for j in judgements):
        cells = [Cell(j.unfinished, flag="bad" if j.unfinished else "") for j in judgements]
        rows.append([Cell("Training", title="status of the model's training"), *cells])
    if any(j.seen for j in judgements):
        title = "reference showers that trained, calibrated or selected the model"
        name = Cell("Showers seen in training", title=title)
        rows.append([name, *(_seen_cell(j.seen) for j in judgements)])
    for key, tolerance in TOLERANCES.items():
        found = [j.statements.get(key) for j in judgements]
        if any(found):
            rows.append([Cell(tolerance.label, title=tolerance.says), *(_statement_cell(s) for s in found)])
    rows.append(
        [Cell("Largest problems", title="physical causes first"), *(_failing_cell(j) for j in judgements)]
    )
    return ["", *(j.label for j in judgements)], rows


def _rank(place: int, score: float) -> Cell:
    known = not math.isnan(score)
    return Cell(str(place), score if known else None, small=f"score {score:.2f}" if known else "score –")


def _seen_cell(seen: tuple[int, int] | None) -> Cell:
    if seen is None:
        return Cell("not known")
    n, of = seen
    return Cell(f"{n:,} of {of:,}" if n else f"none of {of:,}", flag="bad" if n else "good")


def _statement_cell(statement: Statement | None) -> Cell:
    if statement is None:
        return Cell("–", title="not measured: see the notes below")
    title = "undecided: the uncertainty of the test is too large" if statement.flag == "unknown" else ""
    return Cell(statement.text, statement.sort, statement.flag, title, statement.small)


def _failing_cell(judgement: Judgement) -> Cell:
    """Return the causes that matter most, and how many statements are bad or cannot tell."""
    named = [s.short for s in judgement.causes if s.short][:3]
    flags = [s.flag for s in judgement.statements.values() if s.flag]
    bad, unknown = flags.count("bad"), flags.count("unknown")
    small = f"{bad} of {len(flags)} bad" + (f", {unknown} undecided" if unknown else "")
    return Cell(", ".join(named) if named else "nothing", sort=float(bad), small=small)


def summary_table(metrics: Mapping[str, Any]) -> Table:
    """Return the table of the statements on each sample, the best sample first."""
    columns, rows = summary_rows(metrics)
    caption = (
        "✓: correct, or a deviation below a third of the tolerance; △: a significant deviation between a third of the tolerance and the tolerance; "
        "✗: a significant deviation above the tolerance; ?: undecided, since the uncertainty is as large as the tolerance. "
        "docs/validation.md and the tooltips of the names have the tolerances. "
        f"The floor is the value that a perfect generator would have with samples of this size, {_FLOOR}."
    )
    return Table(columns, rows, caption, key="summary-table", texts=(0,), sortable=False)


def verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each sample: what is wrong with it, its physical cause first; the best sample first."""
    judgements = judge_all(metrics)
    if not any(j.statements for j in judgements):
        return ["None of the metrics by which samples are judged was measured."]
    return [_sentence(j, k, len(judgements)) for k, j in enumerate(judgements)]


def _sentence(judgement: Judgement, place: int, of: int) -> str:
    parts = [s.finding for s in judgement.causes[:_MOST_CAUSES]]
    detectability = judgement.statements.get("detectability")
    if detectability is not None and detectability.finding and detectability.finding not in parts:
        parts.append(detectability.finding)
    parts = parts or ["no relevant deviation was found"]
    if judgement.undecided:
        parts.append(f"undecided: {', '.join(judgement.undecided)}")
    warnings = [f"its training is {judgement.unfinished}"] if judgement.unfinished else []
    if judgement.seen is not None and judgement.seen[0]:
        n, total = judgement.seen
        warnings.append(f"{n:,} of the {total:,} reference showers trained or selected the model")
    start = judgement.label
    if of > 1 and place == 0 and not judgement.unfinished:
        start += ", nearest to the reference"
    warning = f" (warning: {'; '.join(warnings)})" if warnings else ""
    return f"{start}{warning}: {'; '.join(parts)}."


def spectrum_tables(metrics: Mapping[str, Any]) -> list[Block]:
    """Return the table of the regions where the cell spectrum deviates most, in all layers and in each; none without one."""
    rows: list[list[Cell]] = []
    for label, sample in metrics["samples"].items():
        for key, entry in sample.get("spectrum_ratio", {}).items():
            detail = entry.get("detail", {})
            for number, finding in enumerate(detail.get("findings", [])[: None if key == "all" else 1]):
                significance = float(detail["significance"]) if number == 0 else None
                sigma = "" if significance is None else f"{significance:.1f}"
                layer = "all" if key == "all" else str(detail.get("layer") or key)
                rows.append([Cell(label), Cell(layer), Cell(finding), Cell(sigma, significance)])
    if not rows:
        return []
    caption = (
        "Significant deviations (above 4 standard deviations, corrected for the number of bins): the most important ones of all layers "
        "together, and the most important one of each layer."
    )
    columns = ["Sample", "Layer", "Deviation", "Standard deviations"]
    return [Table(columns, rows, caption, key="spectrum-table", texts=(0, 1, 2))]


def metrics_table(metrics: Mapping[str, Any], by_observable: bool = False) -> Table:
    """Return the numbers of every sample, one a row: those by observable, or all others."""
    rows: list[list[Cell]] = []
    for label, sample in metrics["samples"].items():
        for score in scores_of(sample):
            if (score.by == "observable") != by_observable:
                continue
            pull = "" if score.pull is None else f"{score.pull:+.1f}"
            rows.append([
                Cell(label), Cell(score.label), Cell(score.item.replace("_", " ")),
                Cell(format_value(score.value, score.entry.get("uncertainty")), score.value, title=score.reason, small=score.reason),
                Cell("" if score.floor is None else format_value(score.floor, score.entry.get("floor_uncertainty")), score.floor, title=score.floor_note),
                Cell("" if score.ideal is None else f"{score.ideal:g}", score.ideal),
                Cell(pull, score.pull, score.flag, FLAGS.get(score.flag, "")),
            ])  # fmt: skip
    columns = ["Sample", "Metric", "Of", "Value", "Floor", "Ideal", "Pull"]
    floor = f"value that a perfect generator would have, {_FLOOR}"
    beyond = "how much further the value is from the ideal than the floor, in standard deviations"
    titles = ["", "", "", "with one standard deviation", floor, "", beyond]
    key = "observables-table" if by_observable else "metrics-table"
    return Table(columns, rows, _LEGEND, titles, key=key, texts=(0, 1, 2))


def limits_table(rows: Sequence[Row]) -> Table:
    """Return the outcome of every limit, failing ones first."""
    cells: list[list[Cell | str | float]] = []
    for row in sorted(rows, key=lambda row: row.passed):
        value = Cell("–" if row.value is None else plain_number(row.value, 4), row.value, small=row.reason)
        outcome = Cell("met" if row.passed else "violated", flag="good" if row.passed else "bad")
        cells.append([row.sample, row.name, value, str(row.limit), outcome])
    columns = ["Sample", "Metric", "Value", "Limit", "Outcome"]
    return Table(columns, cells, key="limits-table", texts=(0, 1, 3))


_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "unknown": "cyan"}


def summary_for_terminal(metrics: Mapping[str, Any]) -> TerminalTable:
    """Return the summary: a row for each statement, a column for each sample, the best first."""
    columns, rows = summary_rows(metrics)
    reference = metrics["reference"]
    title = f"against {reference['label']}: {reference['n_showers']} showers of {reference['detector']}"
    frame: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "show_edge": False}
    table = TerminalTable(title=title, title_justify="left", **frame)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row[0].text, *(_text(cell) for cell in row[1:]))
    return table


def _text(cell: Cell) -> Text:
    """Return a cell's sign and number, and below it what the page shows in small print."""
    shown = f"{SIGNS[cell.flag]} {cell.text}" if cell.flag else cell.text
    text = Text(shown, style=_STYLES.get(cell.flag, ""))
    if cell.small:
        text.append(f"\n{cell.small}", style="dim not bold")
    return text
