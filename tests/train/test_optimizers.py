"""Learning rates against their formulas, optimisers against settings, averages against the slow sum."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from caloforge.models.stage import OptimizerSpec
from caloforge.settings import OptimizerSettings
from caloforge.train.updater import MovingAverage, build_optimizer, learning_rate


def _rates(steps: int = 100, **settings) -> list[float]:
    made = OptimizerSettings(lr=2.0, **settings)
    return [learning_rate(made, step, steps, 10) for step in range(steps)]


def test_constant_and_warm_up() -> None:
    assert set(_rates()) == {2.0}
    assert _rates(warmup=4)[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_cosine_ends_at_its_final_part() -> None:
    rates = _rates(schedule="cosine", final=0.1)
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(0.5 * (2.0 + 0.2))
    assert rates[-1] == pytest.approx(0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_exponential_falls_once_an_epoch() -> None:
    rates = _rates(schedule="exponential", gamma=0.5)
    assert rates[:10] == [2.0] * 10
    assert rates[10:20] == [1.0] * 10
    assert rates[99] == pytest.approx(2.0 * 0.5**9)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_every_kind_lowers_a_loss(kind: str, expected: type) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    settings = OptimizerSettings(kind=kind, lr=0.05, betas=(0.5, 0.9), alpha=0.9, weight_decay=0.01)
    optimizer = build_optimizer(OptimizerSpec((parameter,), settings), fused=False)
    assert type(optimizer) is expected
    [group] = optimizer.param_groups
    assert group["weight_decay"] == 0.01
    assert group.get("betas", (0.5, 0.9)) == (0.5, 0.9)
    assert group.get("alpha", 0.9) == 0.9
    before = float(parameter.detach().square().sum())
    for _ in range(5):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert float(parameter.detach().square().sum()) < before


def test_parameters_shared_by_modules_count_once() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    spec = OptimizerSpec.of(OptimizerSettings(), first, second)
    assert len(spec.parameters) == 3


def test_average_against_the_recursion() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = MovingAverage([parameter], 0.5)
    slow = parameter.detach().clone()
    for k in range(20):
        with torch.no_grad():
            parameter.add_(torch.tensor([1.0, -0.5]))
        average.update()
        decay = min(0.5, (1 + k) / (10 + k))
        slow = decay * slow + (1 - decay) * parameter.detach()
    assert torch.allclose(average.values[0], slow)
    kept = parameter.detach().clone()
    with average.applied():
        assert torch.allclose(parameter, slow)
    assert torch.equal(parameter, kept)
    assert torch.allclose(average.values[0], slow)
    other = MovingAverage([nn.Parameter(torch.zeros(2))], 0.5)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.values[0], average.values[0])
    assert other.updates == 20
