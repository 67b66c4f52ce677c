"""Compare events with showers of a model with the same events simulated fully, and write a page.

    python compare.py RUNS -o PAGE

RUNS holds what ``application.py`` wrote, as KIND-full.h5 and KIND-VARIANT.h5 with their .npz; KIND is pi0, electron or photon. A variant with
fewer events is compared with the first ones of the full simulation. PAGE gets index.html, its figures inside, application.json with all
numbers, and separation.png.

Ratios and differences are of the same primary particles; their errors are standard deviations over 300 bootstrap samples of
events, drawn for both at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measure import RINGS, Run, photon_pairs, read_run
from numpy.typing import NDArray
from scipy.optimize import minimize

from caloforge.errors import CaloforgeError, InputError
from caloforge.files import write_json
from caloforge.random import generator
from caloforge.statistics.moments import central_width
from caloforge.studies.drawing import shower_image
from caloforge.validate.plots.draw import draw_panel
from caloforge.validate.plots.panel import Curve, Panel, figure_style
from caloforge.validate.report.page import (
    Code,
    Images,
    Page,
    Section,
    Table,
    Text,
    format_value,
    small_picture,
)

Array = NDArray[np.float64]
Numbers = dict[str, tuple[float, float]]

KINDS = {
    "pi0": "neutral pions, 20 to 60 GeV",
    "electron": "electrons, 10 to 100 GeV",
    "photon": "photons, 10 to 100 GeV",
}
NEAR = 50.0  # mm: within the models' grid on all sides
CORE = 10.0  # mm
BOTH = 10e3  # MeV: both photons of a pair are in the models' range
APART = 10.0  # mm
PAIRS = np.array([0.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 60.0])  # mm
SAMPLES = 300
LABELS = {
    "bib-ae-as-photon": "bib-ae, electrons as photons",
    "bib-ae-whole-cells": "bib-ae, nearest cell",
}
DPI = 72


def read_runs(folder: Path) -> dict[str, dict[str, Run]]:
    """Return the runs of each kind, the full simulation first.

    Raises:
        InputError: When there is no full simulation, or no variant.
    """
    runs: dict[str, dict[str, Run]] = {}
    for kind in KINDS:
        paths = {path.stem.removeprefix(f"{kind}-"): path for path in sorted(folder.glob(f"{kind}-*.h5"))}
        if "full" in paths and len(paths) > 1:
            names = sorted(paths, key=lambda name: (name != "full", name in LABELS, name))
            runs[kind] = {name: read_run(paths[name]) for name in names}
    if not runs:
        raise InputError(
            f"{folder}: no KIND-full.h5 with a KIND-VARIANT.h5 beside it; expected as KIND {', '.join(KINDS)}"
        )
    return runs


def paired(n: int, statistic: Callable[[NDArray[np.int64]], float]) -> tuple[float, float]:
    """Return a statistic of events 0 to n, and its bootstrap error; it is given the events' numbers."""
    random = generator(1, "compare")
    drawn = [statistic(random.integers(0, n, n)) for _ in range(SAMPLES)]
    return float(statistic(np.arange(n))), float(np.nanstd(drawn))


def ratio_of_means(above: Array, below: Array) -> tuple[float, float]:
    """Return the ratio of two means over the same events (N,)."""
    return paired(len(above), lambda rows: float(above[rows].mean() / below[rows].mean()))


def compare(full: Run, fast: Run) -> Numbers:
    """Return the figures of a variant, each with its error."""
    n = min(len(full), len(fast))
    energy = full.energy[:n]

    def resolution(values: Array, rows: NDArray[np.int64]) -> float:
        half, middle = central_width(values[rows] / energy[rows])
        return float(half / middle)

    def within(run: Run, reach: float) -> Array:
        total: Array = run.rings[:n, RINGS[1:] <= reach].sum(axis=1)
        return total

    a, b = full.visible[:n], fast.visible[:n]
    found: Numbers = {
        "full, s": mean_error(full.seconds[:n]),
        "fast, s": mean_error(fast.seconds[:n]),
        "in the model, s": mean_error(fast.columns["model_seconds"][:n]),
        "quicker by": ratio_of_means(full.seconds[:n], fast.seconds[:n]),
        "visible energy": ratio_of_means(b, a),
        f"within {NEAR:g} mm": ratio_of_means(within(fast, NEAR), within(full, NEAR)),
        f"within {CORE:g} mm": ratio_of_means(within(fast, CORE), within(full, CORE)),
        "resolution, full": paired(n, lambda rows: resolution(a, rows)),
        "resolution, fast": paired(n, lambda rows: resolution(b, rows)),
        "hits": ratio_of_means(fast.hits[:n], full.hits[:n]),
        "largest cell": ratio_of_means(fast.largest[:n], full.largest[:n]),
        "depth": paired(n, lambda rows: float((fast.depth[rows] - full.depth[rows]).mean())),
    }
    for name, run in (("full", full), ("fast", fast)):
        offset = run.offset[:n]
        found[f"position, {name}"] = paired(n, lambda rows, o=offset: float(np.sqrt((o[rows] ** 2).mean())))  # type: ignore[misc]
        found[f"several showers, {name}"] = share(run.showers[:n] > 1)
    return found


def mean_error(values: Array) -> tuple[float, float]:
    """Return the mean of values (N,) and its error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def share(which: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the share of events (N,), and the standard deviation of its posterior for a flat prior; NaN for no events."""
    n, k = len(which), int(which.sum())
    if n == 0:
        return np.nan, np.nan
    p = (k + 1) / (n + 2)
    return k / n, float(np.sqrt(p * (1 - p) / (n + 3)))


def half_distance(distance: Array, resolved: NDArray[np.bool_]) -> float:
    """Return the distance at which half of the pairs are resolved, mm: logistic curve of largest likelihood."""

    def loss(p: Array) -> float:
        margin = (distance - p[0]) / np.exp(p[1])
        return float(np.logaddexp(0.0, np.where(resolved, -margin, margin)).sum())

    return float(minimize(loss, np.array([10.0, 0.5]), method="Nelder-Mead").x[0])


def separation(runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
    """Return for each run of pions the resolved pairs: by distance, all and those with both photons in range."""
    out: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        number, distance, smaller = photon_pairs(run)
        resolved = run.showers[number] > 1
        out[name] = {}
        for which, chosen in (("all", smaller > 0), ("both in range", smaller >= BOTH)):
            d, r = distance[chosen], resolved[chosen]
            bins = [share(r[(d >= low) & (d < high)]) for low, high in pairwise(PAIRS)]
            out[name][which] = {"pairs": len(d), "share": np.array(bins), "resolved": share(r)}
            if which != "all":  # beyond 20 mm the pairs of all are asymmetric, and the curve falls again
                half = paired(len(d), lambda rows, d=d, r=r: half_distance(d[rows], r[rows]))  # type: ignore[misc]
                out[name][which]["half"] = half
    return out


def profile(kind: str, runs: dict[str, Run], what: str) -> Panel:
    """Return the mean profile of a kind of events: over the layers, or density by distance from the axis."""
    curves = []
    area = np.pi * np.diff(RINGS**2)
    for role, (name, run) in enumerate(chosen_variants(runs)):
        values = run.layers if what == "layers" else run.rings / area
        values = values / run.energy[:, None] * 1e3
        error = values.std(axis=0, ddof=1) / np.sqrt(len(run))
        curves.append(Curve(role, LABELS.get(name, name), values.mean(axis=0), error))
    if what == "layers":
        edges, label, unit = np.arange(31.0) - 0.5, "layer", "energy of a layer / incident, mean [MeV/GeV]"
    else:
        edges, label, unit = RINGS, "distance from the axis [mm]", "energy / incident, mean [MeV/GeV/mm²]"
    return Panel(f"{kind}-{what}", KINDS[kind], label, unit, edges, tuple(curves), log_y=what != "layers")


def chosen_variants(runs: dict[str, Run]) -> list[tuple[str, Run]]:
    """Return the runs whose profiles are drawn."""
    return [(name, run) for name, run in runs.items() if name != "bib-ae-whole-cells"]


def response(kind: str, runs: dict[str, Run]) -> Panel:
    """Return the distribution of visible over incident energy."""
    edges = np.linspace(0.012, 0.030, 25)
    curves = []
    for role, (name, run) in enumerate(chosen_variants(runs)):
        counts = np.histogram(run.visible / run.energy, edges)[0].astype(np.float64)
        curves.append(Curve(role, LABELS.get(name, name), counts / len(run), np.sqrt(counts) / len(run)))
    label = "visible over incident energy"
    return Panel(f"{kind}-response", KINDS[kind], label, "fraction of events in a bin", edges, tuple(curves))


def separation_panel(found: dict[str, dict[str, Any]], which: str) -> Panel:
    """Return the share of resolved pairs against the distance of the photons."""
    curves = []
    for role, (name, entry) in enumerate(found.items()):
        values = entry[which]["share"]
        curves.append(Curve(role, LABELS.get(name, name), values[:, 0], values[:, 1]))
    title = "photon pairs" if which == "all" else "photon pairs, both above 10 GeV"
    return Panel(
        f"separation-{which}",
        title,
        "distance of the photons at the face [mm]",
        "fraction of the pairs resolved",
        PAIRS,
        tuple(curves),
        points=True,
    )


def picture(figure: Any, pyplot: Any) -> bytes:
    """Return a figure as PNG."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    pyplot.close(figure)
    return out.getvalue()


def images(runs: dict[str, Run], pyplot: Any) -> Any:
    """Return a figure of the first pairs of photons in range that are ``APART``, full and fast; of the first pions, were there none."""
    number, distance, smaller = photon_pairs(runs["full"])
    wanted = number[(distance > APART) & (smaller >= BOTH) & (number < len(runs["full"].images))]
    events = [*wanted, *np.arange(4)][:4]
    shown = [(name, run) for name, run in runs.items() if name in ("full", "bib-ae")]
    figure, axes = pyplot.subplots(
        len(shown), 4, figsize=(14, 3.7 * len(shown)), layout="constrained", squeeze=False
    )
    top = max(float(run.images.max()) for _, run in shown)
    for row, (name, run) in zip(axes, shown, strict=True):
        for place, event in zip(row, events, strict=True):
            at = distance[number == event]
            apart = f", {at[0]:.0f} mm" if len(at) else ""
            title = f"{name}, event {event}, {run.energy[event] / 1e3:.0f} GeV{apart}"
            shower_image(place, run.images[event, 24:56, 24:56], top, title)
    return figure


def text(value: tuple[float, float], scale: float = 1.0, unit: str = "") -> str:
    """Return a number with its error."""
    return format_value(scale * value[0], scale * value[1]) + unit


def percent(value: tuple[float, float]) -> str:
    """Return a ratio as a deviation from 1 in per cent."""
    return f"{'+' if value[0] >= 1 else ''}{format_value(100 * (value[0] - 1), 100 * value[1])} %"


def tables(
    runs: dict[str, dict[str, Run]], numbers: dict[str, dict[str, Numbers]]
) -> tuple[Table, Table, Table]:
    """Return the tables of times, of what entered, and of energies and shapes."""
    times, entered, physics = [], [], []
    for kind, variants in numbers.items():
        for name, found in variants.items():
            run, label = runs[kind][name], LABELS.get(name, name)
            columns = run.columns
            replaced, energy = columns["face_replaced"], columns["face_energy"]
            first = [kind, label]
            keys = ("full, s", "fast, s", "in the model, s", "quicker by")
            times.append([*first, str(len(run)), *(text(found[key]) for key in keys)])
            entered.append([
                *first, str(len(energy)), str(int(replaced.sum())), str(int(columns["batches"].sum())),
                f"{100 * energy[~replaced].sum() / energy.sum():.1f} %",
                f"{100 * columns['outside'].sum() / run.visible.sum():.3f} %",
            ])  # fmt: skip
            ratios = ("visible energy", f"within {NEAR:g} mm", f"within {CORE:g} mm", "hits", "largest cell")
            physics.append([
                *first, *(percent(found[key]) for key in ratios),
                f"{text(found['resolution, full'], 100)} → {text(found['resolution, fast'], 100)}",
                text(found["depth"]),
                f"{text(found['position, full'])} → {text(found['position, fast'])}",
                f"{text(found['several showers, full'], 100)} → {text(found['several showers, fast'], 100)}",
            ])  # fmt: skip
    return (
        Table(("events", "showers by", "n", "full, s", "fast, s", "of it in the model, s", "full over fast"), times, texts=(0, 1)),
        Table(
            ("events", "showers by", "particles at the face", "replaced", "batches", "energy left to Geant4", "visible energy beside the cells"),
            entered,
            texts=(0, 1),
        ),
        Table(
            ("events", "showers by", "visible energy", f"within {NEAR:g} mm", f"within {CORE:g} mm", "hits", "largest cell",
             "width of the response, %", "depth, X0", "position, mm", "several showers seen, %"),
            physics,
            texts=(0, 1),
        ),
    )  # fmt: skip


def write_page(runs: dict[str, dict[str, Run]], folder: Path) -> Path:
    """Measure, draw and write everything; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        kind: {name: compare(group["full"], run) for name, run in group.items() if name != "full"}
        for kind, group in runs.items()
    }
    found = separation(runs["pi0"]) if "pi0" in runs else {}
    time_table, entry_table, physics_table = tables(runs, numbers)
    pictures: dict[str, list[Images]] = {}
    with figure_style() as pyplot:
        for kind, group in runs.items():
            panels = [response(kind, group), profile(kind, group, "layers"), profile(kind, group, "rings")]
            pictures[kind] = [
                Images({"": small_picture(picture(draw_panel(p, pyplot), pyplot), 32)}, wide=False)
                for p in panels
            ]
        pairs = []
        for which in ("all", "both in range") if found else ():
            png = picture(draw_panel(separation_panel(found, which), pyplot), pyplot)
            pairs.append(Images({"": small_picture(png, 32)}, wide=False))
            if which == "all":
                (folder / "separation.png").write_bytes(png)
        if found:
            png = picture(images(runs["pi0"], pyplot), pyplot)
            pairs.append(Images({"": small_picture(png, 32)}, IMAGE_TEXT))
    halves = [
        [
            LABELS.get(name, name),
            *(str(entry["all"]["pairs"]), text(entry["all"]["resolved"], 100, " %")),
            *(str(entry["both in range"]["pairs"]), text(entry["both in range"]["resolved"], 100, " %")),
            text(entry["both in range"]["half"], unit=" mm"),
        ]
        for name, entry in found.items()
    ]
    columns = ("showers by", "pairs", "resolved", "both above 10 GeV", "resolved", "half resolved at")
    here = Path(__file__).parent
    sections = [
        Section("Processor time", [time_table, entry_table], TIME_TEXT),
        Section(
            "Energies and shapes",
            [physics_table, *(block for kind in pictures.values() for block in kind)],
            SHAPE_TEXT,
        ),
        Section("Two photons", [Table(columns, halves), *pairs], PAIR_TEXT),
        Section("Commands", [Text(COMMAND_TEXT), Code((here / "make_page.sh").read_text())]),
    ]
    write_json(folder / "application.json", {"numbers": numbers, "separation": found, "edges_mm": PAIRS})
    subtitle = "Photons and electrons that enter a calorimeter of ILD, replaced by showers of a shipped model"
    facts = {kind: f"{len(group['full'])} events" for kind, group in runs.items()}
    return Page("A Geant4 application", sections, subtitle, facts).write(folder / "index.html", force=True)


TIME_TEXT = (
    "Processor time of an event on one core of a shared machine, mean and error; both of the same primary particles. Full: Geant4 alone."
    " Fast: Geant4 for what the model does not cover, the model in one batch an event, and adding up the cells."
)
SHAPE_TEXT = (
    f"Deviations of the means from the full simulation of the same primary particles. Within {NEAR:g} mm of the axis both have cells;"
    " beyond, the model's own grid ends. Width of the response: half the central 68.3 % of visible over incident energy, over the median."
    " Depth: difference of the energy-weighted mean. Position: root mean square of the centre of gravity's distance from the axis,"
    " a coordinate, full → fast. Several showers seen: by the finder of the next section."
)
PAIR_TEXT = (
    "Pions whose two photons have 99 % of the energy at the face. Resolved: at least two peaks in the image along the pion's axis with a"
    " valley below 0.8 of the lower one, each above 1.5 % of the energy. Photons below 10 GeV stay with Geant4 in the fast mode. Beyond 20 mm"
    " pairs are asymmetric and the softer photon often falls below the finder's threshold. Half resolved: a logistic curve of largest"
    " likelihood, for pairs of which both photons are in the model's range."
)
IMAGE_TEXT = (
    "Cells summed along the pion's axis, 160 x 160 mm, logarithmic over five decades: the first pairs of photons that are both above 10 GeV"
    " and more than 10 mm apart."
)
COMMAND_TEXT = "Everything on this page, from an empty folder; FOLDER is where the runs go:"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of the application's files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the page")
    options = parser.parse_args(arguments)
    try:
        path = write_page(read_runs(options.runs), options.output)
    except CaloforgeError as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
