"""Quantile tables carry generated numbers to the true distribution, energy by energy and class by class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caloforge.models.calibration.quantile_maps import QuantileTables, energy_groups

ENERGIES = torch.tensor([1e3, 4e3, 16e3])


def _sample(n: int, seed: int, shift: float, width: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two numbers (n, 2) whose place depends on energy and class, energies (n,) and classes (n,)."""
    rng = torch.Generator().manual_seed(seed)
    energy = ENERGIES[torch.arange(n) % 3]
    kind = torch.arange(n) // 3 % 2
    base = torch.log(energy)[:, None] + kind[:, None]
    return base + shift + width * torch.randn(n, 2, generator=rng), energy, kind


def _fitted(classes: int = 2) -> QuantileTables:
    tables = QuantileTables(2)
    true, energy, kind = _sample(12_000, 0, 0.0, 1.0)
    made, made_energy, made_kind = _sample(12_000, 1, 0.7, 0.5)
    group, position = energy_groups(energy)
    made_group, _ = energy_groups(made_energy)
    tables.fit(position, (true, group, kind), (made, made_group, made_kind), classes)
    return tables


def test_before_the_fit_numbers_between_0_and_1_stay() -> None:
    values = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(QuantileTables(3)(values, torch.full((50,), 5e3)), values)


def test_numbers_take_the_true_distribution_of_their_energy_and_class() -> None:
    tables = _fitted()
    made, energy, kind = _sample(9_000, 2, 0.7, 0.5)
    true, _, _ = _sample(9_000, 3, 0.0, 1.0)
    carried = tables(made, energy, kind)
    for e in ENERGIES:
        for k in range(2):
            mine = (energy == e) & (kind == k)
            assert carried[mine].mean().item() == pytest.approx(true[mine].mean().item(), abs=0.1)
            assert carried[mine].std().item() == pytest.approx(1.0, abs=0.08)


def test_the_map_rises_and_stops_at_the_ends() -> None:
    tables = _fitted()
    line = torch.linspace(-5.0, 25.0, 400)[:, None].expand(-1, 2)
    carried = tables(line, torch.full((400,), 4e3), torch.ones(400, dtype=torch.int64))
    assert (carried.diff(dim=0) >= 0).all()
    ends = tables.truth[1, 1, :, [0, -1]]
    torch.testing.assert_close(carried[[0, -1]].T, ends)


def test_tables_are_numpy_s_quantiles() -> None:
    tables = _fitted()
    true, energy, kind = _sample(12_000, 0, 0.0, 1.0)
    mine = true[(energy == ENERGIES[2]) & (kind == 1)].double().numpy()
    slow = np.quantile(mine, tables.levels().numpy(), axis=0).T
    np.testing.assert_allclose(tables.truth[2, 1].numpy(), slow, rtol=1e-5)


def test_between_two_energies_tables_are_interpolated_in_the_logarithm() -> None:
    tables = _fitted()
    energy = torch.full((1,), math.sqrt(1e3 * 4e3))
    made, truth = tables._at(energy, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(made[0], tables.made[:2, 0].mean(0))
    torch.testing.assert_close(truth[0], tables.truth[:2, 0].mean(0))


def test_frequent_zeros_stay_zero_and_become_more_frequent_where_they_should() -> None:
    rng = torch.Generator().manual_seed(4)
    true = torch.relu(torch.randn(6_000, 1, generator=rng) - 1.0)
    made = torch.relu(torch.randn(6_000, 1, generator=rng) + 0.3)
    none = torch.zeros(6_000, dtype=torch.int64)
    tables = QuantileTables(1)
    tables.fit(torch.zeros(1), (true, none, none), (made, none, none))
    carried = tables(made, torch.ones(6_000))
    assert (carried[made == 0] == 0).all()
    parts = [(x == 0).float().mean().item() for x in (true, carried)]
    assert parts[1] == pytest.approx(parts[0], abs=0.02)


def test_a_class_without_showers_takes_its_group_s_tables() -> None:
    tables = _fitted(classes=3)
    true, energy, _ = _sample(12_000, 0, 0.0, 1.0)
    mine = true[energy == ENERGIES[0]].double().numpy()
    slow = np.quantile(mine, tables.levels().numpy(), axis=0).T
    np.testing.assert_allclose(tables.truth[0, 2].numpy(), slow, rtol=1e-4, atol=1e-5)


def test_groups_are_energies_where_there_are_few_and_equal_parts_else() -> None:
    few, centres = energy_groups(torch.tensor([5.0, 1.0, 5.0, 2.0]))
    assert few.tolist() == [2, 0, 2, 1]
    torch.testing.assert_close(centres, torch.log(torch.tensor([1.0, 2.0, 5.0])))
    many, centres = energy_groups(torch.linspace(1.0, 100.0, 1000))
    assert len(centres) == 9
    assert np.bincount(many.numpy()).tolist() == [112, 111, 111, 111, 111, 111, 111, 111, 111]
    assert (centres.diff() > 0).all()
