"""Logarithms of energies as numbers of a convenient density, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.energy_maps import EnergyTable

SLOPE = 0.8
_LAST = 199


def _energies(n: int = 50_000, seed: int = 0) -> Tensor:
    """A narrow peak at 0.2 MeV with a few cells orders of magnitude above it."""
    generator = torch.Generator().manual_seed(seed)
    peak = -1.6 + 0.25 * torch.randn(n, generator=generator)
    tail = -1.6 + 6.0 * torch.rand(n, generator=generator)
    return torch.exp(torch.where(torch.rand(n, generator=generator) < 0.9, peak, tail))


def _fitted(columns: int = 1) -> EnergyTable:
    table = EnergyTable(columns, SLOPE)
    for column in range(columns):
        table.fit(_energies(seed=column) * 10.0**column, column)
    return table


def test_a_new_table_is_a_line() -> None:
    logs = torch.linspace(-12.0, 12.0, 50)[None]
    torch.testing.assert_close(EnergyTable(1, SLOPE)(logs), SLOPE * logs, rtol=1e-5, atol=1e-5)


def test_the_median_is_at_0() -> None:
    for energies in (_energies(), torch.tensor([0.3, 0.5, 4.0]), 1e4 * _energies(301, seed=3)):
        table = EnergyTable(1, SLOPE)
        table.fit(energies, 0)
        assert float(table(energies.median().log().view(1, 1))) == pytest.approx(0.0, abs=2e-2)


def test_it_rises_and_nowhere_slower_than_the_least_slope() -> None:
    table = _fitted()
    logs = torch.linspace(-6.0, 9.0, 2000)[None].double()
    x = table.double()(logs)
    slopes = x.diff(dim=1) / logs.diff(dim=1)
    assert (slopes >= SLOPE * (1 - 1e-3)).all()
    assert (slopes <= 6.0 * (1 + 1e-3)).all()
    ends = (logs[:, 1:] < table.logs[0, 0]) | (logs[:, :-1] > table.logs[0, _LAST])
    torch.testing.assert_close(slopes[ends], torch.full_like(slopes[ends], SLOPE), rtol=1e-3, atol=0)


@pytest.mark.parametrize("columns", [1, 3])
def test_many_values_have_the_energies_that_few_have(columns: int) -> None:
    """Above some number they are looked up in bins."""
    table = _fitted(columns)
    span = float(table.values[0, -1] - table.values[0, 0])
    start = float(table.values.min()) - 0.1 * span
    values = (start + 1.3 * span * torch.linspace(0, 1, 20_000)).repeat(columns, 1)
    values[:, :200] = table.values
    parts = torch.cat([table.inverse(part) for part in values.split(500, 1)], 1)
    torch.testing.assert_close(table.inverse(values), parts, rtol=1e-5, atol=1e-5)


def test_a_lognormal_becomes_normal() -> None:
    """Where dz / d ln e is 1 / s, above the least slope, x is z itself."""
    spread = 0.5
    generator = torch.Generator().manual_seed(2)
    table = EnergyTable(1, SLOPE)
    table.fit(torch.exp(1.0 + spread * torch.randn(400_000, generator=generator)), 0)
    z = torch.linspace(-2.0, 2.0, 41)
    torch.testing.assert_close(table(1.0 + spread * z[None])[0], z, rtol=0, atol=0.03)


def test_where_few_cells_are_the_least_slope_rules() -> None:
    """The tail over four units of ln e takes at least 0.8 of each, where quantiles would squeeze it to less."""
    table = _fitted()
    x = table(torch.tensor([[0.0, 4.0]]))[0]
    assert float(x[1] - x[0]) >= 4.0 * SLOPE - 1e-4
    ordered = _energies().log().sort().values
    part = torch.searchsorted(ordered, torch.tensor([0.0, 4.0])) / len(ordered)
    z = torch.special.ndtri(part)
    assert float(z[1] - z[0]) < 4.0 * SLOPE


def test_back_and_forth_is_the_identity_on_both_sides() -> None:
    table = _fitted(3)
    logs = torch.linspace(-8.0, 12.0, 999).repeat(3, 1)
    torch.testing.assert_close(table.inverse(table(logs)), logs, rtol=1e-4, atol=2e-4)
    x = torch.linspace(-8.0, 12.0, 999).repeat(3, 1)
    torch.testing.assert_close(table(table.inverse(x)), x, rtol=1e-4, atol=1e-3)


def test_it_is_numpys_interpolation_of_each_column() -> None:
    table = _fitted(3)
    logs = torch.linspace(-2.5, 3.0, 200) + math.log(10.0) * torch.arange(3.0)[:, None]
    x = table(logs)
    for column in range(3):
        knots, values = table.logs[column].double().numpy(), table.values[column].double().numpy()
        slow = np.interp(logs[column].double().numpy(), knots, values)
        inside = (logs[column] > knots[0]) & (logs[column] < knots[-1])
        np.testing.assert_allclose(x[column][inside].numpy(), slow[inside.numpy()], atol=2e-4)


def test_units_only_shift_the_logarithm() -> None:
    first, second = EnergyTable(1, SLOPE), EnergyTable(1, SLOPE)
    first.fit(_energies(), 0)
    second.fit(1000.0 * _energies(), 0)
    logs = torch.linspace(-3.0, 4.0, 60)[None]
    torch.testing.assert_close(second(logs + math.log(1000.0)), first(logs), rtol=0, atol=5e-2)


@pytest.mark.parametrize(
    "energies", [[2.0, 2.0], [2.0, 3.0], [5.0] * 100], ids=["two equal", "two", "all equal"]
)
def test_few_or_equal_energies_still_invert(energies: list[float]) -> None:
    table = EnergyTable(1, SLOPE)
    table.fit(torch.tensor(energies), 0)
    logs = torch.linspace(-3.0, 4.0, 50)[None]
    assert torch.isfinite(table(logs)).all()
    assert (table(logs).diff(dim=1) > 0).all()
    torch.testing.assert_close(table.inverse(table(logs)), logs, rtol=1e-3, atol=1e-3)
