r"""Distances between samples: of each observable's distribution, and in the space of features and of cells.

**Of each observable**: Kolmogorov-Smirnov, Wasserstein-1 and quantile divergence, see :mod:`caloforge.statistics.distances`. The
uncertainty is the standard deviation over bootstrap samples of both sides, the floor that of pairs of halves of the reference
(:mod:`caloforge.statistics.resampling`). :math:`W_1` is in units of the reference's standard deviation, the raw one (in the
observable's unit) in its detail. The bootstrap error of :math:`D` is an estimate; near zero it is on the large side.

The quantile divergence has :math:`n_{quant} \le n/10` bins, at least ten showers each, in the halves of the floor too: these have fewer
bins when they are too small for all, and the floor is multiplied by the ratio of the numbers of filled bins less one, as in the
expectation (its error by the root of that ratio: the divergence of equal distributions is distributed as chi-squared with so many
degrees of freedom).

**Of the features**: Frechet and kernel physics distance of the high-level features; precision, recall, density and coverage of the
cells, see :mod:`caloforge.statistics.feature_distances`. Features are divided by the largest absolute value of each in the reference. Draws
with replacement from finite samples leave a bias of the order of 1/n in both distances, which the floor shows.

Precision, recall, density and coverage are of log10 of the cell energies, cut below at the threshold. The error is the standard deviation
over a bootstrap of the showers that are counted, the balls fixed, and at least one shower (no variation is left where all or none
count). All four depend on the samples' sizes, so that value and floor have the same ones: h showers of the reference against h
generated ones, and against h other ones of the reference, where h is at most half of the reference, the generated sample, or
5,000 (``size`` in the detail).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.statistics.distances import (
    QuantileBins,
    expected_divergence,
    jensen_shannon,
    ks_test,
    weighted_distances,
)
from caloforge.statistics.feature_distances import (
    FEWEST_FPD,
    FEWEST_KPD,
    PRDC,
    Neighbourhoods,
    fpd,
    kpd,
    normalise,
)
from caloforge.statistics.resampling import Floor, bootstrap_counts, floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import (
    Array,
    Cells,
    Column,
    by_column,
    cell_pair,
    finite_columns,
    high_level_pair,
    joint_columns,
    log_cells,
)
from caloforge.validate.sample import Sample

__all__ = [
    "DistributionDistances",
    "FrechetPhysicsDistance",
    "KernelPhysicsDistance",
    "PrecisionRecall",
    "QuantileDivergence",
    "distances_of",
]

_MOST_BINS = 256
_SHOWERS_A_BIN = 10
_FPD_FLOORS, _FPD_FLOOR_DRAWS = 3, 7  # pairs of halves and draws of each: together as much work as one value
_KPD_FLOOR_BATCHES = 2  # for each pair of halves
_PRDC_MOST = 5000  # showers a side: distances between all pairs


def _signed_weights(s: Settings, n: int, m: int) -> tuple[Cells, Cells]:
    """Return the weights of the bootstrap samples (n + m, S) of both sides and of the halves (n, H) of the reference."""
    a = bootstrap_counts(n, s.n_bootstrap, s.seed, "reference").T / np.float32(n)
    b = bootstrap_counts(m, s.n_bootstrap, s.seed, "generated").T / np.float32(-m)
    of_halves = np.zeros((n, s.n_halves if n > 3 else 0), np.float32)
    for index, weights in enumerate(of_halves.T):
        first, second = halves(n, index, s.seed)
        weights[first], weights[second] = 1.0 / len(first), -1.0 / len(second)
    return np.concatenate([a, b]).astype(np.float32), of_halves


def distances_of(columns: Iterable[Column], settings: Settings) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return the Kolmogorov-Smirnov statistics and the scaled Wasserstein distances of columns, by name."""
    weights = lru_cache(maxsize=1)(partial(_signed_weights, settings))  # columns mostly have the same lengths
    ks: dict[str, Value] = {}
    w1: dict[str, Value] = {}
    for column in columns:
        if column.reason:
            ks[column.name] = w1[column.name] = Value.missing(column.reason, **column.counts)
            continue
        a, b = column.reference, column.generated
        of_samples, of_halves = weights(a.size, b.size)
        boot = weighted_distances(np.concatenate([a, b]), of_samples)
        floor = weighted_distances(a, of_halves) if of_halves.size else np.empty((2, 0))
        statistic, p = ks_test(a, b)
        below = floor_at(floor[0], a.size, b.size, degree=1)
        detail = {"statistic": statistic, "p": p, **column.counts}
        ks[column.name] = Value.with_floor(statistic, spread(boot[0]), below, **detail)
        w1[column.name] = _wasserstein(column, boot[1], floor[1])
    return ks, w1


def _wasserstein(column: Column, boot: Array, floor: Array) -> Value:
    """Return the Wasserstein distance in units of the reference's standard deviation."""
    from scipy.stats import wasserstein_distance

    a, b = column.reference, column.generated
    raw, scale = float(wasserstein_distance(a, b)), float(a.std())
    detail = {"raw": raw, "scale": scale, **column.counts}
    if scale == 0.0:
        reason = "constant in the reference: only the raw distance is defined"
        return Value(0.0 if raw == 0.0 else float("nan"), detail={**detail, "reason": reason})
    below = floor_at(floor / scale, a.size, b.size, degree=1)
    return Value.with_floor(raw / scale, spread(boot / scale), below, **detail)


class DistributionDistances(Metric):
    """Kolmogorov-Smirnov statistic (p-value ``p`` in the detail) and Wasserstein-1 distance by observable."""

    name: ClassVar[str] = "distances"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("ks", "Kolmogorov-Smirnov", 0.0, by="observable"),
        Key("wasserstein", "Wasserstein-1", 0.0, by="observable"),
    )

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``ks`` and ``wasserstein``; the latter over the reference's standard deviation, ``raw`` in the detail."""
        ks, w1 = distances_of(finite_columns(reference, generated), settings)
        return {"ks": ks, "wasserstein": w1}


def quantiles_for(n: int, wanted: int | None = None) -> int:
    """Return the number of bins for samples of ``n`` showers: the wanted one, or the largest power of two that is allowed.

    Raises:
        TooFewShowersError: When there are not ten showers a bin.
    """
    if wanted is None:
        wanted = min(_MOST_BINS, 1 << max(1, (n // _SHOWERS_A_BIN).bit_length() - 1))
    if wanted * _SHOWERS_A_BIN > n:
        needed = wanted * _SHOWERS_A_BIN
        msg = f"quantile divergence: {wanted} bins need {needed} showers a side (ten a bin), there are {n}"
        raise TooFewShowersError(msg)
    return wanted


def _divergence(column: Column, settings: Settings) -> Value:
    """Return the divergence of a column with bootstrap error and floor."""
    a, b = column.reference, column.generated
    n_quant = quantiles_for(min(len(a), len(b)), settings.n_quantiles)
    bins = QuantileBins(a, n_quant)
    p, q = bins.counts, bins.count(b)
    rng = generator(settings.seed, "quantile bootstrap")
    drawn = [rng.multinomial(x.sum(), x / x.sum(), settings.n_bootstrap) for x in (p, q)]
    boot = np.array([jensen_shannon(x, y) for x, y in zip(*drawn, strict=True)])
    filled = int((p > 0).sum())
    return Value.with_floor(
        jensen_shannon(p, q),
        spread(boot),
        _quantile_floor(a, len(b), n_quant, filled, settings),
        n_quantiles=n_quant,
        filled_bins=filled,
        expected=expected_divergence(filled, len(b), len(a)),
        **column.counts,
    )


def _quantile_floor(a: Array, m: int, n_quant: int, filled: int, settings: Settings) -> Floor:
    """Return the floor from halves of the reference (N,) or (N, d), ten showers a bin; none when there are not two bins.

    The compared samples have ``n_quant`` bins, of which ``filled`` have reference showers, and ``m`` generated showers.
    """
    bins = min(n_quant, len(a) // 2 // _SHOWERS_A_BIN)
    if bins < 2:
        return Floor()
    found, in_half = [], []
    for index in range(settings.n_halves):
        first, second = halves(len(a), index, settings.seed)
        of_half = QuantileBins(a[first], bins)
        found.append(jensen_shannon(of_half.counts, of_half.count(a[second])))
        in_half.append(int((of_half.counts > 0).sum()))
    freedom = float(np.mean(in_half)) - 1.0
    growth = (filled - 1) / freedom if freedom > 0 else 1.0
    below = floor_at(np.array(found), len(a), m, degree=2, growth=growth)
    error = None if below.uncertainty is None else below.uncertainty / growth**0.5 if growth > 0 else 0.0
    return Floor(below.value, error, {**below.detail, "floor_quantiles": bins})


class QuantileDivergence(Metric):
    """Quantile Jensen-Shannon divergence of each observable and of the sets that the studies use together."""

    name: ClassVar[str] = "quantile_jsd"
    papers: ClassVar[tuple[str, ...]] = ("calomplification",)
    keys: ClassVar[tuple[Key, ...]] = (Key("quantile_jsd", "Quantile JSD", 0.0, by="observable"),)
    minimum: ClassVar[int] = 2 * _SHOWERS_A_BIN

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the divergence by observable; joint sets are named ``a*b``."""
        columns = [*finite_columns(reference, generated), *joint_columns(reference, generated)]
        return {"quantile_jsd": by_column(columns, lambda column: _divergence(column, settings))}


def _floor_of_sets(found: list[tuple[float, float]], n: int, m: int, size: int) -> Floor:
    """Return the floor from repeated (distance, error) between sets of ``size`` showers; the error counts when there is one."""
    alone = found[0][1] if len(found) == 1 else None
    return floor_at(np.array([value for value, _ in found]), n, m, degree=2, size=size, uncertainty=alone)


class FrechetPhysicsDistance(Metric):
    """Frechet physics distance of the high-level features."""

    name: ClassVar[str] = "fpd"
    papers: ClassVar[tuple[str, ...]] = ("fpd-kpd",)
    keys: ClassVar[tuple[Key, ...]] = (Key("fpd", "Frechet physics distance", 0.0),)
    minimum: ClassVar[int] = FEWEST_FPD

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance of equally many showers; the floor is that of sets of the reference.

        The fit over sizes depends on the smaller sample, so that the larger one is cut to it. Sets of the reference are
        as large, or its halves where it has not twice as many, and then scaled to the size.
        """
        pair = high_level_pair(reference, generated, seed=settings.seed)
        whole = normalise(pair.reference, pair.generated)
        size = min(map(len, whole))
        a, b = (
            x if len(x) == size else x[generator(settings.seed, "fpd subset").permutation(len(x))[:size]]
            for x in whole
        )
        value, error = fpd(a, b, settings.seed)
        x, below = whole[0], Floor()
        n, part = len(x), min(len(x) // 2, size)
        if part >= FEWEST_FPD:
            found = []
            for index in range(min(_FPD_FLOORS, settings.n_halves)):
                order = generator(settings.seed, "fpd parts", index).permutation(n)
                sets = x[order[:part]], x[order[n // 2 :][:part]]
                found.append(fpd(*sets, settings.seed, _FPD_FLOOR_DRAWS))
            below = _floor_of_sets(found, size, size, part)
        return {"fpd": Value.with_floor(value, error, below, features=a.shape[1], size=size, **pair.counts)}


class KernelPhysicsDistance(Metric):
    """Kernel physics distance of the high-level features."""

    name: ClassVar[str] = "kpd"
    papers: ClassVar[tuple[str, ...]] = ("fpd-kpd",)
    keys: ClassVar[tuple[Key, ...]] = (Key("kpd", "Kernel physics distance", 0.0),)
    minimum: ClassVar[int] = FEWEST_KPD

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance; the floor is that of halves of the reference, at the samples' sizes."""
        pair = high_level_pair(reference, generated, seed=settings.seed)
        a, b = normalise(pair.reference, pair.generated)
        value, error = kpd(a, b, settings.seed)
        below = Floor()
        if len(a) >= 2 * FEWEST_KPD:
            splits = [halves(len(a), index, settings.seed) for index in range(settings.n_halves)]
            found = [kpd(a[x], a[y], settings.seed, _KPD_FLOOR_BATCHES) for x, y in splits]
            below = _floor_of_sets(found, len(a), len(b), len(a) // 2)
        return {"kpd": Value.with_floor(value, error, below, features=a.shape[1], **pair.counts)}


class PrecisionRecall(Metric):
    """Precision, recall, density and coverage of log10 cell energies."""

    name: ClassVar[str] = "prdc"
    papers: ClassVar[tuple[str, ...]] = ("density-coverage",)
    keys: ClassVar[tuple[Key, ...]] = tuple(Key(name, name.capitalize(), 1.0) for name in PRDC)
    minimum: ClassVar[int] = 12

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the four figures."""
        pair = cell_pair(reference, generated, settings, n_max=2 * _PRDC_MOST)
        n, m = len(pair.reference), len(pair.generated)
        size = min(n // 2, m, _PRDC_MOST)
        rng = generator(settings.seed, "prdc")
        rows, chosen = rng.permutation(n), rng.permutation(m)[:size]
        largest = [cells.max(axis=0, initial=0.0) for cells in (pair.reference, pair.generated)]
        used = np.flatnonzero(np.maximum(*largest) > settings.threshold)  # the others are 0 in every shower

        def logs(cells: NDArray[np.float32], some: NDArray[np.int64]) -> NDArray[np.float32]:
            return log_cells(cells[np.ix_(some, used)], settings.threshold)

        first, second = (logs(pair.reference, part) for part in (rows[:size], rows[size : 2 * size]))
        balls = Neighbourhoods(first, settings.neighbours, settings.torch_device())
        members = balls.members(logs(pair.generated, chosen)), balls.members(second)
        out: dict[str, Entry] = {}
        for name in PRDC:
            rng = generator(settings.seed, f"prdc/{name}")
            draws = rng.integers(0, size, (settings.n_bootstrap, size))
            found, below = (
                (float(x.mean()), max(spread(x[draws].mean(axis=1)), 1.0 / size))
                for x in (side[name] for side in members)
            )
            out[name] = Value(*found, *below, {"k": settings.neighbours, "size": size})
        return out
