r"""How far apart two showers are: the divergences of all pairs of profiles, in blocks.

The Jensen-Shannon divergence of two profiles :math:`P, Q` (energy in bins of x, of y, or in layers) with the
Kullback-Leibler divergence of unnormalised densities, :math:`K(P, Q) = \sum_k P_k \ln(P_k / Q_k) - P_k + Q_k`,
is, with :math:`M = (P + Q)/2`, the two linear terms falling out,

.. math::
    J(P, Q) = \tfrac12 K(P, M) + \tfrac12 K(Q, M)
            = \tfrac12 \sum_k \left( P_k \ln P_k + Q_k \ln Q_k \right) - \sum_k M_k \ln M_k .

The first sum belongs to single showers, so that a pair costs one logarithm a bin. It is homogeneous of degree
one: another unit of energy scales every divergence alike and leaves the quantiles where they are.

Values of all pairs are kept in condensed order, (0, 1), (0, 2), ..., (1, 2), ..., as SciPy's ``pdist`` does.

References:
    G. R. Khattak, S. Vallecorsa et al., the support size of the 3DGAN by the birthday paradox.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError

__all__ = ["condensed_size", "pair_differences", "pair_divergences", "pair_indices"]

_TINY = 1e-300  # stands for an empty bin: 0 ln 0 = 0
_TILE = {"cpu": 1 << 18, "cuda": 1 << 24}  # pairs held at once


def condensed_size(n: int) -> int:
    """Return the number of pairs of ``n`` showers."""
    return n * (n - 1) // 2


def pair_indices(positions: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the showers (K, 2), i < j, of positions (K,) in the condensed order of ``n`` showers."""
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
    out = np.empty(condensed_size(len(x)), np.float32)
    end = 0
    for row in range(len(x) - 1):
        difference = np.abs(x[row + 1 :] - x[row])
        out[end : end + len(difference)] = difference
        end += len(difference)
    return out
