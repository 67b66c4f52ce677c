r"""Scores of a classifier: area under the ROC curve, calibration, Jensen-Shannon divergence, importance of features.

Logits z are calibrated on a validation part by :math:`\sigma(a z + b)` (Platt's scaling). On held-out rows, with the calibrated
probability :math:`s` of being generated,

.. math:: \mathrm{JSD} = 1 + \frac12 \left( \langle \log_2 (1 - s) \rangle_{ref} + \langle \log_2 s \rangle_{gen} \right)

is a lower bound of the Jensen-Shannon divergence in bits (0: equal, 1: disjoint); it may come out slightly negative for equal
samples. The AUC's error is DeLong's.

The permutation importance of a feature is the fall of the AUC when it is permuted among all rows of the test part; its error is
DeLong's for the difference of two AUCs of the same rows. Columns that contain nearly the same (an observable of neighbouring
layers) hide each other, so that groups of columns can be permuted together.

References:
    E. R. DeLong et al., Biometrics 44 (1988) 837; J. Platt, Advances in large margin classifiers (1999) 61; C. Krause, D. Shih,
    CaloFlow, arXiv:2106.05285 (JSD); L. Breiman, Random forests, Machine Learning 45 (2001) 5, section 10 (importance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import require

__all__ = ["Scorer", "auc_with_error", "calibrate", "divergence_bits", "importance", "placements", "separate"]

Array = NDArray[np.float64]

Scorer = Callable[[NDArray[np.float32]], Array]
"""Features (N, d) to scores (N,), larger for rows more like the generated sample."""


def auc_with_error(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the area under the ROC curve of scores (N,) of label 0 and (M,) of label 1, and DeLong's error."""
    above, below = placements(reference, generated)
    enough = min(above.size, below.size) > 1
    variance = above.var(ddof=1) / above.size + below.var(ddof=1) / below.size if enough else np.nan
    return float(above.mean()), float(np.sqrt(variance))


def placements(reference: ArrayLike, generated: ArrayLike) -> tuple[Array, Array]:
    """Return DeLong's placement values of scores (N,) and (M,); the mean of either is the AUC.

    Returns:
        The fraction of reference scores below each generated one (M,), and of generated scores above each reference
        score (N,); equal scores count half.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    ranks = rankdata(np.concatenate([a, b]))
    above: Array = (ranks[a.size :] - rankdata(b)) / a.size
    below: Array = 1.0 - (ranks[: a.size] - rankdata(a)) / b.size
    return above, below


def calibrate(logits: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Return slope and offset that make ``sigmoid(slope * logit + offset)`` the most likely probability of scores (N,).

    Platt's smoothed targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) for the labels (N,) 1 and 0 keep it finite for separable samples: a
    logistic regression in which each row has both labels, weighted by its target and the rest.

    Raises:
        MissingExtraError: When scikit-learn is not installed.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    ones, zeros = float(y.sum()), float((1.0 - y).sum())
    target = np.where(y > 0.5, (ones + 1.0) / (ones + 2.0), 1.0 / (zeros + 2.0))
    model = require("sklearn.linear_model", "eval").LogisticRegression(
        C=np.inf, solver="newton-cholesky", tol=1e-8
    )
    rows, both = np.tile(z, 2)[:, None], np.repeat([1.0, 0.0], z.size)
    model.fit(rows, both, sample_weight=np.concatenate([target, 1.0 - target]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def divergence_bits(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the Jensen-Shannon divergence in bits and its error, from calibrated logits (N,) and (M,)."""
    a = -np.logaddexp(0.0, np.asarray(reference, np.float64)) / np.log(2.0)
    b = -np.logaddexp(0.0, -np.asarray(generated, np.float64)) / np.log(2.0)
    error = 0.5 * np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
    return float(1.0 + 0.5 * (a.mean() + b.mean())), float(error)


def importance(
    score: Scorer,
    x: NDArray[np.float32],
    n_reference: int,
    groups: Sequence[NDArray[np.int64]],
    rng: np.random.Generator,
) -> Array:
    """Return the fall of the AUC and its error for each group of columns (G, 2).

    Arguments:
        score: The trained classifier.
        x: Features of the test part (N, d), those of the reference first.
        n_reference: How many are of the reference.
        groups: Columns that are permuted together, with the same permutation.
        rng: Draws the permutations.
    """

    def placed(rows: NDArray[np.float32]) -> tuple[Array, Array]:
        scores = score(rows)
        return placements(scores[:n_reference], scores[n_reference:])

    before = placed(x)
    out = np.zeros((len(groups), 2))
    for index, columns in enumerate(groups):
        changed = x.copy()
        changed[:, columns] = x[np.ix_(rng.permutation(len(x)), columns)]
        differences = [a - b for a, b in zip(before, placed(changed), strict=True)]
        out[index, 0] = differences[0].mean()
        out[index, 1] = np.sqrt(sum(d.var(ddof=1) / d.size for d in differences))
    return out


def separate(x: NDArray[np.float32], n_reference: int) -> Array:
    """Return how far each column alone separates the samples: |AUC - 0.5| (d,); NaN counts as lowest."""
    filled = np.where(np.isnan(x), -np.inf, x)
    return np.array(
        [abs(auc_with_error(column[:n_reference], column[n_reference:])[0] - 0.5) for column in filled.T]
    )
