"""The validation report: one page from the samples, their metrics and the limits."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge._version import __version__
from caloforge.progress import progress
from caloforge.validate.limits import Row
from caloforge.validate.metrics.settings import Settings
from caloforge.validate.plots.draw import draw_figures
from caloforge.validate.plots.event import format_energy
from caloforge.validate.plots.families import TITLES, Shown, all_figures
from caloforge.validate.plots.panel import Heat, Panel
from caloforge.validate.plots.parallel import Drawing
from caloforge.validate.reconstructed import why_not
from caloforge.validate.report.before_after import before_after
from caloforge.validate.report.detectability import detectability_blocks, detectability_figures
from caloforge.validate.report.displays import display_blocks, event_drawings, pick_showers
from caloforge.validate.report.interactive import heat_figure, panel_figure
from caloforge.validate.report.page import Block, Code, Facts, Page, Plot, Section, Text
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

__all__ = ["Figures", "begin_figures", "build_page", "write_report"]


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
