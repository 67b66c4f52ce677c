"""How alike showers are: structural similarity of trusted pairs, generated pairs and mixed pairs, over L.

Every pair is of two different showers of like incident energy: samples are put in order of energy (equal
ones at random), and neighbours, or showers of equal rank in two samples, make a pair. No shower is in two pairs
of a set, so that the error of a mean is the spread over the root of the number of pairs.

The data range L sets what counts: cells well below L look equal, those well above count by their ratio.

References:
    Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.showers import Showers
from caloforge.studies.support_size.similarity import similar_pairs

__all__ = ["Likeness", "likeness_between", "likeness_within"]


@dataclass(frozen=True, eq=False)
class Likeness:
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


def _order(energy: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the order of increasing energy, equal energies at random."""
    return np.lexsort((rng.random(len(energy)), energy))


def likeness_within(
    showers: Showers, pairs: int, data_ranges: Sequence[float], seed: int, device: str = "cpu"
) -> Likeness:
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
    order = _order(showers.incident_energy, rng)
    first = 2 * np.arange(len(order) // 2)
    first = np.sort(rng.choice(first, size=min(pairs, len(first)), replace=False))
    grid = showers.grid()
    return _likeness(grid, order[first], grid, order[first + 1], data_ranges, device)


def likeness_between(
    a: Showers, b: Showers, pairs: int, data_ranges: Sequence[float], seed: int, device: str = "cpu"
) -> Likeness:
    """Return the similarities of pairs of one shower from each of two samples, of equal rank in energy."""
    rng = generator(seed, "likeness/between")
    first, second = _order(a.incident_energy, rng), _order(b.incident_energy, rng)
    count = min(pairs, len(first), len(second))
    ranks = (np.arange(count) + 0.5) / count if count else np.empty(0)
    rows = (first[(ranks * len(first)).astype(np.int64)], second[(ranks * len(second)).astype(np.int64)])
    return _likeness(a.grid(), rows[0], b.grid(), rows[1], data_ranges, device)


def _likeness(
    first: NDArray[np.float32],
    rows_first: NDArray[np.int64],
    second: NDArray[np.float32],
    rows_second: NDArray[np.int64],
    data_ranges: Sequence[float],
    device: str,
) -> Likeness:
    if len(rows_first) < 2:
        msg = f"likeness: {len(rows_first)} pairs of showers; at least 2 are needed"
        raise TooFewShowersError(msg)
    values = similar_pairs(first, rows_first, second, rows_second, data_ranges, device)
    return Likeness(tuple(data_ranges), values)
