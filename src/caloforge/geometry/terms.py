r"""A detector in the terms of shower theory: what each layer is to an electromagnetic shower, whatever it is made of.

Showers in different sampling calorimeters are alike where depths are counted in radiation lengths and distances from the axis in Moliere
radii; what is seen of them is the sampling fraction, in units of a minimum-ionising particle's energy. The terms of a layer
(:data:`TERMS`) follow from the slabs between the active slab before it and its own active slab, with their thicknesses x:

- depth of the layer's middle, in X0, of the stack in front;
- :math:`\ln \sum x/X_0`, the radiation lengths that it samples;
- :math:`\ln` of its sampling fraction, estimated as :func:`~caloforge.geometry.materials.active_over_passive` says;
- :math:`\ln` of the cell's size over the Moliere radius :math:`R_M = 21.2\,\mathrm{MeV}\,X_0/E_c` of the mean matter, gaps included;
- :math:`\ln(E_c/\mathrm{MeV})` of the mean matter;
- :math:`\ln` of the energy, MeV, that a minimum-ionising particle leaves in its active matter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import active_over_passive
from caloforge.geometry.readout import ReadoutLayer

__all__ = ["SCATTERING", "TERMS", "layer_terms"]

SCATTERING = 21.2  # MeV, of the Moliere radius
TERMS = (
    "depth",
    "radiation lengths",
    "sampling fraction",
    "cell size",
    "critical energy",
    "minimum-ionising energy",
)
"""What the terms are."""


def layer_terms(detector: Detector) -> NDArray[np.float64]:
    """Return the terms of each layer and, in the last row, of the whole detector (n_layers + 1, terms).

    Those of the whole are its depth in X0 and the means of the layers' others.

    Raises:
        IncompatibleError: When the stack is not known, or layers are not rows and columns of cells.
    """
    if not detector.stack or not detector.is_flat:
        raise IncompatibleError(
            f"detector '{detector.name}' has no terms for a model of several detectors; expected a stack of known plates with rows and columns of cells"
        )
    waiting: list[Slab] = []
    slabs: list[list[Slab]] = [[] for _ in range(detector.n_layers)]
    for slab in detector.stack:
        waiting.append(slab)
        if slab.active:
            slabs[slab.layer] += waiting
            waiting = []
    rows, depth = [], 0.0
    for layer, mine in zip(detector.layers, slabs, strict=True):
        assert isinstance(layer, ReadoutLayer)
        lengths = [slab.thickness / slab.material.x0 for slab in mine]
        sampled = sum(lengths)
        parts = zip(lengths, mine, strict=True)
        critical = sum(x * slab.material.critical_energy for x, slab in parts) / sampled
        radius = sum(slab.thickness for slab in mine) / sampled * SCATTERING / critical
        cell = math.sqrt(layer.pitch_x * layer.pitch_y)
        logs = sampled, _fraction(mine), cell / radius, critical, layer.mip
        rows.append([depth + sampled / 2, *map(math.log, logs)])
        depth += sampled
    table = np.array(rows)
    return np.concatenate([table, [[depth, *table[:, 1:].mean(0)]]])


def _fraction(slabs: list[Slab]) -> float:
    """Return the visible part of the energy that a shower deposits in some slabs."""
    active = [slab for slab in slabs if slab.active]
    passive = [(slab.material, slab.thickness / len(active)) for slab in slabs if not slab.active]
    first = active[0]
    visible = first.material.mip_energy(first.thickness) * active_over_passive(
        passive, first.material, first.thickness
    )
    return visible / (visible + sum(material.mip_energy(mm) for material, mm in passive))
