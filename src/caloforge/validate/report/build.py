"""The validation report: one page from the samples, their metrics and the limits."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge import __version__
from caloforge.errors import require
from caloforge.progress import progress
from caloforge.validate.limits import Row
from caloforge.validate.metrics.base import Settings
from caloforge.validate.plots.draw import Drawing, draw_figures
from caloforge.validate.plots.event import format_energy
from caloforge.validate.plots.families import TITLES, Shown, all_figures
from caloforge.validate.plots.panel import Heat, Panel
from caloforge.validate.reconstruction.sample import why_not
from caloforge.validate.report.detectability import detectability_blocks, detectability_figures
from caloforge.validate.report.event import display_blocks, event_drawings, pick_showers
from caloforge.validate.report.interactive import heat_figure, panel_figure
from caloforge.validate.report.page import (
    Block,
    Cell,
    Code,
    Facts,
    Page,
    Plot,
    Section,
    Table,
    Text,
    format_value,
)
from caloforge.validate.report.scores import FLAGS, Score, scores_of
from caloforge.validate.report.summary import (
    limits_table,
    metrics_table,
    spectrum_tables,
    summary_table,
    verdicts,
)

if TYPE_CHECKING:
    from caloforge.showers import Showers
    from caloforge.validate.sample import Sample

__all__ = ["Figures", "before_after", "begin_figures", "build_page", "require_report", "write_report"]


_MODULES = ("matplotlib", "mplhep", "plotly", "jinja2")


def require_report() -> None:
    """Check that figures can be drawn and the page written.

    Raises:
        MissingExtraError: When a module of the ``report`` extra is not installed.
    """
    for module in _MODULES:
        require(module, extra="report")


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
    entry = score.entry
    floor = (
        "" if score.floor is None else f"floor {format_value(score.floor, entry.get('floor_uncertainty'))}"
    )
    text = format_value(score.value, entry.get("uncertainty"))
    return Cell(text, score.value, score.flag, FLAGS.get(score.flag, score.reason), floor)


_NAMES = {
    "n_showers": "showers",
    "n_compared": "showers compared",
    "incident_energy": "incident energy [MeV]",
    "incident_theta": "incident angle [degrees]",
}


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of a report, which are being drawn for paper.

    Attributes:
        families: The figures by family, without the event displays.
        showers: One shower of each sample, for the event displays.
        drawing: The processes that draw.
    """

    families: Mapping[str, Sequence[Shown]]
    showers: Sequence[Showers]
    drawing: Drawing


@contextmanager
def begin_figures(folder: Path, samples: Sequence[Sample], settings: Settings) -> Iterator[Figures]:
    """Have ``figures/`` drawn while the block runs; nothing of it needs the metrics.

    Arguments:
        folder: The output folder.
        samples: The reference first.
        settings: The comparison's options.
    """
    without = ("reconstructed",) if why_not(samples[0].detector, settings.reconstruction) else ()
    families = all_figures(samples, without)
    showers = pick_showers(samples)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    every = [figure for family in families.values() for figure in family]
    with Drawing([*event_drawings(samples, showers, settings.threshold), *every], figures) as drawing:
        yield Figures(families, showers, drawing)


def write_report(
    folder: Path,
    samples: Sequence[Sample],
    metrics: Mapping[str, Any],
    limits: Sequence[Row],
    settings: Settings,
    figures: Figures,
) -> Path:
    """Write ``report.html`` into a folder, wait for its ``figures/``, and return the page's path.

    Arguments:
        folder: The output folder.
        samples: The reference first.
        metrics: The content of ``metrics.json``.
        limits: The outcome of each limit.
        settings: The comparison's options.
        figures: From :func:`begin_figures`.
    """
    displays = display_blocks(samples, figures.showers, settings.threshold)
    page = build_page(samples, metrics, limits, figures.families, displays)
    path = page.write(folder / "report.html", force=True)
    draw_figures(detectability_figures(metrics), folder / "figures")
    with progress(len(figures.drawing.figures), "drawing") as advance:
        figures.drawing.finish(advance)
    return path


def build_page(
    samples: Sequence[Sample],
    metrics: Mapping[str, Any],
    limits: Sequence[Row],
    drawings: Mapping[str, Sequence[Shown]],
    displays: Sequence[Plot],
) -> Page:
    """Return the page; see :func:`write_report` for the arguments."""
    reference = metrics["reference"]
    summary: list[Block] = [*(Text(sentence) for sentence in verdicts(metrics)), summary_table(metrics)]
    sections = [Section("Summary", summary)]
    if detectability := detectability_blocks(metrics):
        intro = "How many showers a side a classifier needs to tell each sample from the reference, and by what it does."
        sections.append(Section("Detectability", detectability, intro))
    if limits:
        failed = sum(not row.passed for row in limits)
        intro = f"{failed} of {len(limits)} fail." if failed else "Every limit holds."
        sections.append(Section("Limits", [limits_table(limits)], intro))
    if displays:
        intro = "A typical shower of the reference, and of each sample the one nearest in energy and angle; turn it with the mouse."
        sections.append(Section("Event displays", displays, intro))
    for name, family in drawings.items():
        title = TITLES.get(name)
        heading, intro = (title.heading, title.intro) if title is not None else (name.capitalize(), "")
        before, after = _tables(name, metrics)
        sections.append(Section(heading, [*before, *(_plot(drawing) for drawing in family), *after], intro))
    sections.append(Section("Metrics", [*_skipped(metrics), metrics_table(metrics)]))
    intro = "The metrics of one observable, layer or bin each."
    sections.append(Section("Metrics by observable", [metrics_table(metrics, True)], intro, folded=True))
    sections.append(Section("Provenance", _provenance(metrics)))
    names = ", ".join(metrics["samples"])
    return Page(
        f"Validation of {names}",
        sections,
        f"against {reference['label']}, {reference['detector']}",
        _facts(reference, samples) | _seen(metrics),
    )


def _tables(family: str, metrics: Mapping[str, Any]) -> tuple[list[Block], list[Block]]:
    """Return the tables that stand before a family's figures, and those behind them."""
    before = before_after(metrics) if family == "reconstructed" else []
    return before, spectrum_tables(metrics) if family == "cells" else []


def _plot(drawing: Shown) -> Plot:
    """Return a figure as a block of the page."""
    if isinstance(drawing, Panel):
        return Plot(panel_figure(drawing), drawing.note, drawing.title, key=drawing.name)
    return Plot(heat_figure(drawing), drawing.note, drawing.title, _is_wide(drawing), key=drawing.name)


def _is_wide(heat: Heat) -> bool:
    return len(heat.images) > 1


def _facts(reference: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, str]:
    """Return the line of facts under the title."""
    low, high = reference["incident_energy"]
    facts = {
        "Detector": str(reference["detector"]),
        "Particle": str(reference["particle"]) or "–",
        "Incident energy": format_energy(low)
        if low == high
        else f"{format_energy(low)} to {format_energy(high)}",
    }
    if "incident_theta" in reference:
        first, last = reference["incident_theta"]
        facts["Angle"] = f"{first:.0f}°" if first == last else f"{first:.0f}° to {last:.0f}°"
    return facts | {f"Showers, {sample.label}": f"{sample.n:,}" for sample in samples}


def _seen(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return what is to be said at the head of the page of reference showers that a model was trained or selected with."""
    return {
        f"Reference showers seen in training, {label}": f"{sample['seen']['n']:,} of {sample['seen']['of']:,}"
        for label, sample in metrics["samples"].items()
        if sample.get("seen", {}).get("n")
    }


def _skipped(metrics: Mapping[str, Any]) -> list[Block]:
    """Return what was not measured and why."""
    notes = {
        f"{label}: {name}": str(reason)
        for label, sample in metrics["samples"].items()
        for name, reason in sample.get("skipped", {}).items()
    }
    return [Facts(notes, "Not measured")] if notes else []


def _provenance(metrics: Mapping[str, Any]) -> list[Block]:
    """Return where every sample comes from, the versions, the settings and the command."""
    blocks: list[Block] = [Code(str(metrics["command"]))]
    inputs = [metrics["reference"], *(sample["provenance"] for sample in metrics["samples"].values())]
    for entry in inputs:
        flat = {
            name.replace("_", " "): _text(value)
            for name, value in entry.items()
            if name not in ("label", "attributes")
        }
        flat |= {name.replace("_", " "): _text(value) for name, value in entry["attributes"].items()}
        blocks.append(Facts({name: value for name, value in flat.items() if value}, str(entry["label"])))
    versions = {"caloforge": __version__, "python": platform.python_version(), "numpy": np.__version__}
    blocks.append(Facts(versions, "Versions"))
    settings = {name.replace("_", " "): _text(value) for name, value in metrics["settings"].items()}
    settings["match conditions"] = "yes" if metrics.get("match_conditions") else "no"
    blocks.append(Facts(settings, "Settings"))
    return blocks


def _text(value: Any) -> str:
    """Return a value as a short text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return (
            " to ".join(_text(item) for item in value)
            if len(value) == 2
            else ", ".join(_text(item) for item in value)
        )
    return str(value)
