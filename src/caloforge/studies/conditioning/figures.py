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
from caloforge.validate.observables import OBSERVABLES, SPECTRUM_EDGES
from caloforge.validate.plots.style import BAND, INK, colour
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
_MARKERS = ("o", "s", "D", "^", "P", "X")


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
        size = (3.6 * len(thetas) + 0.9, 2.8 * len(energies) + 1.3)
        figure, axes = pyplot.subplots(
            len(energies), len(thetas), figsize=size, squeeze=False, layout="constrained"
        )
        for row, energy in enumerate(energies):
            for column, theta in enumerate(thetas):
                place = axes[row][column]
                if (energy, theta) in places:
                    _histogram(place, places[energy, theta], stage, quantity)
                else:
                    place.set_axis_off()
        handles = [
            pyplot.Line2D([], [], color=colour(role), lw=2.0 if role else 6.0, alpha=1.0 if role else 0.35)
            for role in range(len(labels))
        ]
        figure.legend(handles, labels, loc="outside upper right", ncols=min(5, len(labels)), fontsize=12)
        figure.supxlabel(quantity_label(quantity), fontsize=14)
        figure.supylabel("part of the showers", fontsize=14)
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
    known = samples[0].moved
    place.set_title(result.point.name.replace(" deg", "°"), fontsize=11, loc="left", pad=5)
    place.tick_params(labelsize=10)
    place.locator_params(axis="both", nbins=5)
    if not np.isfinite(samples[0].mean):
        return
    low, high = np.quantile(known, (0.005, 0.995))
    margin = 0.25 * (high - low) if high > low else max(abs(low), 1.0) * 0.1
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    for role, sample in enumerate(samples):
        if not len(sample.moved):
            continue
        inside = np.clip(sample.moved, edges[0], edges[-1])
        counts = np.histogram(inside, edges)[0] / len(sample.moved)
        if role == 0:
            place.stairs(counts, edges, fill=True, color=BAND)
            place.stairs(counts, edges, color=INK, lw=1.0)
            place.set_ylim(0, (1.1 + 0.2 * len(samples)) * counts.max())
            continue
        place.stairs(counts, edges, color=colour(role), lw=1.5)
        place.text(
            0.97,
            1.0 - 0.115 * role,
            _note(result.compared[stage][quantity][role - 1], quantity),
            transform=place.transAxes,
            ha="right",
            va="center",
            fontsize=9,
            color=colour(role),
        )
    place.set_xlim(edges[0], edges[-1])


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
        figure, axes = pyplot.subplots(
            2, len(STAGES), figsize=(11.5, 7.4), sharex=True, sharey="row", layout="constrained"
        )
        for column, stage in enumerate(STAGES):
            for role, curve in enumerate(curves[stage]):
                x, mean, mean_error, width, width_error = _numbers(curve)
                offset = (role - (len(labels) - 1) / 2) * 0.004 * float(np.ptp(x[np.isfinite(x)]) or 1.0)
                style: dict[str, Any] = {
                    "color": colour(role),
                    "fmt": _MARKERS[role % len(_MARKERS)],
                    "ms": 5,
                    "lw": 1.2,
                    "ls": "-" if role == 0 else "none",
                }
                axes[0][column].errorbar(x + offset, mean, mean_error, **style)
                axes[1][column].errorbar(x + offset, width, width_error, label=labels[role], **style)
            axes[0][column].set_title(STAGE_NAMES[stage], fontsize=13, loc="left")
            axes[1][column].set_xlabel(_variable(curves[stage][0]), fontsize=13)
        means, widths = _names(curves[STAGES[0]][0])
        axes[0][0].set_ylabel(means, fontsize=13)
        axes[1][0].set_ylabel(widths, fontsize=13)
        axes[1][0].set_ylim(bottom=0)
        axes[1][-1].legend(fontsize=11, loc="best")
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
        size = (4.6 + 1.0 * len(results), 1.6 + 0.34 * len(names))
        figure, axes = pyplot.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        for place, values, title in (
            (axes[0], shifts, "shift of the mean\n[% of the reference's width]"),
            (axes[1], widths, "width against the reference's\n[%]"),
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
            place.minorticks_off()
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
        figure, (main, near) = pyplot.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
        filled = np.flatnonzero(mean[0] > 0)
        first, last = SPECTRUM_EDGES[filled[0]], SPECTRUM_EDGES[filled[-1] + 1]
        per_mev = [counts / np.diff(SPECTRUM_EDGES) for counts in mean]
        for role, (counts, density) in enumerate(zip(mean, per_mev, strict=True)):
            style: dict[str, Any] = {"color": colour(role), "lw": 1.6, "label": labels[role]}
            main.stairs(counts, SPECTRUM_EDGES, **style)
            near.stairs(density, SPECTRUM_EDGES, **style)
        main.set(xscale="log", yscale="log", xlim=(first, last), ylabel="cells a shower and bin")
        inside = (SPECTRUM_EDGES[:-1] > mip / 3) & (SPECTRUM_EDGES[1:] < mip * 5)
        top = max(float(density[inside].max(initial=0.0)) for density in per_mev)
        near.set(xlim=(mip / 3, mip * 5), ylim=(0, 1.3 * top or 1.0), ylabel="cells a shower and MeV")
        for place in (main, near):
            place.axvline(mip, color=INK, lw=1.0, ls=":")
            place.set_xlabel("cell energy [MeV]")
        near.legend(fontsize=11)
        return figure

    return Figure(
        "cell_spectrum",
        "Cell energies, and around the energy of a MIP",
        "Dotted: the mean energy that a minimum-ionising particle leaves; the peak lies somewhat below it.",
        draw,
    )
