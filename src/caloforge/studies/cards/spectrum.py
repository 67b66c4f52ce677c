r"""The spectrum of cell energies for a card: mean number of cells a shower in logarithmic bins, with errors.

Five bins a decade from 1e-4 to 1e4 MeV, with the cells below (0 to 1e-4 MeV) first and those above last. With the counts
:math:`k_{s}` of N showers in a bin the error of their mean is :math:`\sigma(k) / \sqrt N`, the spread between showers, since
the cells of one shower fluctuate together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.cell_histograms import FINE_EDGES, cell_histograms
from caloforge.validate.sample import Sample

__all__ = ["SPECTRUM_CARD_EDGES", "mean_spectrum", "spectrum"]

_MERGED = 4  # of the 20 bins a decade
_DECADES = 8
SPECTRUM_CARD_EDGES: NDArray[np.float64] = FINE_EDGES[: 20 * _DECADES + 1 : _MERGED]
"""Edges (41,) of the bins, MeV."""


def mean_spectrum(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean number of cells a shower (42,), and its error (42,): below the edges, 40 bins, above."""
    histograms = cell_histograms(sample, n_max=sample.n)
    fine = np.arange(len(FINE_EDGES) + 1)
    wide = np.where(fine == 0, 0, 1 + np.minimum((fine - 1) // _MERGED, len(SPECTRUM_CARD_EDGES) - 1))
    counts = histograms.sums(wide, np.arange(len(histograms.groups)))
    errors = (
        counts.std(axis=0, ddof=1) / np.sqrt(sample.n) if sample.n > 1 else np.full(counts.shape[1], np.nan)
    )
    return counts.mean(axis=0), errors


def spectrum(reference: Sample, generated: Sample) -> dict[str, Any]:
    """Return what a card says of the cells' energies.

    Arguments:
        reference: Geant4.
        generated: The model.

    Returns:
        ``low`` and ``high`` (MeV) and ``bins`` of the logarithmic bins; for ``reference`` and ``generated`` the ``cells``
        a shower and their ``uncertainty``, each (bins + 2,): below, the bins, above.
    """
    out: dict[str, Any] = {
        "low": float(SPECTRUM_CARD_EDGES[0]),
        "high": float(SPECTRUM_CARD_EDGES[-1]),
        "bins": len(SPECTRUM_CARD_EDGES) - 1,
    }
    for side, sample in (("reference", reference), ("generated", generated)):
        cells, errors = mean_spectrum(sample)
        out[side] = {"cells": cells.tolist(), "uncertainty": errors.tolist()}
    return out
