"""The study of conditioning: does a generator follow energy and angle, before and after reconstruction?

At test points of energy and angle (nine by default, as in the slides of the BIB-AE) every observable of generated showers is held
against the reference's, before and after the reconstruction that is calibrated on the reference alone; energy
linearity and resolution, angular bias and resolution are given against energy and against angle over the whole file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.errors import TooFewShowersError
from caloforge.showers import ShowerSource
from caloforge.studies.base import Context, Figure, Study, StudyResult, StudySettings, sample_labels
from caloforge.studies.conditioning.compare import (
    PointResult,
    TestPoint,
    Window,
    compare,
    grid_of_points,
    points_with_showers,
)
from caloforge.studies.conditioning.curves import FEWEST, angle_curve, energy_curve
from caloforge.studies.conditioning.figures import (
    Curve,
    curve_figure,
    map_figure,
    points_figure,
    spectrum_figure,
)
from caloforge.studies.conditioning.measure import STAGES, Measured, measure
from caloforge.studies.conditioning.tables import point_tables, summary_rows
from caloforge.studies.sources import Source, made
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.reconstruction.reconstruct import Reconstruction
from caloforge.validate.resolution import bins_of, fit_resolution

__all__ = ["ConditioningSettings", "ConditioningStudy"]


class ConditioningSettings(StudySettings):
    """What may be set.

    Arguments:
        energies: Energies of the test points, GeV.
        thetas: Their angles, degrees.
        energy_window: Half width around a point, GeV; by default as narrow as ``showers`` allows.
        theta_window: Half width around a point, degrees; likewise.
        showers: Reference showers wanted in a window.
        threshold: A cell above this energy is a hit, MeV.
    """

    energies: Annotated[tuple[float, ...], Field(min_length=1)] = (20.0, 50.0, 90.0)
    thetas: Annotated[tuple[float, ...], Field(min_length=1)] = (40.0, 60.0, 85.0)
    energy_window: Annotated[float, Field(gt=0)] | None = None
    theta_window: Annotated[float, Field(gt=0)] | None = None
    showers: Annotated[int, Field(ge=FEWEST)] = 200
    threshold: Annotated[float, Field(gt=0)] = 0.1

    @property
    def points(self) -> tuple[TestPoint, ...]:
        """The test points, MeV and degrees."""
        return grid_of_points([1000.0 * energy for energy in self.energies], self.thetas)


class _Incident:
    """Energies and angles of a source."""

    def __init__(self, source: ShowerSource) -> None:
        self.energy = np.asarray(source.incident_energy, np.float64)
        self.theta = np.asarray(source.incident_theta, np.float64)


class ConditioningStudy(Study):
    """Energy and angle at test points, before and after reconstruction."""

    name: ClassVar[str] = "conditioning"
    title: ClassVar[str] = "Conditioning on energy and angle"
    source: ClassVar[str] = "new-angles"
    needs: ClassVar[str] = (
        "reference showers of a detector of three layers or more, at or around the test points of energy and angle "
        "(set energies in GeV and thetas in degrees), and generated showers of the same detector"
    )
    Settings: ClassVar[type[StudySettings]] = ConditioningSettings

    def check(self, context: Context) -> None:
        """Check that there are directions to measure and test points with showers."""
        super().check(context)
        detector = context.reference.detector
        why = OBSERVABLES["angle_axis"].why_not(detector)
        if why:
            self.refuse(f"the direction {why}")
        for source in context.generated:
            self.require_detector(source, detector)
        if not self._points(context):
            incident = _Incident(context.reference)
            energy, theta = incident.energy / 1000.0, incident.theta
            self.refuse(
                f"no test point has {FEWEST} reference showers around it, which have {energy.min():g} to {energy.max():g} GeV "
                f"and {theta.min():g} to {theta.max():g} degrees"
            )

    def _points(self, context: Context) -> list[tuple[TestPoint, Window]]:
        chosen = context.chosen(ConditioningSettings)
        incident = _Incident(context.reference)
        width = None if chosen.energy_window is None else 1000.0 * chosen.energy_window
        return points_with_showers(incident, chosen.points, chosen.showers, width, chosen.theta_window)

    def run(self, context: Context) -> StudyResult:
        """Measure all samples and compare them at each point and along energy and angle."""
        chosen = context.chosen(ConditioningSettings)
        reference = context.reference
        reconstruction = _reconstruction(context)
        labels = sample_labels(context)
        samples = [_measured(context, None, reconstruction)]
        samples += [_measured(context, source, reconstruction) for source in context.generated]
        usable = self._points(context)
        results = [compare(samples, point, window) for point, window in usable]
        curves = _curves(samples)
        mip = float(np.median(reconstruction.mip))
        peaks = _peaks(samples, mip)
        figures = _figures(results, curves, samples, labels, mip)
        data = {
            "points": {result.point.key: result.to_dict(labels) for result in results},
            "curves": {
                name: {
                    stage: {label: curve.to_dict() for label, curve in zip(labels, found, strict=True)}
                    for stage, found in stages.items()
                }
                for name, stages in curves.items()
            },
            "resolution_fits": _fits(curves["energy_against_energy"], labels),
            "calibration": reconstruction.calibration,
            "mip_peak_mev": dict(zip(labels, peaks, strict=True)),
            "n": {label: len(sample) for label, sample in zip(labels, samples, strict=True)},
        }
        texts = _texts(chosen, results, usable, len(reference), reconstruction)
        return StudyResult(
            rows=summary_rows(results, labels, peaks),
            figures=figures,
            texts=texts,
            blocks=point_tables(results, labels),
            data=data,
            showers={label: len(sample) for label, sample in zip(labels, samples, strict=True)},
        )


def _reconstruction(context: Context) -> Reconstruction:
    """Return the reconstruction calibrated on the reference, its constants from the cache."""

    def fit() -> dict[str, Any]:
        fitted = Reconstruction.fit(context.reference)
        return {"calibration": fitted.calibration, "mip": fitted.mip}

    found = context.cache.get("reconstruction", fit, context.reference_hashes)
    return Reconstruction(context.reference.detector, found["mip"], calibration=float(found["calibration"]))


def _measured(context: Context, source: Source | None, reconstruction: Reconstruction) -> Measured:
    """Return what was measured of the reference (None) or of a generated sample, from the cache if it is there."""
    chosen, reference = context.chosen(ConditioningSettings), context.reference

    def compute() -> Mapping[str, Any]:
        if source is None:
            return measure(reference, reconstruction, chosen.threshold, "measure the reference").arrays()
        key = "/".join(context.reference_hashes)
        with made(source, context.n, reference, context.seed, context.cache, key) as showers:
            return measure(showers, reconstruction, chosen.threshold, f"measure {source.label}").arrays()

    if source is None:
        arrays = context.cache.get("measured-reference", compute, context.reference_hashes)
    else:
        name = f"measured-{source.sha256[:16]}"
        arrays = context.cache.get(name, compute, context.reference_hashes, source.sha256, context.n)
    return Measured.from_arrays(arrays)


def _curves(samples: Sequence[Measured]) -> dict[str, dict[str, list[Curve]]]:
    """Return every curve by name, stage and sample; against what varies."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for variable, name in (("energy", "incident_energy"), ("theta", "incident_theta")):
        known = getattr(samples[0], variable)
        edges = bins_of(known, 8)
        found[f"energy_against_{variable}"] = {
            stage: [
                energy_curve(sample.values[stage]["energy_response"], getattr(sample, variable), edges, name)
                for sample in samples
            ]
            for stage in STAGES
        }
        found[f"angle_against_{variable}"] = {
            stage: [
                angle_curve(sample.values[stage]["angle_residual"], getattr(sample, variable), edges, name)
                for sample in samples
            ]
            for stage in STAGES
        }
    return found


def _fits(curves: Mapping[str, Sequence[Any]], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return stochastic, noise and constant terms by stage and sample, where there are energies enough."""
    out: dict[str, dict[str, Any]] = {}
    for stage, found in curves.items():
        out[stage] = {}
        for label, curve in zip(labels, found, strict=True):
            try:
                fit = fit_resolution(curve)
            except TooFewShowersError:
                continue
            out[stage][label] = {"stochastic": fit.stochastic, "noise": fit.noise, "constant": fit.constant}
    return out


def _peaks(samples: Sequence[Measured], mip: float) -> list[float]:
    """Return the position of the MIP peak of each sample, MeV; NaN where there is none."""
    from caloforge.validate.observables import mip_peak

    return [mip_peak(sample.spectrum, near=mip) for sample in samples]


def _figures(
    results: Sequence[PointResult],
    curves: Mapping[str, Mapping[str, Sequence[Curve]]],
    samples: Sequence[Measured],
    labels: Sequence[str],
    mip: float,
) -> list[Figure]:
    figures = [
        points_figure(results, stage, quantity, labels)
        for quantity in ("energy_response", "angle_residual")
        for stage in STAGES
    ]
    titles = {
        "energy_against_energy": "Energy linearity and resolution against energy",
        "energy_against_theta": "Energy response and resolution against angle",
        "angle_against_energy": "Angular bias and resolution against energy",
        "angle_against_theta": "Angular bias and resolution against angle",
    }
    for name, title in titles.items():
        if len(curves[name][STAGES[0]][0].centre) > 1:
            caption = (
                "Each point holds the showers of one bin; the reference's bins are used for all samples."
            )
            figures.append(curve_figure(name, title, curves[name], labels, caption))
    figures += [
        map_figure(results, stage, number, label)
        for number, label in enumerate(labels[1:])
        for stage in STAGES
    ]
    spectra = [sample.spectrum for sample in samples]
    figures.append(spectrum_figure(spectra, [len(sample) for sample in samples], labels, mip))
    return figures


def _texts(
    chosen: ConditioningSettings,
    results: Sequence[PointResult],
    usable: Sequence[tuple[TestPoint, Window]],
    n: int,
    reconstruction: Reconstruction,
) -> list[str]:
    """Return what a reader must know: how many showers, how wide the windows, which points are missing."""
    counts = [result.n[0] for result in results]
    widths = [window.energy / point.energy for point, window in usable]
    texts = [
        "The paper's numbers are of photons of 10 to 100 GeV and 30 to 90 degrees in 30 x 60 x 30 cells, ours of "
        f"'{reconstruction.detector.name}'.",
        f"{n:,} reference showers; {min(counts):,} to {max(counts):,} at each of {len(results)} test points, within "
        f"{100 * max(widths):.0f} % of the energy and {max(w.theta for _, w in usable):.0f} degrees at most; quantities "
        "are followed to the point itself by a line fitted in the window.",
        f"Reconstruction: cells of at least {reconstruction.threshold:g} MIP, the leading cluster of neighbours, one "
        f"energy constant ({reconstruction.calibration:.4g}) from the reference for all samples.",
    ]
    missing = [point.name for point in chosen.points if point not in [found for found, _ in usable]]
    if missing:
        texts.append(
            f"Left out for want of reference showers (fewer than {FEWEST}): " + "; ".join(missing) + "."
        )
    return texts
