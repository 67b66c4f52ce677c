r"""The duplicates of a sample: cheap criteria for all pairs, structural similarity for those that pass.

The duplicates of a sample: cheap criteria for all pairs, structural similarity for those that pass them.

Where more pairs pass than may be compared cell by cell, only the first showers of the sample are used, as many as
give no more than that number of pairs: so the duplicates found are still all those of a random sample of showers,
and many duplicates among few showers say as much about the support.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.statistics.ssim import WINDOW, structural_similarity
from caloforge.studies.support_size.birthday import Duplicates
from caloforge.studies.support_size.criteria import (
    Definition,
    Limits,
    PairTable,
    condensed_size,
    pair_indices,
)

__all__ = [
    "Found",
    "SimilaritySearch",
    "find_duplicates",
    "first_showers",
    "random_similarities",
    "why_no_windows",
]


_MEV_A_GEV = 1000.0


def why_no_windows(detector: Detector) -> str:
    """Return why structural similarity makes no sense for a detector; empty when it does."""
    if not detector.is_grid or len(detector.shape) != 3:
        return (
            f"structural similarity needs a regular x-y grid of cells; '{detector.name}' is {detector.order}"
        )
    if min(detector.shape[:2]) < WINDOW:
        nx, ny = detector.shape[:2]
        return f"structural similarity needs {WINDOW} x {WINDOW} cells a layer; '{detector.name}' has {nx} x {ny}"
    return ""


class SimilaritySearch:
    """Structural similarities of pairs of one sample, each computed once.

    Arguments:
        images: Showers (N, nx, ny, n_layers), MeV.
        data_range: L, GeV.
        device: Where to compute.
    """

    def __init__(self, images: NDArray[np.float32], data_range: float, device: str = "cpu") -> None:
        self.images, self.data_range, self.device = images, data_range, device
        self._known = np.empty(0, np.int64)
        self._values = np.empty(0)

    @property
    def count(self) -> int:
        """Number of pairs compared until now."""
        return len(self._known)

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the similarity (K,) of the pairs at these positions in condensed order."""
        new = np.setdiff1d(positions, self._known)
        if len(new):
            i, j = pair_indices(new, len(self.images)).T
            limits = (_MEV_A_GEV * self.data_range,)
            values = structural_similarity(self.images, i, self.images, j, limits, self.device)[:, 0]
            known, values = np.concatenate([self._known, new]), np.concatenate([self._values, values])
            order = np.argsort(known)
            self._known, self._values = known[order], values[order]
        return self._values[np.searchsorted(self._known, positions)]


def random_similarities(search: SimilaritySearch, pairs: int, seed: int) -> NDArray[np.float64]:
    """Return the similarities (K,) of random pairs, all of them when there are not more.

    Arguments:
        search: The sample.
        pairs: How many at most.
        seed: Which.
    """
    possible = condensed_size(len(search.images))
    if pairs >= possible:
        return search.of(np.arange(possible))
    rng = generator(seed, "similarity limit")
    return search.of(np.sort(rng.choice(possible, size=pairs, replace=False)))


def first_showers(pairs: NDArray[np.int64], n: int, most: int) -> int:
    """Return the largest number of first showers, at most ``n``, that hold not more than ``most`` of the pairs.

    Arguments:
        pairs: (K, 2) showers i < j.
        n: Number of showers.
        most: Most pairs.
    """
    if len(pairs) <= most:
        return n
    return max(2, int(np.partition(pairs[:, 1], most)[most]))


@dataclass(frozen=True, eq=False)
class Found:
    """The duplicates of a sample by one definition.

    Attributes:
        duplicates: Which pairs.
        similarity: Their structural similarities (T,), or None where they were not asked for.
        candidates: Pairs that passed the cheap criteria, among the showers used.
    """

    duplicates: Duplicates
    similarity: NDArray[np.float64] | None
    candidates: int


def find_duplicates(
    table: PairTable,
    limits: Limits,
    definition: Definition,
    search: SimilaritySearch | None = None,
    most: int = 50_000,
) -> Found:
    """Return the duplicates of a sample.

    Arguments:
        table: The cheap criteria of all pairs.
        limits: The limits.
        definition: What a duplicate is.
        search: Compares cells; needed by the definition with similarity.
        most: Most pairs to compare cell by cell.
    """
    positions = table.passing(limits.cheap, definition.criteria)
    pairs = pair_indices(positions, table.n)
    if not definition.similarity:
        return Found(Duplicates(table.n, pairs), None, len(pairs))
    assert search is not None
    assert limits.similarity is not None
    n = first_showers(pairs, table.n, most)
    used = pairs[:, 1] < n
    similarity = search.of(positions[used])
    similar = similarity >= limits.similarity
    return Found(Duplicates(n, pairs[used][similar]), similarity[similar], int(used.sum()))
