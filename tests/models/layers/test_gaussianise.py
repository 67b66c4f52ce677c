"""Columns as standard normal numbers by their quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from caloforge.models.calibration.quantile_maps import Gaussianise

N = 20_000
KNOT = 0.05
"""Distance of two knots in z."""


def _uniform(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _columns() -> Tensor:
    """A lognormal, a uniform, and a column with gaps."""
    gap = torch.where(_uniform(N, seed=4) < 0.3, -5.0, 5.0) + 0.1 * _normal(N, seed=5)
    return torch.stack([torch.exp(_normal(N)), _uniform(N, seed=3), gap], 1)


def _fitted(values: Tensor) -> Gaussianise:
    table = Gaussianise(values.shape[1])
    table.fit(values)
    return table


def test_a_new_table_is_the_identity() -> None:
    z = _normal(100, 2)
    torch.testing.assert_close(Gaussianise(2)(z), z, rtol=0, atol=1e-5)
    torch.testing.assert_close(Gaussianise(2).inverse(z), z, rtol=0, atol=1e-5)


def test_what_comes_out_is_standard_normal() -> None:
    z = _fitted(_columns())(_columns())
    for column, most in zip(z.T, (0.005, 0.005, 0.02), strict=True):  # at a gap, a knot's probability
        assert stats.kstest(column.numpy(), "norm").statistic < most


def test_of_a_lognormal_it_is_the_logarithm() -> None:
    values = torch.exp(_normal(200_000))[:, None]
    x = torch.linspace(-2.5, 2.5, 101)[:, None]
    torch.testing.assert_close(_fitted(values)(torch.exp(x)), x, rtol=0, atol=0.05)


def test_it_is_numpys_interpolation_between_quantiles() -> None:
    """The slow way: np.interp on the table, column by column."""
    values = _columns()
    table = _fitted(values)
    knots = np.arange(-80, 81) * KNOT
    z = table(values)
    for index in range(values.shape[1]):
        q, x = table.quantiles[index].double().numpy(), values[:, index].double().numpy()
        inside = (x > q[0]) & (x < q[-1])
        slow = np.interp(x[inside], q, knots)
        np.testing.assert_allclose(z[inside, index].numpy(), slow, atol=2e-3)
        expected = np.quantile(x, stats.norm.cdf(knots))
        np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-5)


def test_back_and_forth_is_the_identity() -> None:
    values = _columns()
    table = _fitted(values)
    torch.testing.assert_close(table.inverse(table(values)), values, rtol=1e-4, atol=1e-4)
    z = _normal(500, 3, seed=7).clamp(-3.5, 3.5)
    torch.testing.assert_close(table(table.inverse(z))[:, :2], z[:, :2], rtol=0, atol=5e-3)


def test_shapes_are_kept() -> None:
    table = _fitted(_columns())
    values = _columns()[:24]
    nested = table(values.view(2, 3, 4, 3))
    assert nested.shape == (2, 3, 4, 3)
    assert torch.equal(nested.view(24, 3), table(values))
    assert torch.equal(table.inverse(nested).view(24, 3), table.inverse(table(values)))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_frequent_value_is_spread_over_its_probability(part: float) -> None:
    values = torch.where(_uniform(N, 1, seed=8) < part, 0.0, 1.0 + _uniform(N, 1, seed=9))
    table = _fitted(values)
    z = table(values, _uniform(N, 1))
    assert stats.kstest(z[:, 0].numpy(), "norm").statistic < 0.02  # a knot's probability
    tied = values[:, 0] == 0
    edge = stats.norm.ppf(float(tied.float().mean()))
    assert float(z[tied].max()) < edge + KNOT
    assert float(z[~tied].min()) > edge - KNOT
    level = stats.norm.cdf(z[tied, 0].numpy()) / stats.norm.cdf(float(z[tied].max()))
    assert stats.kstest(level, "uniform").pvalue > 1e-3
    torch.testing.assert_close(table.inverse(z), values, rtol=0, atol=5e-5)


def test_without_numbers_a_frequent_value_is_put_in_its_middle() -> None:
    values = torch.where(_uniform(N, 1, seed=8) < 0.5, 0.0, 1.0 + _uniform(N, 1, seed=9))
    z = _fitted(values)(torch.zeros(1, 1))
    assert float(z) == pytest.approx(stats.norm.ppf(0.25), abs=0.03)


def test_a_constant_column_stays_finite_and_comes_back() -> None:
    values = torch.full((100, 1), 3.0)
    table = _fitted(values)
    z = table(values, _uniform(100, 1))
    assert torch.isfinite(z).all()
    assert stats.kstest(z[:, 0].numpy(), "norm").pvalue > 1e-3
    torch.testing.assert_close(table.inverse(z), values)


def test_beyond_the_ends_it_goes_on_along_the_outer_slope() -> None:
    values = 2.0 + 3.0 * _uniform(N, 1)
    table = _fitted(values)
    q = table.quantiles[0]
    slope = float(q[-1] - q[-11]) / (10 * KNOT)
    far = q[-1] + slope * torch.tensor([0.5, 1.0, 2.0])
    z = table(far[:, None])[:, 0]
    torch.testing.assert_close(z, torch.tensor([4.5, 5.0, 6.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(table.inverse(z[:, None])[:, 0], far, rtol=1e-4, atol=1e-4)
    low = float(q[10] - q[0]) / (10 * KNOT)
    assert float(table.inverse(torch.full((1, 1), -5.0))) == pytest.approx(float(q[0]) - low, rel=1e-4)
    everywhere = torch.linspace(-7, 7, 400)[:, None]
    assert (table.inverse(everywhere).diff(dim=0) >= 0).all()
