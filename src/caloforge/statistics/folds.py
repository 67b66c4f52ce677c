"""Folds of two samples for cross-fitting: each row is scored by a classifier that was not trained on it.

Samples that were generated with the conditions of the reference (incident energy, angle) have as many rows of each
condition. Their rows of the same conditions go to the same folds: otherwise the reference's row of an energy could be trained
on and the generated one held out, from which a classifier learns the wrong answer (AUC below 0.5 for equal samples).
Samples with conditions drawn independently have folds drawn independently: where one has by chance more rows of an
energy, to divide these evenly would make training and held-out part deviate in the same way (AUC above 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError
from caloforge.random import generator

__all__ = ["Rows", "Split", "make_splits"]

_EQUAL = (
    0.9  # fraction of rows with as many partners of the same conditions from which samples count as matched
)
_VALIDATION = 5  # one fifth of what is not held out chooses the classifier and when to stop


@dataclass(frozen=True)
class Rows:
    """Rows of both samples.

    Attributes:
        reference: Indices (n,) in the reference.
        generated: Indices (m,) in the generated sample.
    """

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
    """What one classifier is trained on, chosen with and tested on.

    Attributes:
        train: About 80 % of the rows that are not held out.
        validation: The other 20 %: early stopping, choice of the classifier.
        test: The fold held out.
    """

    train: Rows
    validation: Rows
    test: Rows


def make_splits(
    conditions_reference: ArrayLike, conditions_generated: ArrayLike, folds: int, seed: int = 0
) -> list[Split]:
    """Return one split for each fold; the test parts together are both samples.

    Arguments:
        conditions_reference: Conditions (n, c) of the reference.
        conditions_generated: Conditions (m, c) of the generated sample.
        folds: Number of folds, at least 2.
        seed: Seed of the distribution.

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
    return list(_splits(fold, part, folds))


def _splits(
    fold: tuple[NDArray[np.int64], ...], part: tuple[NDArray[np.int64], ...], folds: int
) -> Iterator[Split]:
    for index in range(folds):
        train, validation, test = [], [], []
        for of_fold, of_part in zip(fold, part, strict=True):
            held_out = of_fold == index
            test.append(np.flatnonzero(held_out))
            validation.append(np.flatnonzero(~held_out & (of_part == 0)))
            train.append(np.flatnonzero(~held_out & (of_part != 0)))
        yield Split(Rows(*train), Rows(*validation), Rows(*test))


def _distribute(
    of_reference: NDArray[np.int64], of_generated: NDArray[np.int64], parts: int, seed: int, stream: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the part of each row; matched groups go round the parts from the same start in both samples."""
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
    out: NDArray[np.bool_] = equal & (
        in_reference == 1
    )  # a value that occurs once in either sample is no chance
    return out
