"""Numbers of the study for people: the summary beside the note's, and tables of every energy and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.studies.base import Row
from caloforge.studies.layers.measure import Depth, LayerSample, Means
from caloforge.studies.papers import paper_values
from caloforge.validate.report.page import Block, Cell, Table
from caloforge.validate.resolution import EnergySlices, ResponseCurve

__all__ = ["Found", "summary_rows", "tables"]

_PERCENT = 100.0
_FEW = 8
_PUBLISHED = {"vae": "vae", "wgan-gp": "gan"}
"""Model to the note's one of its kind."""
_PAPERS = (("geant4", "Geant4 (note)"), ("vae", "VAE (note)"), ("gan", "WGAN-GP (note)"))


@dataclass(frozen=True, eq=False)
class Found:
    """All numbers of one sample; the reference's lateral deviations are empty.

    Attributes:
        sample: What was measured.
        fractions: (S, L) means.
        depth: (S,).
        curve: Response and resolution.
        lateral: (profiles, S, 3).
    """

    sample: LayerSample
    fractions: Means
    depth: Depth
    curve: ResponseCurve
    lateral: NDArray[np.float64]


def summary_rows(found: Sequence[Found], detector: Detector, slices: EnergySlices, at: int) -> list[Row]:
    """Return the summary: fractions beside those of the note's Geant4, VAE and GAN, then how far each sample is off.

    Arguments:
        found: The reference first.
        detector: The detector.
        slices: Slices in energy.
        at: Slice at which the note gives numbers.
    """
    known = paper_values("layers")
    rows = []
    for one in found if detector.n_layers <= _FEW else ():
        for layer in range(detector.n_layers):
            kind = "geant4" if one is found[0] else _PUBLISHED.get(one.sample.label.rpartition("/")[2])
            key = f"{kind}_{detector.layers[layer].name}"
            published = f"layers.{key}" if key in known else None
            rows.append(
                Row(
                    f"energy in the {detector.layers[layer].name}, {slices.name(at)}",
                    _PERCENT * float(one.fractions.mean[at, layer]),
                    _PERCENT * float(one.fractions.error[at, layer]),
                    published,
                    "%",
                    sample=one.sample.label,
                )
            )
    for one in found[1:]:
        rows += _differences(found[0], one, detector, slices, at)
    return rows


def _differences(
    reference: Found, one: Found, detector: Detector, slices: EnergySlices, at: int
) -> list[Row]:
    label = one.sample.label
    shift = _PERCENT * (one.fractions.mean - reference.fractions.mean)
    error = _PERCENT * np.hypot(one.fractions.error, reference.fractions.error)
    rows = [
        _worst(
            "largest difference of a layer's energy, all energies", shift, error, "%", label, slices, detector
        )
    ]
    for name, quantity in (("response", "mean response"), ("resolution", "width of the total energy")):
        a, b = getattr(reference.curve, name), getattr(one.curve, name)
        ea, eb = (getattr(curve, f"{name}_error") for curve in (reference.curve, one.curve))
        if name == "resolution":  # the width itself, not over the mean
            ea, eb = ea * reference.curve.response, eb * one.curve.response
            a, b = a * reference.curve.response, b * one.curve.response
        ratio = b / a
        spread = np.hypot(eb, ratio * ea) / a
        title = f"largest deviation, {quantity}, all energies"
        rows.append(_worst(title, _PERCENT * (ratio - 1), _PERCENT * spread, "%", label, slices, detector))
    depth = one.depth.mean - reference.depth.mean
    depth_error = np.hypot(one.depth.error, reference.depth.error)
    rows.append(
        _worst("largest shift of the shower depth", depth, depth_error, "layers", label, slices, detector)
    )
    rows += _lateral_rows(one, detector, slices, at)
    return rows


def _worst(
    title: str,
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    unit: str,
    label: str,
    slices: EnergySlices,
    detector: Detector,
) -> Row:
    """Return the row of the largest absolute value of (S,) or (S, L)."""
    if not np.isfinite(values).any():
        return Row(title, None, unit=unit, note="too few showers", sample=label)
    place = np.unravel_index(int(np.nanargmax(np.abs(values))), values.shape)
    where = slices.name(int(place[0]))
    if values.ndim == 2:
        where += f", {detector.layers[int(place[1])].name}"
    note = f"{values[place]:+.3g} at {where}"
    return Row(title, float(abs(values[place])), float(errors[place]), None, unit, note, label)


def _lateral_rows(one: Found, detector: Detector, slices: EnergySlices, at: int) -> list[Row]:
    """Return the largest and the typical deviation of the lateral profiles, weighted with the layers' energies."""
    here = one.lateral[:, at]
    title = f"lateral profiles, {slices.name(at)}"
    if not np.isfinite(here[:, 0]).any():
        note = "too few showers"
        return [Row(f"largest deviation, {title}", None, None, "layers.lateral", "%", note, one.sample.label)]
    worst = int(np.nanargmax(here[:, 0]))
    axis = one.sample.profiles[worst].axis
    note = f"{axis.name} of {detector.layers[axis.layer].name}, bins of at least 1 % of the layer's energy"
    weight = np.repeat(one.fractions.mean[at], 2)
    good = np.isfinite(here[:, 2])
    typical = float((weight[good] * here[good, 2]).sum() / weight[good].sum())
    return [
        Row(
            f"largest deviation, {title}",
            _PERCENT * float(here[worst, 0]),
            _PERCENT * float(here[worst, 1]),
            "layers.lateral",
            "%",
            note,
            one.sample.label,
        ),
        Row(
            f"mean deviation, {title}",
            _PERCENT * typical,
            None,
            None,
            "%",
            "weighted with the energy of bins and layers",
            one.sample.label,
        ),
    ]


def tables(
    found: Sequence[Found], detector: Detector, slices: EnergySlices, at: int
) -> dict[str, list[Block]]:
    """Return the sections of the page: fractions, energies, lateral profiles."""
    sections: dict[str, list[Block]] = {}
    if detector.n_layers <= _FEW:
        sections["Energy of the layers"] = [
            _note_table(found, detector, slices, at),
            _fraction_table(found, detector, slices),
        ]
    sections["Response, resolution and depth"] = [_energy_table(found, slices)]
    if len(found) > 1:
        sections["Lateral profiles"] = [_lateral_table(found, detector, slices, at)]
    return sections


def _note_table(found: Sequence[Found], detector: Detector, slices: EnergySlices, at: int) -> Table:
    known = paper_values("layers")
    rows = []
    for layer in range(detector.n_layers):
        name = detector.layers[layer].name
        cells: list[Cell | str | float] = [name]
        cells += [_percent(one.fractions.mean[at, layer], one.fractions.error[at, layer], 2) for one in found]
        for prefix, _ in _PAPERS:
            value = known.get(f"{prefix}_{name}")
            cells.append(
                Cell("" if value is None else value.text, sort=None if value is None else value.value)
            )
        rows.append(cells)
    columns = ("layer", *(one.sample.label for one in found), *(title for _, title in _PAPERS))
    return Table(
        columns, rows, f"Mean part of the visible energy at {slices.name(at)}; the note's at 65 GeV."
    )


def _fraction_table(found: Sequence[Found], detector: Detector, slices: EnergySlices) -> Table:
    rows = []
    for number in range(len(slices)):
        for one in found:
            cells: list[Cell | str | float] = [
                Cell(slices.name(number), sort=float(slices.centres[number])),
                Cell(one.sample.label),
                Cell(str(int((one.sample.member == number).sum()))),
            ]
            for layer in range(detector.n_layers):
                off = abs(one.fractions.mean[number, layer] - found[0].fractions.mean[number, layer])
                flag = "" if one is found[0] or not np.isfinite(off) else ("good" if off <= 0.005 else "warn")
                cells.append(
                    _percent(one.fractions.mean[number, layer], one.fractions.error[number, layer], 2, flag)
                )
            rows.append(cells)
    columns = ("energy", "sample", "showers", *(layer.name for layer in detector.layers))
    return Table(
        columns,
        rows,
        "Mean part of the visible energy at every energy; marked good within 0.5 points of the reference.",
        texts=(1,),
    )


def _energy_table(found: Sequence[Found], slices: EnergySlices) -> Table:
    rows = []
    for number in range(len(slices)):
        for one in found:
            curve, depth = one.curve, one.depth
            rows.append(
                [
                    Cell(slices.name(number), sort=float(slices.centres[number])),
                    Cell(one.sample.label),
                    _percent(curve.response[number], curve.response_error[number], 2),
                    _percent(curve.resolution[number], curve.resolution_error[number], 2),
                    _percent(curve.width68[number], np.nan, 2),
                    _number(depth.mean[number], depth.error[number]),
                    _number(depth.width[number]),
                    _number(depth.p[number]) if one is not found[0] else Cell(""),
                ]
            )
    columns = (
        "energy",
        "sample",
        "response",
        "resolution",
        "depth [layers]",
        "its width",
        "KS p of the depth",
    )
    return Table(columns, rows, "Of all showers of an energy.", texts=(1,))


def _lateral_table(found: Sequence[Found], detector: Detector, slices: EnergySlices, at: int) -> Table:
    rows = []
    for index, profile in enumerate(found[0].sample.profiles):
        axis = profile.axis
        cells: list[Cell | str | float] = [detector.layers[axis.layer].name, axis.name]
        for one in found[1:]:
            largest, error, mean = one.lateral[index, at]
            everywhere = one.lateral[index, :, 2]
            cells += [
                _percent(largest, error, 1),
                _percent(mean, float("nan"), 1),
                _percent(
                    float(np.nanmax(everywhere)) if np.isfinite(everywhere).any() else np.nan, np.nan, 1
                ),
            ]
        rows.append(cells)
    names = [
        f"{one.sample.label}: {what}"
        for one in found[1:]
        for what in ("largest", "mean", "mean, worst energy")
    ]
    return Table(
        ("layer", "axis", *names),
        rows,
        f"Deviation of the average profiles at {slices.name(at)}, in bins of at least 1 % of the layer's energy; the mean "
        "is weighted with the energy.",
        texts=(0, 1),
    )


def _percent(value: float, error: float, digits: int, flag: str = "") -> Cell:
    if not np.isfinite(value):
        return Cell("-")
    text = f"{_PERCENT * value:.{digits}f}"
    text += f" ± {_PERCENT * error:.{digits}f} %" if np.isfinite(error) else " %"
    return Cell(text, sort=_PERCENT * float(value), flag=flag)


def _number(value: float, error: float = float("nan")) -> Cell:
    if not np.isfinite(value):
        return Cell("-")
    text = f"{value:.3g}" + (f" ± {error:.1g}" if np.isfinite(error) else "")
    return Cell(text, sort=float(value))
