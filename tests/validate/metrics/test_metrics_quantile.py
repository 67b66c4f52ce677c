from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from toy_samples import toy_showers

from caloforge.errors import InputError, TooFewShowersError
from caloforge.validate.metrics import Settings, quantile
from caloforge.validate.metrics.quantile import (
    QuantileBins,
    QuantileDivergence,
    expected_divergence,
    jensen_shannon,
    quantile_divergence,
    quantiles_for,
)
from caloforge.validate.sample import Sample


def slow_counts(
    reference: np.ndarray, values: np.ndarray, levels: int, level: int = 0
) -> list[tuple[int, int]]:
    """Split at medians, dimensions in turn, by recursion."""
    if level == levels:
        return [(len(reference), len(values))]
    axis = level % reference.shape[1]
    cut = np.median(reference[:, axis])
    out = []
    for low in (True, False):
        a, b = (x[(x[:, axis] <= cut) == low] for x in (reference, values))
        out += slow_counts(a, b, levels, level + 1)
    return out


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_bins_are_those_of_recursive_medians(dimensions: int, levels: int) -> None:
    rng = np.random.default_rng(levels)
    a, b = rng.normal(size=(1024, dimensions)), rng.normal(size=(700, dimensions)) + 0.2
    bins = QuantileBins(a, 2**levels)
    slow = slow_counts(a, b, levels)
    assert sorted(zip(bins.counts, bins.count(b), strict=True)) == sorted(slow)
    assert (bins.counts == 1024 // 2**levels).all()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("n_quant", [2, 3, 7, 10, 100])
def test_any_number_of_bins_is_equally_filled(dimensions: int, n_quant: int) -> None:
    a = np.random.default_rng(1).normal(size=(2000, dimensions))
    bins = QuantileBins(a, n_quant)
    assert len(bins.counts) == n_quant
    assert bins.counts.sum() == 2000
    assert np.abs(bins.counts - 2000 / n_quant).max() <= 3
    np.testing.assert_array_equal(bins.count(a), bins.counts)


def test_divergence_is_scipys_distance_squared() -> None:
    rng = np.random.default_rng(2)
    p, g = rng.random(50), rng.random(50)
    p[3] = g[7] = 0.0
    assert jensen_shannon(p, g) == pytest.approx(jensenshannon(p, g) ** 2, rel=1e-9)
    assert jensen_shannon([1, 0], [0, 1]) == pytest.approx(np.log(2))
    assert jensen_shannon(p, p) == 0.0


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize(("n_quant", "n"), [(16, 400), (64, 1000)])
def test_sample_from_the_truth_gives_the_expected_divergence(dimensions: int, n_quant: int, n: int) -> None:
    rng = np.random.default_rng(3)
    bins = QuantileBins(rng.normal(size=(200_000, dimensions)), n_quant)
    d = [jensen_shannon(bins.counts, bins.count(rng.normal(size=(n, dimensions)))) for _ in range(200)]
    mean, error = np.mean(d), np.std(d) / np.sqrt(len(d))
    assert abs(mean - expected_divergence(n_quant, n)) < 4 * error + 0.05 * mean


def test_the_size_of_the_reference_counts_as_well() -> None:
    rng = np.random.default_rng(4)
    d = [quantile_divergence(rng.normal(size=500), rng.normal(size=500), 32) for _ in range(200)]
    assert np.mean(d) == pytest.approx(expected_divergence(32, 500, 500), rel=0.08)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_equal_values_stay_together(dimensions: int) -> None:
    rng = np.random.default_rng(5)
    a = rng.integers(0, 3, size=(600, dimensions)).astype(float)
    bins = QuantileBins(a, 8)
    assert bins.counts.sum() == 600
    np.testing.assert_array_equal(bins.count(a), bins.counts)
    assert (bins.counts > 0).sum() <= 3**dimensions
    constant = QuantileBins(np.ones((100, dimensions)), 4)
    assert (constant.counts > 0).sum() == 1
    assert jensen_shannon(constant.counts, constant.count(np.ones((50, dimensions)))) == 0.0
    assert jensen_shannon(constant.counts, constant.count(np.full((50, dimensions), 2.0))) == pytest.approx(
        np.log(2)
    )


def test_bad_input() -> None:
    with pytest.raises(TooFewShowersError, match="fewer than the 8 bins"):
        QuantileBins(np.arange(5.0), 8)
    with pytest.raises(InputError, match="at least 2"):
        QuantileBins(np.arange(5.0), 1)
    with pytest.raises(InputError, match="not finite"):
        QuantileBins(np.array([1.0, np.nan, 2.0]), 2)
    with pytest.raises(InputError, match="dimensions"):
        QuantileBins(np.zeros((4, 2)), 2).count(np.zeros((4, 3)))
    with pytest.raises(TooFewShowersError, match="64 bins need 640"):
        quantiles_for(500, 64)
    with pytest.raises(TooFewShowersError):
        quantiles_for(19)
    assert [quantiles_for(n) for n in (20, 100, 159, 160, 10_000, 10**6)] == [2, 8, 8, 16, 256, 256]


@pytest.mark.parametrize("n_quantiles", [None, 12])
def test_the_halves_of_the_floor_have_ten_showers_a_bin(
    monkeypatch: pytest.MonkeyPatch, n_quantiles: int | None
) -> None:
    showers_a_bin = []

    class Seen(QuantileBins):
        def __init__(self, reference: np.ndarray, n_quant: int) -> None:
            super().__init__(reference, n_quant)
            showers_a_bin.append(len(reference) / n_quant)

    monkeypatch.setattr(quantile, "QuantileBins", Seen)
    a, b = (Sample(toy_showers("atlas-em-barrel", 160, seed), str(seed)) for seed in (1, 2))
    settings = Settings(n_bootstrap=2, n_halves=2, n_quantiles=n_quantiles)
    entries = QuantileDivergence().compute(a, b, settings)["quantile_jsd"]
    assert min(showers_a_bin) >= 10
    value = entries["visible_energy"]
    assert value.detail["n_quantiles"] == (n_quantiles or 16)
    assert value.detail["floor_quantiles"] == 8


@pytest.mark.parametrize(("n", "dimensions"), [(160, 1), (160, 2), (319, 1), (40, 1)])
def test_the_floor_is_what_two_samples_of_the_truth_have(n: int, dimensions: int) -> None:
    rng = np.random.default_rng(n + dimensions)
    values, floors, errors = [], [], []
    for seed in range(120):
        a, b = rng.normal(size=(2, n, dimensions))
        found = quantile._compare(a, b, Settings(n_bootstrap=2, n_halves=5, seed=seed))
        values.append(found.value)
        floors.append(found.floor)
        errors.append(found.floor_uncertainty)
    error = np.hypot(np.std(values), np.std(floors)) / len(values) ** 0.5
    assert abs(np.mean(values) - np.mean(floors)) < 4 * error
    # the uncertainty of a floor is the spread of single comparisons; halves of one sample vary somewhat less
    assert 0.6 < np.mean(errors) / np.std(values) < 1.3


def test_too_few_showers_for_halves_have_no_floor() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    found = quantile._compare(a, b, Settings(n_bootstrap=2))
    assert found.floor is None
    assert found.value >= 0
