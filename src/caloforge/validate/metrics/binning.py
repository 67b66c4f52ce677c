"""Histogram bins: the CaloChallenge's for its observables, from the reference for all others.

===================== =================================================================
quantity              bins of the challenge
===================== =================================================================
response              100 from 0.5 to 1.5
layer energies        39 logarithmic from the energy cut to the reference's maximum
voxel energies        49 logarithmic from the energy cut to the reference's maximum
sparsity              20 from 0 to 1
centres               100 from -30 to 30 mm (sets 2, 3), -100 to 100 mm (set 1)
widths                100 from 0 to 30 mm (sets 2, 3), 0 to 100 mm (set 1)
===================== =================================================================

The cut is 1 MeV in set 1, 15.15 keV in sets 2 and 3, and 0.1 MeV elsewhere. A fixed range fits no other detector,
so that only the challenge's own meshes have these bins.

References:
    O. Amram et al., CaloChallenge 2022, arXiv:2410.21611.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.validate.metrics.features import Column

__all__ = ["bin_edges", "energy_cut", "general_edges", "log_edges"]

_GENERAL_BINS = 50
_CUTS = {  # MeV
    "calochallenge-1-photons": 1.0,
    "calochallenge-1-pions": 1.0,
    "calochallenge-2": 0.01515,
    "calochallenge-3": 0.01515,
}
_CUT = 0.1
_REACH = {"calochallenge-2": 30.0, "calochallenge-3": 30.0}  # mm
_WIDE = 100.0


def energy_cut(detector: Detector) -> float:
    """Return the energy below which the challenge's evaluation ignores a voxel, MeV."""
    return _CUTS.get(detector.name, _CUT)


def log_edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Return edges (bins + 1,) equally spaced in the logarithm; one decade when ``high <= low``."""
    edges = np.geomspace(low, high if high > low else 10.0 * low, bins + 1)
    edges[-1] *= 1.0 + 1e-9  # the maximum itself belongs inside in spite of rounding
    return edges


def general_edges(values: NDArray[np.float64], bins: int = _GENERAL_BINS) -> NDArray[np.float64]:
    """Return equal bins between the extremes of the reference's values (N,); three around a constant."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        half = max(abs(low) * 1e-6, 1e-9)
        return low + half * np.array([-3.0, -1.0, 1.0, 3.0])
    edges = np.linspace(low, high, bins + 1)
    if not np.all(np.diff(edges) > 0):  # too narrow for so many numbers
        return np.array([low, 0.5 * (low + high), high])
    return edges


def _layer_energy(column: Column, detector: Detector) -> NDArray[np.float64]:
    return log_edges(energy_cut(detector), float(column.reference.max()), 39)


def _response(column: Column, detector: Detector) -> NDArray[np.float64]:
    return np.linspace(0.5, 1.5, 101)


def _sparsity(column: Column, detector: Detector) -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, 21)


def _centre(column: Column, detector: Detector) -> NDArray[np.float64]:
    reach = _REACH.get(detector.name, _WIDE)
    return np.linspace(-reach, reach, 101)


def _width(column: Column, detector: Detector) -> NDArray[np.float64]:
    return np.linspace(0.0, _REACH.get(detector.name, _WIDE), 101)


_CHALLENGE: dict[str, Callable[[Column, Detector], NDArray[np.float64]]] = {
    "layer_energy": _layer_energy,
    "response": _response,
    "layer_sparsity": _sparsity,
    "layer_centre_x": _centre,
    "layer_centre_y": _centre,
    "layer_width_x": _width,
    "layer_width_y": _width,
    "layer_width_r": _width,
}


def bin_edges(column: Column, detector: Detector) -> NDArray[np.float64]:
    """Return the edges of a column's histogram: the challenge's for its meshes, else from the reference."""
    rule = _CHALLENGE.get(column.observable) if detector.name in _CUTS else None
    return rule(column, detector) if rule is not None else general_edges(column.reference)
