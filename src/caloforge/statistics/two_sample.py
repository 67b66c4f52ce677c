r"""Two-sample tests with classifiers: folds, cross-fitting, the AUC, and its attribution to features.

**Scores.** Logits z are calibrated on a validation part by :math:`\sigma(a z + b)` (Platt's scaling). On held-out rows, with
the calibrated probability :math:`s` of being generated,

.. math:: \mathrm{JSD} = 1 + \frac12 \left( \langle \log_2 (1 - s) \rangle_{ref} + \langle \log_2 s \rangle_{gen} \right)

is a lower bound of the Jensen-Shannon divergence in bits (0: equal, 1: disjoint); it may come out slightly negative for equal
samples. The AUC's error is DeLong's.

The permutation importance of a feature is the fall of the AUC when it is permuted among all rows of the test part; its error is
DeLong's for the difference of two AUCs of the same rows. Columns that contain nearly the same (an observable of neighbouring
layers) hide each other, so that groups of columns can be permuted together.

**Cross-fitting.** Each fold has a training, a validation and a test part. Every candidate is trained on the training part,
stopped early on the validation part, and scored on validation and test part. In each fold the candidate with the largest
validation AUC is chosen, and its AUC on the test part counts:

.. math:: \mathrm{AUC} = \frac1K \sum_k \mathrm{AUC}^{test}_k (c_k), \qquad
          c_k = \mathrm{argmax}_c\, \mathrm{AUC}^{validation}_k (c) .

The test part has no influence on the choice, so that the expectation for equal samples is 0.5 for any number of candidates (the
maximum of several test AUCs would be above). An AUC below 0.5 is reported as it is. The error is the larger of DeLong's for the K
test parts together and the standard deviation of the folds over the square root of K.

Samples that were generated with the conditions of the reference (incident energy, angle) have as many rows of each condition. Their
rows of the same conditions are in the same folds: otherwise the reference's row of an energy could be trained on and the
generated one held out, from which a classifier learns the wrong answer (AUC below 0.5 for equal samples). Samples with conditions
drawn independently have folds drawn independently: where one has by chance more rows of an energy, dividing these evenly would
make training and held-out part deviate in the same way (AUC above 0.5).

References:
    E. R. DeLong et al., Biometrics 44 (1988) 837; J. Platt, Advances in large margin classifiers (1999) 61; C. Krause, D. Shih,
    CaloFlow, arXiv:2106.05285 (JSD); L. Breiman, Random forests, Machine Learning 45 (2001) 5, section 10 (importance);
    D. Lopez-Paz, M. Oquab, Revisiting classifier two-sample tests, arXiv:1610.06545; V. Chernozhukov et al., Double/debiased
    machine learning, arXiv:1608.00060 (cross-fitting).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, require
from caloforge.random import child_seed, generator

__all__ = [
    "Candidate",
    "Features",
    "Outcome",
    "Rows",
    "Scorer",
    "Split",
    "Test",
    "auc_with_error",
    "calibrate",
    "choose",
    "combine",
    "cross_fit",
    "divergence_bits",
    "importance",
    "make_splits",
    "separate",
]

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
    """Return the fall of the AUC and its error for each group of columns (G, 2), which are permuted together.

    Arguments:
        score: The trained classifier.
        x: Features of the test part (N, d), those of the reference first.
        n_reference: How many are of the reference.
        groups: The columns of each group.
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


_EQUAL = 0.9  # fraction of rows with as many partners of the same conditions from which samples are matched
_VALIDATION = 5  # one fifth of what is not held out chooses the classifier and when to stop


@dataclass(frozen=True)
class Rows:
    """Indices (n,) of rows of the reference and (m,) of the generated sample."""

    reference: NDArray[np.int64]
    generated: NDArray[np.int64]

    def __len__(self) -> int:
        return min(len(self.reference), len(self.generated))

    @property
    def labels(self) -> NDArray[np.float64]:
        """0 for each row of the reference, then 1 for each generated one (n + m,)."""
        return np.repeat([0.0, 1.0], [len(self.reference), len(self.generated)])


@dataclass(frozen=True)
class Split:
    """The parts of one fold."""

    train: Rows
    """About 80 % of the rows that are not held out."""
    validation: Rows
    """The other 20 %, for early stopping and the choice of the classifier."""
    test: Rows
    """The rows held out."""


def make_splits(
    conditions_reference: ArrayLike, conditions_generated: ArrayLike, folds: int, seed: int = 0
) -> list[Split]:
    """Return one split for each fold; the test parts together are both samples, of conditions (n, c) and (m, c).

    Raises:
        InputError: With fewer than two folds, or fewer rows of a sample than ten a fold.
    """
    a, b = (np.atleast_2d(np.asarray(x, np.float64)) for x in (conditions_reference, conditions_generated))
    if folds < 2 or min(len(a), len(b)) < 10 * folds:
        msg = f"{folds} folds of {len(a)} and {len(b)} rows; expected at least 2 folds of 10 rows of each sample"
        raise InputError(msg)
    groups = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)[1].ravel()
    of_reference, of_generated = groups[: len(a)], groups[len(a) :]
    fold = _distribute(of_reference, of_generated, folds, seed, "fold")
    part = _distribute(of_reference, of_generated, _VALIDATION, seed, "validation")
    out = []
    for index in range(folds):
        rows = [
            [np.flatnonzero(x) for x in (held_out, ~held_out & (p == 0), ~held_out & (p != 0))]
            for held_out, p in zip([f == index for f in fold], part, strict=True)
        ]
        test, validation, train = (Rows(*sides) for sides in zip(*rows, strict=True))
        out.append(Split(train, validation, test))
    return out


def _distribute(
    of_reference: NDArray[np.int64], of_generated: NDArray[np.int64], parts: int, seed: int, stream: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the part of each row; matched groups are dealt to the parts from the same start in both samples."""
    rng = generator(seed, f"two-sample {stream}")
    n_groups = 1 + int(max(of_reference.max(), of_generated.max()))
    matched = _matched(*(np.bincount(x, minlength=n_groups) for x in (of_reference, of_generated)))
    start = rng.permutation(n_groups) % parts
    out = []
    for groups in (of_reference, of_generated):
        result = np.empty(len(groups), np.int64)
        order = rng.permutation(len(groups))
        order = order[np.argsort(groups[order], kind="stable")]
        order = order[matched[groups[order]]]
        of = groups[order]
        result[order] = (start[of] + np.arange(len(of)) - np.searchsorted(of, of, side="left")) % parts
        others = np.flatnonzero(~matched[groups])
        result[others] = rng.permutation(len(others)) % parts
        out.append(result)
    return out[0], out[1]


def _matched(in_reference: NDArray[np.int64], in_generated: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which groups of equal conditions (g,) are matched, from the number of rows of each sample (g,)."""
    equal: NDArray[np.bool_] = (in_reference == in_generated) & (in_reference > 0)
    both = in_reference + in_generated
    if both[equal].sum() >= _EQUAL * both.sum():
        return equal
    # a value that occurs once in either sample is no coincidence
    return np.asarray(equal & (in_reference == 1))


@dataclass(frozen=True)
class Features:
    """Features (n, d) and (m, d) of both samples, NaN where there is no value, and the names of the columns (d,)."""

    reference: NDArray[np.float32]
    generated: NDArray[np.float32]
    names: tuple[str, ...]

    def of(self, rows: Rows) -> NDArray[np.float32]:
        """Return the features of some rows, those of the reference first."""
        return np.concatenate([self.reference[rows.reference], self.generated[rows.generated]])


Fit = Callable[
    [NDArray[np.float32], NDArray[np.float64], NDArray[np.float32], NDArray[np.float64], int], Scorer
]
"""Training features and labels, validation features and labels, seed, to the function that scores rows."""


@dataclass(frozen=True)
class Candidate:
    """A classifier with its features.

    Attributes:
        name: Its name in reports, unique among the candidates.
        features: Rows of the training part to the features of all rows: everything that features learn from data (which cells
            are occupied most) is learned from these rows.
        fit: Trains the classifier.
    """

    name: str
    features: Callable[[Rows], Features]
    fit: Fit


@dataclass(frozen=True)
class Outcome:
    """One candidate in one fold: AUC of the validation part, AUC of the test part and its DeLong error, the trained classifier."""

    validation: float
    auc: float
    error: float
    score: Scorer


@dataclass(frozen=True)
class Test:
    """The AUC, a mean over the folds, its error, and the name of the candidate chosen in each fold."""

    __test__ = False

    auc: float
    error: float
    chosen: tuple[str, ...]

    @property
    def winner(self) -> str:
        """The candidate of most folds; the first of those in a draw."""
        return Counter(self.chosen).most_common(1)[0][0]


def cross_fit(candidate: Candidate, splits: Sequence[Split], seed: int = 0) -> list[Outcome]:
    """Train a candidate in each fold and score the rows that it was not trained on."""
    outcomes = []
    for index, split in enumerate(splits):
        features = candidate.features(split.train)
        x_validation, labels = features.of(split.validation), split.validation.labels
        score = candidate.fit(
            features.of(split.train),
            split.train.labels,
            x_validation,
            labels,
            child_seed(seed, f"two-sample {candidate.name}", index),
        )
        validation = score(x_validation)
        scores = score(features.of(split.test))
        n = len(split.test.reference)
        outcomes.append(
            Outcome(
                auc_with_error(validation[labels < 0.5], validation[labels > 0.5])[0],
                *auc_with_error(scores[:n], scores[n:]),
                score,
            )
        )
    return outcomes


def combine(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the mean AUC of the test parts and its error."""
    values = np.array([outcome.auc for outcome in outcomes])
    k = len(values)
    statistical = float(np.sqrt(np.mean([outcome.error**2 for outcome in outcomes]) / k))
    between = float(values.std(ddof=1) / np.sqrt(k)) if k > 1 else 0.0
    return float(values.mean()), max(statistical, between)


def choose(outcomes: Mapping[str, Sequence[Outcome]]) -> Test:
    """Return the AUC of the strongest candidate, chosen in each fold by its validation part, from outcomes in the same folds."""
    folds = min(len(found) for found in outcomes.values())
    chosen = tuple(max(outcomes, key=lambda c: outcomes[c][k].validation) for k in range(folds))
    return Test(*combine([outcomes[name][index] for index, name in enumerate(chosen)]), chosen)
