r"""Two-sample tests with several classifiers: which one is strongest is decided on data that do not test it.

Each fold of :func:`~caloforge.statistics.folds.make_splits` has three parts. Every candidate is trained on the training
part, stopped early on the validation part, and scored on validation and test part. In each fold the candidate with the
largest validation AUC is taken, and its AUC on the test part counts:

.. math:: \mathrm{AUC} = \frac1K \sum_k \mathrm{AUC}^{test}_k (c_k), \qquad
          c_k = \mathrm{argmax}_c\, \mathrm{AUC}^{validation}_k (c) .

The test part has no influence on the choice, so that the expectation for equal samples is 0.5 however many candidates
there are (the maximum of several test AUCs would be above). An AUC below 0.5 is reported as it is. The error is the
larger of DeLong's for the K test parts together and the spread of the folds over the square root of K.

References:
    E. R. DeLong et al., Biometrics 44 (1988) 837; D. Lopez-Paz, M. Oquab, Revisiting classifier two-sample tests,
    arXiv:1610.06545; V. Chernozhukov et al., Double/debiased machine learning, arXiv:1608.00060 (cross-fitting).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.random import child_seed
from caloforge.statistics.boosting import Scorer
from caloforge.statistics.folds import Rows, Split
from caloforge.statistics.scoring import auc_with_error

__all__ = ["Candidate", "Features", "Outcome", "Test", "choose", "combine", "cross_fit"]


@dataclass(frozen=True)
class Features:
    """Features of both samples.

    Attributes:
        reference: (n, d), NaN where there is no value.
        generated: (m, d).
        names: What each column is (d,).
    """

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
        name: What is reported, unique among the candidates.
        features: Rows of the training part to the features of all rows: whatever is learned from data for the features
            (which cells are occupied most) is learned from these rows.
        fit: Trains the classifier.
        facts: What is reported beside the name, for example the threshold of the cells.
    """

    name: str
    features: Callable[[Rows], Features]
    fit: Fit
    facts: Mapping[str, object]


@dataclass(frozen=True)
class Outcome:
    """One candidate in one fold.

    Attributes:
        validation: AUC of the validation part.
        auc: AUC of the test part.
        error: DeLong's error of it.
        score: The trained classifier.
    """

    validation: float
    auc: float
    error: float
    score: Scorer


@dataclass(frozen=True)
class Test:
    """An AUC with its error.

    Attributes:
        auc: Mean over the folds.
        error: One standard deviation.
        chosen: Name of the candidate taken in each fold.
    """

    __test__ = False

    auc: float
    error: float
    chosen: tuple[str, ...]

    @property
    def winner(self) -> str:
        """The candidate taken in most folds; the first of those in a draw."""
        return Counter(self.chosen).most_common(1)[0][0]


def cross_fit(candidate: Candidate, splits: Sequence[Split], seed: int = 0) -> list[Outcome]:
    """Train a candidate in each fold and score what it was not trained on.

    Arguments:
        candidate: The classifier.
        splits: The folds.
        seed: Seed of the trainings.
    """
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
    """Return the AUC of the strongest candidate, chosen in each fold by its validation part.

    Arguments:
        outcomes: Candidate to its outcomes in the same folds.
    """
    folds = min(len(found) for found in outcomes.values())
    chosen = tuple(_strongest(outcomes, index) for index in range(folds))
    return Test(*combine([outcomes[name][index] for index, name in enumerate(chosen)]), chosen)


def _strongest(outcomes: Mapping[str, Sequence[Outcome]], index: int) -> str:
    """Return the candidate with the largest validation AUC in a fold; the first of equal ones."""
    return max(outcomes, key=lambda name: outcomes[name][index].validation)
