"""Features of the two-sample tests: cells, observables, spectra of cells, and conditions.

- Cells: log10 of the energy of the cells that are filled most often in the training part of both samples, NaN for a cell
  at or below the threshold.
- Observables: those of one number a shower and of one a layer, as asinh of the distance from the median in units of
  the range between the quartiles.
- Spectrum: log(1 + number of cells) in logarithmic bins from 1e-4 MeV to the largest cell of the reference, with under-
  and overflow: 96 bins for the whole shower, 24 for each layer (neighbouring layers together when there are more than
  20).

Thresholds are 0, where every value above zero counts, and half a MIP of the cell's layer (0.1 MeV for a detector without a
MIP energy). Incident energy, angle and alignments are features of all three when they vary. The point of impact within a cell is not:
models that are not conditional on it generate showers for random points, and a file written with the conditions of
another one has its points nevertheless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.statistics.moments import levels
from caloforge.statistics.two_sample import Features, Rows
from caloforge.units import plain_number
from caloforge.validate.metrics.base import Settings
from caloforge.validate.metrics.features import Array, Cells, cell_pair
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.sample import Sample

__all__ = ["PairData", "Side", "pair_data"]

BINS = 24
_FINER = 4  # bins of the whole shower for each bin of a layer
_LOWEST = 1e-4  # MeV
_GROUPS = 20  # most groups of layers: 20 x 26 features
_DECIMALS = 4  # of conditions: single and double precision in the files must not distinguish the samples
_ROWS = 256  # showers copied at once
_HALF_MIP = 0.1  # MeV, where no MIP energy is known


def half_mip(detector: Detector) -> Array:
    """Return half the energy of a MIP in each layer (n_layers,), MeV; 0.1 where it is unknown."""
    known = np.array([layer.mip for layer in detector.layers], np.float64)
    return np.where(known > 0, 0.5 * known, _HALF_MIP)


@dataclass(frozen=True)
class Side:
    """One of the two samples."""

    cells: Cells
    """Cell energies (n, n_cells), MeV, without any cut."""
    conditions: Array
    """log10 of the incident energy and further conditions (n, c)."""
    observables: Array
    """(n, d), NaN where not defined."""
    spectra: tuple[NDArray[np.float32], ...]
    """Spectrum of the cells above each threshold (n, d)."""

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: NDArray[np.int64]) -> Side:
        """Return some of the showers."""
        spectra = tuple(spectrum[rows] for spectrum in self.spectra)
        return Side(self.cells[rows], self.conditions[rows], self.observables[rows], spectra)


@dataclass(frozen=True)
class PairData:
    """Both samples with as many showers, names of their columns, and the features of the classifiers."""

    reference: Side
    generated: Side
    detector: Detector
    condition_names: tuple[str, ...]
    observable_names: tuple[str, ...]
    spectrum_names: tuple[tuple[str, ...], ...]
    thresholds: tuple[str, ...] = ("0", "half a MIP")

    def __len__(self) -> int:
        return len(self.reference)

    def halves(self, seed: int) -> PairData:
        """Return two disjoint random halves of the reference in place of the samples."""
        order = generator(seed, "two-sample halves").permutation(len(self.reference))
        size = len(order) // 2
        first, second = np.sort(order[:size]), np.sort(order[size : 2 * size])
        return replace(self, reference=self.reference.take(first), generated=self.reference.take(second))

    def cell_thresholds(self, index: int) -> NDArray[np.float32]:
        """Return the threshold of each cell (n_cells,), MeV."""
        if index == 0:
            return np.zeros(self.detector.n_cells, np.float32)
        return half_mip(self.detector)[self.detector.cell_layer].astype(np.float32)

    def _with_conditions(self, columns: list[NDArray[Any]], names: tuple[str, ...]) -> Features:
        """Return columns (n, d) of both samples behind the conditions that vary."""
        both = np.concatenate([self.reference.conditions, self.generated.conditions])
        varying = np.flatnonzero([levels(column, 1) is None for column in both.T])
        if len(varying) == 0 and columns[0].shape[1] == 0:
            varying = np.array([0])  # empty showers of one energy: a constant column
        sides = [
            np.concatenate([side.conditions[:, varying], x], axis=1, dtype=np.float32, casting="unsafe")
            for side, x in zip((self.reference, self.generated), columns, strict=True)
        ]
        return Features(sides[0], sides[1], (*(self.condition_names[i] for i in varying), *names))

    def cell_features(self, rows: Rows, threshold: int, most: int) -> Features:
        """Return the logarithms of the cells, at most ``most``, that are filled most often in the training rows."""
        above = self.cell_thresholds(threshold)
        counts = np.zeros(self.detector.n_cells, np.int64)
        for side, some in ((self.reference, rows.reference), (self.generated, rows.generated)):
            for start in range(0, len(some), _ROWS):
                counts += (side.cells[some[start : start + _ROWS]] > above).sum(axis=0)
        chosen = np.argsort(-counts, kind="stable")[:most]
        chosen = np.sort(chosen[counts[chosen] > 0])
        sides = (self.reference, self.generated)
        logs = [_logarithms(side.cells[:, chosen], above[chosen]) for side in sides]
        return self._with_conditions(logs, tuple(f"cell {index}" for index in chosen))

    def observable_features(self, rows: Rows) -> Features:
        """Return the observables, scaled with the training rows of the reference."""
        trained = self.reference.observables[rows.reference]
        known = np.flatnonzero(np.isfinite(trained).any(axis=0))
        low, middle, high = np.nanquantile(trained[:, known], (0.25, 0.5, 0.75), axis=0)
        scale = np.where(high > low, high - low, 1.0)
        sides = (self.reference, self.generated)
        columns = [np.arcsinh((side.observables[:, known] - middle) / scale) for side in sides]
        return self._with_conditions(columns, tuple(self.observable_names[index] for index in known))

    def spectrum_features(self, rows: Rows, threshold: int) -> Features:
        """Return the spectra of the cells above a threshold."""
        columns = [np.log1p(side.spectra[threshold]) for side in (self.reference, self.generated)]
        return self._with_conditions(columns, self.spectrum_names[threshold])

    def images(self, rows: Rows) -> Features:
        """Return the logarithms of all cells in decades above 1e-20 MeV, 0 for an empty cell, after log10 of the energy."""
        sides = []
        for side in (self.reference, self.generated):
            logs = np.nan_to_num(_logarithms(side.cells, np.float32(1e-20)) + 20.0, copy=False)
            sides.append(np.concatenate([side.conditions[:, :1].astype(np.float32), logs], axis=1))
        return Features(sides[0], sides[1], ())


def _logarithms(cells: Cells, above: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Return log10 of cells (n, k), NaN at or below the threshold."""
    filled = cells > above
    out = np.full(cells.shape, np.nan, np.float32)
    np.log10(cells, out=out, where=filled)
    return out


def pair_data(reference: Sample, generated: Sample, settings: Settings) -> PairData:
    """Return the data of both samples: as many showers of each, as many as the settings allow.

    Raises:
        TooFewShowersError: When a sample is empty.
    """
    detector = reference.detector
    pair = cell_pair(reference, generated, settings, cut=0.0)
    n = min(len(pair.reference), len(pair.generated))
    known = [set(sample.source.condition_names) for sample in (reference, generated)]
    conditions = ["incident_theta", *sorted((known[0] & known[1]) - {detector.beam.impact})]
    observed = [
        name
        for name in reference.observables.names
        if name in generated.observables and OBSERVABLES[name].axis in ("shower", "layer")
    ]
    groups = np.arange(detector.n_layers) // -(-detector.n_layers // _GROUPS)  # neighbouring layers together
    largest = max(float(pair.reference.max()), 2 * _LOWEST)
    thresholds = (np.zeros(detector.n_layers), half_mip(detector))
    edges = [
        np.geomspace(low, max(largest, 2 * low), _FINER * BINS + 1) for low in (_LOWEST, thresholds[1].min())
    ]
    sides = []
    for sample, cells in ((reference, pair.reference), (generated, pair.generated)):
        rows = sample.choose(len(cells), settings.seed)
        if len(cells) > n:
            kept = np.sort(generator(settings.seed, "two-sample subset").permutation(len(cells))[:n])
            cells, rows = cells[kept], rows[kept]
        logs = np.log10(np.asarray(sample.incident_energy, np.float64)[rows])[:, None]
        others = (np.asarray(sample.condition(name), np.float64)[rows] for name in conditions)
        observables = [sample.observables[name][rows].reshape(len(rows), -1) for name in observed]
        columns = np.concatenate(observables, axis=1)
        sides.append(
            Side(
                cells,
                np.concatenate([np.round(x, _DECIMALS) for x in (logs, *others)], axis=1),
                np.where(np.isfinite(columns), columns, np.nan),
                tuple(_spectra(cells, detector, groups, *x) for x in zip(thresholds, edges, strict=True)),
            )
        )
    return PairData(
        sides[0],
        sides[1],
        detector,
        ("incident energy", *_labels({name: reference.condition(name) for name in conditions})),
        _labels({name: reference.observables[name] for name in observed}),
        tuple(_bin_names(bins, groups) for bins in edges),
    )


def _labels(columns: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """Return a name for each column of arrays (n,) or (n, k)."""
    names: list[str] = []
    for name, values in columns.items():
        width = values[:1].size
        names += [name] if width == 1 else [f"{name}[{k}]" for k in range(width)]
    return tuple(names)


def _bin_names(edges: Array, groups: NDArray[np.int64]) -> tuple[str, ...]:
    names = [f"{name}, whole shower" for name in _ranges(edges)]
    for group in range(groups[-1] + 1 if groups[-1] > 0 else 0):
        layers = np.flatnonzero(groups == group)
        which = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        names += [f"{name}, {which}" for name in _ranges(edges[::_FINER])]
    return tuple(names)


def _ranges(edges: Array) -> list[str]:
    bins = [f"{plain_number(a)} to {plain_number(b)} MeV" for a, b in pairwise(edges)]
    return [f"below {plain_number(edges[0])} MeV", *bins, f"above {plain_number(edges[-1])} MeV"]


def _spectra(
    cells: Cells, detector: Detector, groups: NDArray[np.int64], above: Array, edges: Array
) -> NDArray[np.float32]:
    """Return the number of cells (n, d) in the bins: of the whole shower, and of each group of layers if several."""
    n_bins, n_groups = len(edges) + 1, int(groups[-1]) + 1
    group = groups[detector.cell_layer]
    threshold = above[detector.cell_layer].astype(np.float32)
    coarse = np.array([0, *range(1, n_bins - 1, _FINER), n_bins - 1])  # first fine bin of each coarse one
    width = n_bins + (n_groups * len(coarse) if n_groups > 1 else 0)
    out = np.empty((len(cells), width), np.float32)
    step = max(1, (1 << 22) // max(1, cells.shape[1]))
    for start in range(0, len(cells), step):
        block = cells[start : start + step]
        row, column = np.nonzero(block > threshold)
        bins = np.searchsorted(edges, block[row, column].astype(np.float64), side="right")
        flat = (row * n_groups + group[column]) * n_bins + bins
        counts = np.bincount(flat, minlength=len(block) * n_groups * n_bins)
        counts = counts.reshape(len(block), n_groups, n_bins)
        out[start : start + step, :n_bins] = counts.sum(axis=1)
        if n_groups > 1:
            by_layer = np.add.reduceat(counts, coarse, axis=2)
            out[start : start + step, n_bins:] = by_layer.reshape(len(block), -1)
    return out
