r"""Similarity of pairs of showers over the data range L, and distances to the nearest training showers.

**Similarity.** Structural similarity of reference pairs, generated pairs and mixed pairs, each of two different showers of
similar incident energy, see :mod:`caloforge.statistics.ssim`. The data range L sets what counts: cells well below L look
equal, those well above count by their ratio.

**Memory.** Distances are Euclidean in log10 of the cell energies, cut below at the threshold, as for precision and recall. With
training showers :math:`T` and held-out ones :math:`H`, m each, a generated shower has a distance :math:`d_T` to
its nearest training shower and :math:`d_H` to its nearest held-out one. Without memory the two sets could be
exchanged, and :math:`f = P(d_T < d_H) = 1/2`; a generator that repeats its training showers lies closer to :math:`T`.

In many dimensions few showers are the neighbours of most others, so that counting showers understates the error
of f. It is taken from all exchanges of T and H instead: with :math:`w_j` the part of the N showers whose nearest
neighbour among all :math:`M = 2m` is j, :math:`f = \sum_{j \in T} w_j`, and over random halves T

.. math:: \mathrm{Var} f = \frac14 \frac{M}{M - 1} \Big( \sum_j w_j^2 - \frac1M \big( \sum_j w_j \big)^2 \Big) .

Other held-out showers, which cannot remember, show what the same two sets give for real ones. The difference of two
samples' f has the same variance with the difference of their w, so that the influence of T and H cancels.

References:
    Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600.
    C. Meehan, K. Chaudhuri, S. Dasgupta, A non-parametric test to detect data-copying in generative models,
    AISTATS 2020, arXiv:2004.05675.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.showers import Showers
from caloforge.statistics.pairs import Neighbours, nearest
from caloforge.statistics.ssim import neighbour_pairs, order_at_random, rank_pairs, structural_similarity
from caloforge.validate.metrics.features import log_cells

__all__ = [
    "Memory",
    "Similarities",
    "fingerprints",
    "memory_of",
    "similarities_between",
    "similarities_within",
]

_MEV_A_GEV = 1000.0


@dataclass(frozen=True, eq=False)
class Similarities:
    """Structural similarities of pairs.

    Attributes:
        data_ranges: L (K,), GeV.
        values: (P, K) similarities.
    """

    data_ranges: tuple[float, ...]
    values: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean for each L (K,)."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def spread(self) -> NDArray[np.float64]:
        """Standard deviation over the pairs for each L (K,)."""
        return np.asarray(self.values.std(axis=0, ddof=1))

    @property
    def error(self) -> NDArray[np.float64]:
        """Error of the mean for each L (K,)."""
        return np.asarray(self.spread / np.sqrt(len(self.values)))

    def at(self, data_range: float) -> tuple[float, float]:
        """Return mean and error at one L."""
        k = int(np.argmin(np.abs(np.log(np.array(self.data_ranges) / data_range))))
        return float(self.mean[k]), float(self.error[k])


def similarities_within(
    showers: Showers, pairs: int, data_ranges: Sequence[float], seed: int, device: str = "cpu"
) -> Similarities:
    """Return the similarities of pairs of one sample.

    Arguments:
        showers: The sample, on a grid.
        pairs: How many at most; there are half as many as showers.
        data_ranges: L, GeV.
        seed: Which pairs.
        device: Where to compute.

    Raises:
        TooFewShowersError: When there are fewer than two pairs.
    """
    rng = generator(seed, "likeness/within")
    first, second = neighbour_pairs(order_at_random(showers.incident_energy, rng))
    chosen = np.sort(rng.choice(len(first), size=min(pairs, len(first)), replace=False))
    return _similarities((showers, showers), (first[chosen], second[chosen]), data_ranges, device)


def similarities_between(
    a: Showers, b: Showers, pairs: int, data_ranges: Sequence[float], seed: int, device: str = "cpu"
) -> Similarities:
    """Return the similarities of pairs of one shower from each of two samples, of equal rank in energy."""
    rng = generator(seed, "likeness/between")
    first, second = (order_at_random(one.incident_energy, rng) for one in (a, b))
    rows = rank_pairs(first, second, min(pairs, len(first), len(second)))
    return _similarities((a, b), rows, data_ranges, device)


def _similarities(
    samples: tuple[Showers, Showers],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    data_ranges: Sequence[float],
    device: str,
) -> Similarities:
    if len(rows[0]) < 2:
        msg = f"similarity: {len(rows[0])} pairs of showers; at least 2 are needed"
        raise TooFewShowersError(msg)
    first = samples[0].grid()
    second = first if samples[1] is samples[0] else samples[1].grid()
    limits = [_MEV_A_GEV * data_range for data_range in data_ranges]
    values = structural_similarity(first, rows[0], second, rows[1], limits, device)
    return Similarities(tuple(data_ranges), values)


def fingerprints(cells: NDArray[np.float32]) -> list[bytes]:
    """Return a hash of each shower (N, n_cells), for finding exact copies."""
    return [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in cells]


@dataclass(frozen=True, eq=False)
class Memory:
    """Distances of showers to the training set and to held-out showers.

    Attributes:
        to_training: Nearest training showers.
        to_held_out: Nearest held-out showers.
        known: m, the number of training showers and of held-out ones.
        copies: Number of showers that are exact copies of training showers.
    """

    to_training: Neighbours
    to_held_out: Neighbours
    known: int
    copies: int = 0

    @property
    def n(self) -> int:
        """Number of showers."""
        return len(self.to_training.distance)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Part of the showers whose nearest neighbour is each training, then each held-out shower (2 m,)."""
        nearer = np.sign(self.to_held_out.distance - self.to_training.distance)  # 0: in equal parts
        training = np.bincount(self.to_training.index, (1.0 + nearer) / 2, self.known)
        held_out = np.bincount(self.to_held_out.index, (1.0 - nearer) / 2, self.known)
        return np.concatenate([training, held_out]) / self.n

    @property
    def closer(self) -> tuple[float, float]:
        """Part of the showers closer to the training set, f, and its error."""
        return float(self.weights[: self.known].sum()), _exchange_error(self.weights)

    def more_than(self, other: Memory) -> tuple[float, float]:
        """Return by how much f is larger than another sample's with the same two sets, and the error."""
        difference = self.weights - other.weights
        return float(difference[: self.known].sum()), _exchange_error(difference)

    @property
    def neighbours(self) -> int:
        """Number of different showers, training and held out, that are nearest to one of these at least."""
        return int((self.weights > 0).sum())

    @property
    def ratio(self) -> float:
        """Median distance to the training set over that to held-out showers; NaN where the latter is 0."""
        below = float(np.median(self.to_held_out.distance))
        return float(np.median(self.to_training.distance)) / below if below > 0 else math.nan


def _exchange_error(weights: NDArray[np.float64]) -> float:
    """Return the standard deviation, over all halves, of the sum of a half of the weights (2 m,)."""
    size = len(weights)
    variance = 0.25 * size / (size - 1) * (float(weights @ weights) - float(weights.sum()) ** 2 / size)
    return math.sqrt(max(0.0, variance))


def memory_of(
    cells: NDArray[np.float32],
    training: NDArray[np.float32],
    held_out: NDArray[np.float32],
    marks: Collection[bytes],
    threshold: float,
    device: str = "cpu",
) -> Memory:
    """Return how near showers are to the training set and to as many held-out showers.

    Arguments:
        cells: Showers to be judged (N, n_cells), MeV.
        training: Training showers (m, n_cells), MeV.
        held_out: Others (m, n_cells), MeV.
        marks: Fingerprints of all training showers, which may be more.
        threshold: Cells below it are taken as equal, MeV.
        device: Where to compute.
    """
    copies = sum(mark in marks for mark in fingerprints(cells))
    features = log_cells(cells, threshold)
    found = [nearest(features, log_cells(others, threshold), device) for others in (training, held_out)]
    return Memory(found[0], found[1], len(training), copies)
