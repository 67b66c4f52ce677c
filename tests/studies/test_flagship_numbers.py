"""Differences to the baseline and their uncertainties."""

from typing import Any

import numpy as np
import pytest


def test_the_uncertainty_of_a_difference_holds_for_splits_that_overlap() -> None:
    """Classifiers' differences as means over random fifths of the same showers: the error is right on average."""
    from caloforge.studies.flagship.measure import difference

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
    from caloforge.studies.flagship.measure import difference

    baselines = [_entry([value] * 4) for value in (0.50, 0.52, 0.54)]
    found = difference(_entry([0.60] * 4), baselines, "auc_low")
    assert found.value == pytest.approx(0.08)
    assert found.uncertainty == pytest.approx(0.02 * np.sqrt(4 / 3))
    assert found.significant
    other = difference(_entry([0.55] * 3), baselines, "auc_low")  # not the same networks
    assert other.value == pytest.approx(0.03)
    assert not other.significant


def test_a_student_is_compared_with_its_teacher_of_most_steps() -> None:
    from caloforge.studies.flagship.measure import losses, losses_of_students

    def made(series: str, kind: str, steps: int, shift: float) -> dict[str, Any]:
        values = _entry([0.5 + shift, 0.56 + shift])["figures"]["auc_low"]
        figures = {"auc_high": values, "auc_low": {**values, "networks": [0.5, 0.56 + 2 * shift]}}
        return {"series": series, "title": series, "kind": kind, "steps": steps, "figures": figures}

    entries = {
        "a": made("a", "student", 4, 0.02),
        "a@16": made("a", "teacher", 16, 0.0),
        "a@2": made("a", "teacher", 2, 0.3),
        "b": made("b", "student", 4, 0.0),  # its teacher was not measured
    }
    found = losses(entries)
    assert list(found) == ["a"]
    high, low = found["a"]
    assert (high.value, high.uncertainty) == pytest.approx((0.02, 0.0))
    scatter = np.std([0.0, 0.04], ddof=1)
    assert (low.value, low.uncertainty) == pytest.approx((0.02, scatter * np.sqrt(0.5 + 0.25)))
    (line,) = losses_of_students(entries)
    assert line.startswith("a above its teacher: AUC +0.020 ± 0.000 on observables, +0.020 ± 0.024 on cells")


def _entry(networks: list[float]) -> dict[str, Any]:
    value = {"value": float(np.mean(networks)), "uncertainty": 0.01, "networks": networks}
    return {"figures": {"auc_low": value}}
