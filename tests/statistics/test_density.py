from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, norm

from caloforge.errors import InputError, TooFewShowersError, UnknownNameError
from caloforge.statistics.density import ESTIMATORS, HistogramDensity, KernelDensity, folds

NAMES = ESTIMATORS.names()


def _normal(n: int, seed: int = 0, k: int = 2) -> NDArray[np.float64]:
    """Observables as of a shower: hundreds of MeV and a few mm, correlated."""
    y = np.random.default_rng(seed).normal(size=(n, k))
    y[:, -1] += 0.5 * y[:, 0]
    return y * np.geomspace(90.0, 1.0, k) + np.geomspace(1075.0, 1.0, k)


@pytest.mark.parametrize("name", NAMES)
def test_densities_integrate_to_one(name: str) -> None:
    values = _normal(300, k=1)
    estimator = ESTIMATORS[name]().fit(values)
    x = np.linspace(values.min() - 300, values.max() + 300, 5_001)
    assert np.trapezoid(np.exp(estimator.log_prob(x)), x) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(name: str) -> None:
    values = _normal(500)
    estimator = ESTIMATORS[name]().fit(values)
    drawn = estimator.sample(20_000, seed=1)
    assert drawn.shape == (20_000, 2)
    assert drawn.mean(0) == pytest.approx(values.mean(0), rel=0.03)
    assert drawn.std(0) == pytest.approx(values.std(0), rel=0.15)
    uniform = np.random.default_rng(0).uniform(drawn.min(0), drawn.max(0), size=(20_000, 2))
    inside = (drawn[:, 0] > 1100.0).mean()
    weights = np.exp(estimator.log_prob(uniform)) * np.prod(np.ptp(drawn, axis=0))
    assert inside == pytest.approx((weights * (uniform[:, 0] > 1100.0)).mean(), abs=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_counted(name: str) -> None:
    estimator = ESTIMATORS[name]().fit(_normal(100))
    whole = estimator.sample(50, seed=3)
    np.testing.assert_array_equal(estimator.sample(20, seed=3, start=30), whole[30:])
    assert not np.array_equal(estimator.sample(50, seed=4), whole)


@pytest.mark.parametrize("name", NAMES)
def test_more_showers_give_a_better_density(name: str) -> None:
    test = _normal(500, seed=9)
    scores = [ESTIMATORS[name]().fit(_normal(n, seed=1)).log_prob(test) for n in (50, 500)]
    floor = min(float(s[np.isfinite(s)].min()) for s in scores)
    small, large = (np.where(np.isfinite(s), s, floor).mean() for s in scores)
    assert large > small


@pytest.mark.parametrize("name", NAMES)
def test_bad_observables_are_refused(name: str) -> None:
    good = _normal(100)
    with pytest.raises(TooFewShowersError, match="at least 20"):
        ESTIMATORS[name]().fit(good[:10])
    bad = good.copy()
    bad[7, 1] = np.nan
    with pytest.raises(InputError, match="observable 1 of shower 7 is nan"):
        ESTIMATORS[name]().fit(bad)
    with pytest.raises(InputError, match=r"expected \(N, 2\)"):
        ESTIMATORS[name]().fit(good).log_prob(np.zeros((3, 5)))


def test_the_kernel_density_is_the_sum_of_kernels() -> None:
    values = _normal(60)
    estimator = KernelDensity().fit(values)
    test = _normal(5, seed=2)
    width = estimator.bandwidth * values.std(axis=0)
    slow = [np.mean([norm.pdf(t, v, width).prod() for v in values]) for t in test]
    np.testing.assert_allclose(np.exp(estimator.log_prob(test)), slow, rtol=1e-2)


def test_the_bandwidth_is_the_one_with_the_best_held_out_likelihood() -> None:
    values = _normal(80)
    estimator = KernelDensity(n_bandwidths=7).fit(values, seed=5)
    standard = (values - values.mean(0)) / values.std(0)
    grid = 80 ** (-1 / 6) * np.geomspace(0.1, 10, 7)
    scores = []
    for h in grid:
        score = 0.0
        for train, held in folds(80, 5, 5):
            for t in standard[held]:
                kernels = multivariate_normal.pdf(standard[train] - t, np.zeros(2), h * h)
                score += np.log(np.mean(kernels) + 1e-300)
        scores.append(score)
    assert estimator.bandwidth == pytest.approx(grid[int(np.argmax(scores))])


def test_the_histogram_is_counts_over_volume() -> None:
    values = _normal(200)
    estimator = HistogramDensity(bins=(6,)).fit(values)
    edges = [np.linspace(low, high, 7) for low, high in zip(values.min(0), values.max(0), strict=True)]
    counts, _ = np.histogramdd(values, bins=edges)
    volume = np.prod([e[1] - e[0] for e in edges])
    centres = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1).reshape(-1, 2)
    expected = (counts.ravel() + 1 / 36) / (201 * volume)
    np.testing.assert_allclose(np.exp(estimator.log_prob(centres)), expected, rtol=1e-9)
    assert estimator.log_prob([[0.0, 0.0]])[0] == -np.inf


def test_flat_observables_want_few_bins_and_peaks_want_many() -> None:
    rng = np.random.default_rng(0)
    flat = HistogramDensity().fit(rng.uniform(size=500))
    peaks = HistogramDensity().fit(np.concatenate([rng.normal(0, 0.002, 250), rng.normal(1, 0.002, 250)]))
    assert flat.n_bins <= 4
    assert peaks.n_bins >= 50


def test_folds_cover_every_shower_once() -> None:
    parts = folds(23, 5, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in parts])), np.arange(23))
    assert all(not set(train) & set(held) and len(train) + len(held) == 23 for train, held in parts)


def test_unknown_estimators_are_named() -> None:
    with pytest.raises(UnknownNameError, match="histogram"):
        _ = ESTIMATORS["spline"]
