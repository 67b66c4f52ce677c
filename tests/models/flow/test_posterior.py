"""Posterior means of cells that are empty or filled, against Bayes by numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.models.flow.path import JumpPosterior, SpikeSlab, flow_loss, integrate, time_grid

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


N, CELLS = 200, 50
every = pytest.mark.parametrize("time", [0.0, 0.25, 0.5, 0.9])


def _pair(time: float) -> tuple[JumpPosterior, SpikeSlab]:
    """Both with the same averages."""
    jump, general = JumpPosterior(CELLS, time), SpikeSlab(CELLS)
    general.logit.copy_(2.0 * _normal(CELLS, seed=1) - 2.0)
    general.centre.copy_(1.0 + 0.2 * _normal(CELLS, seed=2))
    general.spread.copy_(torch.rand(CELLS, generator=torch.Generator().manual_seed(3)) + 0.1)
    for name in ("logit", "centre", "spread"):
        getattr(jump, name).copy_(getattr(general, name))
    return jump, general


@every
def test_before_training_they_are_those_of_the_general_form(time: float) -> None:
    jump, general = _pair(time)
    x, change, none = _normal(N, CELLS, seed=4), _normal(N, CELLS, seed=5), torch.zeros(N, CELLS)
    t = torch.full((N,), time)
    expected = general(x, t, (change, none, none))
    torch.testing.assert_close(jump(x, t, (change, none)), expected, rtol=1e-3, atol=1e-3)


@every
def test_learnt_numbers_of_a_cell_are_those_that_the_general_form_takes_for_each(time: float) -> None:
    """Change of the logit, of the mean and of the width."""
    jump, general = _pair(time)
    x, t, none = _normal(N, CELLS, seed=4), torch.full((N,), time), torch.zeros(N, CELLS)
    change, shift, stretch = (0.5 * _normal(CELLS, seed=seed) for seed in (6, 7, 8))
    with torch.no_grad():
        jump.changes[0], jump.changes[2], jump.changes[3] = change, shift, stretch
    expected = general(x, t, tuple(part.expand(N, -1) for part in (change, shift, stretch)))
    torch.testing.assert_close(jump(x, t, (none, none)), expected, rtol=1e-3, atol=1e-3)


def test_the_network_moves_the_mean_of_filled_cells() -> None:
    jump, general = _pair(0.5)
    jump.logit.fill_(40.0)
    general.logit.fill_(40.0)
    x, shift, none = _normal(N, CELLS, seed=4), _normal(N, CELLS, seed=5), torch.zeros(N, CELLS)
    t = torch.full((N,), 0.5)
    expected = general(x, t, (none, shift, none))
    torch.testing.assert_close(jump(x, t, (none, shift)), expected, rtol=1e-3, atol=1e-3)


def test_a_cell_can_follow_a_way_that_no_posterior_mean_does() -> None:
    """From noise straight to N(1, 1/4): x -> 1 + x / 2, which needs the learnt slope at t = 0."""
    jump = JumpPosterior(1, 0.0)
    jump.logit.fill_(40.0)
    x = _normal(4000, 1)
    none = torch.zeros_like(x)
    optimiser = torch.optim.Adam(jump.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        (jump(x, none[:, 0], (none, none)) - (1.0 + 0.5 * x)).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(jump(x, none[:, 0], (none, none)), 1.0 + 0.5 * x, rtol=0, atol=1e-2)
