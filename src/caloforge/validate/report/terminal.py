"""The summary as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from caloforge.validate.report.page import Cell
from caloforge.validate.report.summary import summary_rows
from caloforge.validate.report.tolerances import SIGNS

__all__ = ["summary_for_terminal"]

_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "unknown": "cyan"}


def summary_for_terminal(metrics: Mapping[str, Any]) -> Table:
    """Return the summary: a row for each statement, a column for each sample, the best first.

    Arguments:
        metrics: The content of ``metrics.json``.
    """
    columns, rows = summary_rows(metrics)
    reference = metrics["reference"]
    table = Table(
        title=f"against {reference['label']}: {reference['n_showers']} showers of {reference['detector']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row[0].text, *(_text(cell) for cell in row[1:]))
    return table


def _text(cell: Cell) -> Text:
    """Return a cell's sign and number, and below it what the page shows in small print."""
    text = Text(
        f"{SIGNS[cell.flag]} {cell.text}" if cell.flag else cell.text, style=_STYLES.get(cell.flag, "")
    )
    if cell.small:
        text.append(f"\n{cell.small}", style="dim not bold")
    return text
