"""Mean and width under conditions: polynomials, and those of the cells of a shower's core."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.moments import ConditionalMoments
from caloforge.models.flow.summary import CoreMoments

N = 20_000


def _conditions(n: int = N, seed: int = 0) -> Tensor:
    """Two continuous conditions, and one of three levels."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.nn.functional.one_hot(torch.randint(0, 3, (n,), generator=generator), 3)
    return torch.cat([2.0 * torch.rand(n, 2, generator=generator) - 1.0, level.float()], 1)


def _known(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread (N, 2): polynomials of the third degree, and a step for each level."""
    a, b = encoded[:, 0], encoded[:, 1]
    step = encoded[:, 2:] @ torch.tensor([0.0, 1.5, -2.0])
    mean = torch.stack([1.0 + 2.0 * a - 3.0 * a * b * b + a**3, 4.0 * b * b + step], 1)
    spread = torch.exp(torch.stack([-1.0 + a * b, 0.5 * b**3 - 0.3 * a + 0.2 * step], 1))
    return mean, spread


def _values(encoded: Tensor, seed: int = 1) -> Tensor:
    mean, spread = _known(encoded)
    return mean + spread * torch.randn(len(encoded), 2, generator=torch.Generator().manual_seed(seed))


def _fitted(encoded: Tensor, values: Tensor) -> ConditionalMoments:
    trend = ConditionalMoments(2, encoded.shape[1], values.shape[1])
    trend.fit(encoded, values)
    return trend


def test_a_new_trend_changes_nothing() -> None:
    encoded, values = _conditions(10), torch.arange(20.0).view(10, 2)
    assert torch.equal(ConditionalMoments(2, 5, 2)(values, encoded), values)


def test_polynomials_without_noise_are_found() -> None:
    encoded = _conditions()
    mean, _ = _known(encoded)
    trend = _fitted(encoded, mean)
    found = trend.inverse(torch.zeros_like(mean), encoded)
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-3)


def test_a_known_mean_and_spread_are_taken_off() -> None:
    encoded = _conditions()
    trend = _fitted(encoded, _values(encoded))
    fresh = _conditions(2_000, seed=5)
    mean, spread = _known(fresh)
    found = trend.inverse(torch.zeros(len(fresh), 2), fresh)
    assert ((found - mean) / spread).abs().max() < 0.2
    ratio = (trend.inverse(torch.ones(len(fresh), 2), fresh) - found) / spread
    assert (ratio.log().abs() < 0.25).all()
    assert ratio.log().mean(0).abs().max() < 0.03


def test_what_is_left_has_mean_0_and_spread_1_in_every_part() -> None:
    encoded = _conditions(40_000)
    trend = _fitted(encoded, _values(encoded))
    fresh = _conditions(40_000, seed=6)
    rest = trend(_values(fresh, seed=7), fresh)
    corner = (fresh[:, 0] > 0.5) & (fresh[:, 1] > 0.5)
    for part in (fresh[:, 0] < -0.5, fresh[:, 1] > 0.5, fresh[:, 2] == 1, fresh[:, 4] == 1, corner):
        few = 5.0 / math.sqrt(int(part.sum()))
        assert (rest[part].mean(0).abs() < few).all()
        assert ((rest[part].std(0) - 1.0).abs() < few).all()


def test_back_and_forth_is_the_identity() -> None:
    encoded = _conditions()
    values = _values(encoded)
    trend = _fitted(encoded, values)
    torch.testing.assert_close(trend.inverse(trend(values, encoded), encoded), values, rtol=1e-4, atol=1e-4)


def test_beyond_the_trainings_conditions_the_edge_holds() -> None:
    encoded = _conditions()
    trend = _fitted(encoded, _values(encoded))
    edge, outside = encoded[:4].clone(), encoded[:4].clone()
    edge[:, 0], outside[:, 0] = encoded[:, 0].max(), 30.0
    rest = torch.randn(4, 2)
    assert torch.equal(trend.inverse(rest, edge), trend.inverse(rest, outside))


@pytest.mark.parametrize("continuous", [1, 0], ids=["one energy", "one level"])
def test_conditions_that_say_nothing_leave_mean_and_spread(continuous: int) -> None:
    encoded = torch.full((5_000, 1), 1.0 - continuous)
    values = 3.0 + 0.5 * torch.randn(5_000, 2, generator=torch.Generator().manual_seed(3))
    trend = ConditionalMoments(continuous, 1, 2)
    trend.fit(encoded, values)
    torch.testing.assert_close(trend(values, encoded), (values - 3.0) / 0.5, rtol=0.05, atol=0.05)


def test_a_constant_column_stays_finite() -> None:
    encoded = _conditions(100)
    values = torch.full((100, 1), 7.0)
    trend = _fitted(encoded, values)
    rest = trend(values, encoded)
    assert torch.isfinite(rest).all()
    torch.testing.assert_close(trend.inverse(rest, encoded), values, rtol=1e-4, atol=1e-4)


def test_unknown_values_are_not_looked_at() -> None:
    """A column of which half is known is fitted to that half; one of a few has a mean; one of none stays as it is."""
    encoded = _conditions(2_000)
    values = torch.cat([_values(encoded), _values(encoded, 2)], 1)
    known = torch.ones_like(values, dtype=torch.bool)
    known[::2, 1] = False
    known[5:, 2] = False
    known[:, 3] = False
    spoilt = torch.where(known, values, 1e6)
    trend = ConditionalMoments(2, encoded.shape[1], 4)
    trend.fit(encoded, spoilt, known)
    alone = _fitted(encoded[1::2], values[1::2, :2])
    torch.testing.assert_close(
        trend(values, encoded)[:, 1], alone(values[:, :2], encoded)[:, 1], rtol=0.03, atol=1e-3
    )
    assert trend.inverse(torch.zeros(1, 4), encoded[:1])[0, 2] == pytest.approx(
        float(values[:5, 2].mean()), rel=1e-3
    )
    assert torch.equal(trend(values, encoded)[:, 3], values[:, 3])


ROWS, KINDS = 4, 2
LAYER = torch.tensor([0, 0, 1, 1, 2, 2])
EMPTY = -1.0
OFTEN = (1.0, 0.5, 1.0, 0.95, 0.3, 0.9)
"""How often each cell is filled; above 0.8 are cells 0, 2, 3 and 5."""
ALWAYS = (1.0, 0.5, 1.0, 1.0, 0.3, 1.0)
CORE = [0, 2, 3, 5]
NOISE = torch.tensor([0.1, 0.1, 0.1, 0.3, 0.1, 0.05])

CoreShowers = tuple[Tensor, Tensor, Tensor]


def _core_mean(summary: Tensor, encoded: Tensor) -> Tensor:
    """What rows of summary (n, 4, 2) and conditions (n, 1) make of the cells (n, 6)."""
    own, whole = summary[:, LAYER], summary[:, -1:]
    return 1.2 + 0.3 * own[..., 0] + 0.06 * own[..., 1].square() - 0.2 * whole[..., 1] + 0.1 * encoded


def _core_showers(filled: tuple[float, ...] = ALWAYS, n: int = 6_000, seed: int = 0) -> CoreShowers:
    """Values (n, 6), summaries (n, 4, 2), conditions (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    summary = torch.randn(n, ROWS, KINDS, generator=generator)
    encoded = 2.0 * torch.rand(n, 1, generator=generator) - 1.0
    values = _core_mean(summary, encoded) + NOISE * torch.randn(n, len(LAYER), generator=generator)
    empty = torch.rand(n, len(LAYER), generator=generator) >= torch.tensor(filled)
    return torch.where(empty, EMPTY, values.clamp_min(-0.9)), summary, encoded


def _fitted_core(filled: tuple[float, ...] = ALWAYS, occupancy: float = 0.8) -> CoreMoments:
    trend = CoreMoments(LAYER, occupancy)
    values, summary, encoded = _core_showers(filled)
    trend.fit(values, EMPTY, summary, encoded)
    return trend


def test_cells_of_the_core_are_those_filled_in_most_core_showers() -> None:
    assert _fitted_core(OFTEN).cells.tolist() == CORE
    assert _fitted_core(OFTEN, 0.97).cells.tolist() == [0, 2]
    assert _fitted_core(OFTEN, 0.1).cells.tolist() == [0, 1, 2, 3, 4, 5]


def test_core_residuals_have_unit_width() -> None:
    """On fresh showers: y = (x - what is known) / noise, whose mean is 0 and variance 1."""
    values, summary, encoded = _core_showers(seed=1)
    trend = _fitted_core()
    y = trend(values, summary, encoded)[:, CORE]
    torch.testing.assert_close(y.mean(0), torch.zeros(4), rtol=0, atol=0.06)
    torch.testing.assert_close(y.std(0), torch.ones(4), rtol=0.05, atol=0)
    torch.testing.assert_close(trend.spread, NOISE[CORE], rtol=0.05, atol=0)
    pull = ((values - _core_mean(summary, encoded)) / NOISE)[:, CORE]
    torch.testing.assert_close(y, pull, rtol=0.05, atol=0.3)


def test_core_residuals_no_longer_follow_the_summary() -> None:
    values, summary, encoded = _core_showers(seed=1)
    y = _fitted_core()(values, summary, encoded)[:, CORE]
    everything = torch.cat([summary.flatten(1), encoded, y], 1)
    assert torch.corrcoef(everything.T)[:-4, -4:].abs().max() < 0.06
    assert torch.corrcoef(torch.cat([summary.flatten(1), values[:, CORE]], 1).T)[:-4, -4:].abs().max() > 0.5


def test_cells_that_are_sometimes_empty_have_unit_variance_too() -> None:
    trend = _fitted_core(OFTEN)
    y = trend(*_core_showers(OFTEN))[:, CORE]
    torch.testing.assert_close(y.std(0), torch.ones(4), rtol=0.1, atol=0)
    assert (y.abs() <= 6.0).all()


def test_cells_outside_the_core_stay_as_they_are() -> None:
    values, summary, encoded = _core_showers(OFTEN, seed=1)
    trend = _fitted_core(OFTEN)
    for found in (trend(values, summary, encoded), trend.inverse(values, summary, encoded)):
        assert torch.equal(found[:, [1, 4]], values[:, [1, 4]])


def test_core_cells_come_back() -> None:
    values, summary, encoded = _core_showers(seed=1)
    trend = _fitted_core()
    kept = values.clone()
    y = trend(values, summary, encoded)
    assert torch.equal(values, kept)
    inside = (y.abs() < 6.0).all(1)
    assert inside.float().mean() > 0.99
    again = trend.inverse(y, summary, encoded)
    torch.testing.assert_close(again[inside], values[inside], rtol=1e-4, atol=1e-4)


def test_far_values_stop_at_six_widths() -> None:
    _, summary, encoded = _core_showers(n=3)
    trend = _fitted_core()
    ends = [trend.inverse(torch.full((3, 6), y), summary, encoded)[:, CORE] for y in (6.0, 60.0)]
    assert torch.equal(*ends)
    assert (trend(torch.full((3, 6), 50.0), summary, encoded)[:, CORE] == 6.0).all()


@pytest.mark.parametrize("call", ["forward", "inverse"])
def test_without_a_core_nothing_changes(call: str) -> None:
    values, summary, encoded = _core_showers(OFTEN, n=50)
    empty = CoreMoments(LAYER, 0.8)
    assert torch.equal(getattr(empty, call)(values, summary, encoded), values)
    empty.fit(torch.full_like(values, EMPTY), EMPTY, summary, encoded)
    assert len(empty.cells) == 0
    assert torch.equal(getattr(empty, call)(values, summary, encoded), values)


def test_a_cell_that_is_explained_exactly_keeps_a_least_width() -> None:
    _, summary, encoded = _core_showers()
    values = _core_mean(summary, encoded)
    trend = CoreMoments(LAYER, 0.8)
    trend.fit(values, EMPTY, summary, encoded)
    torch.testing.assert_close(trend.spread, torch.full((6,), 0.02))
    assert trend(values, summary, encoded).abs().max() < 0.5
