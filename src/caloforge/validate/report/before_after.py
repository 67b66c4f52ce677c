"""The table that sets an observable before reconstruction against the same one after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caloforge.validate.report.numbers import format_value
from caloforge.validate.report.page import Block, Cell, Table
from caloforge.validate.report.scores import FLAGS, Score, scores_of

__all__ = ["before_after"]

_PAIRS = ("separation_power", "wasserstein")
_OWN = ("reconstructed.response", "reconstructed.resolution", "reconstructed.direction")


def before_after(metrics: Mapping[str, Any]) -> list[Block]:
    """Return the tables of a report: distances before and after, and the clusters' energy and direction.

    Arguments:
        metrics: The content of ``metrics.json``.
    """
    rows: list[list[Cell]] = []
    clusters: list[list[Cell]] = []
    for label, sample in metrics["samples"].items():
        scores = {score.name: score for score in scores_of(sample)}
        items = [score.item for score in scores.values() if score.key == "reconstructed.separation_power"]
        for item in items:
            pairs = [
                scores.get(f"{prefix}{key}.{item}") for key in _PAIRS for prefix in ("", "reconstructed.")
            ]
            rows.append([Cell(label), Cell(item.replace("_", " ")), *(_cell(score) for score in pairs)])
        for key in _OWN:
            parts = [scores.get(f"{key}.{item}") for item in ("reference", "generated", "ratio")]
            known = next((score for score in parts if score is not None), None)
            if known is not None:
                clusters.append([Cell(label), Cell(known.label), *(_cell(score) for score in parts)])
    blocks: list[Block] = []
    if clusters:
        columns = ["Sample", "Of the leading cluster", "Reference", "Generated", "Ratio"]
        blocks.append(Table(columns, clusters, key="clusters-table", texts=(0, 1)))
    if rows:
        columns = [
            "Sample",
            "Observable",
            "Separation power",
            "reconstructed",
            "Wasserstein-1",
            "reconstructed",
        ]
        caption = "Before and after; a line is empty where there is no such observable before reconstruction."
        blocks.append(Table(columns, rows, caption, key="before-after-table", texts=(0, 1)))
    return blocks


def _cell(score: Score | None) -> Cell:
    if score is None:
        return Cell("")
    floor = "" if score.floor is None else f"floor {format_value(score.floor, score.floor_uncertainty)}"
    text = format_value(score.value, score.uncertainty)
    return Cell(text, score.value, score.flag, FLAGS.get(score.flag, score.reason), floor)
