"""The figures of the study: histograms at the points, curves against energy and angle, a map of all observables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.studies.base import Figure
from caloforge.studies.conditioning.compare import PointResult
from caloforge.studies.conditioning.curves import AngleCurve
from caloforge.studies.conditioning.measure import STAGES
from caloforge.studies.drawing import Margins, errorbars, histograms, legend, panels
from caloforge.validate.observables import OBSERVABLES, SPECTRUM_EDGES
from caloforge.validate.plots.panel import INK, colour
from caloforge.validate.resolution import ResponseCurve

__all__ = ["STAGE_NAMES", "curve_figure", "map_figure", "points_figure", "quantity_label", "spectrum_figure"]

STAGE_NAMES = {"before": "before reconstruction", "after": "after reconstruction"}
_LABELS = {
    "energy_response": "measured / incident energy",
    "angle_residual": "measured - incident angle [degrees]",
    "n_clusters": "number of clusters",
    "outside": "energy outside the leading cluster",
}
_BINS = 30


def quantity_label(name: str) -> str:
    """Return what an axis or a table calls a quantity."""
    if name in _LABELS:
        return _LABELS[name]
    entry = OBSERVABLES[name]
    return f"{entry.label} [{entry.unit}]" if entry.unit else entry.label


def points_figure(results: Sequence[PointResult], stage: str, quantity: str, labels: Sequence[str]) -> Figure:
    """Return histograms of a quantity at every point, one panel a point."""
    energies = sorted({result.point.energy for result in results})
    thetas = sorted({result.point.theta for result in results})
    places = {(result.point.energy, result.point.theta): result for result in results}

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, len(energies), len(thetas), width=3.3, height=2.3)
        for place in axes.flat:
            place.set_visible(False)
        for (energy, theta), result in places.items():
            _histogram(axes[energies.index(energy)][thetas.index(theta)], result, stage, quantity)
        legend(figure, pyplot, labels)
        figure.supxlabel(quantity_label(quantity), fontsize=13)
        figure.supylabel("part of the showers", fontsize=13)
        return figure

    return Figure(
        f"points_{quantity}_{stage}",
        f"{quantity_label(quantity).capitalize()}, {STAGE_NAMES[stage]}",
        "One panel a test point; showers around it are moved to it along a fitted line. Grey: the reference. "
        "The numbers are the generated sample's mean and width against the reference's.",
        draw,
    )


def _histogram(place: Any, result: PointResult, stage: str, quantity: str) -> None:
    samples = result.local[stage][quantity]
    place.set_visible(True)
    place.set_title(result.point.name.replace(" deg", "°"), fontsize=12, loc="left")
    histograms(place, [sample.moved for sample in samples], _BINS, head=1.05 + 0.17 * len(samples))
    for role in range(1, len(samples)):
        place.text(
            0.97,
            1.03 - 0.11 * role,
            _note(result.compared[stage][quantity][role - 1], quantity),
            transform=place.transAxes,
            ha="right",
            va="center",
            fontsize=9.5,
            color=colour(role),
        )


def _note(comparison: Any, quantity: str) -> str:
    if quantity == "angle_residual":
        return f"{comparison.shift:+.2f}°, width {100 * comparison.width:+.0f} %"
    return f"mean {100 * comparison.relative:+.1f} %, width {100 * comparison.width:+.0f} %"


Curve = ResponseCurve | AngleCurve


def curve_figure(
    name: str, title: str, curves: Mapping[str, Sequence[Curve]], labels: Sequence[str], caption: str
) -> Figure:
    """Return mean and width against a variable, before and after reconstruction side by side.

    Arguments:
        name: File name.
        title: Heading.
        curves: Stage to the samples' curves, the reference first.
        labels: The samples' names.
        caption: What it shows.
    """

    def draw(pyplot: Any) -> Any:
        margins = Margins(across=0.3, down=0.15)
        figure, axes = panels(
            pyplot, 2, len(STAGES), 4.9, 3.0, margins, small=False, sharex=True, sharey="row"
        )
        for column, stage in enumerate(STAGES):
            for role, curve in enumerate(curves[stage]):
                x, mean, mean_error, width, width_error = _numbers(curve)
                known = x[np.isfinite(x)]
                step = 0.006 * float(np.ptp(known)) if len(known) else 0.0
                x = x + step * (role - (len(labels) - 1) / 2)
                errorbars(axes[0][column], x, mean, mean_error, role)
                errorbars(axes[1][column], x, width, width_error, role)
            axes[0][column].set_title(STAGE_NAMES[stage], fontsize=13, loc="left")
            axes[1][column].set_xlabel(_variable(curves[stage][0]), fontsize=13)
        means, widths = _names(curves[STAGES[0]][0])
        axes[0][0].set_ylabel(means, fontsize=13)
        axes[1][0].set_ylabel(widths, fontsize=13)
        axes[1][0].set_ylim(bottom=0)
        legend(figure, pyplot, labels)
        return figure

    return Figure(name, title, caption, draw)


def _numbers(curve: Curve) -> tuple[NDArray[np.float64], ...]:
    x = curve.centre / 1000.0 if curve.variable == "incident_energy" else curve.centre
    mean, error = (
        (curve.bias, curve.bias_error)
        if isinstance(curve, AngleCurve)
        else (curve.response, curve.response_error)
    )
    return x, mean, error, curve.resolution, curve.resolution_error


def _names(curve: Curve) -> tuple[str, str]:
    if isinstance(curve, AngleCurve):
        return "angle bias [degrees]", "angle resolution [degrees]"
    return "energy response", "energy resolution σ/E"


def _variable(curve: Curve) -> str:
    return "incident energy [GeV]" if curve.variable == "incident_energy" else "incident angle [degrees]"


def map_figure(results: Sequence[PointResult], stage: str, number: int, label: str) -> Figure:
    """Return a map of every observable at every point for one generated sample: shifts and widths.

    Arguments:
        results: The points.
        stage: "before" or "after".
        number: Which generated sample, from 0.
        label: Its name.
    """
    names = list(results[0].compared[stage])
    found = [[result.compared[stage][name][number] for result in results] for name in names]
    shifts = np.array([[100 * one.pull for one in row] for row in found])
    widths = np.array([[100 * one.width for one in row] for row in found])

    def draw(pyplot: Any) -> Any:
        margins = Margins(left=3.7, bottom=0.95, top=0.9, across=0.2)
        size = (0.52 * len(results) + 0.4, 0.31 * len(names))
        figure, axes = panels(pyplot, 1, 2, *size, margins, sharey=True)
        for place, values, title in (
            (axes[0][0], shifts, "shift of the mean\n[% of the reference's width]"),
            (axes[0][1], widths, "width against the reference's\n[%]"),
        ):
            place.imshow(values, cmap="RdBu_r", vmin=-50, vmax=50, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                text = "-" if not np.isfinite(value) else f"{np.clip(value, -999, 999):+.0f}"
                dark = np.isfinite(value) and abs(value) > 35
                place.text(
                    column, row, text, ha="center", va="center", fontsize=8, color="w" if dark else INK
                )
            names_of_points = [f"{r.point.energy / 1000:g}\n{r.point.theta:g}°" for r in results]
            place.set_xticks(range(len(results)), names_of_points, fontsize=9)
            place.set_yticks(range(len(names)), [quantity_label(name) for name in names], fontsize=9)
            place.tick_params(which="both", length=0)
            place.set_title(title, fontsize=11)
        figure.supxlabel("test point: energy [GeV], angle", fontsize=11)
        return figure

    return Figure(
        f"observables_{stage}_{number + 1}",
        f"Every observable of {label}, {STAGE_NAMES[stage]}",
        "Differences from the reference at each test point; 0 is perfect.",
        draw,
    )


def spectrum_figure(
    spectra: Sequence[NDArray[np.float64]], sizes: Sequence[int], labels: Sequence[str], mip: float
) -> Figure:
    """Return the cell-energy spectra around the MIP peak.

    Arguments:
        spectra: (k,) cells in the bins of the spectrum, of each sample.
        sizes: Showers of each sample.
        labels: The samples' names.
        mip: Mean energy of a MIP in the detector, MeV.
    """
    mean = [counts / size for counts, size in zip(spectra, sizes, strict=True)]

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, 1, 2, 4.8, 4.2, Margins(across=1.1), small=False)
        main, near = axes[0]
        filled = np.flatnonzero(mean[0] > 0)
        first, last = SPECTRUM_EDGES[filled[0]], SPECTRUM_EDGES[filled[-1] + 1]
        per_mev = [counts / np.diff(SPECTRUM_EDGES) for counts in mean]
        for role, (counts, density) in enumerate(zip(mean, per_mev, strict=True)):
            style: dict[str, Any] = {"color": colour(role), "lw": 1.6}
            main.stairs(counts, SPECTRUM_EDGES, **style)
            near.stairs(density, SPECTRUM_EDGES, **style)
        main.set(xscale="log", yscale="log", xlim=(first, last), ylabel="cells a shower and bin")
        inside = (SPECTRUM_EDGES[:-1] > mip / 3) & (SPECTRUM_EDGES[1:] < mip * 5)
        top = max(float(density[inside].max(initial=0.0)) for density in per_mev)
        near.set(xlim=(mip / 3, mip * 5), ylim=(0, 1.3 * top or 1.0), ylabel="cells a shower and MeV")
        for place in (main, near):
            place.axvline(mip, color=INK, lw=1.0, ls=":")
            place.set_xlabel("cell energy [MeV]")
        legend(figure, pyplot, labels)
        return figure

    return Figure(
        "cell_spectrum",
        "Cell energies, and around the energy of a MIP",
        "Dotted: the mean energy that a minimum-ionising particle leaves; the peak lies somewhat below it.",
        draw,
    )
