"""The study of conditioning: does a generator follow energy and angle, before and after reconstruction?

At test points of energy and angle (nine by default, as in the slides of the BIB-AE) every observable of generated showers is
compared with the reference's, before and after the reconstruction that is calibrated on the reference alone; energy
linearity and resolution, angular bias and resolution are shown against energy and against angle over the whole file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from caloforge.statistics.moments import FEWEST
from caloforge.studies.base import Context, Figure, Study, StudyResult, StudySettings
from caloforge.studies.conditioning import report
from caloforge.studies.conditioning.measure import STAGES, Measured, curves_of, measure, resolution_fits
from caloforge.studies.conditioning.points import PointResult, TestPoint, Window, compare, points_with_showers
from caloforge.validate.observables import OBSERVABLES, mip_peak
from caloforge.validate.reconstruction import Reconstruction

__all__ = ["ConditioningSettings", "ConditioningStudy"]


class ConditioningSettings(StudySettings):
    """Settings of the study."""

    energies: Annotated[tuple[float, ...], Field(min_length=1)] = (20.0, 50.0, 90.0)  # test points, GeV
    thetas: Annotated[tuple[float, ...], Field(min_length=1)] = (40.0, 60.0, 85.0)  # test points, degrees
    energy_window: Annotated[float, Field(gt=0)] | None = None  # half width, GeV; None: as ``showers`` allows
    theta_window: Annotated[float, Field(gt=0)] | None = None  # half width, degrees; likewise
    showers: Annotated[int, Field(ge=FEWEST)] = 200  # reference showers wanted in a window
    threshold: Annotated[float, Field(gt=0)] = 0.1  # a cell above this energy is a hit, MeV

    @property
    def points(self) -> tuple[TestPoint, ...]:
        """Every combination of the energies and angles, MeV and degrees, energy by energy."""
        pairs = product(self.energies, self.thetas)
        return tuple(TestPoint(1000.0 * energy, float(theta)) for energy, theta in pairs)


class ConditioningStudy(Study):
    """Energy and angle at test points, before and after reconstruction."""

    name = "conditioning"
    title = "Conditioning on energy and angle"
    source = "new-angles"
    papers = ("new-angles",)
    needs = (
        "reference showers of a detector with at least three layers, at or around the test points of energy and angle "
        "(set energies in GeV and thetas in degrees), and generated showers of the same detector"
    )
    question = "Are energy and angle correct at single test points, before and after reconstruction?"
    Settings = ConditioningSettings

    def check(self, context: Context) -> None:
        """Check that there are directions to measure and test points with showers."""
        why = OBSERVABLES["angle_axis"].rule(context.reference.detector)
        if why:
            self.refuse(f"the direction {why}")
        super().check(context)
        if not _points(context):
            energy = np.asarray(context.reference.incident_energy) / 1000.0
            theta = np.asarray(context.reference.incident_theta)
            self.refuse(
                f"no test point has {FEWEST} reference showers around it, which have {energy.min():g} to {energy.max():g} GeV "
                f"and {theta.min():g} to {theta.max():g} degrees"
            )

    def run(self, context: Context) -> StudyResult:
        """Measure all samples and compare them at each point and along energy and angle."""
        threshold = context.chosen(ConditioningSettings).threshold
        reconstruction = _reconstruction(context)
        labels = context.labels
        arrays = context.measured(lambda showers, label: measure(showers, reconstruction, threshold, label))
        samples = [Measured.of(found) for found in arrays]
        usable = _points(context)
        results = [compare(samples, point, window) for point, window in usable]
        curves = curves_of(samples)
        mip = float(np.median(reconstruction.mip))
        peaks = [mip_peak(sample.spectrum, near=mip) for sample in samples]
        sizes = {label: len(sample) for label, sample in zip(labels, samples, strict=True)}
        figures: list[Figure] = [
            *(
                report.points_figure(results, stage, quantity, context.shown)
                for quantity in ("energy_response", "angle_residual")
                for stage in STAGES
            ),
            *report.curve_figures(curves, context.shown),
            *(
                report.map_figure(results, stage, number, label)
                for number, label in enumerate(labels[1:])
                for stage in STAGES
            ),
            report.spectrum_figure(
                [one.spectrum for one in samples], list(sizes.values()), context.shown, mip
            ),
        ]
        data = {
            "points": {result.point.key: result.to_dict(labels) for result in results},
            "curves": {
                name: {
                    stage: {label: curve.to_dict() for label, curve in zip(labels, found, strict=True)}
                    for stage, found in stages.items()
                }
                for name, stages in curves.items()
            },
            "resolution_fits": resolution_fits(curves["energy_against_energy"], labels),
            "calibration": reconstruction.calibration,
            "mip_peak_mev": dict(zip(labels, peaks, strict=True)),
            "n": sizes,
        }
        return StudyResult(
            rows=report.summary_rows(results, labels, peaks),
            figures=figures,
            texts=_texts(context, results, usable, reconstruction),
            blocks=report.point_tables(results, labels),
            data=data,
            showers=sizes,
        )


def _points(context: Context) -> list[tuple[TestPoint, Window]]:
    """Return the test points that have showers of the reference around them."""
    chosen, reference = context.chosen(ConditioningSettings), context.reference
    energy = np.asarray(reference.incident_energy, np.float64)
    theta = np.asarray(reference.incident_theta, np.float64)
    width = None if chosen.energy_window is None else 1000.0 * chosen.energy_window
    return points_with_showers(energy, theta, chosen.points, chosen.showers, width, chosen.theta_window)


def _reconstruction(context: Context) -> Reconstruction:
    """Return the reconstruction calibrated on the reference, its constants from the cache."""

    def fit() -> dict[str, Any]:
        fitted = Reconstruction.fit(context.reference)
        return {"calibration": fitted.calibration, "mip": fitted.mip}

    found = context.cache.get("reconstruction", fit, context.reference_hashes)
    return Reconstruction(context.reference.detector, found["mip"], calibration=float(found["calibration"]))


def _texts(
    context: Context,
    results: Sequence[PointResult],
    usable: Sequence[tuple[TestPoint, Window]],
    reconstruction: Reconstruction,
) -> list[str]:
    """Return what a reader must know: how many showers, how wide the windows, which points are missing."""
    counts = [result.n[0] for result in results]
    widths = [window.energy / point.energy for point, window in usable]
    texts = [
        "The paper's numbers are of photons of 10 to 100 GeV and 30 to 90 degrees in 30 x 60 x 30 cells, ours of "
        f"'{reconstruction.detector.name}'.",
        f"{len(context.reference):,} reference showers; {min(counts):,} to {max(counts):,} at each of {len(results)} test "
        f"points, within {100 * max(widths):.0f} % of the energy and {max(w.theta for _, w in usable):.0f} degrees at most; "
        "quantities are extrapolated to the point with a linear fit in the window.",
        f"Reconstruction: cells of at least {reconstruction.threshold:g} MIP, the leading cluster of neighbours, one "
        f"energy constant ({reconstruction.calibration:.4g}) from the reference for all samples.",
    ]
    found = [point for point, _ in usable]
    missing = [point.name for point in context.chosen(ConditioningSettings).points if point not in found]
    if missing:
        texts.append(
            f"Left out, since there are fewer than {FEWEST} reference showers: " + "; ".join(missing) + "."
        )
    return texts
