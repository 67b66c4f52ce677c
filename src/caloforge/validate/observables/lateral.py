r"""Lateral centre and width of each layer in x (eta), y (phi) and r, exactly as the CaloChallenge defines them.

.. math::
    C_l(x) = \frac{\sum x E}{\sum E + 10^{-16}}, \qquad
    W_l(x) = \sqrt{\max\left(0, \frac{\sum x^2 E}{\sum E + 10^{-16}} - C_l(x)^2\right)}

Voxels of a mesh have x = r cos(alpha) and y = r sin(alpha); a layer with a single angular bin lies at 0 in both.
r is a voxel's own radius, and for cells the distance from the nominal beam line at the layer's depth. Cells
that move with an alignment are taken where they are. Empty layers give 0 for centre and width.

References:
    C. Krause et al., CaloChallenge 2022, arXiv:2410.21611, section 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch

__all__ = [
    "LAYER_CENTRE_R",
    "LAYER_CENTRE_X",
    "LAYER_CENTRE_Y",
    "LAYER_WIDTH_R",
    "LAYER_WIDTH_X",
    "LAYER_WIDTH_Y",
]

_TINY = 1e-16  # MeV, the CaloChallenge's guard of empty layers


def _positions(batch: ShowerBatch, name: str) -> NDArray[np.float64]:
    return {"x": batch.x, "y": batch.y}[name] if name in "xy" else batch.beam_radius


def _centre_of(batch: ShowerBatch, name: str) -> NDArray[np.float64]:
    sums = {"x": batch.layer_ex, "y": batch.layer_ey}[name] if name in "xy" else batch.layer_er
    return sums / (batch.layer_energy + _TINY)


def _centre(name: str) -> Observable:
    def compute(batch: ShowerBatch) -> NDArray[np.float64]:
        return _centre_of(batch, name)

    return Observable(f"layer_centre_{name}", f"centre of the layer in {name}", "mm", compute, "layer")


def _width(name: str) -> Observable:
    def compute(batch: ShowerBatch) -> NDArray[np.float64]:
        position = _positions(batch, name)
        squares = batch.sum_layers(batch.energy * position * position) / (batch.layer_energy + _TINY)
        return np.sqrt(np.maximum(0.0, squares - _centre_of(batch, name) ** 2))

    return Observable(f"layer_width_{name}", f"width of the layer in {name}", "mm", compute, "layer")


LAYER_CENTRE_X, LAYER_CENTRE_Y, LAYER_CENTRE_R = _centre("x"), _centre("y"), _centre("r")
LAYER_WIDTH_X, LAYER_WIDTH_Y, LAYER_WIDTH_R = _width("x"), _width("y"), _width("r")
