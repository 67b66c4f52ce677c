"""A small detector and showers of it, for all tests of this part."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from caloforge.geometry import Detector, detector_from_definition
from caloforge.showers import Showers

Make = Callable[..., Showers]


@pytest.fixture(scope="session")
def toy() -> Detector:
    """A user's detector of 3 x 4 cells in 5 layers."""
    layer = {"repeat": 5, "absorber": "G4_W", "absorber_mm": 3, "active": "G4_Si", "active_mm": 0.5}
    return detector_from_definition(
        json.dumps({"name": "toy", "nx": 3, "ny": 4, "pitch": 5, "layers": [layer]})
    )


@pytest.fixture(scope="session")
def make(toy: Detector) -> Make:
    """Return a function that makes n sparse showers with everything set; every cell tells its shower and place."""

    def showers(n: int, seed: int = 0, **changes: object) -> Showers:
        rng = np.random.default_rng(seed)
        cells = rng.exponential(10, (n, toy.n_cells)) * (rng.random((n, toy.n_cells)) < 0.4)
        fields = {
            "detector": toy,
            "cells": cells,
            "incident_energy": rng.uniform(1e3, 1e5, n),
            "incident_theta": rng.uniform(30, 90, n),
            "conditions": {"impact": rng.normal(size=(n, 2)), "alignment": rng.integers(0, 4, n)},
            "particle": "gamma",
            "source": "test",
            "seed": 7,
            "attributes": {"physics_list": "one", "cpu_seconds_per_shower": 0.25},
        }
        return Showers(**(fields | changes))  # type: ignore[arg-type]

    return showers
