"""Divergence curves of one quantity: of the truth's own samples, and of generated samples of growing size.

The reference showers are split in two halves. Each half is once the truth, whose quantiles are the bins, and once gives
independent samples of the truth. All divergences are means over both ways, so that every shower is used, and the curves of
the truth's own samples and of generated ones belong to truths of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.statistics.effective_size import (
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


class TruthCurves:
    """The truth of one quantity: its bins, and the divergences of its own samples.

    Arguments:
        halves: The reference showers, halved at random.
        quantity: One or several observables.
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
        self.samples: dict[int, Array] = {
            size: np.array(
                [
                    bins.compare(quantity.of(half.part(number * size, (number + 1) * size)))
                    for bins, half in zip(self._bins, reversed(halves), strict=True)
                    for number in range(min(sets, len(half) // size))
                ]
            )
            for size in self.sizes
        }
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
        """Return the standard deviation (L,) over the samples of a size, by theory where a half has only one."""
        found = self.samples[size]
        return np.asarray(found.std(axis=0, ddof=1)) if len(found) > 2 else self.error(self.mean(size), size)

    def floor(self) -> Array:
        """Return the divergence (L,) of an infinite sample of the truth."""
        return self.scale * (self.quantiles - 1) / (8.0 * self.n_truth)

    def error(self, divergence: Array, size: int) -> Array:
        """Return the standard deviation (L,) of a sample's divergence (L,)."""
        return np.array(
            [
                divergence_error(float(d), int(n_quant), size, self.n_truth, 2, float(scale))
                for d, n_quant, scale in zip(divergence, self.quantiles, self.scale, strict=True)
            ]
        )

    def formula(self, divergence: float, error: float, level: int) -> EffectiveSize:
        """Return the effective size by formula at one number of quantiles."""
        scale = float(self.scale[level])
        return by_formula(divergence, error, int(self.quantiles[level]), self.n_truth, scale)

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
        errors = [self.error(divergence, size) for divergence, size in zip(found, sizes, strict=True)]
        return SampleCurves(self, np.array(sizes), found, np.array(errors))

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


@dataclass(frozen=True, eq=False)
class SampleCurves:
    """Divergences of a generated sample.

    Arguments:
        truth: Of the quantity.
        sizes: (G,) numbers of showers.
        divergence: (G, L) at each number of quantiles.
        error: (G, L) standard deviations.
    """

    truth: TruthCurves
    sizes: NDArray[np.int64]
    divergence: Array
    error: Array

    def formula(self, level: int) -> EffectiveSize:
        """Return the effective size of the whole sample by formula at one number of quantiles."""
        return self.truth.formula(float(self.divergence[-1, level]), float(self.error[-1, level]), level)

    def formulas(self) -> list[EffectiveSize]:
        """Return the effective size by formula at every number of quantiles."""
        return [self.formula(level) for level in range(len(self.truth.quantiles))]

    def comparison(self, level: int) -> EffectiveSize | None:
        """Return the effective size by comparison with the samples of the truth that count at a number of quantiles."""
        truth = self.truth
        sizes = [size for size in truth.sizes if truth.counts_for(size)[level]]
        means = [truth.mean(size) for size in sizes]
        errors = [
            truth.error(mean, size)[level] * np.sqrt(2.0 / max(len(truth.samples[size]), 2))
            for size, mean in zip(sizes, means, strict=True)
        ]
        d, error = float(self.divergence[-1, level]), float(self.error[-1, level])
        return by_comparison(d, error, sizes, [float(mean[level]) for mean in means], errors)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"sizes": self.sizes, "divergence": self.divergence, "uncertainty": self.error}
