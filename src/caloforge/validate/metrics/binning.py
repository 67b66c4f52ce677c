"""Histogram bins: the CaloChallenge's for its observables, from the reference for all others.

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

The cut is the mesh's ``evaluation_cut``; the spectra of all other detectors begin at 0.1 MeV. A fixed range fits no other
detector, so that only the challenge's own meshes have these bins.

References:
    O. Amram et al., CaloChallenge 2022, arXiv:2410.21611; the ranges by layer are those of the challenge's public
    evaluation (github.com/CaloChallenge/homepage, code/evaluate_plotting_helper.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.validate.metrics.features import Column

__all__ = ["bin_edges", "general_edges", "log_edges", "lowest_energy"]

_Range = tuple[float, float]

_GENERAL_BINS = 50
_LOWEST = 0.1  # MeV
_BINS = 100
_SPARSITY_BINS = 20
_LAYER_ENERGY_BINS = 39
_REGULAR: dict[str, _Range] = {  # mm
    "layer_centre_x": (-30.0, 30.0),
    "layer_centre_y": (-30.0, 30.0),
    "layer_width_x": (0.0, 30.0),
    "layer_width_y": (0.0, 30.0),
    "layer_centre_r": (0.0, 42.0),
    "layer_width_r": (0.0, 20.0),
}
_ATLAS: dict[str, _Range] = {
    "layer_centre_x": (-100.0, 100.0),
    "layer_centre_y": (-100.0, 100.0),
    "layer_width_x": (0.0, 100.0),
    "layer_width_y": (0.0, 100.0),
    "layer_centre_r": (0.0, 500.0),
    "layer_width_r": (0.0, 500.0),
}
_IN_R: dict[str, _Range] = {"layer_centre_r": (0.0, 1500.0), "layer_width_r": (0.0, 1500.0)}
_IN_XY: dict[str, _Range] = {
    "layer_centre_x": (-500.0, 500.0),
    "layer_centre_y": (-500.0, 500.0),
    "layer_width_x": (0.0, 400.0),
    "layer_width_y": (0.0, 400.0),
}
_MESHES: dict[str, dict[str, _Range]] = {
    "calochallenge-1-photons": _ATLAS,
    "calochallenge-1-pions": _ATLAS,
    "calochallenge-2": _REGULAR,
    "calochallenge-3": _REGULAR,
}
_OF_LAYER: dict[
    str, dict[str, _Range]
] = {  # of the layer's name; data set 1 alone has layers 12 to 14 of these names
    "layer 12": {**_IN_XY, **_IN_R},
    "layer 13": {**_IN_XY, **_IN_R},
    "layer 14": _IN_R,
}


def lowest_energy(detector: Detector) -> float:
    """Return where spectra of cells and layers begin, MeV: the mesh's ``evaluation_cut``, else 0.1 MeV."""
    return detector.evaluation_cut or _LOWEST


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


def _lateral_range(column: Column, detector: Detector) -> _Range | None:
    """Return the challenge's range of a layer's centre or width, mm; None for other observables."""
    ranges = _MESHES[detector.name]
    if column.index is not None and ranges is _ATLAS:
        ranges = ranges | _OF_LAYER.get(detector.layers[column.index].name, {})
    return ranges.get(column.observable)


def bin_edges(column: Column, detector: Detector) -> NDArray[np.float64]:
    """Return the edges of a column's histogram: the challenge's for its meshes, else from the reference."""
    if detector.name not in _MESHES:
        return general_edges(column.reference)
    if column.observable == "response":
        return np.linspace(0.5, 1.5, _BINS + 1)
    if column.observable == "layer_energy":
        return log_edges(lowest_energy(detector), float(column.reference.max()), _LAYER_ENERGY_BINS)
    if column.observable == "layer_sparsity":
        return np.linspace(0.0, 1.0, _SPARSITY_BINS + 1)
    lateral = _lateral_range(column, detector)
    return general_edges(column.reference) if lateral is None else np.linspace(*lateral, _BINS + 1)
