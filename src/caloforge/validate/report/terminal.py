"""The summary as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from caloforge.validate.report.summary import summary_rows

__all__ = ["summary_for_terminal"]

_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red"}
_SIGNS = {"good": "✓ ", "warn": "△ ", "bad": "✗ "}


def summary_for_terminal(metrics: Mapping[str, Any]) -> Table:
    """Return the summary, the nearest sample first.

    Arguments:
        metrics: The content of ``metrics.json``.
    """
    _, columns, rows = summary_rows(metrics)
    reference = metrics["reference"]
    table = Table(
        title=f"against {reference['label']}: {reference['n_showers']} showers of {reference['detector']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number in (0, len(columns) - 1) else "right", overflow="fold"
        )
    for row in rows:
        cells = []
        for cell in row:
            text = Text(_SIGNS.get(cell.flag, "") + cell.text, style=_STYLES.get(cell.flag, ""))
            if cell.small:
                text.append(f"\n{cell.small}", style="dim")
            cells.append(text)
        table.add_row(*cells)
    return table
