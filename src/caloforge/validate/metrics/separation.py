r"""Separation power of histograms.

With histograms :math:`p` (reference) and :math:`q` (generated) of unit sum,

.. math:: S = \frac12 \sum_i \frac{(p_i - q_i)^2}{p_i + q_i},

0 for equal and 1 for disjoint ones. The CaloChallenge's binning is used for its observables (response, layer
energies, centres, widths, sparsity); elsewhere equal bins between the reference's extremes. Entries out of the
range are counted: the detail gives their fraction on each side and ``unbinned_excess``, the difference of the two fractions.
Histograms are normalised by what falls inside, as in the challenge. The error is the spread of
multinomial bootstrap samples of both histograms, the floor that of halves of the reference, brought to the samples'
sizes (:mod:`caloforge.statistics.resampling`) and to the number of bins that both together fill.

References:
    O. Amram et al., CaloChallenge 2022, arXiv:2410.21611, section 4; S. Diefenbacher et al., arXiv:2009.03796.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.random import generator
from caloforge.statistics.resampling import bootstrap_counts, floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.binning import bin_edges, log_edges, lowest_energy
from caloforge.validate.metrics.features import Column, cell_pair, finite_columns

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.validate.sample import Sample

__all__ = ["Histogram", "SeparationPower", "histogram", "separation_of", "separation_power"]

_GUARD = 1e-16
_SPECTRUM_BINS = 49
_SPECTRUM_SHOWERS = 5000  # a side


@dataclass(frozen=True)
class Histogram:
    """Counts and what fell outside.

    Attributes:
        counts: Entries of each bin (K,).
        dropped: Fraction of the entries outside the edges.
    """

    counts: NDArray[np.int64]
    dropped: float


def histogram(values: ArrayLike, edges: NDArray[np.float64]) -> Histogram:
    """Return the counts of values (N,) between edges (K + 1,) and the fraction that lies outside."""
    x = np.asarray(values, np.float64)
    counts = np.histogram(x, edges)[0]
    return Histogram(counts, 1.0 - counts.sum() / x.size if x.size else 0.0)


def separation_power(p: ArrayLike, q: ArrayLike) -> float:
    """Return the separation power of two histograms (K,), counts or fractions; NaN when one is empty."""
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if a.sum() <= 0 or b.sum() <= 0:
        return float("nan")
    a, b = a / a.sum(), b / b.sum()
    return float(0.5 * np.sum((a - b) ** 2 / (a + b + _GUARD)))


def _growth(counts: NDArray[np.int64], in_half: float, times: float) -> float:
    """Return how many more bins two samples together fill than the reference alone.

    For equal distributions the expected separation power is proportional to the number of filled bins. From half of
    the reference to the whole it grows by some bins; as many are expected for each further doubling, up to all of them.

    Arguments:
        counts: The reference's histogram (K,).
        in_half: Bins filled by half of it.
        times: Showers of both samples over those of the reference.
    """
    filled = int((counts > 0).sum())
    if filled == 0:
        return 1.0
    more = filled + (filled - in_half) * float(np.log2(times))
    return min(more, float(counts.size)) / filled


def _resampled(counts: NDArray[np.int64], samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    total = int(counts.sum())
    if total == 0:
        return np.zeros((samples, counts.size), np.int64)
    return rng.multinomial(total, counts / total, samples)


def _error(p: NDArray[np.int64], q: NDArray[np.int64], settings: Settings, stream: str) -> float:
    rng = generator(settings.seed, f"separation/{stream}")
    pairs = zip(
        _resampled(p, settings.n_bootstrap, rng), _resampled(q, settings.n_bootstrap, rng), strict=True
    )
    return spread(np.array([separation_power(a, b) for a, b in pairs]))


def separation_of(columns: Iterable[Column], detector: Detector, settings: Settings) -> dict[str, Value]:
    """Return the separation power of columns by name; NaN with the reason where nothing can be compared."""
    return {
        column.name: Value(float("nan"), detail={"reason": column.reason, **column.counts})
        if column.reason
        else _compare(column, detector, settings)
        for column in columns
    }


def _compare(column: Column, detector: Detector, settings: Settings) -> Value:
    edges = bin_edges(column, detector)
    p, q = histogram(column.reference, edges), histogram(column.generated, edges)
    n, m = column.reference.size, column.generated.size
    floor, filled = [], []
    for index in range(settings.n_halves if n > 3 else 0):
        a, b = (histogram(column.reference[rows], edges).counts for rows in halves(n, index, settings.seed))
        floor.append(separation_power(a, b))
        filled += [int((a > 0).sum()), int((b > 0).sum())]
    growth = _growth(p.counts, float(np.mean(filled)), (n + m) / n) if filled else 1.0
    below = floor_at(np.array(floor), n, m, degree=2, growth=growth)
    detail: dict[str, Any] = {
        "bins": len(edges) - 1,
        "dropped_reference": p.dropped,
        "dropped_generated": q.dropped,
        "unbinned_excess": q.dropped - p.dropped,
        **below.detail,
        **column.counts,
    }
    value = separation_power(p.counts, q.counts)
    if not np.isfinite(value):
        detail["reason"] = "no entry of one of the samples lies within the histogram's range"
    error = _error(p.counts, q.counts, settings, column.name)
    return Value(value, error, below.value, below.uncertainty, detail)


class SeparationPower(Metric):
    """Separation power of each observable and of the spectra over all cells."""

    name: ClassVar[str] = "separation_power"
    keys: ClassVar[tuple[Key, ...]] = (Key("separation_power", "Separation power", 0.0, by="observable"),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the separation power by observable."""
        out = separation_of(finite_columns(reference, generated), reference.detector, settings)
        out["cell_spectrum"] = _spectrum(reference, generated, settings)
        return {"separation_power": out}


def _spectrum(reference: Sample, generated: Sample, settings: Settings) -> Value:
    """Return the separation power of the energies of all cells above the cut, bootstrapped over showers."""
    pair = cell_pair(reference, generated, settings, n_max=_SPECTRUM_SHOWERS)
    low = lowest_energy(reference.detector)
    edges = log_edges(low, float(pair.reference.max()), _SPECTRUM_BINS)
    counts, dropped = [], []
    for cells in (pair.reference, pair.generated):
        rows, columns = np.nonzero(cells)
        energies = cells[rows, columns]
        bins = np.searchsorted(edges, energies, "right") - 1
        inside = (bins >= 0) & (bins < _SPECTRUM_BINS)
        flat = np.bincount(
            rows[inside] * _SPECTRUM_BINS + bins[inside], minlength=len(cells) * _SPECTRUM_BINS
        )
        counts.append(flat.reshape(len(cells), _SPECTRUM_BINS))
        dropped.append(1.0 - inside.sum() / inside.size if inside.size else 0.0)
    a, b = counts
    weights_a = bootstrap_counts(len(a), settings.n_bootstrap, settings.seed, "reference")
    weights_b = bootstrap_counts(len(b), settings.n_bootstrap, settings.seed, "generated")
    boot = [
        separation_power(wa @ a, wb @ b)
        for wa, wb in zip(weights_a.astype(np.int64), weights_b.astype(np.int64), strict=True)
    ]
    floor = []
    for index in range(settings.n_halves if len(a) > 3 else 0):
        first, second = halves(len(a), index, settings.seed)
        floor.append(separation_power(a[first].sum(axis=0), a[second].sum(axis=0)))
    below = floor_at(np.array(floor), len(a), len(b), degree=2)
    detail: dict[str, Any] = {
        "bins": _SPECTRUM_BINS,
        "cut": low,
        "dropped_reference": dropped[0],
        "dropped_generated": dropped[1],
        **below.detail,
        **pair.counts,
    }
    value = separation_power(a.sum(axis=0), b.sum(axis=0))
    if not np.isfinite(value):
        detail["reason"] = f"one of the samples has no cell above {low} MeV"
    return Value(value, spread(np.array(boot)), below.value, below.uncertainty, detail)
