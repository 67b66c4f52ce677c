"""Detectability: how many showers distinguish the generator from the reference, and by which observables.

**Detectability.** Classifiers are trained on parts of the showers that are not held out: all of them, disjoint halves, quarters, and so on,
until a test of so many showers is without significance. Each is tested on the same held-out fold. The learning curve through these
AUCs (:mod:`caloforge.statistics.learning_curve`) gives the significance of a test with n showers a side, and the numbers of
showers at which it reaches two and five standard deviations. The classifier that is strongest on all showers may need many of them to
learn (a 3-D network), while a simpler one separates the samples with few. So the strongest one, chosen by the validation part of the
first fold, and the strongest gradient boosting of each set of features are all measured, and the one that needs the fewest showers
counts. The value is the number of showers a side for five standard deviations. It is null when the AUC of the strongest classifier,
trained and tested on all showers by cross-fitting, is compatible with 0.5 within two standard deviations: more showers than there are
would be needed, and ``lower_limit`` says how many there are.

**Attribution.** Which observables, cells and bins of the spectrum separate the samples: for the strongest classifier of each set of
features, the fall of its AUC on held-out showers when one feature is permuted among all of them
(:func:`caloforge.statistics.two_sample.importance`). Features that belong together are permuted together as well: an observable in all
layers, an energy bin in all layers, all bins of a layer. The first fold chooses the features that are measured, the other folds
give their importance, so that the selection has no influence on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator
from caloforge.statistics.learning_curve import LearningCurve, Point, fit_curve, learning_points, significance
from caloforge.statistics.training import FEWEST
from caloforge.statistics.two_sample import choose, importance, separate
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.classifiers import SETS, FeatureSet, TrainedTests, trained_tests
from caloforge.validate.metrics.two_sample_data import PairData
from caloforge.validate.sample import Sample

__all__ = ["Attribution", "Detectability"]

_KINDS: dict[FeatureSet, str] = {"cells": "cell", "observables": "observable", "spectrum": "spectrum bin"}
_SCREENED = 100  # single features looked at in the first fold, those that separate most alone
_MEASURED = 24  # features measured in the other folds
_REPORTED = 15  # of each kind
_SHOWERS = 600  # test showers a side in the first fold
_WHOLE = ", whole shower"
_RANGE = re.compile(r"(\S+) to (\S+) MeV")
_LINE = 40  # points of the fitted curve in the detail of the detectability
_LAYER = re.compile(r"\[(\d+)\]$|, (layers? .*)$")


class Attribution(Metric):
    """Permutation importance of observables, cells and bins of the spectrum."""

    name: ClassVar[str] = "attribution"
    together: ClassVar[str] = "two-sample tests"
    keys: ClassVar[tuple[Key, ...]] = (Key("attribution", "largest permutation importance", math.nan),)
    minimum: ClassVar[int] = FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``attribution``: in the detail ``features``, the most important first, and ``classifiers``."""
        tests, _ = trained_tests(reference, generated, settings)
        rows: list[dict[str, Any]] = []
        classifiers: dict[str, str] = {}
        for which in SETS:
            # the 3-D network has no features to permute
            found = {name: o for name, o in tests.outcomes(which).items() if not name.startswith("3-D")}
            name = choose(found).winner
            classifiers[_KINDS[which]] = name
            rows += _importances(tests, which, name, settings.seed)
        rows.sort(key=lambda row: -row["importance"])
        detail = {"features": rows, "classifiers": classifiers, "n_used": len(tests.data)}
        if not rows:
            return {"attribution": Value.missing("no feature varies", **detail)}
        return {"attribution": Value(rows[0]["importance"], rows[0]["uncertainty"], detail=detail)}


def _importances(tests: TrainedTests, which: FeatureSet, name: str, seed: int) -> list[dict[str, Any]]:
    """Return the most important features of one set."""
    candidate, outcomes = tests.candidate(which, name), tests.outcomes(which)[name]
    rng = generator(seed, f"attribution {which}")
    first = candidate.features(tests.splits[0].train)
    test = tests.splits[0].test
    x = np.concatenate(
        [
            side[rng.permutation(rows)[:_SHOWERS]]
            for side, rows in ((first.reference, test.reference), (first.generated, test.generated))
        ]
    )
    n = min(len(test.reference), _SHOWERS)
    conditions = sum(label in tests.data.condition_names for label in first.names)
    groups = _groups(first.names, separate(x, n), conditions)
    labels = list(groups)
    screened = importance(outcomes[0].score, x, n, [groups[label] for label in labels], rng)[:, 0]
    kept = [labels[index] for index in np.argsort(-screened, kind="stable")[:_MEASURED]]
    found: dict[str, list[NDArray[np.float64]]] = {label: [] for label in kept}
    for split, outcome in zip(tests.splits[1:], outcomes[1:], strict=True):
        features = candidate.features(split.train)
        places = {feature: index for index, feature in enumerate(features.names)}
        columns = {}
        for label in kept:
            names = [first.names[i] for i in groups[label]]
            if some := [places[name] for name in names if name in places]:
                columns[label] = np.array(some)
        n = len(split.test.reference)
        values = importance(outcome.score, features.of(split.test), n, list(columns.values()), rng)
        for label, value in zip(columns, values, strict=True):
            found[label].append(value)
    rows = [_row(label, values, which, tests.data) for label, values in found.items() if values]
    return sorted(rows, key=lambda row: -row["importance"])[:_REPORTED]


def _groups(
    names: Sequence[str], separation: NDArray[np.float64], conditions: int
) -> dict[str, NDArray[np.int64]]:
    """Return label to columns: the single features that separate most alone, and those that belong together.

    The first columns are the conditions, which are left out.
    """
    order = np.argsort(-separation, kind="stable")
    out = {names[index]: np.array([index]) for index in order[order >= conditions][:_SCREENED]}
    together: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found = _LAYER.search(name)
        if found is None:
            continue
        together.setdefault(f"{name[: found.start()]}, all layers", []).append(index)
        if found.group(2):
            together.setdefault(f"all bins, {found.group(2)}", []).append(index)
    for label, columns in together.items():
        out[label] = np.array([*columns, *_of_shower(label.removesuffix(", all layers"), names)])
    return out


def _of_shower(label: str, names: Sequence[str]) -> list[int]:
    """Return the columns of the whole shower's spectrum that lie in an energy bin of the layers."""
    outer = _RANGE.match(label)

    def inside(name: str) -> bool:
        inner = _RANGE.match(name)
        if inner is None or outer is None:
            return inner is None and name == label + _WHOLE  # under- and overflow
        return float(outer[1]) < math.sqrt(float(inner[1]) * float(inner[2])) < float(outer[2])

    return [index for index, name in enumerate(names) if name.endswith(_WHOLE) and inside(name)]


def _row(
    label: str, values: Sequence[NDArray[np.float64]], which: FeatureSet, data: PairData
) -> dict[str, Any]:
    """Return the report of one feature."""
    array = np.stack(values)
    row: dict[str, Any] = {
        "feature": label,
        "kind": _KINDS[which],
        "importance": float(array[:, 0].mean()),
        "uncertainty": float(np.sqrt((array[:, 1] ** 2).sum()) / len(array)),
    }
    if which == "cells" and label.startswith("cell "):
        cell = int(label.removeprefix("cell "))
        x, y = (float(value) for value in data.detector.cell_centres[cell][:2])
        layer = int(data.detector.cell_layer[cell])
        row |= {"cell": cell, "layer": layer, "x": x, "y": y}
        row["feature"] = f"cell in layer {layer} at x = {x:.1f} mm, y = {y:.1f} mm"
    return row


class Detectability(Metric):
    """Showers a side that distinguish the generator from the reference at five standard deviations."""

    name: ClassVar[str] = "detectability"
    together: ClassVar[str] = "two-sample tests"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("detectability", "showers a side for 5 standard deviations", math.inf),
    )
    minimum: ClassVar[int] = FEWEST

    def wanted(self, settings: Settings) -> bool:
        """Return whether the metric runs by default: not with ``quick``."""
        return not settings.quick

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``detectability``."""
        tests, _ = trained_tests(reference, generated, settings)
        split = tests.splits[0]
        test = choose(tests.merged())
        unseen = test.auc - 0.5 < 2.0 * test.error
        measured: dict[str, tuple[list[Point], LearningCurve]] = {}
        for which, name in _contenders(tests)[: 1 if unseen else None]:
            points = learning_points(tests.candidate(which, name), split, tests.folds, settings.seed)
            rng = generator(settings.seed, "detectability bootstrap")
            curve = fit_curve(points, len(split.test.reference), tests.folds, rng)
            measured[f"{which}: {name}"] = points, curve
        needs = {name: curve.crossing(5.0).value for name, (_, curve) in measured.items()}
        fewest = min(needs, key=needs.__getitem__)
        points, curve = measured[fewest]
        n = len(tests.data)
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
            "folds": tests.folds,
            "n_used": n,
        }
        two, five = (curve.crossing(sigmas) for sigmas in (2.0, 5.0))
        if unseen:
            unknown = {"value": None, "low": n, "high": None, "extrapolated": True}
            detail |= {"n_2sigma": unknown, "n_5sigma": unknown, "extrapolated": False, "lower_limit": n}
            detail["extrapolation"] = _line(curve, float(n))
            auc = f"{test.auc:.3f} +- {test.error:.3f}"
            reason = f"more than {n}: with so many showers a side the AUC is {auc}"
            return {"detectability": Value.missing(reason, **detail)}
        reached = math.isfinite(five.value)
        farthest = max([c.value for c in (two, five) if math.isfinite(c.value)], default=float(n))
        separation, scale = np.exp(curve.parameters[:2])
        detail |= {
            "n_2sigma": asdict(two),
            "n_5sigma": asdict(five),
            "extrapolated": five.extrapolated,
            "lower_limit": None if reached else n,
            "extrapolation": _line(curve, max(float(n), farthest)),
            "curve": {"separation": separation, "scale": scale, "power": curve.parameters[2]},
        }
        if not reached:
            detail["reason"] = f"more than {n}: the learning curve does not reach five standard deviations"
        error = 0.5 * (five.high - five.low) if math.isfinite(five.high - five.low) else None
        return {"detectability": Value(five.value, error, detail=detail)}


def _contenders(tests: TrainedTests) -> list[tuple[FeatureSet, str]]:
    """Return the candidate with the largest AUC of the first fold's validation part, then each set's strongest boosting."""
    found = tests.merged()

    def strongest(names: list[str]) -> str:
        return max(names, key=lambda name: found[name][0].validation)

    best = [strongest(list(found))]
    for which in SETS:
        boosted = [name for name in found if name.startswith(f"{which}: gradient boosting")]
        best += [strongest(boosted)] if boosted else []
    parts = [name.partition(": ") for name in dict.fromkeys(best)]
    return [(which, name) for which, _, name in parts]  # type: ignore[misc]


def _line(curve: LearningCurve, largest: float) -> dict[str, NDArray[np.float64]]:
    """Return the fitted curve from the smallest size, or what five deviations need, to ``largest`` showers a side."""
    crossing = curve.crossing(2.0).value
    smallest = min(float(curve.sizes[0]), crossing)
    sizes = np.geomspace(smallest, max(largest, 2 * smallest), _LINE)
    low, high = curve.band(sizes)
    return {"sizes": sizes, "auc": curve.at(sizes), "low": low, "high": high}
