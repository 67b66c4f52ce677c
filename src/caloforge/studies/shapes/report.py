"""The numbers of each generated sample beside the paper's, their tables and figures, and the time of a Geant4 shower.

On a CPU both sides are processor time, one core against one core; a GPU's time is the clock's. Geant4 is run on a few showers
of the reference's energies and angles; where it is not installed, cannot simulate the detector or finds no data, the
reference file's own ``cpu_seconds_per_shower`` is used instead, and the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from caloforge.errors import CaloforgeError
from caloforge.generate.timing import GeneratorTime
from caloforge.showers import ShowerSource
from caloforge.studies.base import Figure, Row
from caloforge.studies.drawing import Margins, legend, number_map, panels
from caloforge.studies.page import number_cell, paper_values, published_cell
from caloforge.units import AngleSpec, EnergySpec, plain_number
from caloforge.validate.metrics.base import jsonable
from caloforge.validate.observables import SPECTRUM_EDGES
from caloforge.validate.plots.draw import draw_panel
from caloforge.validate.plots.families import response
from caloforge.validate.plots.images import profiles
from caloforge.validate.plots.panel import INK, Curve, Panel, colour
from caloforge.validate.report.page import Cell, Table
from caloforge.validate.sample import Sample
from caloforge.validate.shape_tests import CoreRatios, CoreWindow, ShapeTests

__all__ = [
    "Shapes",
    "SimulationTime",
    "comparison_table",
    "core_figure",
    "mean_shapes_text",
    "probability_figure",
    "sample_figures",
    "sampling_table",
    "spectrum_panel",
    "summary_rows",
    "time_geant4",
]


_HIGH = 0.8  # the paper's "above 80 %"


@dataclass(frozen=True)
class SimulationTime:
    """Processor time of one Geant4 shower at the reference's mean energy, s (None where unknown), and how it was found."""

    seconds: float | None
    how: str
    same_run: bool = False  # Geant4 ran here and now


def time_geant4(reference: ShowerSource, n: int, seed: int = 0) -> SimulationTime:
    """Return Geant4's processor time of a shower, measured on ``n`` showers (0 for none), or else the reference's own.

    The cost of a shower is proportional to its energy, so that the few showers are scaled to the reference's mean.
    """
    why = "switched off"
    if n > 0:
        try:
            return _simulated(reference, n, seed)
        except (CaloforgeError, ImportError) as error:
            why = str(error).split(";")[0].split(":")[0]
    known = reference.attributes.get("cpu_seconds_per_shower")
    if known is None or reference.source != "geant4":
        return SimulationTime(None, f"Geant4 did not run ({why}) and the reference does not say its time")
    return SimulationTime(float(known), f"of the reference's own simulation; Geant4 did not run here ({why})")


def _simulated(reference: ShowerSource, n: int, seed: int) -> SimulationTime:
    from caloforge.simulate.run import simulate

    energy = np.asarray(reference.incident_energy, np.float64)
    theta = np.asarray(reference.incident_theta, np.float64)
    low, high = float(energy.min()), float(energy.max())
    showers = simulate(
        reference.detector,
        n,
        energy=EnergySpec(low, high, "uniform" if high > low else "fixed"),
        theta=AngleSpec(float(theta.min()), float(theta.max())),
        particle=reference.particle or None,
        engine="geant4",
        seed=seed,
    )
    seconds = float(showers.attributes["cpu_seconds_per_shower"])
    scale = float(energy.mean() / showers.incident_energy.mean())
    how = f"{n} showers in the same run, scaled to the reference's mean of {plain_number(energy.mean() / 1000)} GeV"
    return SimulationTime(seconds * scale, how, True)


@dataclass(frozen=True, eq=False)
class Shapes:
    """Everything about one generated sample; a file has no parameters, members and time."""

    label: str
    n: int
    parameters: int | None
    members: int | None
    time: GeneratorTime | None
    mse: Any  # shower-shape MSE, a value
    sampling: Any  # sampling fraction: ``reference``, ``generated``, ``ratio``; its detail has the energies
    core: CoreRatios
    tests: ShapeTests

    def speedup(self, geant4: SimulationTime) -> float | None:
        """Return Geant4's time of a shower over the generator's."""
        if self.time is None or geant4.seconds is None or self.time.cost_ms <= 0:
            return None
        return 1000.0 * geant4.seconds / self.time.cost_ms

    @property
    def energies(self) -> list[Mapping[str, Any]]:
        """Sampling fractions in bins of energy, as the metric gives them."""
        bins: list[Mapping[str, Any]] = self.sampling["ratio"].detail["bins"]
        return bins

    def high_probability(self, profiles: bool) -> tuple[float, float]:
        """Return median probability, and the part above 80 %, of the mean shapes or of the quantities."""
        n = self.tests.n_profiles
        p = self.tests.p[:n] if profiles else self.tests.p[n:]
        p = p[np.isfinite(p)]
        return (float(np.median(p)), float((p > _HIGH).mean())) if p.size else (np.nan, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        tests, core = self.tests, self.core
        return {
            "n": self.n,
            "parameters": self.parameters,
            "members": self.members,
            "time": None if self.time is None else asdict(self.time),
            "shape_mse": jsonable(self.mse),
            "sampling_fraction": jsonable(self.sampling),
            "core_cells": {
                "n": core.n,
                "mean_ratio": [core.mean, core.mean_error],
                "std_ratio": [core.std, core.std_error],
                "floor": list(core.floor),
            },
            "ks": {
                shape: {"p": tests.p[index], "statistic": tests.statistic[index]}
                for index, shape in enumerate(tests.shapes)
            },
        }


_PUBLISHED = {"conv3d-gan": "conv3d"}
"""Model to the paper's one of its kind; all others stand beside the Conv2D GAN."""
_COMPARED = {
    "generator's parameters": "parameters",
    "time a shower, one CPU core": "time",
    "time a shower, GPU": "time",
    "speed-up against Geant4 on one core, one CPU core": "speedup",
    "speed-up against Geant4 on one core, GPU": "speedup",
    "shower-shape MSE": "mse",
    "core cells, ratio of means": "mean_ratio",
    "core cells, ratio of standard deviations": "std_ratio",
}
"""Row to its name in ``papers.toml``, without the paper's generator."""


def summary_rows(
    found: Sequence[Shapes], geant4: SimulationTime, window: CoreWindow, reference: str
) -> list[Row]:
    """Return our numbers, beside those of the paper's Conv2D, for a Conv3D GAN of the Conv3D; times where a generator was timed."""
    rows = []
    if any(one.time is not None for one in found):
        rows.append(
            Row("Geant4, a shower", geant4.seconds, None, "shapes.geant4", "s", geant4.how, reference)
        )
    for one in found:
        rows += [*_speed_rows(one, geant4), *_quality_rows(one, window)]
    return rows


def _paper(one: Shapes, quantity: str) -> str:
    kind = _PUBLISHED.get(one.label.rpartition("/")[2], "conv2d")
    return f"shapes.{_COMPARED[quantity]}_{kind}"


def _speed_rows(one: Shapes, geant4: SimulationTime) -> list[Row]:
    if one.parameters is None:
        return []
    members = "" if one.members == 1 else f"each of {one.members} members"
    title = "generator's parameters"
    size = Row(title, one.parameters / 1e6, None, _paper(one, title), "million", members, one.label)
    if one.time is None:
        return [size]
    time, on_cpu, speedup = one.time, one.time.device == "cpu", one.speedup(geant4)
    clock = f"processor time, {plain_number(time.wall_ms)} ms by the clock" if on_cpu else "by the clock"
    sides = "processor time on both sides" if on_cpu else "a GPU against one core"
    place = "one CPU core" if on_cpu else "GPU"
    how = f"{clock}; batch {time.batch} on {time.device}, median of {time.repeats}"
    values = (
        (f"time a shower, {place}", time.cost_ms, time.cost_error, "ms", how),
        (
            f"speed-up against Geant4 on one core, {place}",
            speedup,
            None,
            "",
            geant4.how if speedup is None else sides,
        ),
    )
    # the paper's are a GPU's, which do not stand beside a CPU's
    return [size] + [
        Row(title, value, error, None if on_cpu else _paper(one, title), unit, note, one.label)
        for title, value, error, unit, note in values
    ]


def _quality_rows(one: Shapes, window: CoreWindow) -> list[Row]:
    row = partial(Row, sample=one.label)
    ratio, core, mse = one.sampling["ratio"], one.core, one.mse
    known = [entry for entry in one.energies if np.isfinite(entry["ratio"])]
    worst = max(known, key=lambda entry: abs(entry["ratio"] - 1), default=None)
    at = ""
    if worst is not None:
        at = f"worst: {100 * (worst['ratio'] - 1):+.2f} % at {plain_number(worst['energy'] / 1000)} GeV"
    halves = "" if mse.floor is None else f"halves of the reference: {mse.floor:.2g}"
    title = "shower-shape MSE"
    rows = [
        row(title, mse.value, mse.uncertainty, _paper(one, title), note=halves),
        row("sampling fraction over the reference's", ratio.value, ratio.uncertainty, note=at),
    ]
    for name, moment, floor in (("means", "mean", 0), ("standard deviations", "std", 1)):
        title = f"core cells, ratio of {name}"
        note = (
            f"{window.text}, {window.n} and {core.n} showers; halves of the reference {core.floor[floor]:.3f}"
        )
        value, error = getattr(core, moment), getattr(core, f"{moment}_error")
        rows.append(row(title, value, error, _paper(one, title), note=note))
    title, expected = (
        "median KS probability of quantities of each shower",
        "50 and 20 % expected of equal distributions",
    )
    median, high = one.high_probability(False)
    note = f"{100 * high:.0f} % above 80 %; {expected}" if np.isfinite(high) else "too few showers"
    rows.append(row(title, 100 * median, None, None, "%", note))
    return rows


def mean_shapes_text(found: Sequence[Shapes]) -> str:
    """Return what the paper's test gives; it hardly distinguishes samples, so it is no number of the page."""
    known = [one.high_probability(True)[0] for one in found]
    lowest = min((value for value in known if np.isfinite(value)), default=math.nan)
    if math.isnan(lowest):
        return "The paper's test of mean shapes has too few showers here."
    return (
        "The paper's test, Kolmogorov-Smirnov on the mean shape with one entry a shower (above 80 % for most shapes of its Conv2D), gives a "
        f"median of {100 * lowest:.0f} % or more for every sample here: means agree even where single showers do not. So the page "
        "compares the quantities of each shower."
    )


def comparison_table(rows: Sequence[Row], labels: Sequence[str], caption: str) -> Table:
    """Return the paper's table with a column of each of our samples, from the rows of :func:`summary_rows`."""
    known, lines = paper_values("shapes"), []
    for title, name in _COMPARED.items():
        ours = {row.sample: row for row in rows if row.quantity == title}
        if not ours:
            continue
        unit = next((f" [{row.unit}]" for row in ours.values() if row.unit), "")
        cells = [
            number_cell(ours[label].ours, ours[label].uncertainty) if label in ours else Cell("-")
            for label in labels
        ]
        papers = [published_cell(known.get(f"{name}_{kind}")) for kind in ("conv2d", "conv3d")]
        lines.append([Cell(title + unit), *cells, *papers])
    return Table(("", *labels, "Conv2D (paper, V100)", "Conv3D (paper, V100)"), lines, caption)


def sampling_table(found: Sequence[Shapes]) -> Table:
    """Return the sampling fraction in bins of energy."""
    rows = []
    for one in found:
        for entry in one.energies:
            energy = entry["energy"]
            text = "-" if energy is None else plain_number(energy / 1000, 4)
            numbers = [
                number_cell(entry[name], entry[f"{name}_uncertainty"])
                for name in ("reference", "generated", "ratio")
            ]
            counts = Cell(f"{entry['n_reference']} / {entry['n_generated']}")
            rows.append([Cell(one.label), Cell(text, sort=energy), counts, *numbers])
    return Table(("sample", "energy [GeV]", "showers", "reference", "generated", "model / reference"), rows)


_SHAPES = ("x_profile", "y_profile", "layer_energy", "radial_profile")


def sample_figures(samples: Sequence[Sample], spectrum: Panel, reference: str) -> list[Figure]:
    """Return mean shower shapes (along x, y, the layers, around the axis), response and cell energies."""
    shapes = {panel.name: panel for panel in profiles(samples)}
    means = "Mean over the showers; below, the ratio to the reference, whose error is the grey band; dotted lines: 5 %."
    panels = [(shapes[name], means) for name in _SHAPES if name in shapes]
    panels += [
        (panel, "Visible over incident energy; below, the ratio to the reference.")
        for panel in response(samples)
    ]
    panels.append((spectrum, "Number of cells against their energy; below, the ratio to the reference."))
    return [
        Figure(panel.name, panel.title, text, partial(draw_panel, _named(panel, reference)))
        for panel, text in panels
    ]


def _named(panel: Panel, reference: str) -> Panel:
    """Return a panel with another name of the reference."""
    return replace(panel, curves=(replace(panel.curves[0], label=reference), *panel.curves[1:]))


def spectrum_panel(samples: Sequence[Sample]) -> Panel:
    """Return the spectra of cell energies, cells a shower in each bin."""
    spectra = [sample.observables.histograms["cell_spectrum"] for sample in samples]
    filled = np.flatnonzero(spectra[0].counts > 0)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, len(SPECTRUM_EDGES) - 1)
    curves = tuple(
        Curve(role, sample.label, found.counts[first:last] / sample.n, found.errors[first:last] / sample.n)
        for role, (sample, found) in enumerate(zip(samples, spectra, strict=True))
    )
    edges = SPECTRUM_EDGES[first : last + 1]
    labels = ("Cell energies", "cell energy [MeV]", "cells a shower in a bin, mean")
    return Panel("cell_spectrum", *labels, edges, curves, log_x=True, log_y=True)


def core_figure(found: Sequence[CoreRatios], labels: Sequence[str], window: str, reference: str) -> Figure:
    """Return how the core cells' means and standard deviations are distributed, over the reference's."""

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, 1, 2, 4.6, 3.6, Margins(across=0.9), small=False)
        for place, name, title in zip(
            axes[0], ("cell_mean", "cell_std"), ("mean", "standard deviation"), strict=True
        ):
            values = [getattr(one, name)[np.isfinite(getattr(one, name))] for one in found]
            known = np.concatenate(values)
            if len(known) == 0:
                place.text(0.5, 0.5, "too few showers", ha="center", transform=place.transAxes)
                continue
            reach = max(0.1, float(np.quantile(np.abs(known - 1), 0.98)))
            edges = np.linspace(1 - reach, 1 + reach, 41)
            for role, value in enumerate(values, start=1):
                counts = np.histogram(np.clip(value, edges[0], edges[-1]), edges)[0]
                place.stairs(counts, edges, color=colour(role), lw=1.6)
            place.axvline(1.0, color=INK, lw=1.0, ls=":")
            place.set_xlim(edges[0], edges[-1])
            place.set_xlabel(f"{title} of a core cell, model / {reference}", fontsize=12)
        axes[0][0].set_ylabel("core cells in a bin")
        legend(figure, pyplot, labels, first=1)
        return figure

    caption = "One entry for each core cell; entries outside the range are added to the first and last bin."
    return Figure("core_cells", f"Core cells at {window}", caption, draw)


def probability_figure(
    found: Sequence[ShapeTests], labels: Sequence[str], energies: Sequence[float]
) -> Figure:
    """Return a map of Kolmogorov-Smirnov probabilities: shapes by energies (MeV), one map a sample."""

    def draw(pyplot: Any) -> Any:
        shapes = [shape.replace("_", " ") for shape in found[0].shapes]
        margins = Margins(left=2.1, bottom=0.8, top=0.7, across=0.3)
        size = (max(2.6, 0.55 * len(energies)), 0.32 * len(shapes))
        figure, axes = panels(pyplot, 1, len(found), *size, margins, sharey=True)
        names = [plain_number(energy / 1000) for energy in energies]
        for place, tests, label in zip(axes[0], found, labels, strict=True):
            number_map(place, 100 * tests.p, ".0f", shapes, names, cmap="Blues", vmin=0, vmax=140)
            place.axhline(tests.n_profiles - 0.5, color=INK, lw=1.2)
            place.set_title(label, fontsize=12, loc="left")
        figure.supxlabel("incident energy [GeV]", fontsize=12)
        return figure

    caption = (
        "Above the line mean shapes, one entry a shower; below it quantities of each shower, for which the probability of "
        "a perfect generator is uniform."
    )
    return Figure("ks_probability", "Kolmogorov-Smirnov probabilities [%]", caption, draw)
