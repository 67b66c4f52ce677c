"""What a study leaves behind: ``study.json``, ``figures/*.png`` and ``.pdf``, and the page ``report.html``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caloforge._version import __version__
from caloforge.files import atomic_path, dump_json, write_json
from caloforge.progress import progress
from caloforge.showers.identity import warnings_of
from caloforge.studies.base import Context, Figure, Row, Study, StudyResult
from caloforge.studies.papers import PaperValue, document, paper
from caloforge.validate.plots.panel import figure_style
from caloforge.validate.report.page import (
    Block,
    Cell,
    Code,
    Facts,
    Images,
    Page,
    Section,
    Table,
    Text,
    small_picture,
)

__all__ = ["number_text", "rows_table", "study_content", "write_study"]

_OPTIONS: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"metadata": {"CreationDate": None}}}
_FILES = "The command below writes each as PNG and PDF too, into figures/."
_PAGE_DPI = 110
"""Of the pictures on the page, which is 1,240 pixels wide; the files are finer."""
_MANY = 3
"""More references or samples than these are told as a table."""
_NARROW = 8.0
"""Figures that are narrower stand side by side, inches."""


def study_content(study: Study, context: Context, result: StudyResult, command: str) -> dict[str, Any]:
    """Return the content of ``study.json``, all plain values.

    Its keys: ``study``, ``title``, ``paper`` (title, authors, reference), ``command``, ``date``,
    ``caloforge_version``, ``seed``, ``n``, ``showers`` (of each sample, as used), ``settings``, ``references``,
    ``generated``, ``seen`` (of each sample: ``n`` of ``of`` trusted showers were used to train or select its model),
    ``warnings`` (a line for each thing wrong with a model), ``rows`` (each with the paper's number in full), ``texts``, ``figures`` and ``data``.
    """
    published = document(study.source)
    content = {
        "study": study.name,
        "title": study.title,
        "paper": {
            "title": published.title,
            "authors": published.authors,
            "reference": published.reference,
        },
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "caloforge_version": __version__,
        "seed": context.seed,
        "n": context.n,
        "showers": dict(result.showers),
        "settings": context.settings.model_dump(mode="json"),
        "references": [source.provenance() for source in context.references],
        "generated": [source.provenance() for source in context.generated],
        "seen": {label: count.as_dict() for label, count in context.seen.items()},
        "warnings": _warnings(context),
        "rows": [_row_dict(row) for row in result.rows],
        "texts": list(result.texts),
        "figures": [
            {"name": figure.name, "title": figure.title, "caption": figure.caption}
            for figure in result.figures
        ],
        "data": result.data,
    }
    plain: dict[str, Any] = json.loads(dump_json(content))
    return plain


def write_study(folder: Path, study: Study, result: StudyResult) -> Path:
    """Write everything into the output folder and return the page's path.

    Arguments:
        folder: The folder.
        study: The study.
        result: Its result, with ``content`` filled.
    """
    images = draw_figures(result.figures, folder / "figures")
    write_json(folder / "study.json", result.content)
    return _page(study, result, images).write(folder / "report.html", force=True)


def draw_figures(figures: Sequence[Figure], folder: Path) -> list[Images]:
    """Write each figure as PNG and PDF; return small pictures for the page, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    with figure_style() as pyplot, progress(len(figures), "drawing") as advance:
        for figure in figures:
            drawn = figure.draw(pyplot)
            for ending, options in _OPTIONS.items():
                with atomic_path(folder / f"{figure.name}.{ending}", force=True) as part:
                    drawn.savefig(part, format=ending, **options)
            still = BytesIO()
            drawn.savefig(still, format="png", dpi=_PAGE_DPI)
            wide = float(drawn.get_size_inches()[0]) > _NARROW
            images.append(Images({figure.title: small_picture(still.getvalue())}, figure.caption, wide))
            pyplot.close(drawn)
            advance(1)
    return images


def rows_table(rows: Sequence[Row]) -> Table:
    """Return our numbers beside the paper's as a table of the page."""
    cells = []
    for row in rows:
        published = None if row.paper is None else paper(row.paper)
        cells.append(
            [
                Cell(row.sample),
                Cell(row.quantity),
                Cell(number_text(row.ours, row.uncertainty, row.unit), sort=row.ours, title=row.note),
                _published(published),
                Cell("") if published is None else Cell(published.source, small=published.note),
                Cell(row.note),
            ]
        )
    return Table(
        ("sample", "quantity", "ours", "paper", "source", "note"), cells, key="rows", texts=(0, 1, 4, 5)
    )


def _page(study: Study, result: StudyResult, images: Sequence[Images]) -> Page:
    content = result.content
    texts = [*content["warnings"], *result.texts]
    summary: list[Block] = [*(Text(text) for text in texts), rows_table(result.rows)]
    sections = [Section("Ours and the paper's", summary)]
    if images:
        sections.append(Section("Figures", images, _FILES))
    sections += [Section(title, blocks) for title, blocks in result.blocks.items()]
    sections.append(Section("Provenance", _provenance(content)))
    published = content["paper"]
    facts = {
        "showers of reference": str(sum(int(entry["n_showers"]) for entry in content["references"])),
        "samples": ", ".join(entry["label"] for entry in content["generated"]) or "none",
        "seed": str(content["seed"]),
        "date": content["date"],
    }
    subtitle = f"{published['title']}, {published['authors'].split(',')[0]} et al., {published['reference']}"
    return Page(study.title, sections, subtitle, facts)


def _warnings(context: Context) -> list[str]:
    """Return a line for everything that is wrong with a model, or with judging it by these showers."""
    lines = [line for source in context.generated for line in warnings_of(source.label, source.attributes)]
    for label, count in context.seen.items():
        if count.n:
            lines.append(f"{label}: {count} trusted showers were used to train or select the model")
    return lines


def _provenance(content: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Code(content["command"])]
    for role in ("references", "generated"):
        entries = [
            {name.replace("_", " "): str(value) for name, value in entry.items() if value not in (None, "")}
            for entry in content[role]
        ]
        if len(entries) > _MANY:
            blocks.append(_sources_table(entries, role))
        else:
            blocks += [Facts(items, f"{role.removesuffix('s')}: {items['label']}") for items in entries]
    blocks.append(Facts({key: str(value) for key, value in content["settings"].items()}, "settings"))
    return blocks


def _sources_table(entries: Sequence[Mapping[str, str]], role: str) -> Table:
    """Return many sources as a table, with the beginnings of their hashes."""
    columns = list(dict.fromkeys(name for items in entries for name in items))
    rows = []
    for items in entries:
        cells = [Cell(items.get(name, "")) for name in columns]
        where = columns.index("sha256")
        cells[where] = Cell(f"{items['sha256'][:16]}...", title=items["sha256"])
        rows.append(cells)
    return Table(
        columns, rows, f"{role}; study.json has the hashes in full", texts=tuple(range(len(columns)))
    )


def _row_dict(row: Row) -> dict[str, Any]:
    published = None if row.paper is None else paper(row.paper)
    return {
        "sample": row.sample,
        "quantity": row.quantity,
        "ours": row.ours,
        "uncertainty": row.uncertainty,
        "unit": row.unit,
        "note": row.note,
        "paper": None if published is None else published.as_dict(),
    }


def number_text(value: float | None, uncertainty: float | None, unit: str = "") -> str:
    """Return a number with its uncertainty and unit, as many digits as the uncertainty allows."""
    if value is None or not np.isfinite(value):
        return "-"
    ending = f" {unit}" if unit else ""
    if uncertainty is None or not np.isfinite(uncertainty) or uncertainty <= 0:
        return f"{value:.4g}{ending}" if abs(value) < 1e4 else f"{value:,.0f}{ending}"
    digits = max(0, 1 - int(np.floor(np.log10(uncertainty))))
    if digits > 6:
        return f"{value:.3g} ± {uncertainty:.1g}{ending}"
    return f"{value:,.{digits}f} ± {uncertainty:,.{digits}f}{ending}"


def _published(value: PaperValue | None) -> Cell:
    if value is None:
        return Cell("")
    known = [number for number in (value.value, value.low, value.high) if number is not None]
    return Cell(value.text, sort=known[0] if known else None, title=value.note)
