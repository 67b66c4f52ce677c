r"""Structural similarity of pairs of images, and the choice of the pairs.

Two-dimensional Gaussian windows over x-y (sigma 1.5, 11 x 11), the layers as channels. For one window of two images with means
:math:`\mu`, variances :math:`\sigma^2` and covariance :math:`\sigma_{xy}` under the Gaussian weights, and the data range L,

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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["WINDOW", "neighbour_pairs", "order_at_random", "rank_pairs", "structural_similarity"]

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
