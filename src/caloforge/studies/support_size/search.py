r"""The duplicates of a sample: cheap criteria for all pairs, structural similarity for those that pass.

Structural similarity of many pairs out of one or two sets of showers.

The definition is that of :mod:`caloforge.validate.metrics.ssim` (Gaussian 11 x 11 windows over x-y, layers as
channels, energies in GeV, data range L). Here the showers occur in many pairs, so that the means and variances
under the windows are taken once a shower and only the covariance once a pair; one layer at a time, so that the
windows of all showers fit in memory.

Several data ranges cost little more than one, since they enter through :math:`C_1` and :math:`C_2` alone.

The duplicates of a sample: cheap criteria for all pairs, structural similarity for those that pass them.

Where more pairs pass than may be compared cell by cell, only the first showers of the sample are used, as many as
give no more than that number of pairs: so the duplicates found are still all those of a random sample of showers,
and many duplicates among few showers say as much about the support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.studies.support_size.birthday import Duplicates
from caloforge.studies.support_size.criteria import (
    Definition,
    Limits,
    PairTable,
    condensed_size,
    pair_indices,
)
from caloforge.validate.metrics.ssim import DATA_RANGE, WINDOW

if TYPE_CHECKING:
    import torch

__all__ = [
    "Found",
    "SimilaritySearch",
    "find_duplicates",
    "first_showers",
    "random_similarities",
    "similar_pairs",
    "why_no_windows",
]


_SIGMA = 1.5  # cells
_MEV_A_GEV = 1000.0
_PAIRS = {"cpu": 64, "cuda": 4096}  # pairs held at once
_SHOWERS = 512  # showers smoothed at once


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


def _band(size: int, device: str) -> torch.Tensor:
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
    """One layer of a set of showers: its images and what the windows see of each.

    Arguments:
        images: Energies (N, nx, ny), MeV.
        along_x: Windows (nx - 10, nx).
        along_y: Windows (ny, ny - 10).
    """

    def __init__(self, images: NDArray[np.floating], along_x: torch.Tensor, along_y: torch.Tensor) -> None:
        import torch

        self.images = (
            torch.as_tensor(np.ascontiguousarray(images), device=along_x.device).double() / _MEV_A_GEV
        )
        means, variances = [], []
        for start in range(0, len(self.images), _SHOWERS):
            x = self.images[start : start + _SHOWERS]
            mean = along_x @ (x @ along_y)
            means.append(mean)
            variances.append(along_x @ ((x * x) @ along_y) - mean * mean)
        self.mean, self.variance = torch.cat(means), torch.cat(variances)


def similar_pairs(
    first: NDArray[np.floating],
    rows_first: NDArray[np.int64],
    second: NDArray[np.floating],
    rows_second: NDArray[np.int64],
    data_ranges: Sequence[float] = (DATA_RANGE,),
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Return the structural similarity of chosen pairs for each data range.

    Arguments:
        first: Showers (N, nx, ny, n_layers), MeV.
        rows_first: Which of them (P,).
        second: Showers (M, nx, ny, n_layers), MeV; may be the same array.
        rows_second: Their partners (P,).
        data_ranges: L, GeV.
        device: Where to compute.

    Returns:
        (P, len(data_ranges)), at most 1.

    Raises:
        InputError: When the images are smaller than the window, or the sets do not fit each other.
    """
    import torch

    if first.ndim != 4 or first.shape[1:] != second.shape[1:] or min(first.shape[1:3]) < WINDOW:
        msg = f"structural similarity: (N, nx, ny, layers), nx, ny >= {WINDOW}; got {first.shape}, {second.shape}"
        raise InputError(msg)
    along_x, along_y = _band(first.shape[1], device), _band(first.shape[2], device).T.contiguous()
    used_a, at_a = np.unique(rows_first, return_inverse=True)
    used_b, at_b = np.unique(rows_second, return_inverse=True)
    same = first is second and np.array_equal(used_a, used_b)
    pairs = _PAIRS[torch.device(device).type]
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
            values = similar_pairs(self.images, i, self.images, j, (self.data_range,), self.device)[:, 0]
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
