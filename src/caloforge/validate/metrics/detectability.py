r"""Detectability: how many showers it takes to tell the generator from the reference.

Classifiers are trained on parts of the showers that are not held out: all of them, disjoint halves, quarters, and so on,
until a test of so many showers is without significance. Each is tested on the same held-out fold. The learning curve through
these AUCs gives the significance of a test in which n showers a side are all there is, see
:mod:`caloforge.statistics.learning_curve`, and the numbers of showers at which it reaches two and five standard deviations.

The classifier that is strongest on all showers may need many of them to learn (a 3-D network), while a simpler one tells the samples
apart with few. So the strongest one, chosen by the validation part of the first fold, and the strongest gradient boosting of each set of
features are all measured, and the one that needs the fewest showers counts.

The value is the number of showers a side for five standard deviations. It is null when the AUC of the strongest classifier,
trained and tested on all showers by cross-fitting, is compatible with 0.5 within two standard deviations: more showers than
there are would be needed, and ``lower_limit`` says how many there are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator
from caloforge.statistics.learning_curve import (
    Crossing,
    LearningCurve,
    Point,
    fit_curve,
    learning_points,
    significance,
)
from caloforge.statistics.training import FEWEST
from caloforge.statistics.two_sample import choose
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.two_sample_study import SETS, FeatureSet, Study, study_of

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["Detectability"]

_LINE = 40  # points of the fitted curve in the detail


class Detectability(Metric):
    """Showers a side that tell the generator from the reference at five standard deviations."""

    name: ClassVar[str] = "detectability"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("detectability", "showers a side for 5 standard deviations", math.inf),
    )
    minimum: ClassVar[int] = FEWEST

    def wanted(self, settings: Settings) -> bool:
        """Return whether the metric runs unasked: not with ``quick``."""
        return not settings.quick

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``detectability``."""
        study, _ = study_of(reference, generated, settings)
        split = study.splits[0]
        test = choose(study.merged())
        unseen = test.auc - 0.5 < 2.0 * test.error
        measured: dict[str, tuple[list[Point], LearningCurve]] = {}
        for which, name in _contenders(study)[: 1 if unseen else None]:
            points = learning_points(study.candidate(which, name), split, study.folds, settings.seed)
            rng = generator(settings.seed, "detectability bootstrap")
            curve = fit_curve(points, len(split.test.reference), study.folds, rng)
            measured[f"{which}: {name}"] = points, curve
        needs = {name: curve.crossing(5.0).value for name, (_, curve) in measured.items()}
        fewest = min(needs, key=needs.__getitem__)
        points, curve = measured[fewest]
        crossings = {sigmas: curve.crossing(sigmas) for sigmas in (2.0, 5.0)}
        n = len(study.data)
        detail: dict[str, Any] = {
            "classifier": fewest,
            "showers_needed": {name: n if math.isfinite(n) else None for name, n in needs.items()},
            "sizes": np.round(curve.sizes).astype(int),
            "trained": [point.trained for point in points],
            "trainings": [len(point.scores) for point in points],
            "auc": curve.auc,
            "auc_uncertainty": curve.errors,
            "significance": significance(curve.auc, curve.sizes),
            "test_size": min(len(split.test.reference), len(split.test.generated)),
            "folds": study.folds,
            "n_used": n,
        }
        if unseen:
            unknown = {"value": None, "low": n, "high": None, "extrapolated": True}
            detail |= {
                "n_2sigma": unknown,
                "n_5sigma": unknown,
                "extrapolated": False,
                "lower_limit": n,
                "extrapolation": _line(curve, float(n)),
                "reason": f"more than {n}: with so many showers a side the AUC is {test.auc:.3f} +- {test.error:.3f}",
            }
            return {"detectability": Value(float("nan"), detail=detail)}
        five = crossings[5.0]
        farthest = max([c.value for c in crossings.values() if math.isfinite(c.value)], default=float(n))
        detail |= {
            "n_2sigma": _plain(crossings[2.0]),
            "n_5sigma": _plain(five),
            "extrapolated": five.extrapolated,
            "lower_limit": None if math.isfinite(five.value) else n,
            "extrapolation": _line(curve, max(float(n), farthest)),
            "curve": dict(
                zip(
                    ("separation", "scale", "power"),
                    (*np.exp(curve.parameters[:2]), curve.parameters[2]),
                    strict=True,
                )
            ),
        }
        if not math.isfinite(five.value):
            detail["reason"] = f"more than {n}: the learning curve does not reach five standard deviations"
        spread = 0.5 * (five.high - five.low) if math.isfinite(five.high - five.low) else None
        return {"detectability": Value(five.value, spread, detail=detail)}


def _contenders(study: Study) -> list[tuple[FeatureSet, str]]:
    """Return the candidate with the largest AUC of the first fold's validation part, then each set's strongest boosting."""
    found = study.merged()

    def strongest(names: list[str]) -> str:
        return max(names, key=lambda name: found[name][0].validation)

    best = [strongest(list(found))]
    for which in SETS:
        boosted = [name for name in found if name.startswith(f"{which}: gradient boosting")]
        best += [strongest(boosted)] if boosted else []
    parts = [name.partition(": ") for name in dict.fromkeys(best)]
    return [(which, name) for which, _, name in parts]  # type: ignore[misc]


def _plain(crossing: Crossing) -> dict[str, Any]:
    """Return a crossing for JSON; null where it is not reached."""
    return {
        "value": crossing.value,
        "low": crossing.low,
        "high": crossing.high,
        "extrapolated": crossing.extrapolated,
    }


def _line(curve: LearningCurve, largest: float) -> dict[str, NDArray[np.float64]]:
    """Return the fitted curve from the smallest size, or what five deviations need, to ``largest`` showers a side."""
    crossing = curve.crossing(2.0).value
    smallest = min(float(curve.sizes[0]), crossing)
    sizes = np.geomspace(smallest, max(largest, 2 * smallest), _LINE)
    low, high = curve.band(sizes)
    return {"sizes": sizes, "auc": curve.at(sizes), "low": low, "high": high}
