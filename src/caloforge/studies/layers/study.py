"""The study of layers: what each layer sees, against energy, after the figures of the ATLAS note.

Energy per layer at every energy, shower depth, response and resolution, average eta (x) and phi (y) profiles of each layer,
energy-weighted mean and width, for generated against reference showers of any detector of several layers. The note's
numbers stand beside ours where the layers bear the note's names.

References:
    ATLAS Collaboration, ATL-SOFT-PUB-2018-001, figures 7 to 14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.geometry import Detector
from caloforge.studies.base import Context, Figure, Study, StudyResult, StudySettings, sample_labels
from caloforge.studies.layers.figures import (
    depth_figure,
    fraction_figure,
    histogram_figure,
    means_figure,
    profile_figure,
    response_figure,
)
from caloforge.studies.layers.measure import (
    LayerSample,
    centre_means,
    depths,
    fractions,
    from_arrays,
    lateral_deviations,
    measure_layers,
    response,
    width_means,
)
from caloforge.studies.layers.tables import Found, summary_rows, tables
from caloforge.studies.sources import Source, made
from caloforge.validate.resolution import EnergySlices

__all__ = ["LayersSettings", "LayersStudy"]


class LayersSettings(StudySettings):
    """What may be set.

    Arguments:
        energy: Energy at which histograms and profiles are drawn, GeV: the nearest slice is taken.
        bins: Slices of a file of continuous energies; a file of few energies has one for each.
    """

    energy: Annotated[float, Field(gt=0)] = 65.0
    bins: Annotated[int, Field(ge=1, le=30)] = 9


class LayersStudy(Study):
    """Energies, depth, response and lateral profiles of each layer."""

    name: ClassVar[str] = "layers"
    title: ClassVar[str] = "What each layer sees"
    source: ClassVar[str] = "atlas-deep-generative"
    needs: ClassVar[str] = (
        "reference showers of a detector of two layers or more, of one or several energies, and generated showers of the "
        "same detector and energies"
    )
    Settings: ClassVar[type[StudySettings]] = LayersSettings

    def check(self, context: Context) -> None:
        """Check that there are layers and that all samples are of one detector."""
        super().check(context)
        detector = context.reference.detector
        if detector.n_layers < 2:
            self.refuse(f"'{detector.name}' has one layer")
        for source in context.generated:
            self.require_detector(source, detector)

    def run(self, context: Context) -> StudyResult:
        """Measure all samples and compare them slice by slice."""
        chosen = context.chosen(LayersSettings)
        reference, detector = context.reference, context.reference.detector
        slices = EnergySlices.of(np.asarray(reference.incident_energy, np.float64), chosen.bins)
        at = slices.nearest(1000.0 * chosen.energy)
        samples = [_measured(context, None, slices)]
        samples += [_measured(context, source, slices) for source in context.generated]
        found = [
            Found(
                sample,
                fractions(sample, slices),
                depths(sample, samples[0], slices),
                response(sample, slices, detector.sampling_fraction),
                lateral_deviations(sample, samples[0], slices),
            )
            for sample in samples
        ]
        return StudyResult(
            rows=summary_rows(found, detector, slices, at),
            figures=_figures(found, detector, slices, at),
            texts=_texts(found, slices, at, chosen.energy),
            blocks=tables(found, detector, slices, at),
            data=_data(found, detector, slices, at),
            showers={one.sample.label: len(one.sample.energy) for one in found},
        )


def _measured(context: Context, source: Source | None, slices: EnergySlices) -> LayerSample:
    """Return what was measured of the reference (None) or of a generated sample."""
    reference = context.reference
    detector: Detector = reference.detector
    if source is None:
        arrays = context.cache.get(
            "layers-reference",
            lambda: measure_layers(reference, slices, "measure the reference"),
            context.reference_hashes,
        )
        return from_arrays(arrays, sample_labels(context)[0], detector)

    def compute() -> Mapping[str, Any]:
        key = "/".join(context.reference_hashes)
        with made(source, context.n, reference, context.seed, context.cache, key) as showers:
            return measure_layers(showers, slices, f"measure {source.label}")

    name = f"layers-{source.sha256[:16]}"
    arrays = context.cache.get(name, compute, context.reference_hashes, source.sha256, context.n)
    return from_arrays(arrays, source.label, detector)


def _figures(found: Sequence[Found], detector: Detector, slices: EnergySlices, at: int) -> list[Figure]:
    samples = [one.sample for one in found]
    labels = [sample.label for sample in samples]
    centres = [centre_means(sample, slices) for sample in samples]
    widths = [width_means(sample, slices) for sample in samples]
    return [
        histogram_figure(samples, detector, slices, at),
        fraction_figure([one.fractions for one in found], labels, detector, slices, at),
        depth_figure(samples, slices),
        response_figure([one.curve for one in found], labels),
        profile_figure(samples, detector, slices, at, 0),
        profile_figure(samples, detector, slices, at, 1),
        means_figure(centres, widths, labels, detector, slices, at),
    ]


def _data(found: Sequence[Found], detector: Detector, slices: EnergySlices, at: int) -> dict[str, Any]:
    """Return every number of the figures, by sample."""
    data: dict[str, Any] = {
        "layers": [layer.name for layer in detector.layers],
        "energies_mev": slices.centres,
        "energy_edges_mev": slices.edges,
        "shown_slice": at,
    }
    for one in found:
        centres, widths = centre_means(one.sample, slices), width_means(one.sample, slices)
        data[one.sample.label] = {
            "n": [int((one.sample.member == s).sum()) for s in range(len(slices))],
            "outside": int((one.sample.member < 0).sum()),
            "fractions": {"mean": one.fractions.mean, "error": one.fractions.error},
            "depth": {
                "mean": one.depth.mean,
                "error": one.depth.error,
                "width": one.depth.width,
                "ks_p": one.depth.p,
            },
            "response": one.curve.to_dict(),
            "centres_mm": {axis: {"mean": m.mean, "error": m.error} for axis, m in centres.items()},
            "widths_mm": {axis: {"mean": m.mean, "error": m.error} for axis, m in widths.items()},
            "profiles": [
                {
                    "layer": profile.axis.layer,
                    "axis": profile.axis.name,
                    "edges": profile.axis.edges,
                    "mean": profile.mean[at],
                    "error": profile.error[at],
                    "deviation": one.lateral[index, :, 0],
                    "deviation_error": one.lateral[index, :, 1],
                    "mean_deviation": one.lateral[index, :, 2],
                }
                for index, profile in enumerate(one.sample.profiles)
            ],
        }
    return data


def _texts(found: Sequence[Found], slices: EnergySlices, at: int, wanted: float) -> list[str]:
    counts = [int((found[0].sample.member == s).sum()) for s in range(len(slices))]
    texts = [
        f"{len(found[0].sample.energy):,} reference showers in {len(slices)} slices of energy, {min(counts):,} to "
        f"{max(counts):,} in each; histograms and profiles are those of {slices.name(at)} (asked for: {wanted:g} GeV)."
    ]
    for one in found[1:]:
        outside = int((one.sample.member < 0).sum())
        if outside:
            texts.append(f"{outside:,} showers of {one.sample.label} lie outside the reference's energies.")
    return texts
