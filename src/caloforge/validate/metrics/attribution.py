"""Attribution: which observables, cells and bins of the spectrum gave the generated sample away.

For the strongest classifier of each set of features, the fall of its AUC on held-out showers when one feature is permuted
among all of them (:mod:`caloforge.statistics.importance`). Features that belong together are permuted together as well: an
observable in all layers, an energy bin in all layers, all bins of a layer. The first fold says which features are
worth measuring, the other folds give their importance, so that the selection has no influence on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator
from caloforge.statistics.importance import importance, separate
from caloforge.statistics.training import FEWEST
from caloforge.statistics.two_sample import choose
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.two_sample_data import PairData
from caloforge.validate.metrics.two_sample_study import SETS, FeatureSet, Study, study_of

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["Attribution"]

_KINDS: dict[FeatureSet, str] = {"cells": "cell", "observables": "observable", "spectrum": "spectrum bin"}
_SCREENED = 100  # single features looked at in the first fold, those that separate most alone
_MEASURED = 24  # features measured in the other folds
_REPORTED = 15  # of each kind
_SHOWERS = 600  # test showers a side in the first fold
_WHOLE = ", whole shower"
_RANGE = re.compile(r"(\S+) to (\S+) MeV")
_LAYER = re.compile(r"\[(\d+)\]$|, (layers? .*)$")


class Attribution(Metric):
    """Permutation importance of observables, cells and bins of the spectrum."""

    name: ClassVar[str] = "attribution"
    keys: ClassVar[tuple[Key, ...]] = (Key("attribution", "largest permutation importance", math.nan),)
    minimum: ClassVar[int] = FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``attribution``: in the detail ``features``, the most important first, and ``classifiers``."""
        study, _ = study_of(reference, generated, settings)
        rows: list[dict[str, Any]] = []
        classifiers: dict[str, str] = {}
        for which in SETS:
            name = self._classifier(study, which)
            classifiers[_KINDS[which]] = name
            rows += _importances(study, which, name, settings.seed)
        rows.sort(key=lambda row: -row["importance"])
        detail = {"features": rows, "classifiers": classifiers, "n_used": len(study.data)}
        if not rows:
            return {"attribution": Value(float("nan"), detail={**detail, "reason": "no feature varies"})}
        return {"attribution": Value(rows[0]["importance"], rows[0]["uncertainty"], detail=detail)}

    @staticmethod
    def _classifier(study: Study, which: FeatureSet) -> str:
        """Return the strongest candidate of a set, without the 3-D network, which has no features to permute."""
        found = {name: o for name, o in study.outcomes(which).items() if not name.startswith("3-D")}
        return choose(found).winner


def _importances(study: Study, which: FeatureSet, name: str, seed: int) -> list[dict[str, Any]]:
    """Return the most important features of one set."""
    candidate, outcomes = study.candidate(which, name), study.outcomes(which)[name]
    rng = generator(seed, f"attribution {which}")
    first = candidate.features(study.splits[0].train)
    test = study.splits[0].test
    x = np.concatenate(
        [
            side[rng.permutation(rows)[:_SHOWERS]]
            for side, rows in ((first.reference, test.reference), (first.generated, test.generated))
        ]
    )
    n = min(len(test.reference), _SHOWERS)
    groups = _groups(first.names, separate(x, n), len(first.names) - _own(first.names, study.data))
    labels = list(groups)
    screened = importance(outcomes[0].score, x, n, [groups[label] for label in labels], rng)[:, 0]
    kept = [labels[index] for index in np.argsort(-screened, kind="stable")[:_MEASURED]]
    found: dict[str, list[NDArray[np.float64]]] = {label: [] for label in kept}
    for split, outcome in zip(study.splits[1:], outcomes[1:], strict=True):
        features = candidate.features(split.train)
        places = {feature: index for index, feature in enumerate(features.names)}
        columns = {
            label: np.array([places[first.names[i]] for i in groups[label] if first.names[i] in places], int)
            for label in kept
        }
        known = [label for label in kept if len(columns[label])]
        values = importance(
            outcome.score,
            features.of(split.test),
            len(split.test.reference),
            [columns[label] for label in known],
            rng,
        )
        for label, value in zip(known, values, strict=True):
            found[label].append(value)
    rows = [_row(label, values, which, study.data) for label, values in found.items() if values]
    return sorted(rows, key=lambda row: -row["importance"])[:_REPORTED]


def _own(names: Sequence[str], data: PairData) -> int:
    """Return how many of the names are features and not conditions."""
    return sum(name not in data.condition_names for name in names)


def _groups(
    names: Sequence[str], separation: NDArray[np.float64], conditions: int
) -> dict[str, NDArray[np.int64]]:
    """Return label to columns: the single features that separate most alone, and those that belong together.

    Arguments:
        names: Names of the columns.
        separation: How far each separates the samples alone.
        conditions: Conditions among them, which come first and are left out.
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
    out = []
    for index, name in enumerate(names):
        if not name.endswith(_WHOLE):
            continue
        inner = _RANGE.match(name)
        if inner is None:
            inside = name == label + _WHOLE  # under- and overflow
        else:
            centre = math.sqrt(float(inner[1]) * float(inner[2]))
            inside = outer is not None and float(outer[1]) < centre < float(outer[2])
        if inside:
            out.append(index)
    return out


def _row(
    label: str, values: Sequence[NDArray[np.float64]], which: FeatureSet, data: PairData
) -> dict[str, Any]:
    """Return what is reported of one feature."""
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
