r"""Centres of gravity and moments about them.

.. math::
    \bar x = \frac{\sum_i E_i x_i}{\sum_i E_i}, \qquad
    m_k(x) = \frac{\sum_i E_i (x_i - \bar x)^k}{\sum_i E_i}, \quad k = 2, 3

over the cells' centres (moved by the detector's layer shift where its cells move); NaN for empty showers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.base import Observable, always, needs_layers
from caloforge.validate.observables.batch import ShowerBatch

__all__ = [
    "CENTRE_X",
    "CENTRE_Y",
    "CENTRE_Z",
    "SECOND_X",
    "SECOND_Y",
    "SECOND_Z",
    "THIRD_X",
    "THIRD_Y",
    "THIRD_Z",
]

_AXES = "xyz"
_RULES = (always, always, needs_layers(2))
_EMPTY = "empty showers"


def _centre(axis: int) -> Observable:
    def compute(batch: ShowerBatch) -> NDArray[np.float64]:
        return batch.centre[axis]

    name = _AXES[axis]
    return Observable(
        f"centre_{name}", f"centre of gravity in {name}", "mm", compute, missing=_EMPTY, rule=_RULES[axis]
    )


def _second(axis: int) -> Observable:
    def compute(batch: ShowerBatch) -> NDArray[np.float64]:
        return batch.covariance[:, axis, axis]

    return _moment(axis, 2, "second", compute)


def _third(axis: int) -> Observable:
    def compute(batch: ShowerBatch) -> NDArray[np.float64]:
        offset = batch.offsets[axis]
        return batch.mean(offset * offset * offset)

    return _moment(axis, 3, "third", compute)


def _moment(
    axis: int, order: int, ordinal: str, compute: Callable[[ShowerBatch], NDArray[np.float64]]
) -> Observable:
    name = _AXES[axis]
    label = f"{ordinal} central moment in {name}"
    return Observable(
        f"{ordinal}_moment_{name}", label, f"mm{order}", compute, missing=_EMPTY, rule=_RULES[axis]
    )


CENTRE_X, CENTRE_Y, CENTRE_Z = _centre(0), _centre(1), _centre(2)
SECOND_X, SECOND_Y, SECOND_Z = _second(0), _second(1), _second(2)
THIRD_X, THIRD_Y, THIRD_Z = _third(0), _third(1), _third(2)
