"""The study of support size: how many different showers does a generator produce?

The birthday-paradox test with three definitions of a duplicate (:mod:`~caloforge.studies.support_size.duplicates`), whose
limits are quantiles over the pairs of reference showers, against the unbiased rate of colliding pairs
(:mod:`~caloforge.statistics.birthday`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caloforge.showers import ShowerSource
from caloforge.studies.base import Context, Study, StudyResult
from caloforge.studies.page import document, paper
from caloforge.studies.support_size.duplicates import DEFINITIONS, Limits, why_no_windows
from caloforge.studies.support_size.report import SampleResult, figures_of, rows_of, support_text
from caloforge.studies.support_size.sample import (
    LEAST,
    Findings,
    SupportSizeSettings,
    findings_of,
    limits_from,
)

__all__ = ["SupportSizeStudy"]

_NARROW = 1.5  # incident energies within this factor can be compared as one


class SupportSizeStudy(Study):
    """Support size of a generator by the birthday paradox."""

    name = "support-size"
    title = "Support size by the birthday paradox"
    source = "support-size"
    papers = ("3dgan", "birthday-paradox")
    needs = (
        f"at least {LEAST} reference showers of nearly one energy and angle (set energy and theta to select them from "
        "a file with more), and generated showers or models of the same detector"
    )
    question = "How many different showers can a model make before they repeat?"
    Settings = SupportSizeSettings
    least_generated = 0

    def check(self, context: Context) -> None:
        """Check that there are showers enough, of one detector."""
        super().check(context)
        chosen = context.chosen(SupportSizeSettings)
        samples = [(one.label, one.showers) for one in context.generated if one.showers is not None]
        for label, showers in (*samples, (context.reference_name, context.reference)):
            n = len(chosen.of(showers))
            if n < LEAST:
                self.refuse(f"'{label}' has {n} showers in the window")

    def run(self, context: Context) -> StudyResult:
        """Find the duplicates of every sample and the support sizes from them."""
        chosen = context.chosen(SupportSizeSettings)
        alphas = chosen.all_alphas
        labels = [context.reference_name, *context.labels[1:]]
        results: list[SampleResult] = []
        limits: list[Limits] = []

        def measure(showers: ShowerSource, label: str) -> Mapping[str, Any]:
            most = min(context.size(chosen.showers), chosen.showers) if results else chosen.showers
            kept = chosen.of(showers)
            return findings_of(kept[: min(len(kept), most)], chosen, context.seed, limits or None)

        found = context.measured(
            measure,
            like=chosen.of(context.reference),
            n=context.size(chosen.showers),
            window=(chosen.energy, chosen.theta),
        )
        for role, (label, arrays) in enumerate(zip(labels, found, strict=True)):
            findings = Findings(arrays)
            limits = limits or limits_from(findings, alphas)
            results.append(SampleResult.of(label, role, findings, chosen, context.seed))
        increasing = sorted(alphas)
        data = {
            "alpha": chosen.alpha,
            "alphas": increasing,
            "limits": {str(one.alpha): {**one.cheap, "similarity": one.similarity} for one in limits},
            "definitions": {one.name: one.label for one in DEFINITIONS},
            "samples": {result.label: result.to_dict() for result in results},
        }
        return StudyResult(
            rows=rows_of(results),
            figures=figures_of(
                results,
                increasing,
                chosen.alpha,
                context.reference.detector.name in document(self.source)["detectors"],
            ),
            texts=_texts(context, results),
            data=data,
            showers={result.label: result.findings.n for result in results},
        )


def _texts(context: Context, results: Sequence[SampleResult]) -> list[str]:
    """Return what was found and what limits it."""
    chosen, reference = context.chosen(SupportSizeSettings), results[0]
    sizes = "; ".join(f"{result.label} {result.findings.n:,}" for result in results)
    texts = [
        f"Showers: {sizes}. All pairs are compared. The limits of a duplicate are the {chosen.alpha:g} "
        f"quantiles over the pairs of {reference.label}. So support sizes can be compared between samples at one alpha, but are not "
        "the true number of different showers."
    ]
    for definition in DEFINITIONS:
        if definition.name in reference.rates:
            found = ", ".join(
                f"{one.label} {support_text(one.rates[definition.name].support)}" for one in results
            )
            texts.append(f"Support size from pair collisions, {definition.label}: {found}.")
    texts.append(
        "For N equally likely showers the fit and the collision rate give N, the paper's rule gives 1.39 N. "
        "The 95 % intervals include the uncertainty from the finite number of subsets and of showers."
    )
    wanted = paper("support-size.showers").value or 0.0
    if reference.findings.n < wanted:
        texts.append(
            f"The paper took its limits from {wanted:,.0f} Geant4 showers. Here there are {reference.findings.n:,}, so that "
            f"no support size above about {reference.findings.n**2 / 8:,.0f} can be distinguished from an infinite one."
        )
    why = why_no_windows(context.reference.detector)
    if why:
        texts.append(f"The third definition is left out: {why}.")
    energy = np.asarray(context.reference.incident_energy)
    if not chosen.energy and energy.max() > _NARROW * energy.min():
        texts.append(
            f"The showers have energies of {energy.min() / 1000:g} to {energy.max() / 1000:g} GeV. Showers of different energies are "
            "seldom duplicates, and the limits come from pairs of any energies. Set energy to compare showers of one energy."
        )
    return texts
