r"""Terms of a detector: the properties of each layer that determine electromagnetic showers, independent of its materials.

Showers in different sampling calorimeters are alike where depths are counted in radiation lengths and distances from the axis in Moliere
radii; what is seen of them is the sampling fraction, in units of a minimum-ionising particle's energy. The terms of a layer
(:data:`TERMS`) follow from the slabs between the active slab before it and its own active slab, with their thicknesses x:

- depth of the layer's middle, in X0, of the stack in front;
- :math:`\ln \sum x/X_0`, the radiation lengths that it samples;
- :math:`\ln` of its sampling fraction, estimated as :func:`~caloforge.geometry.materials.active_over_passive` says;
- :math:`\ln` of the cell's size over the Moliere radius :math:`R_M = 21.2\,\mathrm{MeV}\,X_0/E_c` of the mean matter, gaps included;
- :math:`\ln(E_c/\mathrm{MeV})` of the mean matter;
- :math:`\ln` of the energy, MeV, that a minimum-ionising particle leaves in its active matter.

:func:`mean_profile` is what they say of the mean shower, by the Particle Data Group's gamma distribution of the depth: b = 0.5, the maximum at
:math:`T = \ln(E/E_c) - 0.5`, with the fluctuation of ln T of Grindhammer and Peters. It is a rule of thumb, from which Geant4's showers
differ smoothly.

References:
    Particle Data Group, Review of Particle Physics, Passage of particles through matter, section 34.5 (2024).
    G. Grindhammer, S. Peters, arXiv:hep-ex/0001020 (the width of ln T).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, ndtri

from caloforge.errors import IncompatibleError
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import active_over_passive
from caloforge.geometry.readout import ReadoutLayer

__all__ = ["SCATTERING", "TERMS", "layer_terms", "mean_profile"]

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


_RATE = 0.5  # b of the gamma distribution
_DRAWS = 16  # quantiles of ln T
_FAINTEST = 1e-6  # least share of a layer


def mean_profile(terms: NDArray[np.float64], energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what terms (n_layers + 1, terms) say of electrons' showers of some energies (n,), MeV.

    Returns:
        Mean logarithms of the layers' parts of the visible energy, and of that over the incident energy, (n, n_layers + 1).
    """
    depth, sampled, fraction = terms[:-1, 0], np.exp(terms[:-1, 1]), np.exp(terms[:-1, 2])
    edges = np.maximum(np.append(depth - sampled / 2, depth[-1] + sampled[-1] / 2), 0.0)
    scaled = np.log(np.asarray(energy) / math.exp(terms[-1, 4]))
    width = 1.0 / np.maximum(1.26 * scaled - 1.4, 1.0)
    normal = ndtri((np.arange(_DRAWS) + 0.5) / _DRAWS)
    top = np.maximum(scaled - 0.5, 0.5)[:, None] * np.exp(width[:, None] * normal)
    inside = gammainc(1.0 + _RATE * top[:, :, None], _RATE * edges)
    visible = np.diff(inside, axis=2) * fraction
    total = visible.sum(2, keepdims=True)
    share = np.log(np.maximum(visible / np.maximum(total, _FAINTEST), _FAINTEST)).mean(1)
    return np.concatenate([share, np.log(np.maximum(total[:, :, 0], _FAINTEST)).mean(1)[:, None]], axis=1)
