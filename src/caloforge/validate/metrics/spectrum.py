r"""The spectrum of cell energies, bin by bin: chi-squared, and the largest local excess or deficit.

Cells are counted in logarithmic bins, 20 a decade from 1e-4 MeV up (:mod:`~caloforge.validate.observables.spectrum`),
in all layers together and in each layer or group of layers. Neighbouring bins are merged until each has at least 50
expected cells in the smaller sample; the last one is open, so that cells above the reference's maximum count. Filled cells
below 1e-4 MeV are not in the spectrum: the detail has their fraction. With the mean counts per shower :math:`r_i, g_i` of
n reference and m generated showers and the variances :math:`s^2` of a shower's count, at least the Poisson ones,

.. math:: z_i = \frac{g_i - r_i}{\sqrt{s_{r,i}^2 / n + s_{g,i}^2 / m}}, \qquad \chi^2 / K = \frac1K \sum_i z_i^2 .

Variances are taken from the spread over showers, since cells of one shower fluctuate together. For that reason the bins
are correlated too: the expectation of chi-squared per bin is 1, but its fluctuations are larger than those of K independent
bins. The floor is the mean over pairs of halves of the reference and independent of the samples' sizes.

Among N bins the largest deviation is significant when it exceeds four standard deviations after the correction for
the number of bins, :math:`z_{glob}^2 = z^2 - 2 \ln N`. To the bins of the spectrum are added windows of 2 % directly below and
above the hit threshold, half a MIP, and one MIP, since a pile-up in a narrow bin is diluted in a wide one. Of the significant bins
that with the largest Poisson deviance per shower is reported,

.. math:: D_i = 2 \left( g_i \ln \frac{g_i}{r_i} - g_i + r_i \right),

the information of the bin about the generator, so that a spike of many cells comes before an empty bin of few.

References:
    S. Baker, R. D. Cousins, Nucl. Instrum. Meth. 221 (1984) 437 (deviance); E. Gross, O. Vitells, Eur. Phys. J. C 70
    (2010) 525, arXiv:1005.1891 (number of bins).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.moments import significance_of_largest
from caloforge.statistics.resampling import bootstrap_counts, halves, spread
from caloforge.units import plain_number
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Array, cell_histograms
from caloforge.validate.observables.spectrum import FINE_EDGES, CellHistograms
from caloforge.validate.sample import Sample

__all__ = ["CellSpectrum", "deviance"]

_FEWEST = 50.0  # expected cells in a bin, in the smaller sample
_SIGNIFICANT = 4.0  # standard deviations, after the number of bins
_MOST_FINDINGS = 5


def merge_bins(counts: Array, fewest: float) -> NDArray[np.int64]:
    """Return the merged bin of each bin (K,), from 0 upwards: neighbours are joined from the top until each has ``fewest`` entries.

    The rest below the last full bin joins it; all is one bin when there are too few entries.
    """
    group = np.empty(len(counts), np.int64)
    current, entries = 0, 0.0
    for index in range(len(counts) - 1, -1, -1):
        if entries >= fewest and counts[: index + 1].sum() >= fewest:
            current, entries = current + 1, 0.0
        group[index] = current
        entries += counts[index]
    return current - group


def _mean_and_error2(counts: Array) -> tuple[Array, Array]:
    """Return mean and its squared error (K,) of counts (n, K); the variance is at least that of a Poisson distribution."""
    mean = counts.mean(axis=0)
    return mean, np.maximum(counts.var(axis=0, ddof=1), mean) / len(counts)


def _z(a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
    error2 = a[1] + b[1]
    known = error2 > 0
    return np.where(known, (b[0] - a[0]) / np.sqrt(np.where(known, error2, 1.0)), 0.0)


def z_scores(reference: Array, generated: Array) -> Array:
    """Return the differences of the mean counts (n, K) and (m, K) a shower in standard deviations (K,); 0 where both are empty."""
    return _z(_mean_and_error2(reference), _mean_and_error2(generated))


def chi2_per_bin(reference: Array, generated: Array) -> float:
    """Return chi-squared per bin of the counts of each shower (n, K) and (m, K)."""
    return float(np.mean(z_scores(reference, generated) ** 2))


def deviance(r: float, g: float) -> float:
    """Return the Poisson deviance of mean counts a shower, generated g against reference r; infinite for r = 0."""
    if r == 0.0 < g:
        return math.inf
    return 2.0 * ((g * math.log(g / r) if g > 0 else 0.0) - g + r)


@dataclass(frozen=True)
class _Bin:
    """One bin that is tested."""

    low: float
    high: float
    place: str  # of a window; empty for a bin of the spectrum
    r: float
    g: float
    z: float
    error: float  # of the ratio

    @property
    def ratio(self) -> float:
        return self.g / self.r if self.r > 0 else float("inf")

    @property
    def deviance(self) -> float:
        return deviance(self.r, self.g)


@dataclass(frozen=True)
class _Scope:
    """All layers or one group of them: counts per shower in merged bins, and the bins that are tested."""

    key: str
    name: str  # empty for all layers
    edges: Array
    reference: Array
    generated: Array
    bins: tuple[_Bin, ...]
    outside: dict[str, float]


class CellSpectrum(Metric):
    """Chi-squared per bin of the cell-energy spectrum, and its largest significant local ratio, by layer."""

    name: ClassVar[str] = "spectrum"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("spectrum_chi2", "Cell spectrum, chi2 per bin", 1.0, by="observable"),
        Key("spectrum_ratio", "Cell spectrum, largest local ratio", 1.0, by="observable"),
    )
    minimum: ClassVar[int] = 10

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``spectrum_chi2`` and ``spectrum_ratio``, each for ``all`` and by layer or group of layers.

        The value of ``spectrum_ratio`` is the ratio of the mean numbers of cells, generated over reference, in the significant bin of
        largest deviance, and 1 when no bin is significant. Its detail has the bin (``energy_low``, ``energy_high`` in MeV, ``layer``,
        ``place`` of a window, ``ratio`` whether significant or not), ``finding`` (a sentence) and ``findings`` (the most important
        regions), and ``typical_uncertainty`` (median of the bins' relative uncertainties, weighted by their cells).
        """
        a = cell_histograms(reference, settings.n_max, settings.seed)
        b = cell_histograms(generated, settings.n_max, settings.seed)
        groups = [(group.key, group.name, np.array([k])) for k, group in enumerate(a.groups)]
        every = ("all", "", np.arange(len(groups)))
        scopes = [_scope(a, b, *one) for one in (every, *(groups if len(groups) > 1 else ()))]
        trials = sum(len(scope.bins) for scope in scopes)
        boot = [
            bootstrap_counts(n, settings.n_bootstrap, settings.seed, side).astype(np.float64)
            for n, side in ((a.n, "reference"), (b.n, "generated"))
        ]
        chi2: dict[str, Value] = {}
        ratio: dict[str, Value] = {}
        for scope in scopes:
            if not scope.bins:
                missing = Value.missing(f"fewer than {_FEWEST:g} cells are expected", **scope.outside)
                chi2[scope.key] = ratio[scope.key] = missing
                continue
            chi2[scope.key] = _chi2(scope, boot, settings)
            ratio[scope.key] = _ratio(scope, trials)
        return {"spectrum_chi2": chi2, "spectrum_ratio": ratio}


def _scope(a: CellHistograms, b: CellHistograms, key: str, name: str, groups: NDArray[np.int64]) -> _Scope:
    """Return the counts of some groups of layers in merged bins, and the bins that are tested."""
    total_a, total_b = a.totals()[groups].sum(axis=0), b.totals()[groups].sum(axis=0)
    top = int(np.flatnonzero(total_a)[-1]) if total_a[1:].any() else 0
    outside: dict[str, float] = {
        "underflow_edge": float(FINE_EDGES[0]),
        "underflow_reference": _share(total_a[0], total_a),
        "underflow_generated": _share(total_b[0], total_b),
        "overflow_generated": _share(total_b[top + 1 :].sum(), total_b),
    }
    fewest = _FEWEST * max(1.0, a.n / b.n)
    if total_a[1:].sum() < fewest:
        none = np.empty((0, 0))
        return _Scope(key, name, none, none, none, (), outside)
    place = np.full(len(total_a), -1, np.int64)
    place[1:] = merge_bins(total_a[1:], fewest)
    first = [int(np.flatnonzero(place == k)[0]) for k in range(int(place.max()) + 1)]
    edges = np.array([*(FINE_EDGES[k - 1] for k in first), FINE_EDGES[min(top, len(FINE_EDGES) - 1)]])
    counts = a.sums(place, groups), b.sums(place, groups)
    bins = _tested(*counts, [(low, high, "") for low, high in pairwise(edges)])
    for number, window in enumerate(a.windows):
        low, high = window.low[groups], window.high[groups]
        if np.isfinite(low).all() and np.ptp(low) == 0.0:
            inside = a.window(number, groups), b.window(number, groups)
            if inside[0].sum() >= fewest:
                place_of = [(float(low[0]), float(high[0]), window.place)]
                bins += _tested(inside[0][:, None], inside[1][:, None], place_of)
    return _Scope(key, name, edges, *counts, tuple(bins), outside)


def _share(part: float, total: Array) -> float:
    return float(part / total.sum()) if total.sum() > 0 else 0.0


def _tested(reference: Array, generated: Array, ranges: Sequence[tuple[float, float, str]]) -> list[_Bin]:
    """Return the bins with their mean counts, z, and the error of the ratio."""
    a, b = _mean_and_error2(reference), _mean_and_error2(generated)
    out = []
    for (low, high, place), r, error2_r, g, error2_g, z in zip(ranges, *a, *b, _z(a, b), strict=True):
        error = float(np.sqrt(error2_g + (g / r) ** 2 * error2_r) / r) if r > 0 else float("nan")
        out.append(_Bin(float(low), float(high), place, float(r), float(g), float(z), error))
    return out


def _chi2(scope: _Scope, boot: Sequence[Array], settings: Settings) -> Value:
    """Return chi-squared per bin with the spread of bootstrap samples and the floor of halves."""
    a, b = scope.reference, scope.generated
    pairs = zip(_weighted(a, boot[0]), _weighted(b, boot[1]), strict=True)
    values = np.array([np.mean(_z(x, y) ** 2) for x, y in pairs])
    splits = [halves(len(a), k, settings.seed) for k in range(settings.n_halves if len(a) > 3 else 0)]
    floor = [chi2_per_bin(a[first], a[second]) for first, second in splits]
    detail: dict[str, Any] = {
        "bins": a.shape[1],
        "layer": scope.name,
        "edges": scope.edges,
        "reference": a.mean(axis=0),
        "generated": b.mean(axis=0),
        "note": "bins are correlated: cells of one shower fluctuate together",
        "n_reference_used": len(a),
        "n_generated_used": len(b),
        **scope.outside,
    }
    mean = float(np.mean(floor)) if floor else None
    error = max(spread(np.array(floor)), float(np.sqrt(2.0 / a.shape[1]))) if len(floor) > 1 else None
    return Value(chi2_per_bin(a, b), spread(values), mean, error, detail)


def _weighted(counts: Array, weights: Array) -> Iterator[tuple[Array, Array]]:
    """Yield mean and squared error of counts (n, K) in each bootstrap sample, from how often each shower is drawn (S, n)."""
    n = len(counts)
    means, squares = weights @ counts / n, weights @ counts**2 / n
    for mean, square in zip(means, squares, strict=True):
        yield mean, np.maximum(np.maximum(square - mean**2, 0.0) * n / (n - 1), mean) / n


def _ratio(scope: _Scope, trials: int) -> Value:
    """Return the significant bin of largest deviance, or 1 when there is none."""
    found = [entry for entry in scope.bins if significance_of_largest(entry.z, trials) > _SIGNIFICANT]
    chosen = max(found, key=lambda x: x.deviance) if found else max(scope.bins, key=lambda x: abs(x.z))
    regions = _regions(scope, found)
    sizes = np.array([(entry.error, entry.r) for entry in scope.bins if not entry.place])
    detail: dict[str, Any] = {
        "energy_low": chosen.low,
        "energy_high": chosen.high,
        "layer": scope.name,
        "place": chosen.place,
        "ratio": chosen.ratio,
        "reference": chosen.r,
        "generated": chosen.g,
        "significance": significance_of_largest(chosen.z, trials),
        "local_significance": abs(chosen.z),
        "significant": bool(found),
        "deviance": chosen.deviance,
        "bins": trials,
        "typical_uncertainty": _weighted_median(sizes[:, 0], sizes[:, 1]),
        "finding": _sentence(chosen, scope.name)
        if found
        else f"no bin deviates by more than {_SIGNIFICANT:g} standard deviations",
        "findings": [_sentence(entry, scope.name) for entry in regions] + _below(scope),
        **scope.outside,
    }
    if found:
        return Value(chosen.ratio, chosen.error, 1.0, 0.0, detail)
    return Value(1.0, detail["typical_uncertainty"], 1.0, 0.0, detail)


def _regions(scope: _Scope, significant: Sequence[_Bin]) -> list[_Bin]:
    """Return the most important deviations: neighbouring significant bins of one sign joined, and windows."""
    joined: list[_Bin] = []
    open_run = False
    for entry in (entry for entry in scope.bins if not entry.place):
        if entry not in significant:
            open_run = False
            continue
        if open_run and (joined[-1].z > 0) == (entry.z > 0):
            last = joined[-1]
            joined[-1] = replace(entry, low=last.low, r=last.r + entry.r, g=last.g + entry.g)
        else:
            joined.append(entry)
        open_run = True
    narrow = [entry for entry in significant if entry.place]
    kept: list[_Bin] = []
    for entry in sorted([*joined, *narrow], key=lambda entry: -entry.deviance):
        if not any(k.low < entry.high and entry.low < k.high and (k.z > 0) == (entry.z > 0) for k in kept):
            kept.append(entry)
    return kept[:_MOST_FINDINGS]


def _below(scope: _Scope) -> list[str]:
    """Return a sentence on filled cells below the spectrum, when the generated sample has more of them."""
    share, expected = scope.outside["underflow_generated"], scope.outside["underflow_reference"]
    if share <= max(1e-3, 2.0 * expected):
        return []
    below = f"{plain_number(100 * share, 2)} % of the filled cells lie below {scope.outside['underflow_edge']:g} MeV"
    return [f"{below}, in the reference {plain_number(100 * expected, 2)} %"]


def say_ratio(ratio: float) -> str:
    """Return a ratio of numbers of cells in words: "12.8 times too many", "35 % too few"."""
    if ratio >= 2.0:
        return f"{plain_number(ratio)} times too many"
    if ratio > 1.0:
        return f"{plain_number(100 * (ratio - 1), 2)} % too many"
    return "practically no" if ratio < 0.005 else f"{plain_number(100 * (1 - ratio), 2)} % too few"


def _sentence(entry: _Bin, layer: str) -> str:
    where = f" in {layer}" if layer else ""
    beside = f", {entry.place}" if entry.place else ""
    # three digits, so that the ends of a window differ
    low, high = (f"{x:.3f}" if 0.05 <= x < 10.0 else plain_number(x) for x in (entry.low, entry.high))
    return f"{say_ratio(entry.ratio)} cells between {low} and {high} MeV{where}{beside}"


def _weighted_median(values: Array, weights: Array) -> float:
    """Return the median of values (K,) with weights (K,)."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])
