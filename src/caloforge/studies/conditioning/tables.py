"""Numbers of the study for people: the summary beside the paper's, and tables of all points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from caloforge.studies.base import Row
from caloforge.studies.conditioning.compare import Comparison, PointResult
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
                rows.append(_largest(results, stage, quantity, kind, number, label, name, paper, unit))
        rows.append(_peak_row(label, peaks[number + 1], "conditioning.mip_peak"))
    return rows


_SUMMARY = (
    ("energy_response", "relative", "mean energy response", "conditioning.response", "%"),
    ("energy_response", "width", "width of the energy response", "conditioning.width", "%"),
    ("angle_residual", "shift", "mean angle", None, "deg"),
    ("angle_residual", "width", "angular resolution", None, "%"),
)


def _largest(
    results: Sequence[PointResult],
    stage: str,
    quantity: str,
    kind: str,
    number: int,
    label: str,
    name: str,
    paper: str | None,
    unit: str,
) -> Row:
    """Return the row of the largest absolute difference over the points."""
    scale = _PERCENT if unit == "%" else 1.0
    found = [result.compared[stage][quantity][number] for result in results]
    values = np.array([scale * getattr(one, kind) for one in found])
    title = f"largest deviation, {name}, {STAGE_NAMES[stage]}"
    if not np.isfinite(values).any():
        return Row(title, None, paper=paper, unit=unit, note="too few showers", sample=label)
    worst = int(np.nanargmax(np.abs(values)))
    error = scale * _error(found[worst], kind, results[worst], stage, quantity, number)
    within = int((np.abs(values) <= np.abs(values[worst]) / 2).sum())
    note = f"{values[worst]:+.3g} at {results[worst].point.name}; at {within} of {len(values)} points below half of it"
    return Row(title, float(abs(values[worst])), error, paper, unit, note, label)


def _error(one: Comparison, kind: str, result: PointResult, stage: str, quantity: str, number: int) -> float:
    """Return the uncertainty of a difference."""
    if kind == "shift":
        reference, generated = result.local[stage][quantity][0], result.local[stage][quantity][number + 1]
        return float(np.hypot(reference.mean_error, generated.mean_error))
    return float(getattr(one, f"{kind}_error"))


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
    rows = []
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
