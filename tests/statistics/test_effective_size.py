"""The estimators against what is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import norm

from caloforge.errors import TooFewShowersError
from caloforge.statistics.distances import quantile_divergence
from caloforge.statistics.effective_size import (
    DyadicBins,
    by_comparison,
    by_formula,
    deepest,
    divergence_error,
    fit_amplification,
    run_toy,
)


def normal_divergence(mean: float, deviation: float, n_quant: int) -> float:
    """Return the exact divergence of N(mean, deviation^2) from N(0, 1) in K quantiles of the latter."""
    p, edges = np.full(n_quant, 1.0 / n_quant), norm.ppf(np.arange(1, n_quant) / n_quant)
    g = np.diff(norm.cdf(edges, mean, deviation), prepend=0.0, append=1.0)
    return float(0.5 * (rel_entr(g, (g + p) / 2) + rel_entr(p, (g + p) / 2)).sum())


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_all_numbers_of_quantiles_at_once_are_those_one_by_one(dimensions: int) -> None:
    rng = np.random.default_rng(1)
    truth, sample = rng.normal(size=(3000, dimensions)), rng.normal(0.1, 1.1, size=(1000, dimensions))
    bins = DyadicBins(truth, 7)
    slow = [quantile_divergence(truth, sample, int(n_quant)) for n_quant in bins.quantiles]
    assert bins.compare(sample) == pytest.approx(slow, rel=1e-12)


def test_ten_showers_a_quantile() -> None:
    assert [2 ** deepest(n) for n in (20, 39, 40, 1000, 6250)] == [2, 2, 4, 64, 512]
    with pytest.raises(TooFewShowersError, match="at least 20"):
        deepest(19)


@given(st.integers(20, 10**6), st.integers(1, 9), st.floats(0.05, 20.0))
def test_formula_inverts_the_expected_divergence(n: int, power: int, scale: float) -> None:
    n_quant, n_truth = 2**power, 10_000
    expected = scale * (n_quant - 1) / 8 * (1 / n + 1 / n_truth)
    size = by_formula(expected, 1e-12 * expected, n_quant, n_truth, scale)
    assert size.value == pytest.approx(n, rel=1e-6)
    assert size.over(1000).value == pytest.approx(n / 1000, rel=1e-6)


def test_a_divergence_not_told_from_zero_is_a_lower_limit() -> None:
    n_quant, n_truth = 64, 5_000
    floor = (n_quant - 1) / 8 / n_truth
    error = divergence_error(floor, n_quant, 1e9, n_truth)
    size = by_formula(floor, error, n_quant, n_truth)
    assert size.value is None
    assert size.high is None
    assert size.low == pytest.approx((n_quant - 1) / (8 * 2 * error))


@pytest.mark.parametrize(("n", "truths"), [(1_000, 1), (20_000, 2)])
def test_error_of_the_divergence_is_its_spread(n: int, truths: int) -> None:
    n_truth, depth, found = 4_000, 6, []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        sample = rng.normal(0.05, 1.0, size=n)
        each = [DyadicBins(rng.normal(size=n_truth), depth).compare(sample)[-1] for _ in range(truths)]
        found.append(np.mean(each))
    error = divergence_error(float(np.mean(found)), 2**depth, n, n_truth, truths)
    assert np.std(found) == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("n", [500, 2_000, 20_000])
def test_a_sample_of_the_truth_gives_back_its_size(n: int) -> None:
    n_truth, found = 5_000, []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        found.append(DyadicBins(rng.normal(size=n_truth), 5).compare(rng.normal(size=n))[-1])
    mean, error = float(np.mean(found)), float(np.std(found) / np.sqrt(30))
    size = by_formula(mean, error, 32, n_truth)
    assert size.value is not None
    assert size.error is not None
    assert abs(1 / size.value - 1 / n) < 3.5 * size.error / size.value**2 + 0.03 / n


@settings(max_examples=50)
@given(st.floats(1_000, 50_000))
def test_comparison_interpolates_between_the_sizes(n: float) -> None:
    sizes = np.array([1_000, 5_000, 10_000, 50_000])
    found = by_comparison(1 / n, 1e-9, sizes, 1 / sizes, 1e-9 / sizes)
    assert found is not None
    assert found.value is None or found.value == pytest.approx(n, rel=1e-3)
    assert found.value is not None or n == pytest.approx(50_000, rel=1e-6)


def test_comparison_ends_with_the_sizes() -> None:
    sizes, curve = [1_000, 5_000], [8e-3, 2e-3]
    beyond = by_comparison(1e-3, 1e-4, sizes, curve, [1e-4, 1e-4])
    assert beyond is not None
    assert (beyond.value, beyond.low, beyond.high) == (None, 5_000, None)
    assert by_comparison(9e-3, 1e-4, sizes, curve, [1e-4, 1e-4]) is None
    assert by_comparison(9e-3, 1e-4, [], [], []) is None


def test_exact_divergence_of_a_shifted_gaussian() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=400_000)
    measured = quantile_divergence(truth, rng.normal(0.1, 1.05, size=400_000), 32)
    assert measured == pytest.approx(normal_divergence(0.1, 1.05, 32), abs=6e-5)
    assert normal_divergence(0.0, 1.0, 64) == pytest.approx(0.0, abs=1e-15)


def test_fit_of_a_gaussian_amplifies_as_its_closed_form_says() -> None:
    # Slow and exact: the mean divergence of many fits, without sampling noise.
    n_train, n_quant, rng = 1_000, 64, np.random.default_rng(2)
    fits = rng.normal(size=(400, n_train))
    exact = np.mean(
        [normal_divergence(m, s, n_quant) for m, s in zip(fits.mean(1), fits.std(1), strict=True)]
    )
    assert (n_quant - 1) / (8 * exact) / n_train == pytest.approx(fit_amplification(n_quant), rel=0.15)


def test_toy_finds_the_known_amplification_and_size() -> None:
    toy = run_toy(20_000, 1_000, seed=3)
    assert abs(toy.sample - toy.sample_size) < 3.5 * toy.sample_uncertainty + 0.03 * toy.sample_size
    clear = np.isfinite(toy.found) & (toy.quantiles >= 8) & (toy.quantiles <= 256)
    pulls = (toy.found[clear] - toy.known[clear]) / toy.uncertainty[clear]
    assert clear.sum() >= 5
    assert np.abs(pulls).max() < 3.5
    assert toy.known[clear][-1] > 5 * toy.known[clear][0]
