"""Permutation importance: by how much the AUC falls when a feature is permuted among all rows of the test part.

The error is DeLong's for the difference of two AUCs of the same rows. Columns that say nearly the same (an observable of
neighbouring layers) hide each other, which is why groups of columns can be permuted together.

References:
    L. Breiman, Random forests, Machine Learning 45 (2001) 5, section 10; E. R. DeLong et al., Biometrics 44 (1988) 837.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.boosting import Scorer
from caloforge.statistics.scoring import auc_with_error, placements

__all__ = ["importance", "separate"]


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
