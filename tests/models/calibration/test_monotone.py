"""Monotone maps: standard normal numbers, quantile mapping by group and class, and values of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from caloforge.models.calibration.monotone import (
    Labelled,
    MonotoneMap,
    energy_groups,
    normal_levels,
    quantiles,
    smooth_quantiles,
)

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


def _normalising(columns: int) -> MonotoneMap:
    return MonotoneMap(columns, 161, 4.0, even="y", beyond=None)


def _fitted(values: Tensor) -> MonotoneMap:
    table = _normalising(values.shape[1])
    for column in range(values.shape[1]):
        table.fit_normal(values[:, column], column)
    return table


def test_quantiles_are_numpys() -> None:
    values = torch.randn(37, 3, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    expected = np.quantile(values.double().numpy(), levels.numpy(), axis=0)
    np.testing.assert_allclose(quantiles(values, levels).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(quantiles(values[:, 0], levels).numpy(), expected[:, 0], rtol=1e-12)
    assert quantiles(torch.tensor([2.5]), levels[:3]).tolist() == [2.5, 2.5, 2.5]


def test_a_new_table_is_the_identity() -> None:
    z = _normal(100, 2)
    torch.testing.assert_close(_normalising(2)(z), z, rtol=0, atol=1e-5)
    torch.testing.assert_close(_normalising(2).inverse(z), z, rtol=0, atol=1e-5)


def test_what_comes_out_is_standard_normal() -> None:
    z = _fitted(_columns())(_columns())
    for column, most in zip(z.T, (0.005, 0.005, 0.02), strict=True):  # at a gap, a knot's probability
        assert stats.kstest(column.numpy(), "norm").statistic < most


def test_of_a_lognormal_it_is_the_logarithm() -> None:
    values = torch.exp(_normal(200_000))[:, None]
    x = torch.linspace(-2.5, 2.5, 101)[:, None]
    torch.testing.assert_close(_fitted(values)(torch.exp(x)), x, rtol=0, atol=0.05)


def test_it_is_numpys_interpolation_between_knots() -> None:
    """The slow way: np.interp on the table, column by column."""
    values = _columns()
    table = _fitted(values)
    z = table(values)
    for index in range(values.shape[1]):
        q, x = table.x[0, 0, index].double().numpy(), values[:, index].double().numpy()
        inside = (x > q[0]) & (x < q[-1])
        slow = np.interp(x[inside], q, np.arange(-80, 81) * KNOT)
        np.testing.assert_allclose(z[inside, index].numpy(), slow, atol=2e-3)


def _gap(n: int, seed: int) -> Tensor:
    return torch.where(_uniform(n, seed=seed) < 0.3, -5.0, 5.0) + 0.1 * _normal(n, seed=seed + 1)


@pytest.mark.parametrize(
    ("draw", "gain"),
    [
        (lambda n, seed: _normal(n, seed=seed), 0.8),
        (lambda n, seed: torch.exp(0.3 * _normal(n, seed=seed)), 0.9),
        (lambda n, seed: _normal(n, seed=seed) - 0.4 * torch.log(_uniform(n, seed=seed + 9)), 0.9),
        (lambda n, seed: _uniform(n, seed=seed), 1.0),
        (_gap, 1.3),
    ],
    ids=["normal", "lognormal", "leaking", "uniform", "gap"],
)
@pytest.mark.parametrize("n", [400, 3000])
def test_tables_are_nearer_to_the_truth_than_the_samples_quantiles(draw, gain: float, n: int) -> None:
    """Of distributions without structure the noise of quantiles is averaged; edges and gaps are not spoilt."""
    levels = normal_levels(161, 4.0)
    truth = quantiles(draw(400_000, 1), levels)
    weight = torch.exp(-0.5 * torch.linspace(-4.0, 4.0, 161).double().square())
    error = torch.zeros(2, dtype=torch.float64)
    for seed in range(100, 112):
        values = draw(n, seed)
        for which, table in enumerate((quantiles(values, levels), smooth_quantiles(values, 161, 4.0))):
            assert (table.diff() >= 0).all()
            error[which] += (weight * (table - truth).square()).sum()
    assert error[1] < gain * error[0]


def test_two_halves_of_a_sample_give_tables_that_agree_better_than_their_quantiles() -> None:
    """The fluctuations of the training showers are what differs between the halves."""
    levels = normal_levels(161, 4.0)
    weight = torch.exp(-0.5 * torch.linspace(-4.0, 4.0, 161).double().square())
    distance = torch.zeros(2, dtype=torch.float64)
    for seed in range(8):
        values = torch.exp(0.2 * _normal(1200, seed=seed))
        for which in range(2):
            one, other = (
                (quantiles(half, levels), smooth_quantiles(half, 161, 4.0))[which] for half in values.chunk(2)
            )
            shape = (one - one[80]) - (other - other[80])  # apart from the halves' medians
            distance[which] += (weight * shape.square()).sum()
    assert distance[1] < 0.8 * distance[0]


def test_back_and_forth_is_the_identity() -> None:
    values = _columns()
    table = _fitted(values)
    torch.testing.assert_close(table.inverse(table(values)), values, rtol=1e-4, atol=1e-4)
    z = _normal(500, 3, seed=7).clamp(-3.5, 3.5)
    torch.testing.assert_close(table(table.inverse(z))[:, :2], z[:, :2], rtol=0, atol=5e-3)


def test_many_values_a_column_are_mapped_like_one() -> None:
    table = _fitted(_columns())
    values = _columns()[:24].view(2, 4, 3, 3)
    many = table(values.permute(0, 3, 1, 2).reshape(2, 3, 12))
    assert torch.equal(many.transpose(1, 2).reshape(24, 3), table(values.reshape(24, 3)))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_frequent_value_is_spread_over_its_probability(part: float) -> None:
    values = torch.where(_uniform(N, 1, seed=8) < part, 0.0, 1.0 + _uniform(N, 1, seed=9))
    table = _fitted(values)
    z = table(values, uniform=_uniform(N, 1))
    assert stats.kstest(z[:, 0].numpy(), "norm").statistic < 0.02  # a knot's probability
    tied = values[:, 0] == 0
    edge = stats.norm.ppf(float(tied.float().mean()))
    assert float(z[tied].max()) < edge + KNOT
    assert float(z[~tied].min()) > edge - KNOT
    level = stats.norm.cdf(z[tied, 0].numpy()) / stats.norm.cdf(float(z[tied].max()))
    assert stats.kstest(level, "uniform").pvalue > 1e-3
    torch.testing.assert_close(table.inverse(z), values, rtol=0, atol=5e-5)


def test_a_constant_column_stays_finite_and_comes_back() -> None:
    values = torch.full((100, 1), 3.0)
    table = _fitted(values)
    z = table(values, uniform=_uniform(100, 1))
    assert torch.isfinite(z).all()
    assert stats.kstest(z[:, 0].numpy(), "norm").pvalue > 1e-3
    torch.testing.assert_close(table.inverse(z), values)


def test_beyond_the_ends_it_goes_on_along_the_outer_slope() -> None:
    values = 2.0 + 3.0 * _uniform(N, 1)
    table = _fitted(values)
    q = table.x[0, 0, 0]
    slope = float(q[-1] - q[-11]) / (10 * KNOT)
    far = q[-1] + slope * torch.tensor([0.5, 1.0, 2.0])
    z = table(far[:, None])[:, 0]
    torch.testing.assert_close(z, torch.tensor([4.5, 5.0, 6.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(table.inverse(z[:, None])[:, 0], far, rtol=1e-4, atol=1e-4)
    low = float(q[10] - q[0]) / (10 * KNOT)
    assert float(table.inverse(torch.full((1, 1), -5.0))) == pytest.approx(float(q[0]) - low, rel=1e-4)
    everywhere = torch.linspace(-7, 7, 400)[:, None]
    assert (table.inverse(everywhere).diff(dim=0) >= 0).all()


ENERGIES = torch.tensor([1e3, 4e3, 16e3])


def _sample(n: int, seed: int, shift: float, width: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two numbers (n, 2) whose place depends on energy and class, energies (n,) and classes (n,)."""
    rng = torch.Generator().manual_seed(seed)
    energy = ENERGIES[torch.arange(n) % 3]
    kind = torch.arange(n) // 3 % 2
    base = torch.log(energy)[:, None] + kind[:, None]
    return base + shift + width * torch.randn(n, 2, generator=rng), energy, kind


def _mapping(size: int) -> MonotoneMap:
    return MonotoneMap(size, 41, 3.0, ends=True)


def _grouped(classes: int = 2) -> MonotoneMap:
    tables = _mapping(2)
    true, energy, kind = _sample(12_000, 0, 0.0, 1.0)
    made, made_energy, made_kind = _sample(12_000, 1, 0.7, 0.5)
    group, position = energy_groups(energy)
    made_group, _ = energy_groups(made_energy)
    tables.fit_groups(position, Labelled(made, made_group, made_kind), Labelled(true, group, kind), classes)
    return tables


def test_numbers_take_the_true_distribution_of_their_energy_and_class() -> None:
    tables = _grouped()
    made, energy, kind = _sample(9_000, 2, 0.7, 0.5)
    true, _, _ = _sample(9_000, 3, 0.0, 1.0)
    mapped = tables(made, torch.log(energy), kind)
    for e in ENERGIES:
        for k in range(2):
            mine = (energy == e) & (kind == k)
            assert mapped[mine].mean().item() == pytest.approx(true[mine].mean().item(), abs=0.1)
            assert mapped[mine].std().item() == pytest.approx(1.0, abs=0.08)


def test_the_map_rises_and_stops_at_the_ends() -> None:
    tables = _grouped()
    line = torch.linspace(-5.0, 25.0, 400)[:, None].expand(-1, 2)
    mapped = tables(line, torch.full((400,), math.log(4e3)), torch.ones(400, dtype=torch.int64))
    assert (mapped.diff(dim=0) >= 0).all()
    ends = tables.y[1, 1, :, [0, -1]]
    torch.testing.assert_close(mapped[[0, -1]].T, ends)


def test_grouped_tables_are_numpys_quantiles() -> None:
    tables = _grouped()
    true, energy, kind = _sample(12_000, 0, 0.0, 1.0)
    mine = true[(energy == ENERGIES[2]) & (kind == 1)].double().numpy()
    slow = np.quantile(mine, normal_levels(41, 3.0, ends=True).numpy(), axis=0).T
    np.testing.assert_allclose(tables.y[2, 1].numpy(), slow, rtol=1e-5)


def test_between_two_energies_tables_are_interpolated_in_the_logarithm() -> None:
    tables = _grouped()
    at = torch.full((1,), math.log(math.sqrt(1e3 * 4e3)))
    made, truth = tables.tables(at, torch.float32)
    torch.testing.assert_close(made, tables.x[:2, 0].mean(0))
    torch.testing.assert_close(truth, tables.y[:2, 0].mean(0))


def test_frequent_zeros_stay_zero_and_become_more_frequent_where_they_should() -> None:
    rng = torch.Generator().manual_seed(4)
    true = torch.relu(torch.randn(6_000, 1, generator=rng) - 1.0)
    made = torch.relu(torch.randn(6_000, 1, generator=rng) + 0.3)
    none = torch.zeros(6_000, dtype=torch.int64)
    tables = _mapping(1)
    tables.fit_groups(torch.zeros(1), Labelled(made, none, none), Labelled(true, none, none))
    mapped = tables(made)
    assert (mapped[made == 0] == 0).all()
    parts = [(x == 0).float().mean().item() for x in (true, mapped)]
    assert parts[1] == pytest.approx(parts[0], abs=0.02)


def test_a_class_without_showers_takes_its_group_s_tables() -> None:
    tables = _grouped(classes=3)
    true, energy, _ = _sample(12_000, 0, 0.0, 1.0)
    mine = true[energy == ENERGIES[0]].double().numpy()
    slow = np.quantile(mine, normal_levels(41, 3.0, ends=True).numpy(), axis=0).T
    np.testing.assert_allclose(tables.y[0, 2].numpy(), slow, rtol=1e-4, atol=1e-5)


def test_groups_are_energies_where_there_are_few_and_equal_parts_else() -> None:
    few, centres = energy_groups(torch.tensor([5.0, 1.0, 5.0, 2.0]))
    assert few.tolist() == [2, 0, 2, 1]
    torch.testing.assert_close(centres, torch.log(torch.tensor([1.0, 2.0, 5.0])))
    many, centres = energy_groups(torch.linspace(1.0, 100.0, 1000))
    assert len(centres) == 9
    assert np.bincount(many.numpy()).tolist() == [112, 111, 111, 111, 111, 111, 111, 111, 111]
    assert (centres.diff() > 0).all()


def _draw(n: int, seed: int) -> Tensor:
    return _normal(n, seed=seed)


def test_the_models_values_get_the_true_distribution_and_keep_their_order() -> None:
    table = MonotoneMap(2, 65, 3.5, beyond=1.0)
    table.fit_column(1, 0.3 * _draw(20_000, 1) - 0.5, torch.exp(_draw(20_000, 2)))
    values = (0.3 * _draw(4_000, 3) - 0.5).view(400, 1, 10).repeat(1, 2, 1)
    found = table(values)
    torch.testing.assert_close(found[:, 0], values[:, 0], rtol=1e-5, atol=1e-5)  # no table of this layer
    mapped = found[:, 1].flatten()
    assert stats.kstest(mapped.numpy(), "lognorm", args=(1.0,)).statistic < 0.03
    order = values[:, 1].flatten().argsort()
    assert (mapped[order].diff() >= 0).all()


def test_beyond_the_ends_the_ends_change_is_added() -> None:
    table = MonotoneMap(1, 65, 3.5, beyond=1.0)
    table.fit_column(0, torch.linspace(0, 1, 1001), torch.linspace(2, 4, 1001))
    found = table(torch.tensor([[[-3.0, 5.0]]]))[0, 0]
    torch.testing.assert_close(found, torch.tensor([-1.0, 8.0]), rtol=0, atol=0.01)


def test_equal_values_do_no_harm() -> None:
    table = MonotoneMap(1, 65, 3.5, beyond=1.0)
    table.fit_column(0, torch.zeros(500), torch.ones(500))
    found = table(torch.tensor([[[0.0, 0.5, -0.5]]]))[0, 0]
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5, 0.5]))


def test_refining_undoes_what_later_steps_change() -> None:
    """A later step that raises values to the power 1.3: the table learns to give their roots."""
    table, truth = MonotoneMap(1, 65, 3.5, beyond=1.0), 1.5 + 0.2 * _draw(20_000, 6)
    values = 0.5 + 0.1 * _draw(20_000, 7)
    table.fit_column(0, values, truth)

    def end() -> torch.Tensor:
        return table(values.view(-1, 1, 1)).flatten().pow(1.3)

    before = stats.ks_2samp(end().numpy(), truth.numpy()).statistic
    for _ in range(6):
        table.correct_column(0, end(), truth)
    after = stats.ks_2samp(end().numpy(), truth.numpy()).statistic
    assert before > 0.05
    assert after < 0.02


@pytest.mark.parametrize("knots", [3, 4, 21, 41])
@pytest.mark.parametrize("classes", [1, 3])
def test_many_showers_whose_knots_are_interpolated_one_by_one_get_the_same(knots: int, classes: int) -> None:
    """Groups, classes, equal knots, values on knots and beyond the ends."""
    table = MonotoneMap(5, knots, 2.0, ends=True)
    shape = 4, classes, 5, knots
    for number, name in enumerate(("x", "y")):
        values = (8.0 * _uniform(*shape, seed=number)).round() / 8.0
        setattr(table, name, values.sort(-1).values)
    table.position = torch.arange(4.0)
    n = 60
    at = torch.cat([torch.arange(4.0), 5.0 * _uniform(n - 4, seed=7) - 1.0])
    kind = torch.arange(n) % classes if classes > 1 else None
    values = 1.4 * _uniform(n, 5, seed=8) - 0.2
    values[:4] = table.x[:, 0, :, knots // 2]
    plain = table(values, at, kind)
    with torch.no_grad():
        assert table._searchable(values)
        assert not table._searchable(values[:3])
        torch.testing.assert_close(table(values, at, kind), plain, rtol=1e-6, atol=1e-6)
    assert not table._searchable(values)
