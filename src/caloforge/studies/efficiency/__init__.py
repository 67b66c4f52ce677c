"""The study of data efficiency: accuracy of a model against the number of Geant4 training showers, from several starts.

``flow-matching`` is trained on 100, 300, 1,000, ... showers from nothing, after a pre-training on gflash showers of the same detector, and from
a shipped model of another detector; each is compared with Geant4 showers that were not seen (:mod:`~caloforge.studies.efficiency.measure`).
Every measurement is kept as one JSON file in OUTPUT/cache/results; those of another machine (``results``) are shown beside them and not made again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from caloforge.errors import InputError
from caloforge.showers import Showers, ShowerSource
from caloforge.showers.identity import hash_showers
from caloforge.studies.base import Context, Study, StudyResult, StudySettings
from caloforge.studies.cache import digest_of
from caloforge.studies.efficiency import report
from caloforge.studies.efficiency.measure import (
    Effort,
    Measured,
    Start,
    floor,
    measure,
    read_measured,
)

__all__ = ["EfficiencySettings", "EfficiencyStudy"]

_Count = Annotated[int, Field(ge=1)]


class EfficiencySettings(StudySettings):
    """Settings of the study."""

    showers: Annotated[tuple[Annotated[int, Field(ge=20)], ...], Field(min_length=1)] = (
        100,
        300,
        1000,
        3000,
        10000,
    )
    starts: Annotated[tuple[Start, ...], Field(min_length=1)] = ("nothing", "gflash", "detector")
    source: str = "clic-electron"  # model of another detector to start from: a shipped one or a run folder
    seeds: _Count = 1  # trainings of each, on other showers
    reference: _Count = 3000  # most reference showers, and as many generated ones
    preset: str = "improved"  # of flow-matching; ``small`` for a CPU
    steps: _Count = 2000  # steps of the cells' network
    summary_steps: _Count = 3000  # steps of the summary's
    batch: _Count = 128  # showers a step
    pretrain_showers: Annotated[int, Field(ge=100)] = 20_000
    pretrain_epochs: _Count = 15
    results: str = ""  # folder of measurements made elsewhere, of this detector and of others; all are shown
    device: str = "auto"  # where to train and generate


class EfficiencyStudy(Study):
    """Accuracy against the number of Geant4 showers, from several starts."""

    name = "data-efficiency"
    title = "Accuracy against the number of Geant4 showers"
    source = "meta-hep"
    papers = ("meta-hep",)
    needs = (
        "reference showers that are used only to measure, followed by files of other Geant4 showers of the same detector to train on; "
        "or results, a folder of measurements"
    )
    question = "How accurate is a model that is trained on few showers?"
    Settings = EfficiencySettings
    least_generated = 0
    judges = False

    def check(self, context: Context) -> None:
        """Check that there are showers to train on, none of which is in the reference, or measurements."""
        super().check(context)
        chosen = context.chosen(EfficiencySettings)
        if any(source.showers is None for source in context.generated):
            self.refuse("a model was given; it trains its own")
        if not context.generated and not chosen.results:
            self.refuse("no showers to train on were given")
        if chosen.results and not Path(chosen.results).is_dir():
            self.refuse(f"results = {chosen.results} is no folder")
        known = _identities(context.reference)
        for source in context.generated:
            assert source.showers is not None
            both = len(np.intersect1d(known, _identities(source.showers)))
            if both:
                self.refuse(f"{both} showers of '{source.label}' are in the reference, too")

    def run(self, context: Context) -> StudyResult:
        """Measure what is missing, and show everything."""
        chosen = context.chosen(EfficiencySettings)
        found = read_measured(Path(chosen.results)) if chosen.results else []
        if context.generated:
            found = [*found, *_measured(context, chosen, found)]
        if not found:
            self.refuse(f"results = {chosen.results} has no measurements")
        cells = context.reference.detector.n_cells
        if any(one.floor is None and one.cells == cells for one in found):
            lowest = floor(context.reference[: chosen.reference], context.seed)
            found = [
                replace(one, floor=lowest) if one.cells == cells and one.floor is None else one
                for one in found
            ]
        return StudyResult(
            rows=report.rows_of(found),
            figures=[report.figure_of(found)],
            texts=report.texts_of(found),
            blocks={"All measurements": [report.table_of(found)]},
            data={"measured": [one.__dict__ for one in found], "expected": report.expected(found)},
            showers={"reference": min(len(context.reference), chosen.reference)},
        )


def _identities(source: ShowerSource) -> Any:
    """Return the identities of showers (N,)."""
    found = [hash_showers(chunk.cells, chunk.incident_energy) for chunk in source.chunks()]
    return np.setdiff1d(np.concatenate(found), [0])


def _measured(context: Context, chosen: EfficiencySettings, known: list[Measured]) -> list[Measured]:
    """Return the measurements of the context's detector that are not known, from the cache where they were made before."""
    reference = context.reference[: chosen.reference]
    showers = Showers.concatenate(
        [
            source.showers[:].replace(attributes={}, seed=None)
            for source in context.generated
            if source.showers
        ]
    )
    effort = Effort(
        preset=chosen.preset,
        steps=chosen.steps,
        summary_steps=chosen.summary_steps,
        batch=chosen.batch,
        pretrain_showers=chosen.pretrain_showers,
        pretrain_epochs=chosen.pretrain_epochs,
        precision="32",
    )
    if context.cache.folder is None:
        raise InputError("study 'data-efficiency' keeps trainings; give an output folder (-o)")
    inputs = digest_of(
        context.cache.common, context.reference_hashes, [source.sha256 for source in context.generated]
    )
    place = context.cache.folder / f"results-{inputs[:16]}"
    have = {one.name: one for one in [*(read_measured(place) if place.is_dir() else []), *known]}
    lowest = floor(reference, context.seed)
    out: list[Measured] = []
    for n in (n for n in chosen.showers if n <= len(showers)):
        for start in chosen.starts:
            for seed in range(context.seed, context.seed + chosen.seeds):
                name = f"{reference.detector.name}-{start}-{n}-{seed}"
                if name not in have:
                    source = _weights(chosen, start)
                    one = measure(
                        showers, reference, start, n, seed, effort, place / "runs", chosen.device, source
                    )
                    have[name] = replace(
                        one, floor=lowest, source=chosen.source if start == "detector" else one.source
                    )
                    have[name].write(place)
                if name not in {one.name for one in known}:
                    out.append(have[name])
    return out


def _weights(chosen: EfficiencySettings, start: Start) -> str | Path:
    """Return the weights that a start begins with; empty where it makes its own or none."""
    from caloforge.zoo.store import weights_of

    return weights_of(chosen.source) if start == "detector" else ""
