"""Constants of the reconstruction: the energy of a MIP, and how much each layer's energy counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.showers import ShowerSource
from caloforge.validate.observables.spectrum import mip_peak
from caloforge.validate.observables.streaming import observe

__all__ = ["layer_weights", "mip_energies"]

_MIP_SHOWERS = 1000  # showers from which the MIP peak is measured where the detector does not give it


def mip_energies(source: ShowerSource) -> NDArray[np.float64]:
    """Return the energy of a MIP in each layer (n_layers,), MeV.

    It is the mean energy loss in the layer's active material where the detector knows it, and otherwise the MIP peak
    of the cell spectrum of the first thousand showers, the same for all layers.

    Raises:
        InputError: When the detector does not know it and the spectrum has no peak.
    """
    detector = source.detector
    known = np.array([layer.mip for layer in detector.layers], np.float64)
    if (known > 0).all():
        return known
    table = observe(source[:_MIP_SHOWERS], ["cell_spectrum"], cut=0.0)  # the edge of a cut is no peak
    peak = mip_peak(table.histograms["cell_spectrum"].counts)
    if not np.isfinite(peak):
        msg = f"'{detector.name}' has no known MIP energy and its cell spectrum no MIP peak; give the energy of a MIP"
        raise InputError(msg)
    return np.full(detector.n_layers, peak)


def layer_weights(detector: Detector, mip: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of each layer's energy (n_layers,): radiation lengths for each MIP, over the median.

    The radiation lengths of a layer are those of its active slabs and of the slabs before each of them. Without a known
    stack all weights are 1.

    Arguments:
        detector: The detector.
        mip: (n_layers,) MeV.
    """
    if not detector.stack:
        return np.ones(detector.n_layers)
    sampled, waiting = np.zeros(detector.n_layers), 0.0
    for slab in detector.stack:
        waiting += slab.thickness / slab.material.x0
        if slab.active:
            sampled[slab.layer] += waiting
            waiting = 0.0
    weights = sampled / mip
    return weights / np.median(weights)
