"""The comparison of generators by shower shapes, core cells and speed, after the Conv2D against the Conv3D GAN.

Parameters, milliseconds a shower, speed-up against Geant4 timed in the same run, shower-shape MSE, sampling fraction against
energy, cell spectrum, mean and standard deviation of the core cells, Kolmogorov-Smirnov probabilities. A file of
showers has no speed; everything else it has.

References:
    F. Rehm et al., arXiv:2103.13698.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.generate.timing import GeneratorTime, count_parameters, time_generator
from caloforge.showers import ShowerSource
from caloforge.studies.base import Context, Study, StudyResult, StudySettings, sample_labels
from caloforge.studies.shapes.figures import (
    SimulationTime,
    core_figure,
    panel_figure,
    probability_figure,
    shape_figures,
    spectrum_panel,
    time_geant4,
)
from caloforge.studies.shapes.tables import Shapes, comparison_table, sampling_table, summary_rows
from caloforge.studies.sources import Source, made
from caloforge.validate.metrics.base import Settings
from caloforge.validate.metrics.shapes import SamplingFraction, ShapeMSE
from caloforge.validate.plots.response import response
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
    """What may be set.

    Arguments:
        energy: Energy at which core cells are compared, GeV.
        half_width: Of the window around it, GeV; widened until it has enough showers.
        core_showers: Showers of each sample wanted in the window.
        bins: Slices in energy for the probabilities.
        batch: Showers at once when a generator is timed.
        timing_seconds: How long a generator is timed.
        geant4_showers: Geant4 showers simulated for the speed-up; 0 for none.
        threshold: A cell above this energy is a hit, MeV.
    """

    energy: Annotated[float, Field(gt=0)] = 250.0
    half_width: Annotated[float, Field(gt=0)] = 2.0
    core_showers: Annotated[int, Field(ge=4)] = 200
    bins: Annotated[int, Field(ge=1, le=20)] = 5
    batch: Annotated[int, Field(ge=1)] = 100
    timing_seconds: Annotated[float, Field(gt=0)] = 2.0
    geant4_showers: Annotated[int, Field(ge=0)] = 5
    threshold: Annotated[float, Field(gt=0)] = 0.1


class ShapesStudy(Study):
    """Shapes, core cells and speed."""

    name: ClassVar[str] = "shapes"
    title: ClassVar[str] = "Shower shapes, core cells and speed"
    source: ClassVar[str] = "conv2d"
    needs: ClassVar[str] = (
        "reference showers of any detector and generated showers or models of the same detector; models are timed, too"
    )
    Settings: ClassVar[type[StudySettings]] = ShapesSettings

    def check(self, context: Context) -> None:
        """Check that all samples are of one detector."""
        super().check(context)
        detector = context.reference.detector
        for source in context.generated:
            self.require_detector(source, detector)

    def run(self, context: Context) -> StudyResult:
        """Time the generators, then compare their showers with the reference."""
        chosen, reference = context.chosen(ShapesSettings), context.reference
        geant4 = time_geant4(reference, chosen.geant4_showers, context.seed)
        times = [_time(source, reference, chosen) for source in context.generated]
        with ExitStack() as stack:
            key = "/".join(context.reference_hashes)
            sources = [
                stack.enter_context(made(source, context.n, reference, context.seed, context.cache, key))
                for source in context.generated
            ]
            return _compare(context, sources, times, geant4)


def _time(source: Source, reference: ShowerSource, chosen: ShapesSettings) -> GeneratorTime | None:
    if source.generator is None:
        return None
    return time_generator(source.generator, reference, chosen.batch, chosen.timing_seconds)


def _compare(
    context: Context,
    sources: Sequence[ShowerSource],
    times: Sequence[GeneratorTime | None],
    geant4: SimulationTime,
) -> StudyResult:
    """Compare the showers of every sample with the reference."""
    chosen, reference = context.chosen(ShapesSettings), context.reference
    first = Sample(reference, sample_labels(context)[0], chosen.threshold)
    samples = [
        Sample(source, given.label, chosen.threshold)
        for source, given in zip(sources, context.generated, strict=True)
    ]
    window, cores = _cores(context, sources, chosen)
    slices = EnergySlices.of(first.incident_energy, chosen.bins)
    settings = Settings(seed=context.seed, threshold=chosen.threshold)
    members = [slices.members(sample.incident_energy) for sample in (first, *samples)]
    found = []
    for index, (sample, given) in enumerate(zip(samples, context.generated, strict=True)):
        found.append(
            Shapes(
                label=sample.label,
                n=sample.n,
                parameters=None if given.generator is None else count_parameters(given.generator),
                members=None if given.generator is None else len(given.generator.members),
                time=times[index],
                mse=ShapeMSE().compute(first, sample, settings)["shape_mse"],
                sampling=SamplingFraction().compute(first, sample, settings)["sampling_fraction"],
                core=cores[index],
                tests=shape_tests(first, sample, (members[0], members[index + 1]), len(slices)),
            )
        )
    everyone = [first, *samples]
    labels = [sample.label for sample in samples]
    figures = shape_figures(everyone)
    figures += [
        panel_figure(panel, "Visible over incident energy; below, the ratio to the reference.")
        for panel in response(everyone)
    ]
    spectrum = spectrum_panel(everyone)
    figures.append(panel_figure(spectrum, "Cells of each energy; below, the ratio to the reference."))
    figures.append(core_figure(cores, labels, window.text))
    figures.append(probability_figure([one.tests for one in found], labels, list(slices.centres)))
    return StudyResult(
        rows=summary_rows(found, geant4, window, first.label),
        figures=figures,
        texts=_texts(found, first.n, first.detector.name, window, geant4, chosen),
        blocks={
            "Conv2D against Conv3D": [comparison_table(found, geant4, window)],
            "Sampling fraction against energy": [sampling_table(found)],
        },
        data=_data(found, geant4, window, slices, spectrum),
        showers={sample.label: sample.n for sample in everyone},
    )


def _cores(
    context: Context, sources: Sequence[ShowerSource], chosen: ShapesSettings
) -> tuple[CoreWindow, list[CoreRatios]]:
    reference = context.reference
    energies = [np.asarray(source.incident_energy, np.float64) for source in (reference, *sources)]
    window = core_window(energies, 1000.0 * chosen.energy, 1000.0 * chosen.half_width, chosen.core_showers)
    cells, known = reference_core(reference, window)
    return window, [
        compare_cores(known, core_energies(source, window, cells), seed=context.seed) for source in sources
    ]


def _data(
    found: Sequence[Shapes], geant4: SimulationTime, window: CoreWindow, slices: EnergySlices, spectrum: Any
) -> dict[str, Any]:
    """Return every number, by sample."""
    data: dict[str, Any] = {
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
    }
    return data | {one.label: one.to_dict() for one in found}


def _texts(
    found: Sequence[Shapes],
    n: int,
    detector: str,
    window: CoreWindow,
    geant4: SimulationTime,
    chosen: ShapesSettings,
) -> list[str]:
    """Return what limits the numbers."""
    texts = [
        f"The paper's numbers are of electrons of 2 to 500 GeV in 25 x 25 x 25 cells, ours of '{detector}'.",
        f"{n:,} reference showers. Core cells at {window.text}: {window.n:,} reference showers.",
    ]
    if window.half_width > 1000.0 * chosen.half_width * (1 + 1e-9):
        texts.append(
            f"The paper takes {chosen.energy:g} ± {chosen.half_width:g} GeV; these files have fewer than "
            f"{chosen.core_showers} showers there, so the window is wider and cells are scaled with the energy."
        )
    seconds = "unknown" if geant4.seconds is None else f"{geant4.seconds:.3g} s of processor time a shower"
    texts.append(f"Geant4: {seconds}; {geant4.how}.")
    files = [one.label for one in found if one.time is None]
    if files:
        texts.append(f"Without a speed, since they are files: {', '.join(files)}.")
    return texts
