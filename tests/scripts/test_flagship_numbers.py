"""Differences to the baseline and their uncertainties."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


def test_the_uncertainty_of_a_difference_holds_for_splits_that_overlap() -> None:
    """Classifiers' differences as means over random fifths of the same showers: the error is right on average."""
    from flagship_numbers import difference

    rng = np.random.default_rng(3)
    n, k = 100, 10
    values, errors = [], []
    for _ in range(1500):
        showers = rng.normal(size=n)
        parts = [rng.permutation(n)[: n // 5] for _ in range(k)]
        networks = [float(showers[part].mean()) for part in parts]
        found = difference(_entry(networks), [_entry([0.0] * k)], "auc_low")
        values.append(found.value)
        errors.append(found.uncertainty)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.06)


def test_the_scatter_between_seeds_adds_to_a_difference() -> None:
    from flagship_numbers import difference

    baselines = [_entry([value] * 4) for value in (0.50, 0.52, 0.54)]
    found = difference(_entry([0.60] * 4), baselines, "auc_low")
    assert found.value == pytest.approx(0.08)
    assert found.uncertainty == pytest.approx(0.02 * np.sqrt(4 / 3))
    assert found.significant
    other = difference(_entry([0.55] * 3), baselines, "auc_low")  # not the same networks
    assert other.value == pytest.approx(0.03)
    assert not other.significant


def _entry(networks: list[float]) -> dict[str, Any]:
    value = {"value": float(np.mean(networks)), "uncertainty": 0.01, "networks": networks}
    return {"figures": {"auc_low": value}}
