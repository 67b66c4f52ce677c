"""Figures of the study, and how long a shower takes.

How long a shower takes: a generator here and now, Geant4 in the same run where it can, and their ratio.

A generator is timed through its public call, so that its noise, its inverse transform and the copy of the cells count. On a
CPU both sides are given in processor time, one core against one core; a GPU's time is the clock's. Geant4 is run
on a few showers of the reference's energies and angles; where it is not installed, cannot simulate the detector or
finds no data, the reference file's own ``cpu_seconds_per_shower`` stands in, and the result says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caloforge.errors import CaloforgeError
from caloforge.showers import ShowerSource
from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, legend, panels
from caloforge.units import AngleSpec, EnergySpec
from caloforge.validate.observables import SPECTRUM_EDGES
from caloforge.validate.plots.draw import draw_panel
from caloforge.validate.plots.images import profiles
from caloforge.validate.plots.panel import INK, Curve, Panel, colour
from caloforge.validate.sample import Sample
from caloforge.validate.shape_tests import CoreRatios, ShapeTests

__all__ = [
    "SimulationTime",
    "core_figure",
    "panel_figure",
    "probability_figure",
    "shape_figures",
    "spectrum_panel",
    "time_geant4",
]


_SHAPES = ("x_profile", "y_profile", "layer_energy", "radial_profile")


def panel_figure(panel: Panel, caption: str) -> Figure:
    """Return a panel of curves with their ratio as a figure of a study."""

    def draw(pyplot: Any) -> Any:
        return draw_panel(panel, pyplot)

    return Figure(panel.name, panel.title, caption, draw)


def shape_figures(samples: Sequence[Sample]) -> list[Figure]:
    """Return the mean shower shapes: energy along x, y, the layers, and around the axis."""
    found = {panel.name: panel for panel in profiles(samples)}
    caption = "Mean over the showers; below, the ratio to the reference, whose own error is the grey band."
    return [panel_figure(found[name], caption) for name in _SHAPES if name in found]


def spectrum_panel(samples: Sequence[Sample]) -> Panel:
    """Return the spectra of cell energies, cells a shower in each bin."""
    curves = []
    for role, sample in enumerate(samples):
        spectrum = sample.observables.histograms["cell_spectrum"]
        curves.append(Curve(role, sample.label, spectrum.counts / sample.n, spectrum.errors / sample.n))
    filled = np.flatnonzero(curves[0].y > 0)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, len(SPECTRUM_EDGES) - 1)
    shown = tuple(
        Curve(curve.role, curve.label, curve.y[first:last], curve.error[first:last]) for curve in curves
    )
    edges = SPECTRUM_EDGES[first : last + 1]
    return Panel(
        "cell_spectrum",
        "Cell energies",
        "cell energy [MeV]",
        "cells a shower and bin",
        edges,
        shown,
        log_x=True,
        log_y=True,
    )


def core_figure(found: Sequence[CoreRatios], labels: Sequence[str], window: str) -> Figure:
    """Return how the core cells' means and standard deviations are distributed, over the reference's."""

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, 1, 2, 4.6, 3.6, Margins(across=0.9), small=False)
        for place, name, title in (
            (axes[0][0], "cell_mean", "mean, generated / reference"),
            (axes[0][1], "cell_std", "standard deviation, generated / reference"),
        ):
            values = [getattr(one, name) for one in found]
            known = np.concatenate([value[np.isfinite(value)] for value in values])
            if len(known) == 0:
                place.text(0.5, 0.5, "too few showers", ha="center", transform=place.transAxes)
                continue
            reach = max(0.1, float(np.quantile(np.abs(known - 1), 0.98)))
            edges = np.linspace(1 - reach, 1 + reach, 41)
            for number, value in enumerate(values):
                inside = np.clip(value[np.isfinite(value)], edges[0], edges[-1])
                place.stairs(np.histogram(inside, edges)[0], edges, color=colour(number + 1), lw=1.6)
            place.axvline(1.0, color=INK, lw=1.0, ls=":")
            place.set(xlabel=title, xlim=(edges[0], edges[-1]))
        axes[0][0].set_ylabel("core cells")
        legend(figure, pyplot, labels, first=1)
        return figure

    return Figure(
        "core_cells",
        f"Core cells at {window}",
        "One entry a core cell; the first and last bin hold what lies outside.",
        draw,
    )


def probability_figure(
    found: Sequence[ShapeTests], labels: Sequence[str], energies: Sequence[float]
) -> Figure:
    """Return a map of Kolmogorov-Smirnov probabilities: shapes by energies (MeV), one map a sample."""
    shapes = found[0].shapes

    def draw(pyplot: Any) -> Any:
        margins = Margins(left=2.1, bottom=0.8, top=0.7, across=0.3)
        size = (max(2.6, 0.55 * len(energies)), 0.32 * len(shapes))
        figure, axes = panels(pyplot, 1, len(found), *size, margins, sharey=True)
        for place, tests, label in zip(axes[0], found, labels, strict=True):
            place.imshow(tests.p, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
            for (row, column), value in np.ndenumerate(tests.p):
                text = "-" if not np.isfinite(value) else f"{100 * value:.0f}"
                place.text(column, row, text, ha="center", va="center", fontsize=9)
            place.axhline(tests.n_profiles - 0.5, color=INK, lw=1.2)
            names = [f"{energy / 1000:.3g}" for energy in energies]
            place.set_xticks(range(len(energies)), names, fontsize=9)
            place.set_yticks(range(len(shapes)), [shape.replace("_", " ") for shape in shapes], fontsize=10)
            place.tick_params(which="both", length=0)
            place.set_title(label, fontsize=12, loc="left")
        figure.supxlabel("incident energy [GeV]", fontsize=12)
        return figure

    return Figure(
        "ks_probability",
        "Kolmogorov-Smirnov probabilities [%]",
        "Above the line mean shapes, one entry a shower; below it quantities of each shower, for which the probability of "
        "a perfect generator is uniform.",
        draw,
    )


@dataclass(frozen=True)
class SimulationTime:
    """Processor time of one Geant4 shower at the reference's mean energy.

    Attributes:
        seconds: None where nothing is known.
        how: How it was found, for people.
        same_run: Whether Geant4 ran here and now.
    """

    seconds: float | None
    how: str
    same_run: bool


def time_geant4(reference: ShowerSource, n: int, seed: int = 0) -> SimulationTime:
    """Return Geant4's processor time of a shower, measured on ``n`` showers, or else the reference's own.

    The cost of a shower is proportional to its energy, so that the few showers are scaled to the reference's mean.

    Arguments:
        reference: Reference showers.
        n: Showers to simulate; 0 for none.
        seed: Their seed.
    """
    why = "not asked for"
    if n > 0:
        try:
            return _simulated(reference, n, seed)
        except (CaloforgeError, ImportError) as error:
            why = str(error).split(";")[0].split(":")[0]
    known = reference.attributes.get("cpu_seconds_per_shower")
    if known is None or reference.source != "geant4":
        return SimulationTime(
            None, f"Geant4 did not run ({why}) and the reference does not say its time", False
        )
    return SimulationTime(
        float(known), f"of the reference's own simulation; Geant4 did not run here ({why})", False
    )


def _simulated(reference: ShowerSource, n: int, seed: int) -> SimulationTime:
    from caloforge.simulate.run import simulate

    energy = np.asarray(reference.incident_energy, np.float64)
    theta = np.asarray(reference.incident_theta, np.float64)
    particle = reference.particle or None
    showers = simulate(
        reference.detector,
        n,
        energy=EnergySpec(
            float(energy.min()), float(energy.max()), "uniform" if np.ptp(energy) > 0 else "fixed"
        ),
        theta=AngleSpec(float(theta.min()), float(theta.max())),
        particle=particle,
        engine="geant4",
        seed=seed,
    )
    seconds = float(showers.attributes["cpu_seconds_per_shower"])
    scale = float(energy.mean() / showers.incident_energy.mean())
    how = f"{n} showers in the same run, scaled to the reference's mean of {energy.mean() / 1000:.3g} GeV"
    return SimulationTime(seconds * scale, how, True)
