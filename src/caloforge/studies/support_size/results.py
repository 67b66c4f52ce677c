"""Support sizes of a sample from its findings, and the rows that set them beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.studies.base import Row
from caloforge.studies.papers import paper_values
from caloforge.studies.support_size.birthday import (
    BirthdayCurve,
    CollisionRate,
    Interval,
    birthday_curve,
    collision_rate,
)
from caloforge.studies.support_size.criteria import DEFINITIONS
from caloforge.studies.support_size.sample import Findings

__all__ = ["LEVEL", "SampleResult", "rows_of", "sample_result", "say"]

LEVEL = 0.95
_SIGMAS = 1.959964  # standard deviations in half an interval of that level
_SHARE = 5  # the largest subset is this part of the showers, so that subsets differ enough
_KEPT_SIZES = 150


@dataclass(frozen=True, eq=False)
class SampleResult:
    """What a sample says of its support.

    Attributes:
        label: Its name.
        role: 0 for the reference, 1 and more for generated samples.
        findings: Its duplicates.
        curves: Birthday curve by definition.
        rates: Collision rate by definition.
        by_alpha: Collision rates by definition, one for each alpha.
    """

    label: str
    role: int
    findings: Findings
    curves: dict[str, BirthdayCurve]
    rates: dict[str, CollisionRate]
    by_alpha: dict[str, list[CollisionRate]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``study.json``."""
        out: dict[str, Any] = {"n": self.findings.n, "pairs_compared_cell_by_cell": self.findings.compared}
        for name, curve in self.curves.items():
            keep = _thinned(len(curve.sizes))
            out[name] = {
                "candidates": self.findings.candidates(name),
                "collision": asdict(self.rates[name]),
                "rule": asdict(curve.rule),
                "fit": asdict(curve.fit),
                "curve": {
                    "subsets": curve.subsets,
                    "sizes": curve.sizes[keep],
                    "probability": curve.probability[keep],
                    "low": curve.low[keep],
                    "high": curve.high[keep],
                    "fitted": curve.expected()[keep],
                },
                "by_alpha": [asdict(rate) for rate in self.by_alpha[name]],
            }
        out["closest"] = [
            {"showers": pair.showers, "closeness": pair.closeness, "similarity": pair.similarity}
            for pair in self.findings.close
        ]
        return out


def _thinned(n: int) -> NDArray[np.int64]:
    """Return at most so many positions of a curve, closer to each other at its start."""
    steps: NDArray[np.int64] = np.unique(np.round(np.geomspace(1, n, _KEPT_SIZES)).astype(np.int64)) - 1
    return steps


def sample_result(
    label: str, role: int, findings: Findings, order: Sequence[int], largest: int, subsets: int, seed: int
) -> SampleResult:
    """Return the support sizes of a sample.

    Arguments:
        label: Its name.
        role: 0 for the reference.
        findings: Its duplicates.
        order: Positions of the alphas, the smallest alpha first.
        largest: Largest subset; 0: a fifth of the showers.
        subsets: Subsets of each size.
        seed: Which subsets.
    """
    curves, rates, by_alpha = {}, {}, {}
    for definition in DEFINITIONS:
        name = definition.name
        duplicates = findings.duplicates(name)
        if duplicates is None:
            continue
        size = min(duplicates.n, largest or max(2, duplicates.n // _SHARE))
        curves[name] = birthday_curve(duplicates, size, subsets, seed, LEVEL)
        found = [findings.duplicates(name, k) for k in order]
        by_alpha[name] = [collision_rate(one, LEVEL) for one in found if one is not None]
        rates[name] = collision_rate(duplicates, LEVEL)
    return SampleResult(label, role, findings, curves, rates, by_alpha)


def say(number: Interval) -> str:
    """Return a support size as a reader expects it: with its interval, or the bound."""
    if math.isnan(number.value):
        return f"above {number.low:,.0f}"
    high = f"{number.high:,.0f}" if math.isfinite(number.high) else "no upper end"
    return f"{number.value:,.0f} ({number.low:,.0f} to {high})"


def _row(
    quantity: str, number: Interval, sample: str, paper: str | None, note: str, form: str = ",.0f"
) -> Row:
    known = not math.isnan(number.value)
    # a very skew interval has no meaningful standard deviation
    error = (number.high - number.low) / (2 * _SIGMAS) if known and number.high < 3 * number.value else None
    if not known:
        low = f"above {number.low:{form}}" if number.low > 0 else ""
        bound = low if math.isinf(number.high) else f"below {number.high:{form}}"
    else:
        end = f"{number.high:{form}}" if math.isfinite(number.high) else "no upper end"
        bound = f"95 % interval {number.low:{form}} to {end}"
    return Row(
        quantity,
        number.value if known else None,
        error,
        paper,
        "",
        "; ".join(t for t in (bound, note) if t),
        sample,
    )


def rows_of(results: Sequence[SampleResult]) -> list[Row]:
    """Return our support sizes beside the paper's; the reference first.

    Arguments:
        results: Every sample, the reference first.
    """
    published = paper_values("support-size")
    reference = results[0]
    rows = []
    for result in results:
        side = "geant4" if result.role == 0 else "gan"
        for definition in DEFINITIONS:
            if definition.name not in result.curves:
                continue
            name, curve, rate = definition.name, result.curves[definition.name], result.rates[definition.name]
            key = f"{side}_{name}"
            paper = f"support-size.{key}" if key in published else None
            used = f"{rate.count:,} duplicate{'' if rate.count == 1 else 's'} among {rate.n:,} showers"
            never = f"probability at most {curve.probability[-1]:.2g} up to {curve.sizes[-1]} showers"
            rule = "s² at the first P > 1/2" if not math.isnan(curve.rule.value) else never
            label, sample = definition.label, result.label
            rows += [
                _row(f"support size, {label}: paper's rule", curve.rule, sample, paper, rule),
                _row(
                    f"support size, {label}: fit of the curve",
                    curve.fit,
                    sample,
                    None,
                    "exact birthday curve",
                ),
                _row(f"support size, {label}: pair collisions", rate.support, sample, None, used),
            ]
            if result.role and name in reference.rates:
                ratio = rate.support.over(reference.rates[name].support)
                quantity = f"support over {reference.label}'s, {label}"
                rows.append(_row(quantity, ratio, sample, None, "from pair collisions", ".3g"))
    return rows
