"""The spectrum of cell energies, and where it has its MIP peak.

Each shower carries its own histogram: counts in 20 bins a decade from 1e-3 to 1e6 MeV, underflow first and
overflow last, so that the spectra of any subset and their errors follow from sums over showers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.axes import SPECTRUM_EDGES
from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["CELL_SPECTRUM", "mip_peak"]

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


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over three bins; the end bins count twice at the ends."""
    return np.convolve(np.pad(values, 1, mode="edge"), np.ones(3) / 3, mode="valid")


def mip_peak(
    counts: NDArray[np.floating] | NDArray[np.integer],
    edges: NDArray[np.float64] = SPECTRUM_EDGES,
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
