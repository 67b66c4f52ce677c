r"""Similarity of pairs of showers over the data range L, and distances to the nearest training showers.

**Similarity.** Structural similarity of reference pairs, generated pairs and mixed pairs, each of two different showers of
similar incident energy, see :mod:`caloforge.statistics.pairs`. The data range L sets what counts: cells well below L look
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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.settings import torch_device
from caloforge.showers import Showers
from caloforge.statistics.feature_distances import PRDC
from caloforge.statistics.pairs import (
    Neighbours,
    nearest,
    neighbour_pairs,
    order_at_random,
    rank_pairs,
    structural_similarity,
)
from caloforge.studies.base import WindowSettings
from caloforge.studies.support_size.duplicates import why_no_windows
from caloforge.validate.metrics.base import Settings, Value
from caloforge.validate.metrics.distances import PrecisionRecall
from caloforge.validate.metrics.features import log_cells
from caloforge.validate.metrics.shapes import DATA_RANGE
from caloforge.validate.sample import Sample

__all__ = [
    "LEAST",
    "DiversitySettings",
    "Known",
    "Measured",
    "Memory",
    "Similarities",
    "fingerprints",
    "known_showers",
    "measure",
    "memory_of",
    "similarities_between",
    "similarities_within",
]


_MEV_A_GEV = 1000.0


@dataclass(frozen=True, eq=False)
class Similarities:
    """Structural similarities (P, K) of P pairs at K data ranges L, GeV."""

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
    """Return the similarities of at most ``pairs`` pairs of one sample on a grid, for data ranges L in GeV.

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
        raise TooFewShowersError(f"similarity: {len(rows[0])} pairs of showers; at least 2 are needed")
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
    """The nearest of m = ``known`` training and as many held-out showers, and the number of exact copies."""

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
    """Return how near showers (N, n_cells) are to the training set and to as many held-out showers (m, n_cells), MeV.

    Arguments:
        marks: Fingerprints of all training showers, which may be more.
        threshold: Cells below it are taken as equal, MeV.
    """
    copies = sum(mark in marks for mark in fingerprints(cells))
    features = log_cells(cells, threshold)
    found = [nearest(features, log_cells(others, threshold), device) for others in (training, held_out)]
    return Memory(found[0], found[1], len(training), copies)


LEAST = 20
"""Fewest showers of a sample, and of each part when memory is measured."""
_FIELDS = ("value", "uncertainty", "floor", "floor_uncertainty")


class DiversitySettings(WindowSettings):
    """Settings of the study, beside the windows of energy and angle.

    Arguments:
        showers: Showers of each sample at most; they are kept in memory.
        training: File of the training showers; empty: memory is not measured.
        pairs: Pairs of showers behind each mean similarity.
        data_range: L of the numbers in the table, GeV.
        data_ranges: Further L, for the figures, GeV.
        threshold: Cells below it are taken as equal by distances, MeV.
        neighbours: k of precision, recall, density and coverage.
        drawn: Showers nearest to the training set that are drawn.
    """

    showers: Annotated[int, Field(ge=LEAST)] = 2000
    training: str = ""
    pairs: Annotated[int, Field(ge=2)] = 1000
    data_range: Annotated[float, Field(gt=0)] = DATA_RANGE
    data_ranges: tuple[Annotated[float, Field(gt=0)], ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    threshold: Annotated[float, Field(gt=0)] = 0.1
    neighbours: Annotated[int, Field(ge=1)] = 5
    drawn: Annotated[int, Field(ge=1, le=8)] = 5


@dataclass(frozen=True, eq=False)
class Known:
    """Training showers, as many held-out ones, and further held-out ones beside the generator, all (m, n_cells) MeV."""

    training: NDArray[np.float32]
    held_out: NDArray[np.float32]
    others: NDArray[np.float32]
    marks: Collection[bytes]  # fingerprints of the whole training set
    shared: int  # reference showers that were left out since they are training showers


def known_showers(training: Showers, marks: Collection[bytes], reference: Showers) -> Known:
    """Return the sets that memory is measured with; ``marks`` are fingerprints of the whole training set.

    Reference showers that are training showers, cell by cell, are left out; the others are divided into two halves.

    Raises:
        TooFewShowersError: When too few reference showers are left.
    """
    fresh = np.array([mark not in marks for mark in fingerprints(reference.cells)], dtype=bool)
    left = np.flatnonzero(fresh)
    size = min(len(training), len(left) // 2)
    if size < LEAST:
        raise TooFewShowersError(
            f"memory: of {len(reference)} reference showers {len(left)} are not training showers, and there are "
            f"{len(training)} training showers; expected at least {2 * LEAST} and {LEAST}"
        )
    first, second = (reference.cells[left[k : 2 * size : 2]] for k in (0, 1))
    return Known(training.cells[:size], first, second, marks, len(fresh) - len(left))


class Measured:
    """What was measured of a sample, over the arrays of :func:`measure`."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.n = int(arrays["n"])
        self.shared = int(arrays.get("shared", 0))  # reference showers that are training showers
        self.drawn = arrays.get("drawn")  # nearest to the training set, with neighbours (K, 2, nx, ny), MeV

    def similarities(self, name: str) -> Similarities | None:
        """Return the similarities of pairs "within" the sample or "between" it and the reference, if known."""
        if f"likeness-{name}" not in self.arrays:
            return None
        return Similarities(tuple(self.arrays["data_ranges"].tolist()), self.arrays[f"likeness-{name}"])

    @property
    def memory(self) -> Memory | None:
        """Distances to training and held-out showers, where the training set is known."""
        found = self.arrays
        if "copies" not in found:
            return None
        parts = [
            Neighbours(found[f"{name}-distance"], found[f"{name}-index"]) for name in ("training", "held")
        ]
        return Memory(parts[0], parts[1], int(found["known"]), int(found["copies"]))

    @property
    def quality(self) -> dict[str, Value]:
        """Precision, recall, density and coverage with errors and floors; empty for the reference."""
        if "prdc" not in self.arrays:
            return {}
        rows = self.arrays["prdc"].tolist()
        return {
            name: Value(
                value, error, None if np.isnan(floor) else floor, None if np.isnan(spread) else spread
            )
            for name, (value, error, floor, spread) in zip(PRDC, rows, strict=True)
        }


def measure(
    showers: Showers, reference: Showers | None, chosen: DiversitySettings, seed: int, known: Known | None
) -> dict[str, NDArray[Any]]:
    """Return the plain arrays of a sample for :class:`Measured`.

    Arguments:
        reference: Reference showers; None when the sample is the reference itself.
        seed: Of random pairs and bootstrap samples.
        known: Training and held-out showers, where the training set is known.
    """
    ranges, device = tuple(sorted({*chosen.data_ranges, chosen.data_range})), torch_device(chosen.device)
    out: dict[str, NDArray[Any]] = {"n": np.array(len(showers)), "data_ranges": np.array(ranges)}
    pairs = (chosen.pairs, ranges, seed, device)
    if not why_no_windows(showers.detector):
        out["likeness-within"] = similarities_within(showers, *pairs).values
        if reference is not None:
            out["likeness-between"] = similarities_between(reference, showers, *pairs).values
    if reference is not None and min(len(showers), len(reference)) > PrecisionRecall.minimum:
        settings = Settings(
            seed=seed,
            threshold=chosen.threshold,
            neighbours=chosen.neighbours,
            device=device,
            n_max=max(len(showers), len(reference)),
            max_bytes=1 << 40,
        )
        samples = Sample(reference, "reference"), Sample(showers, "generated")
        values = PrecisionRecall().compute(*samples, settings)
        numbers = [[getattr(values[name], field) for field in _FIELDS] for name in PRDC]
        out["prdc"] = np.array(numbers, np.float64)  # None becomes NaN
    if known is not None:
        judged = known.others if reference is None else showers.cells
        threshold = chosen.threshold
        memory = memory_of(judged, known.training, known.held_out, known.marks, threshold, device)
        out |= {
            "copies": np.array(memory.copies),
            "known": np.array(memory.known),
            "shared": np.array(known.shared),
            "training-distance": memory.to_training.distance,
            "training-index": memory.to_training.index,
            "held-distance": memory.to_held_out.distance,
            "held-index": memory.to_held_out.index,
        }
        if reference is not None and showers.detector.is_grid:
            rows = np.argsort(memory.to_training.distance, kind="stable")[: chosen.drawn]
            images = np.stack([judged[rows], known.training[memory.to_training.index[rows]]], axis=1)
            grid = images.reshape(len(rows), 2, *showers.detector.shape)
            out["drawn"] = np.asarray(grid.sum(axis=4, dtype=np.float64))
    return out
