r"""Detectability: how many showers it takes to tell the generator from the reference.

The strongest classifier, chosen by the validation part of the first fold, is trained on parts of the showers that are not
held out: all of them, disjoint halves, quarters, and so on, until a test of so many showers is without significance. Each is
tested on the same held-out fold. The learning curve through these AUCs gives the significance of a test in which n
showers a side are all there is, see :mod:`caloforge.statistics.learning_curve`, and the numbers of showers at which
it reaches two and five standard deviations.

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
    fit_curve,
    learning_points,
    significance,
)
from caloforge.statistics.training import FEWEST
from caloforge.statistics.two_sample import choose
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.two_sample_study import FeatureSet, Study, study_of

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
        which, name = _strongest(study)
        split = study.splits[0]
        points = learning_points(study.candidate(which, name), split, study.folds, settings.seed)
        rng = generator(settings.seed, "detectability bootstrap")
        curve = fit_curve(points, len(split.test.reference), study.folds, rng)
        crossings = {sigmas: curve.crossing(sigmas) for sigmas in (2.0, 5.0)}
        n = len(study.data)
        detail: dict[str, Any] = {
            "classifier": f"{which}: {name}",
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
        test = choose(study.merged())
        if test.auc - 0.5 < 2.0 * test.error:
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


def _strongest(study: Study) -> tuple[FeatureSet, str]:
    """Return the set and candidate with the largest AUC of the first fold's validation part."""
    found = study.merged()
    best = max(found, key=lambda name: found[name][0].validation)
    which, _, name = best.partition(": ")
    return which, name  # type: ignore[return-value]


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
