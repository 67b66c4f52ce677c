"""The first page of the results: accuracy and speed of every model, compared with Geant4 and the papers, then the studies.

Its first part comes from the cards of the shipped models and from the published benchmark, which are the one source of
accuracies and times; the second from the rows of the studies. A paper's number stands only beside showers of its kind
(:func:`~caloforge.studies.page.like_with_like`). All that the page shows is kept beside it in ``site.json``, so that it can be
written again when the benchmark or the cards have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caloforge import __version__
from caloforge.files import write_json
from caloforge.studies.base import STUDIES
from caloforge.studies.page import PaperTiming, document, draw_figures, number_cell, paper, paper_timings
from caloforge.studies.site.speed import beam_text, gpu_of, measured, speedup_figure
from caloforge.text_files import read_json
from caloforge.units import plain_number
from caloforge.validate.report.page import (
    Block,
    Cell,
    Code,
    Page,
    Section,
    Table,
    Text,
    format_count,
    format_percent,
)

__all__ = ["STORED", "Done", "Site", "read_site", "write_index"]

STORED = "site.json"
_KEPT = ("showers", "paper", "date")


@dataclass(frozen=True)
class Done:
    """A study of the site."""

    study: str
    detector: str
    models: list[str]
    folder: str
    content: Mapping[str, Any]  # the content of its ``study.json``; empty when it failed
    error: str = ""  # why it failed; empty when it did not

    @property
    def published(self) -> list[Mapping[str, Any]]:
        """Its rows beside which a paper has a number."""
        return [row for row in self.content.get("rows", ()) if row["paper"] is not None]


@dataclass(frozen=True)
class Site:
    """What the first page shows of the studies."""

    done: Sequence[Done]
    models: Sequence[str]  # names of all that is judged
    command: str
    planned: int  # how many studies there will be
    left_out: Sequence[Sequence[str]] = ()  # study, reference, model, and why not
    asked: str = ""  # the file of groups that the command names
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    @property
    def stored(self) -> dict[str, Any]:
        """The content of ``site.json``."""
        done = []
        for one in self.done:
            quantities = {
                row["quantity"] for row in one.published
            }  # other rows are on the study's page alone
            content = {key: one.content[key] for key in _KEPT if key in one.content}
            rows = [row for row in one.content.get("rows", ()) if row["quantity"] in quantities]
            done.append(asdict(one) | {"content": content | {"rows": rows}})
        return asdict(self) | {"done": done}


def read_site(folder: Path) -> Site:
    """Return what was stored beside an entrance.

    Raises:
        InputError: When there is no ``site.json``.
    """
    content = read_json(folder / STORED)
    return Site(**content | {"done": [Done(**one) for one in content["done"]]})


def write_index(
    folder: Path,
    site: Site,
    cards: Mapping[str, Mapping[str, Any]] | None = None,
    benchmarks: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``index.html`` and ``site.json`` and return the page's path.

    Arguments:
        cards: Contents of the cards of shipped models, by name.
        benchmarks: Contents of ``benchmark.json``: on one core first, further ones on a GPU.
    """
    finished = [one for one in site.done if not one.error]
    sections = _glance(folder, cards or {}, benchmarks)
    if beside := [block for one in finished if one.published for block in _beside(one)]:
        sections.append(Section("Beside the papers", beside, _BESIDE))
    sections.append(
        Section("Studies", [_pages(site.done)], "Each study has a page with figures, tables and the command.")
    )
    if site.left_out:
        lines = [[Cell(text) for text in line] for line in site.left_out]
        table = Table(("study", "reference", "model", "why not"), lines, texts=(0, 1, 2, 3))
        sections.append(Section("Left out", [table], "Studies that do not fit a model.", folded=True))
    blocks: list[Block] = [Code(site.command)]
    if len(site.done) < site.planned:
        blocks.append(
            Text(
                f"Not finished: {site.planned - len(site.done)} of {site.planned} studies; repeat the command to continue."
            )
        )
    if site.asked:
        blocks += [Text("The file of pages that the command names:"), Code(site.asked.strip())]
    sections.append(Section("How this was made", blocks, folded=True))
    facts = {
        "studies": str(len(finished)),
        "samples": str(len(site.models)),
        "date": site.date,
        "caloforge": __version__,
    }
    write_json(folder / STORED, site.stored)
    subtitle = "Accuracy and speed of the models, compared with Geant4 and with the papers"
    return Page("Results", sections, subtitle, facts).write(folder / "index.html", force=True)


_GLANCE = (
    "The accuracy is from the cards, measured on sealed Geant4 showers. The times of a shower are from the benchmark: on one core in batches of 100, on a GPU in the "
    "fastest batch of up to 10,000, and for Geant4 with the same energies and angles on one core. A speed-up on a GPU is against Geant4 on one core. With one "
    "shower or a hundred, a GPU mostly waits for the start of its kernels, and small models are no faster on it than on a core."
)
_GLANCE_NOTE = (
    "AUC is that of the strongest of several classifiers; it is 0.5 if none can distinguish the model from Geant4, and the number in brackets is the value for two samples of Geant4. The AUC grows "
    "with the number of showers that the classifiers are trained on, so that a model measured with fewer showers looks better. "
    "Showers to 5 sigma is the number of showers a side that are needed to distinguish the model from Geant4; more is better. Response gives mean and width of the visible energy, "
    "model over Geant4."
)
_BESIDE = (
    "There is a table for each paper, only for showers of the same particle, calorimeter and energies as in the paper. Differences in the simulation "
    "(material, Geant4 version, physics, cuts) and in the number of showers remain. Where the Geant4 numbers of the paper differ from ours, compare each model "
    "with the Geant4 of the same source."
)
_SPEED = (
    "The papers' times are from other hardware, and their Geant4 takes twenty times longer for a shower than ours. So compare milliseconds on similar hardware, and not "
    "speed-ups."
)


def _glance(
    folder: Path, cards: Mapping[str, Mapping[str, Any]], benchmarks: Sequence[Mapping[str, Any]]
) -> list[Section]:
    """Return the sections of accuracy and speed; none without a benchmark."""
    if not benchmarks:
        return []
    first = benchmarks[0]
    table = _accuracy_and_speed(cards, benchmarks)
    images = draw_figures([speedup_figure(benchmarks, paper_timings())], folder / "figures")
    sections = [Section("How good, how fast", [*images, table], _GLANCE)]
    names = {model["name"].rpartition("/")[2] for model in first["models"]}
    timings = [one for one in paper_timings() if one.model in names]
    if timings:
        sections.append(Section("Times beside the papers'", [_speed_table(timings, benchmarks)], _SPEED))
    return sections


def _accuracy_and_speed(
    cards: Mapping[str, Mapping[str, Any]], benchmarks: Sequence[Mapping[str, Any]]
) -> Table:
    first, gpu = benchmarks[0], gpu_of(benchmarks)
    columns = [
        "showers", "model", "AUC", "showers to 5 sigma", "mean response", "its width", "Geant4, one core, ms",
        "one core, ms", "speed-up",
    ]  # fmt: skip
    columns += [f"{gpu.removeprefix('NVIDIA ')}, ms", "speed-up"] if gpu else []
    rows: list[list[Cell | str | float]] = []
    for model in first["models"]:
        beam, name = first["beams"][model["beam"]], model["name"]
        accuracy, moments = model["accuracy"], _moments(cards.get(name, {}))
        geant4 = measured(first, name, "geant4")
        row: list[Cell | str | float] = [
            Cell(beam["detector"], small=beam_text(beam).rpartition(", ")[0]), name.rpartition("/")[2], _auc(accuracy), _detectability(accuracy),
            *(_percent(moments.get(kind)) for kind in ("ratio", "width")), _ms(geant4),
        ]  # fmt: skip
        for device in ("cpu", "cuda")[: 2 if gpu else 1]:
            time = next(
                (found for one in benchmarks if (found := measured(one, name, device)) is not None), None
            )
            row += [_ms(time), _speedup(geant4, time)]
        rows.append(row)
    caption = f"{_GLANCE_NOTE} One core of {first['machine']['cpu']}, {first['date']}."
    return Table(columns, rows, caption, key="glance", texts=(0, 1))


def _moments(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return mean and width of the response, model over reference, as a card has them."""
    found = card.get("metrics", {}).get("figures", {}).get("moments", {})
    return {kind: found[kind]["response"] for kind in ("ratio", "width") if "response" in found.get(kind, {})}


def _auc(accuracy: Mapping[str, Any]) -> Cell:
    parts = {
        name: entry
        for name, entry in accuracy.items()
        if name.startswith("auc_") and entry.get("value") is not None
    }
    if not parts:
        return Cell("–")
    name = (
        "auc_strongest"
        if "auc_strongest" in parts
        else max(parts, key=lambda key: float(parts[key]["value"]))
    )
    entry = parts[name]
    floor = "" if entry.get("floor") is None else f" ({entry['floor']:.2f})"
    small = "" if name == "auc_strongest" else f"of {name.removeprefix('auc_').replace('_', ' ')} alone; "
    small += f"{entry['n_used']:,} showers" if entry.get("n_used") else ""
    text = f"{entry['value']:.3f}"
    return Cell(f"{text}{floor}", float(entry["value"]), title=str(entry.get("classifier", "")), small=small)


def _detectability(accuracy: Mapping[str, Any]) -> Cell:
    entry = accuracy.get("detectability", {})
    if entry.get("value") is None:
        limit = entry.get("lower_limit")
        return Cell("–" if limit is None else f"above {limit:,.0f}", limit)
    return Cell(format_count(entry["value"]), float(entry["value"]))


def _percent(entry: Mapping[str, Any] | None) -> Cell:
    if entry is None:
        return Cell("–")
    return Cell(format_percent(entry["value"], entry.get("uncertainty")), float(entry["value"]) - 1.0)


def _ms(value: float | None) -> Cell:
    return (
        Cell("–") if value is None else Cell(plain_number(value) if value < 1000 else f"{value:,.0f}", value)
    )


def _speedup(geant4: float | None, time: float | None) -> Cell:
    if geant4 is None or not time:
        return Cell("–")
    ratio = geant4 / time
    text = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return Cell(f"× {text}", ratio, "bad" if ratio < 1.0 else "", "slower than Geant4" if ratio < 1.0 else "")


def _speed_table(timings: Sequence[PaperTiming], benchmarks: Sequence[Mapping[str, Any]]) -> Table:
    """Return the papers' times and ours of the same kind of model and showers, by hardware."""
    first, rows = benchmarks[0], []
    for model in first["models"]:
        name = model["name"]
        papers = [
            one for one in timings if (one.model, one.detector) == (name.rpartition("/")[2], model["beam"])
        ]
        if not papers:
            continue
        lines: list[tuple[str, float, float | None, str]] = [
            (one.hardware, one.ms, one.geant4_ms, document(one.document)["reference"]) for one in papers
        ]
        geant4 = measured(first, name, "geant4")
        for content in benchmarks:
            for device in ("cpu", "cuda"):
                if (time := measured(content, name, device)) is not None:
                    machine = content["machine"]
                    place = machine["gpu"] if device == "cuda" else f"one core, {machine['cpu']}"
                    lines.append((place, time, geant4, "this benchmark"))
        for place, time, simulated, source in lines:
            rows.append(
                [
                    name.rpartition("/")[2],
                    beam_text(first["beams"][model["beam"]]),
                    source,
                    place,
                    _ms(time),
                    _ms(simulated),
                ]
            )
    columns = ("model", "showers", "by", "on", "ms a shower", "Geant4 of the same source, one core, ms")
    return Table(columns, rows, key="timings", texts=(0, 1, 2, 3))


def _beside(done: Done) -> list[Block]:
    """Return the table of a study's numbers beside the paper's: a row a quantity, a column a sample."""
    rows = [row for row in done.content["rows"] if row["sample"]]
    labels = list(dict.fromkeys(row["sample"] for row in rows))
    quantities = list(dict.fromkeys(row["quantity"] for row in done.published))
    lines: list[list[Cell | str | float]] = []
    for quantity in quantities:
        ours = {row["sample"]: row for row in rows if row["quantity"] == quantity}
        known = {row["paper"]["key"]: row["paper"] for row in ours.values() if row["paper"] is not None}
        numbers = [paper(key) for key in known]
        published = "; ".join(f"{one.text} ({one.note})" if len(numbers) > 1 else one.text for one in numbers)
        notes = "" if len(numbers) != 1 else numbers[0].note
        lines.append(
            [Cell(quantity), Cell(published, small=notes), *(_number(ours.get(label)) for label in labels)]
        )
    about = done.content["paper"]
    title = STUDIES[done.study].title
    head = Cell(title, href=f"{done.folder}/report.html")
    sample = document_sample(about)
    text = f"{title}: {about['reference']}{f', {sample}' if sample else ''}; ours in {done.detector}."
    lines.insert(0, [head, *[Cell("")] * (len(labels) + 1)])
    columns = ("", "published", *("reference, ours" if label == "reference" else label for label in labels))
    return [Table(columns, lines, text, texts=(0, 1), sortable=False)]


def document_sample(about: Mapping[str, Any]) -> str:
    """Return of what showers a paper's numbers are; empty where it is not known."""
    return str(about.get("sample", ""))


def _number(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("")
    cell = number_cell(row["ours"], row["uncertainty"], row["unit"])
    return Cell(
        cell.text,
        cell.sort,
        title=row["note"],
        small=cell.small or (row["note"] if row["ours"] is None else ""),
    )


def _pages(done: Sequence[Done]) -> Table:
    rows: list[list[Cell | str | float]] = []
    for one in done:
        study, content, facts = STUDIES[one.study], one.content, ("", "", "")
        cell = Cell(study.title, small=one.error, flag="bad")
        if not one.error:
            cell = Cell(study.title, href=f"{one.folder}/report.html", small=study.question)
            facts = (_used(content["showers"]), content["paper"]["reference"], content["date"])
        rows.append([cell, one.detector, ", ".join(one.models), *facts])
    columns = ("study", "detector", "models", "showers used", "paper", "date")
    return Table(columns, rows, texts=(0, 1, 2, 3, 4, 5))


def _used(showers: Mapping[str, int]) -> str:
    """Return how many showers of each sample a study used, those of one number together."""
    names: dict[int, list[str]] = {}
    for label, number in showers.items():
        names.setdefault(number, []).append(label.rpartition("/")[2])
    return "; ".join(f"{', '.join(labels)} {number:,}" for number, labels in names.items())
