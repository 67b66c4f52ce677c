"""Folds of two samples for cross-fitting: each row is scored by a classifier that was not trained on it.

Rows of both samples with the same conditions (incident energy, angle) are distributed evenly over the folds. This
matters for samples that were generated with the conditions of the reference, where each energy occurs once in either
sample: with independent folds the reference's row of an energy could be trained on and the generated one held out, from
which a classifier learns the wrong answer (AUC below 0.5 for equal samples).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError
from caloforge.random import generator

__all__ = ["Rows", "Split", "make_splits"]

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
    """Return the part of each row: rows of a group go round the parts, from the same random start in both samples."""
    rng = generator(seed, f"two-sample {stream}")
    start = np.zeros(1 + int(max(of_reference.max(), of_generated.max())), np.int64)
    common = np.intersect1d(of_reference, of_generated)
    for groups in (common, np.setdiff1d(of_reference, common), np.setdiff1d(of_generated, common)):
        start[groups] = rng.permutation(len(groups)) % parts
    out = []
    for groups in (of_reference, of_generated):
        order = rng.permutation(len(groups))
        order = order[np.argsort(groups[order], kind="stable")]
        sorted_groups = groups[order]
        first = np.searchsorted(sorted_groups, sorted_groups, side="left")
        result = np.empty(len(groups), np.int64)
        result[order] = (start[sorted_groups] + np.arange(len(groups)) - first) % parts
        out.append(result)
    return out[0], out[1]
