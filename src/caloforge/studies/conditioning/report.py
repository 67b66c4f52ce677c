"""Tables and figures of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.studies.base import Figure, Row
from caloforge.studies.conditioning.measure import STAGES, AngleCurve, Curve
from caloforge.studies.conditioning.points import PointResult
from caloforge.studies.drawing import Margins, errorbars, histograms, legend, number_map, panels
from caloforge.studies.page import number_cell
from caloforge.units import plain_number
from caloforge.validate.observables import OBSERVABLES, SPECTRUM_EDGES
from caloforge.validate.plots.panel import INK, colour
from caloforge.validate.plots.spectra import with_unit
from caloforge.validate.report.page import Block, Cell, Table

__all__ = ["curve_figures", "map_figure", "point_tables", "points_figure", "spectrum_figure", "summary_rows"]


STAGE_NAMES = {"before": "before reconstruction", "after": "after reconstruction"}
_LABELS = {
    "energy_response": "measured / incident energy",
    "angle_residual": "measured - incident angle [degrees]",
    "n_clusters": "number of clusters",
    "outside": "energy outside the leading cluster",
}
_CURVES = {
    "energy_against_energy": "Energy linearity and resolution against energy",
    "energy_against_theta": "Energy response and resolution against angle",
    "angle_against_energy": "Angular bias and resolution against energy",
    "angle_against_theta": "Angular bias and resolution against angle",
}


def _quantity_label(name: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    entry = OBSERVABLES[name]
    return with_unit(entry.label, entry.unit)


def points_figure(results: Sequence[PointResult], stage: str, quantity: str, labels: Sequence[str]) -> Figure:
    """Return histograms of a quantity at every point, one panel a point."""
    energies = sorted({result.point.energy for result in results})
    thetas = sorted({result.point.theta for result in results})
    name = _quantity_label(quantity)

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, len(energies), len(thetas), width=3.3, height=2.3)
        for place in axes.flat:
            place.set_visible(False)
        for result in results:
            place = axes[energies.index(result.point.energy)][thetas.index(result.point.theta)]
            _histogram(place, result, stage, quantity)
        legend(figure, pyplot, labels)
        figure.supxlabel(name, fontsize=13)
        figure.supylabel("fraction of showers in a bin", fontsize=13)
        return figure

    caption = (
        "Each panel is a test point; showers around the point are extrapolated to it with a linear fit. The reference is grey. "
        "The numbers compare mean and width of the generated sample with those of the reference."
    )
    title = f"{name.capitalize()}, {STAGE_NAMES[stage]}"
    return Figure(f"points_{quantity}_{stage}", title, caption, draw)


_GROUND = {"fc": "w", "ec": "none", "pad": 1.0, "alpha": 0.8}  # of texts over a figure's lines


def _histogram(place: Any, result: PointResult, stage: str, quantity: str) -> None:
    samples = result.local[stage][quantity]
    place.set_visible(True)
    place.set_title(result.point.name.replace(" deg", "°"), fontsize=12, loc="left")
    histograms(place, [sample.moved for sample in samples], head=1.05 + 0.17 * len(samples))
    for role, one in enumerate(result.compared[stage][quantity], start=1):
        if not np.isfinite(one.width):
            continue
        mean = f"{one.shift:+.2f}°" if quantity == "angle_residual" else f"mean {100 * one.relative:+.1f} %"
        where = {"transform": place.transAxes, "ha": "right", "va": "center"}
        text = f"{mean}, width {100 * one.width:+.0f} %"
        place.text(0.97, 1.03 - 0.11 * role, text, fontsize=9.5, color=colour(role), bbox=_GROUND, **where)


def curve_figures(curves: Mapping[str, Mapping[str, Sequence[Curve]]], labels: Sequence[str]) -> list[Figure]:
    """Return mean and width against each variable that varies, before and after reconstruction side by side."""
    return [
        _curve_figure(name, title, curves[name], labels)
        for name, title in _CURVES.items()
        if len(curves[name][STAGES[0]][0].centre) > 1
    ]


def _curve_figure(
    name: str, title: str, curves: Mapping[str, Sequence[Curve]], labels: Sequence[str]
) -> Figure:
    first = curves[STAGES[0]][0]
    angle, energy = isinstance(first, AngleCurve), first.variable == "incident_energy"

    def draw(pyplot: Any) -> Any:
        margins = Margins(across=0.3, down=0.15)
        shared = {"sharex": True, "sharey": "row"}
        figure, axes = panels(pyplot, 2, len(STAGES), 4.9, 3.0, margins, small=False, **shared)
        for column, stage in enumerate(STAGES):
            for role, curve in enumerate(curves[stage]):
                x = curve.centre / 1000.0 if energy else curve.centre
                x = x + 0.006 * (np.nanmax(x) - np.nanmin(x)) * (role - (len(labels) - 1) / 2)
                mean = "bias" if angle else "response"
                errorbars(axes[0][column], x, getattr(curve, mean), getattr(curve, f"{mean}_error"), role)
                errorbars(axes[1][column], x, curve.resolution, curve.resolution_error, role)
            axes[0][column].set_title(STAGE_NAMES[stage], fontsize=13, loc="left")
            axes[1][column].set_xlabel(
                "incident energy [GeV]" if energy else "incident angle [degrees]", fontsize=13
            )
        axes[0][0].set_ylabel(
            "mean angle residual [degrees]" if angle else "mean of measured / incident energy", fontsize=13
        )
        axes[1][0].set_ylabel(
            "σ of angle residual [degrees]" if angle else "σ / mean of measured energy", fontsize=13
        )
        axes[1][0].set_ylim(bottom=0)
        legend(figure, pyplot, labels)
        return figure

    caption = "Each point is for the showers of one bin; the bins of the reference are used for all samples."
    caption += " The residual is the measured minus the incident angle." if angle else ""
    return Figure(name, title, caption, draw)


def map_figure(results: Sequence[PointResult], stage: str, number: int, label: str) -> Figure:
    """Return a map of every observable at every point for one generated sample: shifts and widths."""
    names = list(results[0].compared[stage])

    def draw(pyplot: Any) -> Any:
        margins = Margins(left=3.7, bottom=0.95, top=0.9, across=0.2)
        size = (0.52 * len(results) + 0.4, 0.31 * len(names))
        figure, axes = panels(pyplot, 1, 2, *size, margins, sharey=True)
        points = [f"{r.point.energy / 1000:g}\n{r.point.theta:g}°" for r in results]
        rows = [_quantity_label(name) for name in names]
        colours = {"cmap": "RdBu_r", "vmin": -50, "vmax": 50}
        for place, kind, title in (
            (axes[0][0], "pull", "shift of the mean\n[% of the reference's width]"),
            (axes[0][1], "width", "width against the reference's\n[%]"),
        ):
            found = [[getattr(r.compared[stage][name][number], kind) for r in results] for name in names]
            number_map(place, 100 * np.array(found), "+.0f", rows, points, dark=35, **colours)
            place.set_title(title, fontsize=11)
        figure.supxlabel("test point: energy [GeV], angle", fontsize=11)
        return figure

    title = f"Every observable of {label}, {STAGE_NAMES[stage]}"
    caption = "Differences from the reference at each test point; 0 means that they agree."
    return Figure(f"observables_{stage}_{number + 1}", title, caption, draw)


def spectrum_figure(
    spectra: Sequence[NDArray[np.float64]], sizes: Sequence[int], labels: Sequence[str], mip: float
) -> Figure:
    """Return the cell-energy spectra (k,) of samples around the MIP peak; ``mip``: mean energy of a MIP, MeV."""
    mean = [counts / size for counts, size in zip(spectra, sizes, strict=True)]

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, 1, 2, 4.8, 4.2, Margins(across=1.1), small=False)
        main, near = axes[0]
        filled = np.flatnonzero(mean[0] > 0)
        per_mev = [counts / np.diff(SPECTRUM_EDGES) for counts in mean]
        for role, (counts, density) in enumerate(zip(mean, per_mev, strict=True)):
            main.stairs(counts, SPECTRUM_EDGES, color=colour(role), lw=1.6)
            near.stairs(density, SPECTRUM_EDGES, color=colour(role), lw=1.6)
        limits = (SPECTRUM_EDGES[filled[0]], SPECTRUM_EDGES[filled[-1] + 1])
        main.set(xscale="log", yscale="log", xlim=limits, ylabel="cells a shower and bin")
        inside = (SPECTRUM_EDGES[:-1] > mip / 3) & (SPECTRUM_EDGES[1:] < mip * 5)
        top = max(float(density[inside].max(initial=0.0)) for density in per_mev)
        near.set(xlim=(mip / 3, mip * 5), ylim=(0, 1.3 * top or 1.0), ylabel="cells a shower and MeV")
        for place in (main, near):
            place.axvline(mip, color=INK, lw=1.0, ls=":")
            place.set_xlabel("cell energy [MeV]")
        legend(figure, pyplot, labels)
        return figure

    title = "Cell energies, and around the energy of a MIP"
    caption = "The dotted line is the mean energy that a minimum-ionising particle deposits; the peak lies somewhat below it."
    return Figure("cell_spectrum", title, caption, draw)


_SUMMARY = (
    ("energy_response", "relative", "mean energy response", "conditioning.response", "%"),
    ("energy_response", "width", "width of the energy response", "conditioning.width", "%"),
    ("angle_residual", "shift", "mean angle", None, "deg"),
    ("angle_residual", "width", "angular resolution", None, "%"),
)


def summary_rows(results: Sequence[PointResult], labels: Sequence[str], peaks: Sequence[float]) -> list[Row]:
    """Return the mean and largest differences over the points, and the MIP peaks, MeV (NaN for none)."""
    rows = [_peak_row(labels[0], peaks[0], None)]
    for number, label in enumerate(labels[1:]):
        for stage in STAGES:
            for quantity, kind, name, paper, unit in _SUMMARY:
                compared = [result.compared[stage][quantity][number] for result in results]
                pairs = [(getattr(one, kind), getattr(one, f"{kind}_error")) for one in compared]
                values, errors = np.array(pairs).T * (100.0 if unit == "%" else 1.0)
                row = partial(Row, paper=paper, unit=unit, sample=label)
                where = f"{name}, {STAGE_NAMES[stage]}"
                rows.append(_combined(row, f"mean deviation, {where}", values, errors))
                rows.append(_largest(row, f"largest deviation, {where}", values, errors, results))
        rows.append(_peak_row(label, peaks[number + 1], "conditioning.mip_peak"))
    return rows


def _combined(row: partial[Row], title: str, values: np.ndarray, errors: np.ndarray) -> Row:
    """Return the row of the mean difference over the points, weighted with the errors."""
    good = np.isfinite(values) & (errors > 0)
    if not good.any():
        exact = np.isfinite(values) & (values == 0)
        return row(title, 0.0 if exact.any() else None, note="no spread")
    weight = 1.0 / errors[good] ** 2
    mean, chi2 = (weight * values[good]).sum() / weight.sum(), (values[good] ** 2 * weight).sum()
    note = f"chi2 to none {chi2:.1f} for {int(good.sum())} points"
    return row(title, mean, weight.sum() ** -0.5, note=note)


def _largest(
    row: partial[Row], title: str, values: np.ndarray, errors: np.ndarray, results: Sequence[PointResult]
) -> Row:
    """Return the row of the largest absolute difference over the points."""
    if not np.isfinite(values).any():
        return row(title, None, note="too few showers")
    worst = int(np.nanargmax(np.abs(values)))
    note = f"{plain_number(values[worst], sign='+')} at {results[worst].point.name}, {results[worst].n[0]} reference showers"
    return row(title, abs(values[worst]), errors[worst], note=note)


def _peak_row(label: str, peak: float, paper: str | None) -> Row:
    note = "" if np.isfinite(peak) else "no peak"
    return Row("MIP peak of the cell energies", peak, None, paper, "MeV", note, label)


def point_tables(results: Sequence[PointResult], labels: Sequence[str]) -> Mapping[str, Sequence[Block]]:
    """Return a section of tables for each generated sample: energy and angle, then every observable."""
    sections: dict[str, list[Block]] = {}
    for number, label in enumerate(labels[1:]):
        for title, table in (
            ("{} at the test points", _response_table),
            ("{}, every observable", _observable_table),
        ):
            sections[title.format(label)] = [table(results, stage, number) for stage in STAGES]
    return sections


def _response_table(results: Sequence[PointResult], stage: str, number: int) -> Table:
    rows: list[list[Cell | str | float]] = []
    for result in results:
        energy = result.compared[stage]["energy_response"][number]
        angle = result.compared[stage]["angle_residual"][number]
        n = result.n[0], result.n[number + 1]
        cells = [
            number_cell(100 * energy.relative, 100 * energy.relative_error),
            number_cell(100 * energy.width, 100 * energy.width_error),
            number_cell(angle.shift, angle.shift_error),
            number_cell(100 * angle.width, 100 * angle.width_error),
        ]
        rows.append([result.point.name, Cell(f"{n[0]} / {n[1]}", sort=float(n[0])), *cells])
    energy_names = ("mean response [%]", "energy resolution [%]")
    columns = ("point", "showers", *energy_names, "mean angle [deg]", "angular resolution [%]")
    caption = f"Generated against reference, {STAGE_NAMES[stage]}; showers of the reference / of the sample."
    return Table(columns, rows, caption)


def _observable_table(results: Sequence[PointResult], stage: str, number: int) -> Table:
    rows = []
    for name in results[0].compared[stage]:
        cells: list[Cell | str | float] = [name]
        for one in (result.compared[stage][name][number] for result in results):
            small = f"width {100 * one.width:+.0f} %, KS p {one.p:.2g}"
            cells.append(Cell(f"{one.pull:+.2f}", sort=one.pull, small=small))
        rows.append(cells)
    caption = (
        f"Shift of the mean in reference widths, {STAGE_NAMES[stage]}; below it the width against the reference's "
        "and the Kolmogorov-Smirnov probability."
    )
    return Table(("observable", *(result.point.name for result in results)), rows, caption)
