"""Logarithms of energies as numbers of a convenient density, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.monotone import MonotoneMap
from caloforge.models.flow.cells import _table

SLOPE = 0.8
_LAST = 199


def _energies(n: int = 50_000, seed: int = 0) -> Tensor:
    """A narrow peak at 0.2 MeV with a few cells orders of magnitude above it."""
    generator = torch.Generator().manual_seed(seed)
    peak = -1.6 + 0.25 * torch.randn(n, generator=generator)
    tail = -1.6 + 6.0 * torch.rand(n, generator=generator)
    return torch.exp(torch.where(torch.rand(n, generator=generator) < 0.9, peak, tail))


def _of(*energies: Tensor) -> MonotoneMap:
    """A table for each set of energies, as CellValues has them."""
    table = MonotoneMap(len(energies), 200, 10.0, even="x", beyond=SLOPE)
    for column, some in enumerate(energies):
        table.set_column(column, *_table(some))
    return table


def _fitted(columns: int = 1) -> MonotoneMap:
    return _of(*(_energies(seed=column) * 10.0**column for column in range(columns)))


def test_the_median_is_at_0() -> None:
    for energies in (_energies(), torch.tensor([0.3, 0.5, 4.0]), 1e4 * _energies(301, seed=3)):
        table = _of(energies)
        assert float(table(energies.median().log().view(1, 1))) == pytest.approx(0.0, abs=2e-2)


def test_it_rises_and_nowhere_slower_than_the_least_slope() -> None:
    table = _fitted()
    logs = torch.linspace(-6.0, 9.0, 2000)[:, None].double()
    x = table.double()(logs)
    slopes = x.diff(dim=0) / logs.diff(dim=0)
    above = x[:-1] > 0.05
    assert (slopes[above] >= SLOPE * (1 - 1e-3)).all()
    assert (slopes >= 0.1 * (1 - 1e-3)).all()
    assert (
        slopes[~above] < SLOPE
    ).any()  # faint cells are not spread over more than the tail of a normal number
    assert (slopes <= 6.0 * (1 + 1e-3)).all()
    ends = (logs[1:] < table.x[0, 0, 0, 0]) | (logs[:-1] > table.x[0, 0, 0, _LAST])
    torch.testing.assert_close(slopes[ends], torch.full_like(slopes[ends], SLOPE), rtol=1e-3, atol=0)


def test_a_lognormal_becomes_normal() -> None:
    """Where dz / d ln e is 1 / s, above the least slope, x is z itself."""
    spread = 0.5
    generator = torch.Generator().manual_seed(2)
    table = _of(torch.exp(1.0 + spread * torch.randn(400_000, generator=generator)))
    z = torch.linspace(-2.0, 2.0, 41)
    torch.testing.assert_close(table(1.0 + spread * z[:, None])[:, 0], z, rtol=0, atol=0.03)


def test_where_few_cells_are_the_least_slope_rules() -> None:
    """The tail over four units of ln e takes at least 0.8 of each, where quantiles would squeeze it to less."""
    table = _fitted()
    x = table(torch.tensor([[0.0], [4.0]]))[:, 0]
    assert float(x[1] - x[0]) >= 4.0 * SLOPE - 1e-4
    ordered = _energies().log().sort().values
    part = torch.searchsorted(ordered, torch.tensor([0.0, 4.0])) / len(ordered)
    z = torch.special.ndtri(part)
    assert float(z[1] - z[0]) < 4.0 * SLOPE


def test_back_and_forth_is_the_identity_on_both_sides() -> None:
    table = _fitted(3)
    logs = torch.linspace(-8.0, 12.0, 999)[:, None].repeat(1, 3)
    torch.testing.assert_close(table.inverse(table(logs)), logs, rtol=1e-4, atol=2e-4)
    x = torch.linspace(-8.0, 12.0, 999)[:, None].repeat(1, 3)
    torch.testing.assert_close(table(table.inverse(x)), x, rtol=1e-4, atol=1e-3)


def test_it_is_numpys_interpolation_of_each_column() -> None:
    table = _fitted(3)
    logs = torch.linspace(-2.5, 3.0, 200)[:, None] + math.log(10.0) * torch.arange(3.0)
    x = table(logs)
    for column in range(3):
        knots, values = table.x[0, 0, column].double().numpy(), table.y[0, 0, column].double().numpy()
        slow = np.interp(logs[:, column].double().numpy(), knots, values)
        inside = (logs[:, column] > knots[0]) & (logs[:, column] < knots[-1])
        np.testing.assert_allclose(x[:, column][inside].numpy(), slow[inside.numpy()], atol=2e-4)


def test_units_only_shift_the_logarithm() -> None:
    first, second = _of(_energies()), _of(1000.0 * _energies())
    logs = torch.linspace(-3.0, 4.0, 60)[:, None]
    torch.testing.assert_close(second(logs + math.log(1000.0)), first(logs), rtol=0, atol=5e-2)


@pytest.mark.parametrize(
    "energies", [[2.0, 2.0], [2.0, 3.0], [5.0] * 100], ids=["two equal", "two", "all equal"]
)
def test_few_or_equal_energies_still_invert(energies: list[float]) -> None:
    table = _of(torch.tensor(energies))
    logs = torch.linspace(-3.0, 4.0, 50)[:, None]
    assert torch.isfinite(table(logs)).all()
    assert (table(logs).diff(dim=0) > 0).all()
    torch.testing.assert_close(table.inverse(table(logs)), logs, rtol=1e-3, atol=1e-3)
