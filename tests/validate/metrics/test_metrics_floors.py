"""Floors: what other samples of the same truth score, whatever the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.geometry import get_detector
from caloforge.statistics.resampling import floor_scale
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.features import Column
from caloforge.validate.metrics.separation import separation_of
from caloforge.validate.sample import Sample

METRICS = {  # metric to the keys whose entries are compared
    "separation_power": ("separation_power",),
    "distances": ("ks", "wasserstein"),
    "quantile_jsd": ("quantile_jsd",),
    "shape_mse": ("shape_mse",),
    "layer_fractions": ("layer_fractions",),
    "covariance_distance": ("covariance_distance",),
    "fpd": ("fpd",),
    "kpd": ("kpd",),
    "prdc": ("precision", "recall", "density", "coverage"),
}
KEYS = [key for keys in METRICS.values() for key in keys]
MANY = ("separation_power", "ks", "wasserstein", "quantile_jsd", "covariance_distance")  # well measured here
REFERENCE, REPEATS = 480, 6


def _pairs(entry: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Return value, floor and scale of an entry or of each of its parts, as far as they are known."""
    parts = [entry] if "value" in entry else list(entry.values())
    return [
        (part["value"], part["floor"], part["detail"].get("floor_scale", 1.0))
        for part in parts
        if part.get("floor") is not None and part["value"] is not None
    ]


@pytest.fixture(scope="module", params=[240, 1200], ids=["fewer generated", "more generated"])
def rows(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Key to value, floor, and what was measured between halves: (pairs of samples of one truth, 3), means over entries."""
    found: dict[str, list[np.ndarray]] = {key: [] for key in KEYS}
    settings = Settings(n_bootstrap=2, n_halves=4, device="cpu", neighbours=3, n_quantiles=8)
    for seed in range(REPEATS):
        reference = Sample(toy_showers("atlas-em-barrel", REFERENCE, 2 * seed), "reference")
        generated = Sample(toy_showers("atlas-em-barrel", request.param, 2 * seed + 1), "generated")
        result = compute_metrics(reference, generated, settings, METRICS)
        for key in KEYS:
            parts = [(value, floor, floor / scale) for value, floor, scale in _pairs(result[key])]
            found[key].append(np.mean(parts, axis=0))
    return {key: np.array(means) for key, means in found.items()}


@pytest.mark.parametrize("key", KEYS)
def test_the_floor_is_what_the_truth_scores(rows: dict[str, np.ndarray], key: str) -> None:
    value, floor, _ = rows[key].T
    error = np.std(value - floor, ddof=1) / len(value) ** 0.5
    assert abs((value - floor).mean()) < 0.1 * floor.mean() + 3.0 * error


@pytest.mark.parametrize("key", MANY)
def test_without_the_scale_it_would_not_be(rows: dict[str, np.ndarray], key: str) -> None:
    value, floor, between_halves = rows[key].mean(axis=0)
    assert abs(value / floor - 1.0) <= abs(value / between_halves - 1.0)


def test_bins_that_fill_up_only_in_larger_samples_are_reckoned_with() -> None:
    rng = np.random.default_rng(2)
    size = 400  # in heavy tails, so that many of the bins hold less than one entry
    values, with_growth, without = [], [], []
    for _ in range(30):
        a, b = rng.standard_t(3, size), rng.standard_t(3, size)
        column = Column("x", "x", a, b, {})
        found = separation_of([column], get_detector("ild-ecal"), Settings(n_bootstrap=2, n_halves=4))["x"]
        values.append(found.value)
        with_growth.append(found.floor)
        without.append(found.detail["floor_measured"] * floor_scale(size, size, size // 2, 2))
    assert np.mean(with_growth) == pytest.approx(np.mean(values), rel=0.06)
    assert np.mean(without) < 0.93 * np.mean(values)
