"""Posterior of empty and filled cells: its loss, its flow, numbers of filled cells, convolutions over neighbours, core cells."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.networks import LocalNetwork
from caloforge.models.flow.path import EMPTY, NOISE, LayerBalance, SpikeSlab, integrate
from caloforge.models.flow.sampling import repeated
from caloforge.models.flow.summary import CoreMoments


def slab(logit: Tensor, centre: Tensor, spread: Tensor) -> SpikeSlab:
    posterior = SpikeSlab(len(logit))
    posterior.logit.copy_(logit)
    posterior.centre.copy_(centre)
    posterior.spread.copy_(spread)
    return posterior


def nothing(shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)


def density(x: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    variance = torch.as_tensor(variance, dtype=x.dtype)
    return torch.exp(-0.5 * (x - mean).square() / variance) / torch.sqrt(2 * math.pi * variance)


def test_posterior_is_that_of_bayes() -> None:
    p, centre, spread, t = 0.2, 1.8, 0.5, 0.4
    posterior = slab(torch.tensor([math.log(p / (1 - p))]), torch.tensor([centre]), torch.tensor([spread]))
    x = torch.linspace(-1.5, 2.5, 9)[:, None]
    odds, mean, variance = posterior.posterior(x, torch.full((9,), t), nothing((9, 1)))
    grid = torch.linspace(-3.0, 6.0, 20_001)
    noise = (1 - t) ** 2 + NOISE**2
    filled = p * density(grid, centre, spread**2) * density(x, t * grid, noise)
    step = float(grid[1] - grid[0])
    total = filled.sum(1) * step
    empty = (1 - p) * density(x[:, 0], t * EMPTY, noise)
    assert torch.allclose(torch.sigmoid(odds[:, 0]), total / (total + empty), atol=1e-4)
    assert torch.allclose(mean[:, 0], (filled * grid).sum(1) * step / total, atol=1e-3)
    second = (filled * (grid - mean).square()).sum(1) * step / total
    assert torch.allclose(variance[:, 0], second, rtol=1e-2)


def test_loss_is_least_for_the_true_probability_and_width() -> None:
    generator = torch.Generator().manual_seed(1)
    n = 40_000
    filled = torch.rand(n, 1, generator=generator) < 0.1
    value = 2.0 + 0.6 * torch.randn(n, 1, generator=generator)
    data = torch.where(filled, value, EMPTY)
    time = torch.rand(n, generator=generator)
    x = torch.lerp(torch.randn(n, 1, generator=generator), data, time[:, None])

    def loss(p: float, centre: float, spread: float) -> float:
        numbers = (torch.tensor([z]) for z in (math.log(p / (1 - p)), centre, spread))
        return float(slab(*numbers).loss(x, time, nothing((n, 1)), data))

    best = loss(0.1, 2.0, 0.6)
    for other in ((0.05, 2.0, 0.6), (0.2, 2.0, 0.6), (0.1, 1.8, 0.6), (0.1, 2.0, 0.45), (0.1, 2.0, 0.8)):
        assert best < loss(*other) - 1e-3


def test_few_steps_fill_as_many_cells_as_the_probability_says() -> None:
    p, n = 0.03, 20_000
    posterior = slab(torch.tensor([math.log(p / (1 - p))]), torch.tensor([2.0]), torch.tensor([0.6]))
    start = torch.special.ndtri((torch.arange(n) + 0.5) / n)[:, None]
    x = start
    for step in range(8):
        x = posterior.advance(x, nothing((n, 1)), step / 8, (step + 1) / 8, 4)
    filled = x > 0.5
    assert float(filled.float().mean()) == pytest.approx(p, rel=0.03)
    assert float(x[filled].mean()) == pytest.approx(2.0, abs=0.05)
    assert float(x[filled].std()) == pytest.approx(0.6, abs=0.05)
    coarse = integrate(lambda x, t: posterior(x, t, nothing((n, 1))), start, [k / 4 for k in range(5)])
    found = coarse > 0.5
    error = abs(float(found.float().mean()) - p) / p + abs(float(coarse[found].mean()) - 2.0)
    assert error > 0.1  # four Heun steps without the inner ones fill other cells


@pytest.mark.parametrize("steps", [1, 3])
def test_draws_have_the_posterior_of_independent_cells_in_any_number_of_steps(steps: int) -> None:
    p, n = 0.1, 40_000
    posterior = slab(torch.tensor([math.log(p / (1 - p))]), torch.tensor([2.0]), torch.tensor([0.6]))
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(1, n, generator=generator)
    x = noise.T
    for turn in range(steps):
        normal = repeated(noise, turn).T
        x = posterior.draw(x, nothing((n, 1)), turn / steps, (turn + 1) / steps, normal)
    filled = x != EMPTY
    assert float(filled.float().mean()) == pytest.approx(p, rel=0.06)
    assert float(x[filled].mean()) == pytest.approx(2.0, abs=0.04)
    assert float(x[filled].std()) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_balanced_layers_expect_the_number(factor: float) -> None:
    layer = torch.tensor([0] * 30 + [1] * 20)
    odds = torch.linspace(-6.0, 3.0, 50).repeat(2, 1)

    def expected(odds: Tensor) -> Tensor:
        p = torch.sigmoid(odds)
        return torch.stack([p[:, layer == k].sum(1) for k in range(2)], 1)

    wanted = expected(odds) * torch.tensor([factor, 0.5 + 0.5 * factor])
    change = LayerBalance(layer, 2)(odds, wanted)
    assert torch.allclose(expected(odds + change), wanted, rtol=0.02)
    assert change[:, :30].std(1).max() == 0


def test_neighbours_change_nothing_before_training_and_see_seven_cells() -> None:
    network = LocalNetwork((9, 9, 9), 4, 3)
    inputs = torch.randn(2, 2 + LocalNetwork.features, 9**3)
    assert network(inputs).abs().max() == 0
    last = network.net[-1]
    torch.nn.init.normal_(last.weight)
    other = inputs.clone().view(2, -1, 9, 9, 9)
    other[:, :, 0, 0, 0] += 1.0
    changed = (network(inputs) != network(other.flatten(2))).view(2, 3, 9, 9, 9)[0].any(0)
    assert changed[3, 3, 3]
    assert not changed[4:].any()
    assert not changed[:, 4:].any()


def test_core_cells_are_empty_as_often_as_in_training() -> None:
    core = CoreMoments(torch.zeros(3, dtype=torch.int64), 0.5)
    core.cells, core.spread = torch.tensor([0, 2]), torch.ones(2)
    generated = torch.arange(100.0)[:, None].repeat(1, 2)
    core.fit_edge(generated, torch.tensor([0.1, 0.0], dtype=torch.float64))
    assert (generated < core.edge).sum(0).tolist() == [10, 0]
