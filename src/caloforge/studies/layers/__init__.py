"""The study of layers: energies and shapes of each layer against incident energy, after the figures of the ATLAS note.

Energy per layer at every energy, shower depth, response and resolution, average eta (x) and phi (y) profiles of each layer,
energy-weighted mean and width, for generated against reference showers of any detector of several layers. The note's
numbers stand beside ours where the layers have the note's names.

References:
    ATLAS Collaboration, ATL-SOFT-PUB-2018-001, figures 7 to 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from caloforge.studies.base import Context, Row, Study, StudyResult, StudySettings
from caloforge.studies.layers.figures import layer_figures
from caloforge.studies.layers.measure import LayerSample, Means, measure_layers
from caloforge.studies.page import number_cell, paper_values, published_cell
from caloforge.units import plain_number
from caloforge.validate.report.page import Block, Cell, Table
from caloforge.validate.resolution import EnergySlices

__all__ = ["LayersSettings", "LayersStudy"]


_FEW = 8  # layers up to which each one has a column
_PUBLISHED = {"vae": "vae", "wgan-gp": "gan"}
"""Model to the note's one of its kind."""
_PAPERS = (("geant4", "Geant4 (note)"), ("vae", "VAE (note)"), ("gan", "WGAN-GP (note)"))


def _summary_rows(samples: Sequence[LayerSample], at: int) -> list[Row]:
    """Return the layers' fractions in slice ``at`` beside the note's, then how far each sample is off."""
    known, detector, slices = paper_values("layers"), samples[0].detector, samples[0].slices
    rows = []
    for one in samples if detector.n_layers <= _FEW else ():
        kind = "geant4" if one is samples[0] else _PUBLISHED.get(one.label.rpartition("/")[2])
        for layer, (mean, error) in zip(detector.layers, _percent(one.fractions, at), strict=True):
            key = f"{kind}_{layer.name}"
            title, published = f"energy in the {layer.name}, {slices.name(at)}", f"layers.{key}"
            rows.append(Row(title, mean, error, published if key in known else None, "%", sample=one.label))
    for one in samples[1:]:
        rows += [*_largest_differences(one), *_lateral_rows(one, at)]
    return rows


def _percent(means: Means, number: int) -> NDArray[np.float64]:
    """Return means and errors of a slice (L, 2), per cent."""
    return 100.0 * np.stack([means.mean[number], means.error[number]], axis=1)


def _largest_differences(one: LayerSample) -> list[Row]:
    reference = one.reference
    shift = 100.0 * (one.fractions.mean - reference.fractions.mean)
    error = 100.0 * np.hypot(one.fractions.error, reference.fractions.error)
    rows = [_largest(one, "largest difference of a layer's energy, all energies", shift, error, "%")]
    for name, quantity in (("response", "mean response"), ("resolution", "width of the total energy")):
        pair = []
        for curve in (reference.response, one.response):
            value = np.stack([getattr(curve, name), getattr(curve, f"{name}_error")])
            pair.append(value if name == "response" else value * curve.response)  # the width itself
        (a, ea), (b, eb) = pair
        title = f"largest deviation, {quantity}, all energies"
        rows.append(_largest(one, title, 100.0 * (b / a - 1), 100.0 * np.hypot(eb, b / a * ea) / a, "%"))
    depth = one.depth.mean - reference.depth.mean
    error = np.hypot(one.depth.error, reference.depth.error)
    return [*rows, _largest(one, "largest shift of the shower depth", depth, error, "layers")]


def _largest(
    one: LayerSample, title: str, values: NDArray[np.float64], errors: NDArray[np.float64], unit: str
) -> Row:
    """Return the row of the largest absolute value of (S,) or (S, L)."""
    if not np.isfinite(values).any():
        return Row(title, None, unit=unit, note="too few showers", sample=one.label)
    place = np.unravel_index(int(np.nanargmax(np.abs(values))), values.shape)
    where = one.slices.name(int(place[0]))
    if values.ndim == 2:
        where += f", {one.detector.layers[int(place[1])].name}"
    note = f"{plain_number(values[place], sign='+')} at {where}"
    return Row(title, abs(values[place]), errors[place], None, unit, note, one.label)


def _lateral_rows(one: LayerSample, at: int) -> list[Row]:
    """Return the largest and the typical deviation of the lateral profiles, weighted with the layers' energies."""
    here = one.deviations[:, at]
    title = f"lateral profiles, {one.slices.name(at)}"
    largest, published = f"largest deviation, {title}", "layers.lateral"
    if not np.isfinite(here[:, 0]).any():
        return [Row(largest, None, None, published, "%", "too few showers", one.label)]
    worst = int(np.nanargmax(here[:, 0]))
    axis = one.profiles[worst].axis
    where = f"{axis.name} of {one.detector.layers[axis.layer].name}"
    note = f"{where}, bins of at least 1 % of the layer's energy"
    weight, good = np.repeat(one.fractions.mean[at], 2), np.isfinite(here[:, 2])
    typical = 100.0 * float((weight[good] * here[good, 2]).sum() / weight[good].sum())
    how = "weighted with the energy of bins and layers"
    return [
        Row(largest, 100.0 * here[worst, 0], 100.0 * here[worst, 1], published, "%", note, one.label),
        Row(f"mean deviation, {title}", typical, None, None, "%", how, one.label),
    ]


def _tables(samples: Sequence[LayerSample], at: int) -> dict[str, list[Block]]:
    """Return the sections of the page: fractions, energies, lateral profiles."""
    sections: dict[str, list[Block]] = {}
    if samples[0].detector.n_layers <= _FEW:
        sections["Energy of the layers"] = [_note_table(samples, at), _fraction_table(samples)]
    sections["Response, resolution and depth"] = [_energy_table(samples)]
    if len(samples) > 1:
        sections["Lateral profiles"] = [_lateral_table(samples, at)]
    return sections


def _note_table(samples: Sequence[LayerSample], at: int) -> Table:
    known = paper_values("layers")
    rows = []
    for index, layer in enumerate(samples[0].detector.layers):
        percents = [_percent(one.fractions, at)[index] for one in samples]
        ours = [number_cell(mean, error, "%") for mean, error in percents]
        papers = [published_cell(known.get(f"{key}_{layer.name}")) for key, _ in _PAPERS]
        rows.append([Cell(layer.name), *ours, *papers])
    columns = ("layer", *(one.label for one in samples), *(title for _, title in _PAPERS))
    caption = f"Mean fraction of the visible energy at {samples[0].slices.name(at)}; the note has the values at 65 GeV."
    return Table(columns, rows, caption)


def _fraction_table(samples: Sequence[LayerSample]) -> Table:
    reference, rows = samples[0], []
    for number in range(len(reference.slices)):
        for one in samples:
            off = np.abs(one.fractions.mean[number] - reference.fractions.mean[number])
            flags = [""] * len(off) if one is reference else ["good" if x <= 0.005 else "warn" for x in off]
            cells = [
                number_cell(mean, error, "%", flag)
                for (mean, error), flag in zip(_percent(one.fractions, number), flags, strict=True)
            ]
            rows.append([_slice_cell(one, number), Cell(one.label), Cell(str(one.n[number])), *cells])
    columns = ("energy", "sample", "showers", *(layer.name for layer in reference.detector.layers))
    caption = "Mean fraction of the visible energy at every energy; marked good within 0.5 percentage points of the reference."
    return Table(columns, rows, caption, texts=(1,))


def _slice_cell(one: LayerSample, number: int) -> Cell:
    return Cell(one.slices.name(number), sort=float(one.slices.centres[number]))


def _energy_table(samples: Sequence[LayerSample]) -> Table:
    rows = []
    for number in range(len(samples[0].slices)):
        for one in samples:
            curve, depth = one.response, one.depth
            cells = [
                number_cell(100.0 * curve.response[number], 100.0 * curve.response_error[number], "%"),
                number_cell(100.0 * curve.resolution[number], 100.0 * curve.resolution_error[number], "%"),
                number_cell(100.0 * curve.width68[number], unit="%"),
                number_cell(depth.mean[number], depth.error[number]),
                number_cell(depth.width[number]),
                number_cell(depth.ks_p[number]) if one is not samples[0] else Cell(""),
            ]
            rows.append([_slice_cell(one, number), Cell(one.label), *cells])
    response = ("response", "resolution", "half of the central 68.3 %")
    columns = ("energy", "sample", *response, "depth [layers]", "its width", "KS p of the depth")
    return Table(columns, rows, "Of all showers of an energy.", texts=(1,))


def _lateral_table(samples: Sequence[LayerSample], at: int) -> Table:
    rows = []
    for index, profile in enumerate(samples[0].profiles):
        layer = samples[0].detector.layers[profile.axis.layer]
        cells: list[Cell | str | float] = [layer.name, profile.axis.name]
        for one in samples[1:]:
            largest, error, mean = 100.0 * one.deviations[index, at]
            worst = 100.0 * max(one.deviations[index, :, 2], key=lambda x: x if np.isfinite(x) else -1.0)
            cells += [number_cell(largest, error, "%"), *(number_cell(x, unit="%") for x in (mean, worst))]
        rows.append(cells)
    kinds = ("largest", "mean", "mean, worst energy")
    names = [f"{one.label}: {kind}" for one in samples[1:] for kind in kinds]
    caption = (
        f"Deviation of the average profiles at {samples[0].slices.name(at)}, in bins of at least 1 % of the layer's "
        "energy; the mean is weighted with the energy."
    )
    return Table(("layer", "axis", *names), rows, caption, texts=(0, 1))


class LayersSettings(StudySettings):
    """Settings of the study."""

    energy: Annotated[float, Field(gt=0)] = 65.0  # of histograms and profiles, GeV: the nearest slice
    bins: Annotated[int, Field(ge=1, le=30)] = 9  # slices of continuous energies; few energies have one each


class LayersStudy(Study):
    """Energies, depth, response and lateral profiles of each layer."""

    name = "layers"
    title = "Energies and shapes of each layer"
    source = "atlas-deep-generative"
    papers = ("atlas",)
    needs = (
        "reference showers of a detector of two layers or more, of one or several energies, and generated showers of the "
        "same detector and energies"
    )
    question = "Do the energies and the shapes of single layers agree?"
    Settings = LayersSettings

    def check(self, context: Context) -> None:
        """Check that there are layers and that all samples are of one detector."""
        detector = context.reference.detector
        if detector.n_layers < 2:
            self.refuse(f"'{detector.name}' has one layer")
        super().check(context)

    def run(self, context: Context) -> StudyResult:
        """Measure all samples and compare them slice by slice."""
        chosen = context.chosen(LayersSettings)
        reference, detector = context.reference, context.reference.detector
        slices = EnergySlices.of(np.asarray(reference.incident_energy, np.float64), chosen.bins)
        at = slices.nearest(1000.0 * chosen.energy)
        samples: list[LayerSample] = []
        arrays = context.measured(lambda showers, label: measure_layers(showers, slices, label))
        for label, found in zip(context.labels, arrays, strict=True):
            samples.append(LayerSample(label, found, detector, slices, samples[0] if samples else None))
        return StudyResult(
            rows=_summary_rows(samples, at),
            figures=layer_figures(samples, at, context.shown),
            texts=_texts(samples, at, chosen.energy),
            blocks=_tables(samples, at),
            data=_data(samples, at),
            showers={one.label: len(one.energy) for one in samples},
        )


def _data(samples: Sequence[LayerSample], at: int) -> dict[str, Any]:
    """Return every number of the figures, by sample."""
    slices = samples[0].slices
    data: dict[str, Any] = {
        "layers": [layer.name for layer in samples[0].detector.layers],
        "energies_mev": slices.centres,
        "energy_edges_mev": slices.edges,
        "shown_slice": at,
    }
    for one in samples:
        data[one.label] = {
            "n": one.n,
            "outside": int((one.member < 0).sum()),
            "fractions": vars(one.fractions),
            "depth": vars(one.depth),
            "response": one.response.to_dict(),
            "centres_mm": _by_axis(one.lateral("centre")),
            "widths_mm": _by_axis(one.lateral("width")),
            "profiles": [
                {
                    "layer": profile.axis.layer,
                    "axis": profile.axis.name,
                    "edges": profile.axis.edges,
                    "mean": profile.mean[at],
                    "error": profile.error[at],
                    "deviation": deviations[:, 0],
                    "deviation_error": deviations[:, 1],
                    "mean_deviation": deviations[:, 2],
                }
                for profile, deviations in zip(one.profiles, one.deviations, strict=True)
            ],
        }
    return data


def _by_axis(means: dict[str, Means]) -> dict[str, Any]:
    return {axis: vars(one) for axis, one in means.items()}


def _texts(samples: Sequence[LayerSample], at: int, wanted: float) -> list[str]:
    reference, slices = samples[0], samples[0].slices
    texts = [
        f"{len(reference.energy):,} reference showers in {len(slices)} slices of energy, {reference.n.min():,} to "
        f"{reference.n.max():,} in each; histograms and profiles are those of {slices.name(at)}, nearest to "
        f"{wanted:g} GeV."
    ]
    for one in samples[1:]:
        outside = int((one.member < 0).sum())
        if outside:
            texts.append(f"{outside:,} showers of {one.label} lie outside the reference's energies.")
    return texts
