"""Core cells freed from what the summary explains of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.conditional_moments import CoreTrend

N, ROWS, KINDS = 6_000, 4, 2
LAYER = torch.tensor([0, 0, 1, 1, 2, 2])
EMPTY = -1.0
OFTEN = (1.0, 0.5, 1.0, 0.95, 0.3, 0.9)
"""How often each cell is filled; above 0.8 are cells 0, 2, 3 and 5."""
ALWAYS = (1.0, 0.5, 1.0, 1.0, 0.3, 1.0)
CORE = [0, 2, 3, 5]
NOISE = torch.tensor([0.1, 0.1, 0.1, 0.3, 0.1, 0.05])

Showers = tuple[Tensor, Tensor, Tensor]


def _known(summary: Tensor, encoded: Tensor) -> Tensor:
    """What rows of summary (n, 4, 2) and conditions (n, 1) make of the cells (n, 6)."""
    own, whole = summary[:, LAYER], summary[:, -1:]
    return 1.2 + 0.3 * own[..., 0] + 0.06 * own[..., 1].square() - 0.2 * whole[..., 1] + 0.1 * encoded


def _showers(filled: tuple[float, ...] = ALWAYS, n: int = N, seed: int = 0) -> Showers:
    """Values (n, 6), summaries (n, 4, 2), conditions (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    summary = torch.randn(n, ROWS, KINDS, generator=generator)
    encoded = 2.0 * torch.rand(n, 1, generator=generator) - 1.0
    values = _known(summary, encoded) + NOISE * torch.randn(n, len(LAYER), generator=generator)
    empty = torch.rand(n, len(LAYER), generator=generator) >= torch.tensor(filled)
    return torch.where(empty, EMPTY, values.clamp_min(-0.9)), summary, encoded


def _fitted(filled: tuple[float, ...] = ALWAYS, occupancy: float = 0.8) -> CoreTrend:
    trend = CoreTrend(LAYER, occupancy)
    values, summary, encoded = _showers(filled)
    trend.fit(values, EMPTY, summary, encoded)
    return trend


def test_cells_of_the_core_are_those_filled_in_most_showers() -> None:
    assert _fitted(OFTEN).cells.tolist() == CORE
    assert _fitted(OFTEN, 0.97).cells.tolist() == [0, 2]
    assert _fitted(OFTEN, 0.1).cells.tolist() == [0, 1, 2, 3, 4, 5]


def test_what_is_left_is_the_noise_in_units_of_its_width() -> None:
    """On fresh showers: y = (x - what is known) / noise, whose mean is 0 and variance 1."""
    values, summary, encoded = _showers(seed=1)
    trend = _fitted()
    y = trend(values, summary, encoded)[:, CORE]
    torch.testing.assert_close(y.mean(0), torch.zeros(4), rtol=0, atol=0.06)
    torch.testing.assert_close(y.std(0), torch.ones(4), rtol=0.05, atol=0)
    torch.testing.assert_close(trend.spread, NOISE[CORE], rtol=0.05, atol=0)
    pull = ((values - _known(summary, encoded)) / NOISE)[:, CORE]
    torch.testing.assert_close(y, pull, rtol=0.05, atol=0.3)


def test_what_is_left_no_longer_follows_the_summary() -> None:
    values, summary, encoded = _showers(seed=1)
    y = _fitted()(values, summary, encoded)[:, CORE]
    everything = torch.cat([summary.flatten(1), encoded, y], 1)
    assert torch.corrcoef(everything.T)[:-4, -4:].abs().max() < 0.06
    assert torch.corrcoef(torch.cat([summary.flatten(1), values[:, CORE]], 1).T)[:-4, -4:].abs().max() > 0.5


def test_cells_that_are_sometimes_empty_have_unit_variance_too() -> None:
    trend = _fitted(OFTEN)
    y = trend(*_showers(OFTEN))[:, CORE]
    torch.testing.assert_close(y.std(0), torch.ones(4), rtol=0.1, atol=0)
    assert (y.abs() <= 6.0).all()


def test_cells_outside_the_core_stay_as_they_are() -> None:
    values, summary, encoded = _showers(OFTEN, seed=1)
    trend = _fitted(OFTEN)
    for found in (trend(values, summary, encoded), trend.inverse(values, summary, encoded)):
        assert torch.equal(found[:, [1, 4]], values[:, [1, 4]])


def test_back_and_forth_is_the_identity() -> None:
    values, summary, encoded = _showers(seed=1)
    trend = _fitted()
    kept = values.clone()
    y = trend(values, summary, encoded)
    assert torch.equal(values, kept)
    inside = (y.abs() < 6.0).all(1)
    assert inside.float().mean() > 0.99
    again = trend.inverse(y, summary, encoded)
    torch.testing.assert_close(again[inside], values[inside], rtol=1e-4, atol=1e-4)


def test_far_values_stop_at_six_widths() -> None:
    _, summary, encoded = _showers(n=3)
    trend = _fitted()
    ends = [trend.inverse(torch.full((3, 6), y), summary, encoded)[:, CORE] for y in (6.0, 60.0)]
    assert torch.equal(*ends)
    assert (trend(torch.full((3, 6), 50.0), summary, encoded)[:, CORE] == 6.0).all()


@pytest.mark.parametrize("call", ["forward", "inverse"])
def test_without_a_core_nothing_changes(call: str) -> None:
    values, summary, encoded = _showers(OFTEN, n=50)
    empty = CoreTrend(LAYER, 0.8)
    assert torch.equal(getattr(empty, call)(values, summary, encoded), values)
    empty.fit(torch.full_like(values, EMPTY), EMPTY, summary, encoded)
    assert len(empty.cells) == 0
    assert torch.equal(getattr(empty, call)(values, summary, encoded), values)


def test_a_cell_that_is_explained_exactly_keeps_a_least_width() -> None:
    _, summary, encoded = _showers()
    values = _known(summary, encoded)
    trend = CoreTrend(LAYER, 0.8)
    trend.fit(values, EMPTY, summary, encoded)
    torch.testing.assert_close(trend.spread, torch.full((6,), 0.02))
    assert trend(values, summary, encoded).abs().max() < 0.5
