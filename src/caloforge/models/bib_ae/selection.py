r"""Figures of merit of a BIB-AE, by which the best epoch of each stage is kept.

Those of :mod:`caloforge.models.selection`, for encoded and decoded showers in the first two stages and for generated ones in the last, and

- ``spectrum``: half the sum over bins of \|n_g - n_r\| over the sum of n_r, for the numbers of cells per 0.1 of the decimal
  logarithm of the energy, from 0.01 MeV to 1 GeV;
- ``selection``: ``physics`` + ``spectrum`` / 0.02.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.models.selection import compare

__all__ = ["bib_figures", "spectrum_distance"]

_LOWEST, _HIGHEST, _BINS = -2.0, 3.0, 50
_SCALE = 0.02


def spectrum_distance(truth: Tensor, fake: Tensor) -> float:
    """Return ``spectrum`` of the module for cells (N, n_cells), MeV, of as many showers each."""
    counts = []
    for cells in (truth, fake):
        logs = torch.log10(cells.float().clamp_min(1e-6)).flatten()
        counts.append(torch.histc(logs, _BINS, _LOWEST, _HIGHEST))
    return float(0.5 * (counts[1] - counts[0]).abs().sum() / counts[0].sum().clamp_min(1.0))


def bib_figures(truth: Tensor, fake: Tensor, energy: Tensor, layer: Tensor) -> dict[str, float]:
    """Compare showers pair by pair of groups of incident energy.

    Arguments:
        truth: (N, n_cells) MeV.
        fake: (N, n_cells) MeV, of the same conditions.
        energy: (N,) incident energies, MeV.
        layer: (n_cells,) layer of each cell.

    Returns:
        The figures that the module names.
    """
    figures = compare(truth, fake, energy, layer)
    figures["spectrum"] = spectrum_distance(truth, fake)
    figures["selection"] = figures["physics"] + figures["spectrum"] / _SCALE
    return figures
