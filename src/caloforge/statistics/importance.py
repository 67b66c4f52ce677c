"""Gradient boosting of decision trees as a classifier, and the permutation importance of features.

Gradient boosting of decision trees as a two-sample classifier.

Histogram-based boosting with 8 leaves a tree and a learning rate of 0.15; it stops when the logarithmic loss of the
validation part has not improved for 15 trees. Larger trees and lower rates gained nothing on showers of the shipped
models and took two to four times as long. A value that is not there (an empty cell, the width of an empty layer) is
NaN: trees send it to the side that separates better, and the bins of a feature are quantiles of the values that
are there.

References:
    J. H. Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29 (2001) 1189;
    G. Ke et al., LightGBM, NeurIPS 2017.

Permutation importance: by how much the AUC falls when a feature is permuted among all rows of the test part.

The error is DeLong's for the difference of two AUCs of the same rows. Columns that say nearly the same (an observable of
neighbouring layers) hide each other, which is why groups of columns can be permuted together.

References:
    L. Breiman, Random forests, Machine Learning 45 (2001) 5, section 10; E. R. DeLong et al., Biometrics 44 (1988) 837.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import require
from caloforge.statistics.scoring import auc_with_error, placements

__all__ = ["Scorer", "fit_boosting", "importance", "separate"]


Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Features (N, d) to scores (N,), larger for rows more like the generated sample."""


def fit_boosting(
    x: NDArray[np.float32],
    labels: NDArray[np.float64],
    x_validation: NDArray[np.float32],
    labels_validation: NDArray[np.float64],
    seed: int,
) -> Scorer:
    """Train and return the function that scores rows.

    Arguments:
        x: Training features (N, d), NaN where there is no value.
        labels: 0 or 1 (N,).
        x_validation: Features (M, d) of the validation part.
        labels_validation: Its labels (M,).
        seed: Seed of the trees.

    Raises:
        MissingExtraError: When scikit-learn is not installed.
    """
    ensemble = require("sklearn.ensemble", "eval")
    model = ensemble.HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=300,
        max_leaf_nodes=8,
        min_samples_leaf=20 if len(x) >= 1000 else max(3, len(x) // 50),
        l2_regularization=1.0,
        early_stopping=True,
        n_iter_no_change=15,
        random_state=seed,
    )
    model.fit(x, labels, X_val=x_validation, y_val=labels_validation)

    def score(features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(model.decision_function(features), np.float64)

    return score


def importance(
    score: Scorer,
    x: NDArray[np.float32],
    n_reference: int,
    groups: list[NDArray[np.int64]],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the fall of the AUC and its error for each group of columns (G, 2).

    Arguments:
        score: The trained classifier.
        x: Features of the test part (N, d), those of the reference first.
        n_reference: How many are of the reference.
        groups: Columns that are permuted together, with the same permutation.
        rng: Draws the permutations.
    """
    before = _placements(score(x), n_reference)
    out = np.zeros((len(groups), 2))
    for index, columns in enumerate(groups):
        changed = x.copy()
        changed[:, columns] = x[np.ix_(rng.permutation(len(x)), columns)]
        after = _placements(score(changed), n_reference)
        differences = [a - b for a, b in zip(before, after, strict=True)]
        out[index, 0] = differences[0].mean()
        out[index, 1] = np.sqrt(sum(d.var(ddof=1) / d.size for d in differences))
    return out


def _placements(
    scores: NDArray[np.float64], n_reference: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return placements(scores[:n_reference], scores[n_reference:])


def separate(x: NDArray[np.float32], n_reference: int) -> NDArray[np.float64]:
    """Return how far each column alone separates the samples: |AUC - 0.5| (d,); NaN counts as lowest."""
    filled = np.where(np.isnan(x), -np.inf, x)
    return np.array(
        [abs(auc_with_error(column[:n_reference], column[n_reference:])[0] - 0.5) for column in filled.T]
    )
