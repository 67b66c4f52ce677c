from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from caloforge.errors import TooFewShowersError
from caloforge.statistics import feature_distances as module
from caloforge.statistics.feature_distances import (
    Neighbourhoods,
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
    a, b = rng.normal(size=(8_000, 4)), rng.normal(size=(8_000, 4))
    b[:, 2] += d
    value, error = fpd(a, b)
    sampling = 2 * d * np.sqrt(2 / 8_000)
    assert abs(value - d**2) < 4 * np.hypot(sampling, error) + 2e-3
    assert fpd(a, b, seed=3) == fpd(a, b, seed=3)


def test_published_example() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50_000, 20))
    b = rng.normal(size=(50_000, 20)) + 0.05
    value, error = fpd(*normalise(a, b))
    exact = np.sum(0.05**2 / np.abs(a).max(axis=0) ** 2)
    assert 0 < error < 3e-4
    assert value == pytest.approx(exact, abs=6e-4)
    assert value == pytest.approx(0.00331, abs=6e-4)
    value, error = kpd(*normalise(a, b), batch=5000)  # as the published example
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
    monkeypatch.setattr(module, "_KERNEL_ROWS", rows)
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


def slow_prdc(a: NDArray[np.floating], b: NDArray[np.floating], k: int) -> dict[str, float]:
    """Return the four figures from the matrices of all distances."""

    def distances(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.linalg.norm(x[:, None] - y, axis=2)

    radius_a, radius_b = (np.sort(distances(x, x), axis=1)[:, k] for x in (a, b))
    apart = distances(a, b)
    inside = apart < radius_a[:, None]
    return {
        "precision": inside.any(axis=0).mean(),
        "recall": (apart < radius_b).any(axis=1).mean(),
        "density": inside.sum(axis=0).mean() / k,
        "coverage": (apart.min(axis=1) < radius_a).mean(),
    }


def prdc(a: NDArray[np.floating], b: NDArray[np.floating], k: int = 5) -> dict[str, float]:
    return {name: float(x.mean()) for name, x in Neighbourhoods(a, k).members(b).items()}


@pytest.mark.parametrize("shift", [0.0, 1.0, 50.0])
def test_precision_and_recall_are_their_definitions(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 37)  # several blocks, the last one short
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(150, 6)), rng.normal(size=(120, 6)) + shift
    assert prdc(a, b) == pytest.approx(slow_prdc(a, b, 5))


def test_disjoint_samples_give_zero_and_equal_ones_the_most() -> None:
    x = np.random.default_rng(1).normal(size=(100, 3))
    assert set(prdc(x, x + 100.0).values()) == {0.0}
    same = prdc(x, x)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0


def test_cells_that_are_never_hit_change_nothing() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 40, 5))
    wide_a, wide_b = (np.concatenate([x, np.zeros((40, 30))], axis=1) for x in (a, b))
    assert prdc(wide_a, wide_b) == pytest.approx(prdc(a, b))


def test_too_few_neighbours() -> None:
    for sizes in ((5, 50), (50, 5)):
        with pytest.raises(TooFewShowersError, match="k = 5"):
            prdc(*(np.zeros((n, 2)) for n in sizes))
