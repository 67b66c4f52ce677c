r"""Quantile divergences for 2, 4, 8, ... bins at once.

A bin of 2^m quantiles is two bins of 2^(m+1) quantiles, since both come from splitting at medians. So the finest bins
are counted once and neighbours added up. See :mod:`caloforge.validate.metrics.quantile` for the divergence itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import TooFewShowersError
from caloforge.validate.metrics.quantile import QuantileBins, jensen_shannon

__all__ = ["SHOWERS_A_BIN", "DyadicBins", "deepest"]

SHOWERS_A_BIN = 10
"""Only n_quant <= n / 10 counts for a set of n showers."""


def deepest(n: int) -> int:
    """Return the largest m with 2^m <= n / 10.

    Raises:
        TooFewShowersError: When not even two bins have ten showers each.
    """
    if n < 2 * SHOWERS_A_BIN:
        msg = f"{n} showers are too few for quantiles; expected at least {2 * SHOWERS_A_BIN}"
        raise TooFewShowersError(msg)
    return (n // SHOWERS_A_BIN).bit_length() - 1


class DyadicBins:
    """Quantiles of a reference, all powers of two up to 2^depth.

    Arguments:
        reference: Values (N,) or (N, d).
        depth: The finest bins are 2^depth.

    Attributes:
        quantiles: (depth,) numbers of bins: 2, 4, ..., 2^depth.
    """

    def __init__(self, reference: ArrayLike, depth: int) -> None:
        self._bins = QuantileBins(reference, 2**depth)
        self.depth = depth
        self.quantiles: NDArray[np.int64] = 2 ** np.arange(1, depth + 1)

    def count(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return how many values (M,) or (M, d) fall into each of the finest bins (2^depth,)."""
        return self._bins.count(values)

    def divergences(self, counts: ArrayLike) -> NDArray[np.float64]:
        """Return the divergence from the reference at every number of quantiles (depth,).

        Arguments:
            counts: Entries of the finest bins (2^depth,), as :meth:`count` gives them.
        """
        p, g = self._bins.counts, np.asarray(counts)
        found = []
        for level in range(1, self.depth + 1):
            shape = (2**level, -1)
            found.append(jensen_shannon(p.reshape(shape).sum(axis=1), g.reshape(shape).sum(axis=1)))
        return np.array(found)

    def compare(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the divergences of values (M,) or (M, d) at every number of quantiles (depth,)."""
        return self.divergences(self.count(values))
