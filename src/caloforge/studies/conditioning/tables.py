"""Numbers of the study for people: the summary beside the paper's, and tables of all points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from caloforge.studies.base import Row
from caloforge.studies.conditioning.compare import PointResult
from caloforge.studies.conditioning.figures import STAGE_NAMES
from caloforge.studies.conditioning.measure import STAGES
from caloforge.validate.report.page import Block, Cell, Table

__all__ = ["point_tables", "summary_rows"]

_PERCENT = 100.0


def summary_rows(results: Sequence[PointResult], labels: Sequence[str], peaks: Sequence[float]) -> list[Row]:
    """Return the largest differences over the test points, and the MIP peak.

    Arguments:
        results: The points.
        labels: The samples, the reference first.
        peaks: Position of each sample's MIP peak, MeV; NaN for none.
    """
    rows = [_peak_row(labels[0], peaks[0], "")]
    for number, label in enumerate(labels[1:]):
        for stage in STAGES:
            for quantity, kind, name, paper, unit in _SUMMARY:
                found = _differences(results, stage, quantity, kind, number, 100.0 if unit == "%" else 1.0)
                where = f"{name}, {STAGE_NAMES[stage]}"
                rows.append(_combined(found, where, paper, unit, label))
                rows.append(_largest(found, results, where, paper, unit, label))
        rows.append(_peak_row(label, peaks[number + 1], "conditioning.mip_peak"))
    return rows


_SUMMARY = (
    ("energy_response", "relative", "mean energy response", "conditioning.response", "%"),
    ("energy_response", "width", "width of the energy response", "conditioning.width", "%"),
    ("angle_residual", "shift", "mean angle", None, "deg"),
    ("angle_residual", "width", "angular resolution", None, "%"),
)


def _differences(
    results: Sequence[PointResult], stage: str, quantity: str, kind: str, number: int, scale: float
) -> NDArray[np.float64]:
    """Return a difference and its error at each point (2, P)."""
    out = []
    for result in results:
        one = result.compared[stage][quantity][number]
        if kind == "shift":
            reference, generated = (result.local[stage][quantity][k] for k in (0, number + 1))
            error = float(np.hypot(reference.mean_error, generated.mean_error))
        else:
            error = float(getattr(one, f"{kind}_error"))
        out.append((scale * getattr(one, kind), scale * error))
    return np.array(out, np.float64).T


def _combined(found: NDArray[np.float64], where: str, paper: str | None, unit: str, label: str) -> Row:
    """Return the row of the mean difference over the points, weighted with the errors."""
    values, errors = found
    good = np.isfinite(values) & (errors > 0)
    title = f"mean deviation, {where}"
    if not good.any():
        exact = np.isfinite(values) & (values == 0)
        return Row(title, 0.0 if exact.any() else None, None, paper, unit, "no spread", label)
    weight = 1.0 / errors[good] ** 2
    mean, error = float((weight * values[good]).sum() / weight.sum()), float(weight.sum() ** -0.5)
    chi2 = float((values[good] ** 2 * weight).sum())
    return Row(
        title, mean, error, paper, unit, f"chi2 to none {chi2:.1f} for {int(good.sum())} points", label
    )


def _largest(
    found: NDArray[np.float64],
    results: Sequence[PointResult],
    where: str,
    paper: str | None,
    unit: str,
    label: str,
) -> Row:
    """Return the row of the largest absolute difference over the points."""
    values, errors = found
    title = f"largest deviation, {where}"
    if not np.isfinite(values).any():
        return Row(title, None, paper=paper, unit=unit, note="too few showers", sample=label)
    worst = int(np.nanargmax(np.abs(values)))
    note = f"{values[worst]:+.3g} at {results[worst].point.name}, {results[worst].n[0]} reference showers"
    return Row(title, float(abs(values[worst])), float(errors[worst]), paper, unit, note, label)


def _peak_row(label: str, peak: float, paper: str) -> Row:
    if not np.isfinite(peak):
        return Row("MIP peak of the cell energies", None, None, paper or None, "MeV", "no peak", label)
    return Row("MIP peak of the cell energies", peak, None, paper or None, "MeV", "", label)


def point_tables(results: Sequence[PointResult], labels: Sequence[str]) -> Mapping[str, Sequence[Block]]:
    """Return a section of tables for each generated sample: energy and angle, then every observable."""
    sections: dict[str, list[Block]] = {}
    for number, label in enumerate(labels[1:]):
        sections[f"{label} at the test points"] = [
            _response_table(results, stage, number) for stage in STAGES
        ]
        sections[f"{label}, every observable"] = [
            _observable_table(results, stage, number) for stage in STAGES
        ]
    return sections


def _response_table(results: Sequence[PointResult], stage: str, number: int) -> Table:
    rows: list[list[Cell | str | float]] = []
    for result in results:
        energy = result.compared[stage]["energy_response"][number]
        angle = result.compared[stage]["angle_residual"][number]
        local = result.local[stage]["angle_residual"]
        error = float(np.hypot(local[0].mean_error, local[number + 1].mean_error))
        rows.append(
            [
                result.point.name,
                Cell(f"{result.n[0]} / {result.n[number + 1]}", sort=float(result.n[0])),
                _percent(energy.relative, energy.relative_error),
                _percent(energy.width, energy.width_error),
                Cell(f"{angle.shift:+.2f} ± {error:.2f}", sort=angle.shift),
                _percent(angle.width, angle.width_error),
            ]
        )
    return Table(
        (
            "point",
            "showers",
            "mean response [%]",
            "energy resolution [%]",
            "mean angle [deg]",
            "angular resolution [%]",
        ),
        rows,
        f"Generated against reference, {STAGE_NAMES[stage]}; showers of the reference / of the sample.",
    )


def _observable_table(results: Sequence[PointResult], stage: str, number: int) -> Table:
    rows = []
    for name in results[0].compared[stage]:
        cells: list[Cell | str | float] = [name]
        for result in results:
            one = result.compared[stage][name][number]
            small = f"width {_PERCENT * one.width:+.0f} %, KS p {one.p:.2g}"
            cells.append(Cell(f"{one.pull:+.2f}", sort=one.pull, small=small))
        rows.append(cells)
    return Table(
        ("observable", *(result.point.name for result in results)),
        rows,
        f"Shift of the mean in reference widths, {STAGE_NAMES[stage]}; below it the width against the reference's "
        "and the Kolmogorov-Smirnov probability.",
    )


def _percent(value: float, error: float) -> Cell:
    if not np.isfinite(value):
        return Cell("-")
    return Cell(f"{_PERCENT * value:+.1f} ± {_PERCENT * error:.1f}", sort=_PERCENT * value)
