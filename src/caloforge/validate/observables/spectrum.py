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

_LOWEST_COUNT = 100  # entries in the highest bin below which no peak is claimed
_DIP = 0.97  # the spectrum must fall below this part of the peak on its low side


def _spectrum(batch: ShowerBatch) -> NDArray[np.int64]:
    bins = np.searchsorted(SPECTRUM_EDGES, batch.energy, side="right")
    return batch.sum_bins(bins, len(SPECTRUM_EDGES) + 1).astype(np.int64)


def mip_peak(
    counts: NDArray[np.floating] | NDArray[np.integer],
    edges: NDArray[np.float64] = SPECTRUM_EDGES,
    near: float | None = None,
) -> float:
    """Return the position of the MIP peak in a cell-energy spectrum.

    It is the highest bin of the spectrum per logarithm of energy, smoothed over three bins, refined by the parabola through
    it and its neighbours.

    Arguments:
        counts: (k,) entries in the bins, without under- and overflow.
        edges: (k + 1,) logarithmic edges, MeV.
        near: Expected energy, MeV: only bins from a third to three times of it are searched.

    Returns:
        MeV; NaN when there is no peak (too few entries, or the highest bin lies at the end of the range).
    """
    smooth = np.convolve(np.asarray(counts, np.float64), np.ones(3) / 3, mode="same")
    centre = np.sqrt(edges[1:] * edges[:-1])
    inside = np.ones(len(centre), bool) if near is None else (centre > near / 3) & (centre < near * 3)
    candidates = np.flatnonzero(inside)
    if len(candidates) < 3:
        return float("nan")
    top = int(candidates[smooth[candidates].argmax()])
    if top in (candidates[0], candidates[-1]) or smooth[top] < _LOWEST_COUNT:
        return float("nan")
    if smooth[candidates[0] : top].min() > _DIP * smooth[top]:
        return float("nan")
    left, middle, right = smooth[top - 1 : top + 2]
    bend = left - 2 * middle + right
    step = 0.0 if bend == 0 else float(np.clip(0.5 * (left - right) / bend, -1, 1))
    return float(centre[top] * (edges[top + 1] / edges[top]) ** step)


CELL_SPECTRUM = Observable("cell_spectrum", "cells", "", _spectrum, "energy", counts=True)
