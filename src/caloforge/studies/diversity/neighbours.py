r"""Does a generator repeat its training showers? Distances to the nearest neighbours.

Distances are Euclidean in log10 of the cell energies, cut below at the threshold, as for precision and recall. With
training showers :math:`T` and held-out ones :math:`H`, equally many, each generated shower has a distance
:math:`d_T` to its nearest training shower and :math:`d_H` to its nearest held-out one. Without memory the two
are alike and :math:`P(d_T < d_H) = 1/2`; a generator that repeats what it saw lies closer to :math:`T`. Other
held-out showers give what real showers, which cannot remember, say of the same two sets: the difference from them
is the memory, free of what T and H happen to hold.

References:
    C. Meehan, K. Chaudhuri, S. Dasgupta, A non-parametric test to detect data-copying in generative models,
    AISTATS 2020, arXiv:2004.05675.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.validate.metrics.prdc import log_cells

__all__ = ["Memory", "Nearest", "closer_to_training", "fingerprints", "memory_of", "nearest"]

_ROWS = 512


@dataclass(frozen=True, eq=False)
class Nearest:
    """Nearest neighbours of showers in another set.

    Attributes:
        distance: (N,) Euclidean distances.
        index: (N,) which neighbour.
    """

    distance: NDArray[np.float64]
    index: NDArray[np.int64]


def nearest(queries: NDArray[np.float32], others: NDArray[np.float32], device: str = "cpu") -> Nearest:
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
        msg = "nearest neighbours: there are no showers to be near to"
        raise TooFewShowersError(msg)
    y = torch.as_tensor(others, device=device)
    centre = y.mean(dim=0)  # smaller numbers, smaller rounding errors of the squares
    moved = y - centre
    squares = (moved * moved).sum(dim=1)
    distance, index = np.empty(len(queries)), np.empty(len(queries), np.int64)
    for start in range(0, len(queries), _ROWS):
        x = torch.as_tensor(queries[start : start + _ROWS], device=device)
        found = (squares - 2.0 * ((x - centre) @ moved.T)).argmin(dim=1)
        difference = (x - y[found]).double()
        rows = slice(start, start + len(x))
        distance[rows] = difference.square().sum(dim=1).sqrt().cpu().numpy()
        index[rows] = found.cpu().numpy()
    return Nearest(distance, index)


def fingerprints(cells: NDArray[np.float32]) -> list[bytes]:
    """Return a hash of each shower (N, n_cells), for finding exact copies."""
    return [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in cells]


def closer_to_training(training: NDArray[np.float64], held_out: NDArray[np.float64]) -> tuple[float, float]:
    """Return the part of showers that lie closer to the training set and its error; ties count half.

    Arguments:
        training: Distances (N,) to the nearest training shower.
        held_out: Distances (N,) to the nearest held-out shower.
    """
    won = (training < held_out) + 0.5 * (training == held_out)
    part = float(np.mean(won))
    # one shower more on each side, so that the error is not zero at 0 and 1
    safe = (part * len(won) + 1.0) / (len(won) + 2.0)
    return part, math.sqrt(safe * (1.0 - safe) / len(won))


@dataclass(frozen=True, eq=False)
class Memory:
    """Distances of showers to the training set and to held-out showers.

    Attributes:
        to_training: Nearest training showers.
        to_held_out: Nearest held-out showers.
        copies: Number of showers that are exact copies of training showers.
    """

    to_training: Nearest
    to_held_out: Nearest
    copies: int

    @property
    def n(self) -> int:
        """Number of showers."""
        return len(self.to_training.distance)

    @property
    def closer(self) -> tuple[float, float]:
        """Part of the showers closer to the training set, with its error."""
        return closer_to_training(self.to_training.distance, self.to_held_out.distance)

    @property
    def ratio(self) -> float:
        """Median distance to the training set over that to held-out showers; NaN where the latter is 0."""
        below = float(np.median(self.to_held_out.distance))
        return float(np.median(self.to_training.distance)) / below if below > 0 else math.nan


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
        training: Training showers (M, n_cells), MeV.
        held_out: Others (M, n_cells), MeV.
        marks: Fingerprints of all training showers, which may be more.
        threshold: Cells below it are taken as equal, MeV.
        device: Where to compute.
    """
    copies = sum(mark in marks for mark in fingerprints(cells))
    features = log_cells(cells, threshold)
    return Memory(
        nearest(features, log_cells(training, threshold), device),
        nearest(features, log_cells(held_out, threshold), device),
        copies,
    )
