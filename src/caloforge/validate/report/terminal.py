"""The summary as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from caloforge.validate.report.page import Cell
from caloforge.validate.report.summary import summary_rows

__all__ = ["summary_for_terminal"]

_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red"}
_SIGNS = {"good": "✓ ", "warn": "△ ", "bad": "✗ "}


def summary_for_terminal(metrics: Mapping[str, Any]) -> Table:
    """Return the summary: a row for each metric, a column for each sample, the nearest first.

    Arguments:
        metrics: The content of ``metrics.json``.
    """
    _, names, rows = summary_rows(metrics)
    reference = metrics["reference"]
    table = Table(
        title=f"against {reference['label']}: {reference['n_showers']} showers of {reference['detector']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column(names[0], overflow="fold")
    for row in rows:
        table.add_column(row[0].text, overflow="fold")
    for number, name in enumerate(names[1:], start=1):
        if number > 1 or len(rows) > 1:  # one sample alone has no rank
            table.add_row(name, *(_text(row[number]) for row in rows))
    return table


def _text(cell: Cell) -> Text:
    """Return a cell's sign and number, and below it what the page shows in small print."""
    text = Text(_SIGNS.get(cell.flag, "") + cell.text, style=_STYLES.get(cell.flag, ""))
    if cell.small:
        text.append(f"\n{cell.small}", style="dim not bold")
    return text
