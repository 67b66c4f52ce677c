"""Showers under the conditions that a card describes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import Showers


def showers_like(
    described: Mapping[str, Sequence[Mapping[str, Any]]], detector: Detector, n: int, seed: int = 0
) -> Showers:
    """Return ``n`` empty showers with conditions as :func:`caloforge.zoo.cards.describe_conditions` found them, for ``generate(like=...)``."""
    drawn = {}
    for name, columns in described.items():
        streams = [generator(seed, f"conditions/{name}", index) for index in range(len(columns))]
        drawn[name] = np.stack([_draw(c, rng, n) for c, rng in zip(columns, streams, strict=True)], axis=1)
    energy, theta = drawn.pop("incident_energy")[:, 0], drawn.pop("incident_theta", None)
    empty = np.zeros((n, detector.n_cells), np.float32)
    conditions = {name: values.astype(np.float32) for name, values in drawn.items()}
    return Showers(detector, empty, energy, None if theta is None else theta[:, 0], conditions)


def _draw(column: Mapping[str, Any], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    if "values" in column:
        counts = np.asarray(column["counts"], np.float64)
        return np.asarray(rng.choice(np.asarray(column["values"]), n, p=counts / counts.sum()), np.float64)
    quantiles = np.asarray(column["quantiles"], np.float64)
    return np.interp(rng.random(n), np.linspace(0.0, 1.0, len(quantiles)), quantiles)
