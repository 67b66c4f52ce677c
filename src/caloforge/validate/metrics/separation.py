"""Separation power of histograms of the observables and of the spectrum of all cells.

The CaloChallenge's bins are used for its observables on its meshes, 50 equal bins between the reference's extremes for all others:

===================== ============================== =============================================
quantity              data sets 2 and 3              data set 1 (in brackets: layers)
===================== ============================== =============================================
response              100 from 0.5 to 1.5            the same
layer energies        39 logarithmic from the energy cut to the reference's maximum
voxel energies        49 logarithmic from the energy cut to the reference's maximum
sparsity              20 from 0 to 1                 the same
centres in x, y (mm)  100 from -30 to 30             100 from -100 to 100; -500 to 500 (12, 13)
widths in x, y (mm)   100 from 0 to 30               100 from 0 to 100; 0 to 400 (12, 13)
centres in r (mm)     100 from 0 to 42               100 from 0 to 500; 0 to 1500 (12, 13, 14)
widths in r (mm)      100 from 0 to 20               100 from 0 to 500; 0 to 1500 (12, 13, 14)
===================== ============================== =============================================

The cut is the mesh's ``evaluation_cut``; spectra of other detectors begin at 0.1 MeV. Histograms are normalised by the entries
inside, as in the challenge; the detail gives the fraction outside on each side and ``unbinned_excess``, the difference of the two.
The error is the standard deviation of multinomial bootstrap samples of both histograms, the floor that of halves of the reference,
scaled to the samples' sizes (:mod:`caloforge.statistics.resampling`) and to the number of bins that both together fill.

References:
    C. Krause et al., CaloChallenge 2022, arXiv:2410.21611, section 4, and the challenge's public evaluation
    (github.com/CaloChallenge/homepage, code/evaluate_plotting_helper.py); S. Diefenbacher et al., arXiv:2009.03796.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.statistics.distances import separation_power
from caloforge.statistics.resampling import floor_at, halves, resample, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Array, Cells, Column, by_column, cell_pair, finite_columns
from caloforge.validate.sample import Sample

__all__ = ["SeparationPower", "histogram", "separation_of"]

Counts = NDArray[np.int64]
_Ranges = dict[str, tuple[float, float]]

_GENERAL_BINS = 50
_LOWEST = 0.1  # MeV
_BINS = 100
_SPARSITY_BINS = 20
_LAYER_ENERGY_BINS = 39
_SPECTRUM_BINS = 49
_SPECTRUM_SHOWERS = 5000  # a side


def _ranges(centre: float, width: float, centre_r: float, width_r: float) -> _Ranges:
    """Return the ranges of centres (from -centre) and widths in x and y, and of centres and widths in r, from their ends, mm."""
    out: _Ranges = {"layer_centre_r": (0.0, centre_r), "layer_width_r": (0.0, width_r)}
    for axis in "xy":
        out |= {f"layer_centre_{axis}": (-centre, centre), f"layer_width_{axis}": (0.0, width)}
    return out


_REGULAR = _ranges(30.0, 30.0, 42.0, 20.0)
_ATLAS = _ranges(100.0, 100.0, 500.0, 500.0)
_HADRONIC = _ranges(500.0, 400.0, 1500.0, 1500.0)
_MESHES = {
    "calochallenge-1-photons": _ATLAS,
    "calochallenge-1-pions": _ATLAS,
    "calochallenge-2": _REGULAR,
    "calochallenge-3": _REGULAR,
}
_OF_LAYER = {  # by the layer's name, in data set 1
    "layer 12": _HADRONIC,
    "layer 13": _HADRONIC,
    "layer 14": {name: edges for name, edges in _HADRONIC.items() if name.endswith("_r")},
}


def lowest_energy(detector: Detector) -> float:
    """Return the lower end of spectra of cells and layers, MeV: the mesh's ``evaluation_cut``, else 0.1 MeV."""
    return detector.evaluation_cut or _LOWEST


def log_edges(low: float, high: float, bins: int) -> Array:
    """Return edges (bins + 1,) equally spaced in the logarithm; one decade when ``high <= low``."""
    edges = np.geomspace(low, high if high > low else 10.0 * low, bins + 1)
    edges[-1] *= 1.0 + 1e-9  # the maximum itself belongs inside in spite of rounding
    return edges


def general_edges(values: Array, bins: int = _GENERAL_BINS) -> Array:
    """Return equal bins between the extremes of the reference's values (N,); three around a constant."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        half = max(abs(low) * 1e-6, 1e-9)
        return low + half * np.array([-3.0, -1.0, 1.0, 3.0])
    edges = np.linspace(low, high, bins + 1)
    if not np.all(np.diff(edges) > 0):  # too narrow for so many numbers
        return np.array([low, 0.5 * (low + high), high])
    return edges


def bin_edges(column: Column, detector: Detector) -> Array:
    """Return the edges of a column's histogram: the challenge's for its meshes, else from the reference."""
    ranges = _MESHES.get(detector.name)
    if ranges is None:
        return general_edges(column.reference)
    if column.observable == "response":
        return np.linspace(0.5, 1.5, _BINS + 1)
    if column.observable == "layer_energy":
        return log_edges(lowest_energy(detector), float(column.reference.max()), _LAYER_ENERGY_BINS)
    if column.observable == "layer_sparsity":
        return np.linspace(0.0, 1.0, _SPARSITY_BINS + 1)
    if column.index is not None and ranges is _ATLAS:
        ranges = ranges | _OF_LAYER.get(detector.layers[column.index].name, {})
    lateral = ranges.get(column.observable)
    return general_edges(column.reference) if lateral is None else np.linspace(*lateral, _BINS + 1)


def histogram(values: ArrayLike, edges: Array) -> tuple[Counts, float]:
    """Return the counts (K,) of values (N,) between edges (K + 1,) and the fraction of values outside."""
    x = np.asarray(values, np.float64)
    counts = np.histogram(x, edges)[0]
    return counts, 1.0 - counts.sum() / x.size if x.size else 0.0


def _growth(counts: Counts, in_half: float, times: float) -> float:
    """Return how many more bins two samples together fill than the reference alone.

    For equal distributions the expected separation power is proportional to the number of filled bins. From half of
    the reference to the whole it grows by some bins; as many are expected for each further doubling, up to all of them.

    Here ``counts`` (K,) is the reference's histogram and ``times`` the number of all showers over those of the reference.
    """
    filled = int((counts > 0).sum())
    if filled == 0:
        return 1.0
    more = filled + (filled - in_half) * float(np.log2(times))
    return min(more, float(counts.size)) / filled


def _error(p: Counts, q: Counts, settings: Settings, stream: str) -> float:
    """Return the standard deviation of the separation power of multinomial bootstrap samples."""
    if p.sum() == 0 or q.sum() == 0:
        return float("nan")
    rng = generator(settings.seed, f"separation/{stream}")
    drawn = [rng.multinomial(x.sum(), x / x.sum(), settings.n_bootstrap) for x in (p, q)]
    return spread(np.array([separation_power(a, b) for a, b in zip(*drawn, strict=True)]))


def separation_of(columns: Iterable[Column], detector: Detector, settings: Settings) -> dict[str, Value]:
    """Return the separation power of columns by name; NaN with the reason where nothing can be compared."""
    return by_column(columns, lambda column: _compare(column, detector, settings))


def _compare(column: Column, detector: Detector, settings: Settings) -> Value:
    edges = bin_edges(column, detector)
    (p, outside_p), (q, outside_q) = (histogram(x, edges) for x in (column.reference, column.generated))
    n, m = column.reference.size, column.generated.size
    floor, filled = [], []
    for index in range(settings.n_halves if n > 3 else 0):
        a, b = (histogram(column.reference[rows], edges)[0] for rows in halves(n, index, settings.seed))
        floor.append(separation_power(a, b))
        filled += [int((a > 0).sum()), int((b > 0).sum())]
    growth = _growth(p, float(np.mean(filled)), (n + m) / n) if filled else 1.0
    below = floor_at(np.array(floor), n, m, degree=2, growth=growth)
    value = separation_power(p, q)
    reason = "no entry of one of the samples lies within the histogram's range"
    return Value.with_floor(
        value,
        _error(p, q, settings, column.name),
        below,
        bins=len(edges) - 1,
        dropped_reference=outside_p,
        dropped_generated=outside_q,
        unbinned_excess=outside_q - outside_p,
        **column.counts,
        **({} if np.isfinite(value) else {"reason": reason}),
    )


class SeparationPower(Metric):
    """Separation power of each observable and of the spectra over all cells."""

    name: ClassVar[str] = "separation_power"
    papers: ClassVar[tuple[str, ...]] = ("calochallenge",)
    keys: ClassVar[tuple[Key, ...]] = (Key("separation_power", "Separation power", 0.0, by="observable"),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the separation power by observable."""
        out = separation_of(finite_columns(reference, generated), reference.detector, settings)
        out["cell_spectrum"] = _spectrum(reference, generated, settings)
        return {"separation_power": out}


def _cell_counts(cells: Cells, edges: Array) -> tuple[Counts, float]:
    """Return each shower's histogram of filled cells (N, K), and the fraction of them outside."""
    rows, columns = np.nonzero(cells)
    bins = np.searchsorted(edges, cells[rows, columns], "right") - 1
    k = len(edges) - 1
    inside = (bins >= 0) & (bins < k)
    flat = np.bincount(rows[inside] * k + bins[inside], minlength=len(cells) * k)
    return flat.reshape(len(cells), k), 1.0 - inside.sum() / inside.size if inside.size else 0.0


def _summed(a: Counts, b: Counts, weights_a: Counts | None = None, weights_b: Counts | None = None) -> float:
    sums = (
        x.sum(axis=0) if w is None else w.astype(np.int64) @ x for x, w in ((a, weights_a), (b, weights_b))
    )
    return separation_power(*sums)


def _spectrum(reference: Sample, generated: Sample, settings: Settings) -> Value:
    """Return the separation power of the energies of all cells above the cut, bootstrapped over showers."""
    pair = cell_pair(reference, generated, settings, n_max=_SPECTRUM_SHOWERS)
    low = lowest_energy(reference.detector)
    edges = log_edges(low, float(pair.reference.max()), _SPECTRUM_BINS)
    (a, outside_a), (b, outside_b) = (_cell_counts(x, edges) for x in (pair.reference, pair.generated))
    boot, floors = resample(_summed, a, b, settings.n_bootstrap, settings.n_halves, settings.seed)
    value = _summed(a, b)
    return Value.with_floor(
        value,
        spread(boot),
        floor_at(floors, len(a), len(b), degree=2),
        bins=_SPECTRUM_BINS,
        cut=low,
        dropped_reference=outside_a,
        dropped_generated=outside_b,
        **pair.counts,
        **({} if np.isfinite(value) else {"reason": f"one of the samples has no cell above {low} MeV"}),
    )
