r"""Energies of the whole shower: visible energy, response, the highest cell.

.. math:: E_{vis} = \sum_i E_i, \qquad R = \frac{E_{vis}}{f E_{inc}}, \qquad E_{peak} = \max_i E_i

with the detector's sampling fraction f, so that R is 1 on average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable
from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["PEAK_ENERGY", "RESPONSE", "VISIBLE_ENERGY"]


def _visible(batch: ShowerBatch) -> NDArray[np.float64]:
    return batch.total


def _response(batch: ShowerBatch) -> NDArray[np.float64]:
    return batch.total / (batch.detector.sampling_fraction * batch.showers.incident_energy)


def _peak(batch: ShowerBatch) -> NDArray[np.float64]:
    return batch.max(batch.energy)


VISIBLE_ENERGY = Observable("visible_energy", "visible energy", "MeV", _visible)
RESPONSE = Observable("response", "visible / (sampling fraction x incident energy)", "", _response)
PEAK_ENERGY = Observable("peak_energy", "highest cell energy", "MeV", _peak)
