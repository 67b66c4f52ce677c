"""The output of a study (``study.json``, ``figures/*.png`` and ``.pdf``, the page ``report.html``) and the papers' numbers.

The numbers of the papers are in ``papers.toml``, each with its source. A number may be a range (``low`` and ``high``),
one of them alone ("above 50"), or a value. Its ``document`` is one of the file's ``[documents]``, and ``where`` names
the figure, table or section.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caloforge import __version__
from caloforge.errors import UnknownNameError
from caloforge.files import atomic_path, dump_json, write_json
from caloforge.geometry.draw import text_as_it_is
from caloforge.progress import progress
from caloforge.showers.seen import warnings_of
from caloforge.studies.base import Context, Figure, Row, Study, StudyResult
from caloforge.units import plain_number
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

__all__ = [
    "PaperTiming",
    "PaperValue",
    "document",
    "draw_figures",
    "like_with_like",
    "number_cell",
    "number_text",
    "paper",
    "paper_timings",
    "paper_values",
    "published_cell",
    "rows_table",
    "study_content",
    "write_study",
]


@dataclass(frozen=True)
class PaperValue:
    """A published number."""

    key: str  # ``study.name`` in ``papers.toml``
    document: str  # key of the document
    where: str  # figure, table or section
    value: float | None = None  # the number; None when only bounds are given
    low: float | None = None  # it is at least this
    high: float | None = None  # it is at most this
    unit: str = ""  # unit; empty for a pure number
    note: str = ""  # for which sample, under which conditions

    @property
    def source(self) -> str:
        """Document and place, for a table."""
        return f"{document(self.document)['reference']}, {self.where}"

    @property
    def text(self) -> str:
        """The number as a reader expects it: ``50``, ``10 to 20``, ``above 50``, ``up to 50``."""
        unit = f" {self.unit}" if self.unit else ""
        if self.value is not None:
            return f"{self.value:,g}{unit}"
        if self.low is not None and self.high is not None:
            return f"{self.low:,g} to {self.high:,g}{unit}"
        return f"above {self.low:,g}{unit}" if self.low is not None else f"up to {self.high:,g}{unit}"

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as ``study.json`` has it."""
        return asdict(self) | {"source": self.source}


@dataclass(frozen=True)
class PaperTiming:
    """A published time of a shower."""

    document: str  # key of the document
    model: str  # the model of ours that does the same
    detector: str  # the detector of ours with the same showers
    hardware: str  # what it was measured on
    ms: float  # of a generated shower
    geant4_ms: float  # of a Geant4 shower, on one core

    @property
    def speedup(self) -> float:
        """The paper's speed-up over its own Geant4."""
        return self.geant4_ms / self.ms


@cache
def paper_timings() -> tuple[PaperTiming, ...]:
    """Return every published time."""
    return tuple(PaperTiming(**entry) for entry in _content()["timings"])


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads((files("caloforge.studies") / "papers.toml").read_text(encoding="utf-8"))


def document(key: str) -> dict[str, Any]:
    """Return title, authors and reference (journal, arXiv or report number) of a paper, note or set of slides.

    Where its numbers are of one kind of showers, ``sample`` says which, and ``detectors`` are those that have such showers.
    """
    known: dict[str, dict[str, Any]] = _content()["documents"]
    if key not in known:
        raise UnknownNameError("document", key, list(known))
    return known[key]


def like_with_like(result: StudyResult, detector: str) -> None:
    """Leave out the papers' numbers that are of showers of another detector, and say so."""
    rows, others = [], []
    for row in result.rows:
        about = {} if row.paper is None else document(paper(row.paper).document)
        if detector not in about.get("detectors", [detector]):
            others.append(f"{about['reference']} has {about['sample']}")
            row = replace(row, paper=None)
        rows.append(row)
    result.rows = rows
    left = [
        f"The numbers of {detector} are not compared with those of the paper: {one}."
        for one in dict.fromkeys(others)
    ]
    result.texts = [*result.texts, *left]


def paper_values(study: str) -> dict[str, PaperValue]:
    """Return every number of a study's section, by its name in the section."""
    section = _content().get(study, {})
    return {name: PaperValue(key=f"{study}.{name}", **entry) for name, entry in section.items()}


def paper(key: str) -> PaperValue:
    """Return the number ``study.name``.

    Raises:
        UnknownNameError: When ``papers.toml`` has no such number.
    """
    study, _, name = key.partition(".")
    values = paper_values(study)
    if name not in values:
        raise UnknownNameError("published number", key, [f"{study}.{known}" for known in values])
    return values[name]


_OPTIONS: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"metadata": {"CreationDate": None}}}
_FILES = "The command below also writes each figure as PNG and PDF into figures/."
_PAGE_DPI = 110
"""Of the pictures on the page, which is 1,240 pixels wide; the files are finer."""
_MANY = 3
"""More references or samples than these are listed in a table."""
_NARROW = 8.0
"""Figures that are narrower stand side by side, inches."""


def study_content(study: Study, context: Context, result: StudyResult, command: str) -> dict[str, Any]:
    """Return the content of ``study.json``, all plain values.

    Its keys: ``study``, ``title``, ``paper`` (title, authors, reference), ``command``, ``date``,
    ``caloforge_version``, ``seed``, ``n``, ``showers`` (of each sample, as used), ``settings``, ``references``,
    ``generated``, ``seen`` (of each sample: ``n`` of ``of`` reference showers were used to train or select its model),
    ``warnings`` (one line each), ``rows`` (each with the paper's number in full), ``texts``, ``figures`` and ``data``.
    """
    seen = {label: count.as_dict() for label, count in context.seen.items()}
    warnings = [
        line
        for source in context.generated
        for line in warnings_of(source.label, source.attributes, seen.get(source.label))
    ]
    papers = [None if row.paper is None else paper(row.paper).as_dict() for row in result.rows]
    content = {
        "study": study.name,
        "title": study.title,
        "paper": document(study.source),
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "caloforge_version": __version__,
        "seed": context.seed,
        "n": context.n,
        "showers": dict(result.showers),
        "settings": context.settings.model_dump(mode="json"),
        "references": [source.provenance() for source in context.references],
        "generated": [source.provenance() for source in context.generated],
        "seen": seen,
        "warnings": warnings,
        "rows": [asdict(row) | {"paper": known} for row, known in zip(result.rows, papers, strict=True)],
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
    """Write everything into the output folder and return the page's path; the result's ``content`` must be filled."""
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
            text_as_it_is(drawn)
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
    """Return our numbers as a table of the page, beside the paper's where any row has one."""
    cells, known = [], any(row.paper is not None for row in rows)
    for row in rows:
        published = None if row.paper is None else paper(row.paper)
        source = Cell("") if published is None else Cell(published.source, small=published.note)
        beside = [published_cell(published), source] if known else []
        ours = number_cell(row.ours, row.uncertainty, row.unit)
        cells.append([Cell(row.sample), Cell(row.quantity), ours, *beside, Cell(row.note)])
    columns = ("sample", "quantity", "ours", *(("published", "source") if known else ()), "note")
    return Table(columns, cells, key="rows", texts=(0, 1, 4, 5) if known else (0, 1, 3))


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


def number_text(value: float | None, uncertainty: float | None, unit: str = "") -> str:
    """Return a number with its uncertainty and unit, as many digits as the uncertainty allows."""
    if value is None or not np.isfinite(value):
        return "-"
    ending = f" {unit}" if unit else ""
    if uncertainty is None or not np.isfinite(uncertainty) or uncertainty <= 0:
        return f"{plain_number(value, 4)}{ending}" if abs(value) < 1e4 else f"{value:,.0f}{ending}"
    digits = max(0, 1 - int(np.floor(np.log10(uncertainty))))
    if digits > 6:
        return f"{plain_number(value)} ± {uncertainty:.1g}{ending}"
    return f"{value:,.{digits}f} ± {uncertainty:,.{digits}f}{ending}"


def number_cell(
    value: float | None, uncertainty: float | None = None, unit: str = "", flag: str = ""
) -> Cell:
    """Return a number with its uncertainty as a cell of a table, sorted by the number."""
    if value is None or not np.isfinite(value):
        return Cell("-")
    small = "compatible with 0" if uncertainty is not None and uncertainty > abs(value) else ""
    return Cell(number_text(value, uncertainty, unit), float(value), flag, small=small)


def published_cell(value: PaperValue | None) -> Cell:
    """Return a paper's number as a cell of a table; an empty one where there is none."""
    if value is None:
        return Cell("")
    known = [number for number in (value.value, value.low, value.high) if number is not None]
    return Cell(value.text, sort=known[0] if known else None, title=value.note)
