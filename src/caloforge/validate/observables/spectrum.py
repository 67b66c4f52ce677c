"""The spectrum of cell energies: its MIP peak, and histograms of each shower by layer.

:data:`CELL_SPECTRUM` counts the cells of each shower in 20 bins a decade from 1e-3 to 1e6 MeV, underflow first and overflow last, so that
the spectra of any subset and their errors follow from sums over showers.

:class:`CellHistograms` does so for groups of layers: 20 bins a decade from 1e-4 to 1e6 MeV, with underflow (0 to 1e-4 MeV) and overflow. A
detector of more than 12 layers is cut into groups of neighbouring layers, ten at most. Beside these bins are windows 2 % wide
directly below and directly above energies at which generators accumulate cells: the hit threshold, half a MIP and one MIP of the layer
(:attr:`~caloforge.geometry.readout.ReadoutLayer.mip`) where it is known. For figures, the region around the threshold (a factor
of 2.2 below and above) is cut into bins of 2 % as well. The counts of every shower are kept as one sparse matrix a sample, about
six bytes for each filled bin of each shower, so that variances, bootstrap samples and halves follow from sums over showers, whose cells
fluctuate together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.validate.observables.base import SPECTRUM_EDGES, Observable, decade_edges
from caloforge.validate.observables.batch import Array, ShowerBatch

__all__ = ["FINE_EDGES", "CellCounter", "CellHistograms", "Window", "mip_peak"]

FINE_EDGES: Array = decade_edges(-4, 6)
"""Edges (201,) of the bins, MeV; the underflow lies below the first, the overflow at and above the last."""

_BINS = len(FINE_EDGES) + 1  # with underflow and overflow
_WIDTH = 1.02  # of a window, upper over lower end
_NEAR = 40  # bins on either side of the threshold in the figure: 1.02**40 = 2.2
_SINGLE = 12  # layers up to which each has its own histogram
_GROUPS = 10  # else


@dataclass(frozen=True)
class LayerGroup:
    """Neighbouring layers, ``first`` to ``last``, with one histogram."""

    key: str
    """Name in ``metrics.json``, such as ``layer[3]`` or ``layer[3-5]``."""
    name: str
    """Name in sentences."""
    first: int
    last: int


@dataclass(frozen=True)
class Window:
    """A narrow bin beside an energy."""

    place: str
    """Such as "directly above the hit threshold"."""
    low: Array
    high: Array
    """Ends of each group's window (G,), MeV; NaN where a group has none."""


@dataclass(frozen=True, eq=False)
class CellHistograms:
    """Counts of cells by shower, group of layers, and bin.

    Attributes:
        groups: The groups of layers.
        windows: The narrow bins, common to all samples of a detector and threshold.
        counts: SciPy sparse array (n, G * 202): group by group underflow, bins, overflow.
        in_windows: SciPy sparse array (n, G * W): group by group the windows.
        near_edges: Edges (N + 1,) of bins of 2 % around the threshold, MeV.
        near: SciPy sparse array (n, N): counts in these, in all layers together.
    """

    groups: tuple[LayerGroup, ...]
    windows: tuple[Window, ...]
    counts: Any
    in_windows: Any
    near_edges: Array
    near: Any

    @property
    def n(self) -> int:
        """Number of showers."""
        return int(self.counts.shape[0])

    def totals(self) -> Array:
        """Return the counts of all showers (G, 202)."""
        return np.asarray(self.counts.sum(axis=0), np.float64).reshape(len(self.groups), _BINS)

    def sums(self, bins: NDArray[np.int64], groups: NDArray[np.int64]) -> Array:
        """Return each shower's counts (n, K) in wider bins, added over the groups.

        ``bins`` (202,) is the wider bin of each bin, from 0 to K - 1; -1 leaves it out.
        """
        from scipy.sparse import csr_array

        kept = np.flatnonzero(bins >= 0)
        rows = (groups[:, None] * _BINS + kept).reshape(-1)
        target = np.broadcast_to(bins[kept], (len(groups), len(kept))).reshape(-1)
        shape = (len(self.groups) * _BINS, int(bins.max()) + 1)
        merge = csr_array((np.ones(len(rows), np.float32), (rows, target)), shape=shape)
        return np.asarray((self.counts @ merge).toarray(), np.float64)

    def window(self, number: int, groups: NDArray[np.int64]) -> Array:
        """Return each shower's count (n,) in one window, added over some groups."""
        columns = groups * len(self.windows) + number
        return np.asarray(self.in_windows[:, columns].sum(axis=1), np.float64).reshape(-1)


def layer_groups(detector: Detector) -> tuple[LayerGroup, ...]:
    """Return the groups of layers of a detector: each layer alone up to 12, else ten groups at most."""
    n = detector.n_layers
    size = 1 if n <= _SINGLE else -(-n // _GROUPS)
    groups = []
    for first in range(0, n, size):
        last = min(first + size, n) - 1
        if first == last:
            name = detector.layers[first].name
            named = name if name and not name.isdigit() else f"layer {first}"
            groups.append(LayerGroup(f"layer[{first}]", named, first, last))
        else:
            groups.append(LayerGroup(f"layer[{first}-{last}]", f"layers {first} to {last}", first, last))
    return tuple(groups)


def windows_of(detector: Detector, threshold: float) -> tuple[Window, ...]:
    """Return the narrow bins below and above the hit threshold, half a MIP, and one MIP."""
    groups = layer_groups(detector)
    mip = np.full(len(groups), np.nan)
    for number, group in enumerate(groups):
        values = {float(detector.layers[layer].mip) for layer in range(group.first, group.last + 1)}
        if len(values) == 1 and (value := values.pop()) > 0.0:
            mip[number] = value
    windows = []
    at_threshold = np.full(len(groups), threshold)
    for place, at in (("the hit threshold", at_threshold), ("half a MIP", mip / 2), ("one MIP", mip)):
        if np.isfinite(at).any():
            windows.append(Window(f"directly below {place}", at / _WIDTH, at))
            windows.append(Window(f"directly above {place}", at, at * _WIDTH))
    return tuple(windows)


class CellCounter:
    """Consumer that counts the cells of every shower, or of rows (K,), increasing, in the bins of :class:`CellHistograms`."""

    def __init__(self, detector: Detector, threshold: float, rows: NDArray[np.int64] | None = None) -> None:
        self._groups = layer_groups(detector)
        self._windows = windows_of(detector, threshold)
        sizes = [group.last - group.first + 1 for group in self._groups]
        self._group_of = np.repeat(np.arange(len(self._groups)), sizes)
        self._near_edges = threshold * _WIDTH ** np.arange(-_NEAR, _NEAR + 1, dtype=np.float64)
        self._parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        self._rows, self._start = rows, 0

    def add(self, batch: ShowerBatch) -> None:
        """Count the cells of the next showers."""
        start, self._start = self._start, self._start + batch.n
        if self._rows is not None:
            first, last = np.searchsorted(self._rows, (start, self._start))
            if first == last:
                return
            chosen = self._rows[first:last] - start
            batch = ShowerBatch(batch.showers[chosen], batch.threshold, batch.cut)
        groups, windows = len(self._groups), len(self._windows)
        group = self._group_of[batch.layer]
        bins = np.searchsorted(FINE_EDGES, batch.energy, side="right")
        counts, narrow, near = self._parts
        counts.append(_sparse(batch, batch.shower, group * _BINS + bins, groups * _BINS))
        rows, columns = [], []
        for number, window in enumerate(self._windows):
            inside = (batch.energy >= window.low[group]) & (batch.energy < window.high[group])
            rows.append(batch.shower[inside])
            columns.append(group[inside] * windows + number)
        narrow.append(_sparse(batch, np.concatenate(rows), np.concatenate(columns), groups * windows))
        place = np.searchsorted(self._near_edges, batch.energy, side="right") - 1
        inside = (place >= 0) & (place < 2 * _NEAR)
        near.append(_sparse(batch, batch.shower[inside], place[inside], 2 * _NEAR))

    def result(self) -> CellHistograms:
        """Return the histograms of all showers counted."""
        from scipy.sparse import vstack

        counts, narrow, near = (vstack(parts, format="csr") for parts in self._parts)
        return CellHistograms(self._groups, self._windows, counts, narrow, self._near_edges, near)


def _sparse(batch: ShowerBatch, rows: NDArray[np.int64], columns: NDArray[np.int64], width: int) -> Any:
    """Return the counts of a batch (batch.n, width) as a sparse array."""
    from scipy.sparse import csr_array

    flat, times = np.unique(rows * width + columns, return_counts=True)
    where = (flat // width, flat % width)
    return csr_array((times.astype(np.uint16), where), shape=(batch.n, width))


_SCALE = (len(SPECTRUM_EDGES) - 1) / float(np.log10(SPECTRUM_EDGES[-1] / SPECTRUM_EDGES[0]))
_OFFSET = 1 - _SCALE * float(np.log10(SPECTRUM_EDGES[0]))
_LOWER = np.concatenate([[-np.inf], SPECTRUM_EDGES])
_UPPER = np.concatenate([SPECTRUM_EDGES, [np.inf]])
_LOWEST_COUNT = 100  # smoothed entries below which a bin is not looked at
_RISE = 1.05  # least rise of a peak over the valley before it
_SIGMAS = 5.0  # and its least significance


def _spectrum(batch: ShowerBatch) -> NDArray[np.int64]:
    """Find the bins from a logarithm in single precision, and mend those that are one off at an edge."""
    energy = batch.energy
    guess = np.log10(energy.astype(np.float32)) * np.float32(_SCALE) + np.float32(_OFFSET)
    bins = np.clip(guess, 0, len(SPECTRUM_EDGES)).astype(np.int64)
    bins -= energy < _LOWER[bins]
    bins += energy >= _UPPER[bins]
    return batch.count_bins(bins, len(SPECTRUM_EDGES) + 1)


def _smooth(values: Array) -> Array:
    """Average over three bins; the end bins count twice at the ends."""
    return np.convolve(np.pad(values, 1, mode="edge"), np.ones(3) / 3, mode="valid")


def mip_peak(
    counts: NDArray[np.floating] | NDArray[np.integer],
    edges: Array = SPECTRUM_EDGES,
    near: float | None = None,
) -> float:
    """Return the position of the MIP peak in a cell-energy spectrum.

    The spectrum per MeV, smoothed over three bins, falls towards high energies; the peak is the bin where it
    rises most over the lowest value before it, refined by the parabola through its neighbours. It lies at the most probable
    energy of a minimum-ionising particle, somewhat below the mean.

    Arguments:
        counts: (k,) entries in the bins, without under- and overflow.
        edges: (k + 1,) logarithmic edges, MeV.
        near: Expected energy, MeV: only bins from a third to three times of it are searched.

    Returns:
        MeV; NaN when there is no peak: the rise is below 5 % or five standard deviations.
    """
    counts = np.asarray(counts, np.float64)
    smooth, density = _smooth(counts), _smooth(counts / np.diff(edges))
    centre = np.sqrt(edges[1:] * edges[:-1])
    seen = smooth >= _LOWEST_COUNT
    if near is not None:
        seen &= (centre > near / 3) & (centre < near * 3)
    bins = np.flatnonzero(seen)
    if len(bins) < 3:
        return float("nan")
    valley = bins[0]
    best, rise = -1, _RISE
    for index in bins[1:-1]:
        if density[index] < density[valley]:
            valley = index
        ratio = density[index] / density[valley]
        error = np.sqrt((1 / smooth[index] + 1 / smooth[valley]) / 3)
        if ratio > rise and ratio - 1 > _SIGMAS * error:
            best, rise = int(index), float(ratio)
    if best < 0 or density[best + 1] >= density[best]:
        return float("nan")
    left, middle, right = density[best - 1 : best + 2]
    step = float(np.clip(0.5 * (left - right) / (left - 2 * middle + right), -1, 1))
    return float(centre[best] * (edges[best + 1] / edges[best]) ** step)


CELL_SPECTRUM = Observable("cell_spectrum", "cells", "", _spectrum, "energy", counts=True)
