r"""All pairs of N entries: order, differences, divergences; nearest neighbours; and the structural similarity of pairs.

Values of all pairs are in condensed order, (0, 1), (0, 2), ..., (1, 2), ..., as SciPy's ``pdist`` has them.

The Jensen-Shannon divergence of two profiles :math:`P, Q` (energies in K bins) with the Kullback-Leibler divergence of
unnormalised densities, :math:`K(P, Q) = \sum_k P_k \ln(P_k / Q_k) - P_k + Q_k`, is, with :math:`M = (P + Q)/2`, the two linear
terms cancelling,

.. math::
    J(P, Q) = \tfrac12 K(P, M) + \tfrac12 K(Q, M)
            = \tfrac12 \sum_k \left( P_k \ln P_k + Q_k \ln Q_k \right) - \sum_k M_k \ln M_k .

The first sum belongs to single entries, so that a pair costs one logarithm a bin. J is homogeneous of degree one: another
unit of energy scales every divergence alike and leaves the quantiles where they are.

**Structural similarity** of images: Gaussian windows over x-y (sigma 1.5, 11 x 11), the layers as channels. For one window of
two images with means :math:`\mu`, variances :math:`\sigma^2` and covariance :math:`\sigma_{xy}` under the Gaussian weights, and
the data range L,

.. math::
    \mathrm{SSIM} = \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
    {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}, \quad C_1 = (0.01 L)^2, \quad C_2 = (0.03 L)^2,

averaged over the windows that fit into the image and over the layers: scikit-image's ``structural_similarity`` with
``gaussian_weights=True, use_sample_covariance=False``. Means and variances under the windows are taken once an image and only the
covariance once a pair, one layer at a time. Several data ranges cost little more than one, since they enter through the constants.

A pair is of two different images of similar condition (incident energy): samples are put in its order (equal ones at random), and
neighbours, or images of equal rank in two samples, make a pair. No image is in two pairs of a set, so that the error of the mean
is the standard deviation over the pairs divided by the root of their number.

References:
    Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600; G. R. Khattak et al., Eur. Phys. J. C 82 (2022) 386, arXiv:2109.07388.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError, TooFewShowersError

if TYPE_CHECKING:
    import torch

__all__ = [
    "WINDOW",
    "Neighbours",
    "condensed_size",
    "nearest",
    "neighbour_pairs",
    "order_at_random",
    "pair_differences",
    "pair_divergences",
    "pair_indices",
    "rank_pairs",
    "structural_similarity",
]

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
    """Return the Jensen-Shannon divergence of every pair of profiles (N, K), energies in K bins.

    They are (N (N - 1) / 2,) in condensed order, in the unit of the profiles.

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
    """Nearest neighbours of N entries in another set: Euclidean distances (N,), and which neighbour (N,)."""

    distance: NDArray[np.float64]
    index: NDArray[np.int64]


def nearest(queries: NDArray[np.float32], others: NDArray[np.float32], device: str = "cpu") -> Neighbours:
    """Return the nearest neighbour of each query (N, d) among others (M, d), a block of queries at a time.

    The neighbour is found with products of matrices and its distance then taken from the difference itself, so that
    copies have distance 0.

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


WINDOW = 11
"""Cells along each side of the window."""
_SIGMA = 1.5
_PAIRS = {"cpu": 64, "cuda": 4096}  # pairs in memory at once
_IMAGES = 512  # images smoothed at once

Rows = NDArray[np.int64]


def order_at_random(condition: NDArray[np.floating], rng: np.random.Generator) -> Rows:
    """Return the order (N,) of increasing condition (N,), equal ones at random."""
    return np.lexsort((rng.random(len(condition)), condition))


def neighbour_pairs(order: Rows) -> tuple[Rows, Rows]:
    """Return the rows (N // 2,) of neighbours in an order (N,), each in one pair."""
    n = 2 * (len(order) // 2)
    return order[0:n:2], order[1:n:2]


def rank_pairs(first: Rows, second: Rows, count: int) -> tuple[Rows, Rows]:
    """Return ``count`` rows of equal rank of two orders (N,) and (M,)."""
    ranks = (np.arange(count) + 0.5) / max(count, 1)
    return first[(ranks * len(first)).astype(np.int64)], second[(ranks * len(second)).astype(np.int64)]


def _windows(size: int, device: str) -> torch.Tensor:
    """Return the Gaussian window at each place where it fits into ``size`` cells: (size - 10, size)."""
    import torch

    x = torch.arange(WINDOW, dtype=torch.float64) - (WINDOW - 1) / 2
    weights = torch.exp(-0.5 * (x / _SIGMA) ** 2)
    places = size - WINDOW + 1
    band = torch.zeros(places, size, dtype=torch.float64)
    for k in range(WINDOW):
        band.diagonal(k)[:places] = weights[k] / weights.sum()
    return band.to(device)


class _Layer:
    """Images (N, nx, ny) of one layer, and their means and variances under the windows."""

    def __init__(self, images: NDArray[np.floating], along_x: torch.Tensor, along_y: torch.Tensor) -> None:
        import torch

        self.images = torch.as_tensor(np.ascontiguousarray(images), device=along_x.device).double()
        means, variances = [], []
        for start in range(0, len(self.images), _IMAGES):
            x = self.images[start : start + _IMAGES]
            mean = along_x @ (x @ along_y)
            means.append(mean)
            variances.append(along_x @ ((x * x) @ along_y) - mean * mean)
        self.mean, self.variance = torch.cat(means), torch.cat(variances)


def structural_similarity(
    first: NDArray[np.floating],
    rows_first: Rows,
    second: NDArray[np.floating],
    rows_second: Rows,
    data_ranges: Sequence[float],
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Return the structural similarity of chosen pairs for each data range.

    Arguments:
        first: Images (N, nx, ny, n_layers).
        rows_first: Which of them (P,).
        second: Images (M, nx, ny, n_layers); may be the same array.
        rows_second: Their partners (P,).
        data_ranges: L, in the unit of the images.
        device: Where to compute.

    Returns:
        (P, len(data_ranges)), at most 1.

    Raises:
        InputError: When the images are smaller than the window, or the shapes differ.
    """
    import torch

    if first.ndim != 4 or first.shape[1:] != second.shape[1:] or min(first.shape[1:3]) < WINDOW:
        msg = f"structural similarity: (N, nx, ny, layers), nx, ny >= {WINDOW}; got {first.shape}, {second.shape}"
        raise InputError(msg)
    along_x, along_y = _windows(first.shape[1], device), _windows(first.shape[2], device).T.contiguous()
    used_a, at_a = np.unique(rows_first, return_inverse=True)
    used_b, at_b = np.unique(rows_second, return_inverse=True)
    same = first is second and np.array_equal(used_a, used_b)
    pairs = _PAIRS.get(torch.device(device).type, _PAIRS["cpu"])
    constants = [((0.01 * size) ** 2, (0.03 * size) ** 2) for size in data_ranges]
    out = np.zeros((len(rows_first), len(data_ranges)))
    for layer in range(first.shape[3]):
        a = _Layer(first[used_a, :, :, layer], along_x, along_y)
        b = a if same else _Layer(second[used_b, :, :, layer], along_x, along_y)
        for start in range(0, len(out), pairs):
            i = torch.as_tensor(at_a[start : start + pairs], device=device)
            j = torch.as_tensor(at_b[start : start + pairs], device=device)
            product = a.mean[i] * b.mean[j]
            covariance = along_x @ ((a.images[i] * b.images[j]) @ along_y) - product
            squares = a.mean[i].square_().add_(b.mean[j].square_())
            variances = a.variance[i].add_(b.variance[j])
            for column, (c1, c2) in enumerate(constants):
                above = (2 * product + c1).mul_(2 * covariance + c2)
                below = (squares + c1).mul_(variances + c2)
                similarity = above.div_(below).mean(dim=(1, 2))
                out[start : start + pairs, column] += similarity.cpu().numpy()
    return np.asarray(out / first.shape[3])
