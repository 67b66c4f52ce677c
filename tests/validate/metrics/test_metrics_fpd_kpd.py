from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from caloforge.errors import TooFewShowersError
from caloforge.validate.metrics.frechet_kernel import (
    fpd,
    frechet_distance,
    intercept_at_zero,
    kpd,
    normalise,
    polynomial_mmd,
)


def test_frechet_distance_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(80, 5))
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    m1, m2 = x.mean(axis=0), y.mean(axis=0)
    slow = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(slow, rel=1e-9)
    assert frechet_distance(m1, c1, m1, c1) == pytest.approx(0.0, abs=1e-9)
    singular = np.diag([1.0, 0.0, 4.0])
    assert frechet_distance(np.zeros(3), singular, np.zeros(3), 4 * singular) == pytest.approx(5.0)


@pytest.mark.parametrize("d", [0.3, 1.0])
def test_a_shift_of_one_feature_gives_its_square(d: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(20_000, 4)), rng.normal(size=(20_000, 4))
    b[:, 2] += d
    value, error = fpd(a, b, normalised=False)
    sampling = 2 * d * np.sqrt(2 / 20_000)
    assert abs(value - d**2) < 4 * np.hypot(sampling, error) + 2e-3
    assert fpd(a, b, seed=3, normalised=False) == fpd(a, b, seed=3, normalised=False)


def test_published_example() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50_000, 20))
    b = rng.normal(size=(50_000, 20)) + 0.05
    value, error = fpd(a, b)
    exact = np.sum(0.05**2 / np.abs(a).max(axis=0) ** 2)
    assert 0 < error < 3e-4
    assert value == pytest.approx(exact, abs=6e-4)
    assert value == pytest.approx(0.00331, abs=6e-4)
    value, error = kpd(a, b, batch=5000)  # as the published example
    assert abs(value - 0.00057) < 3 * np.hypot(error, 0.00009)


def test_intercept_of_a_line() -> None:
    x = np.linspace(1e-5, 1e-4, 10)
    value, error = intercept_at_zero(x, 0.003 + 14.0 * x)
    assert value == pytest.approx(0.003)
    assert error == pytest.approx(0.0, abs=1e-12)
    assert intercept_at_zero(x, 14.0 * x - 1e-4)[0] == 0.0
    falling = 0.003 - 14.0 * x
    assert intercept_at_zero(x, falling)[0] == pytest.approx(falling.mean())


def test_features_are_divided_by_the_references_extremes() -> None:
    a, b = normalise(np.array([[1.0, 0.0], [-4.0, 0.0]]), np.array([[8.0, 3.0]]))
    np.testing.assert_allclose(a, [[0.25, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(b, [[2.0, 3.0]])


def slow_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1.0) ** 4)

    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


@pytest.mark.parametrize("rows", [1000, 5])
def test_mmd_is_the_double_sum(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caloforge.validate.metrics.frechet_kernel._ROWS", rows)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(17, 3)), rng.normal(size=(23, 3)) + 0.4
    assert polynomial_mmd(x, y) == pytest.approx(slow_mmd(x, y), rel=1e-9)


def test_mmd_of_equal_distributions_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    values = [polynomial_mmd(rng.normal(size=(100, 2)), rng.normal(size=(100, 2))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_too_few() -> None:
    few = np.zeros((10, 2))
    for metric in (fpd, kpd):
        with pytest.raises(TooFewShowersError, match="showers a side"):
            metric(few, few)
