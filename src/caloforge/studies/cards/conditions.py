"""The conditions under which a card was measured, so that showers like those of the card can be generated again.

Each column of the energy, the angle and the named conditions is described by its values and their numbers where there are at
most 32 of them, else by 41 quantiles between which it is drawn uniformly. Columns are drawn independently, as beams draw
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import Showers, ShowerSource

__all__ = ["describe_conditions", "showers_like"]

_MOST_VALUES = 32
_QUANTILES = 41
_ENERGY, _THETA = "incident_energy", "incident_theta"


def describe_conditions(source: ShowerSource) -> dict[str, list[dict[str, Any]]]:
    """Return, by condition, a description of each of its columns.

    Arguments:
        source: The showers; angles are described where they have any.

    Returns:
        ``incident_energy`` (MeV), ``incident_theta`` (degrees) and the named conditions, each a list of
        ``{"values", "counts"}`` or ``{"quantiles"}``.
    """
    found: dict[str, NDArray[Any]] = {_ENERGY: source.incident_energy}
    if source.has_theta:
        found[_THETA] = source.incident_theta
    found |= {name: source.condition(name) for name in source.condition_names}
    return {
        name: [_describe(column) for column in np.asarray(values, np.float64).reshape(len(source), -1).T]
        for name, values in found.items()
    }


def _describe(column: NDArray[np.float64]) -> dict[str, Any]:
    values, counts = np.unique(column, return_counts=True)
    if len(values) <= _MOST_VALUES:
        return {"values": values.tolist(), "counts": counts.tolist()}
    quantiles = np.quantile(column, np.linspace(0.0, 1.0, _QUANTILES))
    return {"quantiles": [float(f"{value:.7g}") for value in quantiles]}


def showers_like(
    described: Mapping[str, Sequence[Mapping[str, Any]]], detector: Detector, n: int, seed: int = 0
) -> Showers:
    """Return empty showers whose conditions are distributed as described, for ``generate(like=...)``.

    Arguments:
        described: What :func:`describe_conditions` returned.
        detector: The detector.
        n: Number of showers.
        seed: Seed of the draws.
    """
    drawn = {
        name: np.stack(
            [
                _draw(column, generator(seed, f"conditions/{name}", index), n)
                for index, column in enumerate(columns)
            ],
            axis=1,
        )
        for name, columns in described.items()
    }
    energy, theta = drawn.pop(_ENERGY)[:, 0], drawn.pop(_THETA, None)
    empty = np.zeros((n, detector.n_cells), np.float32)
    conditions = {name: values.astype(np.float32) for name, values in drawn.items()}
    return Showers(detector, empty, energy, None if theta is None else theta[:, 0], conditions)


def _draw(column: Mapping[str, Any], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    if "values" in column:
        counts = np.asarray(column["counts"], np.float64)
        return np.asarray(rng.choice(np.asarray(column["values"]), n, p=counts / counts.sum()), np.float64)
    quantiles = np.asarray(column["quantiles"], np.float64)
    return np.interp(rng.random(n), np.linspace(0.0, 1.0, len(quantiles)), quantiles)
