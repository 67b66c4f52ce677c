"""Posterior means of cells that are empty or filled, against Bayes by numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.models.flow.path import SpikeSlab, flow_loss, integrate, time_grid

FILLED = torch.tensor([0.05, 0.5, 0.9, 0.7])
CENTRE = torch.tensor([1.2, 0.8, 1.5, 0.0])
WIDTH = torch.tensor([0.5, 0.3, 0.8, 1.0])
EMPTY = -1.0
CORE = torch.tensor([3])
"""The last cell is of the core: all its values count, -1 among them means nothing."""


def _uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _cells(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Values (n, 4) and which of them are filled."""
    filled = _uniform(n, 4, seed=seed) < FILLED
    values = CENTRE + WIDTH * _normal(n, 4, seed=seed + 10)
    empty = ~filled
    empty[:, CORE] = False
    return torch.where(empty, EMPTY, values), filled


def _fitted(n: int = 100_000) -> SpikeSlab:
    layer = SpikeSlab(4)
    layer.fit(*_cells(n), CORE)
    return layer


def _zeros(x: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(x) for _ in range(SpikeSlab.outputs))


def _bayes(x: float, t: float, p: float, centre: float, width: float) -> float:
    """The posterior mean by a sum over values of the slab, and the spike."""
    values = np.linspace(centre - 14 * width, centre + 14 * width, 14001)
    prior = np.exp(-0.5 * ((values - centre) / width) ** 2)
    prior *= p / prior.sum()
    noise = math.hypot(1 - t, 0.02)  # with the least noise
    likelihood = np.exp(-0.5 * ((x - t * values) / noise) ** 2)
    spike = (1 - p) * math.exp(-0.5 * ((x - t * EMPTY) / noise) ** 2)
    weights = prior * likelihood
    return float(((values * weights).sum() + EMPTY * spike) / (weights.sum() + spike))


def test_averages_are_those_of_the_training_showers() -> None:
    layer = _fitted()
    torch.testing.assert_close(torch.sigmoid(layer.logit)[:3], FILLED[:3], rtol=0.03, atol=0)
    torch.testing.assert_close(layer.centre, CENTRE, rtol=0, atol=0.02)
    torch.testing.assert_close(layer.spread, WIDTH, rtol=0.02, atol=0)
    assert torch.sigmoid(layer.logit[3]) == 1.0


def test_cells_that_were_never_filled_take_the_average_of_all() -> None:
    values, filled = _cells(2_000)
    values[:, 0], filled[:, 0] = EMPTY, False
    layer = SpikeSlab(4)
    layer.fit(values, filled, CORE)
    known = torch.cat([values[:, 1:3][filled[:, 1:3]], values[:, 3]])
    assert float(layer.centre[0]) == pytest.approx(float(known.mean()), abs=1e-3)
    assert float(layer.spread[0]) == pytest.approx(float(known.std()), rel=1e-2)
    assert float(layer.logit[0]) < -8.0


@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.85])
def test_without_outputs_it_is_the_posterior_mean(t: float) -> None:
    layer = _fitted()
    x = torch.linspace(-2.5, 2.5, 21)[:, None].repeat(1, 4)
    found = layer(x, torch.full((21,), t), _zeros(x))
    for cell in range(4):
        p, centre, width = (float(v[cell]) for v in (torch.sigmoid(layer.logit), layer.centre, layer.spread))
        slow = [_bayes(float(value), t, p, centre, width) for value in x[:, cell]]
        np.testing.assert_allclose(found[:, cell].numpy(), slow, atol=2e-3)


def test_outputs_change_probability_mean_and_width() -> None:
    layer, t = _fitted(), 0.5
    x = torch.linspace(-2.0, 2.0, 15)[:, None].repeat(1, 4)
    change, shift, stretch = 1.5, -0.7, 0.4
    outputs = tuple(torch.full_like(x, value) for value in (change, shift, stretch))
    found = layer(x, torch.full((15,), t), outputs)
    for cell in range(3):
        p = float(torch.sigmoid(layer.logit[cell] + change))
        centre = float(layer.centre[cell] + shift * layer.spread[cell])
        width = float(layer.spread[cell]) * math.exp(3.0 * math.tanh(stretch / 3.0))
        slow = [_bayes(float(value), t, p, centre, width) for value in x[:, cell]]
        np.testing.assert_allclose(found[:, cell].numpy(), slow, atol=2e-3)


def test_at_the_start_it_is_the_mean_and_at_the_end_the_value() -> None:
    layer, (values, _) = _fitted(), _cells(200)
    mean = torch.sigmoid(layer.logit) * (layer.centre + 1.0) - 1.0
    start = layer(_normal(200, 4), torch.zeros(200), _zeros(values))
    torch.testing.assert_close(start, mean.expand(200, -1), rtol=0, atol=1e-4)
    end = layer(values, torch.full((200,), 1.0), _zeros(values))
    torch.testing.assert_close(end, values, rtol=0, atol=0.05)


def test_a_core_cell_is_normal_with_its_mean_and_width() -> None:
    """The linear estimate, also for values near -1."""
    layer = _fitted()
    x, time = _normal(50, 4), 0.02 + 0.9 * _uniform(50)
    found = layer(x, time, _zeros(x))[:, 3]
    t, m, s = time, layer.centre[3], layer.spread[3]
    slow = m + t * s**2 / (t**2 * s**2 + (1 - t) ** 2) * (x[:, 3] - t * m)
    torch.testing.assert_close(found, slow, rtol=0, atol=0.05)


def test_no_other_mean_or_probability_has_a_smaller_loss() -> None:
    layer, (data, _) = _fitted(), _cells(40_000, seed=3)
    noise, times = _normal(40_000, 4, seed=4), 0.05 + 0.8 * _uniform(40_000, seed=5)

    def loss(*shifts: float) -> float:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return layer(x, t, tuple(torch.full_like(x, value) for value in shifts))

        return float(flow_loss(denoise, data, noise, times))

    best = loss(0.0, 0.0, 0.0)
    for position in range(3):
        for step in (-0.4, 0.4):
            changed = [0.0, 0.0, 0.0]
            changed[position] = step
            assert loss(*changed) > best


def test_its_flow_ends_with_empty_and_filled_cells_as_often_as_in_the_data() -> None:
    layer, n = _fitted(), 20_000
    with torch.no_grad():
        made = integrate(lambda x, t: layer(x, t, _zeros(x)), _normal(n, 4, seed=6), time_grid(60))
    data, _ = _cells(n, seed=7)
    for cell in range(3):
        mine, true = made[:, cell], data[:, cell]
        for border in (-0.5, float(CENTRE[cell])):
            assert float((mine > border).float().mean()) == pytest.approx(
                float((true > border).float().mean()), abs=0.015
            )
        assert float(mine.mean()) == pytest.approx(float(true.mean()), abs=0.02)
        assert float(mine.std()) == pytest.approx(float(true.std()), rel=0.03)
    assert float(made[:, 3].mean()) == pytest.approx(0.0, abs=0.03)
    assert float(made[:, 3].std()) == pytest.approx(1.0, rel=0.03)


def test_wild_inputs_stay_finite() -> None:
    layer = _fitted()
    x = torch.tensor([[-1e3, 1e3, 50.0, -50.0]]).repeat(3, 1).requires_grad_()
    outputs = tuple(torch.full((3, 4), value).requires_grad_() for value in (1e3, -1e2, 1e3))
    found = layer(x, torch.tensor([0.0, 0.5, 1.0]), outputs)
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (x, *outputs))
