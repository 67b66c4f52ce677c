"""The study of support size: how many different showers does a generator know?

The birthday-paradox test with three definitions of a duplicate, whose limits are quantiles over the pairs of trusted
showers, against the unbiased rate of colliding pairs; see :mod:`~caloforge.studies.support_size.criteria`,
:mod:`~caloforge.studies.support_size.birthday` and :mod:`~caloforge.studies.support_size.birthday`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.showers import Showers, ShowerSource
from caloforge.studies.base import Context, Study, StudyResult, StudySettings
from caloforge.studies.papers import paper
from caloforge.studies.sources import Source, made
from caloforge.studies.support_size.criteria import DEFINITIONS, Limits
from caloforge.studies.support_size.figures import figures_of
from caloforge.studies.support_size.results import SampleResult, rows_of, sample_result, say
from caloforge.studies.support_size.sample import (
    Findings,
    Options,
    findings_of,
    limits_from,
    reference_name,
    torch_device,
    within,
)
from caloforge.studies.support_size.search import why_no_windows
from caloforge.validate.metrics.shapes import DATA_RANGE

__all__ = ["SupportSizeSettings", "SupportSizeStudy"]

_LEAST = 50
_NARROW = 1.5  # incident energies within this factor can be compared as one


class SupportSizeSettings(StudySettings):
    """What may be set.

    Arguments:
        showers: Showers of each sample at most; all their pairs are compared.
        alpha: Quantile of the limits.
        alphas: Further ones, for the sensitivity.
        subsets: Random subsets of each size.
        largest: Largest subset; 0: a fifth of the showers.
        normalised: Compare profiles of unit sum, shapes alone, instead of energies.
        data_range: L of the structural similarity, GeV.
        limit_pairs: Random pairs behind the limit of the similarity.
        similar_pairs: Most pairs of a sample compared cell by cell.
        drawn: Closest pairs drawn.
        energy: Only showers of these incident energies, such as ``97.5-102.5GeV``; empty: all.
        theta: Only showers of these angles, such as ``87.5-92.5``; empty: all.
        device: Where torch computes: ``auto`` takes a GPU when there is one.
    """

    showers: Annotated[int, Field(ge=_LEAST, le=20_000)] = 5000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.02
    alphas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.005, 0.01, 0.02, 0.05, 0.1)
    subsets: Annotated[int, Field(ge=10)] = 1000
    largest: Annotated[int, Field(ge=0)] = 0
    normalised: bool = False
    data_range: Annotated[float, Field(gt=0)] = DATA_RANGE
    limit_pairs: Annotated[int, Field(ge=100)] = 20_000
    similar_pairs: Annotated[int, Field(ge=100)] = 50_000
    drawn: Annotated[int, Field(ge=1, le=10)] = 3
    energy: str = ""
    theta: str = ""
    device: str = "auto"

    def options(self, seed: int) -> Options:
        """Return how duplicates are looked for; the chosen alpha first, then the others."""
        others = tuple(sorted({*self.alphas} - {self.alpha}))
        return Options(
            (self.alpha, *others),
            self.normalised,
            self.data_range,
            self.limit_pairs,
            self.similar_pairs,
            self.drawn,
            seed,
            torch_device(self.device),
        )


class SupportSizeStudy(Study):
    """Birthday-paradox test of the size of a generator's support."""

    name: ClassVar[str] = "support-size"
    title: ClassVar[str] = "Support size by the birthday paradox"
    source: ClassVar[str] = "support-size"
    needs: ClassVar[str] = (
        f"at least {_LEAST} reference showers of nearly one energy and angle (set energy and theta to take them out of "
        "a wider file), and generated showers or models of the same detector"
    )
    Settings: ClassVar[type[StudySettings]] = SupportSizeSettings
    least_generated: ClassVar[int] = 0

    def check(self, context: Context) -> None:
        """Check that there are showers enough, of one detector."""
        super().check(context)
        chosen = context.chosen(SupportSizeSettings)
        detector = context.reference.detector
        for source in context.generated:
            self.require_detector(source, detector)
            if source.showers is not None:
                self._enough(within(source.showers, chosen.energy, chosen.theta), source.label)
        self._enough(within(context.reference, chosen.energy, chosen.theta), reference_name(context))

    def _enough(self, showers: ShowerSource, label: str) -> None:
        if len(showers) < _LEAST:
            self.refuse(f"'{label}' has {len(showers)} showers in the window")

    def run(self, context: Context) -> StudyResult:
        """Find the duplicates of every sample and the support sizes that they mean."""
        chosen = context.chosen(SupportSizeSettings)
        options = chosen.options(context.seed)
        order = np.argsort(options.alphas).tolist()
        name = reference_name(context)
        reference = _findings(context, None, options, None)
        limits = limits_from(reference, options.alphas)
        results = [
            sample_result(label, role, findings, order, chosen.largest, chosen.subsets, context.seed)
            for role, (label, findings) in enumerate(
                [(name, reference)]
                + [(one.label, _findings(context, one, options, limits)) for one in context.generated]
            )
        ]
        alphas = [options.alphas[k] for k in order]
        data = {
            "alpha": chosen.alpha,
            "alphas": alphas,
            "limits": {str(one.alpha): {**one.cheap, "similarity": one.similarity} for one in limits},
            "definitions": {one.name: one.label for one in DEFINITIONS},
            "samples": {result.label: result.to_dict() for result in results},
        }
        return StudyResult(
            rows=rows_of(results),
            figures=figures_of(results, alphas, chosen.alpha),
            texts=_texts(context, results, options),
            data=data,
            showers={result.label: result.findings.n for result in results},
        )


def _findings(
    context: Context, source: Source | None, options: Options, limits: Sequence[Limits] | None
) -> Findings:
    """Return the findings in the reference (None) or in a generated sample, from the cache if they are there."""
    chosen = context.chosen(SupportSizeSettings)
    reference = within(context.reference, chosen.energy, chosen.theta)

    def load() -> Showers:
        if source is None:
            return reference[: min(len(reference), chosen.showers)]
        wanted = None if source.generator is None else context.size(chosen.showers)
        key = "/".join([*context.reference_hashes, *filter(None, (chosen.energy, chosen.theta))])
        with made(source, wanted, reference, context.seed, context.cache, key) as showers:
            kept = within(showers, chosen.energy, chosen.theta)
            return kept[: min(len(kept), context.size(chosen.showers), chosen.showers)]

    def compute() -> Mapping[str, Any]:
        return findings_of(load(), options, limits)

    name = "reference" if source is None else f"sample-{source.sha256[:16]}"
    own = None if source is None else [source.sha256, context.n]
    return Findings(context.cache.get(name, compute, context.reference_hashes, own))


def _texts(context: Context, results: Sequence[SampleResult], options: Options) -> list[str]:
    """Return what was found and what limits it."""
    reference, detector = results[0], context.reference.detector
    sizes = "; ".join(f"{result.label} {result.findings.n:,}" for result in results)
    texts = [
        f"Showers: {sizes}. All their pairs are compared; the limits of a duplicate are the {options.alphas[0]:g} "
        f"quantiles over the pairs of {reference.label}, so that supports compare samples at one alpha and are not "
        "numbers of showers that exist."
    ]
    for definition in DEFINITIONS:
        if definition.name in reference.rates:
            found = ", ".join(f"{one.label} {say(one.rates[definition.name].support)}" for one in results)
            texts.append(f"Support size from pair collisions, {definition.label}: {found}.")
    texts.append(
        "For N equally likely showers the fit and the collision rate give N, the paper's rule 1.39 N. "
        "Intervals (95 %) hold the finite number of subsets and of showers."
    )
    wanted = paper("support-size.showers").value or 0.0
    if reference.findings.n < wanted:
        texts.append(
            f"The paper took its limits from {wanted:,.0f} Geant4 showers; here are {reference.findings.n:,}, so that "
            f"no support above about {reference.findings.n**2 / 8:,.0f} can be told from an infinite one."
        )
    why = why_no_windows(detector)
    if why:
        texts.append(f"The third definition is left out: {why}.")
    energy = context.reference.incident_energy
    if not context.chosen(SupportSizeSettings).energy and energy.max() > _NARROW * energy.min():
        texts.append(
            f"The showers span {energy.min() / 1000:g} to {energy.max() / 1000:g} GeV: those of different energies are "
            "seldom duplicates, and the limits come from pairs of any energies. Set energy to compare like with like."
        )
    return texts
