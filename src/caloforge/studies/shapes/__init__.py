"""The comparison of generators by shower shapes, core cells and speed, after the Conv2D against the Conv3D GAN.

Parameters, milliseconds a shower, speed-up against Geant4 timed in the same run, shower-shape MSE, sampling fraction against
energy, cell spectrum, mean and standard deviation of the core cells, Kolmogorov-Smirnov probabilities. A file of
showers has everything but a speed.

References:
    F. Rehm et al., arXiv:2103.13698.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from caloforge.generate.timing import count_parameters, time_generator
from caloforge.showers import ShowerSource
from caloforge.studies.base import Context, Study, StudyResult, StudySettings
from caloforge.studies.page import document
from caloforge.studies.shapes import report
from caloforge.studies.shapes.report import Shapes, SimulationTime, time_geant4
from caloforge.studies.sources import cached_generation
from caloforge.units import plain_number
from caloforge.validate.metrics.base import Settings
from caloforge.validate.metrics.moments import SamplingFraction
from caloforge.validate.metrics.shapes import ShapeMSE
from caloforge.validate.resolution import EnergySlices
from caloforge.validate.sample import Sample
from caloforge.validate.shape_tests import (
    CoreRatios,
    CoreWindow,
    compare_cores,
    core_energies,
    core_window,
    reference_core,
    shape_tests,
)

__all__ = ["ShapesSettings", "ShapesStudy"]


class ShapesSettings(StudySettings):
    """Settings of the study."""

    energy: Annotated[float, Field(gt=0)] = 250.0  # energy at which core cells are compared, GeV
    half_width: Annotated[float, Field(gt=0)] = 2.0  # of the window, GeV; widened until it has enough showers
    core_showers: Annotated[int, Field(ge=4)] = 200  # showers of each sample wanted in the window
    bins: Annotated[int, Field(ge=1, le=20)] = 5  # slices in energy for the probabilities
    batch: Annotated[int, Field(ge=1)] = 100  # showers of a batch when a generator is timed
    timing: bool = True  # whether generators and Geant4 are timed; the published pages have the benchmark's times instead
    timing_seconds: Annotated[float, Field(gt=0)] = 2.0  # how long a generator is timed
    geant4_showers: Annotated[int, Field(ge=0)] = 5  # Geant4 showers simulated for the speed-up; 0 for none
    threshold: Annotated[float, Field(gt=0)] = 0.1  # a cell above this energy is a hit, MeV


class ShapesStudy(Study):
    """Shapes, core cells and speed."""

    name = "shapes"
    title = "Shower shapes, core cells and speed"
    source = "conv2d"
    papers = ("conv2d-gan",)
    needs = "reference showers of any detector and generated showers or models of the same detector; the speed of models is measured, too"
    question = "Do mean shapes, core cells and the observables of single showers agree?"
    Settings = ShapesSettings

    def run(self, context: Context) -> StudyResult:
        """Time the generators, then compare their showers with the reference."""
        chosen, reference = context.chosen(ShapesSettings), context.reference
        geant4 = time_geant4(reference, chosen.geant4_showers if chosen.timing else 0, context.seed)
        times = [
            None
            if source.generator is None or not chosen.timing
            else time_generator(source.generator, reference, chosen.batch, chosen.timing_seconds)
            for source in context.generated
        ]
        key = "/".join(context.reference_hashes)
        with ExitStack() as stack:
            showers = [
                stack.enter_context(
                    cached_generation(source, context.n, reference, context.seed, context.cache, key)
                )
                for source in context.generated
            ]
            return _compare(context, showers, times, geant4)


def _compare(
    context: Context, showers: Sequence[ShowerSource], times: Sequence[Any], geant4: SimulationTime
) -> StudyResult:
    """Compare the showers of every sample with the reference."""
    chosen = context.chosen(ShapesSettings)
    everyone = [
        Sample(source, label, chosen.threshold)
        for source, label in zip((context.reference, *showers), context.labels, strict=True)
    ]
    window, cores = _cores(context, showers, chosen)
    slices = EnergySlices.of(everyone[0].incident_energy, chosen.bins)
    settings, reference = Settings(seed=context.seed, threshold=chosen.threshold), everyone[0]
    found = []
    for source, sample, time, core in zip(context.generated, everyone[1:], times, cores, strict=True):
        model = source.generator
        members = [slices.members(one.incident_energy) for one in (reference, sample)]
        numbers = Shapes(
            label=sample.label,
            n=sample.n,
            parameters=None if model is None else count_parameters(model),
            members=None if model is None else len(model.members),
            time=time,
            mse=ShapeMSE().compute(reference, sample, settings)["shape_mse"],
            sampling=SamplingFraction().compute(reference, sample, settings)["sampling_fraction"],
            core=core,
            tests=shape_tests(reference, sample, members, len(slices)),
        )
        found.append(numbers)
    labels, spectrum = context.labels[1:], report.spectrum_panel(everyone)
    rows = report.summary_rows(found, geant4, window, context.labels[0])
    caption = f"Core cells at {window.text}. The paper's models were timed on a V100, its Geant4 on one core."
    alike = context.reference.detector.name in document("conv2d")["detectors"]
    return StudyResult(
        rows=rows,
        figures=[
            *report.sample_figures(everyone, spectrum, context.shown[0]),
            report.core_figure(cores, labels, window.text, context.shown[0]),
            report.probability_figure([one.tests for one in found], labels, list(slices.centres)),
        ],
        texts=_texts(context, found, window, geant4),
        blocks={
            **({"Conv2D against Conv3D": [report.comparison_table(rows, labels, caption)]} if alike else {}),
            "Sampling fraction against energy": [report.sampling_table(found)],
        },
        data={
            "geant4_seconds": geant4.seconds,
            "geant4_same_run": geant4.same_run,
            "geant4_how": geant4.how,
            "core_window": {
                "energy_mev": window.energy,
                "half_width_mev": window.half_width,
                "n_reference": window.n,
            },
            "ks_energies_mev": slices.centres,
            "cell_spectrum": {
                "edges_mev": spectrum.edges,
                **{curve.label: {"cells": curve.y, "error": curve.error} for curve in spectrum.curves},
            },
            **{one.label: one.to_dict() for one in found},
        },
        showers={sample.label: sample.n for sample in everyone},
    )


def _cores(
    context: Context, showers: Sequence[ShowerSource], chosen: ShapesSettings
) -> tuple[CoreWindow, list[CoreRatios]]:
    """Return the window in energy, and the core cells of each generated sample in it."""
    energies = [np.asarray(source.incident_energy, np.float64) for source in (context.reference, *showers)]
    window = core_window(energies, 1000.0 * chosen.energy, 1000.0 * chosen.half_width, chosen.core_showers)
    cells, known = reference_core(context.reference, window)
    return window, [
        compare_cores(known, core_energies(source, window, cells), seed=context.seed) for source in showers
    ]


def _texts(
    context: Context, found: Sequence[Shapes], window: CoreWindow, geant4: SimulationTime
) -> list[str]:
    """Return what limits the numbers."""
    chosen, reference = context.chosen(ShapesSettings), context.reference
    texts = [
        report.mean_shapes_text(found),
        f"{len(reference):,} reference showers. Core cells at {window.text}: {window.n:,} reference showers.",
    ]
    if window.half_width > 1000.0 * chosen.half_width * (1 + 1e-9):
        texts.append(
            f"The paper takes {chosen.energy:g} ± {chosen.half_width:g} GeV; these files have fewer than "
            f"{chosen.core_showers} showers there, so the window is wider and cells are scaled with the energy."
        )
    if not chosen.timing:
        return [*texts, "Times of the models and of Geant4 are those of the benchmark: docs/benchmark.md."]
    seconds = (
        "unknown"
        if geant4.seconds is None
        else f"{plain_number(geant4.seconds)} s of processor time a shower"
    )
    texts.append(f"Geant4: {seconds}; {geant4.how}.")
    files = [one.label for one in found if one.time is None]
    if files:
        texts.append(f"Samples from files have no speed: {', '.join(files)}.")
    return texts
