"""Observables of the amplification study, collected in one stream, and divergence curves of each.

Of a shower with cells e_i > 0.1 MeV at (x_i, y_i): visible energy E_vis = sum e_i, peak energy E_peak = max e_i, the
energies E_pixel of single cells above 5 MeV, and the centres of gravity CG_x = sum x_i e_i / sum e_i and CG_y. A
shower without such cells counts with zeros. ``ild-ecal`` showers are summed along the beam and pooled to 10 x 10.

The reference showers are split in two halves. Each half is once the truth, whose quantiles are the bins, and once gives
independent samples of the truth. All divergences are means over both ways, so that every shower is used, and the curves of
the truth's own samples and of generated ones belong to truths of one size.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.geometry import Detector, get_detector, project
from caloforge.progress import progress
from caloforge.random import child_seed
from caloforge.showers import Showers, ShowerSource
from caloforge.statistics.effective_size import (
    SHOWERS_A_BIN,
    DyadicBins,
    EffectiveSize,
    by_comparison,
    by_formula,
    deepest,
    divergence_error,
)
from caloforge.studies.base import Context
from caloforge.studies.page import paper
from caloforge.studies.sources import SIMULATIONS, Source
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.observables.streaming import batches

__all__ = [
    "QUANTITIES",
    "Observed",
    "Quantity",
    "SampleCurves",
    "TruthCurves",
    "collect",
    "collect_truth",
    "count_text",
    "growing_sizes",
    "image_detector",
    "observe_chunks",
    "set_sizes",
    "truth_name",
]


_THRESHOLD = 0.1  # cells at or below it are empty, MeV
_PIXEL_THRESHOLD = 5.0  # cells above it are entries of E_pixel, MeV
BLOCK = 20_000
"""Generated showers that are observed at a time and kept in the cache together."""
_COLUMNS = ("visible_energy", "peak_energy", "centre_x", "centre_y")


@dataclass(frozen=True)
class Quantity:
    """An observable, or several together."""

    name: str  # name in ``study.json`` and, after ``factor_``, in ``papers.toml``
    label: str
    columns: tuple[int, ...]  # columns of :class:`Observed`; none for single cells

    def of(self, observed: Observed) -> NDArray[np.float64]:
        """Return its values (n,) or (n, d), or for single cells (pixels,)."""
        return observed.values[:, self.columns] if self.columns else observed.pixels.astype(np.float64)

    @property
    def text(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ")


QUANTITIES = (
    Quantity("visible_energy", "$E_{vis}$", (0,)),
    Quantity("peak_energy", "$E_{peak}$", (1,)),
    Quantity("pixel_energy", "$E_{pixel}$", ()),
    Quantity("centre_x", "$CG_x$", (2,)),
    Quantity("centre_y", "$CG_y$", (3,)),
    Quantity("energies", "($E_{vis}$, $E_{peak}$)", (0, 1)),
    Quantity("centres", "($CG_x$, $CG_y$)", (2, 3)),
    Quantity("all", "($E_{vis}$, $E_{peak}$, $CG_x$, $CG_y$)", (0, 1, 2, 3)),
)


@dataclass(frozen=True, eq=False)
class Observed:
    """The observables of n showers."""

    values: NDArray[np.float64]  # (n, 4) visible and peak energy (MeV), centres in x and y (mm)
    pixels: NDArray[np.float32]  # energies of all cells above 5 MeV, shower after shower, MeV, float32
    counts: NDArray[np.int64]  # (n,) number of such cells of each shower

    def __len__(self) -> int:
        return len(self.values)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each shower's cells begin in :attr:`pixels`, (n + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def part(self, first: int, last: int) -> Observed:
        """Return the showers from ``first`` up to and without ``last``."""
        starts = self.starts
        pixels = self.pixels[starts[first] : starts[min(last, len(self))]]
        return Observed(self.values[first:last], pixels, self.counts[first:last])

    def shuffled(self, rng: np.random.Generator) -> Observed:
        """Return the showers in random order."""
        order, counts = rng.permutation(len(self)), self.counts
        begins = np.cumsum(np.append(0, counts[order]))[:-1]
        places = np.repeat(self.starts[order] - begins, counts[order]) + np.arange(len(self.pixels))
        return Observed(self.values[order], self.pixels[places], counts[order])

    @classmethod
    def join(cls, parts: Sequence[Observed]) -> Observed:
        """Return all showers, in order."""
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )


def image_detector(detector: Detector) -> Detector:
    """Return the detector in which showers are compared: the 10 x 10 images for ``ild-ecal``, else their own."""
    return get_detector("ild-ecal-10x10") if detector.name == "ild-ecal" else detector


def observe_chunks(chunks: Iterable[Showers]) -> Observed:
    """Observe showers, projected to images where there are some, one chunk at a time."""
    parts = [Observed(np.zeros((0, len(_COLUMNS))), np.zeros(0, np.float32), np.zeros(0, np.int64))]
    columns = [OBSERVABLES[name] for name in _COLUMNS]
    for batch in batches((_projected(chunk) for chunk in chunks), _THRESHOLD, _THRESHOLD):
        values = np.stack([np.nan_to_num(np.asarray(entry.compute(batch))) for entry in columns], axis=1)
        high = batch.energy > _PIXEL_THRESHOLD
        counts = np.bincount(batch.shower[high], minlength=batch.n)
        parts.append(Observed(values, batch.energy[high].astype(np.float32), counts))
    return Observed.join(parts)


def _projected(chunk: Showers) -> Showers:
    image = image_detector(chunk.detector)
    if chunk.detector == image:
        return chunk
    return chunk.replace(detector=image, cells=project(chunk.cells, chunk.detector, image))


def collect(context: Context, source: Source, n: int, like: ShowerSource | None = None) -> Observed:
    """Return the observables of the first ``n`` showers of a source, a block at a time from the cache.

    Every block of a model has its own seed, so that an interrupted study continues with the first block that is missing.
    A model takes the conditions of ``like``, by default of the first reference file.
    """
    total = source.size(n)
    block = BLOCK if source.generator is not None else total
    like = context.reference_parts[0] if like is None else like
    parts = []
    with progress(total, f"observe {source.label}") as advance:
        for number, first in enumerate(range(0, total, block)):
            size = min(block, total - first)

            def compute(size: int = size, number: int = number) -> dict[str, NDArray[np.generic]]:
                chunks = source.chunks(size, like, child_seed(context.seed, "amplification", number))
                seen = observe_chunks(chunks)
                return {"values": seen.values, "pixels": seen.pixels, "counts": seen.counts.astype(np.uint16)}

            name = f"observed-{source.sha256[:12]}-{number}"
            arrays = context.cache.get(name, compute, source.sha256, size, number)
            parts.append(Observed(arrays["values"], arrays["pixels"], arrays["counts"].astype(np.int64)))
            advance(size)
    return Observed.join(parts)


def collect_truth(context: Context) -> Observed:
    """Return the observables of all reference showers, file after file."""
    files = zip(context.references, context.reference_parts, strict=True)
    return Observed.join([collect(context, source, len(showers), showers) for source, showers in files])


def truth_name(context: Context) -> str:
    """Return the simulation that made the reference showers, for figures; "truth" where files disagree or do not say it."""
    names = {showers.source for showers in context.reference_parts if showers.source}
    return SIMULATIONS.get(names.pop(), "truth") if len(names) == 1 else "truth"


def count_text(context: Context) -> str:
    """Return how many reference showers there are, beside the paper's number."""
    published = paper("amplification.truth").value
    return f"{context.n_reference:,} {truth_name(context)} showers (paper: {published:,.0f})"


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
    """Divergences (G, L) of G numbers of generated showers at each number of quantiles, with standard deviations."""

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
