"""The validation report: one page from the samples, their metrics and the limits."""

from __future__ import annotations

import math
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
from caloforge.validate.plots.axes import plain_name
from caloforge.validate.plots.draw import Drawing, draw_figures
from caloforge.validate.plots.event import format_energy
from caloforge.validate.plots.families import TITLES, Shown, all_figures
from caloforge.validate.plots.panel import Bars, Growth, GrowthCurve, Heat, Mark
from caloforge.validate.reconstruction.sample import why_not
from caloforge.validate.report.event import display_blocks, event_drawings, pick_showers
from caloforge.validate.report.interactive import figure_of
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
from caloforge.validate.report.statements import features_of
from caloforge.validate.report.summary import (
    FLAGS,
    Score,
    limits_table,
    metrics_table,
    scores_of,
    spectrum_tables,
    summary_table,
    verdicts,
)

if TYPE_CHECKING:
    from caloforge.showers import Showers
    from caloforge.validate.sample import Sample

__all__ = [
    "Figures", "before_after", "begin_figures", "build_page", "detectability_blocks", "detectability_figures",
    "growth_curves", "require_report", "write_report",
]  # fmt: skip


_MOST_BARS = 12
_MOST_ROWS = 20
_SIGMAS = (("2 sigma", "n_2sigma"), ("5 sigma", "n_5sigma"))


def detectability_figures(metrics: Mapping[str, Any]) -> list[Growth | Bars]:
    """Return the AUC against the number of showers, and each sample's most important features; none where not measured."""
    figures: list[Growth | Bars] = []
    if curves := growth_curves(metrics):
        note = "Dashed lines are extrapolations with their 68 % band. Bars at the marks are the 68 % range of the number of showers."
        title = f"AUC against {plain_name(metrics['reference']['label'])}, by number of showers compared"
        figures.append(Growth("detectability", title, tuple(curves), note))
    for number, (label, sample) in enumerate(metrics["samples"].items(), start=1):
        if rows := features_of(sample)[:_MOST_BARS]:
            text = f"attribution_{number}", f"Most important features of {label}", "loss of AUC when permuted"
            names, kinds = tuple(_feature(row) for row in rows), tuple(str(row["kind"]) for row in rows)
            sizes = np.array([(row["importance"], row.get("uncertainty") or 0.0) for row in rows], np.float64)
            figures.append(Bars(*text, names, kinds, *sizes.T))
    return figures


def growth_curves(metrics: Mapping[str, Any]) -> list[GrowthCurve]:
    """Return the measured and extrapolated AUC of every sample that has one."""
    curves = []
    for role, (label, sample) in enumerate(metrics["samples"].items(), start=1):
        detail = sample.get("detectability", {}).get("detail", {})
        if not detail.get("sizes"):
            continue
        keys = "sizes", "auc", "auc_uncertainty"
        showers, auc, error = (np.array(detail[key], np.float64) for key in keys)
        line = detail.get("extrapolation") or {}
        grid, fitted, *band = (np.array(line.get(key, [])) for key in ("sizes", "auc", "low", "high"))
        x, y = (grid, fitted) if len(grid) else (showers, auc)
        marks = []
        for name, key in _SIGMAS:
            found = detail.get(key) or {}
            if found.get("value"):
                n = float(found["value"])
                low, high = (float(found.get(end) or n) for end in ("low", "high"))
                marks.append(Mark(name, n, low, high, float(np.interp(math.log(n), np.log(x), y))))
        measured = showers, auc, np.nan_to_num(error)
        curves.append(GrowthCurve(role, label, *measured, grid, fitted, band[0], band[1], tuple(marks)))
    return curves


def _feature(row: Mapping[str, Any]) -> str:
    return str(row["feature"]).replace("_", " ")


def detectability_blocks(metrics: Mapping[str, Any]) -> list[Block]:
    """Return the figures and the table of the section, empty when nothing of it was measured."""
    blocks: list[Block] = [_plot(figure) for figure in detectability_figures(metrics)]
    rows = [
        [Cell(label), Cell(_feature(row)), Cell(str(row["kind"])), Cell(format_value(row["importance"], row.get("uncertainty")), row["importance"])]
        for label, sample in metrics["samples"].items()
        for row in features_of(sample)[:_MOST_ROWS]
    ]  # fmt: skip
    if rows:
        caption = "Importance is the decrease of the AUC when the values of a feature are permuted among the showers; only values above 3 standard deviations are listed. Correlated features share their importance."
        columns = ["Sample", "Feature", "Kind", "Importance"]
        blocks.append(Table(columns, rows, caption, key="attribution-table", texts=(0, 1, 2)))
    return blocks


def require_report() -> None:
    """Check that figures can be drawn and the page written.

    Raises:
        MissingExtraError: When a module of the ``report`` extra is not installed.
    """
    for module in ("matplotlib", "mplhep", "plotly", "jinja2"):
        require(module, extra="report")


_PAIRS = ("separation_power", "wasserstein")
_CLUSTERS = ("reconstructed.response", "reconstructed.resolution", "reconstructed.direction")


def before_after(metrics: Mapping[str, Any]) -> list[Block]:
    """Return the tables of a report: distances before and after, and the clusters' energy and direction."""
    rows, clusters = [], []
    for label, sample in metrics["samples"].items():
        scores = {score.name: score for score in scores_of(sample)}
        for item in [s.item for s in scores.values() if s.key == "reconstructed.separation_power"]:
            names = [f"{prefix}{key}.{item}" for key in _PAIRS for prefix in ("", "reconstructed.")]
            rows.append([Cell(label), Cell(item.replace("_", " ")), *(_cell(scores.get(n)) for n in names)])
        for key in _CLUSTERS:
            parts = [scores.get(f"{key}.{item}") for item in ("reference", "generated", "ratio")]
            known = [score.label for score in parts if score is not None]
            if known:
                clusters.append([Cell(label), Cell(known[0]), *(_cell(score) for score in parts)])
    blocks: list[Block] = []
    if clusters:
        columns = ["Sample", "Leading cluster", "Reference", "Generated", "Ratio"]
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
        caption = "Distances before and after reconstruction. Entries are empty for observables that do not exist before reconstruction."
        blocks.append(Table(columns, rows, caption, key="before-after-table", texts=(0, 1)))
    return blocks


def _cell(score: Score | None) -> Cell:
    if score is None:
        return Cell("")
    text = format_value(score.value, score.entry.get("uncertainty"))
    floor = format_value(score.floor, score.entry.get("floor_uncertainty"))
    small = "" if score.floor is None else f"floor {floor}"
    return Cell(text, score.value, score.flag, FLAGS.get(score.flag, score.reason), small)


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of a report, which are being drawn for paper."""

    families: Mapping[str, Sequence[Shown]]  # the figures by family, without the event displays
    showers: Sequence[Showers]  # one shower of each sample, for the event displays
    drawing: Drawing  # the processes that draw


@contextmanager
def begin_figures(folder: Path, samples: Sequence[Sample], settings: Settings) -> Iterator[Figures]:
    """Have ``figures/`` of the output folder drawn while the block runs, of the samples, the reference first; needs no metrics."""
    without = ("reconstructed",) if why_not(samples[0].detector, settings.reconstruction) else ()
    families = all_figures(samples, without)
    showers = pick_showers(samples)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    every = [figure for family in families.values() for figure in family]
    with Drawing([*event_drawings(samples, showers, settings.threshold), *every], figures) as drawing:
        yield Figures(families, showers, drawing)


def write_report(
    folder: Path, samples: Sequence[Sample], metrics: Mapping[str, Any], limits: Sequence[Row],
    settings: Settings, figures: Figures,
) -> Path:  # fmt: skip
    """Write ``report.html`` into a folder, wait for its ``figures/``, and return the page's path.

    Arguments:
        samples: The reference first.
        metrics: The content of ``metrics.json``.
        limits: The outcome of each limit.
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
    samples: Sequence[Sample], metrics: Mapping[str, Any], limits: Sequence[Row],
    drawings: Mapping[str, Sequence[Shown]], displays: Sequence[Plot],
) -> Page:  # fmt: skip
    """Return the page; see :func:`write_report` for the arguments."""
    reference = metrics["reference"]
    summary: list[Block] = [*(Text(sentence) for sentence in verdicts(metrics)), summary_table(metrics)]
    sections = [Section("Summary", summary)]
    if detectability := detectability_blocks(metrics):
        intro = "How many showers a side a classifier needs to distinguish each sample from the reference, and which features it uses."
        sections.append(Section("Detectability", detectability, intro))
    if limits:
        failed = sum(not row.passed for row in limits)
        intro = f"{failed} of {len(limits)} limits are violated." if failed else "All limits are met."
        sections.append(Section("Limits", [limits_table(limits)], intro))
    if displays:
        intro = "A typical shower of the reference, and the shower of each sample that is nearest to it in energy and angle. Rotate them with the mouse."
        sections.append(Section("Event displays", displays, intro))
    for name, family in drawings.items():
        heading, intro = TITLES.get(name, (name.capitalize(), ""))
        before = before_after(metrics) if name == "reconstructed" else []
        after = spectrum_tables(metrics) if name == "cells" else []
        sections.append(Section(heading, [*before, *(_plot(drawing) for drawing in family), *after], intro))
    sections.append(Section("Metrics", [*_skipped(metrics), metrics_table(metrics)]))
    intro = "Each row is a metric of one observable, layer or bin."
    sections.append(Section("Metrics by observable", [metrics_table(metrics, True)], intro, folded=True))
    sections.append(Section("Provenance", _provenance(metrics)))
    title, subtitle = (
        f"Validation of {', '.join(metrics['samples'])}",
        f"against {reference['label']}, {reference['detector']}",
    )
    return Page(title, sections, subtitle, _facts(metrics, samples))


def _plot(drawing: Shown | Growth | Bars) -> Plot:
    wide = isinstance(drawing, Growth) or (isinstance(drawing, Heat) and len(drawing.images) > 1)
    columns = min(len(drawing.images), 4) if isinstance(drawing, Heat) else 1
    least = 520 if isinstance(drawing, Bars) else 0 if columns == 1 else 300 * columns
    return Plot(figure_of(drawing), drawing.note, drawing.title, wide, key=drawing.name, least_width=least)


def _facts(metrics: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, str]:
    """Return the line of facts under the title, with the reference showers that trained or selected a model."""
    reference = metrics["reference"]
    low, high = (format_energy(energy) for energy in reference["incident_energy"])
    facts = {
        "Detector": str(reference["detector"]),
        "Particle": str(reference["particle"]) or "–",
        "Incident energy": low if low == high else f"{low} to {high}",
    }
    if "incident_theta" in reference:
        first, last = (f"{angle:.0f}°" for angle in reference["incident_theta"])
        facts["Angle"] = first if first == last else f"{first} to {last}"
    facts |= {f"Showers, {sample.label}": f"{sample.n:,}" for sample in samples}
    return facts | {
        f"Reference showers seen in training, {label}": f"{sample['seen']['n']:,} of {sample['seen']['of']:,}"
        for label, sample in metrics["samples"].items()
        if sample.get("seen", {}).get("n")
    }


def _skipped(metrics: Mapping[str, Any]) -> list[Block]:
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
        facts = {k: v for k, v in entry.items() if k not in ("label", "attributes")} | entry["attributes"]
        texts = {name.replace("_", " "): _text(value) for name, value in facts.items()}
        blocks.append(Facts({name: text for name, text in texts.items() if text}, str(entry["label"])))
    versions = {"caloforge": __version__, "python": platform.python_version(), "numpy": np.__version__}
    blocks.append(Facts(versions, "Versions"))
    settings = {name.replace("_", " "): _text(value) for name, value in metrics["settings"].items()}
    settings["match conditions"] = "yes" if metrics.get("match_conditions") else "no"
    blocks.append(Facts(settings, "Settings"))
    return blocks


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return (" to " if len(value) == 2 else ", ").join(_text(item) for item in value)
    return str(value)
