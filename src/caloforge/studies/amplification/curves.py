"""Divergence curves of one quantity: of the truth's own samples, and of generated samples of growing size.

The trusted showers are split in two halves. Each half is once the truth, whose quantiles are the bins, and once gives
independent samples of the truth. All divergences are means over both ways, so every shower serves, and the curves of
the truth's own samples and of generated ones belong to truths of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.studies.amplification.estimators import (
    SHOWERS_A_BIN,
    DyadicBins,
    EffectiveSize,
    by_comparison,
    by_formula,
    deepest,
    divergence_error,
)
from caloforge.studies.amplification.observables import Observed, Quantity

__all__ = ["SampleCurves", "TruthCurves", "growing_sizes", "set_sizes"]

Array = NDArray[np.float64]


def set_sizes(wanted: Sequence[int], n_half: int) -> list[int]:
    """Return the sizes of the truth's own samples: those wanted that fit, and all of a half."""
    fitting = sorted({size for size in wanted if size <= n_half})
    return fitting if fitting and fitting[-1] > 0.8 * n_half else [*fitting, n_half]


def growing_sizes(n: int, smallest: int = 1000) -> list[int]:
    """Return 1, 2 and 5 times powers of ten from ``smallest`` to ``n``, and ``n``."""
    steps = [step * 10**power for power in range(8) for step in (1, 2, 5)]
    return [*(size for size in steps if smallest <= size < n), n]


@dataclass(frozen=True)
class SampleCurves:
    """Divergences of a generated sample.

    Arguments:
        sizes: (G,) numbers of showers.
        divergence: (G, L) at each number of quantiles.
        error: (G, L) standard deviations.
    """

    sizes: NDArray[np.int64]
    divergence: Array
    error: Array

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"sizes": self.sizes, "divergence": self.divergence, "uncertainty": self.error}


class TruthCurves:
    """The truth of one quantity: its bins, and the divergences of its own samples.

    Arguments:
        halves: The trusted showers, halved at random.
        quantity: What is looked at.
        sizes: Sizes of the truth's own samples.
        sets: Most samples of one size from one half.

    Attributes:
        quantiles: (L,) numbers of quantiles.
        n_truth: Showers of a half.
        sizes: Sizes of the samples.
        samples: Size to divergences (S, L), both ways one behind the other.
        scale: (L,) factor c/k by which the entries differ from independent showers; ones but for single cells.
    """

    def __init__(
        self, halves: tuple[Observed, Observed], quantity: Quantity, sizes: Sequence[int], sets: int
    ) -> None:
        self.quantity, self.sizes = quantity, list(sizes)
        self.n_truth = min(len(half) for half in halves)
        depth = deepest(self.n_truth)
        self._bins = [DyadicBins(quantity.of(half), depth) for half in halves]
        self.quantiles = self._bins[0].quantiles
        self.samples: dict[int, Array] = {}
        for size in self.sizes:
            found = []
            for bins, half in zip(self._bins, reversed(halves), strict=True):
                for number in range(min(sets, len(half) // size)):
                    part = half.part(number * size, (number + 1) * size)
                    found.append(bins.compare(quantity.of(part)))
            self.samples[size] = np.array(found)
        self.scale = np.ones(depth) if quantity.columns else self._scale()

    def _scale(self) -> Array:
        """Return c/k from the truth's own samples that count; beyond, that of the largest number of quantiles."""
        ratios: list[list[float]] = [[] for _ in self.quantiles]
        for size, divergences in self.samples.items():
            expected = (self.quantiles - 1) / 8.0 * (1.0 / size + 1.0 / self.n_truth)
            for level in np.flatnonzero(self.counts_for(size)):
                ratios[level] += [float(d) / float(expected[level]) for d in divergences[:, level]]
        known = [float(np.mean(values)) for values in ratios if values]
        return np.array(known + [known[-1]] * (len(ratios) - len(known)))

    def counts_for(self, size: int) -> NDArray[np.bool_]:
        """Return at which numbers of quantiles (L,) a sample of a size counts: n_quant <= n / 10."""
        return self.quantiles * SHOWERS_A_BIN <= size

    def mean(self, size: int) -> Array:
        """Return the mean divergence (L,) of the truth's own samples of a size."""
        return np.asarray(self.samples[size].mean(axis=0))

    def spread(self, size: int) -> Array:
        """Return the standard deviation (L,) over the samples of a size, by theory where a half holds only one."""
        found = self.samples[size]
        if len(found) > 2:
            return np.asarray(found.std(axis=0, ddof=1))
        return np.array([self.error(float(d), level, size) for level, d in enumerate(self.mean(size))])

    def floor(self) -> Array:
        """Return the divergence (L,) that an endless sample of the truth would have."""
        return self.scale * (self.quantiles - 1) / (8.0 * self.n_truth)

    def divergence(self, values: ArrayLike) -> Array:
        """Return the divergence (L,) of values (n,) or (n, d) of the quantity."""
        return np.asarray(np.mean([bins.compare(values) for bins in self._bins], axis=0))

    def compare(self, observed: Observed, sizes: Sequence[int]) -> SampleCurves:
        """Return the divergences of the first showers of a sample, for growing numbers of them."""
        found = np.zeros((len(sizes), len(self.quantiles)))
        for bins in self._bins:
            counts = np.zeros(2**bins.depth, np.int64)
            last = 0
            for row, size in enumerate(sizes):
                counts += bins.count(self.quantity.of(observed.part(last, size)))
                last = size
                found[row] += bins.divergences(counts) / len(self._bins)
        errors = [
            [self.error(found[row, level], level, size) for level in range(len(self.quantiles))]
            for row, size in enumerate(sizes)
        ]
        return SampleCurves(np.array(sizes), found, np.array(errors))

    def error(self, divergence: float, level: int, size: int) -> float:
        """Return the standard deviation of a sample's divergence at one number of quantiles."""
        scale = float(self.scale[level])
        return divergence_error(divergence, int(self.quantiles[level]), size, self.n_truth, 2, scale)

    def formula(self, divergence: float, error: float, level: int) -> EffectiveSize:
        """Return the effective size by formula at one number of quantiles."""
        scale = float(self.scale[level])
        return by_formula(divergence, error, int(self.quantiles[level]), self.n_truth, scale)

    def comparison(self, divergence: float, error: float, level: int) -> EffectiveSize | None:
        """Return the effective size by comparison with the samples of the truth that count there."""
        sizes = [size for size in self.sizes if self.counts_for(size)[level]]
        curve = [float(self.mean(size)[level]) for size in sizes]
        errors = []
        for size, value in zip(sizes, curve, strict=True):
            number = len(self.samples[size])
            errors.append(self.error(value, level, size) * np.sqrt(2.0 / max(number, 2)))
        return by_comparison(divergence, error, sizes, curve, errors)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "quantiles": self.quantiles,
            "n_truth": self.n_truth,
            "scale": self.scale,
            "floor": self.floor(),
            "samples": {
                str(size): {"divergence": self.samples[size], "counts": self.counts_for(size)}
                for size in self.sizes
            },
        }
