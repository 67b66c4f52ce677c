"""What a physicist asks first of a generated sample, as statements in order, each judged by size and significance.

Response, resolution, hits, layers, shape and cell spectrum come first, then classifiers and the number of showers that
they need, then distances, and precision, recall, density and coverage together. Tolerances are in
:mod:`caloforge.validate.report.tolerances`. The causes of a deviation are named in physical terms: a missing layer, mode
collapse, a wrong response, a pile-up of cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from caloforge.validate.report import statements
from caloforge.validate.report.tolerances import SIMILARITY, TOLERANCES, Statement

__all__ = ["Judgement", "judge", "judge_all"]


@dataclass(frozen=True)
class Judgement:
    """All statements on one sample."""

    label: str  # the sample's
    statements: Mapping[str, Statement]  # by name, in the summary's order
    score: float  # weighted mean severity over the statements that all samples have; 0 is best, NaN when there are none
    unfinished: str = ""  # status of a model whose training is unfinished; else empty
    # seen: how many of the reference showers trained or selected the model, and of how many; None when it is not known
    seen: tuple[int, int] | None = None

    @property
    def causes(self) -> list[Statement]:
        """Physical causes first, then classifiers and distances; in each the bad ones before the doubtful ones."""

        def order(s: Statement) -> tuple[bool, bool, int, float]:
            return s.priority >= SIMILARITY, s.flag != "bad", s.priority, -s.weight * s.severity

        return sorted(
            (s for s in self.statements.values() if s.flag in ("bad", "warn") and s.finding), key=order
        )

    @property
    def undecided(self) -> list[str]:
        """Names of the statements whose test cannot tell."""
        return [s.label.lower() for s in self.statements.values() if s.flag == "unknown"]


def judge_all(metrics: Mapping[str, Any]) -> list[Judgement]:
    """Return the judgement of every sample, the best first; unfinished models last."""
    found = {label: judge(sample) for label, sample in metrics["samples"].items()}
    common = [
        name
        for name, tolerance in TOLERANCES.items()
        if tolerance.weight > 0 and all(name in judged for judged in found.values())
    ]
    total = sum(TOLERANCES[name].weight for name in common)
    judgements = []
    for label, judged in found.items():
        severities = [judged[name].weight * judged[name].severity for name in common]
        score = sum(severities) / total if common else math.nan
        sample = metrics["samples"][label]
        status = str(sample.get("provenance", {}).get("attributes", {}).get("model_status", ""))
        unfinished = status if status.startswith("unfinished") else ""
        seen = sample.get("seen")
        judgements.append(
            Judgement(label, judged, score, unfinished, None if seen is None else (seen["n"], seen["of"]))
        )
    return sorted(judgements, key=lambda j: (bool(j.unfinished), math.isnan(j.score), j.score))


def judge(sample: Mapping[str, Any]) -> dict[str, Statement]:
    """Return the statements on one sample by name, in the summary's order; those not measured are left out.

    Arguments:
        sample: A sample's part of ``metrics.json``.
    """
    found = {name: _RULES[name](sample) for name in TOLERANCES}
    return {name: statement for name, statement in found.items() if statement is not None}


_RULES: dict[str, Callable[[Mapping[str, Any]], Statement | None]] = {
    **{name: partial(statements.ratio, name) for name in statements.RATIOS},
    "layers": statements.layers,
    "shapes": statements.shapes,
    "spectrum": statements.spectrum,
    "auc_strongest": statements.auc_strongest,
    **{name: partial(statements.auc, name) for name in ("auc_cells", "auc_observables", "auc_spectrum")},
    "detectability": statements.detectability,
    **{name: partial(statements.distance, name) for name in ("fpd", "kpd")},
    "prdc": statements.prdc,
}
