"""When two sets of showers are the same."""

from __future__ import annotations

import numpy as np

from caloforge.showers import Showers

__all__ = ["assert_same"]


def assert_same(left: Showers, right: Showers) -> None:
    """Every array bit by bit, and every fact."""
    assert left.detector == right.detector
    for name in ("cells", "incident_energy", "incident_theta"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype
    assert left.conditions.keys() == right.conditions.keys()
    for name, values in left.conditions.items():
        np.testing.assert_array_equal(values, right.conditions[name])
    for name in ("has_theta", "particle", "source", "seed", "attributes"):
        assert getattr(left, name) == getattr(right, name), name
