r"""All pairs of N entries: their order, differences and divergences; and nearest neighbours in another set.

Values of all pairs are in condensed order, (0, 1), (0, 2), ..., (1, 2), ..., as SciPy's ``pdist`` has them.

The Jensen-Shannon divergence of two profiles :math:`P, Q` (energies in K bins) with the Kullback-Leibler divergence of
unnormalised densities, :math:`K(P, Q) = \sum_k P_k \ln(P_k / Q_k) - P_k + Q_k`, is, with :math:`M = (P + Q)/2`, the two linear
terms cancelling,

.. math::
    J(P, Q) = \tfrac12 K(P, M) + \tfrac12 K(Q, M)
            = \tfrac12 \sum_k \left( P_k \ln P_k + Q_k \ln Q_k \right) - \sum_k M_k \ln M_k .

The first sum belongs to single entries, so that a pair costs one logarithm a bin. J is homogeneous of degree one: another
unit of energy scales every divergence alike and leaves the quantiles where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError, TooFewShowersError

__all__ = ["Neighbours", "condensed_size", "nearest", "pair_differences", "pair_divergences", "pair_indices"]

_TINY = 1e-300  # stands for an empty bin: 0 ln 0 = 0
_TILE = {"cpu": 1 << 18, "cuda": 1 << 24}  # pairs in memory at once
_ROWS = 512  # queries at once


def condensed_size(n: int) -> int:
    """Return the number of pairs of ``n`` entries."""
    return n * (n - 1) // 2


def pair_indices(positions: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the entries (K, 2), i < j, of positions (K,) in the condensed order of ``n`` entries."""
    row = np.arange(n, dtype=np.int64)
    starts = row * n - row * (row + 1) // 2  # of the pairs (i, i + 1), ...
    first = np.searchsorted(starts[: n - 1], positions, side="right") - 1
    second = positions - starts[first] + first + 1
    return np.stack([first, second], axis=1)


def pair_divergences(profiles: NDArray[np.floating], device: str = "cpu") -> NDArray[np.float32]:
    """Return the Jensen-Shannon divergence of every pair of profiles.

    Arguments:
        profiles: Energies (N, K) in K bins, not negative.
        device: Where to compute.

    Returns:
        (N (N - 1) / 2,) in condensed order, in the unit of the profiles.

    Raises:
        InputError: When an energy is negative or not finite.
    """
    import torch

    if profiles.ndim != 2 or not (np.isfinite(profiles).all() and (profiles >= 0).all()):
        msg = f"profiles of shape {profiles.shape}: expected (N, K) energies, finite and not negative"
        raise InputError(msg)
    n = len(profiles)
    # bins first, so that each step works on a whole tile of pairs
    p = torch.as_tensor(np.ascontiguousarray(profiles.T, dtype=np.float64), device=device)
    own = 0.5 * torch.special.xlogy(p, p).sum(dim=0)
    half = 0.5 * p
    out = np.empty(condensed_size(n), np.float32)
    rows = max(1, int(_TILE[torch.device(device).type] // max(n, 1)))
    end = 0
    for start in range(0, n - 1, rows):
        stop = min(start + rows, n - 1)
        left, right = slice(start, stop), slice(start + 1, n)
        total = own[left, None] + own[None, right]
        for a, b in zip(half[:, left], half[:, right], strict=True):
            middle = (a[:, None] + b[None, :]).clamp_(min=_TINY)
            total.addcmul_(middle, middle.log(), value=-1.0)
        block = total.clamp_(min=0.0).to(torch.float32).cpu().numpy()
        for row in range(stop - start):  # the pairs (i, j > i) of each row
            values = block[row, row:]
            out[end : end + len(values)] = values
            end += len(values)
    return out


def pair_differences(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the absolute difference (N (N - 1) / 2,) of every pair of values (N,), in condensed order."""
    x = np.asarray(values, np.float64)
    rows = [np.abs(x[row + 1 :] - x[row]).astype(np.float32) for row in range(len(x) - 1)]
    return np.concatenate(rows) if rows else np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest neighbours of N entries in another set.

    Attributes:
        distance: (N,) Euclidean distances.
        index: (N,) which neighbour.
    """

    distance: NDArray[np.float64]
    index: NDArray[np.int64]


def nearest(queries: NDArray[np.float32], others: NDArray[np.float32], device: str = "cpu") -> Neighbours:
    """Return the nearest neighbour of each query, a block of queries at a time.

    The neighbour is found with products of matrices and its distance then taken from the difference itself, so that
    copies have distance 0.

    Arguments:
        queries: Features (N, d).
        others: Features (M, d), at least one.
        device: Where to compute.

    Raises:
        TooFewShowersError: When there are no others.
    """
    import torch

    if len(others) == 0:
        msg = "nearest neighbours: the other set is empty"
        raise TooFewShowersError(msg)
    y = torch.as_tensor(np.ascontiguousarray(others), device=device)
    centre = y.mean(dim=0)  # smaller numbers, smaller rounding errors of the squares
    moved = y - centre
    squares = (moved * moved).sum(dim=1)
    distance, index = np.empty(len(queries)), np.empty(len(queries), np.int64)
    for start in range(0, len(queries), _ROWS):
        x = torch.as_tensor(np.ascontiguousarray(queries[start : start + _ROWS]), device=device)
        found = (squares - 2.0 * ((x - centre) @ moved.T)).argmin(dim=1)
        rows = slice(start, start + len(x))
        distance[rows] = (x - y[found]).double().square().sum(dim=1).sqrt().cpu().numpy()
        index[rows] = found.cpu().numpy()
    return Neighbours(distance, index)
