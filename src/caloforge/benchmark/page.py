"""The result of a benchmark for people: the figure of time against accuracy, the page, and the speed table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, panel_row
from caloforge.studies.page import draw_figures, number_cell
from caloforge.studies.site.speed import beam_text
from caloforge.validate.plots.panel import INK, colour
from caloforge.validate.report.page import Block, Cell, Code, Facts, Page, Section, Table, Text

__all__ = [
    "cost",
    "headline",
    "speed_lines",
    "speed_rows",
    "speed_section",
    "strongest",
    "where_of",
    "write_page",
]


def cost(entry: Mapping[str, Any], where: str = "memory") -> tuple[float, float | None] | None:
    """Return the time of a shower and its uncertainty, ms: of the processor on a CPU, of the clock on a GPU.

    Arguments:
        entry: A measurement.
        where: ``memory`` or ``file``.
    """
    times = entry.get(where)
    if times is None:
        return None
    clock = "wall" if entry.get("device") == "cuda" else "cpu"
    return times[f"{clock}_ms"], times[f"{clock}_uncertainty"]


def headline(measurements: Sequence[Mapping[str, Any]]) -> int | None:
    """Return which measurement stands for a model: one thread of a CPU and 100 showers at once, or the nearest to that."""
    known = [index for index, entry in enumerate(measurements) if "memory" in entry]

    def distance(index: int) -> tuple[bool, int, int]:
        entry = measurements[index]
        return entry["device"] != "cpu", entry["threads"], abs(entry["batch"] - 100)

    return min(known, key=distance, default=None)


def strongest(model: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return name and figure of the AUC of the strongest classifier: the card's, or where it has none the largest of its AUC."""
    known = model["accuracy"]
    if "auc_strongest" in known:
        return "auc_strongest", known["auc_strongest"]
    parts = [
        (name, entry)
        for name, entry in known.items()
        if name.startswith("auc_") and entry.get("value") is not None
    ]
    return max(parts, key=lambda part: float(part[1]["value"]), default=None)


def speed_rows(content: Mapping[str, Any], compact: bool = False) -> list[list[str]]:
    """Return the speed table: its columns, then a row for each model; ``compact``: with fewer columns."""
    batches = content["settings"]["batch"]
    names = ["model", *(f"batch {batch:,}" for batch in batches), "Geant4", "Geant4 / model"]
    names += [] if compact else ["gflash", "to file / memory", "bytes a shower"]
    rows = [[*names, "first shower", "peak memory", "AUC"]]
    for model in content["models"]:
        place, beam = _headline(model), content["beams"][model["beam"]]
        if place is None:
            continue
        series = {e["batch"]: e for e in model["measurements"] if _series(e) == _series(place)}
        cells = [model["name"], *(_ms(cost(series.get(batch, {}))) for batch in batches)]
        cells += [_ms(_simulated(beam, "geant4")), _ratio(beam, "geant4", place)]
        more = [_ms(_simulated(beam, "gflash")), _file_ratio(place), f"{place['bytes_per_shower']:,.0f}"]
        rows.append(
            [*cells, *([] if compact else more), _first(series), f"{place['peak_mb']:.0f} MB", _auc(model)]
        )
    return rows


def speed_lines(content: Mapping[str, Any], compact: bool = False) -> list[str]:
    """Return the speed table in Markdown, see :func:`speed_rows`."""
    columns, *rows = speed_rows(content, compact)
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " --- |" * (len(columns) - 1)]
    return [*lines, *("| " + " | ".join([f"`{name}`", *cells]) + " |" for name, *cells in rows)]


def speed_section(content: Mapping[str, Any], compact: bool = False) -> str:
    """Return the speed table in Markdown with what it means and the command; ``compact``: without a heading, fewer columns."""
    machine, place = (
        content["machine"],
        "the GPU" if content["settings"]["devices"] == ["cuda"] else "one core",
    )
    note = (
        f"Milliseconds a shower on {place} of {machine['gpu'] or machine['cpu']} (processor time on a CPU), {content['date']}; Geant4 and the "
        "models of a detector with the same energies and angles, in the same run. AUC: the strongest classifier's, from the card."
    )
    more = (
        " The first shower counts from the loading of the weights; memory is the peak above that after the imports, with 100 showers at "
        "once; bytes are those of a file of 100, with what it says of the showers that the model has seen."
    )
    heading = [] if compact else ["## Speed", ""]
    more += "".join(f" {one[0].upper()}{one[1:]}." for one in content["notes"])
    text = f"`{content['command']}`: " + note[0].lower() + note[1:] + ("" if compact else more)
    return "\n".join([*heading, text, "", *speed_lines(content, compact)]) + "\n"


def write_page(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``report.html`` and ``figures`` into a folder; return the page's path."""
    figures = [_pareto(content)] if any(_headline(model) for model in content["models"]) else []
    images = draw_figures(figures, folder / "figures")
    machine, settings = content["machine"], content["settings"]
    summary: list[Block] = [_summary(content)]
    sections = [
        Section("Time and accuracy", [*images, *summary], _INTRO),
        Section("Geant4 and gflash", [_simulations(content)]),
        Section("Every measurement", [_all(content)]),
    ]
    if content["notes"]:
        sections.append(
            Section("What was not measured, or otherwise", [Text(note) for note in content["notes"]])
        )
    facts = {
        key: str(value)
        for key, value in {**machine, "commit": content["commit"]}.items()
        if value is not None
    }
    blocks: list[Block] = [Code(content["command"]), Facts(facts, "machine and versions")]
    blocks.append(Facts({key: _plain(value) for key, value in settings.items()}, "settings"))
    sections.append(Section("Provenance", blocks))
    short = {
        "models": str(len(content["models"])),
        "machine": machine["gpu"] or machine["cpu"],
        "date": content["date"],
    }
    title = "A shower's time beside its accuracy"
    return Page("Benchmark", sections, title, short).write(folder / "report.html", force=True)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_INTRO = (
    "Times are of one shower: processor time on a CPU, the time of the clock on a GPU; medians over repeats, ± half of their central "
    "68 %. Geant4, gflash and the models of a detector have the same energies and angles. Accuracy is the card's, on sealed showers."
)


def _headline(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (
        None if model["headline"] is None else model["measurements"][model["headline"]]
    )
    return found


def _series(entry: Mapping[str, Any]) -> tuple[str, int]:
    return entry["device"], entry["threads"]


def _simulated(beam: Mapping[str, Any], engine: str) -> tuple[float, float | None] | None:
    """Return Geant4's or gflash's processor time of a shower, ms."""
    entry = beam.get(engine)
    return None if entry is None else cost(entry if "memory" in entry else {"memory": entry})


def _ms(value: tuple[float, float | None] | None) -> str:
    return "–" if value is None else f"{value[0]:.3g} ms" if value[0] < 1000 else f"{value[0]:,.0f} ms"


def _ratio(beam: Mapping[str, Any], engine: str, place: Mapping[str, Any]) -> str:
    """Return how much longer a simulation takes than a model."""
    theirs, ours = _simulated(beam, engine), cost(place)
    if theirs is None or ours is None or not ours[0]:
        return "–"
    ratio = theirs[0] / ours[0]
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _file_ratio(place: Mapping[str, Any]) -> str:
    memory, file = cost(place), cost(place, "file")
    return "–" if memory is None or file is None or not memory[0] else f"{file[0] / memory[0]:.2f}"


def _first(series: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the time from loading to the first shower: of the processor on one thread, of the clock otherwise."""
    entry = series.get(1, {})
    if "first_call" not in entry:
        return "–"
    clock = "cpu" if (entry["device"], entry["threads"]) == ("cpu", 1) else "wall"
    seconds = entry["first_call"]["from_loading"][f"{clock}_ms"] / 1e3
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _auc(model: Mapping[str, Any]) -> str:
    found = strongest(model)
    return "–" if found is None else f"{found[1]['value']:.3f}" + _of(found[0])


def _of(name: str) -> str:
    """Return of what an AUC is, where the card has none of the strongest classifier."""
    return "" if name == "auc_strongest" else f" ({name.removeprefix('auc_').replace('_', ' ')})"


def _cell(value: tuple[float, float | None] | None) -> Cell:
    return Cell("–") if value is None else number_cell(value[0], value[1])


def _accuracy(model: Mapping[str, Any], name: str) -> Cell:
    entry = model["accuracy"].get(name, {})
    if entry.get("value") is None:
        limit = entry.get("lower_limit")
        return Cell("–" if limit is None else f"above {limit:,.0f}")
    if name == "detectability":
        return Cell(f"{entry['value']:,.0f}", float(entry["value"]))
    floor = "" if entry.get("floor") is None else f"two samples of Geant4: {entry['floor']:.3f}"
    return Cell(
        number_cell(entry["value"], entry.get("uncertainty")).text, float(entry["value"]), title=floor
    )


def _summary(content: Mapping[str, Any]) -> Table:
    """Return the models' times and accuracies, one a row."""
    columns = (
        "model", "measured on", "ms a shower", "Geant4, ms", "Geant4 / model", "gflash, ms", "AUC, cells", "AUC, observables",
        "AUC, cell spectrum", "showers to 5 sigma", "weights", "first shower, s", "peak memory, MB", "to file / memory", "bytes",
    )  # fmt: skip
    rows: list[list[Cell | str | float]] = []
    for model in content["models"]:
        place, beam = _headline(model), content["beams"][model["beam"]]
        if place is None:
            rows.append([model["name"], "not measured", *[Cell("–")] * (len(columns) - 2)])
            continue
        series = {e["batch"]: e for e in model["measurements"] if _series(e) == _series(place)}
        accuracies = [_accuracy(model, f"auc_{part}") for part in ("cells", "observables", "spectrum")]
        rows.append([
            model["name"], where_of(place), _cell(cost(place)), _cell(_simulated(beam, "geant4")), _ratio(beam, "geant4", place),
            _cell(_simulated(beam, "gflash")), *accuracies, _accuracy(model, "detectability"), Cell(f"{model['parameters']:,}"),
            _first(series).removesuffix(" s"), f"{place['peak_mb']:.0f}", _file_ratio(place), f"{place['bytes_per_shower']:,.0f}",
        ])  # fmt: skip
    return Table(columns, rows, key="summary", texts=(0, 1))


def where_of(entry: Mapping[str, Any]) -> str:
    """Return device, threads and batch of a measurement in words."""
    threads = (
        ""
        if entry["device"] == "cuda"
        else f", {entry['threads']} thread{'s' if entry['threads'] > 1 else ''}"
    )
    return f"{'GPU' if entry['device'] == 'cuda' else 'CPU'}{threads}, batch {entry['batch']:,}"


def _simulations(content: Mapping[str, Any]) -> Table:
    columns = ("detector", "particle", "energy", "angle", "by", "ms a shower", "showers", "from")
    rows = [
        [
            name, beam["particle"], beam["energy"], f"{beam['theta']}°", engine, _cell(_simulated(beam, engine)),
            f"{beam[engine]['showers']:,}", beam[engine]["origin"],
        ]
        for name, beam in content["beams"].items()
        for engine in ("geant4", "gflash")
        if beam.get(engine)
    ]  # fmt: skip
    caption = "Processor time on one core. Geant4's is that of the showers alone, without its start."
    return Table(columns, rows, caption, texts=(0, 1, 2, 3, 4, 7))


def _all(content: Mapping[str, Any]) -> Table:
    columns = (
        "model", "measured on", "showers a call", "repeats", "processor, ms", "clock, ms", "to file: processor, ms", "clock, ms",
        "peak memory, MB", "to file, MB",
    )  # fmt: skip
    rows: list[list[Cell | str | float]] = []
    for model in content["models"]:
        for entry in model["measurements"]:
            if "memory" not in entry:
                rows.append(
                    [model["name"], where_of(entry), entry["skipped"], *[Cell("")] * (len(columns) - 3)]
                )
                continue
            memory, file = entry["memory"], entry["file"]
            pairs = [
                (part[f"{clock}_ms"], part[f"{clock}_uncertainty"])
                for part in (memory, file)
                for clock in ("cpu", "wall")
            ]
            peaks = [f"{entry[name]:.0f}" for name in ("peak_mb", "peak_file_mb")]
            rows.append(
                [
                    model["name"],
                    where_of(entry),
                    f"{entry['showers']:,}",
                    memory["repeats"],
                    *map(_cell, pairs),
                    *peaks,
                ]
            )
    return Table(columns, rows, key="measurements", texts=(0, 1))


def _pareto(content: Mapping[str, Any]) -> Figure:
    caption = (
        "Time of a shower against the AUC of the strongest of several classifiers (0.5: none can distinguish it from Geant4): lower and further left "
        "is better. Filled: the measurement of the table; open: other batches, threads and devices. Solid line: Geant4; dotted: gflash."
    )
    return Figure("pareto", "Time and accuracy", caption, lambda pyplot: _draw(content, pyplot))


def _draw(content: Mapping[str, Any], pyplot: Any) -> Any:
    """Draw a panel for each detector."""
    margins = Margins(left=0.8, right=0.3, bottom=0.7, top=0.65, across=0.35, down=0.85)
    count = len(content["beams"])
    size: dict[str, Any] = {"columns": 3, "width": 4.2, "height": 3.3, "margins": margins, "small": False}
    figure, places = panel_row(pyplot, count, **size, sharex=True, sharey=True)
    kinds = list(dict.fromkeys(model["name"].rpartition("/")[2] for model in content["models"]))
    drawn: dict[str, list[Any]] = {name: [] for name in content["beams"]}
    for place, (name, beam) in zip(places, content["beams"].items(), strict=True):
        place.set_xscale("log")
        place.axhline(0.5, color=INK, lw=0.6, alpha=0.5)
        for engine, style in (("geant4", "-"), ("gflash", ":")):
            value = _simulated(beam, engine)
            if value is not None:
                place.axvline(value[0], color=INK, ls=style, lw=1.4)
        for model in content["models"]:
            if model["beam"] == name:
                kind = kinds.index(model["name"].rpartition("/")[2])
                drawn[name].append(_draw_model(place, model, (kind + 1) % 7))  # six colours, then ink
        place.set_title(beam_text(beam), fontsize=12, loc="left")
        place.set_ylim(0.45, 1.04)
        place.tick_params(labelbottom=True)
    for number, (place, names) in enumerate(zip(places, drawn.values(), strict=True)):
        _name_models(place, [one for one in names if one is not None])
        if number % 3 == 0 or count == 4:
            place.set_ylabel("AUC, strongest classifier", fontsize=13)
        place.set_xlabel("time of a shower [ms]", fontsize=13)
    handles = [
        pyplot.Line2D([], [], color=INK, lw=1.4), pyplot.Line2D([], [], color=INK, ls=":", lw=1.4),
        pyplot.Line2D([], [], color=INK, marker="o", ls="none"),
        pyplot.Line2D([], [], color=INK, marker="o", mfc="w", ls="none"),
    ]  # fmt: skip
    labels = ["Geant4", "gflash", "model", "other batch or threads"]
    if any(entry["device"] == "cuda" for model in content["models"] for entry in model["measurements"]):
        handles.append(pyplot.Line2D([], [], color=INK, marker="s", mfc="w", ls="none"))
        labels.append("GPU")
    figure.legend(
        handles,
        labels,
        loc="upper right",
        ncols=len(labels) if count > 1 else 2,
        fontsize=11,
        borderaxespad=0.2,
    )
    return figure


def _draw_model(
    place: Any, model: Mapping[str, Any], role: int
) -> tuple[float, float, float, str, str] | None:
    """Draw all measurements of a model at its AUC, that of the table filled; return its least and largest time, AUC, name and colour."""
    found, main = strongest(model), _headline(model)
    if found is None or main is None:
        return None
    auc, shade = float(found[1]["value"]), colour(role)
    times = [(cost(entry), entry) for entry in model["measurements"] if "memory" in entry]
    known = [(time[0], entry) for time, entry in times if time is not None]
    place.plot([min(t for t, _ in known), max(t for t, _ in known)], [auc, auc], color=shade, lw=1)
    for time, entry in known:
        filled = entry is main
        place.plot(
            time,
            auc,
            "s" if entry["device"] == "cuda" else "o",
            color=shade,
            mfc=shade if filled else "w",
            ms=8 if filled else 5.5,
            zorder=4 if filled else 3,
        )
        if filled:
            place.errorbar(time, auc, found[1].get("uncertainty") or 0.0, color=shade, lw=1.2, zorder=2)
    return min(t for t, _ in known), max(t for t, _ in known), auc, model["name"].rpartition("/")[2], shade


def _name_models(place: Any, names: Sequence[tuple[float, float, float, str, str]]) -> None:
    """Write the names beside the points: to their right, or to their left in the right half of the panel; lower where another one is as high."""
    low, high = place.get_xlim()
    names = sorted(names)
    for number, (first, last, auc, name, shade) in enumerate(names):
        lower = -14 * sum(abs(auc - other[2]) < 0.02 for other in names[:number])
        left = first * last > low * high
        at, shift, side = (first, -8, "right") if left else (last, 8, "left")
        style = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 10, "color": shade}
        ground = {"fc": "w", "ec": "none", "pad": 0.6}  # over the lines of Geant4 and gflash
        place.annotate(name, (at, auc), (shift, lower), bbox=ground, **style)
