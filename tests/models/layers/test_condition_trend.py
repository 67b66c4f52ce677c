"""Mean and spread that conditions explain, taken off and put back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.conditional_moments import ConditionTrend

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


def _fitted(encoded: Tensor, values: Tensor) -> ConditionTrend:
    trend = ConditionTrend(2, encoded.shape[1], values.shape[1])
    trend.fit(encoded, values)
    return trend


def test_a_new_trend_changes_nothing() -> None:
    encoded, values = _conditions(10), torch.arange(20.0).view(10, 2)
    assert torch.equal(ConditionTrend(2, 5, 2)(values, encoded), values)


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
    trend = ConditionTrend(continuous, 1, 2)
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
    trend = ConditionTrend(2, encoded.shape[1], 4)
    trend.fit(encoded, spoilt, known)
    alone = _fitted(encoded[1::2], values[1::2, :2])
    torch.testing.assert_close(
        trend(values, encoded)[:, 1], alone(values[:, :2], encoded)[:, 1], rtol=0.03, atol=1e-3
    )
    assert trend.inverse(torch.zeros(1, 4), encoded[:1])[0, 2] == pytest.approx(
        float(values[:5, 2].mean()), rel=1e-3
    )
    assert torch.equal(trend(values, encoded)[:, 3], values[:, 3])
