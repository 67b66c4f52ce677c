"""Energies of the layers, which are the longitudinal profile, and their fractions of the visible energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable, needs_layers
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["LAYER_ENERGY", "LAYER_FRACTION"]


def _energy(batch: ShowerBatch) -> NDArray[np.float64]:
    return batch.layer_energy


def _fraction(batch: ShowerBatch) -> NDArray[np.float64]:
    out = np.zeros_like(batch.layer_energy)
    np.divide(batch.layer_energy, batch.total[:, None], out=out, where=batch.filled[:, None])
    return out


LAYER_ENERGY = Observable("layer_energy", "layer energy", "MeV", _energy, "layer", rule=needs_layers(2))
LAYER_FRACTION = Observable(
    "layer_fraction", "layer energy / visible energy", "", _fraction, "layer", rule=needs_layers(2)
)
