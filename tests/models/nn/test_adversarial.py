"""Losses of critics and their gradient penalties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from caloforge.models.nn.adversarial import CRITIC_LOSSES, gradient_penalty, gradient_square
from caloforge.models.nn.cell_networks import mlp


def test_it_is_the_penalty_by_hand_for_a_linear_critic() -> None:
    """D(x) = w x has the gradient w everywhere: P = (|w| - 1)^2, dP/dw = 2 (|w| - 1) w / |w|."""
    critic = nn.Linear(3, 1)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[3.0, 0.0, 4.0]]))
    penalty = gradient_penalty(critic, torch.randn(6, 3), torch.randn(6, 3), torch.rand(6, 1))
    assert penalty.item() == pytest.approx(16.0, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(critic.weight.grad, 8.0 * torch.tensor([[0.6, 0.0, 0.8]]))


def test_it_is_two_sided() -> None:
    critic = nn.Linear(3, 1)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[0.3, 0.0, 0.4]]))
    penalty = gradient_penalty(critic, torch.randn(6, 3), torch.randn(6, 3), torch.rand(6, 1))
    assert penalty.item() == pytest.approx(0.25, rel=1e-5)


def test_it_is_autograd_row_by_row_between_the_showers() -> None:
    torch.manual_seed(0)
    critic = mlp(4, (8, 8), 1).double()
    real, fake, mix = torch.randn(5, 4).double(), torch.randn(5, 4).double(), torch.rand(5, 1).double()
    penalty = gradient_penalty(critic, real, fake, mix)
    total = 0.0
    for i in range(5):
        between = (real[i] + mix[i] * (fake[i] - real[i])).requires_grad_(True)
        jacobian = torch.autograd.functional.jacobian(critic, between)
        total += (float(jacobian.norm()) - 1.0) ** 2
    assert penalty.item() == pytest.approx(total / 5, rel=1e-6)
    penalty.backward()
    assert all(p.grad is not None for name, p in critic.named_parameters() if name.endswith("weight"))


def test_losses_of_critics() -> None:
    real, made = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    assert CRITIC_LOSSES["wasserstein"].critic(real, made) == -1.0
    assert CRITIC_LOSSES["wasserstein"].generator(made + 1.0) == -1.0
    expected = sum(math.log1p(math.exp(-v)) for v in (2.0, 0.0)) / 2
    expected += sum(math.log1p(math.exp(v)) for v in (-1.0, 1.0)) / 2
    assert float(CRITIC_LOSSES["bce"].critic(real, made)) == pytest.approx(expected, rel=1e-5)
    x, weight = torch.randn(3, 4), torch.tensor([1.0, -2.0, 0.0, 2.0])
    penalty = CRITIC_LOSSES["bce"].penalty(lambda v: v @ weight, x, x, torch.rand(3, 1))
    assert float(penalty) == pytest.approx(0.5 * 9.0)
    penalty = CRITIC_LOSSES["wasserstein"].penalty(lambda v: v @ weight, x, x + 1, torch.rand(3, 1))
    assert float(penalty) == pytest.approx((3.0 - 1.0) ** 2, rel=1e-4)


def test_gradient_square_of_a_linear_function_is_its_weights() -> None:
    weights = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    x = torch.rand(4, 3, requires_grad=True)
    penalty = gradient_square(x @ weights, x)
    assert penalty.item() == pytest.approx(14.0)
    (gradient,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(gradient, 2 * weights)


@pytest.mark.parametrize("name", sorted(CRITIC_LOSSES))
def test_losses_have_the_right_sign(name: str) -> None:
    loss = CRITIC_LOSSES[name]
    high, low = torch.tensor([3.0, 2.5]), torch.tensor([-3.0, -2.5])
    assert loss.critic(high, low) < loss.critic(low, high)
    assert loss.generator(high) < loss.generator(low)


def test_losses_and_penalties_are_analytic() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert float(CRITIC_LOSSES["wasserstein"].critic(real, fake)) == -1.0
    assert float(CRITIC_LOSSES["wasserstein"].generator(fake)) == -1.0
    expected = np.mean(np.log1p(np.exp([-1.0, -3.0]))) + np.mean(np.log1p(np.exp([0.0, 2.0])))
    assert float(CRITIC_LOSSES["bce"].critic(real, fake)) == pytest.approx(expected, rel=1e-5)
    weights, x = torch.tensor([3.0, 4.0]), torch.rand(3, 2)
    penalties = {
        name: float(loss.penalty(lambda v: v @ weights, x, x + 1.0, torch.rand(3, 1)))
        for name, loss in CRITIC_LOSSES.items()
    }
    assert penalties == pytest.approx({"wasserstein": (5.0 - 1.0) ** 2, "bce": 0.5 * 25.0}, rel=1e-5)
