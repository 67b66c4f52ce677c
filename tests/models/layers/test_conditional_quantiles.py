"""Distributions fitted under conditions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from caloforge.models.calibration.conditional_quantiles import ConditionalQuantiles


def _conditions(n: int, seed: int = 0) -> Tensor:
    return 2.0 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) - 1.0


def _normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def _fitted(values: Tensor, conditions: Tensor) -> ConditionalQuantiles:
    found = ConditionalQuantiles(2, group=1)
    found.fit(conditions, values)
    return found


def test_mean_and_width_are_found_where_they_are_polynomials() -> None:
    c = _conditions(8_000)
    mean = 1.0 + 0.3 * c[:, 0] - 0.2 * c[:, 1] ** 3 + 0.1 * c[:, 0] * c[:, 1] ** 2
    std = torch.exp(-2.0 + 0.5 * c[:, 0] - 0.4 * c[:, 1])
    found = _fitted(mean + std * _normal(len(c), 1), c)
    assert torch.allclose(found.mean(c).float(), mean, atol=0.03)
    assert torch.allclose((found.std(c).float() / std).log(), torch.zeros_like(std), atol=0.15)


def test_drawn_numbers_have_the_moments_of_a_skew_distribution_at_each_condition() -> None:
    c = _conditions(8_000)

    def sample(seed: int) -> Tensor:
        tail = torch.distributions.Exponential(1.0).icdf(
            torch.rand(len(c), generator=torch.Generator().manual_seed(seed))
        )
        lean = 0.5 * (1.0 + c[:, 1])  # the tail grows with the second condition
        return 1.0 - 0.1 * (lean * tail + 0.3 * _normal(len(c), seed + 1))

    found = _fitted(sample(3), c)
    truth, drawn = sample(5), found.draw(_normal(len(c), 9), c)
    for low in (-1.0, -0.5, 0.0, 0.5):
        here = (c[:, 1] >= low) & (c[:, 1] < low + 0.5)
        assert drawn[here].mean() == pytest.approx(float(truth[here].mean()), abs=0.008)
        assert drawn[here].std() == pytest.approx(float(truth[here].std()), rel=0.08)
        assert drawn[here].quantile(0.02) == pytest.approx(float(truth[here].quantile(0.02)), abs=0.05)


def test_drawing_is_undone() -> None:
    c = _conditions(2_000)
    found = _fitted(torch.exp(0.3 * _normal(len(c), 1)) + c[:, 0], c)
    normal = _normal(len(c), 2).clamp(-3.4, 3.4)
    again = found.normal(found.draw(normal, c), c)
    assert (again - normal).abs().max() < 0.02
    values = found.draw(normal, c)
    assert torch.allclose(found.draw(found.normal(values, c), c), values, atol=1e-4)


@given(st.floats(-5.0, 5.0), st.floats(0.0, 2.0))
def test_numbers_rise_with_the_normal_number(start: float, step: float) -> None:
    c = _conditions(50)
    found = ConditionalQuantiles(2, 0, 1.0, 0.2)
    low = found.draw(torch.full((50,), start), c)
    assert (found.draw(torch.full((50,), start + step), c) >= low).all()


def test_beyond_the_training_conditions_stop_at_their_edge() -> None:
    c = _conditions(1_000)
    found = _fitted(c[:, 0] ** 3 + 0.1 * _normal(1_000, 1), c)
    far = torch.tensor([[5.0, 0.0]])
    edge = torch.stack([c[:, 0].max(), torch.tensor(0.0)])[None]
    assert found.mean(far) == pytest.approx(float(found.mean(edge)))


def test_before_the_fit_it_is_normal() -> None:
    found = ConditionalQuantiles(1, 0, mean=2.0, std=0.5)
    drawn = found.draw(torch.tensor([-1.0, 0.0, 1.0]), torch.zeros(3, 1))
    assert torch.allclose(drawn, torch.tensor([1.5, 2.0, 2.5]), atol=1e-5)


def test_one_group_for_one_condition() -> None:
    found = ConditionalQuantiles(1, 0)
    found.fit(torch.zeros(400, 1), 3.0 + 0.1 * _normal(400, 1))
    assert found.mean(torch.zeros(1, 1)) == pytest.approx(3.0, abs=0.02)
    assert found.quantiles.shape == (1, 57)
    assert math.isfinite(float(found.draw(torch.tensor([3.0]), torch.zeros(1, 1))))
